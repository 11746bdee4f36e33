"""One rank of a process group over a store: reads its batches beside the others, writes digests.

Run as a script: rank, ranks, folder, url, how many cases. All ranks meet after every batch, as in
training, so that one with fewer batches would leave the others waiting; the group gives up after
60 s.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import torch
from test_loader import addresses, digest

import neurostore
from neurostore import Dataset, Spikes, UsageError, Window

CASES = ((40, False, 0), (41, False, 0), (7, True, 0), (64, True, 0), (120, False, 1))
"""Sizes of a batch, whether the last one is left out, and how many workers read."""


def met(loader, batches: int | None = None) -> list:
    """Digest and windows of so many batches, all ranks meeting after each."""
    made = []
    for batch in loader:
        torch.distributed.all_reduce(torch.ones(1))
        made.append((digest(batch), addresses([batch])))
        if len(made) == batches:
            break
    return made


def main(rank: int, ranks: int, folder: Path, url: str, cases: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meet'}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=60),
    )
    dataset = Dataset(
        neurostore.open(url), window=Window(0.4, 0.2, 0.11), streams={"spikes": Spikes(0.2)}
    )
    said, found = "", []
    try:
        dataset.loader(8)
    except UsageError as error:
        said = str(error)
    for size, drop_last, workers in CASES[:cases]:

        def loader(size: int = size, drop_last: bool = drop_last, workers: int = workers):
            own = {"drop_last": drop_last, "workers": workers}
            return dataset.loader(size, seed=3, epoch=1, rank=rank, ranks=ranks, **own)

        whole = met(loader())
        stops = sorted({0, 1, len(whole) // 2, len(whole)}) if not workers else [2]
        resumed = []
        for stop in stops:
            first = loader()
            before = met(first, stop) if stop else []
            again = loader()
            again.load_state_dict(json.loads(json.dumps(first.state_dict())))
            resumed.append(before + met(again) == whole)
        found.append({"batches": whole, "resumed": resumed, "windows": len(dataset)})
    (folder / f"{rank}.json").write_text(json.dumps({"said": said, "found": found}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
