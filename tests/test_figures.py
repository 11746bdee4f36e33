import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import neurostore
from neurostore import figures
from neurostore.errors import MissingExtraError, NotFoundError, UsageError
from neurostore.figures import Picture
from neurostore.simulate import Simulated, simulate
from neurostore.store import Session, Store

pytest.importorskip("matplotlib")

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def made() -> Simulated:
    return simulate(3, units=24, seconds=120)


@pytest.fixture(scope="module")
def store(made: Simulated) -> Store:
    store = neurostore.create("memory://figures")
    bare = neurostore.SessionBuilder(dataset="d", session="bare")
    bare.add_units({"a": [1.0, 2.0], "b": []})
    wheel = neurostore.SessionBuilder(dataset="d", session="wheel")
    wheel.add_behaviour("wheel", np.zeros(10), start=0, rate=10, units="rad")
    many = simulate(4, units=90, seconds=60, regions=tuple("ABCDEFGH"), n_spikes=90 * 60 * 20)
    with store.transaction("sessions to draw") as transaction:
        transaction.put(made.builder("d", "s"))
        transaction.put(many.builder("d", "many"))
        transaction.put(bare)
        transaction.put(wheel)
    return store


@pytest.fixture
def session(store: Store) -> Session:
    return store.session("d/s")


def images(picture: Picture) -> list[ElementTree.Element]:
    return ElementTree.fromstring(picture.data).findall(f".//{SVG}image")


def test_a_raster_says_how_many_spikes_of_how_many_units_it_shows(
    session: Session, made: Simulated
) -> None:
    picture = figures.raster(session, 20, 40)
    inside = np.count_nonzero((made.times >= 20) & (made.times < 40))
    assert f"{inside:,} spikes of 24 units of d/s, 20 to 40 s" in picture.caption
    assert "CA1 (6), LP (6), MOs (6), VISp (6)" in picture.alt
    assert "shaded: rows of trials" in picture.caption


def test_many_spikes_are_drawn_as_pixels_and_few_as_paths(store: Store) -> None:
    many = figures.raster(store.session("d/many"), 0, 60)
    assert images(many)
    assert len(many.data) < 500_000
    assert not images(figures.raster(store.session("d/bare"), 0, 3))


def test_regions_beyond_the_palette_share_grey_and_are_counted(store: Store) -> None:
    alt = figures.raster(store.session("d/many"), 0, 10).alt
    assert "other (22)" in alt
    assert alt.count("(") == len(figures.PALETTE) + 1


def test_names_are_drawn_as_they_are_and_not_as_formulas() -> None:
    store = neurostore.create("memory://formulas")
    builder = neurostore.SessionBuilder(dataset="d", session="s")
    builder.add_units({r"$\\frac{": [1.0, 2.0], "_b": [1.5]}, region=[r"$\\oops$", "_hidden"])
    with store.transaction("odd names") as transaction:
        transaction.put(builder)
    session = store.session("d/s")
    assert r"$\\oops$ (1), _hidden (1)" in figures.raster(session, 0, 3).alt
    figures.psth(session, r"$\\frac{", [1.0], event=r"$\\sqrt{")


def test_a_session_without_regions_or_trials_is_drawn(store: Store) -> None:
    picture = figures.raster(store.session("d/bare"), 0.0, 1.5)
    assert picture.alt == "Raster: 1 spikes of 2 units of d/bare, 0 to 1.5 s."


@pytest.mark.parametrize(("id", "stop"), [("d/s", 20.0), ("d/s", 10.0), ("d/wheel", 30.0)])
def test_a_raster_of_nothing_is_refused(store: Store, id: str, stop: float) -> None:
    with pytest.raises(UsageError, match=f"found '{id}' with tables"):
        figures.raster(store.session(id), 20.0, stop)


def test_a_psth_counts_the_events_that_are_there(session: Session, made: Simulated) -> None:
    times = made.trials["response_time"]
    answered = np.count_nonzero(np.isfinite(times))
    assert answered < len(times) or answered == len(made.trials["start"])
    picture = figures.psth(session, "2", np.append(times, np.nan), event="response_time")
    assert f"Unit 2 of d/s around response_time: {answered} trials" in picture.caption
    assert "bins of 20 ms, band: standard error of the mean" in picture.caption
    table = session.psth("2", times)
    assert f"peaks at {float(table['rate_hz'].max()):.1f} spikes per second" in picture.alt


def test_a_psth_of_one_event_has_no_band_and_is_drawn(session: Session) -> None:
    assert "1 trials" in figures.psth(session, "2", [30.0]).caption


def test_a_psth_without_events_or_of_an_unknown_unit_is_refused(session: Session) -> None:
    with pytest.raises(UsageError, match="finite event"):
        figures.psth(session, "2", [np.nan])
    with pytest.raises(NotFoundError, match="No unit '99'"):
        figures.psth(session, "99", [30.0])


def test_a_picture_is_inlined_without_markup_from_its_words(tmp_path: Path) -> None:
    picture = Picture(b"<svg/>", 'a "b" <i>', "<script>alert(1)</script>")
    html = picture._repr_html_()
    assert html.count("<") == html.count(">") == 5
    assert "<script>" not in html
    assert '"b"' not in html
    assert 'src="data:image/svg+xml;base64,PHN2Zy8+"' in html
    assert picture.save(tmp_path / "a.svg").read_bytes() == b"<svg/>"
    assert replace(picture, alt="") != picture


def test_drawing_leaves_no_global_state_behind() -> None:
    code = (
        "import sys, neurostore, numpy as np\n"
        "from neurostore import figures\n"
        "from neurostore.simulate import simulate\n"
        "store = neurostore.create('memory://alone')\n"
        "with store.transaction('one') as tx: tx.put(simulate(1, units=4, seconds=20)"
        ".builder('d', 's'))\n"
        "assert 'matplotlib' not in sys.modules\n"
        "figures.raster(store.session('d/s'), 0, 20)\n"
        "figures.psth(store.session('d/s'), '1', [5.0, 9.0])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_without_matplotlib_the_extra_is_named(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"neurostore\[figures\]"):
        figures.raster(session, 0, 10)
    with pytest.raises(MissingExtraError, match=r"neurostore\[figures\]"):
        figures.psth(session, "1", [5.0])
