"""`verify` finds what is not what was written, says where it lies whole, and harms nothing."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from _damaged import build, flipped, judge, reading, replaced
from zarr.core.sync import sync

import neurostore
from neurostore import UsageError, cache, cli
from neurostore.simulate import simulate, write_nwb
from neurostore.store import Report, layout, tables
from neurostore.store._verify import _run as run
from neurostore.store._verify import chance
from neurostore.store._versions import _sealed

TRIALS = int(os.environ.get("NEUROSTORE_TRIALS", "12"))
GOLDEN = sorted((Path(__file__).parent / "golden").glob("format-*/store"))


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return Path(build(tmp_path_factory.mktemp("verify") / "lab").url)


def checks(report: Report) -> set[str]:
    return {one.finding.check for one in report.faults}


def chunks_of(url: Path, session: str, table: str, column: str) -> list[Path]:
    """The files that hold the bytes that the store gives for the first chunk of an array."""
    store = neurostore.open(url)
    array = store.session(session).stored(table).columns[column].values
    end = bytes.fromhex(array.checksums)[:4]
    return [one for one in (url / "chunks").iterdir() if one.read_bytes()[-4:] == end]


def chunk_of(url: Path, session: str, table: str, column: str) -> Path:
    """The file of the first chunk of an array."""
    (found,) = chunks_of(url, session, table, column)
    return found


def test_a_whole_store_is_whole_and_all_of_it_was_looked_at(url):
    report = neurostore.verify(url)
    assert report.whole
    assert not report.faults
    assert (report.snapshots, report.chunks) == (4, report.checked)
    assert report.bytes > 20_000
    assert report.chance(1) == 1
    assert neurostore.verify(url, alone=True).snapshots == 1
    assert neurostore.open(url).verify().whole


@pytest.mark.parametrize("store", GOLDEN, ids=lambda one: one.parent.name)
def test_golden_stores_are_whole(store):
    report = neurostore.verify(store)
    assert not report.faults
    assert report.checked == report.chunks > 40


def test_each_kind_of_damage_is_named_by_array_and_check(url):
    path = chunk_of(url, "lab/a", "spikes", "time")
    data = path.read_bytes()
    other = chunk_of(url, "lab/b", "spikes", "time").read_bytes()
    short = {"crc32c", "unreadable"}  # the engine gives what there is, or asks beyond its end
    swapped = {"other", "unreadable"} if len(other) < len(data) else {"other"}
    for bad, named in (
        (flipped(data, 99), {"crc32c"}),
        (data[:-7], short),
        (None, {"unreadable"}),
        (other, swapped if len(other) <= len(data) else {"crc32c"}),
    ):
        with replaced(path, bad):
            report = neurostore.verify(url)
        (fault,) = report.faults
        assert not report.whole
        assert (fault.path, fault.finding.table, fault.finding.variable) == (
            "lab/a",
            "spikes",
            "time",
        )
        assert fault.finding.check in {f"store/chunk/{one}" for one in named}
        assert "sessions/lab/a/spikes/time/c/0" in fault.finding.message
        assert "spikes of lab/a (2,800 rows) in 3 snapshots" in fault.hint
        assert fault.to_json()["code"] == fault.finding.check


def test_what_older_snapshots_alone_show_is_verified_too(url):
    old = neurostore.open(url, "v1").session("lab/a").stored("behaviour/wheel").columns["value"]
    end = bytes.fromhex(old.values.checksums)[:4]
    (path,) = [one for one in (url / "chunks").iterdir() if one.read_bytes()[-4:] == end]
    with replaced(path, flipped(path.read_bytes(), 200)):
        (fault,) = neurostore.verify(url).faults
        assert fault.finding.table == "behaviour/wheel"
        assert "in 2 snapshots" in fault.hint
        *_, second, first = [one.snapshot for one in neurostore.open(url).log()][:3]
        assert f"{second} (" in fault.hint
        assert f"{first} (" in fault.hint
        assert "held by tag v1" in fault.hint
        assert (
            f"the newest snapshot is whole (neurostore verify {url} --alone passes)" in fault.hint
        )
        assert "restore" not in fault.hint
        assert neurostore.verify(url, alone=True).whole


@pytest.mark.parametrize("same", [True, False], ids=["the same content", "another version"])
def test_the_command_that_a_finding_names_mends_the_table(tmp_path, same):
    store = build(tmp_path / "my lab")
    folder = Path(store.url)
    if same:
        before = {*(folder / "chunks").iterdir()}
        store.restore("v1", "lab/a", "behaviour/wheel")
        (path,) = {*(folder / "chunks").iterdir()} - before
    else:
        path = chunk_of(folder, "lab/a", "behaviour/wheel", "value")
    path.write_bytes(flipped(path.read_bytes(), 200))
    (fault,) = neurostore.verify(store.url).faults
    kind = "the same content" if same else "another version of it"
    assert f"has {kind} whole: neurostore restore" in fault.hint
    assert cli.main(shlex.split(fault.hint.partition(" whole: neurostore ")[2])) == 0
    assert neurostore.verify(store.url, alone=True).whole
    assert neurostore.open(store.url).restore("v1", "lab/a", "behaviour/wheel").snapshot is None


def test_a_table_that_links_to_others_comes_back_with_the_session(tmp_path):
    store, rng = neurostore.create(tmp_path / "lab"), np.random.default_rng(0)
    for units in (4, 5):
        builder = neurostore.SessionBuilder(dataset="lab", session="a")
        builder.add_units({f"u{k}": np.sort(rng.uniform(0, 100, 700)) for k in range(units)})
        with store.transaction(f"{units} units") as tx:
            tx.put(builder, replace=units == 5)
    path = chunk_of(tmp_path / "lab", "lab/a", "spikes", "time")
    path.write_bytes(flipped(path.read_bytes(), 200))
    (fault,) = neurostore.verify(store.url).faults
    assert cli.main(shlex.split(fault.hint.partition("with it: neurostore ")[2])) == 0
    assert neurostore.verify(store.url, alone=True).whole
    assert len(neurostore.open(store.url).units()) == 4


def test_a_source_is_read_again_by_the_command_that_a_finding_names(tmp_path):
    file = write_nwb(simulate(1, units=6, seconds=60), tmp_path / "s1.nwb")
    store = neurostore.create(tmp_path / "lab")
    neurostore.ingest(store, [file], "maze")
    (id,) = store.sessions()["id"]
    path = chunk_of(tmp_path / "lab", id, "spikes", "time")
    path.write_bytes(flipped(path.read_bytes(), 200))
    (fault,) = neurostore.verify(store.url).faults
    command = re.search("neurostore (ingest .*);", fault.hint)[1]
    assert cli.main(shlex.split(command)) == 0
    assert neurostore.verify(store.url, alone=True).whole
    with store.refresh().transaction("one more") as tx:
        span = store.session(id).span
        value = np.random.default_rng(0).normal(size=400)
        tx.update(id, tables.behaviour("more", value, span, start=0, rate=5, units="rad"))
    path = chunk_of(tmp_path / "lab", id, "behaviour/more", "value")
    path.write_bytes(flipped(path.read_bytes(), 200))
    (fault,) = neurostore.verify(store.url, alone=True).faults
    assert "ingest" not in fault.hint  # it is not of the source


def spoil(url: Path, id: str, table: str, column: str) -> None:
    """Turn a bit of an array; of a copy, where its session was renamed, of the newest."""
    path = max(chunks_of(url, id, table, column), key=lambda one: one.stat().st_mtime_ns)
    path.write_bytes(flipped(path.read_bytes(), 200))


def commands(hint: str) -> list[list[str]]:
    """Those that a hint names, as words."""
    found = re.findall(r"neurostore ((?:tag|branch|expire|restore|ingest) [^;]*)", hint)
    return [shlex.split(one) for one in found]


def read_and_renamed(tmp_path: Path) -> tuple[neurostore.Store, Path]:
    """A store of one session that has another dataset and name since it was read, and its file."""
    file = write_nwb(simulate(1, units=6, seconds=60), tmp_path / "s1.nwb")
    store = neurostore.create(tmp_path / "lab")
    neurostore.ingest(store, [file], "maze")
    store.rename(store.ids[0], "lab/mouse")
    return store, file


def test_history_that_is_hurt_goes_by_the_commands_that_the_finding_names(tmp_path):
    store = build(tmp_path / "lab")
    url = Path(store.url)
    store.branch("old")
    span = store.session("lab/a").span
    spoil(url, "lab/a", "behaviour/wheel", "value")
    with store.transaction("the wheel, for the third time") as tx:
        wheel = np.random.default_rng(1).normal(size=700)
        tx.update("lab/a", tables.behaviour("wheel", wheel, span, start=0, rate=7, units="rad"))
    spoil(url, "lab/b", "spikes", "time")
    with store.transaction("b goes, for a reason") as tx:
        tx.delete("lab/b")
    store.tag("v2")
    wheel, spikes = neurostore.verify(url).faults
    if wheel.path == "lab/b":
        wheel, spikes = spikes, wheel
    assert "held by branch old" in wheel.hint
    assert "held by branch old, tag v1" in spikes.hint
    assert "lab/b" not in " ".join(" ".join(one) for one in commands(spikes.hint))
    for command in commands(spikes.hint):
        assert cli.main(command) == 0
    assert neurostore.verify(url).whole
    assert neurostore.open(url).tags == {"v2": store.snapshot}
    assert neurostore.open(url).ids == ["lab/a", "lab/c"]


def test_a_snapshot_that_a_tag_alone_holds_since_an_expiry_goes_with_the_tag(tmp_path):
    store = build(tmp_path / "lab")
    store.tag("kept")
    spoil(Path(store.url), "lab/a", "behaviour/wheel", "value")
    with store.transaction("the wheel, for the third time") as tx:
        value, span = np.random.default_rng(1).normal(size=700), store.session("lab/a").span
        tx.update("lab/a", tables.behaviour("wheel", value, span, start=0, rate=7, units="rad"))
    store.expire(keep=1)
    (fault,) = neurostore.verify(store.url).faults
    assert commands(fault.hint) == [["tag", store.url, "kept", "--delete"]]
    assert re.search(r"\(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\), held by tag kept", fault.hint)
    assert cli.main(*commands(fault.hint)) == 0
    assert neurostore.verify(store.url).whole


def test_damage_of_the_newest_snapshot_is_said_with_that_of_the_history(tmp_path):
    store = build(tmp_path / "lab")
    spoil(Path(store.url), "lab/b", "spikes", "time")
    with store.transaction("b goes") as tx:
        tx.delete("lab/b")
    spoil(Path(store.url), "lab/c", "behaviour/pupil", "value")
    hints = {one.path: one.hint for one in neurostore.verify(store.url).faults}
    assert "the newest snapshot has damage of its own" in hints["lab/b"]


def test_the_source_of_a_renamed_session_is_read_again_under_its_present_name(tmp_path):
    store, _ = read_and_renamed(tmp_path)
    store.expire(keep=1)
    spoil(tmp_path / "lab", "lab/mouse", "spikes", "time")
    (fault,) = neurostore.verify(store.url).faults
    for command in commands(fault.hint.partition(" or bring")[0]):
        assert cli.main(command) == 0
    assert neurostore.open(store.url).ids == ["lab/mouse"]
    assert neurostore.verify(store.url, alone=True).whole


@pytest.mark.parametrize("how", ["has changed (sha256", "is gone"])
def test_a_source_that_is_another_one_is_not_advised(tmp_path, how):
    store, file = read_and_renamed(tmp_path)
    store.expire(keep=1)
    spoil(tmp_path / "lab", "lab/mouse", "spikes", "time")
    file.unlink()
    if "changed" in how:
        write_nwb(simulate(2, units=6, seconds=60), file)
    (fault,) = neurostore.verify(store.url).faults
    assert f"its source {file} {how}" in fault.hint
    assert "it is lost, unless there is a copy" in fault.hint
    assert not commands(fault.hint)


def test_what_lies_whole_under_an_older_name_comes_back_under_the_present_one(tmp_path):
    store, file = read_and_renamed(tmp_path)
    file.unlink()
    spoil(tmp_path / "lab", "lab/mouse", "spikes", "time")
    (fault,) = neurostore.verify(store.url).faults
    assert "has the same content whole, as maze/" in fault.hint
    for command in commands(fault.hint):
        assert cli.main(command) == 0
    assert neurostore.open(store.url).ids == ["lab/mouse"]
    assert neurostore.verify(store.url, alone=True).whole


def test_a_damaged_release_is_to_be_published_again_and_nothing_else(tmp_path):
    file = write_nwb(simulate(1, units=6, seconds=60), tmp_path / "s1.nwb")
    store = neurostore.create(tmp_path / "lab")
    neurostore.ingest(store, [file], "maze")
    store.publish(tmp_path / "release")
    (path,) = (tmp_path / "release").glob("**/spikes/time/c/0")
    path.write_bytes(flipped(path.read_bytes(), 200))
    faults = neurostore.verify(tmp_path / "release").faults
    assert faults
    for one in faults:
        assert one.hint.endswith("Bring the release back from a copy, or publish it again.")
        assert "neurostore ingest" not in str(one)
        assert str(one).count("publish it again") == 1


@pytest.mark.parametrize("folder", ["refs", "snapshots", "manifests", "transactions"])
def test_a_file_of_the_engine_that_is_gone_is_named(url, folder):
    files = sorted(one for one in (url / folder).rglob("*") if one.is_file())
    files = [one for one in files if one.name != "1CECHNKREP0F1RSTCMT0"]  # the empty beginning
    for path in random.Random(folder).sample(files, min(4, len(files))):
        with replaced(path, None):
            report = neurostore.verify(url)
        said = " ".join(str(one) for one in report.faults)
        assert not report.whole, path
        assert (path.parent.name if folder == "refs" else path.name).split(".")[-1] in said, said


def test_of_a_store_without_its_branch_nothing_is_said_to_be_checked(url):
    with replaced(url / "refs" / "branch.main" / "ref.json", b""):
        report = neurostore.verify(url)
    assert not report.whole
    assert report.words() == [f"{url}: no snapshot could be read, nothing was checked."]


def test_of_a_newest_snapshot_that_is_gone_the_last_one_before_it_is_offered(tmp_path):
    store = build(tmp_path / "lab")
    before = store.log()[1].snapshot
    store.at(before).tag("v2")
    (tmp_path / "lab" / "snapshots" / store.snapshot).unlink()
    hints = [one.hint for one in neurostore.verify(store.url).faults]
    assert any(f"--at {before}" in one for one in hints)
    assert not any(f"--at {store.at('v1').snapshot}" in one for one in hints)


def test_damage_of_one_file_hides_no_other(url):
    first = chunk_of(url, "lab/a", "spikes", "time")
    second = chunk_of(url, "lab/c", "behaviour/pupil", "value")
    tag = url / "refs" / "tag.v1" / "ref.json"
    with (
        replaced(first, flipped(first.read_bytes(), 50)),
        replaced(second, flipped(second.read_bytes(), 50)),
        replaced(tag, b"{"),
    ):
        found = {one.path for one in neurostore.verify(url).faults}
    assert {"lab/a", "lab/c", "tag v1"} <= found


def test_random_damage_is_found_wherever_anything_reads_differently(url):
    good, rng, outcomes = reading(url), random.Random(6), Counter[str]()
    kinds = ("chunks", "manifests", "snapshots", "refs", "transactions")
    for trial in range(TRIALS):
        kind = kinds[trial % len(kinds)]
        path = rng.choice(sorted(one for one in (url / kind).rglob("*") if one.is_file()))
        data = path.read_bytes()
        bit = rng.randrange(8 * len(data))
        with replaced(path, data[: bit // 8] if rng.random() < 0.3 else flipped(data, bit)):
            judged = judge(good, reading(url))
            whole = neurostore.verify(url).whole
        assert not (judged == "error" and whole), (kind, path.name, bit)
        assert not (kind == "chunks" and whole), (path.name, bit)
        outcomes["harmless" if whole else "found"] += 1
    print(dict(outcomes))
    assert outcomes["found"] > TRIALS / 3


def test_the_probability_is_that_of_drawing_without_replacement():
    for chunks, checked, damaged in ((6, 2, 1), (6, 2, 3), (7, 3, 2), (5, 5, 1), (5, 1, 5)):
        draws = list(combinations(range(chunks), checked))
        met = sum(any(one < damaged for one in draw) for draw in draws)
        assert chance(chunks, checked, damaged) == pytest.approx(met / len(draws))


def test_a_sample_says_what_it_proves_and_is_the_same_for_a_seed(url):
    report = neurostore.verify(url, 0.2, seed=3)
    assert report.checked == int(np.ceil(0.2 * report.chunks))
    said = " ".join(report.words())
    assert "10 damaged chunks with a probability of" in said
    assert "nothing was decoded" in said
    path = chunk_of(url, "lab/a", "spikes", "time")
    met: dict[bool, int] = {}
    with replaced(path, flipped(path.read_bytes(), 99)):
        for seed in range(40):  # half of the chunks: both happen soon
            met.setdefault(neurostore.verify(url, 0.5, seed=seed, alone=True).whole, seed)
            if len(met) == 2:
                break
        assert met.keys() == {True, False}
        for whole, seed in met.items():
            assert neurostore.verify(url, 0.5, seed=seed, alone=True).whole is whole


@pytest.mark.parametrize("sample", [0, -0.5, 1.5, float("nan")])
def test_a_sample_is_a_share(url, sample):
    with pytest.raises(UsageError, match="share of the chunks"):
        neurostore.verify(url, sample)


def test_a_stopped_run_goes_on_where_it_was(url, monkeypatch):
    whole, done = neurostore.verify(url), []
    look = run._table

    def stop(written, *rest):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(written.key)
        return look(written, *rest)

    monkeypatch.setattr(run, "_table", stop)
    monkeypatch.setattr(run, "THREADS", 1)
    with pytest.raises(KeyboardInterrupt):
        neurostore.verify(url)
    monkeypatch.setattr(run, "_table", look)
    (state,) = (cache.folder() / "verify").iterdir()
    state.write_text(state.read_text() + '["half a li')
    report = neurostore.verify(url, resume=True)
    assert report.resumed == 5
    assert (report.chunks, report.checked, report.bytes) == (
        whole.chunks,
        whole.checked,
        whole.bytes,
    )
    assert not list((cache.folder() / "verify").iterdir())


def test_links_that_no_digest_holds_are_checked(tmp_path):
    store = neurostore.create(tmp_path / "lab")
    builder = neurostore.SessionBuilder(dataset="lab", session="a")
    builder.add_behaviour("wheel", np.arange(90.0), start=0, rate=9, units="rad")
    with store.transaction("one") as tx:
        tx.put(builder)
    timeline = store.session("lab/a").timeline()
    with store.transaction("a split") as tx:
        tx.put(neurostore.splits.interleaved_blocks("blocks", [timeline], block=1))
    with store.transaction("the session goes") as tx:
        tx.delete("lab/a")
    report = store.verify()
    assert checks(report) == {"store/link/session"}
    assert report.whole  # nothing is damaged: the session was deleted on purpose


def test_the_command_says_it_in_words_in_json_and_by_its_exit_code(url, capsys):
    assert cli.main(["verify", str(url), "--sample", "0.5"]) == 0
    assert "Everything checked is what was written." in capsys.readouterr().out
    path = chunk_of(url, "lab/a", "spikes", "time")
    with replaced(path, flipped(path.read_bytes(), 99)):
        assert cli.main(["verify", str(url), "--json"]) == 1
        said = json.loads(capsys.readouterr().out)
        assert cli.main(["verify", str(url)]) == 1
        assert "store/chunk/crc32c" in capsys.readouterr().err
    assert said["whole"] is False
    assert said["faults"][0]["path"] == "lab/a"
    assert said["faults"][0]["hint"]


# ---- reading around damage


def test_around_a_damaged_session_the_rest_reads_as_it_was(tmp_path):
    url, rng = tmp_path / "lab", np.random.default_rng(0)
    good = neurostore.create(url)
    with good.transaction("two") as tx:
        for name in "ab":
            builder = neurostore.SessionBuilder(dataset="lab", session=name)
            times = {f"u{k}": np.sort(rng.uniform(0, 100, 20)) for k in range(200)}
            builder.add_units(times, depth=rng.normal(size=200))
            tx.put(builder)
    wanted = good.session("lab/b").counts(0, 10, 0.1).values
    path = chunk_of(url, "lab/a", "units", "depth")
    with replaced(path, flipped(path.read_bytes(), 99)):
        with pytest.raises(neurostore.DamagedError):
            neurostore.open(url).units()
        store = neurostore.open(url, allow_damaged=True)
        units = store.units()
        assert set(units["session"]) == {"lab/b"}
        assert [one.path for one in store.damage] == ["lab/a"]
        with pytest.raises(neurostore.DamagedError):
            store.session("lab/a")["units"].load()
        assert (store.session("lab/b").counts(0, 10, 0.1).values == wanted).all()
        with pytest.raises(UsageError, match="read around its damage"):
            store.transaction("no")


def test_a_session_whose_row_is_damaged_is_listed_and_marked(tmp_path, monkeypatch):
    store = build(tmp_path / "lab")
    before = store.sessions().set_index("id")
    session = store._versions.repository.writable_session("main")
    document = layout.get_document(session.store, "sessions/lab/b")
    document["attributes"]["row"]["n_units"] = 77
    layout.put_group(session.store, "sessions/lab/b", document["attributes"])
    sync(session.store.delete_dir("sessions/lab/c"))
    about = dict(store.log()[0].metadata) | {"parent": store.snapshot}
    about.pop("checksum")
    session.commit("damage", metadata=_sealed("damage", store.snapshot, about))
    assert len(neurostore.open(store.url).sessions()) == 3  # by what is known of its parent
    monkeypatch.setenv("NEUROSTORE_CACHE", str(tmp_path / "of another machine"))
    with pytest.raises(neurostore.DamagedError):
        neurostore.open(store.url).sessions()
    around = neurostore.open(store.url, allow_damaged=True)
    found = around.sessions().set_index("id")
    assert list(found.index) == ["lab/a", "lab/b", "lab/c"]
    assert found.loc["lab/a", "damage"] == ""
    assert found.loc["lab/a", "n_spikes"] == before.loc["lab/a", "n_spikes"]
    assert "row" in found.loc["lab/b", "damage"]
    assert "not found" in found.loc["lab/c", "damage"]
    assert np.isnan(found.loc["lab/b", "n_units"])
    assert list(around.sessions("damage = ''")["id"]) == ["lab/a"]
    for id in ("lab/b", "lab/c"):
        with pytest.raises(neurostore.DamagedError):
            around.session(id)
    with pytest.raises(neurostore.NotFoundError):
        around.session("lab/z")
    assert around.session("lab/a").spike_times("u1").size
    assert cli.main(["sessions", store.url]) == 3
    assert cli.main(["sessions", store.url, "--allow-damaged"]) == 0
    assert checks(neurostore.verify(store.url)) >= {"store/row/checksum", "store/catalogue/total"}


def test_a_whole_store_reads_the_same_around_no_damage(url):
    plain, around = neurostore.open(url), neurostore.open(url, allow_damaged=True)
    assert around.damage == []
    assert around.sessions().drop(columns="damage").equals(plain.sessions())
    assert around.units().equals(plain.units())
