"""``ro-crate-metadata.json``: a release as a research object, in the terms of RO-Crate 1.1."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from neurostore.errors import counted
from neurostore.store._format import session_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from neurostore.store.release._described import Card, Facts

CONFORMS = "https://w3id.org/ro/crate/1.1"
SOFTWARE = "#neurostore"


def document(facts: Facts) -> dict[str, Any]:
    """The whole of it; what is not known of the release is not there."""
    by_dataset = {card.dataset: card for card in facts.cards}
    sessions = [_session(facts, row, by_dataset[row["dataset"]]) for row in facts.rows]
    files = [
        {
            "@id": quote(one.path),
            "@type": "File",
            "name": one.path,
            "contentSize": str(one.size),
            "sha256": one.sha256,
            "encodingFormat": _format(one.path),
        }
        for one in (*facts.files, *facts.manifests)
    ]
    entities = [
        *_licences(facts),
        *({"@id": _person(name), "@type": "Person", "name": name} for name in _people(facts)),
        *_citations(facts),
        *_sources(facts),
        *_commit(facts),
    ]
    graph = [_descriptor(), _root(facts, [*sessions, *files]), *sessions, *files, *entities]
    return {"@context": f"{CONFORMS}/context", "@graph": graph}


def _descriptor() -> dict[str, Any]:
    return {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "conformsTo": {"@id": CONFORMS},
        "about": {"@id": "./"},
    }


def _root(facts: Facts, parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return _known(
        {
            "@id": "./",
            "@type": "Dataset",
            "name": facts.name,
            "description": facts.description,
            "datePublished": facts.commit.time.isoformat(),
            "license": [{"@id": _licence(one)} for one in facts.licences],
            "author": [{"@id": _person(name)} for name in facts.authors],
            "citation": [{"@id": one["@id"]} for one in _citations(facts)],
            "identifier": [facts.snapshot, *(card.doi for card in facts.cards if card.doi)],
            "url": facts.page,
            "version": facts.version,
            "contentSize": str(sum(facts.sizes.values())),
            "hasPart": [{"@id": one["@id"]} for one in parts],
        }
    )


def _session(facts: Facts, row: Mapping[str, Any], card: Card) -> dict[str, Any]:
    id = str(row["id"])
    what = f"{counted(row['n_units'], 'unit')}, {counted(row['n_spikes'], 'spike')}"
    source = facts.sources.get(id)
    return _known(
        {
            "@id": f"{session_path(id)}/",
            "@type": "Dataset",
            "name": id,
            "identifier": id,
            "description": f"{what}, {row['observed']:g} s observed",
            "version": row["digest"],
            "contentSize": str(facts.sizes[id]),
            "license": {"@id": _licence(card.licence)} if card.licence else "",
            "isBasedOn": "" if source is None else {"@id": _source(source)},
        }
    )


def _known(said: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value not in ("", [])}


def _format(path: str) -> str:
    return "application/toml" if path.endswith(".toml") else "application/json"


# ---- what is spoken of


def _licences(facts: Facts) -> list[dict[str, Any]]:
    return [
        {"@id": _licence(one), "@type": "CreativeWork", "name": one.rpartition("/")[2] or one}
        if one.startswith(("http://", "https://"))
        else {"@id": _licence(one), "@type": "CreativeWork", "name": one, "description": one}
        for one in facts.licences
    ]


def _licence(said: str) -> str:
    return said if said.startswith(("http://", "https://")) else f"#licence-{quote(said, safe='')}"


def _people(facts: Facts) -> list[str]:
    return list(dict.fromkeys([*facts.authors, facts.commit.author]))


def _person(name: str) -> str:
    return f"#person-{quote(name, safe='')}"


def _citations(facts: Facts) -> list[dict[str, Any]]:
    said = [("#citation", facts.own.citation)] if facts.own.citation else []
    for card in facts.cards:
        if card.citation:
            said.append((card.doi or f"#citation-{quote(card.dataset, safe='')}", card.citation))
    return [{"@id": id, "@type": "CreativeWork", "name": text} for id, text in said]


def _source(said: Mapping[str, Any]) -> str:
    return f"#source-{said['sha256']}"


def _sources(facts: Facts) -> list[dict[str, Any]]:
    """The files that sessions were read from: names and digests, not where they lay."""
    by_id = {_source(said): said for said in facts.sources.values()}
    return [
        {
            "@id": id,
            "@type": "CreativeWork",
            "name": PurePosixPath(str(said["url"])).name,
            "sha256": said["sha256"],
        }
        for id, said in sorted(by_id.items())
    ]


def _commit(facts: Facts) -> list[dict[str, Any]]:
    """The commit as an action, and the software that made it."""
    commit = facts.commit
    sources = [{"@id": one["@id"]} for one in _sources(facts)]
    action = {
        "@id": f"#commit-{commit.snapshot}",
        "@type": "CreateAction",
        "name": commit.message,
        "endTime": commit.time.isoformat(),
        "agent": {"@id": _person(commit.author)},
        "instrument": {"@id": SOFTWARE},
        "object": [{"@id": "./"}, *sources],
        "result": {"@id": "./"},
        "actionStatus": {"@id": "http://schema.org/CompletedActionStatus"},
    }
    software = {
        "@id": SOFTWARE,
        "@type": "SoftwareApplication",
        "name": "neurostore",
        "version": commit.version,
    }
    return [action, software]
