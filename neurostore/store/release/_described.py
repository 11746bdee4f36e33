"""What a release says of itself to others: Croissant, RO-Crate, and the cards of its datasets."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from neurostore import _declared
from neurostore.errors import Finding, UsageError, counted
from neurostore.store import _copied
from neurostore.store._format import segment, session_path
from neurostore.store.urls import redacted

if TYPE_CHECKING:
    import pandas as pd

    from neurostore.store._versions import Commit
    from neurostore.store.release._manifest import About
    from neurostore.store.store import Store

WANTED = ("licence", "citation", "authors")
"""What people look for first; where a card does not say it, that is a finding."""
DESCRIBED = ("croissant.json", "ro-crate-metadata.json", "sessions.json", "units.json")
"""What is made of the store, and of the cards, whenever it is published."""
CARDS = "catalog/"
_TEXTS = ("title", "description", "licence", "citation", "doi", "url")


@dataclass(frozen=True)
class Card:
    """What the card of a dataset says of it; empty where it says nothing.

    Attributes
    ----------
    dataset, sessions : str, int
        Its name, and how many of its sessions there are.
    text : str
        The card itself, TOML; empty where there is none.
    licence : str
        An SPDX identifier, a URL, or the text of it.
    """

    dataset: str
    sessions: int
    text: str = field(default="", repr=False)
    title: str = ""
    description: str = ""
    licence: str = ""
    citation: str = ""
    doi: str = ""
    url: str = ""
    authors: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        """Where it is described: its URL, or that of its DOI."""
        return self.url or self.doi


@dataclass(frozen=True)
class Own:
    """What whoever publishes says of the whole; where it is empty, the cards speak."""

    title: str = ""
    licence: str = ""
    citation: str = ""

    def over(self, before: About | None) -> Own:
        """With what an earlier release says where nothing is said anew."""
        if before is None:
            return self
        return Own(*(getattr(self, one.name) or getattr(before, one.name) for one in fields(Own)))


@dataclass(frozen=True)
class File:
    """A file of the release: where it lies in it, its size in bytes and its digest."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Facts:
    """What both descriptions say."""

    snapshot: str
    url: str
    version: str
    commit: Commit
    cards: tuple[Card, ...]
    rows: list[dict[str, Any]]
    sizes: Mapping[str, int]
    sources: Mapping[str, Mapping[str, Any]]
    tables: Mapping[str, pd.DataFrame]
    files: tuple[File, ...]
    manifests: tuple[File, ...]
    own: Own = Own()

    @property
    def name(self) -> str:
        """Its own title, that of its one dataset, or the names of all."""
        if self.own.title:
            return self.own.title
        titles = [card.title or card.dataset for card in self.cards]
        return titles[0] if len(titles) == 1 else f"{len(titles)} datasets: {', '.join(titles)}"

    @property
    def description(self) -> str:
        """What the cards say, then what is in it, in numbers."""
        said = [card.description for card in self.cards if card.description]
        return " ".join([*said, self.numbers])

    @property
    def numbers(self) -> str:
        """What is in it, in numbers."""
        units, spikes = (sum(int(row[key]) for row in self.rows) for key in ("n_units", "n_spikes"))
        subjects = {row["subject"] for row in self.rows if row["subject"]}
        parts = [counted(len(self.rows), "session")]
        parts += [counted(len(subjects), "subject")] if subjects else []
        parts += [counted(units, "unit"), counted(spikes, "spike")]
        return f"{', '.join(parts)}; neurostore snapshot {self.snapshot}."

    @property
    def licences(self) -> list[str]:
        """Its own licence, or every one of the cards, once: URLs, or texts."""
        if self.own.licence:
            return [licence(self.own.licence)]
        return list(dict.fromkeys(card.licence for card in self.cards if card.licence))

    @property
    def authors(self) -> list[str]:
        """Every author, once."""
        return list(dict.fromkeys(name for card in self.cards for name in card.authors))

    @property
    def page(self) -> str:
        """Where it is described or lies, where that is a web address."""
        pages = [card.page for card in self.cards if card.page]
        if len(self.cards) == 1 and pages:
            return pages[0]
        return self.url if re.match(r"https?://", self.url) else ""


@dataclass(frozen=True)
class Described:
    """The files by path, and what could not be said in them."""

    files: dict[str, bytes]
    findings: list[Finding]


def release_files(
    store: Store,
    *,
    url: str = "",
    version: str = "",
    cards: Mapping[str, str] | None = None,
    manifests: Mapping[str, tuple[int, str]] | None = None,
    sizes: Mapping[str, int] | None = None,
    own: Own = Own(),
) -> dict[str, bytes]:
    """What stands beside the Zarr tree of a release, as files by path; see `describe`."""
    return describe(
        store, url=url, version=version, cards=cards, manifests=manifests, sizes=sizes, own=own
    ).files


def describe(
    store: Store,
    *,
    url: str = "",
    version: str = "",
    cards: Mapping[str, str] | None = None,
    manifests: Mapping[str, tuple[int, str]] | None = None,
    sizes: Mapping[str, int] | None = None,
    own: Own = Own(),
) -> Described:
    """``croissant.json``, ``ro-crate-metadata.json``, the tables they speak of, and the cards.

    The same store gives the same bytes: the date is that of the commit.

    Parameters
    ----------
    store : Store
        What is released.
    url : str
        Where the release will lie; user, password and query are taken off.
    version : str
        Of the release, ``1.2.0``, where it has one.
    cards : mapping of str to str, optional
        The TOML of the cards, by dataset, or by the name that sessions give theirs; those of the
        package without it.
    manifests : mapping, optional
        Path in the release, to size in bytes and sha256, of the manifests of its sessions.
    sizes : mapping, optional
        Stored bytes of every session by id; counted without it, which asks for every chunk's size.
    own : Own
        Title, licence and citation of the whole, before those of the cards.

    Raises
    ------
    UsageError
        Where a card is no TOML, or says something in another type than text.
    """
    from neurostore.store.release import _crate, _croissant

    known = bundled() if cards is None else cards
    attrs = {str(row["id"]): store.session(str(row["id"])).attrs for row in store.rows}
    used = _cards(attrs.values(), known)
    tables = {"sessions": store.sessions(), "units": store.units()}
    made = {f"{name}.json": _records(frame) for name, frame in tables.items()}
    made |= {f"{CARDS}{segment(one.dataset)}.toml": one.text.encode() for one in used if one.text}
    facts = Facts(
        store.snapshot,
        redacted(url),
        version,
        store.log(1)[0],
        used,
        store.rows,
        _sizes(store) if sizes is None else sizes,
        {id: one["source"] for id, one in attrs.items() if one["source"]},
        tables,
        tuple(_file(path, data) for path, data in sorted(made.items())),
        tuple(File(path, *said) for path, said in sorted((manifests or {}).items())),
        own,
    )
    made["croissant.json"] = _text(_croissant.document(facts))
    described = _file("croissant.json", made["croissant.json"])
    facts = replace(facts, files=(*facts.files, described))
    made["ro-crate-metadata.json"] = _text(_crate.document(facts))
    return Described(made, [*_missing(used, own), *_no_page(facts)])


def _file(path: str, data: bytes) -> File:
    return File(path, len(data), hashlib.sha256(data).hexdigest())


def _text(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode()


# ---- cards


def bundled() -> dict[str, str]:
    """The cards of the package, by dataset."""
    return {path.stem: path.read_text("utf-8") for path in _declared.declared("catalog")}


def read_cards(paths: Iterable[str | Path]) -> dict[str, str]:
    """Cards by the segment of their dataset, which is the name of the file.

    Raises
    ------
    UsageError
        Where a file cannot be read.
    """
    found = {}
    for path in map(Path, paths):
        try:
            found[segment(path.stem)] = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The card {path} cannot be read: {error}.") from error
    return found


def cards_in(files: Mapping[str, bytes]) -> dict[str, str]:
    """The cards among the further files of a release, by the segment of their dataset."""
    found = {path: PurePosixPath(path) for path in files if path.startswith(CARDS)}
    return {one.stem: files[path].decode() for path, one in found.items()}


def _cards(sessions: Iterable[Mapping[str, Any]], known: Mapping[str, str]) -> tuple[Card, ...]:
    """The card of every dataset, by name; a session may name one, else it is its dataset's."""
    named: dict[str, list[str]] = {}
    for attrs in sessions:
        named.setdefault(str(attrs["dataset"]), []).append(str(attrs["card"] or attrs["dataset"]))
    made = []
    for dataset, names in sorted(named.items()):
        others = sorted(set(names))
        if len(others) > 1:
            raise UsageError(
                f"The sessions of {dataset} name different cards: {', '.join(others)}. Give them "
                "one card, or different datasets."
            )
        text = known.get(segment(dataset)) or known.get(others[0], "")
        made.append(read_card(dataset, len(names), text))
    return tuple(made)


def read_card(dataset: str, sessions: int, text: str) -> Card:
    """What a card says.

    Raises
    ------
    UsageError
        Where it is no TOML, or says something otherwise than as text.
    """
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The card of {dataset} is no TOML: {error}.") from error
    for name in _TEXTS:
        if not isinstance(said.get(name, ""), str):
            raise UsageError(f"The card of {dataset}: {name!r} is text, found {said[name]!r}.")
    texts = {name: " ".join(said.get(name, "").split()) for name in _TEXTS if name != "citation"}
    texts |= {"doi": _doi(texts["doi"]), "licence": licence(texts["licence"])}
    authors = tuple(_author(dataset, one) for one in said.get("authors", ()))
    return Card(
        dataset, sessions, text, **texts, citation=said.get("citation", ""), authors=authors
    )


def _author(dataset: str, said: object) -> str:
    name = said.get("name") if isinstance(said, dict) else said
    if not isinstance(name, str) or not name.strip():
        raise UsageError(
            f"The card of {dataset}: an author is a name, or a table with one; found {said!r}."
        )
    return name.strip()


def _doi(said: str) -> str:
    found = re.search(r"10\.\d{4,9}/\S+", said)
    return f"https://doi.org/{found[0]}" if found else ""


def licence(said: str) -> str:
    """The URL of a licence that is named by URL or SPDX identifier; other text as it is."""
    if re.match(r"https?://", said) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]+", said):
        return said
    return f"https://spdx.org/licenses/{said}"


def _missing(cards: Iterable[Card], own: Own) -> list[Finding]:
    found = []
    for card in cards:
        for name in WANTED:
            if not (getattr(card, name) or getattr(own, name, "")):
                why = f"its card says no {name}" if card.text else "it has no card"
                message = f"{card.dataset}: {name} is not known, for {why}"
                found.append(Finding(f"card/{name}", "suggestion", card.dataset, name, message))
    return found


def _no_page(facts: Facts) -> list[Finding]:
    if facts.page:
        return []
    message = "neither a card nor the release gives a web address; Croissant asks for one"
    return [Finding("card/url", "suggestion", "", "url", message)]


# ---- tables


def _records(frame: pd.DataFrame) -> bytes:
    """A table as JSON, a record a line; every record has every column, null where it is missing."""
    columns = [str(name) for name in frame]
    values = zip(*([_plain(one) for one in frame[name]] for name in columns), strict=True)
    lines = [json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) for row in values]
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode("utf-8", "surrogatepass")


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    missing = value is None or (not isinstance(value, (str, bool)) and value != value)
    return None if missing or type(value).__name__ == "NAType" else value


def _sizes(store: Store) -> dict[str, int]:
    pieces = [
        _copied.Piece(str(row["id"]), session_path(str(row["id"])), row, tuple(row["tables"]))
        for row in store.rows
    ]
    return {piece.id: _copied.size(piece, store.zarr)[1] for piece in pieces}
