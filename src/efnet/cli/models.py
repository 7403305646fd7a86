"""`efnet models`: presets and ablations with their sizes, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from efnet.cli.arguments import add_options
from efnet.cli.options import check_file_writable, parse_size
from efnet.core.classes import IGNORE_INDEX
from efnet.core.errors import InputError
from efnet.core.files import write_json
from efnet.models.base import MIN_SIZE
from efnet.models.baselines import BASELINES
from efnet.models.complexity import measure
from efnet.models.registry import list_models, model_options
from efnet.studies.experiments.paper_tables import get_table
from efnet.studies.leaderboard import printed_sizes, published_table

_WIDTH = 118
"""Columns that the tables need."""

_OPERATIONS = ("GMAC\nof layers", "with\nattention", "with\nclustering")

_TABLE_I = published_table("mfnet").row("EFNet")

PAPER = {
    "parameters": round(1e6 * (_TABLE_I.parameters or 0)),
    "operations": round(1e9 * (_TABLE_I.operations or 0)),
}
"""Figures of table I. The text names the backbone of `efnet_light`; this count fits `efnet_base`."""


AUTHORS = {
    "cmnext_b2": (58_686_017, 73.92),
    "cmnext_b4": (116_560_396, 143.34),
    "cmx_b0": (11_193_041, 15.18),
    "cmx_b2": (66_565_521, 77.90),
    "cmx_b4": (139_858_321, 157.63),
    "eaefnet": (147_240_842, 189.70),
    "eaefnet50": (77_969_290, 98.79),
    "egfnet": (62_817_972, 200.33),
    "feanet": (255_207_130, 289.49),
    "gmnet": (153_472_410, 148.81),
    "lasnet": (93_575_604, 234.33),
    "mdrnet": (210_866_368, 472.52),
    "mfnet": (736_275, 8.30),
    "mmsmcnet": (99_298_337, 203.93),
    "pstnet": (19_868_788, 129.20),
    "rsfnet": (45_015_877, 65.19),
    "rtfnet152": (254_510_053, 289.48),
    "rtfnet50": (185_238_501, 198.57),
    "sfafma": (232_083_113, 72.24),
    "sgfnet": (125_256_229, 143.04),
    "tuni_b": (29_570_441, 42.37),
    "tuni_s": (10_635_761, 16.99),
    "tuni_t": (4_993_209, 10.67),
    "tuni_v1_s": (10_635_761, 16.99),
}
"""Parameters and GMAC of the authors' code at 480x640 with 9 classes, with all that it creates and computes.

`docs/baselines.md` says where the differences to ours come from. (SegFormer's are of one camera.)
"""


@dataclass(frozen=True)
class Ablation:
    """A row of the paper's ablations."""

    place: str  # table or section of the paper
    label: str  # parts of the network
    options: dict[str, Any]  # of `create_model`, where they are not the full model's
    paper: float | None  # parameters in the paper; None: not given


def list_ablations() -> tuple[Ablation, ...]:
    """List tables IV, V and VII, and the baseline of section III-C. (Table VI varies tau: no parameters.)"""
    return tuple(
        Ablation(
            table.place or "",
            row.label.removesuffix(" on MFNet"),
            row.network_options(),
            None if row.paper.parameters is None else round(1e6 * row.paper.parameters),
        )
        for table in map(get_table, ("table4", "table5", "table7", "baseline"))
        for row in table.rows
        if table.name != "baseline" or row.name == "mfnet"  # one network on three data sets
    )


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_options(
        parser,
        num_classes=(9, "classes that the networks tell apart"),
        size=("480x640", "height x width of the images"),
        model=(
            "efnet_light",
            "preset whose ablations are shown (the paper names efnet_light; its counts are nearer to base)",
        ),
        json="write the tables to this file",
    )


def run(args: Namespace) -> int:
    """Count every network and print the tables; return 0."""
    size = parse_size(args.size, MIN_SIZE)
    if not 2 <= args.num_classes <= IGNORE_INDEX:
        raise InputError(f"--num-classes {args.num_classes}: give 2 or more, at most {IGNORE_INDEX}")
    ours = [name for name in list_models() if _is_paper(name)]
    if args.model not in ours:
        what = "has no ablations" if args.model in list_models() else "there is no such preset"
        raise InputError(f"--model {args.model}: {what}; choose {', '.join(ours)}")
    check_file_writable("--json", args.json)
    values = _count(args.model, args.num_classes, size)
    console = Console(width=_WIDTH)
    console.print(_preset_table(values))
    print(
        f"paper, table I (480x640): {PAPER['parameters'] / 1e6:.1f} M parameters, "
        f"{PAPER['operations'] / 1e9:.1f} G operations (it does not say what counts as one)\n"
        "'to paper': ours less these; operations at one, and at two, per multiply-add of layers\n"
    )
    others = [name for name in values["models"] if name in AUTHORS]
    if others:
        console.print(_authors_table(values, others))
        print(
            "M parameters and GMAC with attention (mmsmcnet's always at 480x640); authors' code at 480x640 "
            "with 9 classes,\nunused and auxiliary parts too; printed: as the source prints them, counted in "
            "its own way\n"
        )
    console.print(_ablation_table(args.model, values["ablations"]))
    print(
        "M parameters; 'to full': less the full model (mif, pce, mfad) of the same column; "
        "'to paper': ours less the paper's"
    )
    if args.json:
        write_json(args.json, values)
    return 0


def _count(model: str, num_classes: int, size: tuple[int, int]) -> dict[str, Any]:
    """Count every preset and the ablations of `model`, beside the paper; `--json` writes the result."""
    presets = {name: measure(name, num_classes, _size_of(name, size)).to_dict() for name in list_models()}
    full = presets[model]
    ablations = list_ablations()
    paper_full = next(row.paper for row in ablations if not row.options)
    rows = []
    for row in ablations:
        counted = measure(model, num_classes, size, **row.options).to_dict() if row.options else full
        rows.append(
            {
                "paper_table": row.place,
                "label": row.label,
                "model": model,
                "options": row.options,
                **counted,
                "difference": counted["parameters"] - full["parameters"],
                "paper_parameters": row.paper,
                "paper_difference": _less(row.paper, paper_full),
                "to_paper": _less(counted["parameters"], row.paper),
            }
        )
    return {
        "size": size,
        "num_classes": num_classes,
        "models": {
            name: counted
            | {"to_paper": _to_paper(counted), "authors": AUTHORS.get(name), "printed": _printed(name)}
            for name, counted in presets.items()
        },
        "ablations": rows,
        "paper": {**PAPER, "full_parameters": paper_full},
    }


def _size_of(name: str, size: tuple[int, int]) -> tuple[int, int]:
    """Return the size to count a network at: the given one, or the only one that it takes."""
    network = BASELINES.get(name)
    return size if network is None or network.fixed_size is None else network.fixed_size


def _printed(name: str) -> list[dict[str, Any]]:
    """Return the sizes that papers print for a network: millions and 10^9, with the source."""
    return [
        {"parameters": row.parameters, "operations": row.operations, "source": row.source}
        for row in printed_sizes(name)
    ]


def _is_paper(name: str) -> bool:
    """Whether a preset is the paper's network, with the options of its tables."""
    return "tau" in model_options(name)


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _to_paper(counted: dict[str, float]) -> dict[str, float]:
    """Return the differences to table I."""
    return {
        "parameters": counted["parameters"] - PAPER["parameters"],
        "operations_at_one": counted["layers"] - PAPER["operations"],
        "operations_at_two": 2 * counted["layers"] - PAPER["operations"],
    }


def _table(title: str, texts: Iterable[str], numbers: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in texts:
        table.add_column(heading, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _preset_table(values: dict[str, Any]) -> Table:
    height, width = values["size"]
    comparisons = ("to paper\nat one", "to paper\nat two")
    numbers = ("parameters", "to paper", *_OPERATIONS, *comparisons)
    table = _table(f"presets; multiply-adds at {height}x{width}, one pair", ("model",), numbers)
    for name, counted in values["models"].items():
        # The paper's figures describe EFNet: differences to them mean nothing for another network.
        to_paper = counted["to_paper"] if _is_paper(name) else dict.fromkeys(counted["to_paper"])
        operations = [to_paper[f"operations_at_{count}"] for count in ("one", "two")]
        table.add_row(
            name,
            _millions(counted["parameters"]),
            _difference(to_paper["parameters"]),
            *_operations(counted),
            *(_difference(None if value is None else value / 1e3, 1) for value in operations),
        )
    return table


def _authors_table(values: dict[str, Any], names: list[str]) -> Table:
    """Return the networks of other papers: sizes here, in the authors' code and as printed."""
    numbers = ("here", "GMAC", "authors'\ncode", "its\nGMAC", "printed", "its G")
    table = _table("networks of other papers", ("model",), numbers)
    table.add_column("printed in")
    for name in names:
        counted = values["models"][name]
        parameters, operations = AUTHORS[name]
        printed = counted["printed"] or [{"parameters": None, "operations": None, "source": "-"}]
        columns = [
            [_plain(size["parameters"]) for size in printed],
            [_plain(size["operations"]) for size in printed],
            [", ".join(size["source"].split(", ")[:2]) for size in printed],
        ]
        table.add_row(
            name,
            _millions(counted["parameters"]),
            _operations(counted)[1],
            _millions(parameters),
            f"{operations:.1f}",
            *("\n".join(column) for column in columns),
        )
    return table


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _ablation_table(model: str, rows: list[dict[str, Any]]) -> Table:
    numbers = ("para-\nmeters", "to full", "paper's", "to full", "to paper", *_OPERATIONS)
    table = _table(f"ablations of {model}, beside the paper's tables", ("paper", "network"), numbers)
    before = rows[0]["paper_table"]
    for row in rows:
        if row["paper_table"] != before:
            table.add_section()
        before = row["paper_table"]
        paper = row["paper_parameters"]
        table.add_row(
            row["paper_table"],
            row["label"],
            _millions(row["parameters"]),
            _difference(row["difference"]),
            "-" if paper is None else _millions(paper),
            _difference(row["paper_difference"]),
            _difference(row["to_paper"]),
            *_operations(row),
        )
    return table


def _millions(parameters: float) -> str:
    return f"{parameters / 1e6:.2f}"


def _difference(count: float | None, decimals: int = 2) -> str:
    """Return a signed number in millions; without a sign if it rounds to zero."""
    if count is None:
        return "-"
    text = f"{count / 1e6:+.{decimals}f}"
    return text.lstrip("+-") if float(text) == 0 else text


def _operations(counted: dict[str, float]) -> tuple[str, str, str]:
    """Return billions of multiply-adds: of layers, with attention, with clustering."""
    with_attention = counted["layers"] + counted["attention"]
    sums = (counted["layers"], with_attention, with_attention + counted["clustering"])
    first, second, third = (f"{value / 1e9:.1f}" for value in sums)
    return first, second, third
