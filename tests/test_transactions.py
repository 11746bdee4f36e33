"""Transactions against a plain model: what was done, in order, is what is there; or nothing is."""

from __future__ import annotations

import random

import pytest
from _writers import session, wheel

import neurostore
from neurostore.errors import ConflictError, NotFoundError, RefusedError, UsageError
from neurostore.store import layout

IDS = ["d/a", "d/b", "e/a"]
SEEDS = 20


def found(store, id):
    """First value of each behaviour table."""
    one = store.session(id)
    return {name: one.behaviour[name].value.values[0] for name in one.behaviour}


def wanted(tables):
    """The same, of tables by the seed they were made with (those of updates from SEEDS on)."""
    return {
        name: wheel(seed, name).columns["value"].values[0] if seed >= SEEDS else PUT[seed]
        for name, seed in tables.items()
    }


def _put(seed):
    return session("d/x", seed).build().tables["behaviour/wheel"].columns["value"].values[0]


PUT = [_put(seed) for seed in range(SEEDS)]


def act(rng, tx, mine):
    """One random operation on a transaction and on its model, id → tables; gives the id."""
    id, what = rng.choice(IDS), rng.choice(["put", "put", "replace", "update", "update", "delete"])
    seed = rng.randrange(SEEDS)
    if what == "put" and id in mine:
        with pytest.raises(UsageError, match="is in the store already"):
            tx.put(session(id, seed))
    elif what in ("put", "replace"):
        tx.put(session(id, seed), replace=what == "replace")
        mine[id] = {"wheel": seed}
    elif id not in mine:
        with pytest.raises(NotFoundError):
            tx.delete(id) if what == "delete" else tx.update(id, wheel(0))
    elif what == "delete":
        tx.delete(id)
        del mine[id]
    else:
        name = rng.choice(["wheel", "lick"])
        tx.update(id, wheel(SEEDS + seed, name))
        mine[id] = mine[id] | {name: SEEDS + seed}
    return id


@pytest.mark.parametrize("seed", range(3))
def test_two_writers_agree_with_a_model_of_the_store(seed):
    rng, url = random.Random(seed), f"memory://model-{seed}"
    neurostore.create(url)
    stores, shown = [neurostore.open(url), neurostore.open(url)], [{}, {}]
    head, kept, conflicts = {}, 0, 0  # id → (step that wrote it, its tables)
    for step in range(30):
        who = rng.randrange(2)
        store = stores[who]
        if rng.random() < 0.4:
            store.refresh()
            shown[who] = dict(head)
        mine = {id: tables for id, (_, tables) in shown[who].items()}
        stale = {id for id in IDS if shown[who].get(id) != head.get(id)}
        before, touched = store.snapshot, set()
        try:
            with store.transaction(f"step {step}") as tx:
                for _ in range(rng.randrange(1, 5)):
                    touched.add(act(rng, tx, mine))
        except ConflictError:
            assert stale
            conflicts += 1
            assert store.snapshot == before
        if store.snapshot != before:
            assert not stale & touched
            changed = store.log(1)[0].metadata["sessions"]
            head = {id: one for id, one in head.items() if id not in changed}
            head |= {id: (step, mine[id]) for id in changed if id in mine}
            shown[who] = dict(head)
            kept += 1
        assert {id: found(store, id) for id in shown[who]} == {
            id: wanted(tables) for id, (_, tables) in shown[who].items()
        }
        newest = neurostore.open(url)
        assert list(newest.sessions()["id"]) == sorted(head)
        assert not any(newest.validate().values())
    assert kept > 5
    assert conflicts > 0
    assert len(newest.log()) == kept + 1


@pytest.fixture
def store(tmp_path):
    made = neurostore.create(tmp_path / "lab")
    with made.transaction("first") as tx:
        tx.put(session("d/s"))
    return made


def test_what_is_put_and_taken_out_again_is_no_commit(store):
    before = store.snapshot
    with store.transaction("nothing") as tx:
        tx.put(session("d/t"))
        tx.delete("d/t")
    assert tx.snapshot == store.snapshot == before


def test_a_put_that_is_refused_leaves_the_rest_of_the_transaction(store):
    wrong = session("d/s")
    wrong.add_intervals("late", [0.0], [1.0])
    staged = wrong.build()
    staged.tables["spikes"].columns["time"].values[:] = 7  # its blocks fit no more
    with store.transaction("delete, and put what is refused") as tx:
        tx.delete("d/s")
        with pytest.raises(RefusedError):
            tx.put(staged)
        tx.put(session("d/t"))
    assert list(store.sessions()["id"]) == ["d/t"]
    assert store.validate() == {"d/t": []}


@pytest.mark.parametrize("id", ["d/s", "d/new"])
def test_a_put_that_fails_half_way_leaves_nothing_of_it(store, monkeypatch, id):
    write, written = layout.write_table, []

    def fail(*arguments):
        if len(written) == 2:
            raise OSError("the disk of the source is gone")
        written.append(write(*arguments))
        return written[-1]

    with store.transaction("half") as tx:
        tx.delete("d/s")
        with monkeypatch.context() as patch:
            patch.setattr(layout, "write_table", fail)
            with pytest.raises(OSError, match="is gone"):
                tx.put(session(id))
        tx.put(session("d/t"))
    assert list(store.sessions()["id"]) == ["d/t"]
    assert store.validate() == {"d/t": []}


def test_a_replacement_that_fails_half_way_ends_the_transaction(store, monkeypatch):
    tx = store.transaction("half")
    with monkeypatch.context() as patch:
        patch.setattr(layout, "write_table", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tx.put(session("d/s"), replace=True)
    with pytest.raises(UsageError, match="failed half-way through a write"), tx:
        pass
    assert neurostore.open(store.url).snapshot == store.snapshot
    assert store.validate() == {"d/s": []}


def test_a_transaction_that_is_over_takes_nothing_more(store):
    with store.transaction("second") as tx:
        tx.put(session("d/t"))
    for use in (lambda: tx.put(session("d/u")), lambda: tx.delete("d/t"), tx.__enter__):
        with pytest.raises(UsageError, match="is over; begin another one"):
            use()


def test_units_are_not_replaced_by_fewer_than_observed_time_names():
    store = neurostore.create("memory://fewer-units")
    with store.transaction("two units, observed each by itself") as tx:
        made = neurostore.SessionBuilder(dataset="d", session="s")
        made.add_units({"a": [], "b": []})
        made.add_observed([0.0, 0.0], [1.0, 2.0], unit=[0, 1])
        tx.put(made)
    one = neurostore.tables.units(neurostore.Ragged.of({"a": []}), {})
    with (
        pytest.raises(neurostore.RefusedError, match="intervals/observed"),
        store.transaction("one unit less") as tx,
    ):
        tx.update("d/s", one)
    assert store.session("d/s").units.sizes == {"unit": 2}
