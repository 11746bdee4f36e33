"""neurostore beside what a user would pick instead, in one run: the ratios this package promises.

Takes the harness of peers (``$NEUROSTORE_PEERS``, or ``../shared/peers`` beside the checkout) and
the libraries of the extra `peers`. Sessions and files are made once under ``$NEUROSTORE_BENCH`` (or
``.bench``): 43 million spikes, some two minutes and 2 GB.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HARNESS = Path(os.environ.get("NEUROSTORE_PEERS", ROOT.parent / "shared" / "peers"))
FOLDER = Path(os.environ.get("NEUROSTORE_BENCH", ROOT / ".bench")).resolve()
NEEDED = ("torch_brain", "psutil")
RIVAL, RAM, OURS, DIRECT = "torch_brain_lazy", "npz_eager", "neurostore", "neurostore_direct"


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """What the harness measured, all peers interleaved."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing or not HARNESS.is_dir():
        pytest.skip(f"needs the harness in {HARNESS} and {', '.join(missing) or 'nothing more'}")
    scripts = FOLDER / "scripts"
    shutil.copytree(HARNESS, scripts, dirs_exist_ok=True)
    (scripts / "logs").mkdir(exist_ok=True)
    for own in ("neurostore_peer.py", "cold_windows.py", "steady.py", "first_windows.py"):
        shutil.copy(Path(__file__).with_name(own), scripts)
    library = scripts / "peers_lib.py"
    library.write_text((HARNESS / "peers_lib.py").read_text() + "\nimport neurostore_peer\n")
    (scripts / "results.json").unlink(missing_ok=True)
    run("make_sessions.py", "--root", str(FOLDER / "data"))
    for peer in ("torch_brain", OURS):
        shutil.rmtree(FOLDER / "data" / peer, ignore_errors=True)
    run("bench_peers.py", "write", "--rounds", "1", "--peers", f"{RIVAL},{RAM},{OURS}")
    neurostore_cache(FOLDER / "data" / OURS)
    peers = f"{RIVAL},{RAM},{OURS},{DIRECT}"
    run("bench_peers.py", "run", "--rounds", "5", "--peers", peers)
    return json.loads((scripts / "results.json").read_text())


def environment() -> dict[str, str]:
    """Of the harness: our checkout, its own data and cache, one thread each."""
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "PEERS_ROOT": str(FOLDER / "data"),
        "NEUROSTORE_CACHE": str(FOLDER / "cache"),
        "OMP_NUM_THREADS": "1",
    }


def run(script: str, *arguments: str) -> str:
    """What one stage of the harness prints."""
    command = [sys.executable, "-W", "ignore", script, *arguments]
    done = subprocess.run(
        command, cwd=FOLDER / "scripts", env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def neurostore_cache(store: Path) -> None:
    """Build the window cache, as a person would ahead of training."""
    command = [sys.executable, "-m", "neurostore", "cache", str(store)]
    subprocess.run(command, env=environment(), check=True)


def rate(results: dict[str, Any], peer: str, job: str) -> float:
    """Median windows (batches) a second over the rounds."""
    found = [one for one in results["run"][peer][job] if "p50" in one]
    assert found, results["run"][peer][job]
    return 1 / statistics.median(one["p50"] for one in found)


def bench_ratios_to_the_rivals(results: dict[str, Any]) -> None:
    """Warm windows, one at a time and in batches of 32 over three sessions."""
    lines = [
        "",
        f"{'':28}{'torch_brain':>12}{'numpy RAM':>12}{'neurostore':>12}{'x tb':>8}{'x RAM':>8}",
    ]
    for job in (*(f"{what}_{one}" for what in ("counts", "events") for one in "ABC"), "batch"):
        rival, ram, ours = (rate(results, peer, job) for peer in (RIVAL, RAM, OURS))
        lines.append(
            f"{job:28}{rival:12,.0f}{ram:12,.0f}{ours:12,.0f}{ours / rival:8.1f}{ours / ram:8.2f}"
        )
    print("\n".join(lines))


def bench_opening_and_cold_windows(results: dict[str, Any]) -> None:
    """Fresh processes, the peer's own pages dropped: opening three sessions, 100 windows."""
    for peer in (RIVAL, RAM, OURS, DIRECT):
        found = results["open"][peer]
        opened = statistics.median(one["t"] for one in found["open_cold"])
        cold = statistics.median(one["t"] for one in found["counts_cold"])
        print(f"{peer:28} opens in {opened:.3f} s, first 100 windows in {cold * 1000:.0f} ms")


def bench_cold_windows_in_one_call(results: dict[str, Any]) -> None:
    """Fresh processes taking turns: 100 windows without a cache, the rival one after another."""
    taken: dict[str, list[float]] = {RIVAL: [], DIRECT: []}
    for round in range(7):
        for peer, found in taken.items():
            found.append(float(run("cold_windows.py", peer, str(round)).split()[-1]))
    rival, ours = (statistics.median(found) for found in taken.values())
    print(
        f"100 cold windows without a cache: {RIVAL} {rival:.0f} ms, {OURS} in one call {ours:.0f} "
        f"ms, {rival / ours:.2f} of its speed"
    )


def bench_opening_again_and_private_memory(results: dict[str, Any]) -> None:
    """Fresh processes taking turns: libraries loaded, then 2,400 windows and 20 batches of 32."""
    found: dict[str, list[list[float]]] = {RIVAL: [], OURS: []}
    for _ in range(5):
        for peer, of in found.items():
            of.append(json.loads(run("steady.py", peer).splitlines()[-1]))
    for peer, of in found.items():
        opened, private = (statistics.median(part) for part in zip(*of, strict=True))
        print(f"{peer:28} opens again in {opened:.0f} ms, holds {private:.0f} MB of its own")


def bench_starting_an_epoch_of_100_hours(results: dict[str, Any]) -> None:
    """Fresh processes: until the first 32 windows of a shuffled epoch are known."""
    taken = [json.loads(run("first_windows.py").splitlines()[-1]) for _ in range(5)]
    rival, ours = (statistics.median(part) for part in zip(*taken, strict=True))
    print(f"100 hours begin in {rival:,.0f} ms (torch_brain), {ours:.1f} ms; {rival / ours:,.0f}x")


def bench_size_and_ingest(results: dict[str, Any]) -> None:
    """Bytes a spike, and millions of spikes a second from arrays, compressed and validated."""
    spikes = sum(
        json.loads(one.read_text())["spikes"] for one in FOLDER.glob("data/raw/*/meta.json")
    )
    for peer, folder in ((RIVAL, "torch_brain"), (RAM, RAM), (OURS, OURS)):
        files = [one for one in (FOLDER / "data" / folder).rglob("*") if one.is_file()]
        size, speed = sum(one.stat().st_size for one in files), results["write"][peer]["Mspk_s"]
        print(
            f"{peer:28} {size / spikes:.2f} bytes a spike (all), {speed['A']:.1f} M spikes/s (A), "
            f"{speed['B']:.1f} (B)"
        )
