"""What a release says of itself, held against what the two specifications ask for."""

from __future__ import annotations

import hashlib
import json
from itertools import count

import numpy as np
import pytest

import neurostore
from neurostore.errors import UsageError
from neurostore.store import Source
from neurostore.store.release._croissant import CONTEXT
from neurostore.store.release._described import Own, describe, licence, release_files

NUMBERS = count()
CARDS = {
    "maze": """
title = "Rats in a maze"
description = "Two rats run."
licence = "CC-BY-4.0"
doi = "doi:10.1234/abc.5"
citation = "@article{maze}"
authors = ["Ada Ä", { name = "Bo B", orcid = "0000-0001" }]
""",
    "lab": 'licence = "Ask the lab."\nurl = "https://lab.example/data"\n',
}
MANIFESTS = {"manifests/maze/a.json": (120, "ab" * 32)}


def put(store, id, **more):
    dataset, name = id.split("/")
    made = neurostore.SessionBuilder(dataset=dataset, session=name, **more)
    rng = np.random.default_rng(len(name))
    made.add_units(
        {"u0": np.sort(rng.uniform(0, 9, 40)), "u1": []},
        region=["CA1", "CA3"],
        **{"my 'score'": [0.5, np.nan]},
    )
    with store.transaction(f"put {id}") as tx:
        tx.put(made)


@pytest.fixture(scope="module")
def store():
    made = neurostore.create(f"memory://described-{next(NUMBERS)}")
    source = Source("/home/ada/secret/a.nwb", "cd" * 32, "nwb", "1")
    put(made, "maze/a", subject="rat <1>", source=source)
    put(made, "maze/b", subject="rat 2")
    put(made, "lab/c c", card="lab")
    put(made, "open/d")
    return made


@pytest.fixture(scope="module")
def described(store):
    return describe(store, url="https://who:word@x.org/r?token=1", cards=CARDS, manifests=MANIFESTS)


@pytest.fixture(scope="module")
def croissant(described):
    return json.loads(described.files["croissant.json"])


@pytest.fixture(scope="module")
def crate(described):
    return json.loads(described.files["ro-crate-metadata.json"])


def nodes(value):
    """Every mapping in a document."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from nodes(one)


def of_type(document, kind):
    return [one for one in nodes(document) if one.get("@type") == kind]


# ---- Croissant 1.1, docs/croissant-spec-1.1.md


def test_croissant_has_what_its_specification_requires(croissant):
    required = {"@context", "@type", "conformsTo", "description", "license", "name", "url"}
    assert required | {"creator", "datePublished", "distribution"} <= croissant.keys()
    assert croissant["@type"] == "sc:Dataset"
    assert croissant["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    one = {"name", "description", "url", "citeAs", "datePublished"}
    assert all(isinstance(croissant[name], str) for name in one)
    for file in of_type(croissant, "cr:FileObject"):
        assert {"@id", "name", "contentUrl", "encodingFormat", "sha256"} <= file.keys()
        assert len(file["sha256"]) == 64
    (tree,) = of_type(croissant, "cr:FileSet")
    assert {"@id", "name", "encodingFormat", "includes"} <= tree.keys()
    assert tree["containedIn"] == [{"@id": "manifests/maze/a.json"}]
    sets = {one["@id"]: one for one in of_type(croissant, "cr:RecordSet")}
    assert list(sets) == ["datasets", "sessions", "units"]
    for name, one in sets.items():
        assert one["name"] == name
        for field in one["field"]:
            assert {"@type", "@id", "name", "dataType"} <= field.keys()
            assert field["@type"] == "cr:Field"
            assert field["@id"].startswith(f"{name}/")


def test_croissant_ids_are_unique_and_every_reference_leads_to_one(croissant):
    body = {key: value for key, value in croissant.items() if key != "@context"}
    said = [one["@id"] for one in nodes(body) if "@id" in one and len(one) > 1]
    assert len(said) == len(set(said))
    referred = {one["@id"] for one in nodes(body) if set(one) == {"@id"}}
    assert referred <= set(said)
    assert {"datasets/dataset", "sessions/id", "units/unit"} <= referred


def test_every_term_of_croissant_that_is_used_stands_in_the_context(croissant):
    of_schema_org = {
        *("name", "description", "url", "license", "creator", "datePublished", "identifier"),
        *("distribution", "contentUrl", "contentSize", "encodingFormat", "sha256"),
    }
    body = {key: value for key, value in croissant.items() if key not in ("@context", "recordSet")}
    sets = [{k: v for k, v in one.items() if k != "data"} for one in croissant["recordSet"]]
    used = {key for one in nodes([body, sets]) for key in one if not key.startswith("@")}
    used |= {"recordSet"}
    assert used <= of_schema_org | CONTEXT.keys()
    assert not of_schema_org & CONTEXT.keys()
    assert croissant["@context"] == CONTEXT
    assert CONTEXT["cr"] == "http://mlcommons.org/croissant/"
    assert CONTEXT["conformsTo"] == "dct:conformsTo"
    assert CONTEXT["dct"] == "http://purl.org/dc/terms/"


def test_the_records_that_croissant_speaks_of_are_those_of_the_store(store, described, croissant):
    sets = {one["@id"]: one for one in croissant["recordSet"]}
    kinds = {"sc:Text": str, "sc:Integer": int, "sc:Float": (float, int), "sc:Boolean": bool}
    for name, frame in (("sessions", store.sessions()), ("units", store.units())):
        records = json.loads(described.files[f"{name}.json"])
        fields = {one["name"]: one for one in sets[name]["field"]}
        assert len(records) == len(frame)
        for record in records:
            assert list(record) == list(frame) == list(fields)
            for key, value in record.items():
                one = fields[key]
                assert one["source"]["fileObject"] == {"@id": f"{name}.json"}
                values = value if one.get("isArray") else [value]
                assert all(v is None or isinstance(v, kinds[one["dataType"]]) for v in values)
    paths = {one["name"]: one["source"]["extract"]["jsonPath"] for one in sets["units"]["field"]}
    assert paths["region"] == "$[*].region"
    assert paths["my 'score'"] == "$[*]['my \\'score\\'']"
    units = json.loads(described.files["units.json"])
    assert [one["my 'score'"] for one in units[:2]] == [0.5, None]
    assert fields_of(sets["sessions"])["regions"]["isArray"] is True
    assert fields_of(sets["units"])["session"]["references"] == {"@id": "sessions/id"}


def fields_of(one):
    return {field["name"]: field for field in one["field"]}


def test_files_are_those_with_the_digests_that_are_said(described, croissant, crate):
    said = {one["@id"]: one["sha256"] for one in of_type(croissant, "cr:FileObject")}
    said |= {one["@id"]: one["sha256"] for one in of_type(crate["@graph"], "File")}
    for path, data in described.files.items():
        if path != "ro-crate-metadata.json":
            assert said.pop(path, hashlib.sha256(data).hexdigest()) == (
                hashlib.sha256(data).hexdigest()
            )
    assert said == {"manifests/maze/a.json": "ab" * 32}


# ---- RO-Crate 1.1, root-data-entity.md, data-entities.md, provenance.md


def test_the_crate_has_a_descriptor_and_a_root_as_its_specification_requires(crate, store):
    assert crate["@context"] == "https://w3id.org/ro/crate/1.1/context"
    by_id = {one["@id"]: one for one in crate["@graph"]}
    assert by_id["ro-crate-metadata.json"] == {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    root = by_id["./"]
    assert root["@type"] == "Dataset"
    assert {"name", "description", "datePublished", "license"} <= root.keys()
    assert root["datePublished"] == store.log(1)[0].time.isoformat()
    for one in root["license"]:
        assert by_id[one["@id"]]["@type"] == "CreativeWork"
        assert by_id[one["@id"]]["name"]
    assert [by_id[one["@id"]]["name"] for one in root["author"]] == ["Ada Ä", "Bo B"]


def test_the_parts_of_the_crate_are_sessions_with_sizes_and_files(crate, store):
    by_id = {one["@id"]: one for one in crate["@graph"]}
    assert len(by_id) == len(crate["@graph"])
    parts = [by_id[one["@id"]] for one in by_id["./"]["hasPart"]]
    sessions = {one["name"]: one for one in parts if one["@type"] == "Dataset"}
    assert list(sessions) == list(store.sessions()["id"])
    for one in sessions.values():
        assert one["@id"].endswith("/")
        assert int(one["contentSize"]) > 1000
    assert sum(int(one["contentSize"]) for one in sessions.values()) == (
        int(by_id["./"]["contentSize"])
    )
    licence_of = {name: one.get("license") for name, one in sessions.items()}
    assert licence_of["maze/a"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}
    assert by_id[licence_of["lab/c c"]["@id"]]["name"] == "Ask the lab."
    assert licence_of["open/d"] is None
    referred = {one["@id"] for one in nodes(crate["@graph"]) if set(one) == {"@id"}}
    assert {one for one in referred if one not in by_id} == {
        "https://w3id.org/ro/crate/1.1",
        "http://schema.org/CompletedActionStatus",
    }


def test_the_commit_is_an_action_with_its_author_software_and_sources(crate, store):
    by_id = {one["@id"]: one for one in crate["@graph"]}
    (action,) = of_type(crate["@graph"], "CreateAction")
    commit = store.log(1)[0]
    assert action["endTime"] == commit.time.isoformat()
    assert by_id[action["agent"]["@id"]] == {
        "@id": action["agent"]["@id"],
        "@type": "Person",
        "name": commit.author,
    }
    software = by_id[action["instrument"]["@id"]]
    assert (software["name"], software["version"]) == ("neurostore", commit.version)
    objects = [one["@id"] for one in action["object"]]
    assert objects == ["./", f"#source-{'cd' * 32}"]
    assert by_id[objects[1]]["name"] == "a.nwb"


# ---- both


def test_datasets_are_listed_each_with_its_licence_and_citation(croissant, described):
    records = {one["datasets/dataset"]: one for one in croissant["recordSet"][0]["data"]}
    assert list(records) == ["lab", "maze", "open"]
    assert records["maze"] == {
        "datasets/dataset": "maze",
        "datasets/title": "Rats in a maze",
        "datasets/licence": "https://spdx.org/licenses/CC-BY-4.0",
        "datasets/citation": "@article{maze}",
        "datasets/doi": "https://doi.org/10.1234/abc.5",
        "datasets/sessions": 2,
    }
    assert croissant["license"] == [
        {"@type": "sc:CreativeWork", "name": "Ask the lab."},
        "https://spdx.org/licenses/CC-BY-4.0",
    ]
    assert croissant["citeAs"] == "@article{maze}"
    assert described.files["catalog/maze.toml"].decode() == CARDS["maze"]
    assert "catalog/open.toml" not in described.files


def test_what_is_not_known_is_absent_and_a_finding(described):
    assert [one.check for one in described.findings] == [
        *("card/citation", "card/authors"),
        *("card/licence", "card/citation", "card/authors"),
    ]
    said = [str(one) for one in described.findings]
    assert "lab: citation is not known, for its card says no citation" in said[0]
    assert "open: licence is not known, for it has no card" in said[2]
    bare = neurostore.create(f"memory://described-{next(NUMBERS)}")
    put(bare, "open/d")
    made = describe(bare, url="s3://bucket/x", cards={})
    croissant = json.loads(made.files["croissant.json"])
    assert not {"license", "creator", "citeAs", "url", "version"} & croissant.keys()
    crate = json.loads(made.files["ro-crate-metadata.json"])
    root = next(one for one in crate["@graph"] if one["@id"] == "./")
    assert not {"license", "author", "citation", "url", "version"} & root.keys()
    assert [one.check for one in made.findings][-1] == "card/url"


def test_the_same_store_gives_the_same_bytes_and_no_secret(store, described):
    options = {"cards": CARDS, "manifests": MANIFESTS}
    again = release_files(store.pin(), url="https://other:pw@x.org/r?token=2", **options)
    assert again == described.files
    text = b"".join(again.values()).decode()
    assert "word" not in text
    assert "token" not in text
    for name in ("croissant.json", "ro-crate-metadata.json"):
        assert "/home/ada" not in again[name].decode()


def test_what_the_publisher_says_of_the_whole_stands_before_the_cards(store):
    own = Own("Maze and sky", "CC0-1.0", "Ada (2026), Maze and sky")
    made = describe(store, cards=CARDS, own=own)
    said = json.loads(made.files["croissant.json"])
    assert said["name"] == "Maze and sky"
    assert said["license"] == ["https://spdx.org/licenses/CC0-1.0"]
    assert said["citeAs"].startswith("Ada (2026), Maze and sky\n\n")
    graph = json.loads(made.files["ro-crate-metadata.json"])["@graph"]
    root = next(one for one in graph if one["@id"] == "./")
    assert root["name"] == "Maze and sky"
    assert root["license"] == [{"@id": "https://spdx.org/licenses/CC0-1.0"}]
    assert root["citation"][0] == {"@id": "#citation"}
    assert {one["@id"] for one in root["citation"]} <= {one["@id"] for one in graph}


def test_one_dataset_gives_its_own_title_page_and_version():
    store = neurostore.create(f"memory://described-{next(NUMBERS)}")
    put(store, "maze/a")
    made = release_files(store, cards=CARDS, version="1.2.0", sizes={"maze/a": 5})
    said = json.loads(made["croissant.json"])
    assert said["name"] == "Rats in a maze"
    assert said["url"] == "https://doi.org/10.1234/abc.5"
    assert said["version"] == "1.2.0"
    assert said["description"].startswith("Two rats run. 1 session, 2 units, 40 spikes;")
    crate = json.loads(made["ro-crate-metadata.json"])
    sizes = [one["contentSize"] for one in crate["@graph"] if one["@type"] == "Dataset"]
    assert sizes == ["5", "5"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = ", "is no TOML"),
        ("title = 3", "'title' is text, found 3"),
        ("authors = [3]", "an author is a name"),
    ],
)
def test_a_card_that_cannot_be_read_is_refused_by_name(store, text, said):
    with pytest.raises(UsageError, match=f"The card of maze.*{said}"):
        describe(store, cards={"maze": text})


def test_licences_are_urls_where_they_have_one():
    assert licence("CC0-1.0") == "https://spdx.org/licenses/CC0-1.0"
    assert licence("https://x.org/l") == "https://x.org/l"
    assert licence("Ask us.") == "Ask us."
    assert licence("") == ""
