"""History in words: what differs, what was when, what comes back, and how it was made."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from _damaged import build as damaged_build

import neurostore
from neurostore import cli
from neurostore.errors import DamagedError, NotFoundError, RefusedError, StoreError, UsageError
from neurostore.store import _compare, layout, tables, transaction
from neurostore.store._versions import IcechunkVersions

RNG = np.random.default_rng(0)
TIMES = {f"u{k}": np.sort(RNG.uniform(0, 600, 60)) for k in range(23)}


def builder(times=TIMES, units=20, session="s1", **more):
    chosen = dict(list(times.items())[:units])
    made = neurostore.SessionBuilder(dataset="d", session=session, rate=30_000, **more)
    made.add_units(chosen, region=["CA1"] * len(chosen))
    made.add_observed([0], [600])
    made.add_behaviour("wheel", np.arange(100.0), start=0, rate=10, units="rad")
    return made


def put(store, *builders, replace=False, message="put"):
    with store.transaction(message) as tx:
        for one in builders:
            tx.put(one, replace=replace)
    return store.snapshot


@pytest.fixture
def store(request):
    made = neurostore.create(f"memory://history-{request.node.name}")
    put(made, builder())
    return made


def only(difference):
    (one,) = difference.sessions
    return one


# ---- diff


def test_a_session_ingested_again_with_three_units_more_says_exactly_that(store):
    before = store.snapshot
    put(store, builder(units=23), replace=True)
    assert list(store.diff(before).lines()) == [
        f"{before} → {store.snapshot}",
        "d/s1: units 20 → 23 (+3: u20, u21, u22); spikes 1,200 → 1,380 (+180); "
        "observed 600 s unchanged",
        "0 sessions unchanged",
    ]
    said = only(store.diff(before)).to_json()
    assert (said["units"], said["spikes"], said["observed"]) == ([20, 23], [1200, 1380], [600, 600])
    assert said["units_added"] == ["u20", "u21", "u22"]
    assert said["moved"]["gone"] == said["moved"]["new"] == 0
    back = only(store.diff(store.snapshot, before))
    assert "units 23 → 20 (-3: u20, u21, u22); spikes 1,380 → 1,200 (-180)" in back.line


def test_what_was_put_again_as_it_was_is_told_from_a_change(store):
    before = store.snapshot
    put(store, builder(), replace=True)
    assert only(store.diff(before)).line == "d/s1: written again, with the same content"
    assert not store.diff(store.snapshot)


def _spikes(rng, units, spikes):
    """Ids and ticks of a random session: many spikes share a tick, some their unit too."""
    ids = [f"u{k}" for k in sorted(rng.choice(12, size=units, replace=False))]
    time = np.sort(rng.integers(0, 400, spikes))
    return ids, {id: np.sort(time[rng.integers(0, units, spikes) == k]) for k, id in enumerate(ids)}


@pytest.mark.parametrize("seed", range(12))
def test_moved_spikes_are_those_that_sets_of_them_say(monkeypatch, seed):
    monkeypatch.setattr(layout, "CHUNK", 32)  # many chunks, and ticks that lie in two of them
    rng = np.random.default_rng(seed)
    store = neurostore.create(f"memory://moved-{seed}")
    units = int(rng.integers(1, 8))
    ids, first = _spikes(rng, units, 600)
    if seed % 3 == 0:  # other units, other spikes
        _, second = _spikes(rng, int(rng.integers(1, 8)), 500)
    else:  # the same but for a few, late or early, so that chunks are alike
        second = {id: ticks.copy() for id, ticks in first.items()}
        for _ in range(seed):
            ticks = second[ids[rng.integers(units)]]
            if len(ticks):
                ticks[rng.integers(len(ticks))] += rng.integers(0, 3)
        second = {id: np.sort(ticks) for id, ticks in second.items()}
        if seed % 3 == 1:
            second["z"] = np.array([3, 3, 399])
    for ticks in (first, second):
        made = neurostore.SessionBuilder(dataset="d", session="s", rate=1000)
        made.add_units({id: one / 1000 for id, one in ticks.items()})
        made.add_behaviour("b", np.arange(3.0) + len(store.log()), start=0, rate=1, units="")
        put(store, made, replace=True)
    found = only(store.diff(store.log()[1].snapshot)).moved
    shared = first.keys() & second.keys()
    a, b = (
        Counter((id, int(tick)) for id in shared for tick in one[id]) for one in (first, second)
    )
    both = (a & b).total()
    if found is None:
        assert a == b
        assert first.keys() == second.keys()
        return
    assert (found.same, found.gone, found.new) == (both, a.total() - both, b.total() - both)
    assert found.units == len(shared)
    by_unit = {id: [0, 0] for (id, _) in [*(a - b), *(b - a)]}
    for side, rest in enumerate((a - b, b - a)):
        for (id, _), spikes in rest.items():
            by_unit[id][side] += spikes
    assert {id: [*pair] for id, pair in found.by_unit.items()} == by_unit
    assert found.share == ((a.total() - both) / a.total() if a.total() > both else 0)


def test_chunks_that_are_alike_are_not_decoded(monkeypatch, store):
    monkeypatch.setattr(layout, "CHUNK", 64)
    monkeypatch.setattr(_compare, "CHUNK", 64)
    values = RNG.normal(size=1000)
    put(store, builder(units=20), replace=True)
    for k in range(2):
        values[500] += k
        with store.transaction("wheel") as tx:
            tx.update("d/s1", _wheel(store, values))
    read = []
    whole = layout.StoredArray.__getitem__
    monkeypatch.setattr(
        layout.StoredArray, "__getitem__", lambda s, key: read.append(s.path) or whole(s, key)
    )
    (table,) = only(store.diff(store.log()[1].snapshot)).tables
    assert table.values == {"value": (1, 1000)}
    assert [path for path in read if "wheel" in path] == 2 * ["sessions/d/s1/behaviour/wheel/value"]
    assert not [path for path in read if "spikes" in path]


def _wheel(store, values, name="wheel", units="rad", of="d/s1", **more):
    span = store.session(of).span
    return tables.behaviour(name, values, span, start=0, rate=10, units=units, **more)


def test_tables_columns_values_and_attributes_are_told(store):
    before = store.snapshot
    made = builder(subject="mouse-2")
    made.add_intervals("trials", [1.0, 2.0], [1.5, 2.5], choice=["a", "b"])
    put(store, made, replace=True)
    middle = store.snapshot
    made = builder(subject="mouse-2")
    made.add_intervals("trials", [1.0, 2.0, 3.0], [1.5, 2.5, 3.5], side=["a", "b", "c"])
    put(store, made, replace=True)
    with store.transaction("wheel") as tx:
        tx.update("d/s1", _wheel(store, np.r_[np.arange(99.0), np.nan], units="deg"))
    first = only(store.diff(before, middle))
    assert [str(one) for one in first.tables] == ["intervals/trials added (rows 2)"]
    assert first.attributes == {"metadata.subject": (None, "mouse-2")}
    second = {one.name: one for one in only(store.diff(middle)).tables}
    trials, wheel = second["intervals/trials"], second["behaviour/wheel"]
    assert (trials.rows, trials.columns_added, trials.columns_removed) == (
        (2, 3),
        ("side",),
        ("choice",),
    )
    assert trials.values == {"start": (0, 2), "stop": (0, 2), "valid": (0, 2)}
    assert wheel.values == {"value": (1, 100)}
    assert wheel.attributes["value.units"] == ("rad", "deg")
    text = str(store.diff(middle))
    assert "columns +side; columns -choice" in text
    assert "values changed: value 1 of 100; lineage.made_by builder → update; " in text
    assert "value.units rad → deg" in text
    html = store.diff(middle)._repr_html_()
    assert html.startswith("<pre>")
    assert json.loads(json.dumps(store.diff(middle).to_json(), allow_nan=False))


def test_values_of_units_are_compared_by_unit(store):
    before = store.snapshot
    times = {id: TIMES[id] for id in ("u9", "u3", "u0")}
    made = neurostore.SessionBuilder(dataset="d", session="s1", rate=30_000)
    made.add_units(times, region=["CA3", "CA1", "CA1"])
    put(store, made, replace=True)
    (units,) = (one for one in only(store.diff(before)).tables if one.name == "units")
    assert units.values["region"] == (1, 3)
    assert units.values["n_spikes"] == (0, 3)
    assert units.ids == ("u9",)
    assert "region 1 of 3 (in u9)" in str(units)


def test_a_feature_fitted_again_says_which_parameter(store):
    def feature(digest, sigma):
        table = dataclasses.replace(
            _wheel(store, np.full(20, sigma)), name=f"features/rate/v1/{digest}"
        )
        with store.transaction("fit") as tx:
            more = {"function": "lab.rates:smooth", "inputs": ["spikes"], "fit": (0, 300)}
            tx.update("d/s1", table, parameters={"sigma": sigma, "bin": 0.02}, **more)
            return table.name

    first = feature("aaaa", 0.1)
    before = store.snapshot
    with store.transaction("another") as tx:
        tx.put(builder(), replace=True)
    second = feature("bbbb", 0.2)
    (found,) = (one for one in only(store.diff(before)).tables if one.name == second)
    assert (found.what, found.was) == ("fitted again", first)
    assert found.attributes == {"lineage.parameters.sigma": (0.1, 0.2)}
    assert f"{second} fitted again: " in str(found)
    assert "lineage.parameters.sigma 0.1 → 0.2" in str(found)


def test_sessions_added_removed_and_renamed_are_told(store):
    put(store, builder(units=5, session="s2"), builder(units=6, session="s3"))
    before = store.snapshot
    with store.transaction("move") as tx:
        tx.delete("d/s1")
        tx.delete("d/s2")
        tx.put(builder(session="other"))
        tx.put(builder(units=7, session="new"))
    found = {one.id: one for one in store.diff(before).sessions}
    assert {id: one.what for id, one in found.items()} == {
        "d/other": "renamed",
        "d/new": "added",
        "d/s2": "removed",
    }
    assert found["d/other"].was == "d/s1"
    assert found["d/s2"].line == "d/s2: removed (units 5; spikes 300; observed 600 s)"
    assert store.diff(before).unchanged == 1
    assert [one.id for one in store.diff(before, sessions=["d/new"]).sessions] == ["d/new"]


def test_units_that_differ_are_named_three_in_text_and_all_in_json(store):
    before, some = store.snapshot, ["u1", "u3", "u5", "u7", "u9"]
    times = {id: one[1:] if id in some else one for id, one in TIMES.items()}
    put(store, builder(times=times), replace=True)
    found = only(store.diff(before))
    assert "5 spikes gone (0.42 %), 0 new (in u1, u3, u5 and 2 others)" in found.line
    lost = {"gone": 1, "new": 0}
    assert found.to_json()["moved"]["by_unit"] == dict.fromkeys(some, lost)
    (units,) = (one for one in found.to_json()["tables"] if one["name"] == "units")
    assert units["ids"] == some


def test_a_rename_that_the_log_records_stays_one_over_later_commits(store):
    put(store, builder(units=6, session="s2"))
    before = store.snapshot
    store.rename("d/s1", "d/a")
    with store.transaction("wheel") as tx:
        tx.update("d/a", _wheel(store, np.arange(7.0), of="d/a"))
    store.rename("d/a", "d/b")
    store.rename("d/s2", "d/s1")  # another session of the first name
    found = {one.id: one for one in store.diff(before).sessions}
    assert {id: (one.what, one.was) for id, one in found.items()} == {
        "d/b": ("renamed", "d/s1"),
        "d/s1": ("renamed", "d/s2"),
    }
    assert found["d/b"].line.startswith("d/s1 → d/b: renamed; units 20 unchanged")
    assert found["d/s1"].line == "d/s2 → d/s1: renamed"
    back = {one.id: one.was for one in store.diff(store.snapshot, before).sessions}
    assert back == {"d/s1": "d/b", "d/s2": "d/s1"}
    assert [one.id for one in store.diff(before, sessions=["d/b"]).sessions] == ["d/b"]


def test_a_name_that_was_deleted_and_given_again_is_another_session(store):
    put(store, builder(units=6, session="s2"))
    before = store.snapshot
    store.delete("d/s2")
    store.rename("d/s1", "d/s2")
    with store.transaction("wheel") as tx:
        tx.update("d/s2", _wheel(store, np.arange(7.0), of="d/s2"))
    found = [(one.id, one.what, one.was) for one in store.diff(before).sessions]
    assert sorted(found) == [("d/s2", "removed", ""), ("d/s2", "renamed", "d/s1")]


def test_digests_are_shortened_in_text_and_whole_in_json(store):
    for letter in "ab":
        source = neurostore.Source("file.dat", letter * 64, "reader", "1")
        put(store, builder(source=source), replace=True)
    found = store.diff(store.log()[1].snapshot)
    assert "source.sha256 aaaaaaaa… → bbbbbbbb…" in str(found)
    assert only(found).to_json()["attributes"]["source.sha256"] == ["a" * 64, "b" * 64]


def test_another_clock_is_said_and_spikes_are_not_compared(store):
    before = store.snapshot
    made = neurostore.SessionBuilder(dataset="d", session="s1", rate=1_000_000)
    made.add_units(TIMES)
    put(store, made, replace=True)
    assert "not compared: the clock counts 30,000 → 1,000,000 ticks a second" in str(
        store.diff(before)
    )


def test_splits_and_stimuli_are_told(store):
    before = store.snapshot
    _shared(store)
    found = store.diff(before)
    assert [one.path for one in found.splits] == ["/splits/halves/v1"]
    assert [one.path for one in found.stimuli] == [
        "/stimuli/movie",
        "/stimuli/movie/embeddings/clip/v1",
    ]
    assert "/splits/halves/v1: added (rows" in str(found)
    assert not found.sessions


def _shared(store):
    ratios = {"train": 1, "test": 1}
    line = store.session("d/s1").timeline()
    split = neurostore.splits.interleaved_blocks("halves", line, block=100, ratios=ratios)
    frames = RNG.integers(0, 9, (10, 4, 4)).astype(np.uint8)
    clip = {"clip": RNG.normal(size=(10, 3)).astype(np.float32)}
    with store.transaction("shared") as tx:
        tx.put(split)
        tx.put(neurostore.Stimulus("movie", frames, rate=30, embeddings=clip))


# ---- dates


@pytest.fixture
def dated(request, monkeypatch):
    """A store whose commits say that they were made on three days."""
    made = neurostore.create(f"memory://dated-{request.node.name}")
    who = transaction.who
    days = ["2031-03-01T09:00:00+00:00", "2031-03-02T23:30:00+00:00", "2031-03-04T12:00:00+00:00"]
    snapshots = []
    for row, day in enumerate(days):
        monkeypatch.setattr(transaction, "who", lambda day=day: {**who(), "time": day})
        snapshots.append(put(made, builder(units=1, session=f"s{row}")))
    return made, snapshots


@pytest.mark.parametrize(
    ("ref", "row"),
    [
        ("2031-03-02T23:30Z", 1),
        ("2031-03-02T23:29:59Z", 0),
        ("2031-03-02Z", 1),
        ("2031-03-02+05:00", 0),
        ("2031-03-03Z", 1),
        ("2031-03-04T14:00+02:00", 2),
        ("2031-03-04T13:59:59+02:00", 1),
        ("2099-01-01", 2),
    ],
)
def test_a_date_is_the_newest_snapshot_that_is_not_later(dated, ref, row):
    store, snapshots = dated
    assert store.at(ref).snapshot == snapshots[row]
    assert neurostore.open(store.url, ref).snapshot == snapshots[row]
    assert neurostore.open(f"{store.url}@{ref}").snapshot == snapshots[row]
    assert store.at(ref).pinned


@pytest.fixture
def far_west(monkeypatch):
    """A process five hours behind UTC."""
    monkeypatch.setenv("TZ", "EST5")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_west")
def test_times_without_a_zone_are_utc_wherever_the_process_is(dated, capsys):
    store, snapshots = dated
    for ref in ("2031-03-02T23:30", "2031-03-02 23:30:00", "2031-03-02", "2031-03-02T18:30-05:00"):
        assert store.at(ref).snapshot == snapshots[1]
    assert [one.snapshot for one in store.log(since="2031-03-03", until="2031-03-04T12:00")] == [
        snapshots[2]
    ]
    assert cli.main(["sessions", store.url, "--at", "2031-03-02"]) == 0
    assert "of 2031-03-02 23:30:00 UTC\n" in capsys.readouterr().err
    hour_ago = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M}"
    assert cli.main(["expire", store.url, "--before", hour_ago, "--dry-run"]) == 0
    assert "0 commits would go" in capsys.readouterr().out
    assert cli.main(["log", store.url, "--limit", "1"]) == 0
    assert f"{snapshots[2]}  2031-03-04 12:00:00 UTC  " in capsys.readouterr().out
    with pytest.raises(NotFoundError, match=r"history begins at 20\d\d-.* UTC"):
        store.at("1999-01-01")


def test_every_time_that_the_log_shows_leads_to_its_commit(store, capsys):
    put(store, builder(session="s2"))
    assert cli.main(["log", store.url, "--limit", "1"]) == 0
    snapshot, day, hour, zone, *_ = capsys.readouterr().out.split()
    assert store.at(f"{day} {hour} {zone}").snapshot == snapshot
    assert store.at(f"{day}T{hour}").snapshot == snapshot


def test_a_tag_wins_over_the_date_that_it_is_named_like(dated):
    store, snapshots = dated
    store._versions.tag("2031-03-04", snapshots[0])  # as older versions made them
    assert store.at("2031-03-04").snapshot == snapshots[0]
    assert store.at("2031-03-04T23:00Z").snapshot == snapshots[2]


def test_a_tag_that_reads_as_a_date_or_a_snapshot_is_refused(dated):
    store, snapshots = dated
    for name in ("2031-03-04", snapshots[0]):
        with pytest.raises(UsageError, match="would hide"):
            store.tag(name)
        with pytest.raises(UsageError, match="would hide"):
            store.branch(name)
    store.tag(f"of-{snapshots[0].lower()}")
    store.tag("2031-03-04-frozen")


def test_dates_that_are_none_or_too_early_say_so(dated):
    store, _ = dated
    with pytest.raises(NotFoundError, match="whose history begins at"):
        store.at("1999-01-01")
    with pytest.raises(UsageError, match="is no date"):
        store.at("2031-02-31")
    with pytest.raises(NotFoundError, match="tag or snapshot"):
        store.at("yesterday")


def test_the_command_says_which_snapshot_a_date_is(dated, capsys):
    store, snapshots = dated
    assert cli.main(["sessions", store.url, "--at", "2031-03-01Z", "--json"]) == 0
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)) == 1
    assert printed.err.startswith(f"2031-03-01Z is {snapshots[0]} of 2031-03-01")


# ---- log


def test_the_log_is_asked_by_date_and_by_session(dated):
    store, snapshots = dated
    assert [one.snapshot for one in store.log(since="2031-03-02Z")] == snapshots[:0:-1]
    found = store.log(since="2031-03-02Z", until="2031-03-03Z")
    assert [one.snapshot for one in found] == [snapshots[1]]
    assert [one.snapshot for one in store.log(session="d/s2")] == [snapshots[2]]
    assert store.log(1, session="d/s0")[0].words == [
        "put 1 session: d/s0",
        "of 1 session: units 0 → 1, spikes 0 → 60",
    ]


def test_the_log_names_tables_and_counts(store, capsys):
    put(store, builder(units=22), replace=True)
    with store.transaction("wheel") as tx:
        tx.update("d/s1", _wheel(store, np.arange(7.0)))
    newest, before, *_ = store.log()
    assert newest.words == ["updated 1 session: d/s1 (behaviour/wheel)"]
    assert before.words == [
        "put 1 session: d/s1 (spikes, units)",
        "of 1 session: units 20 → 22, spikes 1,200 → 1,320",
    ]
    assert cli.main(["log", store.url, "--limit", "1"]) == 0
    assert "        updated 1 session: d/s1 (behaviour/wheel)\n" in capsys.readouterr().out


def test_sizes_in_the_log_are_of_the_sessions_that_were_touched(store):
    put(store, builder(session="s2"), builder(session="s3"))
    with store.transaction("two at once") as tx:
        tx.rename("d/s1", "d/s9")
        tx.delete("d/s3")
    assert store.log(1)[0].words[-1] == "of 2 sessions: units 40 → 20, spikes 2,400 → 1,200"
    with store.transaction("out") as tx:
        tx.delete("d/s2")
    assert store.log(1)[0].words[-1] == "of 1 session: units 20 → 0, spikes 1,200 → 0"
    assert store.ids == ["d/s9"]


def test_the_log_of_a_session_follows_its_names_back(store):
    first = store.snapshot
    store.rename("d/s1", "d/a")
    second = store.snapshot
    put(store, builder(session="s1"))  # another session of the old name
    store.rename("d/a", "d/b")
    fourth = store.snapshot
    assert [one.snapshot for one in store.log(session="d/b")] == [fourth, second, first]
    assert [one.snapshot for one in store.log(1, session="d/b")] == [fourth]
    assert [one.snapshot for one in store.log(session="d/a")] == [fourth, second, first]


def test_a_log_of_nothing_is_refused(store, capsys):
    with pytest.raises(NotFoundError, match="Did you mean 'd/s1'"):
        store.log(session="d/s2")
    assert store.log(session="d/s1", until="1999-01-01") == []
    for limit in (0, -1):
        with pytest.raises(UsageError, match="at least one commit"):
            store.log(limit)
    assert cli.main(["log", store.url, "--limit", "0"]) == 2
    assert cli.main(["log", store.url, "--session", "d/zz"]) == 2


# ---- restore


def test_a_session_comes_back_with_the_digests_that_it_had(store):
    before = store.session("d/s1").attrs["row"]["digest"]
    store.tag("first")
    put(store, builder(units=3, subject="m"), replace=True)
    planned = store.restore("first", "d/s1", dry_run=True)
    assert planned.snapshot is None
    assert planned.steps == (("restored", "d/s1"),)
    head = store.snapshot
    made = store.restore("first", "d/s1")
    assert made.bytes == planned.bytes > 5000
    assert store.log(1)[0].parent == head
    assert store.session("d/s1").attrs["row"]["digest"] == before
    assert not store.diff("first")
    assert not any(store.validate().values())
    assert store.restore("first", "d/s1").snapshot is None
    with store.transaction("gone") as tx:
        tx.delete("d/s1")
    store.restore("first", "d/s1")
    assert not store.diff("first")


def test_a_table_comes_back_and_the_others_stay(store):
    store.tag("first")
    old = store.session("d/s1").attrs["row"]["tables"]["behaviour/wheel"]["digest"]
    put(store, builder(units=3, subject="m"), replace=True)
    with store.transaction("wheel") as tx:
        tx.update("d/s1", _wheel(store, np.arange(7.0)))
        tx.update("d/s1", _wheel(store, np.arange(7.0), name="lick"))
    store.restore("first", "d/s1", "behaviour/wheel")
    row = store.session("d/s1").attrs["row"]
    assert row["tables"]["behaviour/wheel"]["digest"] == old
    assert row["n_units"] == 3
    assert "behaviour/lick" in row["tables"]
    assert not any(store.validate().values())
    with pytest.raises(NotFoundError, match="behaviour/lick"):
        store.restore("first", "d/s1", "behaviour/lick")


@pytest.mark.parametrize("name", ["units", "spikes"])
def test_spikes_that_do_not_fit_the_units_are_refused_with_the_tables_to_name(store, name, capsys):
    store.tag("first")
    put(store, builder(times={**TIMES, "u3": TIMES["u3"][:-1]}), replace=True)
    with pytest.raises(RefusedError, match=r"n_spikes.*\(--table units spikes\)") as refused:
        store.restore("first", "d/s1", name)
    assert refused.value.findings
    words = ["restore", store.url, "first", "--session", "d/s1", "--table"]
    assert cli.main([*words, name]) == 1
    assert cli.main([*words, "units", "spikes"]) == 0
    assert only(store.refresh().diff("first")).what == "rewritten"


@pytest.mark.parametrize("names", [["units"], ["spikes"]])
def test_a_table_of_other_units_is_refused_and_both_together_are_not(store, names):
    store.tag("first")
    put(store, builder(units=3), replace=True)
    head = store.snapshot
    for dry_run in (True, False):
        with pytest.raises(RefusedError, match="rows of other units"):
            store.restore("first", "d/s1", names, dry_run=dry_run)
    assert store.refresh().snapshot == head
    store.restore("first", "d/s1", ["units", "spikes"])
    assert not any(store.validate().values())
    assert store.session("d/s1").attrs["row"]["n_units"] == 20


def test_a_renamed_session_comes_back_under_the_name_that_it_has_now(store):
    (id,) = store.ids
    store.tag("before")
    old = store.session(id).attrs["row"]["tables"]
    name = next(one for one in old if one.startswith("behaviour/"))
    store.rename(id, "other/one")
    store.rename("other/one", "other/two")
    with store.transaction("another one") as tx:
        span = store.session("other/two").span
        column = neurostore.tables.behaviour(
            name.partition("/")[2], np.arange(50.0), span, start=0, rate=5, units="rad"
        )
        tx.update("other/two", column)
    for table in (name, None):
        store.restore("before", "other/two", table)
        assert store.ids == ["other/two"]
        now = store.session("other/two").attrs["row"]["tables"]
        assert {key: one["digest"] for key, one in now.items()} == {
            key: one["digest"] for key, one in old.items()
        }
        assert store.restore("before", "other/two", table).snapshot is None
    assert store.validate() == {"other/two": []}


def test_everything_comes_back_with_splits_and_stimuli(store):
    empty = store.snapshot
    _shared(store)
    put(store, builder(units=2, session="s2"))
    full = store.snapshot
    with store.transaction("less") as tx:
        tx.delete("d/s1")
    made = store.restore(empty)
    assert {what for what, _ in made.steps} == {"taken out", "restored"}
    assert not store.diff(empty)
    assert list(store.sessions()["id"]) == ["d/s1"]
    assert store.splits.empty
    assert store.stimuli.empty
    store.restore(full)
    assert not store.diff(full)
    assert not any(store.validate().values())
    again = neurostore.open(store.url)
    assert len(again.splits) == len(again.stimuli) == 1


def test_a_dry_run_writes_nothing(tmp_path):
    store = damaged_build(tmp_path / "lab")

    def files():
        found = (one for one in (tmp_path / "lab").rglob("*") if one.is_file())
        return {one: one.read_bytes() for one in found}

    before = files()
    assert store.restore("v1", dry_run=True).bytes > 10_000
    assert files() == before
    store.restore("v1")
    assert files().keys() > before.keys()


def test_damage_is_not_brought_back(tmp_path):
    store = damaged_build(tmp_path / "lab")
    store.at("v1").tag("kept")
    with store.transaction("gone") as tx:
        tx.delete("lab/b")
    head = store.snapshot
    for path in (tmp_path / "lab" / "chunks").iterdir():
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    with pytest.raises(DamagedError, match="is damaged: its bytes give"):
        neurostore.open(tmp_path / "lab").restore("kept", "lab/b")
    assert neurostore.open(tmp_path / "lab").snapshot == head


# ---- lineage


def test_lineage_is_whole_without_the_history(store, monkeypatch):
    source = neurostore.Source("/raw/a.nwb", "f" * 64, "nwb", "2", {"rate": 30000})
    put(store, builder(units=2, source=source), replace=True, message="from a file")
    with store.transaction("pupil") as tx:
        table = _wheel(store, np.arange(9.0), name="pupil")
        said = {"parameters": {"sigma": 0.5}, "inputs": ["spikes", "behaviour/wheel"]}
        tx.update("d/s1", table, function=np.cumsum, fit=(0, 60), code="a1b2", **said)
    written = store.log()
    entries = store.session("d/s1").attrs["row"]["tables"]

    def gone(*_, **__):
        raise StoreError("the history is expired")

    for name in ("log", "about", "_ancestry"):
        monkeypatch.setattr(IcechunkVersions, name, gone)
    spikes = store.lineage("d/s1", "spikes")
    assert (spikes.made_by, spikes.source["sha256"], spikes.parameters) == (
        "nwb/2",
        "f" * 64,
        {"rate": 30000},
    )
    pupil = store.lineage("d/s1", "behaviour/pupil")
    assert (pupil.function, pupil.code, pupil.fit) == ("numpy:cumsum", "a1b2", (0.0, 60.0))
    assert pupil.parameters == {"sigma": 0.5}
    assert pupil.inputs == {n: entries[n]["digest"] for n in ("spikes", "behaviour/wheel")}
    assert pupil.source is None
    for one, commit in ((pupil, written[0]), (spikes, written[1])):
        assert one.transaction == commit.metadata["transaction"]
        assert (one.author, one.host, one.version) == (commit.author, commit.host, commit.version)
        assert one.message == commit.message
        assert datetime.fromisoformat(one.time) <= commit.time
    assert [one.table for one in store.lineage("d/s1")] == sorted(entries)
    assert json.dumps([one.to_json() for one in store.lineage("d/s1")])


def test_lineage_written_before_it_named_people_is_read(store):
    attrs = dict(store.session("d/s1").attrs)
    del attrs["transactions"]
    from neurostore.store._lineage import of

    found = of(attrs, "units")
    assert (found.made_by, found.author, found.time) == ("builder", "", "")
    assert found.transaction


def test_lineage_refuses_inputs_that_are_not_there_and_parameters_of_nothing(store):
    with pytest.raises(UsageError, match="need the function"), store.transaction("x") as tx:
        tx.update("d/s1", _wheel(store, np.arange(9.0)), parameters={"a": 1})
    with pytest.raises(NotFoundError, match="input 'spike'"), store.transaction("x") as tx:
        tx.update("d/s1", _wheel(store, np.arange(9.0)), function="a:b", inputs=["spike"])


# ---- du


def test_bytes_of_a_store_of_one_commit_are_those_of_its_files(tmp_path):
    store = neurostore.create(tmp_path / "lab")
    put(store, builder(), builder(session="s2"))
    found = store.du()
    assert (found.history, found.unreachable) == (0, 0)
    files = [one for one in (tmp_path / "lab").rglob("*") if one.is_file()]
    chunks = sum(one.stat().st_size for one in files if one.parent.name == "chunks")
    assert sum(found.sessions.values()) == chunks > 0
    assert found.total == sum(one.stat().st_size for one in files)


def test_bytes_of_history_and_of_what_nothing_holds_are_told_apart(tmp_path):
    store = neurostore.create(tmp_path / "lab")
    put(store, builder())
    one = sum(store.du().sessions.values())
    put(store, builder(units=19), replace=True)
    assert store.du().history == one
    store.transaction("stopped half-way").put(builder(session="s2"))
    found = store.du()
    assert (found.history, found.unreachable) == (one, one)
    assert found.total == sum(
        f.stat().st_size for f in (tmp_path / "lab").rglob("*") if f.is_file()
    )
    with pytest.raises(UsageError, match="local folders"):
        neurostore.create("memory://du").du()


def test_bytes_are_said_by_table_with_what_lies_in_manifests_and_by_kind(tmp_path):
    store = neurostore.create(tmp_path / "lab")
    put(store, builder())
    _shared(store)
    lines = str(store.du()).splitlines()
    empty = [one for one in lines if one.lstrip().startswith("0      ")]
    assert empty
    assert all(one.endswith(" in small chunks") for one in empty)
    assert any("units, and " in one and one.endswith(" in small chunks") for one in lines)
    assert lines[-1].endswith("bytes in all: 1 session, 1 of splits, 2 of stimuli")


# ---- commands


def test_every_command_speaks_in_words_and_in_json(tmp_path, capsys):
    store = damaged_build(tmp_path / "lab")
    url = store.url
    for words in (
        ["diff", url, "v1"],
        ["diff", url, "v1", store.snapshot, "--sessions", "lab/a"],
        ["lineage", url, "lab/a"],
        ["lineage", url, "lab/a", "spikes"],
        ["du", url],
        ["log", url, "--session", "lab/c"],
        ["restore", url, "v1", "--session", "lab/a", "--table", "behaviour/wheel", "--dry-run"],
    ):
        for more in ([], ["--json"]):
            assert cli.main([*words, *more]) == 0
            printed = capsys.readouterr()
            assert printed.err == ""
            assert json.loads(printed.out) if more else printed.out
    assert neurostore.open(url).snapshot == store.snapshot
    assert cli.main(["restore", url, "v1"]) == 0
    assert "lab/c: taken out\nlab/a: restored\n" in capsys.readouterr().out
    assert cli.main(["restore", url, "v1"]) == 0
    assert "Nothing to do" in capsys.readouterr().out
    assert cli.main(["restore", url, "v1", "--table", "units"]) == 2
    assert cli.main(["diff", url, "v1", "nothing"]) == 2
    capsys.readouterr()
