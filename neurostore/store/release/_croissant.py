"""``croissant.json``: what is in a release, in the terms of MLCommons' Croissant 1.1.

Croissant cannot look into Zarr: the tree is a set of files whose digests the manifests hold, and
what it can read are the tables of sessions and of units, which lie beside the tree as JSON.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from neurostore.schemas import contract

if TYPE_CHECKING:
    import pandas as pd

    from neurostore.store.release._described import Card, Facts, File

CONFORMS = "http://mlcommons.org/croissant/1.1"
ZARR = "https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html"
TREE = ["zarr.json", "sessions/**", "splits/**", "stimuli/**"]
# Appendix 1 of the specification. It writes http://schema.org/ there, its own loader mlcroissant
# https://schema.org/ and compares the text.
_OF_CROISSANT = (
    *("annotation", "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty"),
    *("excludes", "extract", "field", "fileProperty", "fileObject", "fileSet", "format"),
    *("includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5", "parentField"),
    *("recordSet", "references", "regex", "readLines", "sdVersion", "separator", "source"),
    *("subField", "transform", "unArchive", "value"),
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in _OF_CROISSANT},
}
_KINDS = {"b": "sc:Boolean", "i": "sc:Integer", "u": "sc:Integer", "f": "sc:Float"}


def document(facts: Facts) -> dict[str, Any]:
    """The whole of it; what is not known of the release is not there."""
    citations = [facts.own.citation, *(card.citation for card in facts.cards)]
    files = [_file(one, "application/json") for one in facts.files if one.path.endswith(".json")]
    manifests = [_file(one, "application/json") for one in facts.manifests]
    said = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS,
        "name": facts.name,
        "description": facts.description,
        "url": facts.page,
        "license": [_licence(one) for one in facts.licences],
        "creator": [{"@type": "sc:Person", "name": name} for name in facts.authors],
        "citeAs": "\n\n".join(dict.fromkeys(filter(None, citations))),
        "datePublished": facts.commit.time.isoformat(),
        "version": facts.version,
        "identifier": facts.snapshot,
        "isLiveDataset": False,
        "distribution": [*files, *manifests, _tree(facts)],
        "recordSet": [
            _datasets(facts.cards),
            _records("sessions", facts.tables["sessions"]),
            _records("units", facts.tables["units"]),
        ],
    }
    return {name: value for name, value in said.items() if value not in ("", [])}


def _licence(said: str) -> str | dict[str, str]:
    is_url = said.startswith(("http://", "https://"))
    return said if is_url else {"@type": "sc:CreativeWork", "name": said}


def _file(one: File, kind: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": one.path,
        "name": one.path,
        "contentUrl": one.path,
        "contentSize": f"{one.size} B",
        "encodingFormat": kind,
        "sha256": one.sha256,
    }


def _tree(facts: Facts) -> dict[str, Any]:
    said: dict[str, Any] = {
        "@type": "cr:FileSet",
        "@id": "zarr",
        "name": "zarr",
        "description": "The Zarr v3 tree of all sessions, splits and stimuli.",
        "encodingFormat": ZARR,
        "includes": TREE,
    }
    if facts.manifests:
        said["containedIn"] = [{"@id": one.path} for one in facts.manifests]
    return said


def _datasets(cards: tuple[Card, ...]) -> dict[str, Any]:
    """Every dataset with what its card says of it, as records in the document itself."""
    texts = ("dataset", "title", "licence", "citation", "doi", "url")
    kinds = {**dict.fromkeys(texts, "sc:Text"), "sessions": "sc:Integer"}
    records = [
        {f"datasets/{name}": getattr(card, name) for name in kinds if getattr(card, name) != ""}
        for card in cards
    ]
    fields = [
        {"@type": "cr:Field", "@id": f"datasets/{name}", "name": name, "dataType": kind}
        for name, kind in kinds.items()
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "datasets",
        "name": "datasets",
        "description": "The datasets that the sessions are of, and their licences and citations.",
        "key": {"@id": "datasets/dataset"},
        "field": fields,
        "data": records,
    }


def _records(name: str, frame: pd.DataFrame) -> dict[str, Any]:
    keys = {"sessions": ["id"], "units": ["session", "unit"]}[name]
    made: dict[str, Any] = {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": contract(name).title,
        "key": [{"@id": f"{name}/{key}"} for key in keys],
        "field": [_field(name, str(column), frame[column]) for column in frame],
    }
    for field in made["field"]:
        if name == "units" and field["name"] == "session":
            field["references"] = {"@id": "sessions/id"}
    return made


def _field(table: str, name: str, values: pd.Series[Any]) -> dict[str, Any]:
    several = any(hasattr(one, "__len__") and not isinstance(one, str) for one in values[:100])
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    spec = contract(table).columns.get(name)
    made: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{table}/{quote(name)}",
        "name": name,
        "dataType": "sc:Text" if several else _KINDS.get(values.dtype.kind, "sc:Text"),
        "source": {
            "fileObject": {"@id": f"{table}.json"},
            "extract": {"jsonPath": f"$[*].{name}" if plain else f"$[*]['{escaped}']"},
        },
    }
    if spec is not None and spec.title:
        made["description"] = spec.title
    return {**made, "isArray": True} if several else made
