"""JSON and YAML from users, parsed safely.

No code is run, and nothing small becomes large: nesting and the expansion of aliases are bounded. A key given
twice is refused, because one of the two values would be lost without a warning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from efnet.core.errors import InputError

_MOST = 100_000  # most values of one YAML text, aliases expanded

_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; a `ValueError` if it is not JSON, is nested too deeply, or has invalid Unicode."""
    try:
        value = json.loads(text)
        if _HALF_CHARACTER.search(text if isinstance(text, str) else text.decode("utf-8")):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def parse_yaml(text: str) -> Any:
    """Parse YAML of plain values: no tags but the standard ones.

    Raises:
        ValueError: it is not YAML, a key is given twice, it is nested too deeply, or it expands to more than
            100,000 values.
    """
    try:
        value = yaml.load(text, _Loader)
        # Counts the values as if every alias were written out.
        left, count = [value], 0
        while left:
            item = left.pop()
            inner = list(item.values()) if isinstance(item, dict) else item if isinstance(item, list) else []
            count += len(inner)
            if count > _MOST:
                raise ValueError(f"unpacks to more than {_MOST} values")
            left += inner
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def read_yaml(path: str | Path, example: str, named: str | None = None) -> dict[str, Any]:
    """Read a YAML file of options; `named` is how messages call it, `example` how they show an option.

    Raises InputError if it cannot be read, is not YAML, or holds anything but keys with values.
    """
    named = str(path) if named is None else named
    try:
        values = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{named}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise InputError(f"{named}: is not valid YAML ({error}); correct it there") from error
    if not isinstance(values, dict):
        raise InputError(f"{named}: holds no options; write them as '{example}'")
    return values


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    problem = f"the key '{key.value}' is given twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)
