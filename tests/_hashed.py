"""Hashes of the batches of a dataset; as a script, of a bundle's, where little can be imported.

``python _hashed.py <bundle> <workers> <a module that cannot be imported> ...`` prints JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from typing import Any


class Without(MetaPathFinder):
    """No module of these names can be imported."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = set(names)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def hashed(batch: Any) -> str:
    """Tensors, reasons, masks and all that a batch tells of its windows."""
    made = hashlib.sha256()
    for name in sorted(batch.tensors):
        for one in (batch.tensors[name], batch.reason[name], batch.mask[name]):
            made.update(f"{name} {one.dtype} {tuple(one.shape)}".encode())
            made.update(one.contiguous().numpy().tobytes())
    for one in (batch.trial, batch.start, batch.tick, batch.block, batch.unit_mask, batch.region):
        made.update(one.contiguous().numpy().tobytes())
    made.update(repr([batch.session, [ids.tolist() for ids in batch.unit_ids]]).encode())
    return made.hexdigest()


def epoch(dataset: Any, workers: int = 0, most: int = 4) -> list[str]:
    """Of the first batches of an epoch."""
    loader = dataset.loader(16, seed=5, workers=workers)
    return [hashed(batch) for _, batch in zip(range(most), loader, strict=False)]


def of_all(bundle: Any, workers: int = 0) -> dict[str, list[str]]:
    """By dataset."""
    return {name: epoch(bundle.dataset(name), workers) for name in bundle.datasets}


if __name__ == "__main__":
    folder, count, *missing = sys.argv[1:]
    sys.meta_path.insert(0, Without(missing))
    from neurostore.sample import Bundle

    opened = Bundle.open(folder)
    opened.verify()
    said = {"hashes": of_all(opened, int(count)), "loaded": sorted(sys.modules)}
    json.dump(said, sys.stdout)
