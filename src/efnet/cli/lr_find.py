"""`efnet lr-find`: suggest a learning rate from a short run whose rate rises."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from efnet.cli import train
from efnet.cli.arguments import add_options, check_outputs, say_written
from efnet.core.files import replacing, write_json, write_text
from efnet.core.progress import progress_bar
from efnet.reporting.plots import check_plot
from efnet.training.config import from_parsed
from efnet.training.lr_find import draw_plot, draw_svg, find_rate

DESCRIPTION = (
    "Train for some steps whose learning rate rises from --low to --high, and suggest the rate in "
    "the middle of the longest fall of the loss. Takes the options of efnet train; the run is not kept."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_options(
        parser,
        steps=(100, "steps to make"),
        low=(1e-6, "rate of the first step"),
        high=(1.0, "rate of the last step; the test ends earlier where the loss diverges"),
        smoothing=(0.9, "share of the averaged loss that a step keeps"),
        plot="draw the curve to this SVG, or PNG (needs matplotlib)",
        json="write rates, losses and the suggestion to this file",
    )
    train.add_config_arguments(parser)


parse = train.parse


def run(args: Namespace) -> int:
    """Run the test; return 0."""
    config = from_parsed(args)
    check_outputs(args, "plot", "json")
    if args.plot and Path(args.plot).suffix.lower() != ".svg":
        check_plot(args.plot)
    with progress_bar("lr-find") as bar:
        curve = find_rate(config, args.steps, args.low, args.high, args.smoothing, bar)
    title = f"{config.network.name} on {config.data.dataset}, batch {config.data.batch_size}"
    if args.json:
        write_json(args.json, curve.to_dict())
    if args.plot and Path(args.plot).suffix.lower() == ".svg":
        write_text(args.plot, draw_svg(curve, title))
    elif args.plot:
        with replacing(args.plot) as temporary:
            draw_plot(curve, str(temporary), title)
    end = (
        "then the loss diverged"
        if curve.diverged
        else "the loss did not diverge: a larger --high is possible"
    )
    print(f"{len(curve.rates)} steps from {curve.rates[0]:.2g} to {curve.rates[-1]:.2g}; {end}")
    print(f"the loss falls longest from {curve.fall[0]:.2g} to {curve.fall[1]:.2g}")
    print(f"suggested, the middle of it: --lr {curve.suggestion:.2g}")
    say_written(args, "json", "plot")
    return 0
