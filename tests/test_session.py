"""A session is lazy, speaks seconds, and crosses into other libraries and processes whole."""

from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest
import xarray as xr

import neurostore
from neurostore.store import layout
from neurostore.store.layout import StoredArray


def builder(session: str = "s1", **more: object) -> neurostore.SessionBuilder:
    rng = np.random.default_rng(7)
    made = neurostore.SessionBuilder(dataset="d", session=session, subject="r1", **more)
    times = {f"u{k}": np.sort(rng.integers(-3000, 30_000 * 60, 800)) / 30_000 for k in range(5)}
    made.add_units({**times, "silent": []}, region=["CA1", "CA1", "CA3", None, "CA3", "CA1"])
    made.add_behaviour("wheel", np.arange(6000.0), start=0.0, rate=100, units="rad")
    made.add_behaviour(
        "position",
        np.arange(240).reshape(120, 2),
        time=np.arange(120) / 60,
        units="pixel",
        channels=["x", "y"],
        valid=np.arange(120) < 100,
    )
    made.add_intervals(
        "trials",
        [0.0, 10.0, 20.0, np.nan],
        [5.0, 15.0, np.nan, 35.0],
        stim_on_time=np.array([1.0, np.nan, 21.0, 31.0]),
        choice=[1, -1, 0, 1],
        note=["a", "b", None, "d"],
    )
    made.add_activity("lfp", np.ones((200, 3), "f4"), start=0, rate="1000", units="V")
    made.add_presentations("movie", [0.0, 1.0], [1.0, 2.0], [5, -1], stimulus="natural")
    return made


@pytest.fixture(scope="module")
def store() -> neurostore.Store:
    store = neurostore.create("memory://test-session")
    with store.transaction("one session") as tx:
        tx.put(builder())
    return store


@pytest.fixture
def session(store: neurostore.Store) -> neurostore.Session:
    return store.session("d/s1")


def test_opening_reads_no_chunk_and_touches_no_table(store, monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("a chunk was read")

    monkeypatch.setattr(StoredArray, "__getitem__", never)
    monkeypatch.setattr(layout, "read_table", never)
    session = store.session("d/s1")
    assert session.tables[0] == "activity/lfp"
    assert "6 with 4,000 spikes" in repr(session)


def test_stored_tables_are_lazy(session, monkeypatch):
    monkeypatch.setattr(StoredArray, "__getitem__", lambda *_: pytest.fail("a chunk was read"))
    for name in session.tables:
        session.stored(name).to_xarray()


def test_values_of_behaviour_and_activity_are_read_only_when_asked_for(session, monkeypatch):
    read = []
    whole = StoredArray.__getitem__

    def note(self: StoredArray, key: object) -> object:
        read.append(self.path.rpartition("/")[2])
        return whole(self, key)

    monkeypatch.setattr(StoredArray, "__getitem__", note)
    wheel = session.behaviour["wheel"]
    session.activity["lfp"]
    assert "value" not in read
    assert wheel["value"].sel(time=slice(1.0, 1.05)).values.tolist() == [
        100.0, 101.0, 102.0, 103.0, 104.0, 105.0,
    ]  # fmt: skip
    assert read.count("value") == 1


def test_missing_ends_and_events_are_marked_never_filled(session):
    trials = session.intervals["trials"]
    assert trials["valid"].values.tolist() == [True, True, False, False]
    assert np.isnan(trials["stop"].values[2])
    assert np.isnan(trials["start"].values[3])
    assert trials["stop"].values[3] == 35.0
    assert trials["stim_on_time_valid"].values.tolist() == [True, False, True, True]
    assert trials["stim_on_time"].attrs["units"] == "s"
    assert trials["note"].values.tolist() == ["a", "b", "", "d"]


def test_a_slice_shows_what_lies_in_it_and_whole_intervals_that_touch_it(session):
    part = session.slice(4.0, 12.0)
    for unit in ("u0", "u3", "silent"):
        times = session.spike_times(unit)
        inside = times[(times >= 4) & (times < 12)]
        np.testing.assert_array_equal(part.spike_times(unit), inside)
    assert part.behaviour["wheel"]["time"].values[[0, -1]].tolist() == [4.0, 11.99]
    assert part.intervals["trials"]["choice"].values.tolist() == [1, -1]
    assert part.spikes.sizes["spike"] == part.counts(4, 12, 0.5).values.sum()
    assert part.counts(0, 60, 0.5).values.sum() == part.spikes.sizes["spike"]
    assert part.slice(0, 5).stop == 5.0
    assert (part.start, part.stop) == (4.0, 12.0)


def test_presentations_name_their_stimulus(session):
    shown = session.presentations["movie"]
    assert shown.attrs["stimulus"] == "natural"
    assert shown["row"].values.tolist() == [5, -1]


def test_to_xarray_holds_every_table(session):
    tree = session.to_xarray()
    assert isinstance(tree, xr.DataTree)
    for name in session.tables:
        assert tree[name].dataset.sizes
    assert tree["behaviour/position"]["value"].shape == (120, 2)


def test_to_pandas_names_units_and_channels(session):
    frames = session.to_pandas()
    assert frames["spikes"].groupby("unit").size().to_dict() == {f"u{k}": 800 for k in range(5)}
    assert frames["behaviour/position"]["value_y"].tolist()[:2] == [1, 3]
    assert frames["units"]["region"].tolist() == ["CA1", "CA1", "CA3", "", "CA3", "CA1"]


def test_to_pynapple_gives_the_same_times(session):
    pytest.importorskip("pynapple")
    made = session.to_pynapple()
    group = made["units"]
    assert list(group["region"]) == ["CA1", "CA1", "CA3", "", "CA3", "CA1"]
    np.testing.assert_allclose(group[0].t, session.spike_times("u0"), atol=1e-9)
    assert made["position"].shape == (100, 2)  # the valid samples
    assert len(made["trials"]) == 2
    assert len(group[5]) == 0


def test_an_unknown_name_is_answered_with_the_nearest(store, session):
    for call, nearest in [
        (lambda: store.session("d/s2"), "d/s1"),
        (lambda: session["behaviour/whel"], "behaviour/wheel"),
        (lambda: session.behaviour["whel"], "wheel"),
        (lambda: session.spike_times("u9"), "u"),
        (lambda: session.counts(0, 1, 0.1, units=["u0", "silnt"]), "silent"),
        (lambda: store.at("nothing"), "nothing"),
    ]:
        with pytest.raises(neurostore.NotFoundError, match=nearest):
            call()


def test_wrong_windows_are_one_clear_line(session):
    for call in (
        lambda: session.counts(0, 1, 0),
        lambda: session.counts(0, 1, 1e-9),
        lambda: session.counts(0, float("nan"), 0.1),
        lambda: session.slice(5, 5),
        lambda: session.psth("u0", [np.nan]),
        lambda: session.psth("u0", [1.0], window=(0.5, 0.2)),
    ):
        with pytest.raises(neurostore.UsageError) as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1


def test_html_escapes_what_a_source_says():
    store = neurostore.create("memory://test-hostile")
    with store.transaction("hostile") as tx:
        made = neurostore.SessionBuilder(dataset="d", session="<script>x</script>", subject="<b>")
        made.add_behaviour("<i>", [1.0, 2.0], start=0, rate=1, units="<u>")
        tx.put(made)
    session = store.session("d/<script>x</script>")
    assert session.behaviour["<i>"]["value"].values.tolist() == [1.0, 2.0]
    page = session._repr_html_() + store._repr_html_()
    assert "<script>" not in page
    assert "<i>" not in page


def _first_spike(session: neurostore.Session, sent: multiprocessing.Queue) -> None:
    sent.put(float(session.spike_times("u0")[0]))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_session_is_opened_again_in_another_process(tmp_path, method):
    store = neurostore.create(tmp_path / "lab")
    with store.transaction("one") as tx:
        tx.put(builder())
    session = store.session("d/s1")
    context = multiprocessing.get_context(method)
    sent = context.Queue()
    process = context.Process(target=_first_spike, args=(session, sent))
    process.start()
    try:
        assert sent.get(timeout=60) == session.spike_times("u0")[0]
    finally:
        process.join(timeout=60)
    part = pickle.loads(pickle.dumps(session.slice(1, 2)))
    assert (part.start, part.stop) == (1.0, 2.0)


def test_a_store_in_memory_says_that_it_cannot_leave_its_process(store):
    with pytest.raises(neurostore.UsageError, match="process"):
        pickle.dumps(store)


def test_bins_may_be_fractions_and_events_far_away_count_nothing(session):
    exact = session.counts(0, 60, "1/50")
    assert exact.shape == (6, 3000)
    np.testing.assert_array_equal(exact.values, session.counts(0, 60, 0.02).values)
    far = session.psth("u0", [1.0, 1e300, np.inf], bin="1/50")
    assert far["count"].shape == (1, 75)
    assert far.attrs["missing"] == 2
    with pytest.raises(neurostore.UsageError, match="events"):
        session.psth("u0", ["a"])


def test_a_session_without_units_says_what_it_has_instead():
    store = neurostore.create("memory://test-no-units")
    with store.transaction("wheel only") as tx:
        made = neurostore.SessionBuilder(dataset="d", session="s")
        made.add_behaviour("wheel", [1.0, 2.0], start=0, rate=1, units="rad")
        tx.put(made)
    for call in (
        lambda: store.session("d/s").counts(0, 1, 0.1),
        lambda: store.session("d/s").spike_times("u"),
    ):
        with pytest.raises(neurostore.UsageError, match="behaviour/wheel"):
            call()
    assert store.units().empty


def test_a_series_without_a_valid_sample_gives_the_session_no_extent():
    store = neurostore.create("memory://test-no-extent")
    with store.transaction("one stray series") as tx:
        made = neurostore.SessionBuilder(dataset="d", session="s")
        made.add_units({"u": np.arange(10) / 10})
        made.add_behaviour("old", [1.0, 2.0], start=-1.5e9, rate=1, units="V")
        tx.put(made)
    session = store.session("d/s")
    assert (session.start, session.stop) == (0.0, pytest.approx(0.9, abs=1e-4))


def gapped(by_unit: bool) -> neurostore.Session:
    store = neurostore.create(f"memory://test-gapped-{by_unit}")
    with store.transaction("gapped") as tx:
        made = neurostore.SessionBuilder(dataset="d", session="s")
        made.add_units({"a": np.arange(0.05, 10, 0.1), "b": np.arange(0.05, 4, 0.1)})
        if by_unit:
            made.add_observed([0, 6, 0], [4, 10, 4], unit=[0, 0, 1])
        else:
            made.add_observed([0, 4, 6], [4, 5, 10])  # two pieces touch
        tx.put(made)
    return store.session("d/s")


def test_a_bin_in_no_observed_time_is_marked_and_never_averaged_as_zero():
    session = gapped(by_unit=False)
    seen = session.counts(0, 11, 1)["observed"]
    assert seen.dims == ("bin",)
    assert seen.values.tolist() == [True] * 5 + [False] + [True] * 4 + [False]
    table = session.psth("a", [3.5, 4.5, 50.0], (-1, 2), 0.5)
    assert table["observed"].values.sum(axis=1).tolist() == [5, 4, 0]
    np.testing.assert_allclose(table["rate_hz"], [10, 10, 10, 10, 10, 10])
    nowhere = session.psth("a", [4.9], (-1, 0.5), 0.5)["rate_hz"].values
    assert nowhere[:2].tolist() == [10.0, 10.0]
    assert np.isnan(nowhere[2])
    with pytest.raises(neurostore.UsageError, match="observed"):
        session.psth("a", [50.0])
    assert session.slice(0, 2).counts(0, 3, 1)["observed"].values.tolist() == [True, True, False]


def test_observed_time_that_differs_by_unit_is_marked_by_unit():
    session = gapped(by_unit=True)
    seen = session.counts(3, 7, 1, units=["b", "a"])["observed"]
    assert seen.dims == ("unit", "bin")
    assert seen.values.tolist() == [[True, False, False, False], [True, False, False, True]]
    with pytest.raises(neurostore.UsageError, match="observed"):
        session.psth("b", [3.5], (0, 2), 1)


def test_a_slice_without_rows_of_a_table_still_crosses_over(session):
    part = session.slice(50.0, 51.0)  # no trial, no position, no presentation there
    frames = part.to_pandas()
    assert len(frames["intervals/trials"]) == 0
    assert len(frames["behaviour/position"]) == 0
    assert part.to_xarray()["presentations/movie"].sizes["presentation"] == 0
    pytest.importorskip("pynapple")
    assert len(part.to_pynapple()["position"]) == 0


@pytest.mark.parametrize(
    "valid",
    [[1, 1, 0, 0, 1, 1, 1], [1, 0, 1, 0, 0, 0, 1], [0, 1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 1]],
    ids=str,
)
@pytest.mark.parametrize("channels", [None, ["x", "y"]])
def test_pynapple_gets_every_valid_sample_and_no_hole_between_them(valid, channels):
    pytest.importorskip("pynapple")
    store = neurostore.create(f"memory://holes-{valid}-{channels}".replace(" ", ""))
    time, keep = np.array([0, 0.1, 0.2, 0.3, 2.0, 2.1, 2.2]), np.array(valid, bool)
    value = np.arange(7.0) if channels is None else np.arange(14.0).reshape(7, 2)
    with store.transaction("holes") as tx:
        made = neurostore.SessionBuilder(dataset="d", session="s")
        made.add_behaviour("pupil", value, time=time, units="mm", valid=keep, channels=channels)
        tx.put(made)
    pupil = store.session("d/s").to_pynapple()["pupil"]
    np.testing.assert_allclose(pupil.t, time[keep])
    np.testing.assert_array_equal(pupil.values, value[keep])
    support = pupil.time_support.values
    for moment in time[~keep]:
        assert not ((support[:, 0] <= moment) & (moment <= support[:, 1])).any()


def test_rows_that_overlap_are_not_joined_for_pynapple():
    pytest.importorskip("pynapple")
    store = neurostore.create("memory://test-overlap")
    with store.transaction("overlap") as tx:
        made = neurostore.SessionBuilder(dataset="d", session="s")
        made.add_units({"u": [0.5, 5.0]})
        made.add_intervals("apart", [0.0, 2.0], [1.0, 3.0], choice=[1, -1])
        made.add_intervals("over", [0.0, 0.5, 2.0], [1.0, 1.5, 3.0], choice=[1, -1, 0])
        tx.put(made)
    made = store.session("d/s").to_pynapple()
    assert list(made["apart"]["choice"]) == [1, -1]
    assert made["over"]["choice"].tolist() == [1, -1, 0]


def test_a_table_on_another_clock_or_of_another_kind_is_refused(store, session):
    tables = neurostore.tables
    other = tables.Span(neurostore.Clock(1000))
    for table, why in [
        (tables.behaviour("pupil", [1.0, 2.0], other, time=[1.0, 2.0], units="mm"), "span"),
        (session.behaviour["wheel"], "neurostore.tables"),
    ]:
        with (
            pytest.raises(neurostore.UsageError, match=why),
            store.transaction("pupil") as tx,
        ):
            tx.update("d/s1", table)
    assert "behaviour/pupil" not in store.refresh().session("d/s1").tables


def _count(session: neurostore.Session, sent: multiprocessing.Queue) -> None:
    try:
        sent.put(int(session.counts(0, 1, 0.1).sum()))
    except neurostore.UsageError as error:
        sent.put(str(error))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_how_workers_start_and_does_not_hang(tmp_path):
    store = neurostore.create(tmp_path / "lab")
    with store.transaction("one") as tx:
        tx.put(builder())
    context = multiprocessing.get_context("fork")
    sent = context.SimpleQueue()
    process = context.Process(target=_count, args=(store.session("d/s1"), sent))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == 0
    assert "spawn" in sent.get()
