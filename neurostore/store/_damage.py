"""What went wrong while reading, in one line with its place: damage, or a system that refuses."""

from __future__ import annotations

import errno
import re

from neurostore.errors import DamagedError, StoreError

WAY_OUT = "Bring the store back from a copy, or open an older snapshot (store.log())."
_CAUSE = re.compile(r"^\s*[|`├╰][-─]*[>▶]\s*(.+)$", re.MULTILINE)
_FILE = re.compile(r"\b(manifest|snapshot|chunk)_id=(\w+)")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def said(error: BaseException) -> str:
    """An error in one line; of Icechunk's trees the head, the cause and the file."""
    text = str(error).strip()
    lines = [line.strip(" x×│|") for line in text.splitlines()]
    head = next((line for line in lines if line), type(error).__name__)
    causes = [cause.strip() for cause in _CAUSE.findall(text)]
    more = f": {causes[-1]}" if causes and causes[-1] not in head else ""
    file = _FILE.search(text)
    where = f" ({file[1]}s/{file[2]})" if file and file[2] not in head else ""
    return f"{head.rstrip('.')}{more}{where}"


def pass_on(error: BaseException) -> None:
    """Raise again what is no failure to read (a stop, an exit); a panic of the engine is one."""
    if not isinstance(error, Exception) and not panicked(error):
        raise error


def panicked(error: BaseException) -> bool:
    """Whether the engine's native code gave up; its exception is no `Exception`."""
    return type(error).__name__ == "PanicException"


def wrap(where: str, error: BaseException) -> StoreError:
    """An error while reading, naming the place: damage, unless the system refused to read."""
    text = f"{where} cannot be read: {type(error).__name__}: {said(error)}."
    refused = _OS_ERROR.search(str(error))
    if refused and int(refused[1]) != errno.ENOENT:
        return StoreError(text)
    return DamagedError(f"{text} {WAY_OUT}")
