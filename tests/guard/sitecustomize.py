"""Loaded by every Python process of a guarded command: whom it asks over the network is noted and refused.

A folder of its own, which the tests put first on PYTHONPATH: nothing else may find it. An audit hook sees
what any library does through Python's sockets, however it came by them, and cannot be taken away again. Files
that are read below the folder EFNET_GUARDED are noted too.
"""

from __future__ import annotations

import os
import sys

_NOTES = os.environ["EFNET_NOTES"]
_GUARDED = os.environ.get("EFNET_GUARDED")
_NAMES = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
_ADDRESSES = ("socket.connect", "socket.sendto", "socket.sendmsg")
_OWN = (None, "", "localhost", "::1", "0.0.0.0", "::")


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _GUARDED and isinstance(arguments[0], str) and arguments[0].startswith(_GUARDED):
        _note(f"read {os.path.relpath(arguments[0], _GUARDED)}")
    if event not in _NAMES + _ADDRESSES:
        return
    target = arguments[0] if event in _NAMES else arguments[1]
    if event in _ADDRESSES:
        if not isinstance(target, tuple):  # a socket of this machine's file system, or one connected before
            return
        target = target[0]
    host = target.decode() if isinstance(target, bytes) else target
    if host not in _OWN and not str(host).startswith("127."):
        _note(f"ask {host}")
        raise OSError(f"refused by the guard: {event} {host}")


def _note(text: str) -> None:
    with open(_NOTES, "a", encoding="utf-8") as notes:
        notes.write(f"{text}\n")


sys.addaudithook(_watch)
