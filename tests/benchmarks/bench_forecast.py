"""The W-maze forecast: the GLM beside its baselines, five rotations pooled, three seeds."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from neurostore import experiments

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "your-own-format.md"


def bench_w_maze_forecast(data: Any, tmp_path: Path) -> None:
    """Prints the table; holds the headline to 0.74 bits and the difference to above 0."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S):
        exec(compile(block, PAGE.name, "exec"), names)
    folder = data("hippocampus_nelpy") / "w-maze"
    store = names["keep"](str(tmp_path / "lab"), folder).store
    began = time.perf_counter()
    table = experiments.run(experiments.load("w-maze"), store, tmp_path / "runs")
    seconds = time.perf_counter() - began
    print(f"\nW-maze, {len(list(experiments.load('w-maze').runs()))} runs in {seconds:.0f} s")
    print(experiments.frame(table).round(4).to_string())
    for row in table["rows"]:
        model, trailing = row["models"][:2]
        assert row["scored"] == 24
        assert row["blocks"] == 71
        assert model["bits_per_spike"] >= (0.74 if row["stride"] == 0.5 else 0.73)
        assert trailing["difference"]["interval"][0] > 0
