"""Two sessions of one clock made one hold every unit, spike and second of both, or are refused."""

from __future__ import annotations

import numpy as np
import pytest

import neurostore
from neurostore import cli, splits
from neurostore.errors import RefusedError, UsageError

RNG = np.random.default_rng(3)


def probe(name, units, start, stop, *, rate=30_000, subject="m", **columns):
    made = neurostore.SessionBuilder(dataset="d", session=name, rate=rate, subject=subject)
    times = {unit: np.sort(RNG.uniform(start, stop, 50)) for unit in units}
    made.add_units(times, **{key: [one] * len(units) for key, one in columns.items()})
    made.add_observed([start], [stop])
    return made


def store_of(name, *builders):
    store = neurostore.create(f"memory://merge-{name}")
    with store.transaction("probes") as tx:
        for one in builders:
            tx.put(one)
    return store


def test_probes_side_by_side_become_one_session():
    first = probe("a", ["a0", "a1"], 0, 10, region="CA1")
    first.add_behaviour("wheel", np.arange(20.0), start=0, rate=2, units="rad")
    second = probe("b", ["b0"], 0, 10, probe="right", x=1.5)
    second.add_behaviour("wheel", np.arange(20.0), start=0, rate=2, units="rad")
    second.add_behaviour("lick", np.arange(4.0), start=0, rate=2, units="")
    store = store_of("side", first, second)
    parts = [store.session(f"d/{name}") for name in "ab"]
    spikes = {str(u): one.spike_times(str(u)) for one in parts for u in one.units["unit"].values}
    kept = store.session("d/b").attrs["row"]["tables"]["behaviour/lick"]["digest"]
    planned = store.merge("d/a", "d/b", dry_run=True)
    assert planned.steps[-1] == ("merged", "d/b → d/a")
    assert list(store.sessions()["id"]) == ["d/a", "d/b"]
    store.merge("d/a", "d/b")
    one = store.session("d/a")
    assert list(store.sessions()["id"]) == ["d/a"]
    assert [str(unit) for unit in one.units["unit"].values] == ["a0", "a1", "b0"]
    assert one.units["region"].values.tolist() == ["CA1", "CA1", ""]
    assert one.units["probe"].values.tolist() == ["", "", "right"]
    np.testing.assert_array_equal(one.units["x"].values, [np.nan, np.nan, 1.5])
    for unit, times in spikes.items():
        np.testing.assert_array_equal(one.spike_times(unit), times)
    assert one.attrs["row"]["n_spikes"] == 150
    assert "unit" not in one.intervals["observed"]  # it is the same for all
    assert one.attrs["row"]["tables"]["behaviour/lick"]["digest"] == kept
    assert not any(store.validate().values())
    assert store.lineage("d/a", "spikes").inputs.keys() == {"d/a/spikes", "d/b/spikes"}
    assert store.lineage("d/a", "behaviour/lick").made_by == "builder"
    assert "merged with d/b" in one.notes
    assert "merged 2 sessions: d/a" in store.log(1)[0].words[0]


def test_units_of_sessions_one_after_another_are_observed_each_in_its_own():
    store = store_of("after", probe("a", ["a0", "a1"], 0, 10), probe("b", ["b0"], 20, 25))
    store.merge("d/a", "d/b")
    units = store.units().set_index("unit")
    assert units["observed"].to_dict() == {"a0": 10.0, "a1": 10.0, "b0": 5.0}
    one = store.session("d/a")
    assert one.attrs["row"]["observed"] == 15.0
    assert (one.start, one.stop) == (0.0, 25.0)
    assert not any(store.validate().values())


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (lambda: probe("b", ["a1", "b0"], 0, 10), "both have the units a1"),
        (lambda: probe("b", ["b0"], 0, 10, rate=20_000), "on other clocks: rate"),
        (lambda: probe("b", ["b0"], 0, 10, subject="n"), "two subjects never merge"),
        (lambda: probe("b", ["b0"], 0, 10, good=True), "no value for missing"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(other, match, request):
    store = store_of(request.node.name, probe("a", ["a0", "a1"], 0, 10), other())
    before = store.snapshot
    for dry_run in (True, False):
        with pytest.raises(RefusedError, match=match):
            store.merge("d/a", "d/b", dry_run=dry_run)
    assert store.refresh().snapshot == before
    with pytest.raises(UsageError, match="twice"):
        store.merge("d/a", "d/a")


def test_tables_of_one_name_and_splits_refuse():
    made = [probe(name, [f"{name}0"], 0, 10) for name in "ab"]
    for row, one in enumerate(made):
        one.add_behaviour("wheel", np.arange(20.0) + row, start=0, rate=2, units="rad")
    store = store_of("tables", *made)
    with pytest.raises(RefusedError, match="both have behaviour/wheel"):
        store.merge("d/a", "d/b")
    line = store.session("d/b").timeline()
    split = splits.interleaved_blocks("s", line, block=2, ratios={"train": 1, "test": 1})
    with store.transaction("split") as tx:
        tx.put(split)
    with pytest.raises(RefusedError, match="named by s/v1"):
        store.merge("d/a", "d/b")


def test_the_command_merges(tmp_path, capsys):
    store = neurostore.create(tmp_path / "lab")
    with store.transaction("two") as tx:
        tx.put(probe("a", ["a0"], 0, 10))
        tx.put(probe("b", ["b0"], 0, 10))
    assert cli.main(["merge", store.url, "d/a", "d/b", "--dry-run"]) == 0
    assert "Dry run: nothing was written." in capsys.readouterr().out
    assert cli.main(["merge", store.url, "d/a", "d/b"]) == 0
    assert "d/b → d/a: merged" in capsys.readouterr().out
    assert cli.main(["merge", store.url, "d/a", "d/b"]) == 2
