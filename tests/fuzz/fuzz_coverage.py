"""Damaged files, bred by what they reach: the readers of `fuzz_targets.py` under atheris (libFuzzer).

    pip install atheris
    python tests/fuzz/fuzz_coverage.py --seconds 30

tries every reader for so long, each in a process of its own. A file that ends a reader with anything but a
result or an error of ours lies in the folder of --out afterwards, and the exit status is 1; `--replay FILE`
reads it again. Atheris has no wheels for every system, so it is no part of the package's extras.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def fuzz(reader: str, seconds: int, out: Path) -> None:
    """Fuzz one reader; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["efnet", "PIL", "yaml", "jsonargparse"]):
        from fuzz_targets import READERS, read_damaged
    content, name, read = READERS[reader]
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds"
        seeds.mkdir()
        (seeds / "whole").write_bytes(content)
        path = Path(folder) / name

        def try_one(spoilt: bytes) -> None:
            read_damaged(path, spoilt, read)

        bounds = [f"-max_total_time={seconds}", "-timeout=30", "-rss_limit_mb=4096", "-max_len=8192"]
        words = [*bounds, f"-artifact_prefix={out}/{reader.replace(' ', '_')}-", str(seeds)]
        atheris.Setup([sys.argv[0], *words], try_one)
        atheris.Fuzz()


def replay(reader: str, file: Path) -> None:
    """Read a file that was found, for its traceback."""
    from fuzz_targets import READERS, read_damaged

    _, name, read = READERS[reader]
    with tempfile.TemporaryDirectory() as folder:
        read_damaged(Path(folder) / name, file.read_bytes(), read)


def fuzz_all(readers: list[str], seconds: int, out: Path) -> int:
    """Every reader in turn; the exit status."""
    out.mkdir(parents=True, exist_ok=True)
    faults = 0
    for reader in readers:
        words = [sys.executable, __file__, "--one", reader, "--seconds", str(seconds), "--out", str(out)]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace")
        tried = [*re.findall(r"^#(\d+)", done.stderr, re.MULTILINE), "0"]
        reached = [*re.findall(r"cov: (\d+)", done.stderr), "0"]
        faults += done.returncode != 0
        said = "no fault" if done.returncode == 0 else f"FAULT\n{done.stderr[-3000:]}"
        print(f"{reader}: {max(map(int, tried))} files, {reached[-2]} branches, {said}", flush=True)
    return 1 if faults else 0


def main() -> int:
    """Read the options and fuzz."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--readers", nargs="+", metavar="NAME", help="those of fuzz_targets.py; default: all")
    parser.add_argument("--seconds", type=int, default=10, help="for each")
    parser.add_argument("--out", type=Path, default=Path("fuzz"), help="folder for files that were found")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="with one --readers: read FILE again")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.replay is None and importlib.util.find_spec("atheris") is None:
        print("atheris is not installed; pip install atheris", file=sys.stderr)
        return 2
    if options.one:
        fuzz(options.one, options.seconds, options.out)
        return 0
    from fuzz_targets import READERS

    readers = options.readers or list(READERS)
    unknown = [name for name in readers if name not in READERS]
    if unknown or (options.replay and len(readers) != 1):
        print(
            f"--readers: {', '.join(unknown) or 'give one'}; there are {', '.join(READERS)}", file=sys.stderr
        )
        return 2
    if options.replay:
        replay(readers[0], options.replay)
        return 0
    return fuzz_all(readers, options.seconds, options.out)


if __name__ == "__main__":
    sys.exit(main())
