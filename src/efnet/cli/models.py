"""`efnet models`: presets and ablations with their sizes, beside the paper's figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from efnet.cli.options import check_file_writable, parse_size
from efnet.errors import InputError
from efnet.files import write_json
from efnet.models.complexity import Complexity, measure
from efnet.models.registry import list_models
from efnet.models.validation import MIN_SIZE

PAPER = {"parameters": 29.5e6, "operations": 36.6e9}
"""Table I. The text names the backbone of `efnet_light`, this parameter count fits `efnet_base`."""

PAPER_FULL = 29.54e6
"""Parameters of the paper's full model in tables IV, V and VII."""

ABLATED = "efnet_light"
"""The preset whose ablations are shown: the backbone that the text names."""


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


ABLATIONS = (
    Ablation("IV", "fusion cat", {"fusion": "cat"}, 29.56e6),
    Ablation("IV", "fusion add", {"fusion": "add"}, 29.46e6),
    Ablation("IV", "fusion mif (full)", {}, 29.54e6),
    Ablation("V", "position none", {"position": "none"}, 29.54e6),
    Ablation("V", "position pe", {"position": "pe"}, 29.55e6),
    Ablation("V", "position pce (full)", {}, 29.54e6),
    Ablation("VII", "decoder deeplab", {"decoder": "deeplab"}, 33.28e6),
    Ablation("VII", "decoder mlp", {"decoder": "mlp"}, 30.06e6),
    Ablation("VII", "decoder mfad (full)", {}, 29.54e6),
    Ablation("III-C", "add, none, mlp", {"fusion": "add", "position": "none", "decoder": "mlp"}, None),
)
"""Tables IV, V and VII, and the baseline of section III-C. (Table VI varies tau: no parameters.)"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--num-classes", type=int, default=9, help="classes that the networks tell apart")
    parser.add_argument("--size", type=str, default="480x640", help="height x width of the images")
    parser.add_argument("--json", type=str | None, default=None, help="write the tables to this file")


def run(args: Namespace) -> int:
    """Count every network and print the tables.

    Returns:
        0.

    Raises:
        InputError: a size or number of classes that no network takes, or a file that cannot be written.
    """
    size = parse_size(args.size, MIN_SIZE)
    if args.num_classes < 2:
        raise InputError(f"--num-classes {args.num_classes}: give 2 or more")
    check_file_writable("--json", args.json)
    presets = {name: measure(name, args.num_classes, size) for name in list_models()}
    full = presets[ABLATED]
    ablations = [
        (row, measure(ABLATED, args.num_classes, size, **row.options) if row.options else full)
        for row in ABLATIONS
    ]
    console = Console(width=100)
    console.print(_preset_table(presets, size))
    print(
        f"paper, table I (480x640): {PAPER['parameters'] / 1e6:.1f} M parameters, "
        f"{PAPER['operations'] / 1e9:.1f} G operations (it does not say what counts as one)\n"
    )
    console.print(_ablation_table(ablations, full))
    print("difference: to the full model (mif, pce, mfad) of the same column, M parameters")
    if args.json:
        write_json(
            args.json,
            {
                "size": size,
                "num_classes": args.num_classes,
                "models": {name: counted.to_dict() for name, counted in presets.items()},
                "ablations": [_ablation_values(row, counted, full) for row, counted in ablations],
                "paper": {**PAPER, "full_parameters": PAPER_FULL},
            },
        )
    return 0


def _preset_table(presets: dict[str, Complexity], size: tuple[int, int]) -> Table:
    table = Table(title=f"presets; multiply-adds at {size[0]}x{size[1]}, one pair", title_justify="left")
    for heading in ("model", "parameters", "GMAC of layers", "with attention", "with clustering"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name, counted in presets.items():
        table.add_row(name, _millions(counted.parameters), *_operations(counted))
    return table


def _ablation_table(ablations: list[tuple[Ablation, Complexity]], full: Complexity) -> Table:
    table = Table(title=f"ablations of {ABLATED}, beside the paper's tables", title_justify="left")
    for heading in ("paper", ABLATED):
        table.add_column(heading)
    for heading in ("parameters", "difference", "paper's\nparameters", "paper's\ndifference"):
        table.add_column(heading, justify="right")
    table.add_column("GMAC\nof layers", justify="right")
    before = ABLATIONS[0].place
    for row, counted in ablations:
        if row.place != before:
            table.add_section()
        before = row.place
        values = _ablation_values(row, counted, full)
        table.add_row(
            row.place,
            row.label,
            _millions(counted.parameters),
            _difference(values["difference"]),
            "-" if row.paper is None else _millions(row.paper),
            _difference(values["paper_difference"]),
            _operations(counted)[0],
        )
    return table


def _ablation_values(row: Ablation, counted: Complexity, full: Complexity) -> dict[str, Any]:
    """Plain values for JSON."""
    return {
        "paper_table": row.place,
        "label": row.label,
        "model": ABLATED,
        "options": row.options,
        **counted.to_dict(),
        "difference": counted.parameters - full.parameters,
        "paper_parameters": row.paper,
        "paper_difference": None if row.paper is None else round(row.paper - PAPER_FULL),
    }


def _millions(parameters: float) -> str:
    return f"{parameters / 1e6:.2f} M"


def _difference(parameters: float | None) -> str:
    """Signed, in millions; no sign where it rounds to nothing."""
    if parameters is None:
        return "-"
    text = f"{parameters / 1e6:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


def _operations(counted: Complexity) -> tuple[str, str, str]:
    """Billions of multiply-adds: of layers, with attention, with clustering."""
    with_attention = counted.layers + counted.attention
    sums = (counted.layers, with_attention, with_attention + counted.clustering)
    first, second, third = (f"{value / 1e9:.1f}" for value in sums)
    return first, second, third
