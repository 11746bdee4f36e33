"""Where stores lie: parsed, pinned by a tag, and shown without secrets."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

import neurostore
from neurostore.errors import NotFoundError, UsageError
from neurostore.store.urls import apart, parse


@pytest.mark.parametrize(
    ("url", "kind", "path"),
    [
        ("/data/lab", "local", "/data/lab"),
        ("file:///data/my%20lab", "local", "/data/my lab"),
        ("memory://lab/", "memory", "lab"),
        ("s3://bucket/lab/", "bucket", "s3://bucket/lab"),
        ("s3a://bucket/lab", "bucket", "s3://bucket/lab"),
        ("gcs://bucket/lab", "bucket", "gs://bucket/lab"),
        ("abfs://box/lab", "bucket", "az://box/lab"),
        ("https://host/lab", "remote", "https://host/lab"),
        ("zip://lab::/data/lab.zip", "remote", "zip://lab::/data/lab.zip"),
        ("zip::/data/lab.zip", "remote", "zip::/data/lab.zip"),
        ("simplecache::s3://b/lab", "remote", "simplecache::s3://b/lab"),
    ],
)
def test_a_url_is_of_one_kind(url: str, kind: str, path: str):
    place = parse(url)
    assert (place.kind, place.path) == (kind, path)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@host/lab?sig=secret#x", "https://host/lab"),
        ("s3://secret:secret@bucket/lab", "s3://bucket/lab"),
        ("simplecache::https://me:secret@host/lab?token=secret", "simplecache::https://host/lab"),
        ("/data/a?b@c", "/data/a?b@c"),
    ],
)
def test_what_is_shown_of_a_place_holds_no_secret(url: str, shown: str):
    options = {"secret": "secret"} if "://" in url else None
    place = parse(url, options)
    assert place.url == shown
    assert "secret" not in f"{place} {place!r} {place.url}"
    assert pickle.loads(pickle.dumps(place)) == place


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/data/lab@v1", ("/data/lab", "v1")),
        ("lab@v1", ("lab", "v1")),
        ("/data/a@b/lab", ("/data/a@b/lab", None)),
        ("/lab@v1", ("/lab", "v1")),
        ("https://me@host/lab", ("https://me@host/lab", None)),
        ("https://me@host/lab@v1.0", ("https://me@host/lab", "v1.0")),
        ("s3://bucket/lab@v1", ("s3://bucket/lab", "v1")),
        ("memory://lab@v1", ("memory://lab", "v1")),
        ("/data/lab@", ("/data/lab@", None)),
        ("/data/@v1", ("/data/@v1", None)),
    ],
)
def test_a_tag_stands_behind_the_last_slash(url: str, expected: tuple[str, str | None]):
    assert apart(url) == expected


def test_a_folder_with_such_a_name_is_the_folder(tmp_path: Path):
    (tmp_path / "lab@v1").mkdir()
    assert apart(tmp_path / "lab@v1") == (str(tmp_path / "lab@v1"), None)
    assert apart(tmp_path / "lab@v2") == (str(tmp_path / "lab"), "v2")


def test_a_store_opens_at_the_tag_of_its_url(tmp_path: Path):
    store = neurostore.create(tmp_path / "lab")
    for name in ("first", "second"):
        made = neurostore.SessionBuilder(dataset="d", session=name)
        made.add_units({"a": np.arange(5.0)})
        with store.transaction(name) as tx:
            tx.put(made)
        store.tag(name)
    then = neurostore.open(f"{tmp_path}/lab@first")
    assert list(then.sessions()["id"]) == ["d/first"]
    assert then.pinned
    assert pickle.loads(pickle.dumps(then)).snapshot == then.snapshot
    with pytest.raises(NotFoundError, match="third"):
        neurostore.open(f"{tmp_path}/lab@third")
    with pytest.raises(UsageError, match="and snapshot="):
        neurostore.open(f"{tmp_path}/lab@first", "second")
    with pytest.raises(UsageError, match=r"takes no storage options, found \['key'\]"):
        neurostore.open(tmp_path / "lab", storage_options={"key": "x"})


def test_anon_means_the_same_to_every_provider():
    assert parse("gs://b/lab", {"anon": True}).options == {"token": "anon"}
    assert parse("gcs://b/lab", {"anon": True}).options == {"token": "anon"}
    assert parse("s3://b/lab", {"anon": True}).options == {"anon": True}
