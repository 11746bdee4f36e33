import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import neurostore
from neurostore import report
from neurostore.errors import NotFoundError, UsageError
from neurostore.schemas import Finding
from neurostore.simulate import simulate
from neurostore.store import Store

pytest.importorskip("matplotlib")

HOSTILE = "<script>alert(1)</script><img src=x onerror='alert(2)'>\"&amp;"
TAGS = frozenset(
    {"html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "br"}
    | {"span", "section", "div", "table", "thead", "tbody", "tr", "th", "td", "code", "a"}
    | {"ul", "li", "figure", "img", "figcaption"}
)
ATTRIBUTES = frozenset(
    {"lang", "charset", "http-equiv", "content", "name", "class", "scope", "href", "id", "src"}
    | {"alt", "title"}
)


class Page(HTMLParser):
    """What a browser would see: tags, attributes and text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def store() -> Store:
    store = neurostore.create("memory://report")
    flawed = simulate(2, units=8, seconds=60).builder("d", "flawed", subject="m2")
    flawed.notes.append("processing/ecephys: raw voltage is left out")
    flawed.findings.append(
        Finding("nwb/odd", "suggestion", "units", "", "units: the labels are odd", count=2)
    )
    with store.transaction("two sessions") as transaction:
        transaction.put(simulate(1, units=12, seconds=80).builder("d", "clean", subject="m1"))
        transaction.put(flawed)
    store.tag("v1")
    return store


def test_the_page_tells_the_catalogue_findings_figures_and_history(
    store: Store, tmp_path: Path
) -> None:
    path = report.catalogue_page(store, tmp_path / "new" / "page.html", title="My lab")
    page = Page(path)
    for said in ("My lab", "2 sessions, 20 units", "memory://report", "d/clean", "d/flawed", "m2"):
        assert said in page.text
    assert "the labels are odd nwb/odd" in page.text
    assert "raw voltage is left out" in page.text
    assert "Nothing to report: d/clean." in page.text
    assert "two sessions" in page.text
    assert "v1" in page.text
    assert store.snapshot[:8] in page.text
    assert [uri[:26] for uri in page.values("src")] == ["data:image/svg+xml;base64,"] * 2
    assert all(page.values("alt"))
    (link,) = page.values("href")
    assert link.removeprefix("#") in page.values("id")


def test_the_page_needs_nothing_but_itself(store: Store, tmp_path: Path) -> None:
    page = Page(report.catalogue_page(store, tmp_path / "page.html"))
    assert set(page.tags) <= TAGS
    assert {name for name, _ in page.attributes} <= ATTRIBUTES
    assert "//" not in page.source.replace("memory://report", "").split("data:", 1)[0]
    policy = page.values("content")[0]
    (style,) = re.findall("<style>(.*?)</style>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"style-src 'sha256-{digest}'" in policy
    assert len(page.source) < 1_500_000


def test_a_hostile_name_never_becomes_markup(tmp_path: Path) -> None:
    store = neurostore.create("memory://hostile-name")
    builder = neurostore.SessionBuilder(
        dataset=HOSTILE.replace("/", "|"), session=HOSTILE, subject=HOSTILE, species=HOSTILE
    )
    builder.add_units({HOSTILE: [1.0, 2.0, 3.0]}, region=[HOSTILE])
    event = f"{HOSTILE}_time"
    builder.add_intervals("trials", [0.5, 2.5], [1.5, 3.5], **{event: np.array([0.9, 2.9])})
    builder.notes.append(HOSTILE)
    builder.findings.append(Finding(HOSTILE, "violation", HOSTILE, HOSTILE, HOSTILE))
    with store.transaction(HOSTILE) as transaction:
        transaction.put(builder)
    page = Page(report.catalogue_page(store, tmp_path / "page.html", title=HOSTILE))
    assert set(page.tags) <= TAGS
    assert {name for name, _ in page.attributes} <= ATTRIBUTES
    assert page.tags.count("img") == 2
    assert page.text.count(HOSTILE) > 10
    assert any(HOSTILE in alt for alt in page.values("alt"))


def test_an_empty_store_and_one_without_units_have_a_page(tmp_path: Path) -> None:
    store = neurostore.create("memory://nothing")
    page = Page(report.catalogue_page(store, tmp_path / "page.html"))
    assert "The store is empty." in page.text
    builder = neurostore.SessionBuilder(dataset="d", session="s")
    builder.add_behaviour("wheel", np.zeros(100), start=0, rate=10, units="rad")
    with store.transaction("a wheel") as transaction:
        transaction.put(builder)
    page = Page(report.catalogue_page(store, tmp_path / "page.html"))
    assert page.tags.count("img") == 0
    page = Page(report.catalogue_page(store, tmp_path / "page.html", session="d/s"))
    assert page.tags.count("img") == 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"session": "d/claen"}, "Did you mean 'd/clean'"),
        ({"unit": "77"}, "No unit '77'"),
        ({"event": "trials.stim_on"}, "Did you mean 'stim_on_time'"),
        ({"event": "trails.start"}, "No intervals 'trails'"),
    ],
)
def test_a_mistyped_name_is_answered_and_leaves_no_page(
    store: Store, tmp_path: Path, asked: dict[str, str], said: str
) -> None:
    with pytest.raises(NotFoundError, match=said):
        report.catalogue_page(store, tmp_path / "page.html", **asked)
    assert list(tmp_path.iterdir()) == []


def test_an_event_that_holds_no_times_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"trials\.choice holds no times"):
        report.catalogue_page(store, tmp_path / "page.html", event="trials.choice")


def test_events_out_of_range_are_left_out_of_the_psth(store: Store, tmp_path: Path) -> None:
    made = simulate(5, units=4, seconds=60)
    made.trials["stim_on_time"][0] = -1.5e9
    with store.transaction("an event in 1978") as transaction:
        transaction.put(made.builder("d", "early"))
    path = report.catalogue_page(
        store, tmp_path / "page.html", session="d/early", event="trials.stim_on_time"
    )
    assert f"around stim_on_time: {len(made.trials['start']) - 1} trials" in Page(path).text


def test_a_page_that_fails_half_way_leaves_the_old_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = report.catalogue_page(store, tmp_path / "page.html")
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report.catalogue_page(store, path, title="new")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    assert path.read_bytes() == before


def test_runs_are_listed_with_their_scores_and_their_pages_by_relative_links(
    store: Store, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    import _small

    with _small.quick():
        lab = _small.store(tmp_path / "lab", _small.spikes())
        run = neurostore.train(
            _small.recipe(tmp_path), lab, tmp_path / "runs" / "a b", progress=False
        )
        bare = Page(report.catalogue_page(lab, tmp_path / "bare.html", runs=[run.folder]))
        assert run.id in bare.text
        assert "runs/" not in "".join(bare.values("href"))
        scores = neurostore.evaluate(run, store=lab)
        report.run_page(run, scores, run.folder / report.PAGE)
        page = Page(report.catalogue_page(lab, tmp_path / "page.html", runs=[run.folder]))
    said = run.scores()
    assert said is not None
    assert f"{said['bits_per_spike']:z.3f}".replace("-", "−") in page.text
    assert "runs/a%20b/report.html" in page.values("href")
