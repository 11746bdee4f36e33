"""Splits of whole sessions and subjects: who is held out, and in which rotation."""

from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from _sampled import store_of, three
from _small import RECIPE, builder, spikes
from hypothesis import given, settings
from hypothesis import strategies as st

import neurostore
from neurostore import Dataset, Spikes, Split, UsageError, Window, splits
from neurostore.clocks import Clock
from neurostore.intervals import Intervals
from neurostore.recipes import load, split_of
from neurostore.sample import refuse_shared_units
from neurostore.splits import Timeline

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}


def timelines(sessions: int, subjects: int = 1) -> list[Timeline]:
    return [
        Timeline(
            f"d/s{k:02}",
            Clock(1000),
            5,
            Intervals(np.array([k, 500]), np.array([400, 1_000 + k])),
            subject=f"rat-{k % subjects}",
        )
        for k in range(sessions)
    ]


def label_of(made: Split) -> dict[str, str]:
    return {str(id): str(label) for id, label in zip(made.session, made.label, strict=True)}


def test_a_session_is_one_row_over_all_its_observed_time() -> None:
    made = splits.by_session("s", timelines(10))
    assert made.start.tolist() == list(range(10))
    assert made.stop.tolist() == [1_000 + k for k in range(10)]
    assert Counter(label_of(made).values()) == {"train": 7, "validation": 1, "test": 2}


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 30),
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
    st.integers(-3, 40),
    st.integers(0, 5),
)
def test_every_label_gets_what_its_ratio_says_to_within_one_and_one_at_least(
    sessions: int, ratios: list[int], rotation: int, seed: int
) -> None:
    said = {f"l{k}": ratio for k, ratio in enumerate(ratios)}
    wanted = {label: ratio for label, ratio in said.items() if ratio}
    arguments = {"ratios": said, "rotation": rotation, "seed": seed}
    if not wanted or sessions < len(wanted):
        with pytest.raises(UsageError):
            splits.by_session("s", timelines(sessions), **arguments)
        return
    made = splits.by_session("s", timelines(sessions), **arguments)
    found = Counter(label_of(made).values())
    assert set(found) == set(wanted)
    assert sum(found.values()) == sessions
    exact = {k: Fraction(v * sessions, sum(wanted.values())) for k, v in wanted.items()}
    if min(exact.values()) >= 1:
        assert all(abs(found[label] - exact[label]) < 1 for label in wanted)
    assert made == splits.by_session("s", timelines(sessions)[::-1], **arguments)


def test_rotations_by_the_sessions_of_test_make_each_session_test_once() -> None:
    tested = Counter[str]()
    for rotation in (0, 2, 4, 6, 8):
        made = label_of(splits.by_session("s", timelines(10), rotation=rotation, seed=3))
        tested.update(id for id, label in made.items() if label == "test")
    assert tested == {f"d/s{k:02}": 1 for k in range(10)}


def test_the_order_depends_on_the_seed_and_on_no_other_session() -> None:
    orders = {tuple(splits.by_session("s", timelines(10), seed=k).label) for k in range(6)}
    assert len(orders) > 3
    half = {"train": 1, "test": 1}
    first, more = (label_of(splits.by_session("s", timelines(n), ratios=half)) for n in (10, 11))
    ends = [id for id in first if first[id] != more[id]]
    assert len(ends) <= 1


@pytest.mark.parametrize("method", [splits.leave_session_out, splits.leave_subject_out])
@pytest.mark.parametrize("validation", [0, 1, 2])
def test_over_all_rotations_each_is_left_out_exactly_once(method, validation: int) -> None:
    ids = [f"d/s{k:02}" for k in range(5)]
    for rotation in range(5):
        made = method("s", timelines(5, 5), rotation=rotation, validation=validation)
        own = label_of(made)
        assert [id for id in ids if own[id] == "test"] == [ids[rotation]]
        after = [ids[(rotation + 1 + k) % 5] for k in range(validation)]
        assert sorted(id for id in ids if own[id] == "validation") == sorted(after)


def test_a_subject_is_held_out_with_all_of_its_sessions() -> None:
    for rotation in range(4):
        made = label_of(splits.by_subject("s", timelines(11, 4), rotation=rotation))
        by_subject = [{made[f"d/s{k:02}"] for k in range(11) if k % 4 == s} for s in range(4)]
        assert all(len(labels) == 1 for labels in by_subject)
        assert Counter(next(iter(one)) for one in by_subject)["test"] == 1
    again = splits.leave_subject_out("s", timelines(11, 4), rotation=2)
    assert {id for id, label in label_of(again).items() if label == "test"} == {
        "d/s02",
        "d/s06",
        "d/s10",
    }


def test_subjects_of_one_name_in_two_data_sets_are_two() -> None:
    clock, seen = Clock(1000), Intervals(np.array([0]), np.array([9]))
    two = [Timeline(f"{d}/s", clock, 0, seen, subject="m1") for d in ("a", "b")]
    made = splits.leave_subject_out("s", two, validation=0)
    assert label_of(made) == {"a/s": "test", "b/s": "train"}


@pytest.mark.parametrize(
    ("method", "sessions", "arguments", "said"),
    [
        ("by_session", 2, {}, "2 sessions cannot be dealt to train, validation, test"),
        ("by_subject", 9, {}, "1 subject cannot be dealt to train, validation, test"),
        ("leave_session_out", 3, {"rotation": 3}, "0 to 2 here, found 3"),
        ("leave_session_out", 3, {"rotation": -1}, "0 to 2 here, found -1"),
        ("leave_session_out", 3, {"validation": 2}, "leave 0 of 3 to train"),
        ("leave_session_out", 3, {"validation": -1}, "-1 to validate"),
        ("leave_subject_out", 9, {}, "leave -1 of 1 to train"),
        ("by_session", 9, {"ratios": {"train": 0}}, "share above 0"),
    ],
)
def test_what_cannot_be_dealt_is_refused_with_the_numbers(
    method: str, sessions: int, arguments: dict, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        getattr(splits, method)("s", timelines(sessions), **arguments)


def test_a_session_without_a_subject_is_refused_by_name() -> None:
    clock, seen = Clock(1000), Intervals(np.array([0]), np.array([9]))
    with pytest.raises(UsageError, match="d/s says no subject"):
        splits.by_subject("s", Timeline("d/s", clock, 0, seen))


def test_a_split_by_session_is_kept_and_serves_datasets_that_share_no_unit() -> None:
    store = store_of(*three())
    all_of_them = [store.session(id).timeline() for id in store.sessions()["id"]]
    with store.transaction("split") as tx:
        kept = tx.put(splits.leave_session_out("out", all_of_them, rotation=1))
    assert store.split("out/test").sessions == ("demo/b",)
    made = {
        label: Dataset(
            store, window=Window(0.4, 0.2), streams={"spikes": Spikes(0.1)}, split=f"out/{label}"
        )
        for label in kept.labels
    }
    seen = {label: set(one.sample(len(one)).session) for label, one in made.items()}
    assert seen == {"train": {"demo/a"}, "validation": {"demo/c"}, "test": {"demo/b"}}
    refuse_shared_units(made["train"], made["test"])
    refuse_shared_units(made["train"], made["validation"])


def test_a_recipe_splits_by_subject_and_by_session(tmp_path: Path) -> None:
    store = neurostore.create(tmp_path / "lab")
    with store.transaction("four sessions") as tx:
        for k in range(4):
            made = neurostore.SessionBuilder(
                dataset="sim", session=f"s{k}", rate=30_000, subject=f"rat-{k % 3}"
            )
            made.add_units(spikes(k))
            tx.put(made)
        tx.put(builder(spikes(9), "nobody"))
    head, _, tail = RECIPE.partition("[split]")
    tail = tail[tail.index("[train]") :]
    methods = {
        'method = "leave_subject_out"\nrotation = 2': {"sim/s2"},
        'method = "leave_session_out"\nrotation = 3\nvalidation = 2': {"sim/s3"},
        'method = "by_session"\nratios = { train = 1, test = 1 }': None,
    }
    for number, (said, tested) in enumerate(methods.items()):
        path = tmp_path / f"r{number}.toml"
        path.write_text(f"{head}[split]\n{said}\n{tail}", encoding="utf-8")
        recipe = load(path, {"data.sessions": "subject LIKE 'rat%'"})
        found = split_of(recipe, store)
        assert len(found.sessions) == 4
        assert len(set(found["test"].sessions)) == (2 if tested is None else 1)
        assert tested is None or set(found["test"].sessions) == tested
    with pytest.raises(UsageError, match="sim/nobody says no subject"):
        split_of(load(tmp_path / "r0.toml"), store)
