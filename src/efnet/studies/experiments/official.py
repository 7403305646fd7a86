"""Score the files of the networks' authors in place of training the rows of a table, and report them.

`DIR/DATASET/NETWORK.pth` holds a row's weights (or `.pt`, `.tar`, `.bin`, `.safetensors`), or the folder
`DIR/DATASET/NETWORK` holds one such file under its authors' name. Rows without a file are skipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from efnet.core.errors import InputError
from efnet.core.files import write_json
from efnet.core.safe_parse import parse_json
from efnet.data.layouts import open_split
from efnet.data.verify import verify
from efnet.evaluation.report import Report, protocol_lines
from efnet.models.baselines import BASELINES
from efnet.models.checkpoint import load_checkpoint
from efnet.reporting.tables import markdown_table, percent
from efnet.studies.experiments.paper_tables import ExperimentRow, ExperimentTable
from efnet.studies.experiments.plan import Plan
from efnet.studies.experiments.results import plain, remarks
from efnet.studies.experiments.run import EVALUATION, Bar, evaluate_model
from efnet.studies.leaderboard import objection
from efnet.training.config import TrainConfig
from efnet.training.logs import Reporter
from efnet.training.run_folder import fingerprint

SUFFIXES = (".pth", ".pt", ".tar", ".bin", ".safetensors")

FOLDER = "official"
"""Converted checkpoints with their evaluations, in the folder of the experiments."""


@dataclass(frozen=True)
class OfficialRow:
    """A row with its authors' file and the report of that file on the test split, or why it was skipped."""

    row: ExperimentRow
    network: str
    file: Path | None = None
    report: Report | None = None
    skipped: str | None = None


def find_file(folder: Path, dataset: str, network: str) -> Path | None:
    """Return the file of a network's authors for a data set; None: there is none, InputError: several."""
    named = [folder / dataset / f"{network}{suffix}" for suffix in SUFFIXES]
    inside = sorted((folder / dataset / network).glob("*"))
    files = [path for path in (*named, *inside) if path.is_file() and path.suffix in SUFFIXES]
    if len(files) > 1:
        raise InputError(
            f"`official` {folder}: has several files of {network} for {dataset} "
            f"({', '.join(str(path.relative_to(folder)) for path in files)}); leave one there"
        )
    return files[0] if files else None


def run_official(
    table: ExperimentTable,
    out: Path,
    folder: Path,
    plan: Plan,
    roots: Mapping[str, Path],
    *,
    rows: list[str] | None = None,
    device: str = "auto",
    workers: int = 2,
    reporter: Reporter,
    bar: Bar,
) -> list[OfficialRow]:
    """Convert and score the authors' files of a table's rows; the same call continues an interrupted one.

    All files are converted before the first is scored, so that a wrong one is found at once. A file that was
    scored on the same data before is not scored again. `roots` has the folder of each data set.

    Raises InputError: no row has a file, one does not fit its network, or the data are unusable.
    """
    if not folder.is_dir():
        raise InputError(f"`official` {folder}: no such folder")
    found = [_find(row, folder, plan) for row in table.choose(rows)]
    present = [(each, each.file) for each in found if each.file is not None]
    if not present:
        wanted = ", ".join(
            f"{plan.dataset(each.row)}/{each.network}.pth" for each in found if each.network in BASELINES
        )
        raise InputError(
            f"`official` {folder}: holds no file of {table.name}"
            + (f"; name them {wanted}" if wanted else ", whose chosen rows have no authors' weights")
        )
    configs: dict[str, TrainConfig] = {}
    for each, file in present:
        dataset = plan.dataset(each.row)
        if dataset not in roots:
            raise InputError(f"row {each.row.name} needs {dataset}: give `root` {dataset}=DIR")
        configs[each.row.name] = plan.config(each.row, 0, roots[dataset], device, workers)
        _convert(each.network, file, configs[each.row.name], out / FOLDER / each.row.config)
    results = []
    for each in found:
        if each.file is None:
            reporter.say(f"{each.row.name}: skipped, {each.skipped}")
            results.append(each)
        else:
            report = _score(each, configs[each.row.name], out / FOLDER / each.row.config, reporter, bar)
            results.append(OfficialRow(each.row, each.network, each.file, report))
    return results


def _find(row: ExperimentRow, folder: Path, plan: Plan) -> OfficialRow:
    network = plan.network(row)
    if network not in BASELINES:
        return OfficialRow(row, network, skipped="no weights of its authors are known")
    file = find_file(folder, plan.dataset(row), network)
    if file is None:
        return OfficialRow(row, network, skipped=f"no {plan.dataset(row)}/{network}.pth there")
    return OfficialRow(row, network, file)


def _convert(network: str, file: Path, config: TrainConfig, checkpoint: Path) -> None:
    """Write the checkpoint folder of a file, unless it is there; raises InputError if the file misfits."""
    digest, note = _digest(file), checkpoint / "source.json"
    if note.is_file() and _read(note).get("sha256") == digest:
        return
    classes = open_split(config.data.dataset, Path(config.data.root), "test").classes
    model, _ = BASELINES[network].from_official(file, classes)
    (checkpoint / EVALUATION).unlink(missing_ok=True)
    checkpoint.mkdir(parents=True, exist_ok=True)
    model.write(checkpoint)
    write_json(note, {"file": file.name, "sha256": digest})


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        return values if isinstance(values, dict) else {}
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); delete it and run the same command again") from error


def _score(each: OfficialRow, config: TrainConfig, checkpoint: Path, reporter: Reporter, bar: Bar) -> Report:
    """Return the report of a converted file on the test split, as written before if nothing changed."""
    evaluation = checkpoint / EVALUATION
    pairs = open_split(config.data.dataset, Path(config.data.root), "test")
    verify(pairs)
    data = fingerprint(test=pairs)
    if evaluation.is_file():
        report = _read(evaluation)
        protocol = report.get("protocol", {})
        if report.get("data") == data and protocol.get("precision") == config.precision:
            reporter.say(f"{each.row.name}: done before ({checkpoint})")
            return report
    reporter.say(f"{each.row.name}: evaluating {each.file} on the test split")
    try:
        with bar("evaluate") as progress:
            report = evaluate_model(load_checkpoint(checkpoint), config, checkpoint, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped at {each.row.name}; what is done is saved, the same command goes on"
        ) from None
    write_json(evaluation, report)
    return report


def official_markdown(table: ExperimentTable, results: list[OfficialRow]) -> str:
    """Return the report: our measurement of each file beside the printed figure, and what was skipped."""
    lines, reasons = [], {}
    for each in results:
        if each.report is None:
            continue
        reason = objection(each.report)
        if reason is not None:
            reasons[each.row.label] = reason
        miou, printed = each.report["miou"], each.row.paper
        comparable = reason is None and miou is not None and printed.miou is not None
        lines.append(
            [
                each.row.label,
                each.network,
                str(each.file and each.file.name),
                percent(miou),
                plain(printed.miou) if reason is None else "-",
                f"{100 * miou - printed.miou:+.2f}" if comparable and printed.miou is not None else "-",
                percent(each.report["macc"]),
            ]
        )
    headings = ["", "network", "file", "mIoU", "printed", "difference", "mAcc"]
    scored = [each for each in results if each.report is not None]
    parts = [
        f"# {table.heading}: the authors' files",
        "Nothing was trained: each row is a file of the network's authors, converted and scored here. Most "
        "authors chose their checkpoint on the test split.",
        "\n".join(markdown_table(headings, lines)),
    ]
    if reasons:
        texts = (f"{label} ({reason})" for label, reason in reasons.items())
        parts.append(f"Not beside printed figures: {'; '.join(texts)}.")
    parts += remarks(each.row for each in scored)
    if len(scored) < len(results):
        skipped = ", ".join(f"{each.row.label} ({each.network})" for each in results if each.report is None)
        parts.append(f"Skipped for want of a file: {skipped}.")
    seen: dict[str, Report] = {}
    for each in scored:
        assert each.report is not None
        seen.setdefault(each.report["protocol"]["dataset"], each.report)
    for report in seen.values():
        shared = {**report, "protocol": {**report["protocol"], "checkpoint": None}}
        parts.append(". ".join(protocol_lines(shared)) + ".")
    return "\n\n".join(parts) + "\n"


def official_values(table: ExperimentTable, results: list[OfficialRow]) -> dict[str, Any]:
    """Return all values of the report; `read_accuracy` reads its rows."""
    return {"table": table.name, "official": True, "rows": [_row_values(each) for each in results]}


def _row_values(each: OfficialRow) -> dict[str, Any]:
    report = each.report
    values = {"row": each.row.name, "label": each.row.label, "remark": each.row.remark}
    if report is None:
        return {**values, "model": None, "modality": None, "miou": None, "skipped": each.skipped}
    reason = objection(report)
    return {
        **values,
        "model": each.network,
        "modality": report["protocol"]["modality"],
        "miou": None if report["miou"] is None else {"mean": report["miou"]},
        "macc": report["macc"],
        "iou": report["iou"],
        "file": str(each.file),
        "protocol": report["protocol"],
        "data": report["data"],
        "paper": asdict(each.row.paper) if reason is None else None,
        "objection": reason,
    }
