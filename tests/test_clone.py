"""A clone has the bytes of its source or is refused; stopped at any moment, it goes on."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import time
from itertools import count
from pathlib import Path

import icechunk
import numpy as np
import pytest
from _cloned import build, clone_alone, tree
from _damaged import flipped
from _writers import CONTEXT, end_process, session, wheel

import neurostore
from neurostore import cli
from neurostore.errors import ConflictError, DamagedError, Finding, NotFoundError, UsageError
from neurostore.store import _copied, layout
from neurostore.store._versions import IcechunkVersions

TRIALS = int(os.environ.get("NEUROSTORE_TRIALS", "2"))
NUMBERS = count()
PRESENTATIONS = "presentations/shown"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return build(tmp_path_factory.mktemp("source") / "lab")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "copy"


def cloned(source, target, *args, **kwargs):
    made = neurostore.clone(source, target, *args, **kwargs)
    store = neurostore.open(target)
    assert made.snapshot == store.snapshot
    assert not any(store.validate().values())
    return store, made


def record(store):
    return layout.get_document(store.zarr, "")["attributes"]["clone"]


def without_root(found):
    return {key: value for key, value in found.items() if key != "zarr.json"}


# ---- all of it


def test_a_clone_has_every_key_and_byte_of_its_source_but_what_the_root_says(source, target):
    store, made = cloned(source, target)
    assert without_root(tree(store)) == without_root(tree(source))
    assert store.rows == source.rows
    assert made.sessions == ["lab/s0", "lab/s1", "lab/s2", "maze/s3", "maze/s4"]
    assert made.splits == ["/splits/all/v1", "/splits/lab/v1"]
    assert len(made.stimuli) == 3
    assert made.notes == made.there == []
    said = record(store)
    assert (said["source"], said["snapshot"]) == (source.url, source.snapshot)
    assert [one.message for one in store.log()][-2:] == [
        f"clone of {source.url} at {source.snapshot}",
        "store created",
    ]
    total = store.log(1)[0].metadata
    assert [total[f"{of}catalogue"] for of in ("", "split_", "stimulus_")] == [
        source.log(1)[0].metadata[f"{of}catalogue"] for of in ("", "split_", "stimulus_")
    ]


def test_a_clone_can_be_written_and_cloned_again(source, target, tmp_path):
    store, _ = cloned(source, target)
    with store.transaction("more") as tx:
        tx.put(session("lab/s9"))
        tx.update("lab/s0", wheel(1, "second", store.session("lab/s0").span))
    again, _ = cloned(store, tmp_path / "again")
    assert without_root(tree(again)) == without_root(tree(store))
    assert record(again)["of"] == record(store)


def test_a_store_at_a_tag_and_one_in_memory_are_cloned(source, tmp_path):
    url = f"memory://clone-{next(NUMBERS)}"
    store, _ = cloned(source, url)
    store.tag("v1")
    with store.transaction("gone") as tx:
        tx.delete("lab/s0")
    old, _ = cloned(f"{url}@v1", tmp_path / "old")
    assert "lab/s0" in old
    new, _ = cloned(url, tmp_path / "new")
    assert "lab/s0" not in new


def test_an_empty_store_and_the_stores_of_every_released_format_are_cloned(tmp_path):
    empty = neurostore.create(tmp_path / "empty")
    store, made = cloned(empty, tmp_path / "empty-copy")
    assert made.sessions == []
    assert record(store)["snapshot"] == empty.snapshot
    for folder in sorted((Path(__file__).parent / "golden").glob("format-*")):
        golden = neurostore.open(folder / "store")
        copy, _ = cloned(golden, tmp_path / folder.name)
        assert without_root(tree(copy)) == without_root(tree(golden))


def test_the_url_that_a_clone_keeps_has_no_secret(source):
    place = neurostore.store.urls.parse("s3://who:word@bucket/lab?signature=1")
    assert place.url == "s3://bucket/lab"  # what `Store.url`, and so the root, gives


# ---- selections


def test_sessions_are_chosen_by_id_and_by_expression(source, tmp_path):
    store, made = cloned(source, tmp_path / "a", sessions=["lab/s1", "lab/s0", "maze/s3"])
    assert list(store.sessions()["id"]) == ["lab/s0", "lab/s1", "maze/s3"]
    store, made = cloned(source, tmp_path / "b", "dataset = 'lab'")
    assert list(store.sessions()["id"]) == ["lab/s0", "lab/s1", "lab/s2"]
    assert list(store.splits["name"]) == ["lab"]
    assert made.notes == ["left out: the split all/v1, for 2 sessions of it not in the copy"]
    assert sorted(store.stimuli["name"]) == ["movie", "scene"]
    both, _ = cloned(source, tmp_path / "c", "dataset = 'lab'", ["lab/s1", "maze/s3"])
    assert list(both.sessions()["id"]) == ["lab/s1"]
    whole = without_root(tree(source))
    assert all(whole[key] == value for key, value in without_root(tree(both)).items())


def test_a_stimulus_comes_along_where_a_presentation_that_is_chosen_shows_it(source, tmp_path):
    store, made = cloned(source, tmp_path / "a", sessions=["lab/s0"])
    assert list(store.stimuli["name"]) == ["movie"]
    assert list(store.stimuli["embeddings"]) == [{"clip_l14/v1": 24}]
    assert "left out: stimuli that are not shown in it: scene" in made.notes
    store, _ = cloned(source, tmp_path / "b", sessions=["lab/s0"], tables=["spikes"])
    assert store.stimuli.empty
    store, _ = cloned(source, tmp_path / "c", tables=[PRESENTATIONS])
    assert sorted(store.stimuli["name"]) == ["movie", "scene"]
    assert list(store.sessions()["id"]) == ["lab/s0", "lab/s1"]


def test_tables_bring_what_they_link_to_and_the_row_is_made_anew(source, target):
    store, made = cloned(source, target, tables=["spikes"])
    names = ["intervals/observed", "spikes", "units"]
    before, after = source.session("lab/s0"), store.session("lab/s0")
    assert after.tables == names
    assert "added: intervals/observed, units of lab/s0, which what is chosen links to" in made.notes
    old, new = before.attrs["row"], after.attrs["row"]
    assert new["tables"] == {name: old["tables"][name] for name in names}
    assert (new["n_spikes"], new["n_trials"]) == (old["n_spikes"], 0)
    assert sorted(after.attrs["lineage"]) == names
    assert after.attrs["clone"] == {
        "source": source.url,
        "snapshot": source.snapshot,
        "row": old["checksum"],
    }
    assert after.attrs["source_key"] == ""
    assert (after.spike_times("u1") == before.spike_times("u1")).all()
    whole, mine = tree(source), tree(store)
    changed = {key for key in mine if whole[key] != mine[key]}
    assert changed == {"zarr.json"} | {f"sessions/{id}/zarr.json" for id in store.sessions()["id"]}


def test_units_alone_come_without_their_spikes_but_with_observed_time(source, target):
    store, _ = cloned(source, target, sessions=["lab/s0"], tables=["units"])
    assert store.session("lab/s0").tables == ["intervals/observed", "units"]
    rates = source.units(sessions=["lab/s0"])["rate_hz"]
    assert (store.units()["rate_hz"] == rates).all()


def test_what_is_not_there_to_choose_is_said(source, target):
    with pytest.raises(NotFoundError, match=r"No session 'lab/s8'.*Did you mean"):
        neurostore.clone(source, target, sessions=["lab/s8"])
    with pytest.raises(NotFoundError, match=r"No table 'spike'.*Did you mean 'spikes'"):
        neurostore.clone(source, target, tables=["spike"])
    with pytest.raises(UsageError, match=r"tables=\[\] names no table"):
        neurostore.clone(source, target, tables=[])
    with pytest.raises(UsageError, match=r"No session of .* is chosen"):
        neurostore.clone(source, target, "n_units > 1000")
    with pytest.raises(UsageError, match="where='nonsense'"):
        neurostore.clone(source, target, "nonsense")
    with pytest.raises(UsageError, match="at least one session"):
        neurostore.clone(source, target, at_once=0)
    assert not target.exists()


# ---- the target


def test_a_target_that_holds_something_else_is_refused_and_left_as_it_was(source, tmp_path):
    other = neurostore.create(tmp_path / "other")
    with other.transaction("one") as tx:
        tx.put(session("x/y"))
    before = other.snapshot
    with pytest.raises(UsageError, match="is a store of its own, with 1 session"):
        neurostore.clone(source, other.url)
    assert neurostore.open(other.url).snapshot == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        neurostore.clone(source, tmp_path / "full")
    assert [one.name for one in (tmp_path / "full").iterdir()] == ["file"]
    (tmp_path / "bare").mkdir()
    cloned(source, tmp_path / "bare", sessions=["lab/s0"])
    neurostore.create(tmp_path / "created")
    cloned(source, tmp_path / "created", sessions=["lab/s0"])


def test_another_selection_or_snapshot_is_refused_and_the_same_goes_on(source, target, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(source.url, mine)
    store, made = cloned(mine, target, sessions=["lab/s0", "lab/s1"])
    again = neurostore.clone(mine, target, sessions=["lab/s1", "lab/s0"])
    assert (again.sessions, again.nbytes, again.snapshot) == ([], 0, made.snapshot)
    assert len(again.there) == len(made.sessions) + len(made.stimuli)
    with pytest.raises(UsageError, match=r"is a clone of 2 sessions by id .*all sessions .*same"):
        neurostore.clone(mine, target)
    with pytest.raises(UsageError, match="with the tables spikes"):
        neurostore.clone(mine, target, sessions=["lab/s0", "lab/s1"], tables=["spikes"])
    with neurostore.open(mine).transaction("more") as tx:
        tx.put(session("x/y"))
    with pytest.raises(UsageError, match=f"the source is now at {tx.snapshot}") as caught:
        neurostore.clone(mine, target, sessions=["lab/s0", "lab/s1"])
    assert f"'{mine}@{source.snapshot}'" in caught.value.line
    neurostore.clone(f"{mine}@{source.snapshot}", target, sessions=["lab/s0", "lab/s1"])
    with store.transaction("edit") as tx:
        tx.update("lab/s0", wheel(3, "wheel", store.session("lab/s0").span))
    with pytest.raises(UsageError, match=r"lab/s0 was changed in .* since it was cloned"):
        neurostore.clone(f"{mine}@{source.snapshot}", target, sessions=["lab/s0", "lab/s1"])


def test_a_writer_who_comes_before_the_first_commit_is_not_mixed_with(source, target, monkeypatch):
    neurostore.create(target)
    commit = IcechunkVersions.commit

    def late(self, draft, message, check):
        if message.startswith("clone of"):
            monkeypatch.undo()
            with neurostore.open(target).transaction("first") as tx:
                tx.put(session("x/y"))
        return commit(self, draft, message, check)

    monkeypatch.setattr(IcechunkVersions, "commit", late)
    with pytest.raises(ConflictError, match="was empty and was written to meanwhile"):
        neurostore.clone(source, target)
    assert list(neurostore.open(target).sessions()["id"]) == ["x/y"]


# ---- dry run and the command


def test_a_dry_run_counts_what_the_clone_then_writes(source, target):
    would = neurostore.clone(source, target, "dataset = 'lab'", dry_run=True)
    assert not target.exists()
    _, made = cloned(source, target, "dataset = 'lab'")
    assert (would.chunks, would.nbytes) == (made.chunks, made.nbytes)
    assert (would.sessions, would.stimuli, would.splits) == (
        made.sessions,
        made.stimuli,
        made.splits,
    )
    assert would.snapshot is None
    mine = without_root(tree(neurostore.open(target)))
    above = {"sessions/zarr.json", "sessions/lab/zarr.json", "splits/zarr.json"}
    above |= {"splits/lab/zarr.json", "stimuli/zarr.json"}
    above |= {f"stimuli/movie/embeddings/{one}zarr.json" for one in ("", "clip_l14/")}
    assert made.nbytes == sum(len(value) for key, value in mine.items() if key not in above)
    assert made.chunks == sum("/c/" in key for key in mine)


def test_a_dry_run_of_some_tables_counts_what_is_then_written_too(source, target):
    would = neurostore.clone(source, target, tables=["spikes"], dry_run=True)
    _, made = cloned(source, target, tables=["spikes"])
    assert (would.chunks, would.nbytes) == (made.chunks, made.nbytes)
    mine = {key: len(one) for key, one in tree(neurostore.open(target)).items() if "/s0/" in key}
    only = neurostore.clone(
        source, f"{target}-0", sessions=["lab/s0"], tables=["spikes"], dry_run=True
    )
    assert only.nbytes == sum(mine.values())


def test_a_clone_of_some_tables_keeps_the_findings_of_these_and_of_the_session(tmp_path):
    builder = neurostore.SessionBuilder(dataset="lab", session="a")
    builder.add_units({"u": np.array([2.0, 1.0, 3.0])})
    builder.add_behaviour("wheel", np.arange(3.0), time=np.array([1.0, 3.0, 2.0]), units="rad")
    builder.findings.append(Finding("nwb/sex_missing", "suggestion", "session", "sex", "no sex"))
    store = neurostore.create(tmp_path / "lab")
    with store.transaction("one") as tx:
        tx.put(builder)
    neurostore.clone(store, tmp_path / "copy", tables=["spikes"])
    found = neurostore.open(tmp_path / "copy").session("lab/a").findings
    assert {one.table for one in store.session("lab/a").findings} == {
        "behaviour/wheel", "session", "spikes",
    }  # fmt: skip
    assert {one.table for one in found} == {"session", "spikes"}


def test_a_clone_of_another_store_is_told_from_one_that_has_moved_on(source, target, tmp_path):
    neurostore.clone(source, target, sessions=["lab/s0"])
    other = neurostore.create(tmp_path / "other")
    with other.transaction("one") as tx:
        tx.put(session("lab/s0"))
    with pytest.raises(UsageError, match=f"{other.url} is asked for, which is at") as caught:
        neurostore.clone(other, target)
    assert "the source is now" not in caught.value.line


def test_progress_is_told_and_ends_with_everything(source, target):
    told = []
    _, made = cloned(source, target, progress=lambda *said: told.append(said))
    assert told[-1] == (10, 10, made.nbytes)
    assert [one[2] for one in told] == sorted(one[2] for one in told)
    assert len({one[0] for one in told}) == 11


def test_the_command_clones_says_what_it_did_and_speaks_json(source, tmp_path, capsys):
    target = str(tmp_path / "copy")
    options = ["--where", "dataset = 'lab'", "--tables", "spikes", "behaviour/wheel"]
    assert cli.main(["clone", source.url, target, *options, "--dry-run"]) == 0
    assert "Dry run: 3 sessions, 1 split" in capsys.readouterr().out
    assert cli.main(["clone", source.url, target, *options, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["sessions"] == ["lab/s0", "lab/s1", "lab/s2"]
    assert said["snapshot"] == neurostore.open(target).snapshot
    assert cli.main(["clone", source.url, target, *options]) == 0
    assert "there already: 4" in capsys.readouterr().out
    assert cli.main(["clone", source.url, target]) == 2
    assert "is a clone of all sessions where" in capsys.readouterr().err
    more = ["clone", source.url, str(tmp_path / "one"), "--sessions", "lab/s0"]
    assert cli.main(more) == 0
    assert "Copied 1 session, 0 splits, 2 stimuli and embeddings" in capsys.readouterr().out


# ---- damage


def faulty(monkeypatch, key, change):
    """Let the source answer one key otherwise."""
    real = icechunk.IcechunkStore.get

    async def get(self, wanted, prototype, byte_range=None):
        found = await real(self, wanted, prototype, byte_range)
        if wanted != key or found is None or not self.read_only:
            return found
        changed = change(found.to_bytes())
        return None if changed is None else prototype.buffer.from_bytes(changed)

    monkeypatch.setattr(icechunk.IcechunkStore, "get", get)


CHANGES = {
    "a bit of its content": lambda data: flipped(data, 77),
    "a bit of its checksum": lambda data: flipped(data, 8 * len(data) - 3),
    "cut short": lambda data: data[:-9],
    "empty": lambda data: b"",
    "not there": lambda data: None,
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_damaged_chunk_is_named_and_nothing_of_its_commit_is_kept(
    source, target, monkeypatch, what
):
    key = "sessions/lab/s2/spikes/time/c/0"
    with monkeypatch.context() as patch:
        faulty(patch, key, CHANGES[what])
        with pytest.raises(DamagedError, match="Chunk 0 of spikes/time of lab/s2") as caught:
            neurostore.clone(source, target, at_once=5)
    assert "where=\"id <> 'lab/s2'\"" in caught.value.line
    store = neurostore.open(target)
    assert list(store.sessions()["id"]) == ["lab/s0", "lab/s1"]
    assert not any(store.validate().values())
    assert not [key for key in tree(store) if "s2" in key]
    store, _ = cloned(source, target, at_once=5)
    assert without_root(tree(store)) == without_root(tree(source))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("sessions/lab/s2/zarr.json", "sessions/lab/s2"),
        ("sessions/lab/s2/spikes/zarr.json", "sessions/lab/s2/spikes"),
        ("sessions/lab/s2/behaviour/wheel/value/zarr.json", "sessions/lab/s2/behaviour/wheel"),
        ("stimuli/movie/frames/value/c/0/0", "Chunk 0/0 of frames/value of stimuli/movie"),
        ("splits/lab/v1/split/start/c/0", "Chunk 0 of split/start of splits/lab/v1"),
    ],
)
def test_damage_anywhere_stops_the_clone_and_is_named(source, target, monkeypatch, key, said):
    source.rows, source.split_rows, source.stimulus_rows  # noqa: B018
    last = len(tree(source)[key])
    with monkeypatch.context() as patch:
        faulty(patch, key, lambda data: flipped(data, 8 * (last // 2)))
        with pytest.raises(DamagedError, match=said):
            neurostore.clone(source, target, at_once=1)
    store = neurostore.open(target)
    assert not any(store.validate().values())
    assert without_root(tree(store)).items() <= without_root(tree(source)).items()
    store, _ = cloned(source, target, at_once=1)
    assert without_root(tree(store)) == without_root(tree(source))


def test_a_missing_document_and_a_missing_chunk_stop_a_dry_run_too(source, target, monkeypatch):
    async def gone(self, key):
        raise FileNotFoundError(key)

    with monkeypatch.context() as patch:
        patch.setattr("icechunk.IcechunkStore.getsize", gone)
        with pytest.raises(DamagedError, match=r"Chunk 0.* of .* is not found"):
            neurostore.clone(source, target, dry_run=True)
    faulty(monkeypatch, "sessions/lab/s0/units/region/zarr.json", lambda _: None)
    with pytest.raises(DamagedError, match=r"units/region/zarr.json is not found"):
        neurostore.clone(source, target, dry_run=True)


def test_what_was_written_is_decoded_and_held_against_the_digests(source, target, monkeypatch):
    monkeypatch.setattr(_copied.Chunk, "check", lambda *_: None)
    turns = [99]  # once: what was written is read under the same key
    key = "sessions/lab/s0/units/n_spikes/c/0"
    faulty(monkeypatch, key, lambda data: flipped(data, turns.pop()) if turns else data)
    with pytest.raises(DamagedError, match="sessions/lab/s0/units/n_spikes"):
        neurostore.clone(source, target)
    assert neurostore.open(target).rows == []


# ---- stopped


@pytest.mark.parametrize("chosen", [{}, {"where": "n_units >= 0", "tables": ["intervals/trials"]}])
def test_a_clone_that_was_stopped_is_known_until_the_command_that_it_names_ends_it(
    source, target, monkeypatch, capsys, chosen
):
    copied = []

    def stop(piece, *args, **kwargs):
        copied.append(piece)
        if sum("session" in one.row for one in copied) > 1:
            raise KeyboardInterrupt
        return copy(piece, *args, **kwargs)

    with monkeypatch.context() as patched:
        copy = _copied.copy
        patched.setattr(_copied, "copy", stop)
        with pytest.raises(KeyboardInterrupt):
            neurostore.clone(source, target, **chosen, at_once=1)
    store = neurostore.open(target)
    (said,) = store.unfinished()
    assert f"unfinished clone of {len(source.ids)} sessions of {source.url}" in said
    for words in (["sessions", str(target)], ["show", str(target), store.ids[0]]):
        assert cli.main(words) == 0
        assert said in capsys.readouterr().err
    report = neurostore.verify(target)
    (fault,) = report.faults
    assert report.whole
    assert (fault.finding.check, fault.finding.severity) == ("store/clone/unfinished", "violation")
    command = fault.hint.partition("Go on: neurostore ")[2].partition(";")[0]
    assert cli.main(shlex.split(command)) == 0
    assert neurostore.open(target).unfinished() == []
    assert len(neurostore.open(target).ids) == len(source.ids)
    assert not neurostore.verify(target).faults


def trial(source, target, tables, after, copied=0):
    """Clone in a process that is killed so many seconds after it began, or has copied so many.

    Gives how long it ran.
    """
    ours, theirs = CONTEXT.Pipe(duplex=False)
    arguments = (theirs, source.url, str(target), tables)
    process = CONTEXT.Process(target=clone_alone, args=arguments)
    process.start()
    theirs.close()
    try:
        done = -1
        while done < copied:
            assert ours.poll(60)
            done = ours.recv()
        begun = time.perf_counter()
        process.join(after)
        process.kill()
        process.join(30)
        return time.perf_counter() - begun
    finally:
        ours.close()
        end_process(process)


@pytest.mark.parametrize("tables", [None, ["spikes", PRESENTATIONS]])
def test_a_clone_killed_at_random_moments_ends_as_one_that_was_not(source, tmp_path, tables):
    whole, _ = cloned(source, tmp_path / "whole", tables=tables, at_once=1)
    wanted, rng, half_way = tree(whole), random.Random(len(tables or ())), 0
    seconds = min(trial(source, tmp_path / f"timed-{k}", tables, 60) for k in range(2))
    for k in range(TRIALS):
        target = tmp_path / f"killed-{k}"
        if k == 0:  # on a busy machine no other moment may be half-way
            trial(source, target, tables, 0, copied=2)
        for _ in range(rng.randint(1, 2) if k else 0):
            trial(source, target, tables, (k + rng.random()) / TRIALS * seconds)
        if target.exists():
            half = neurostore.open(target)
            assert not any(half.validate().values())
            assert tree(half).items() <= wanted.items() or record_missing(half)
            half_way += half.rows != whole.rows
        store, _ = cloned(source, target, tables=tables)
        assert tree(store) == wanted
        assert store.rows == whole.rows
        shutil.rmtree(target)
    assert half_way


def record_missing(store):
    """Whether it was killed between making the store and saying what it is to be a clone of."""
    return "clone" not in layout.get_document(store.zarr, "")["attributes"] and not store.rows
