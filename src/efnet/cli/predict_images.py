"""`efnet predict` on image files: predicted, written and recorded one by one."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from efnet.cli.predict_inputs import InputOptions, MissingCount
from efnet.core import distributed
from efnet.core.errors import InputError, ManyInputsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from efnet.inference.inputs import InputPair
    from efnet.inference.journal import Journal
    from efnet.inference.missing_cameras import Camera
    from efnet.inference.predictor import Predictor
    from efnet.inference.sharding import Shard


def predict_images(
    args: Namespace,
    predictor: Predictor,
    pairs: tuple[InputPair, ...],
    outputs: tuple[str, ...],
    inputs: InputOptions,
    shard: Shard,
) -> int:
    """Predict this process's part of `pairs`, and say what was done; see `efnet predict --help`.

    Returns:
        0, or 2 if some images could not be predicted (all others were).

    Raises:
        InputError: the folder holds other results, or cannot be written.
        KeyboardInterrupt: after what was predicted so far was recorded.
    """
    from efnet.inference.journal import remove_leftovers
    from efnet.inference.sharding import wait_for_others

    journal = _journal(args, predictor, outputs, inputs, shard)
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
    remarks = f"{rate}{skipped}{inputs.described()}{missing.described()}"
    print(f"predicted {done} of {own} images{part}{remarks}: {journal.folder}/{{{','.join(outputs)}}}")
    if faults:
        error = ManyInputsError("some images were left out; mend them and run the same command again", faults)
        print(f"efnet: error: {error}", file=sys.stderr)
    return 2 if wait_for_others(len(faults)) else 0


def _journal(
    args: Namespace, predictor: Predictor, outputs: tuple[str, ...], inputs: InputOptions, shard: Shard
) -> Journal:
    """The record of the output folder."""
    import efnet
    from efnet.inference.journal import Journal, fingerprint

    settings = {
        "model": fingerprint(predictor.model),
        "precision": predictor.precision,
        "input_size": predictor.size,
        "thermal_scale": predictor.thermal_scale,
    }
    settings |= {"opacity": args.opacity} if "overlay" in outputs else {}
    settings |= inputs.settings()
    about = {
        "checkpoint": args.checkpoint,
        "efnet": efnet.__version__,
        "classes": predictor.classes.to_dict(),
    }
    return Journal(Path(args.out), settings, about, args.overwrite, shard)


def _write_all(
    args: Namespace,
    predictor: Predictor,
    pairs: list[InputPair],
    outputs: tuple[str, ...],
    journal: Journal,
) -> tuple[list[str], MissingCount]:
    """Predict and write `pairs`; returns a line for each that could not be read, and what showed nothing."""
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
    with _progress(journal.shard) as progress:
        missing = MissingCount(
            predictor.spared,
            lambda line: progress.console.print(line, markup=False, highlight=False, soft_wrap=True),
        )
        task = progress.add_task("predict", total=len(pairs), rate="")
        started = time.perf_counter()
        stream = predict_files(
            predictor,
            pairs,
            save,
            batch_size=args.batch_size,
            workers=args.workers,
            probabilities="probabilities" in outputs,
        )
        try:
            for pair, result in stream:
                if isinstance(result, InputError):
                    faults.append(_named(pair, result))
                else:
                    journal.add(pair, *result)
                    missing.add(" and ".join(_files(pair)), result[2])
                    finished += 1
                rate = finished / (time.perf_counter() - started)
                progress.update(task, advance=1, rate=f"{rate:.1f}/s")
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped after {finished} of {len(pairs)} images; run the same command again to go on"
            ) from None
        # Of writing or of the network: what cannot be read comes as a result.
        except (InputError, OSError) as error:
            fault = str(error) if isinstance(error, InputError) else _unwritable(journal.folder, error)
            raise InputError(
                f"{fault}\nstopped after {finished} of {len(pairs)} images; mend that and run the same "
                "command again to go on"
            ) from error
        finally:
            stream.close()
    return faults, missing


def _unwritable(folder: Path, error: OSError) -> str:
    return f"{folder}: cannot be written ({error.strerror or error})"


def _named(pair: InputPair, error: InputError) -> str:
    """The error, with the file's name in front where it lacks one (sizes that do not fit, for example)."""
    files = _files(pair)
    text = str(error)
    return text if any(file in text for file in files) else f"{' and '.join(files)}: {text}"


def _files(pair: InputPair) -> list[str]:
    return [str(path) for path in (pair.rgb, pair.thermal) if path is not None]


def _progress(shard: Shard) -> Progress:
    """A bar on stderr; of processes that share one, the first draws."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=distributed.world_size() > 1 and shard.number > 1,
    )
