"""`efnet serve`: a trained network behind HTTP, with a page to try it."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from jsonargparse import ArgumentParser, Namespace

from efnet.core.errors import InputError

DESCRIPTION = (
    "Serve a trained network over HTTP: POST /v1/segment for programs, a page at / for people, /docs for "
    "both. There is no authentication: it listens on this machine alone unless --host says otherwise."
)

_NEEDS = ("fastapi", "uvicorn", "python_multipart")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--checkpoint",
        type=str,
        required=True,
        help="run folder, checkpoint folder, or owner/name on the hub",
    )
    parser.add_argument("--host", type=str, default="127.0.0.1", help="address to listen on")
    parser.add_argument(
        "--allow-host",
        type=str,
        nargs="+",
        default=[],
        help="names that requests may use for this service, such as a proxy's; * for any",
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--precision", type=str, default="32", help="32 or bf16 (autocast)")
    parser.add_argument(
        "--threads", type=int, default=0, help="of PyTorch on the CPU; 0 leaves it to PyTorch"
    )
    parser.add_argument("--max-bytes", type=int, default=33_554_432, help="of a request")
    parser.add_argument(
        "--max-pixels", type=int, default=8_388_608, help="of one image, looked up before it is decoded"
    )
    parser.add_argument(
        "--timeout", type=float, default=30.0, help="seconds from a request's arrival to its answer"
    )
    parser.add_argument(
        "--max-concurrent", type=int, default=16, help="requests under way; more are told to come back"
    )
    parser.add_argument("--batch-size", type=int, default=4, help="pairs in one pass of the network")
    parser.add_argument(
        "--batch-wait-ms", type=float, default=5.0, help="how long a pair waits for others of its size"
    )


def run(args: Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; see `efnet serve --help`.

    Returns:
        0. The process ends with 1 where the network would not stop.

    Raises:
        InputError: the extra `serve` is missing, or an option, the checkpoint or the port is wrong.
    """
    missing = [name.replace("_", "-") for name in _NEEDS if find_spec(name) is None]
    if missing:
        raise InputError(f"serving needs {', '.join(missing)}: pip install 'efnet[serve]'")
    if args.threads < 0:
        raise InputError(f"--threads {args.threads} is below 0")
    from efnet.core.devices import check_precision
    from efnet.service.limits import Limits

    precision = check_precision(args.precision)
    limits = Limits(
        max_bytes=args.max_bytes,
        max_pixels=args.max_pixels,
        timeout=args.timeout,
        max_concurrent=args.max_concurrent,
        batch_size=args.batch_size,
        batch_wait_ms=args.batch_wait_ms,
    )
    import torch

    from efnet.inference.predictor import Predictor
    from efnet.service.app import create_app
    from efnet.service.host_check import own_names
    from efnet.service.server import bind, serve, url_of

    if args.threads:
        torch.set_num_threads(args.threads)
    listener = bind(args.host, args.port)
    with listener:
        predictor = Predictor.from_pretrained(args.checkpoint, args.device, precision)
        app = create_app(predictor, limits, own_names(args.host, args.allow_host))
        where = f"{predictor.model.name} on {predictor.device}"

        def announce() -> None:
            print(f"serving {where} at {url_of(listener)} (Ctrl-C ends it)", flush=True)

        ended = serve(app, listener, limits, announce)
    print("stopped", flush=True)
    if not ended:
        print("efnet: error: the network did not end in time and was broken off", file=sys.stderr, flush=True)
        # An orderly exit would tear PyTorch down under the thread that is still computing, and abort.
        os._exit(1)
    return 0
