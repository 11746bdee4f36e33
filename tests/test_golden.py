"""Stores written by every version so far read as they did then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from golden.make import expected

import neurostore

FORMATS = sorted((Path(__file__).parent / "golden").glob("format-*"))


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=list))


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("ref", ["head", "v1"])
def test_a_golden_store_reads_as_when_it_was_written(folder, ref):
    store = neurostore.open(folder / "store", None if ref == "head" else ref)
    wanted = json.loads((folder / "expected.json").read_text("utf-8"))[ref]
    found = plain(expected(store))
    for part in wanted:
        assert found[part] == wanted[part], part
    assert not any(store.validate().values())


def test_there_is_a_golden_store_of_the_format_that_is_written():
    from neurostore.store.layout import FORMAT

    assert f"format-{FORMAT}" in [folder.name for folder in FORMATS]
