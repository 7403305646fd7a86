"""What a data-centre GPU makes of efnet: passes, steps, torch.compile, CUDA graphs, clustering, growth.

    python benchmarks/gpu.py [--out gpu] [--model efnet_light] [--size 480x640] [--runs 30]

Calls `efnet benchmark` once per question and keeps the tables and figures of each in the folder. A question
that cannot be answered (too little memory, for one) is named and the others are asked all the same. Exit
status: 0 all answered, 1 some not, 2 no CUDA device.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from pathlib import Path

import torch

from efnet.cli.main import main as efnet
from efnet.core.files import write_text

TOLD = {"forward": "pairs/s: at least 200 at batch 1, 800 at batch 16", "train": "time of a step"}
"""What is hoped for, printed beside the question."""


def questions(model: str, size: str, runs: int) -> dict[str, list[str]]:
    """Options of `efnet benchmark` by the name of the files they fill."""
    network = ["--model", model, "--size", size, "--runs", str(runs)]
    variants = ["--compile", "--cuda-graph"]
    return {
        "forward-bf16-batch1": [*network, "--precision", "bf16", "--batch", "1", *variants],
        "forward-bf16-batch16": [*network, "--precision", "bf16", "--batch", "16", *variants],
        "forward-32-batch1": [*network, "--batch", "1", *variants],
        "train-bf16-batch2": [*network, "--mode", "train", "--precision", "bf16", "--batch", "2"],
        "train-bf16-batch8": [
            *network,
            "--mode",
            "train",
            "--precision",
            "bf16",
            "--batch",
            "8",
            "--compile",
        ],
        "train-32-batch2": [*network, "--mode", "train", "--batch", "2"],
        "clustering": ["--mode", "clustering", "--runs", str(runs)],
        "growth-bf16": ["--mode", "growth", "--model", model, "--precision", "bf16", "--runs", str(runs)],
    }


def ask(name: str, options: list[str], out: Path, device: str) -> bool:
    """Run one benchmark; whether it gave an answer."""
    mode = options[options.index("--mode") + 1] if "--mode" in options else "forward"
    words = ["benchmark", *options, "--device", device, "--json", str(out / f"{name}.json")]
    print(f"\n$ efnet {' '.join(words)}", flush=True)
    if mode in TOLD:
        print(f"({TOLD[mode]})", flush=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = efnet(words)
    if status == 130:
        raise KeyboardInterrupt
    print(printed.getvalue(), flush=True)
    if status == 0:
        write_text(out / f"{name}.md", printed.getvalue())
    return status == 0


def main() -> int:
    """Ask all questions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder of the tables and figures")
    parser.add_argument("--model", default="efnet_light", help="preset or checkpoint")
    parser.add_argument("--size", default="480x640", help="height x width")
    parser.add_argument("--runs", type=int, default=30, help="rounds that count")
    parser.add_argument("--device", default="cuda", help="cuda or cuda:1")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print(
            "gpu.py: no CUDA device here, nothing was measured (efnet doctor shows devices)", file=sys.stderr
        )
        return 2
    answered = {}
    try:
        for name, options in questions(arguments.model, arguments.size, arguments.runs).items():
            answered[name] = ask(name, options, arguments.out, arguments.device)
    except KeyboardInterrupt:
        print("gpu.py: interrupted; what was answered stays", file=sys.stderr)
        return 130
    for name, good in answered.items():
        print(f"{name}: {'measured' if good else 'NOT measured, see above'}")
    return 0 if all(answered.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
