"""`Lineage`: how a table came about, read from its session; the history is not asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from neurostore.errors import JSON, NotFoundError, UsageError


@dataclass(frozen=True)
class Lineage:
    """How one table of a session was made.

    Attributes
    ----------
    session, table, digest : str
        Which table, and the digest of what it holds.
    made_by : str
        ``<reader>/<version>``, ``builder``, ``update`` or ``merge``.
    function : str
        ``package.module:name``; empty where it was not computed from other tables.
    parameters : mapping
        Of the function; of the reader where the table was read from a source.
    inputs : mapping of name to digest
        The tables that it was computed from, as they were then; ``<session>:<table>`` of others.
    fit : (float, float) or None
        Seconds that parameters were fitted on.
    code : str
        Version of the code of the function, as it was given.
    source : mapping or None
        What was read: url, sha256, reader, version, options.
    transaction : str
        The transaction that wrote it, as its commit names it.
    author, host, version, time, message : str
        Who wrote it, where, with which version of the package, when (ISO 8601) and why; empty where
        it was written before these were kept with the session.
    """

    session: str
    table: str
    digest: str
    made_by: str
    function: str = ""
    parameters: Mapping[str, JSON] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    fit: tuple[float, float] | None = None
    code: str = ""
    source: Mapping[str, JSON] | None = None
    transaction: str = ""
    author: str = ""
    host: str = ""
    version: str = ""
    time: str = ""
    message: str = ""

    def to_json(self) -> dict[str, JSON]:
        """As a plain mapping."""
        said: dict[str, JSON] = asdict(self)
        return {**said, "fit": None if self.fit is None else [*self.fit]}

    def __str__(self) -> str:
        lines = [f"{self.session}: {self.table}  {self.digest[:12]}  by {self.made_by}"]
        if self.function:
            lines.append(f"    function    {self.function} {self.code}".rstrip())
        if self.parameters:
            said = (f"{key}={value!r}" for key, value in self.parameters.items())
            lines.append(f"    parameters  {', '.join(said)}")
        lines += [f"    input       {name}  {digest[:12]}" for name, digest in self.inputs.items()]
        if self.fit is not None:
            lines.append(f"    fitted on   [{self.fit[0]:g}, {self.fit[1]:g}) s")
        if self.source is not None:
            lines.append(f"    source      {self.source['url']}  sha256 {self.source['sha256']}")
        if self.time:
            who = f"{self.author}@{self.host}, neurostore {self.version}"
            lines.append(f"    written     {self.time}  {who}  {self.message!r}")
        return "\n".join([*lines, f"    transaction {self.transaction}"])


def of(attrs: Mapping[str, Any], table: str) -> Lineage:
    """The lineage of a table, from the attributes of its session.

    Raises
    ------
    NotFoundError
        With the nearest table there is.
    """
    entries = attrs["row"]["tables"]
    if table not in entries:
        raise NotFoundError("table", table, entries, str(attrs["id"]))
    said = attrs["lineage"][table]
    source = said.get("source", attrs["source"] if said["made_by"] not in _LATER else None)
    options = dict(source["options"]) if source and "function" not in said else {}
    fit = said.get("fit")
    return Lineage(
        session=str(attrs["id"]),
        table=table,
        digest=str(entries[table]["digest"]),
        made_by=str(said["made_by"]),
        function=said.get("function", ""),
        parameters=said.get("parameters", options),
        inputs=said.get("inputs", {}),
        fit=None if fit is None else (float(fit[0]), float(fit[1])),
        code=said.get("code", ""),
        source=source,
        transaction=str(said["transaction"]),
        **attrs.get("transactions", {}).get(said["transaction"], {}),
    )


_LATER = {"update", "merge"}
"""What made a table that is not of the session's own source."""


def computed(
    function: str | Callable[..., object] | None,
    parameters: Mapping[str, JSON] | None,
    inputs: Sequence[str],
    fit: tuple[float, float] | None,
    code: str,
) -> dict[str, Any]:
    """What is kept of a table that was computed; empty where nothing is said.

    Raises
    ------
    UsageError
        Where parameters are given without their function.
    """
    if function is None:
        if parameters or fit is not None or code:
            raise UsageError("Parameters, fit and code need the function that they are of.")
        return {"inputs": list(inputs)} if inputs else {}
    if not isinstance(function, str):
        function = f"{function.__module__}:{function.__qualname__}"
    said: dict[str, Any] = {"function": function, "parameters": dict(parameters or {})}
    return {
        **said,
        "inputs": list(inputs),
        "fit": None if fit is None else [float(fit[0]), float(fit[1])],
        "code": str(code),
    }


def with_digests(
    said: Mapping[str, Any], session: str, entries: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What is kept of a computed table, its inputs by the digests that they have now.

    Raises
    ------
    NotFoundError
        With the nearest table there is.
    """
    made = dict(said)
    for name in made.get("inputs", ()):
        if name not in entries:
            raise NotFoundError("input", name, entries, session)
    if "inputs" in made:
        made["inputs"] = {name: entries[name]["digest"] for name in made["inputs"]}
    return made


def transactions(attrs: Mapping[str, Any], id: str, said: Mapping[str, JSON]) -> dict[str, Any]:
    """Who wrote what of a session, by transaction: those that its tables name, with a new one."""
    known = {**attrs.get("transactions", {}), id: dict(said)}
    named = {one["transaction"] for one in attrs["lineage"].values()}
    return {key: value for key, value in known.items() if key in named}
