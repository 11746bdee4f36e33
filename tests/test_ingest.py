"""Files into a store: one commit, nothing half-written, a line for each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import neurostore
from neurostore.simulate import simulate, write_nwb


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files") / "maze"
    folder.mkdir()
    for k in (1, 2, 3):
        write_nwb(simulate(k, units=6, seconds=60), folder / f"s{k}.nwb", session_id=f"s{k}")
    (folder / "text.nwb").write_text("no NWB at all")
    return [folder / name for name in ("s1.nwb", "text.nwb", "s2.nwb", "s3.nwb")]


@pytest.fixture
def store(tmp_path: Path) -> neurostore.Store:
    return neurostore.create(tmp_path / "lab")


class Arrays:
    """A reader of one's own, as the documentation has it."""

    def __init__(self, sha256: str = "0" * 64, spikes: int = 3, url: str = "mine.dat") -> None:
        self.source = neurostore.Source(url, sha256, "arrays", "1")
        self.spikes = spikes

    def sessions(self) -> list[str]:
        return ["a"]

    def read(self, session: str) -> neurostore.SessionBuilder:
        builder = neurostore.SessionBuilder(dataset="mine", session=session)
        builder.add_units({"u": np.arange(self.spikes) / 10})
        builder.notes.append("lfp: left out, it has no rate")
        return builder


def test_a_bad_file_does_not_stop_the_others_and_all_is_one_commit(store, files):
    before = store.snapshot
    report = neurostore.ingest(store, files)
    assert [one.status for one in report.outcomes] == ["written", "refused", "written", "written"]
    assert "text.nwb" in report.outcomes[1].message
    assert list(store.sessions()["id"]) == ["maze/s1", "maze/s2", "maze/s3"]
    assert [one.snapshot for one in store.log()] == [report.snapshot, before]
    assert store.validate() == {f"maze/s{k}": [] for k in (1, 2, 3)}


def test_asked_to_stop_it_writes_nothing_at_all(store, files):
    before = store.snapshot
    with pytest.raises(neurostore.RefusedError, match=r"text\.nwb"):
        neurostore.ingest(store, files, stop_on_refusal=True)
    assert neurostore.open(store.url).snapshot == before
    assert store.sessions().empty


def test_only_refused_files_leave_the_snapshot_as_it_was(store, files):
    before = store.snapshot
    report = neurostore.ingest(store, [files[1], files[1].with_name("nowhere.nwb")])
    assert [one.status for one in report.outcomes] == ["refused", "refused"]
    assert report.snapshot == store.snapshot == before


def test_a_dry_run_says_what_would_be_and_writes_nothing(store, files):
    before = store.snapshot
    report = neurostore.ingest(store, files, "other", dry_run=True)
    assert report.snapshot is None
    assert [one.session for one in report.outcomes if one.tables] == [
        "other/s1", "other/s2", "other/s3",
    ]  # fmt: skip
    assert report.outcomes[0].tables["units"] == 6
    assert neurostore.open(store.url).snapshot == before


def test_the_same_source_again_is_a_no_op_that_says_so(store, files):
    first = neurostore.ingest(store, [files[0]])
    again = neurostore.ingest(store, [files[0]])
    assert again.outcomes[0].status == "unchanged"
    assert "already" in again.outcomes[0].message
    assert again.snapshot == first.snapshot


def test_a_moved_file_is_the_same_source(store, files, tmp_path):
    neurostore.ingest(store, [files[0]])
    moved = tmp_path / "elsewhere.nwb"
    moved.write_bytes(files[0].read_bytes())
    assert neurostore.ingest(store, [moved], "maze").outcomes[0].status == "unchanged"


def test_a_changed_source_replaces_its_session_and_the_old_one_stays_readable(store):
    neurostore.ingest(store, [Arrays()])
    store.tag("v1")
    report = neurostore.ingest(store, [Arrays("1" * 64, spikes=5)])
    assert report.outcomes[0].status == "replaced"
    assert len(store.session("mine/a").spike_times("u")) == 5
    assert len(store.at("v1").session("mine/a").spike_times("u")) == 3
    assert len(store.sessions()) == 1


def test_two_sources_of_one_name_are_refused_by_both_names(store):
    neurostore.ingest(store, [Arrays()])
    clash = neurostore.ingest(store, [Arrays("1" * 64, url="yours.dat")])
    assert clash.outcomes[0].status == "refused"
    assert "mine.dat" in clash.outcomes[0].message
    assert "yours.dat" in clash.outcomes[0].message


def test_a_changed_file_replaces_its_session_under_the_name_that_it_has_now(store):
    neurostore.ingest(store, [Arrays()])
    for name in ("mine/jenkins", "theirs/jenkins"):
        store.rename(store.ids[0], name)
        spikes = len(name)
        report = neurostore.ingest(store, [Arrays(str(spikes) * 32, spikes=spikes)])
        assert [one.status for one in report.outcomes] == ["replaced"]
        assert f"{name}: 1 unit" in report.outcomes[0].message
        assert "it is mine/a in mine.dat" in report.outcomes[0].message
        assert store.ids == [name]
        assert len(store.session(name).spike_times("u")) == spikes
        same = neurostore.ingest(store, [Arrays(str(spikes) * 32)])
        assert [one.status for one in same.outcomes] == ["unchanged"]
        assert store.validate() == {name: []}
    again = neurostore.ingest(store, [Arrays(str(spikes) * 32, url="moved.dat")], again=True)
    assert "read from moved.dat now, from mine.dat before" in again.outcomes[0].message
    assert store.ids == ["theirs/jenkins"]


def test_a_source_of_two_sessions_replaces_neither(store):
    neurostore.ingest(store, [Arrays()])
    store.tag("v1")
    store.rename("mine/a", "mine/b")
    store.restore("v1", "mine/a")
    report = neurostore.ingest(store, [Arrays("1" * 64)])
    assert [one.status for one in report.outcomes] == ["refused"]
    assert "mine/a and mine/b were read from mine.dat both" in report.outcomes[0].message


def test_a_file_at_another_path_replaces_the_session_of_its_name_where_that_is_said(store):
    neurostore.ingest(store, [Arrays()])
    other = Arrays("1" * 64, spikes=5, url="yours.dat")
    (refused,) = neurostore.ingest(store, [other]).outcomes
    assert "--again" in refused.message
    assert "another dataset to keep both" in refused.message
    (done,) = neurostore.ingest(store, [other], again=True).outcomes
    assert done.status == "replaced"
    assert "read from yours.dat now, from mine.dat before" in done.message
    assert store.ids == ["mine/a"]
    assert len(store.session("mine/a").spike_times("u")) == 5


def test_two_sources_of_one_name_in_a_batch_are_refused_by_both_names(store):
    report = neurostore.ingest(store, [Arrays(), Arrays("1" * 64, url="yours.dat")])
    assert [one.status for one in report.outcomes] == ["written", "refused"]
    assert "mine.dat" in report.outcomes[1].message
    assert "yours.dat" in report.outcomes[1].message


def test_notes_say_what_was_left_out_and_stay_with_the_session(store):
    report = neurostore.ingest(store, [Arrays()])
    assert report.outcomes[0].notes == ["lfp: left out, it has no rate"]
    assert store.session("mine/a").notes == ["lfp: left out, it has no rate"]
    assert store.session("mine/a").attrs["source"]["reader"] == "arrays"


def test_a_suffix_without_reader_names_the_way_out(store, tmp_path):
    other = tmp_path / "a.xyz"
    other.write_bytes(b"x")
    message = neurostore.ingest(store, [other]).outcomes[0].message
    assert ".xyz" in message
    assert "SessionBuilder" in message


def test_a_reader_that_fails_half_way_through_lazy_samples_leaves_no_half_session(store):
    class Torn:
        shape, dtype = (1000, 70_000), np.dtype("f4")

        def __getitem__(self, key: slice) -> np.ndarray:
            if key.start:
                raise neurostore.RefusedError("the file is torn at sample 100")
            return np.zeros((min(key.stop, 1000), 70_000), "f4")

    class Reader(Arrays):
        def read(self, session: str) -> neurostore.SessionBuilder:
            builder = super().read(session)
            builder.add_activity("lfp", Torn(), start=0, rate=1000, units="V")
            return builder

    report = neurostore.ingest(store, [Reader(url="torn.dat"), Arrays("2" * 64, url="whole.dat")])
    assert [one.status for one in report.outcomes] == ["refused", "written"]
    assert store.session("mine/a").tables == ["intervals/observed", "spikes", "units"]
    assert store.validate() == {"mine/a": []}
