"""Runs the main job on recordings it simulates itself: files in, a store, a model, pages out."""

from __future__ import annotations

import shutil
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

import neurostore
from neurostore import recipes, report
from neurostore.errors import MissingExtraError, NeurostoreError
from neurostore.evaluate import Forecaster, Scores, evaluate
from neurostore.ingest import run as ingest
from neurostore.runs import Run
from neurostore.sample import Batch
from neurostore.simulate import Simulated, simulate, write_nwb
from neurostore.store import Span, Store, tables
from neurostore.train import train

if TYPE_CHECKING:
    import pandas as pd

DATASET = "demo"
FOLDER = "neurostore-demo"

DONE = "made-by-neurostore-demo.txt"
"""Holds the snapshot a demo ended with; a store that is still there is the demo's own work."""

SECONDS, UNITS = 600.0, 48

LATENT: Mapping[str, Any] = {"latents": 2, "latent_seconds": 1.0, "latent_gain": 0.8}
"""What the simulated units share: without it there would be nothing to forecast."""

FIT: Mapping[str, Any] = {"split.block": 10.0, "train.epochs": 10}
"""Overrides of the recipe for ten minutes of recording."""

BY_TRIAL: Mapping[str, Any] = {
    "split.method": "by_trial",
    "split.trials": "trials",
    "window.history": 0.3,
    "window.horizon": 0.2,
    "arguments.boxcars": [0.02, 0.04, 0.1, 0.2, 0.3],
}
"""Overrides for a recording of trials with gaps between them."""

LIBRARIES = ("pynwb", "matplotlib", "torch", "lightning_fabric", "safetensors")


def run(
    out: str | Path = FOLDER,
    *,
    seed: int = 0,
    recording: str | Path | None = None,
    open_page: bool = False,
) -> Path:
    """Simulate three sessions, store them, forecast the spikes of one, and write pages of it all.

    Parameters
    ----------
    out : str or Path
        Folder for everything. One that holds something else than an untouched earlier demo is left
        alone, and a fresh one beside it is used.
    seed : int
        Of the simulation.
    recording : str or Path, optional
        An NWB file of your own with spikes, on which the same is done.
    open_page : bool
        Open the page in a browser.

    Returns
    -------
    Path
        The page of the catalogue, which leads to those of the models.

    Raises
    ------
    MissingExtraError
        Where a library of the extra is not installed; nothing is done then.
    """
    for library in LIBRARIES:
        if find_spec(library) is None:
            raise MissingExtraError("The demo", "demo")
    console = Console(highlight=False, soft_wrap=True)
    folder = _folder(Path(out), console)
    sessions = _simulate(console, seed)
    nwb = _write_source(console, folder, sessions["mouse-1"])
    store = _fill(console, folder, nwb, sessions)
    _query(console, store)
    _second_look(console, store, sessions["mouse-1"])
    runs = [_model(console, folder, store, sessions["mouse-3"])]
    if recording is not None:
        runs.append(_real(console, folder, store, Path(recording)))
    page = _show(console, folder, store, sessions["mouse-3"], runs)
    (folder / DONE).write_text(store.snapshot)
    if open_page:
        webbrowser.open(page.absolute().as_uri())
    return page


def _folder(out: Path, console: Console) -> Path:
    """Find a folder to work in: `out`, emptied of an untouched earlier demo, or one beside it."""
    fresh = out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if _untouched(out):
            console.print(f"Replacing the earlier demo in {escape(str(out))}.", style="dim")
            shutil.rmtree(out / "store")
            shutil.rmtree(out / "runs", ignore_errors=True)
            (out / DONE).unlink()
        else:
            number = 2
            while (fresh := out.with_name(f"{out.name}-{number}")).exists():
                number += 1
            console.print(f"{out} is not empty; working in {fresh}.", style="dim", markup=False)
    fresh.mkdir(parents=True, exist_ok=True)
    return fresh


def _untouched(out: Path) -> bool:
    """Whether `out` holds a finished demo whose store nobody has committed to since."""
    try:
        return (out / DONE).read_text() == neurostore.open(out / "store").snapshot
    except (OSError, UnicodeError, NeurostoreError):
        return False


# ---- the steps


def _simulate(console: Console, seed: int) -> dict[str, Simulated]:
    _step(console, 1, "Simulate three sessions: units, trials, a wheel", "simulate")
    regions = {
        "mouse-1": ("VISp", "LP"),
        "mouse-2": ("CA1", "MOs"),
        "mouse-3": ("VISp", "MOs", "CA1", "LP"),
    }
    sessions = {
        name: simulate(seed + row, units=UNITS, seconds=SECONDS, regions=places, **LATENT)
        for row, (name, places) in enumerate(regions.items())
    }
    for name, session in sessions.items():
        console.print(
            f"   {name}: {len(session.ids)} units in {', '.join(regions[name])}, "
            f"{len(session.times):,} spikes, {len(session.trials['start'])} trials"
        )
    return sessions


def _write_source(console: Console, folder: Path, session: Simulated) -> Path:
    """Write one session as the NWB file of a careless laboratory."""
    path = write_nwb(spoil(session), folder / "mouse-1.nwb", subject="mouse-1")
    _step(console, 2, "Write one of them as an NWB file with three flaws", "write_nwb")
    console.print(f"   {path}", markup=False)
    console.print("   wheel time stamps out of order, a trial without stop, a response at -1.5e9 s")
    return path


def spoil(session: Simulated) -> Simulated:
    """Give a session three flaws that real files have.

    Two stretches of the wheel's time stamps are swapped, one trial lacks its stop, and one response
    lies at -1.5e9 s.
    """
    stamps = np.arange(len(session.wheel_velocity)) / 100
    stamps[1000:1400] = np.roll(stamps[1000:1400], 200)
    trials = {name: column.copy() for name, column in session.trials.items()}
    trials["stop"][7] = np.nan
    trials["response_time"][3] = -1.5e9
    return replace(session, trials=trials, wheel_time=stamps)


def _fill(console: Console, folder: Path, nwb: Path, sessions: dict[str, Simulated]) -> Store:
    """Make the store: the file by its reader, the other two from arrays."""
    store = neurostore.create(folder / "store")
    _step(console, 3, "Ingest the file: read, check, commit", "neurostore.ingest")
    read = ingest(store, [nwb], DATASET, message="ingest the recording of mouse-1")
    for outcome in read.outcomes:
        console.print(f"   {outcome.message}", markup=False)
        for finding in outcome.findings:
            console.print(f"   {finding.severity}: {finding.message}", style="yellow", markup=False)
        for note in outcome.notes:
            console.print(f"   left out: {note}", style="dim", markup=False)
    _step(console, 4, "Put the other two from arrays, in one commit", "store.transaction")
    with store.transaction("add mouse-2 and mouse-3 from arrays") as transaction:
        for name in ("mouse-2", "mouse-3"):
            metadata = {"subject": name, "species": "Mus musculus", "lab": "simulated"}
            transaction.put(sessions[name].builder(DATASET, name, **metadata))
    store.tag("v1")
    console.print(f"   snapshot {store.snapshot}, tagged v1")
    return store


def _query(console: Console, store: Store) -> None:
    _step(console, 5, "Ask the catalogue", "store.sessions, store.units")
    where = "list_contains(regions, 'CA1') AND n_trials > 50"
    columns = ["id", "n_units", "n_spikes", "n_trials", "findings"]
    _grid(console, where, store.sessions(where)[columns])
    where = "region = 'VISp' AND quality = 'good' AND rate_hz > 8"
    columns = ["session", "unit", "region", "n_spikes", "rate_hz"]
    _grid(console, where, store.units(where)[columns].head(5))


def _grid(console: Console, where: str, table: pd.DataFrame) -> None:
    console.print(f"   where {where}", style="dim", markup=False)
    _rows(console, table)


def _rows(console: Console, table: pd.DataFrame) -> None:
    grid = Grid(box=None, padding=(0, 2, 0, 3))
    for name in table:
        number = table[name].dtype.kind in "if"
        grid.add_column(str(name), justify="right" if number else "left", no_wrap=True)
    for row in table.itertuples(index=False):
        grid.add_row(*(f"{v:,.1f}" if isinstance(v, float) else escape(f"{v}") for v in row))
    console.print(grid)


def _second_look(console: Console, store: Store, clean: Simulated) -> None:
    """Repair a table in a second commit; the tag still gives it as it was."""
    _step(console, 6, "Repair the trials of mouse-1 from the log book", "transaction.update")
    session = store.session(f"{DATASET}/mouse-1")
    columns = dict(clean.trials)
    start, stop = columns.pop("start"), columns.pop("stop")
    trials = tables.intervals("trials", start, stop, Span(session.clock), columns)
    with store.transaction("repair the trials of mouse-1 from the log book") as transaction:
        transaction.update(session.id, trials)
    for name, at in (("v1", store.at("v1")), ("now", store)):
        then = at.session(session.id)
        valid = then.intervals["trials"]["valid"].values
        trials_said = f"{np.count_nonzero(valid)} of {len(valid)} trials valid"
        console.print(f"   {name:<3}  {trials_said}, findings: {len(then.findings)}")
    for commit in store.log():
        tags = "".join(f" [{tag}]" for tag in commit.tags)
        console.print(f"   {commit.snapshot[:8]}  {commit.message}{tags}", markup=False)


def _model(console: Console, folder: Path, store: Store, session: Simulated) -> Run:
    """Forecast the next half second of a simulated session, whose ceiling is known."""
    _step(console, 7, "Train a GLM to forecast the next half second", "neurostore.train")
    recipe = recipes.load("glm", {"data.sessions": f"{DATASET}/mouse-3", **FIT})
    run = train(recipe, store, folder / "runs" / "mouse-3", progress=False)
    _fitted(console, run)
    _step(console, 8, "Score it on held-out blocks, beside its baselines", "neurostore.evaluate")
    history, bin = float(recipe.window.history), float(recipe.bin())
    horizon = float(recipe.window.horizon)

    def know(batch: Batch) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        return session.truth.achievable_hz(batch.start.numpy() + history, horizon) * bin

    ceiling = Forecaster("achievable", "knows the true latent state at present", "ceiling", know)
    scores = evaluate(run, store=store, beside=[ceiling])
    _scored(console, run, scores)
    return run


def _real(console: Console, folder: Path, store: Store, path: Path) -> Run:
    """Do the same on a recording of one's own: by trial where it has gaps, else in blocks."""
    _step(console, 9, f"The same on {path.name}", "ingest, train, evaluate")
    read = ingest(store, [path], "recording").outcomes[0]
    if read.status == "refused":
        raise NeurostoreError(read.message)
    session = store.session(read.session)
    pieces = len(session.observed())
    console.print(
        f"   {session.id}: {session.units.sizes['unit']} units, observed in {pieces} pieces"
    )
    said = {"data.sessions": session.id}
    recipe = recipes.load("glm", {**said, **(BY_TRIAL if pieces > 1 else {})})
    run = train(recipe, store, folder / "runs" / "recording", progress=False)
    _fitted(console, run)
    _scored(console, run, evaluate(run, store=store))
    return run


def _fitted(console: Console, run: Run) -> None:
    last = run.metrics().iloc[-1]
    console.print(
        f"   {run.id}: {len(run.metrics())} epochs, loss {last['training_loss']:.4f} in training, "
        f"{last['validation_loss']:.4f} in validation (nats a bin)"
    )


def _scored(console: Console, run: Run, scores: Scores) -> None:
    said = scores.to_json()
    console.print(
        f"   {said['windows']:,} windows in {said['blocks']} blocks; null: {said['null']}",
        style="dim",
    )
    _rows(console, scores.shown()[["model", "bits per spike", "model minus it"]])
    report.run_page(run, scores, run.folder / report.PAGE)


def _show(
    console: Console, folder: Path, store: Store, shown: Simulated, runs: Sequence[Run]
) -> Path:
    """Write the page, with the PSTH of the unit that answers the stimulus most."""
    _step(console, 8 + len(runs), "Write one page of it all", "report.catalogue_page")
    answers = shown.truth.stimulus_gain * np.sqrt(shown.truth.mean_hz)
    page = report.catalogue_page(
        store,
        folder / "catalogue.html",
        title="neurostore demo",
        session=f"{DATASET}/mouse-3",
        unit=shown.ids[int(np.argmax(answers))],
        event="trials.stim_on_time",
        runs=[run.folder for run in runs],
    )
    console.print(f"   The store: {folder / 'store'}", markup=False)
    for run in runs:
        console.print(f"   A model:   {(run.folder / report.PAGE).absolute()}", markup=False)
    console.print(f"   The page:  {page.absolute()}", style="bold", markup=False)
    return page


def _step(console: Console, number: int, title: str, call: str) -> None:
    """Announce a step, and by which call of the package it is done."""
    console.print(f"[bold]{number}  {escape(title)}[/]  [cyan]{escape(call)}[/]")
