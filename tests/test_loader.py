"""Epochs in batches: whole, resumable, and the same from any number of worker processes."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from _sampled import store_of, three

import neurostore
from neurostore import (
    Batch,
    Behaviour,
    Dataset,
    NotFoundError,
    SpikeEvents,
    Spikes,
    Trials,
    UsageError,
    Window,
)

STREAMS = {
    "spikes": Spikes(0.05),
    "events": SpikeEvents(),
    "position": Behaviour("position", rate=40, max_gap=0.05),
    "trial": Trials(("side", "score")),
}
WINDOW = Window(0.4, 0.2, 0.11)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store on disk: one in memory cannot go to another process."""
    folder = tmp_path_factory.mktemp("sampled") / "lab"
    return store_of(*three(), url=str(folder)).url


@pytest.fixture(scope="module")
def dataset(url: str) -> Dataset:
    return Dataset(neurostore.open(url), window=WINDOW, streams=STREAMS)


def addresses(batches) -> list[tuple[str, int]]:
    return [
        pair for batch in batches for pair in zip(batch.session, batch.tick.tolist(), strict=True)
    ]


def digest(batch: Batch) -> str:
    """sha256 of all that a batch holds."""
    made = hashlib.sha256(repr((batch.session, sorted(batch), batch.steps)).encode())
    for name in sorted(batch):
        for tensor in (batch[name], batch.mask[name], batch.reason[name]):
            made.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
            made.update(tensor.numpy().tobytes())
    for tensor in (batch.tick, batch.start, batch.block, batch.trial, batch.region):
        made.update(tensor.numpy().tobytes())
    made.update(repr([ids.tolist() for ids in batch.unit_ids]).encode())
    return made.hexdigest()


def spikes_of(batch: Batch) -> int:
    return int(batch["spikes"].sum())


def refusing(batch: Batch) -> Batch:
    raise NotFoundError("unit", "u7", ["u1", "u2"], "this transform")


def failing(batch: Batch) -> Batch:
    raise ZeroDivisionError("this transform fails")


# ---- one process


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_the_batches_of_an_epoch_hold_every_window_once(
    dataset: Dataset, size: int, shuffle: bool
) -> None:
    light = Dataset(dataset.store, window=WINDOW, streams={"spikes": Spikes(0.2)})
    loader = light.loader(size, seed=3, shuffle=shuffle)
    batches = list(loader)
    assert len(batches) == len(loader) == -(-len(light) // size)
    every = addresses([light.batch(np.arange(len(light)), seed=None)])
    found = addresses(batches)
    assert len(set(found)) == len(found)
    assert sorted(found) == sorted(every)
    assert (found == every) is not shuffle


def test_the_last_batch_that_is_not_full_is_left_out_where_asked(dataset: Dataset) -> None:
    size = 64
    rest = len(dataset) % size
    assert rest
    loader = dataset.loader(size, drop_last=True)
    sizes = [len(batch.session) for batch in loader]
    assert sizes == [size] * len(loader) == [size] * (len(dataset) // size)
    assert len(list(dataset.loader(size))[-1].session) == rest


def test_an_epoch_goes_on_from_any_batch_exactly(dataset: Dataset) -> None:
    whole = [digest(batch) for batch in dataset.loader(40, seed=1, epoch=2)]
    for first in (1, 4, len(whole) - 1):
        rest = dataset.loader(40, seed=1, epoch=2, first=first)
        assert len(rest) == len(whole) - first
        assert [digest(batch) for batch in rest] == whole[first:]
    assert list(dataset.loader(40, first=len(whole))) == []
    loader = dataset.loader(40, seed=1, epoch=2)
    assert digest(loader[3]) == whole[3]
    with pytest.raises(IndexError):
        loader[len(whole)]


def test_a_loader_says_where_it_is_and_whose_share_it_reads(dataset: Dataset) -> None:
    loader = dataset.loader(200, epoch=3, first=1, rank=1, ranks=4)
    said = "<Loader: batch 1 of 3 of epoch 3, 200 windows each, rank 1 of 4>"
    assert repr(loader) == said


def test_epochs_and_seeds_differ_in_order_alone(dataset: Dataset) -> None:
    light = Dataset(dataset.store, window=WINDOW, streams={"spikes": Spikes(0.2)})
    orders = {
        (seed, epoch): tuple(addresses(light.loader(100, seed=seed, epoch=epoch)))
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    }
    assert len(set(orders.values())) == 3
    assert len({frozenset(order) for order in orders.values()}) == 1


def test_a_sample_is_the_begin_of_an_epoch_and_the_same_for_a_seed(dataset: Dataset) -> None:
    assert digest(dataset.sample(40, seed=9)) == digest(dataset.sample(40, seed=9))
    assert digest(dataset.sample(40, seed=9)) != digest(dataset.sample(40, seed=8))
    assert digest(dataset.sample(40, seed=9)) == digest(next(iter(dataset.loader(40, seed=9))))


def test_a_batch_of_many_holds_what_windows_alone_hold(dataset: Dataset) -> None:
    batch = dataset.sample(25, seed=6)
    for row in range(25):
        alone = dataset.window(batch.session[row], float(batch.start[row]))
        units = alone["spikes"].shape[1]
        assert torch.equal(batch["spikes"][row, :units], alone["spikes"][0])
        assert torch.equal(batch["position"][row], alone["position"][0])
        assert torch.equal(batch["trial.side"][row], alone["trial.side"][0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"batch_size": 0}, "batch_size of 1 or more"),
        ({"batch_size": 8, "workers": -1}, "-1"),
        ({"batch_size": 8, "workers": 2, "context": "fork"}, "does not survive a fork"),
        ({"batch_size": 8, "first": 10**6}, "first=1000000"),
        ({"batch_size": 8, "first": -1}, "first=-1"),
    ],
)
def test_a_loader_that_makes_no_sense_is_one_clear_error(
    dataset: Dataset, arguments: dict, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        dataset.loader(**arguments)
    assert "\n" not in str(caught.value)


# ---- pickles


def test_a_dataset_pickles_small_and_reads_nothing_until_it_is_asked(dataset: Dataset) -> None:
    before = digest(dataset.sample(30))
    raw = pickle.dumps(dataset)
    assert len(raw) < 10_000
    again = pickle.loads(raw)
    assert "chosen" not in vars(again)
    assert "plan" not in vars(again)
    assert digest(again.sample(30)) == before
    assert again.identity() == dataset.identity()


def test_a_batch_pickles_whole(dataset: Dataset) -> None:
    batch = dataset.sample(10)
    again = pickle.loads(pickle.dumps(batch))
    assert isinstance(again, Batch)
    assert digest(again) == digest(batch)


def test_a_batch_goes_to_a_device_whole(dataset: Dataset) -> None:
    batch = dataset.sample(10)
    assert digest(batch.to("cpu")) == digest(batch)
    gone = batch.to("meta")
    every = [*gone.values(), *gone.mask.values(), *gone.reason.values()]
    every += [gone.start, gone.tick, gone.block, gone.trial, gone.unit_mask, gone.region]
    assert {tensor.device.type for tensor in every} == {"meta"}


def test_what_cannot_go_to_a_worker_is_refused_with_the_way_out(url: str) -> None:
    in_memory = Dataset(store_of(*three()), window=WINDOW, streams=STREAMS)
    with pytest.raises(UsageError, match="memory://"):
        iter(in_memory.loader(8, workers=1))
    local = Dataset(neurostore.open(url), window=WINDOW, streams=STREAMS, transform=lambda b: b)
    with pytest.raises(UsageError, match="a function of a module"):
        iter(local.loader(8, workers=1))


# ---- worker processes


@pytest.mark.slow
@pytest.mark.parametrize("context", ["forkserver", "spawn"])
def test_the_batches_are_the_same_whatever_reads_them(dataset: Dataset, context: str) -> None:
    alone = list(dataset.loader(140, seed=5, first=1))
    read = list(dataset.loader(140, seed=5, first=1, workers=2, context=context))
    assert all(isinstance(batch, Batch) for batch in read)
    assert [digest(batch) for batch in read] == [digest(batch) for batch in alone]
    assert torch.equal(read[0].past("spikes"), alone[0].past("spikes"))


@pytest.mark.slow
def test_workers_apply_the_transform(url: str) -> None:
    made = Dataset(
        neurostore.open(url), "demo/c", window=WINDOW, streams=STREAMS, transform=spikes_of
    )
    assert list(made.loader(60, workers=1)) == list(made.loader(60))


@pytest.mark.slow
def test_an_error_in_a_worker_surfaces(url: str) -> None:
    for transform, kind in ((refusing, NotFoundError), (failing, ZeroDivisionError)):
        made = Dataset(neurostore.open(url), window=WINDOW, streams=STREAMS, transform=transform)
        with pytest.raises(kind, match="this transform") as caught:
            list(made.loader(50, workers=1))
        if kind is NotFoundError:
            assert str(caught.value) == "No unit 'u7' in this transform. Did you mean 'u2'?"
