"""Contracts evolve: old tables read for ever, and by declared functions as newer ones."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import neurostore
from neurostore import RefusedError, UsageError, _declared, cli, schemas

V1 = _declared.folder("schemas") / "electrodes" / "v1.toml"


def second(folder: Path, by: str = "_migrated:with_depth") -> Path:
    """electrodes/v2, which asks for a depth, with its migration."""
    text = (
        V1.read_text("utf-8").replace("version = 1", "version = 2").replace('"frozen"', '"draft"')
    )
    text = re.sub(r"\[columns\.depth\].*?(?=\n\[|\Z)", "", text, flags=re.S)
    head, _, columns = text.partition("[columns.")
    path = folder / "electrodes" / "v2.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'{head}migrates = {{ from = "v1", by = "{by}" }}\n\n[columns.{columns}\n'
        '[columns.depth]\ndims = ["electrode"]\ndtype = ["float64"]\nunits = "um"\n'
    )
    return path


@pytest.fixture
def known():
    """Whatever a test declares is forgotten."""
    yield
    schemas.contracts.cache_clear()
    schemas.contract.cache_clear()


@pytest.fixture
def lab(tmp_path):
    store = neurostore.create(tmp_path / "lab")
    for name in "ab":
        builder = neurostore.SessionBuilder(dataset="lab", session=name)
        builder.add_electrodes(["e1", "e2"], region=["CA1", "DG"])
        with store.transaction(name) as tx:
            tx.put(builder)
    return store


def test_an_old_table_reads_as_it_was_and_migrated_where_asked(lab, tmp_path, known):
    schemas.declare(second(tmp_path))
    session = neurostore.open(lab.url).session("lab/a")
    assert session.stored("electrodes").contract == "electrodes/v1"
    for found in (session.table("electrodes", version="v2"), session.stored("electrodes", "v2")):
        assert found.contract == "electrodes/v2"
        assert list(found.columns["depth"].values[:]) == [-1, -1]
        assert list(found.columns["region"].values[:]) == ["CA1", "DG"]
    assert session.table("electrodes", version="v1").contract == "electrodes/v1"


def test_a_store_is_migrated_by_one_commit_and_older_snapshots_keep_theirs(lab, tmp_path, known):
    schemas.declare(second(tmp_path))
    store, before = neurostore.open(lab.url), lab.snapshot
    would = store.migrate(dry_run=True)
    assert [(one.session, one.before, one.after, one.rows) for one in would] == [
        (f"lab/{name}", "electrodes/v1", "electrodes/v2", 2) for name in "ab"
    ]
    assert neurostore.open(lab.url).snapshot == before
    assert store.migrate() == would
    assert store.log()[0].parent == before
    assert set(store.log()[0].changes.values()) == {"update"}
    for name in "ab":
        assert store.session(f"lab/{name}").stored("electrodes").contract == "electrodes/v2"
        old = store.at(before).session(f"lab/{name}").stored("electrodes")
        assert old.contract == "electrodes/v1"
        assert np.asarray(old.columns["region"].values[:]).tolist() == ["CA1", "DG"]
    assert not any(store.validate().values())
    assert store.verify().whole
    assert store.migrate() == []


def test_the_command_migrates_by_a_file_that_is_given(lab, tmp_path, known, capsys):
    path = str(second(tmp_path))
    assert cli.main(["migrate", lab.url, "--contract", path, "--dry-run"]) == 0
    assert "2 tables would be migrated" in capsys.readouterr().out
    assert cli.main(["migrate", lab.url, "--contract", path, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["tables"]) == 2
    assert cli.main(["migrate", lab.url]) == 0
    assert "Every table is of the newest contract" in capsys.readouterr().out


def test_without_its_declaration_a_newer_version_is_not_known(lab):
    with pytest.raises(neurostore.NotFoundError):
        lab.session("lab/a").stored("electrodes", "v2")
    with pytest.raises(neurostore.NotFoundError):
        lab.migrate(["electrodes/v2"])


def test_a_migration_that_does_not_hold_its_contract_writes_nothing(lab, tmp_path, known):
    schemas.declare(second(tmp_path, "_migrated:forgetful"))
    store, before = neurostore.open(lab.url), lab.snapshot
    with pytest.raises(RefusedError, match="depth"):
        store.migrate()
    assert neurostore.open(lab.url).snapshot == before


def test_nothing_leads_back_and_a_declared_contract_never_changes(lab, tmp_path, known):
    schemas.declare(second(tmp_path))
    store = neurostore.open(lab.url)
    store.migrate()
    with pytest.raises(UsageError, match="newer than electrodes/v1"):
        store.migrate(["electrodes/v1"])
    with pytest.raises(UsageError, match="never changes"):
        schemas.declare(second(tmp_path, "_migrated:forgetful"))
    wrong = shutil.copy(second(tmp_path), tmp_path / "v3.toml")
    text = (
        Path(wrong).read_text().replace("version = 2", "version = 3").replace('from = "v1", ', "")
    )
    Path(wrong).write_text(text)
    with pytest.raises(UsageError, match="migrates says"):
        schemas.declare(wrong)


def test_every_contract_that_was_ever_frozen_is_still_there():
    """Deleting one would leave stores unreadable, and deleting its digest would hide that."""
    held = {
        *("activity/v1", "behaviour/v1", "electrodes/v1", "intervals/v1", "presentations/v1"),
        *("sessions/v1", "spikes/v1", "split/v1", "stimulus_embeddings/v1", "stimulus_frames/v1"),
        "units/v1",
    }
    assert held <= set(schemas.frozen())
    assert set(schemas.frozen()) <= set(schemas.contracts())
