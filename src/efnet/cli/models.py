"""`efnet models`: presets and ablations with their sizes, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from efnet.cli.options import check_file_writable, parse_size
from efnet.core.errors import InputError
from efnet.core.files import write_json
from efnet.models.base import MIN_SIZE
from efnet.models.baselines import RIVALS
from efnet.models.complexity import Complexity, measure
from efnet.models.registry import list_models
from efnet.studies.experiments.paper_tables import get_table
from efnet.studies.leaderboard import published_table

_WIDTH = 118
"""Columns that the tables need."""

_TABLE_I = published_table("mfnet").row("EFNet")

PAPER = {
    "parameters": round(1e6 * (_TABLE_I.parameters or 0)),
    "operations": round(1e9 * (_TABLE_I.operations or 0)),
}
"""Table I. The text names the backbone of `efnet_light`, this parameter count fits `efnet_base`."""


@dataclass(frozen=True)
class Ablation:
    """A row of the paper's ablations.

    Attributes:
        place: where in the paper.
        label: what the network is made of.
        options: of `create_model`, where they are not the full model's.
        paper: its parameters there; None: not given.
    """

    place: str
    label: str
    options: dict[str, Any]
    paper: float | None


def list_ablations() -> tuple[Ablation, ...]:
    """Tables IV, V and VII, and the baseline of section III-C. (Table VI varies tau: no parameters.)"""
    rows = [
        Ablation(
            table.place or "",
            row.label.removesuffix(" on MFNet"),
            row.network_options(),
            None if row.paper.parameters is None else round(1e6 * row.paper.parameters),
        )
        for table in map(get_table, ("table4", "table5", "table7", "baseline"))
        for row in table.rows
        if table.name != "baseline" or row.name == "mfnet"  # one network on three data sets
    ]
    return tuple(rows)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--num-classes", type=int, default=9, help="classes that the networks tell apart")
    parser.add_argument("--size", type=str, default="480x640", help="height x width of the images")
    parser.add_argument(
        "--model",
        type=str,
        default="efnet_light",
        help="preset whose ablations are shown (the paper names efnet_light; its counts are nearer to base)",
    )
    parser.add_argument("--json", type=str | None, default=None, help="write the tables to this file")


def run(args: Namespace) -> int:
    """Count every network and print the tables.

    Returns:
        0.

    Raises:
        InputError: a size, preset or number of classes that there is not, or a file that cannot be written.
    """
    size = parse_size(args.size, MIN_SIZE)
    if args.num_classes < 2:
        raise InputError(f"--num-classes {args.num_classes}: give 2 or more")
    ours = [name for name in list_models() if name not in RIVALS]
    if args.model not in ours:
        what = "has no ablations" if args.model in RIVALS else "there is no such preset"
        raise InputError(f"--model {args.model}: {what}; choose {', '.join(ours)}")
    check_file_writable("--json", args.json)
    presets = {name: measure(name, args.num_classes, size) for name in list_models()}
    full = presets[args.model]
    ablations = [
        (row, measure(args.model, args.num_classes, size, **row.options) if row.options else full)
        for row in list_ablations()
    ]
    console = Console(width=_WIDTH)
    console.print(_preset_table(presets, size))
    print(
        f"paper, table I (480x640): {PAPER['parameters'] / 1e6:.1f} M parameters, "
        f"{PAPER['operations'] / 1e9:.1f} G operations (it does not say what counts as one)\n"
        "'to paper': ours less these; operations at one, and at two, per multiply-add of layers\n"
    )
    console.print(_ablation_table(args.model, ablations, full))
    print(
        "M parameters; 'to full': less the full model (mif, pce, mfad) of the same column; "
        "'to paper': ours less the paper's"
    )
    if args.json:
        values = _values(args, size, presets, ablations, full)
        write_json(args.json, values)
    return 0


def _preset_table(presets: dict[str, Complexity], size: tuple[int, int]) -> Table:
    table = Table(title=f"presets; multiply-adds at {size[0]}x{size[1]}, one pair", title_justify="left")
    headings = (
        *("model", "parameters", "to paper", "GMAC\nof layers", "with\nattention", "with\nclustering"),
        *("to paper\nat one", "to paper\nat two"),
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name, counted in presets.items():
        values = _preset_values(counted)["to_paper"]
        operations = [values["operations_at_one"] / 1e3, values["operations_at_two"] / 1e3]
        # The paper's figures are of EFNet: beside another network a difference to them says nothing.
        differences = [_difference(None if name in RIVALS else value, 1) for value in operations]
        table.add_row(
            name,
            _millions(counted.parameters),
            _difference(None if name in RIVALS else values["parameters"]),
            *_operations(counted),
            *differences,
        )
    return table


def _preset_values(counted: Complexity) -> dict[str, Any]:
    """Plain values for JSON, with the differences to table I."""
    return {
        **counted.to_dict(),
        "to_paper": {
            "parameters": counted.parameters - PAPER["parameters"],
            "operations_at_one": counted.layers - PAPER["operations"],
            "operations_at_two": 2 * counted.layers - PAPER["operations"],
        },
    }


def _ablation_table(name: str, ablations: list[tuple[Ablation, Complexity]], full: Complexity) -> Table:
    table = Table(title=f"ablations of {name}, beside the paper's tables", title_justify="left")
    for heading in ("paper", "network"):
        table.add_column(heading, no_wrap=True)
    headings = (
        *("para-\nmeters", "to full", "paper's", "to full", "to paper"),
        *("GMAC\nof layers", "with\nattention", "with\nclustering"),
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    before = ablations[0][0].place
    for row, counted in ablations:
        if row.place != before:
            table.add_section()
        before = row.place
        values = _ablation_values(name, row, counted, full)
        table.add_row(
            row.place,
            row.label,
            _millions(counted.parameters),
            _difference(values["difference"]),
            "-" if row.paper is None else _millions(row.paper),
            _difference(values["paper_difference"]),
            _difference(values["to_paper"]),
            *_operations(counted),
        )
    return table


def _values(
    args: Namespace,
    size: tuple[int, int],
    presets: dict[str, Complexity],
    ablations: list[tuple[Ablation, Complexity]],
    full: Complexity,
) -> dict[str, Any]:
    """Everything that is printed, as plain values."""
    return {
        "size": size,
        "num_classes": args.num_classes,
        "models": {name: _preset_values(counted) for name, counted in presets.items()},
        "ablations": [_ablation_values(args.model, row, counted, full) for row, counted in ablations],
        "paper": {**PAPER, "full_parameters": _full(row for row, _ in ablations)},
    }


def _full(rows: Iterable[Ablation]) -> float | None:
    """The paper's parameters of its full model in tables IV, V and VII."""
    return next(row.paper for row in rows if not row.options)


def _ablation_values(name: str, row: Ablation, counted: Complexity, full: Complexity) -> dict[str, Any]:
    """Plain values for JSON."""
    paper_full = _full(list_ablations())
    return {
        "paper_table": row.place,
        "label": row.label,
        "model": name,
        "options": row.options,
        **counted.to_dict(),
        "difference": counted.parameters - full.parameters,
        "paper_parameters": row.paper,
        "paper_difference": None if row.paper is None or paper_full is None else row.paper - paper_full,
        "to_paper": None if row.paper is None else counted.parameters - row.paper,
    }


def _millions(parameters: float) -> str:
    return f"{parameters / 1e6:.2f}"


def _difference(count: float | None, decimals: int = 2) -> str:
    """Signed, in millions; no sign where it rounds to nothing."""
    if count is None:
        return "-"
    text = f"{count / 1e6:+.{decimals}f}"
    return text.lstrip("+-") if float(text) == 0 else text


def _operations(counted: Complexity) -> tuple[str, str, str]:
    """Billions of multiply-adds: of layers, with attention, with clustering."""
    with_attention = counted.layers + counted.attention
    sums = (counted.layers, with_attention, with_attention + counted.clustering)
    first, second, third = (f"{value / 1e9:.1f}" for value in sums)
    return first, second, third
