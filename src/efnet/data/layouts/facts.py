"""Facts that the authors of public data sets publish: home page, licence, size, splits, layout."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import yaml

from efnet.core.errors import InputError
from efnet.data.pairs import PairSet


@dataclass(frozen=True)
class Facts:
    """One public data set."""

    title: str  # with its authors, and where it was published
    home: str  # address of its page
    licence: str
    size: str  # pairs, pixels, bytes
    layout: str  # folders and files, in lines
    pairs: dict[str, int] = field(default_factory=dict)  # of the official splits, where a source gives them
    uncertain: tuple[str, ...] = ()  # what no source of the authors states


def find_facts(name: str) -> Facts:
    """Return the facts of a data set; an `InputError` with the known names if there is none of that name."""
    facts = all_facts().get(name)
    if facts is None:
        raise InputError(f"no public data set is called '{name[:80]}'; there are {', '.join(all_facts())}")
    return facts


def fewer_or_more(pairset: PairSet) -> str | None:
    """Return a line if a split has another number of pairs than its authors publish, mirrored ones aside."""
    facts = all_facts().get(pairset.dataset)
    official = None if facts is None else facts.pairs.get(pairset.split)
    own = sum(not pair.flip for pair in pairset.pairs)
    if official in (None, own):
        return None
    return (
        f"{pairset.split}: {own} pairs, and the official split has {official}: figures do not compare with "
        f"published ones (efnet data info {pairset.dataset})"
    )


@cache
def all_facts() -> dict[str, Facts]:
    """Return them by name."""
    text = resources.files("efnet.data.layouts").joinpath("facts.yaml").read_text(encoding="utf-8")
    tables: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return {
        name: Facts(**{**table, "uncertain": tuple(table.get("uncertain", ()))})
        for name, table in tables.items()
    }
