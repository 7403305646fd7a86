"""`efnet models`: the networks with their sizes, beside the paper's figure."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from efnet.files import write_json
from efnet.models.complexity import Complexity, measure
from efnet.models.registry import list_models

PAPER = {"parameters": 29.5e6, "operations": 36.6e9}
"""Table I. The text names the backbone of `efnet_light`, this parameter count fits `efnet_base`."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--num-classes", type=int, default=9, help="classes that the networks tell apart")
    parser.add_argument("--size", type=str, default="480x640", help="height x width of the images")
    parser.add_argument("--json", type=str | None, default=None, help="write the table to this file")


def run(args: Namespace) -> int:
    """Print the table."""
    from efnet.cli.data_synthesize import parse_size

    size = parse_size(args.size)
    rows = {name: measure(name, args.num_classes, size) for name in list_models()}
    Console(width=100).print(_table(rows, size))
    print(
        f"paper, table I (480x640): {PAPER['parameters'] / 1e6:.1f} M parameters, "
        f"{PAPER['operations'] / 1e9:.1f} G operations (it does not say what counts as one)"
    )
    if args.json:
        values = {name: row.to_dict() for name, row in rows.items()}
        write_json(args.json, {"size": size, "models": values, "paper": PAPER})
    return 0


def _table(rows: dict[str, Complexity], size: tuple[int, int]) -> Table:
    table = Table(title=f"multiply-adds at {size[0]}x{size[1]}, one pair")
    for heading in ("model", "parameters", "GMAC of layers", "with attention", "with clustering"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row.parameters / 1e6:.2f} M",
            f"{row.layers / 1e9:.1f}",
            f"{(row.layers + row.attention) / 1e9:.1f}",
            f"{(row.layers + row.attention + row.clustering) / 1e9:.1f}",
        )
    return table
