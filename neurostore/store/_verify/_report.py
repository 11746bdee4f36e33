"""What a verification found, what it looked at, and how sure a sampled one may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from neurostore.errors import counted
from neurostore.store._faults import Fault


def chance(chunks: int, checked: int, damaged: int) -> float:
    """Probability that a sample without replacement meets at least one of the damaged chunks.

    1 - C(n - k, m) / C(n, m) for n chunks, m of them checked, and k damaged ones.
    """
    if damaged <= 0 or checked <= 0:
        return 0.0
    if damaged > chunks - checked:
        return 1.0
    kept = (math.log1p(-checked / (chunks - i)) for i in range(damaged))
    return -math.expm1(math.fsum(kept))


@dataclass(frozen=True)
class Progress:
    """How far a verification is.

    Attributes
    ----------
    step : {"metadata", "chunks"}
    done, total : int
        Snapshots or chunks.
    bytes : int
        Read from chunks so far.
    seconds : float
        Since the step began.
    """

    step: str
    done: int
    total: int
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """What `Store.verify` found.

    Attributes
    ----------
    url, snapshot : str
    sample : float
        The share of the chunks that was asked for.
    seed : int
        Of the sample.
    snapshots, things, tables : int
        Of which all metadata was checked; things are sessions, versions of splits, stimuli and
        embeddings, each counted once a snapshot.
    chunks, checked : int
        Distinct chunks of these snapshots, and how many of them were read.
    bytes : int
        Read from chunks.
    resumed : int
        Tables that an earlier run had checked.
    faults : sequence of Fault
        Everything that is not what was written.
    """

    url: str
    snapshot: str
    sample: float
    seed: int
    snapshots: int
    things: int
    tables: int
    chunks: int
    checked: int
    bytes: int
    seconds: float
    resumed: int = 0
    faults: Sequence[Fault] = field(default=())

    @property
    def whole(self) -> bool:
        """Whether everything is what was written.

        A violation (a split of a session that was deleted since) is no damage.
        """
        return not any(one.finding.severity == "critical" for one in self.faults)

    def chance(self, damaged: int) -> float:
        """Probability that this run meets damage of so many chunks."""
        return chance(self.chunks, self.checked, damaged)

    def words(self) -> list[str]:
        """What was looked at and what that proves, a sentence a line."""
        if not self.snapshots:
            return [f"{self.url}: no snapshot could be read, nothing was checked."]
        rate = self.bytes / self.seconds / 1e6 if self.seconds > 0 else 0.0
        lines = [
            f"{self.url} at {self.snapshot}: {counted(self.snapshots, 'snapshot')}, "
            f"{counted(self.tables, 'table')}, {self.checked:,} of "
            f"{counted(self.chunks, 'chunk')}, {self.bytes / 1e6:,.1f} MB in {self.seconds:,.1f} s "
            f"({rate:,.1f} MB/s)."
        ]
        if self.resumed:
            lines.append(f"{counted(self.resumed, 'table')} of them were checked by a run before.")
        if self.checked == self.chunks:
            lines.append(
                "Every chunk was decoded and held against the digest of its table, every link "
                "against what it names."
            )
        else:
            lines += self._sampled()
        return lines

    def _sampled(self) -> list[str]:
        percent = max(1, math.ceil(self.chunks / 100))
        said = {1: "1 damaged chunk", 10: "10 damaged chunks"}
        said[percent] = f"damage of 1 % of the chunks ({percent:,})"
        chances = [
            f"{words} with a probability of {self.chance(k):.2%}"
            for k, words in sorted(said.items())
            if k <= self.chunks
        ]
        return [
            "All rows, metadata and links by name were checked, and of the chunks in the sample "
            "that their bytes are the ones that were written (crc32c, and the end kept in the "
            "array's attributes); nothing was decoded, so no digest of a whole table was computed.",
            f"This sample meets {'; '.join(chances)}.",
        ]

    def to_json(self) -> dict[str, Any]:
        """As a plain mapping; `chances` by number of damaged chunks."""
        percent = max(1, math.ceil(self.chunks / 100))
        plain = {key: getattr(self, key) for key in self.__dataclass_fields__ if key != "faults"}
        return {
            "whole": self.whole,
            **plain,
            "chances": {str(k): self.chance(k) for k in sorted({1, 10, percent})},
            "faults": [one.to_json() for one in self.faults],
        }
