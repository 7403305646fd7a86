"""`efnet predict` on two videos or cameras."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from efnet.cli.options import check_file_writable, check_folder_writable
from efnet.cli.predict_inputs import NONE, InputOptions, given
from efnet.core.errors import InputError

if TYPE_CHECKING:
    from efnet.inference.predictor import Predictor
    from efnet.video.options import VideoOptions, VideoSummary


def add_video_arguments(parser: ArgumentParser) -> None:
    """Declare the options that only videos have."""
    parser.add_argument(
        "--video-style", type=str, default="overlay", help="video: overlay, map, or side-by-side"
    )
    parser.add_argument(
        "--maps", type=str | None, default=None, help="video: folder for an index PNG of each frame"
    )
    parser.add_argument(
        "--smooth",
        type=float,
        default=0.0,
        help="video: weight of the past in a running mean of probabilities, 0 (none) to below 1",
    )
    parser.add_argument("--offset", type=float, default=0.0, help="video: seconds added to thermal times")
    parser.add_argument(
        "--max-gap",
        type=float | None,
        default=None,
        help="video: greatest time difference of a pair, seconds (default: one thermal frame)",
    )
    parser.add_argument(
        "--clock",
        type=str,
        default="start",
        help="video: times count from each video's first frame (start), or are its own time stamps (stamp)",
    )


def is_video_run(args: Namespace) -> bool:
    """Whether the options name videos or cameras.

    Raises:
        InputError: one of them is a video and the other is not, or a four-channel video.
    """
    from efnet.video.source import is_video

    if is_video(args.rgbt):
        raise InputError(
            f"--rgbt {args.rgbt}: there is no four-channel video; give two videos, --rgb and --thermal"
        )
    named = {option: args[option] for option in ("rgb", "thermal") if args[option] not in (None, NONE)}
    videos = [option for option, value in named.items() if is_video(value)]
    if videos and len(videos) < len(named):
        raise InputError(
            f"--{videos[0]} is a video and the other input is not; give two videos or two folders"
        )
    return bool(videos)


def run_video(args: Namespace, predictor: Predictor, inputs: InputOptions) -> int:
    """Predict; see `efnet predict --help`.

    Returns:
        0.

    Raises:
        InputError: an option is wrong, a video cannot be read or written.
        KeyboardInterrupt: after the frames so far were written.
    """
    from efnet.video.segment import predict_video

    out, options = Path(args.out), read_options(args)
    with _progress() as bar:
        task = bar.add_task("frames", total=None, rate="")
        started = time.perf_counter()

        def progress(done: int, total: int | None) -> None:
            rate = done / (time.perf_counter() - started)
            bar.update(
                task, completed=done, total=None if total is None else max(total, done), rate=f"{rate:.1f}/s"
            )

        def tell(line: str) -> None:
            bar.console.print(line, markup=False, highlight=False)

        summary = predict_video(predictor, given(args.rgb), given(args.thermal), out, options, progress, tell)
    text = _described(summary, out, inputs)
    if summary.interrupted:
        raise KeyboardInterrupt(f"stopped; {text}")
    print(text)
    return 0


def read_options(args: Namespace) -> VideoOptions:
    """The options, checked.

    Raises:
        InputError: one is unknown or out of its range.
    """
    from efnet.video.options import VideoOptions, check_style
    from efnet.video.source import check_clock

    return VideoOptions(
        style=check_style(args.video_style),
        opacity=args.opacity,
        smooth=args.smooth,
        offset=args.offset,
        max_gap=args.max_gap,
        clock=check_clock(args.clock),
        maps=None if args.maps is None else Path(args.maps),
        batch_size=args.batch_size,
    )


def prepare_outputs(args: Namespace, out: Path, options: VideoOptions) -> None:
    """See that nothing is replaced unasked, and that what must be written can be.

    Raises:
        InputError: the file or maps of another run are there, or the place cannot be written.
    """
    from efnet.video.writer import check_container

    check_container("--out", out)
    check_file_writable("--out", out)
    check_folder_writable("--maps", options.maps)
    if out.exists() and not args.overwrite:
        raise InputError(
            f"--out {out}: is there already; choose another name, or replace it with --overwrite"
        )
    if options.maps is not None and options.maps.is_dir():
        # A shorter video would leave the last frames of a longer one behind.
        old = [file for file in options.maps.iterdir() if re.fullmatch(r"\d{6,}\.png", file.name)]
        if old and not args.overwrite:
            raise InputError(
                f"--maps {options.maps}: holds maps already; choose another folder, or replace them with "
                "--overwrite"
            )
        for file in old:
            file.unlink()


def _described(summary: VideoSummary, out: Path, inputs: InputOptions) -> str:
    """What was done, in one line."""
    rate = summary.frames / summary.seconds if summary.seconds else 0.0
    text = f"predicted {summary.frames} frames in {summary.seconds:.1f} s ({rate:.1f} per second)"
    text += inputs.described()
    for camera, reasons in summary.missing.items():
        for reason, count in reasons.items():
            text += f", {count} with {camera} {reason}"
    if summary.dropped:
        text += f", {summary.dropped} dropped because they came too fast"
    if summary.damaged:
        text += f", {summary.damaged} damaged packets"
    return f"{text}: {out}"


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
    )
