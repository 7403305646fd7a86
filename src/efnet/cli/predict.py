"""`efnet predict`: label maps, colour pictures and overlays of files, folders, globs and videos."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from efnet.cli import inference_options
from efnet.cli.arguments import MATCH, add_options, apply_match, check_minima, split_words
from efnet.cli.inference_options import NONE, InferenceOptions, MissingCount
from efnet.cli.options import check_file_writable, check_folder_writable
from efnet.core.errors import InputError
from efnet.core.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from efnet.inference.inputs import InputPair
    from efnet.inference.missing_cameras import Camera
    from efnet.inference.predictor import Predictor
    from efnet.inference.resume import PredictionJournal
    from efnet.inference.stream import Shard
    from efnet.video.segment import VideoOptions, VideoSummary

DESCRIPTION = "Segment images without labels. Continues an interrupted run where it stopped."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_options(
        parser,
        rgb="colour images: file, folder or glob; video, stream's URL, /dev/video0; none: no such camera",
        thermal="thermal images, likewise",
        rgbt="four-channel images, thermal last: file, folder or glob; or tars of pairs (efnet data pack): "
        "folder, glob, or names separated by commas",
        match=MATCH,
        out=(str, "output folder; for videos a file (.mp4, .mkv, .mov)"),
    )
    inference_options.add_inference_arguments(parser, missing="warn")
    add_options(
        parser,
        save=(
            "index,color,overlay",
            "what to write, each to its sub-folder: index (palette PNG of class indices), color, overlay, "
            "probabilities (float16 .npy, classes first)",
        ),
        opacity=(0.5, "of the class colours in the overlay, 0..1"),
        workers=(2, "threads that read and write files"),
        page=(int | None, "which page of TIFFs that have several, from 1; overviews do not count"),
        overwrite=(False, "redo what is there already"),
        shard="predict one part of the pairs, such as 2/5; other processes or machines take the others, into "
        "the same --out (processes of torchrun or srun share the work without it)",
        video_style=("overlay", "video: overlay, map, or side-by-side"),
        maps="video: folder for an index PNG of each frame",
        smooth=(0.0, "video: weight of the past in a running mean of probabilities, 0 (none) to below 1"),
        offset=(0.0, "video: seconds added to thermal times"),
        max_gap=(
            float | None,
            "video: greatest time difference of a pair, seconds (default: one thermal frame)",
        ),
        clock=(
            "start",
            "video: times count from each video's first frame (start), or are its own time stamps (stamp)",
        ),
    )


def run(args: Namespace) -> int:
    """Predict; return 0, or 2 if some images could not be predicted (all others were)."""
    from efnet.inference.inputs import find_pairs
    from efnet.inference.postprocess import output_paths
    from efnet.inference.stream import Shard

    outputs = tuple(split_words(args.save))
    if not outputs:
        raise InputError("--save is empty; name at least one of index, color, overlay, probabilities")
    output_paths(args.out, "", outputs)  # refuses unknown names before anything is loaded
    if not 0.0 <= args.opacity <= 1.0:
        raise InputError(f"--opacity {args.opacity} is not between 0 and 1")
    check_minima(args, workers=1)
    if args.homography is not None and (args.rgbt is not None or NONE in (args.rgb, args.thermal)):
        raise InputError("--homography aligns two cameras: give both --rgb and --thermal")
    options, shard = InferenceOptions.read(args, "warn"), Shard.choose(args.shard)
    out = Path(args.out)
    if _is_video_run(args):
        if shard.count > 1:
            raise InputError(f"--shard {shard.number}/{shard.count}: a video is predicted by one process")
        return _predict_video(args, options, out)
    apply_match(args)
    check_folder_writable("--out", out)
    pairs = find_pairs(_given(args.rgb), _given(args.thermal), args.rgbt, exclude=out, page=args.page)
    absent: tuple[Camera, ...] = ("rgb", "thermal")
    for camera in absent:
        if args[camera] == NONE:
            pairs = tuple(replace(pair, absent=camera) for pair in pairs)
    return _predict_images(args, _load(args, options), pairs, outputs, options, shard)


def _load(args: Namespace, options: InferenceOptions) -> Predictor:
    from efnet.inference.stream import device_of_rank

    predictor = options.load(args, device_of_rank(args.device))
    inference_options.check_given(args, predictor.modality)
    return predictor


def _given(value: str | None) -> str | None:
    """Return the value of `--rgb` or `--thermal`, None for `none`."""
    return None if value == NONE else value


def _predict_images(
    args: Namespace,
    predictor: Predictor,
    pairs: tuple[InputPair, ...],
    outputs: tuple[str, ...],
    options: InferenceOptions,
    shard: Shard,
) -> int:
    """Predict this process's part of `pairs` and print a summary; return the exit status."""
    import efnet
    from efnet.inference.resume import PredictionJournal, remove_leftovers
    from efnet.inference.stream import wait_for_others

    opacity = {"opacity": args.opacity} if "overlay" in outputs else {}
    settings = {**inference_options.journal_settings(predictor), **opacity, **options.settings()}
    classes = predictor.classes.to_dict()
    about = {"checkpoint": args.checkpoint, "efnet": efnet.__version__, "classes": classes}
    journal = PredictionJournal(Path(args.out), settings, about, args.overwrite, shard)
    left = journal.unfinished(pairs, outputs)
    started = time.perf_counter()
    with journal:
        remove_leftovers(journal.folder, left, pairs, outputs)
        faults, missing = _write_all(args, predictor, left, outputs, journal)
    done, seconds = len(left) - len(faults), time.perf_counter() - started
    own = len(shard.pick(pairs))
    skipped = f", {own - len(left)} finished before" if len(left) < own else ""
    rate = f" in {seconds:.1f} s ({done / seconds:.1f} per second)" if done else ""
    part = f", part {shard} ({len(pairs)} in all)" if shard.count > 1 else ""
    remarks = f"{rate}{skipped}{options.described()}{missing.described()}"
    print(f"predicted {done} of {own} images{part}{remarks}: {journal.folder}/{{{','.join(outputs)}}}")
    inference_options.print_faults("images", faults)
    return 2 if wait_for_others(len(faults)) else 0


def _write_all(
    args: Namespace,
    predictor: Predictor,
    pairs: list[InputPair],
    outputs: tuple[str, ...],
    journal: PredictionJournal,
) -> tuple[list[str], MissingCount]:
    """Predict and write `pairs`; return a line for each that could not be read, and the dead images."""
    from efnet.core.distributed import world_size
    from efnet.inference.postprocess import Prediction
    from efnet.inference.preprocess import Prepared
    from efnet.inference.stream import predict_files

    def save(
        pair: InputPair, prediction: Prediction, prepared: Prepared
    ) -> tuple[tuple[int, int], dict[str, float], Mapping[Camera, str]]:
        prediction.save(journal.folder, pair.name, outputs, rgb=prepared.original, opacity=args.opacity)
        return prepared.size, prediction.shares(), prepared.missing

    faults: list[str] = []
    finished = 0
    hidden = world_size() > 1 and journal.shard.number > 1  # only one process draws a bar
    with progress_bar("predict", rate=True, disable=hidden) as bar:
        missing = MissingCount(predictor.spared, bar.print)
        same = {"batch_size": args.batch_size, "workers": args.workers}
        stream = predict_files(predictor, pairs, save, **same, probabilities="probabilities" in outputs)
        bar(0, len(pairs))
        try:
            for pair, result in stream:
                if isinstance(result, InputError):
                    faults.append(pair.blame(result))
                else:
                    journal.add(pair, *result)
                    missing.add(" and ".join(map(str, pair.files)), result[2])
                    finished += 1
                bar(finished + len(faults), len(pairs))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped after {finished} of {len(pairs)} images; run the same command again to go on"
            ) from None
        # Raised by writing or by the network: images that cannot be read come as results.
        except (InputError, OSError) as error:
            unwritable = f"{journal.folder}: cannot be written ({getattr(error, 'strerror', None) or error})"
            raise InputError(
                f"{error if isinstance(error, InputError) else unwritable}\nstopped after {finished} of "
                f"{len(pairs)} images; fix that and run the same command again to go on"
            ) from error
        finally:
            stream.close()
    return faults, missing


def _is_video_run(args: Namespace) -> bool:
    """Return whether the options name videos or cameras; refuse a mixture with folders."""
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


def _predict_video(args: Namespace, inputs: InferenceOptions, out: Path) -> int:
    """Predict two videos or cameras; return the exit status."""
    from efnet.video.segment import VideoOptions, predict_video

    same = ("opacity", "smooth", "offset", "max_gap", "clock", "batch_size")
    maps = None if args.maps is None else Path(args.maps)
    try:
        options = VideoOptions(style=args.video_style, maps=maps, **{name: args[name] for name in same})
    except InputError as error:
        raise error.renamed({"style": "video_style"}) from None
    _prepare_outputs(args, out, options)
    predictor, given = _load(args, inputs), (_given(args.rgb), _given(args.thermal))
    with progress_bar("frames", rate=True) as bar:

        def warn(line: str) -> None:
            bar.print(f"warning: {line} (--missing error stops at them)")

        summary = predict_video(predictor, *given, out, options, bar, warn)
    text = _described(summary, out, inputs)
    if summary.interrupted:
        raise KeyboardInterrupt(f"stopped; {text}")
    print(text)
    return 0


def _prepare_outputs(args: Namespace, out: Path, options: VideoOptions) -> None:
    """Refuse to replace files of another run without `--overwrite`, and places that cannot be written."""
    from efnet.video.segment import check_container

    check_container(out)
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


def _described(summary: VideoSummary, out: Path, inputs: InferenceOptions) -> str:
    """Summarise the run in one line."""
    rate = summary.frames / summary.seconds if summary.seconds else 0.0
    text = f"predicted {summary.frames} frames in {summary.seconds:.1f} s ({rate:.1f} per second)"
    text += inputs.described()
    for camera, reasons in summary.missing.items():
        text += "".join(f", {count} with {camera} {reason}" for reason, count in reasons.items())
    text += f", {summary.dropped} dropped because they came too fast" if summary.dropped else ""
    text += f", {summary.damaged} damaged packets" if summary.damaged else ""
    return f"{text}: {out}"
