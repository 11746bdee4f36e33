"""Stopped at any batch and resumed, by any number of workers and ranks: the same batches."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from _ranks import CASES
from _sampled import store_of, three
from test_loader import addresses, digest, failing

import neurostore
from neurostore import Batch, Dataset, Spikes, UsageError, Window

WINDOW = Window(0.4, 0.2, 0.11)
LIGHT = {"spikes": Spikes(0.2)}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return store_of(*three(), url=str(tmp_path_factory.mktemp("resumed") / "lab")).url


@pytest.fixture(scope="module")
def dataset(url: str) -> Dataset:
    return Dataset(neurostore.open(url), window=WINDOW, streams=LIGHT)


def through_json(state: dict) -> dict:
    return json.loads(json.dumps(state))


def killing(batch: Batch) -> Batch:
    """Kills the first of the workers at its second batch."""
    worker = torch.utils.data.get_worker_info()
    seen.append(len(batch.session))
    if worker is not None and worker.id == 0 and len(seen) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch


seen: list[int] = []
"""Sizes of the batches that this process made."""


# ---- one process


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"shuffle": False},
        {"drop_last": True},
        {"weight": "sessions"},
        {"weight": "units", "windows": 1_000},
        {"windows": 100},
    ],
    ids=str,
)
def test_stopped_after_any_batch_and_resumed_gives_what_was_left(
    dataset: Dataset, arguments: dict
) -> None:
    def loader():
        return dataset.loader(50, seed=4, epoch=2, **arguments)

    whole = [digest(batch) for batch in loader()]
    for stop in range(len(whole) + 1):
        first = loader()
        before = [digest(batch) for batch in itertools.islice(first, stop)]
        again = loader()
        again.load_state_dict(through_json(first.state_dict()))
        assert before + [digest(batch) for batch in again] == whole
        assert (again.epoch, again.batch) == (3, 0)


def test_epochs_follow_one_another_and_a_state_knows_which(dataset: Dataset) -> None:
    loader = dataset.loader(200, seed=4)
    three_epochs = [[digest(batch) for batch in loader] for _ in range(3)]
    said = [[digest(b) for b in dataset.loader(200, seed=4, epoch=e)] for e in range(3)]
    assert three_epochs == said
    assert loader.state_dict()["epoch"] == 3
    assert loader.state_dict()["batch"] == 0
    again = dataset.loader(200, seed=4)
    again.load_state_dict(through_json(loader.state_dict()))
    fourth = [digest(batch) for batch in dataset.loader(200, seed=4, epoch=3)]
    assert [digest(batch) for batch in again] == fourth


def test_a_state_taken_at_the_last_batch_leaves_the_end_of_its_epoch_to_be_done(
    dataset: Dataset,
) -> None:
    loader = dataset.loader(200, seed=4)
    for batch in loader:
        state = loader.state_dict()
        assert digest(batch) == digest(loader[state["batch"] - 1])
    assert (state["epoch"], state["batch"]) == (0, len(loader))
    again = dataset.loader(200, seed=4)
    again.load_state_dict(state)
    assert len(again) == 0
    assert list(again) == []
    assert (again.epoch, again.batch) == (1, 0)


def test_the_length_is_what_is_left_and_a_batch_by_number_moves_nothing(dataset: Dataset) -> None:
    loader = dataset.loader(100, seed=4)
    whole = len(loader)
    peeked = digest(loader[0])
    assert loader.state_dict()["batch"] == 0
    batches = iter(loader)
    assert digest(next(batches)) == peeked
    assert len(loader) == whole - 1
    del batches
    assert len(list(loader)) == whole - 1
    assert len(loader) == whole


def test_two_iterations_of_one_loader_at_once_are_refused(dataset: Dataset) -> None:
    loader = dataset.loader(100)
    first = iter(loader)
    next(first)
    second = iter(loader)
    next(second)
    with pytest.raises(UsageError, match="another one began after it"):
        next(first)
    loader.load_state_dict(loader.state_dict())
    with pytest.raises(UsageError, match="a state was loaded"):
        next(second)
    assert loader.state_dict()["batch"] == 2


def test_a_resume_reads_no_batch_and_lays_out_no_order(dataset: Dataset, monkeypatch) -> None:
    state = dataset.loader(5, seed=4, first=100).state_dict()
    read: list[int] = []
    true = Dataset._read
    monkeypatch.setattr(Dataset, "_read", lambda *own: read.append(1) or true(*own))
    loader = dataset.loader(5, seed=4)
    loader.load_state_dict(state)
    assert read == []
    batch = next(iter(loader))
    assert read == [1]
    assert digest(batch) == digest(dataset.loader(5, seed=4)[100])


@pytest.mark.parametrize(
    ("made", "asked", "said"),
    [
        ({"seed": 1}, {"seed": 2}, "seed 1, this one has 2"),
        ({}, {"shuffle": False}, "seed 0, this one has None"),
        ({"batch_size": 8}, {"batch_size": 9}, "batch_size 8, this one has 9"),
        ({"rank": 0, "ranks": 2}, {"rank": 0, "ranks": 4}, "ranks 2, this one has 4"),
        ({"drop_last": True}, {}, "drop_last True, this one has False"),
        ({"weight": "sessions"}, {}, "weight '[0-9a-f]{12}', this one has None"),
        ({"windows": 80}, {"windows": 88}, "windows 80, this one has 88"),
    ],
)
def test_a_state_of_another_loader_is_refused_with_both_values(
    dataset: Dataset, made: dict, asked: dict, said: str
) -> None:
    state = dataset.loader(**{"batch_size": 8, **made}).state_dict()
    loader = dataset.loader(**{"batch_size": 8, **asked})
    with pytest.raises(UsageError, match=said):
        loader.load_state_dict(state)
    assert (loader.epoch, loader.batch) == (0, 0)


def test_a_state_of_another_plan_is_refused_with_both_digests(dataset: Dataset) -> None:
    other = Dataset(dataset.store, window=Window(0.4, 0.2, 0.1), streams=LIGHT)
    ours, theirs = dataset.plan.digest[:12], other.plan.digest[:12]
    with pytest.raises(UsageError, match=f"plan '{theirs}', this one has '{ours}'"):
        dataset.loader(8).load_state_dict(other.loader(8).state_dict())


def test_a_state_of_like_windows_in_other_sessions_is_refused() -> None:
    a, _, _ = three()
    stores = []
    for name in ("demo/x", "demo/y"):
        a.id = name
        stores.append(Dataset(store_of(a), window=WINDOW, streams=LIGHT))
    assert stores[0].plan.digest == stores[1].plan.digest
    with pytest.raises(UsageError, match="with sessions"):
        stores[0].loader(8).load_state_dict(stores[1].loader(8).state_dict())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": -1}, "batch -1 of epoch 0"),
        ({"batch": 10**9}, "batch 1000000000 of epoch 0; an epoch has"),
        ({"epoch": 0.5}, "epoch 0.5"),
        ({"epoch": None}, "epoch None"),
    ],
)
def test_a_state_that_was_damaged_is_refused(dataset: Dataset, change: dict, said: str) -> None:
    state = dataset.loader(8).state_dict() | change
    with pytest.raises(UsageError, match=said):
        dataset.loader(8).load_state_dict(state)
    del state["epoch"], state["plan"]
    with pytest.raises(UsageError, match="lacks plan, epoch"):
        dataset.loader(8).load_state_dict(state)


# ---- ranks


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [8, 31, 480])
def test_the_ranks_of_a_step_hold_together_what_one_process_holds(
    dataset: Dataset, size: int, drop_last: bool
) -> None:
    every = addresses([dataset.batch(np.arange(len(dataset)), seed=None)])
    alone = [addresses([b]) for b in dataset.loader(size, seed=1, drop_last=drop_last)]
    for ranks in (1, 2, 4, 7):
        loaders = [
            dataset.loader(size, seed=1, rank=rank, ranks=ranks, drop_last=drop_last)
            for rank in range(ranks)
        ]
        assert {len(loader) for loader in loaders} == {len(alone)}
        steps = list(zip(*[[addresses([b]) for b in one] for one in loaders], strict=True))
        assert [[pair for part in step for pair in part] for step in steps] == alone
        for step in steps:
            sizes = [len(part) for part in step]
            assert max(sizes) - min(sizes) <= 1
            assert min(sizes) >= 1
    if not drop_last:
        assert sorted(pair for step in alone for pair in step) == sorted(every)


def test_a_last_batch_of_fewer_windows_than_ranks_is_refused_with_the_numbers(
    dataset: Dataset,
) -> None:
    windows = 50 * 8 + 3
    with pytest.raises(UsageError, match=r"3 of 403 windows, fewer than the 4 ranks.*drop_last"):
        dataset.loader(8, windows=windows, rank=0, ranks=4)
    assert len(dataset.loader(8, windows=windows, rank=3, ranks=4, drop_last=True)) == 50
    assert len(dataset.loader(8, windows=windows, rank=2, ranks=3)) == 51


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rank": 4, "ranks": 4}, "rank 4 of 4"),
        ({"rank": -1, "ranks": 4}, "rank -1 of 4"),
        ({"rank": 0, "ranks": 0}, "rank 0 of 0"),
        ({"rank": 1}, "go together, found rank=1 and ranks=None"),
        ({"rank": 0, "ranks": 9}, "8 windows cannot be divided among 9 ranks"),
    ],
)
def test_ranks_that_make_no_sense_are_refused(dataset: Dataset, arguments: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        dataset.loader(8, **arguments)


def start_ranks(ranks: int, folder: Path, url: str, cases: int) -> list[dict]:
    folder.mkdir()
    script = Path(__file__).with_name("_ranks.py")
    words = [str(ranks), str(folder), url, str(cases)]
    started = [
        subprocess.Popen([sys.executable, str(script), str(rank), *words], stderr=subprocess.PIPE)
        for rank in range(ranks)
    ]
    try:
        for one in started:
            _, said = one.communicate(timeout=180)
            assert one.returncode == 0, said.decode()[-2_000:]
    finally:
        for one in started:
            one.kill()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "cases"), [(1, 4), (2, 5), (4, 4)])
def test_processes_of_a_group_share_every_batch_and_resume_at_any(
    dataset: Dataset, url: str, tmp_path: Path, ranks: int, cases: int
) -> None:
    done = start_ranks(ranks, tmp_path / "ranks", url, cases)
    for rank, one in enumerate(done):
        told = f"This process is rank {rank} of {ranks}" in one["said"]
        assert told is (ranks > 1)
        assert all(all(case["resumed"]) for case in one["found"])
    for case, (size, drop_last, _) in enumerate(CASES[:cases]):
        alone = [addresses([b]) for b in dataset.loader(size, seed=3, epoch=1, drop_last=drop_last)]
        parts = [[batch for _, batch in one["found"][case]["batches"]] for one in done]
        together = [
            [tuple(pair) for part in step for pair in part] for step in zip(*parts, strict=True)
        ]
        assert together == alone


# ---- workers


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # of torch, on few cores
@pytest.mark.parametrize("context", ["forkserver", "spawn"])
@pytest.mark.parametrize("workers", [1, 4])
def test_what_workers_read_ahead_is_not_delivered_and_not_lost(
    dataset: Dataset, workers: int, context: str
) -> None:
    whole = [digest(batch) for batch in dataset.loader(60, seed=5)]
    first = dataset.loader(60, seed=5, workers=workers, context=context)
    before = [digest(batch) for batch in itertools.islice(first, 2)]
    assert first.state_dict()["batch"] == 2
    again = dataset.loader(60, seed=5, workers=workers, context=context)
    again.load_state_dict(through_json(first.state_dict()))
    assert before + [digest(batch) for batch in again] == whole
    assert again.state_dict()["epoch"] == 1


@pytest.mark.slow
def test_workers_draw_nothing_from_the_random_numbers_of_the_process(dataset: Dataset) -> None:
    before = torch.get_rng_state()
    next(iter(dataset.loader(60, workers=1)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
@pytest.mark.parametrize("context", ["forkserver", "spawn"])
def test_a_worker_that_is_killed_is_an_error_and_what_was_not_delivered_is_not_lost(
    url: str, context: str
) -> None:
    made = Dataset(neurostore.open(url), window=WINDOW, streams=LIGHT, transform=killing)
    loader = made.loader(30, seed=2, workers=2, context=context)
    with pytest.raises(RuntimeError, match="worker"):
        list(loader)
    assert loader.batch <= 2  # the third is the one that the worker had in hand
    healthy = Dataset(neurostore.open(url), window=WINDOW, streams=LIGHT)
    again = healthy.loader(30, seed=2)
    again.load_state_dict(loader.state_dict())
    whole = [digest(batch) for batch in healthy.loader(30, seed=2)]
    assert [digest(batch) for batch in again] == whole[loader.batch :]


@pytest.mark.slow
def test_fifty_starts_broken_off_failed_or_read_whole_do_not_hang(url: str) -> None:
    fine = Dataset(neurostore.open(url), "demo/c", window=WINDOW, streams=LIGHT)
    bad = Dataset(neurostore.open(url), "demo/c", window=WINDOW, streams=LIGHT, transform=failing)
    for start in range(50):
        workers = 1 + start % 2
        if start % 5 == 4:
            with pytest.raises(ZeroDivisionError, match="this transform"):
                list(bad.loader(20, epoch=start, workers=workers))
            continue
        loader = fine.loader(60, epoch=start, workers=workers)
        many = (1, 2, 0, None)[start % 4]
        read = [digest(batch) for batch in itertools.islice(loader, many)]
        assert read == [digest(loader.batches.read(start, k)) for k in range(len(read))]
