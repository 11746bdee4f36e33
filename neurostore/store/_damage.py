"""What went wrong while reading, in one line with its place: damage, or a system that refuses."""

from __future__ import annotations

import errno
import re

from neurostore.errors import DamagedError, StoreError
from neurostore.store.urls import hidden

WAY_OUT = "What is lost, and what brings it back: neurostore verify URL."
RELEASE_WAY_OUT = "Bring the release back from a copy, or publish it again."
_CAUSE = re.compile(r"^\s*[|`├╰][-─]*[>▶]\s*(.+)$", re.MULTILINE)
_FILE = re.compile(r"\b(manifest|snapshot|chunk)_id=(\w+)")
_CHUNK = re.compile(r"sessions/([^/]+)/([^/]+)/(.+)/c/([\d/]+)")
_GONE = re.compile(r"/((?:chunks|manifests|snapshots|transactions)/\w+) not found")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_SERVICE = re.compile(r'code: "(\w+)", message: "([^"]*)"')
_REFUSALS = {
    r"NoSuchBucket|ContainerNotFound|bucket does not exist": "There is no such bucket: make it "
    "first, with the tools of its provider",
    r"loading credentials|no credentials|provided credentials|CredentialsNotLoaded": "No "
    "credentials were found: give them as storage options, or anon=True for a bucket that is "
    "public",
    r"SignatureDoesNotMatch|InvalidAccessKeyId|ExpiredToken|InvalidToken|AuthFailure"
    r"|AuthenticationFailed|Unauthenticated": "The credentials are wrong, or have run out",
    r"Access ?Denied|AuthorizationFailure|Forbidden|PermissionDenied|status 403": "These "
    "credentials do not allow it",
    r"dispatch failure|timeout|timed out|SlowDown|ServiceUnavailable|InternalError": "The object "
    "store does not answer as it should: look at the network, and repeat it",
}
"""What an object store says, and what it means; none of it is damage."""


def said(error: BaseException) -> str:
    """An error in one line; of Icechunk's trees the head, the cause and the file."""
    text = str(error).strip()
    lines = [line.strip(" x×│|") for line in text.splitlines()]
    head = next((line for line in lines if line), type(error).__name__)
    causes = [cause.strip() for cause in _CAUSE.findall(text)]
    more = f": {causes[-1]}" if causes and causes[-1] not in head else ""
    file = _FILE.search(text)
    where = f" ({file[1]}s/{file[2]})" if file and file[2] not in head else ""
    line = _SERVICE.sub(r"\1: \2", hidden(f"{head.rstrip('.')}{more}{where}"))
    return re.sub(r"Error \{ (.*?),? (?:aws_request_id|\.\.).*", r"\1", line)


def chunk(key: str) -> str:
    """What messages call a chunk: its number, array, table and session, and where it lies."""
    found = _CHUNK.fullmatch(key)
    if found is None:
        return f"Chunk {key}"
    dataset, session, array, number = found.groups()
    return f"Chunk {number} of {array} of {dataset}/{session} ({key})"


def _cause(error: BaseException) -> str:
    """Why something cannot be read, without the bytes that a library shows."""
    text = str(error)
    if "checksum do not match" in text:
        return "its bytes do not give the checksum (crc32c) that they end in"
    gone = _GONE.search(text)
    return f"{gone[1]} is not there" if gone else f"{type(error).__name__}: {said(error)}"


def refusal(error: BaseException) -> str | None:
    """What it means where an object store refuses or does not answer; None for any other error."""
    text = str(error)
    return next((said for pattern, said in _REFUSALS.items() if re.search(pattern, text)), None)


def pass_on(error: BaseException) -> None:
    """Raise again what is no failure to read (a stop, an exit); a panic of the engine is one."""
    if not isinstance(error, Exception) and not panicked(error):
        raise error


def panicked(error: BaseException) -> bool:
    """Whether the engine's native code gave up; its exception is no `Exception`."""
    return type(error).__name__ == "PanicException"


def wrap(where: str, error: BaseException) -> StoreError:
    """An error while reading, naming the place: damage, unless the system refused to read."""
    text = f"{where} cannot be read: {_cause(error)}."
    meaning = refusal(error)
    if meaning is not None:
        return StoreError(f"{text} {meaning}.")
    refused = _OS_ERROR.search(str(error))
    if refused and int(refused[1]) != errno.ENOENT:
        return StoreError(text)
    return DamagedError(f"{text} {WAY_OUT}")
