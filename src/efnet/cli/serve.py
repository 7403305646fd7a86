"""`efnet serve`: a trained network behind HTTP, with a page to try it."""

from __future__ import annotations

import dataclasses
import os
import sys
from importlib.util import find_spec

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.arguments import DEVICE, NETWORK, PALETTE, PRECISION, add_options, check_minima, say_default
from efnet.core.errors import InputError

DESCRIPTION = (
    "Serve a trained network over HTTP: POST /v1/segment for programs, a page at / for people, /docs for "
    "both. There is no authentication: it listens on this machine alone unless --host says otherwise."
)

_NEEDS = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_options(
        parser,
        checkpoint=NETWORK,
        host=("127.0.0.1", "address to listen on"),
        port=(8000, "0 takes a free one"),
        device=DEVICE,
        precision=PRECISION,
        thermal_palette=PALETTE,
        threads=(0, "of PyTorch on the CPU; 0 leaves it to PyTorch"),
        max_bytes=(33_554_432, "of a request"),
        max_pixels=(8_388_608, "of one image, read from its header"),
        timeout=(30.0, "seconds from a request's arrival to its answer"),
        max_concurrent=(16, "requests in progress; further ones get status 503"),
        batch_size=(4, "pairs in one pass of the network"),
        batch_wait_ms=(5.0, "how long a pair waits for others of its size"),
        allow_host=([], "names that requests may use for this service, such as a proxy's; * for any"),
    )


def run(args: Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; return 0, or exit with 1 if the network does not end."""
    missing = [name.replace("_", "-") for name in _NEEDS if find_spec(name) is None]
    if missing:
        raise InputError(f"serving needs {', '.join(missing)}: pip install 'efnet[serve]'")
    check_minima(args, threads=0)
    import torch

    from efnet.core.devices import check_precision
    from efnet.inference.predictor import Predictor
    from efnet.service.app import create_app
    from efnet.service.middleware import own_names
    from efnet.service.segmenter import Limits
    from efnet.service.server import bind, serve, url_of

    precision = check_precision(args.precision)
    limits = Limits(**{field.name: args[field.name] for field in dataclasses.fields(Limits)})
    if args.threads:
        torch.set_num_threads(args.threads)
    with bind(args.host, args.port) as listener:
        predictor = Predictor.from_pretrained(args.checkpoint, args.device, precision)
        say_default(args.checkpoint, predictor)
        if args.thermal_palette is not None:
            predictor.use_palette(args.thermal_palette)
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
