"""The page of a run stands on its own, and says the numbers of the JSON beside it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import _small
import numpy as np
import pytest

import neurostore
from neurostore import figures, recipes
from neurostore.errors import UsageError
from neurostore.evaluate import Scores, evaluate
from neurostore.report import run_page
from neurostore.runs import Run
from neurostore.train import train

pytest.importorskip("matplotlib")

HOSTILE = "<script>alert(1)</script><img src=x onerror='alert(2)'>\"&amp;$\\frac$"
TAGS = frozenset(
    {"html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "br", "b"}
    | {"span", "section", "div", "table", "thead", "tbody", "tr", "th", "td", "code"}
    | {"ul", "li", "figure", "img", "figcaption", "details", "summary"}
)
ATTRIBUTES = frozenset(
    {"lang", "charset", "http-equiv", "content", "name", "class", "scope", "src", "alt"}
)


class Page(HTMLParser):
    """What a browser would see: tags, attributes, text, and the rows of tables."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1] and self.tags[-1] in ("td", "th", "code"):
            self.rows[-1][-1] += data

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


@pytest.fixture(scope="module", autouse=True)
def quick():
    with _small.quick():
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def run(place):
    store = _small.store(place / "lab", _small.spikes())
    return train(_small.recipe(place / "recipe"), store, place / "run", progress=False)


@pytest.fixture(scope="module")
def scores(run):
    return evaluate(run)


@pytest.fixture(scope="module")
def page(run, scores, place):
    return Page(run_page(run, scores, place / "new" / "report.html"))


@pytest.fixture(scope="module")
def said(page, place):
    return json.loads((place / "new" / "report.json").read_text("utf-8"))


def shown(value: float, interval: list[float] | None = None, sign: bool = False) -> str:
    form = "+z.3f" if sign else "z.3f"
    ends = "" if interval is None else f" [{interval[0]:{form}}, {interval[1]:{form}}]"
    return f"{value:{form}}{ends}".replace("-", "−")


def scored(page: Page, model: str) -> dict[str, str]:
    """The row of a model in the table of scores, by the heads of its columns."""
    heads = next(row for row in page.rows if row and row[0] == "Model")
    row = next(row for row in page.rows if row and row[0] == model)
    return dict(zip(heads, row, strict=True))


def test_the_page_needs_nothing_but_itself(page, run):
    assert set(page.tags) <= TAGS
    assert {name for name, _ in page.attributes} <= ATTRIBUTES
    policy = page.values("content")[0]
    (style,) = re.findall("<style>(.*?)</style>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'"
    )
    pictures = page.values("src")
    assert [uri[:26] for uri in pictures] == ["data:image/svg+xml;base64,"] * 3
    assert all(page.values("alt"))
    assert "://" not in re.sub(r'src="[^"]*"', "", page.source)
    for uri in pictures:
        drawn = base64.b64decode(uri[26:]).decode()
        assert not re.findall(r'(?:href|src)="(?!#)', drawn)
    assert len(page.source) < 1_500_000


def test_the_numbers_are_those_of_the_json_beside_it(page, said, scores, run):
    for one in said["models"]:
        row = scored(page, one["name"])
        assert row["What it is"] == one["about"]
        assert row["Bits per spike"] == shown(one["bits_per_spike"], one["interval"])
        for head, key in (
            ("No top unit", "without_top_unit"),
            ("Median unit", "median_unit"),
            ("Mean unit", "mean_unit"),
            ("Correlation", "correlation"),
        ):
            assert row[head] == shown(one[key])
        gain = one["difference"]
        assert row["Model minus it"] == (
            "" if gain is None else shown(gain["bits_per_spike"], gain["interval"], sign=True)
        )
    for one in said["units"]:
        row = next(row for row in page.rows if row and row[0] == one["unit"])
        assert row[1:3] == [f"{one['spikes']:,}", shown(one["bits_per_spike"], one["interval"])]
    assert said.items() >= json.loads(json.dumps(scores.to_json())).items()
    assert said["recipe"] == json.loads(json.dumps(run.recipe.to_json()))
    assert [line["epoch"] for line in said["metrics"]] == [0, 1]
    assert "−0.000" not in page.text


def test_the_page_tells_what_was_read_and_who_was_left_out(page, said, run):
    values = {row[0]: row[1] for row in page.rows if len(row) == 2}
    assert values["Snapshot"] == run.snapshot
    assert values["Sessions"] == "sim/a"
    assert values["History"] == "inside the target's block"
    assert values["Seed"] == "0"
    assert "2 left out for fewer than 20 spikes" in page.text
    for unit in said["left_out"]:
        assert unit in page.text
    assert said["null"] in page.text
    assert said["rules"] in page.text
    keys = {row[0]: row[1:] for row in page.rows if len(row) == 3}
    assert keys["train.epochs"][0] == "2"
    for key, origin in said["recipe"]["origins"].items():
        if key == "reference":  # scores of another run
            continue
        assert keys[key][1].strip() == origin
    assert "Loss after 2 epochs" in page.text


def test_a_hostile_name_never_becomes_markup(place):
    times = {f"{HOSTILE}{name}": value for name, value in _small.spikes().items()}
    store = neurostore.create(place / "hostile")
    made = neurostore.SessionBuilder(
        dataset=HOSTILE.replace("/", "|"), session=HOSTILE.replace("/", "|"), rate=30_000
    )
    made.add_units(times)
    with store.transaction(HOSTILE) as tx:
        tx.put(made)
    quoted = json.dumps(HOSTILE)
    text = _small.RECIPE.replace('title = "Small"', f"title = {quoted}\ncitation = {quoted}")
    path = _small.file(place / "hostile-recipe", text)
    run = train(recipes.load(path), store, place / "hostile-run", progress=False)
    page = Page(run_page(run, evaluate(run), place / "hostile.html"))
    assert set(page.tags) <= TAGS
    assert {name for name, _ in page.attributes} <= ATTRIBUTES
    assert page.tags.count("img") == 3
    assert page.text.count(HOSTILE) >= 8  # title, citation, units, those left out
    assert HOSTILE.replace("/", "|") in page.text


def one_block(scores: Scores) -> Scores:
    models = []
    for one in scores.models:
        sums = one.statistics
        first = replace(
            sums, sums=sums.sums[:, :1], blocks=sums.blocks[:1], rotations=sums.rotations[:1]
        )
        models.append(replace(one, statistics=first))
    return replace(scores, models=tuple(models))


def test_one_block_still_gives_a_page_that_says_why_it_has_no_intervals(run, scores, tmp_path):
    page = Page(run_page(run, one_block(scores), tmp_path / "page.html"))
    assert "No intervals: 1 block; an interval needs two." in page.text
    assert "95 % interval" not in page.text
    said = json.loads((tmp_path / "page.json").read_text("utf-8"))
    first, second = said["models"][:2]
    row = scored(page, second["name"])
    assert row["Bits per spike"] == shown(second["bits_per_spike"])
    gain = first["bits_per_spike"] - second["bits_per_spike"]
    assert row["Model minus it"] == shown(gain, sign=True)


def test_a_page_without_any_unit_scored_says_so(run, scores, tmp_path):
    none = tuple(
        replace(
            one,
            statistics=replace(
                one.statistics, training_spikes=np.zeros_like(one.statistics.training_spikes)
            ),
        )
        for one in scores.models
    )
    page = Page(run_page(run, replace(scores, models=none), tmp_path / "page.html"))
    assert "No score: no unit scored" in page.text
    assert re.search(r"0 units scored \(0 of [\d,]+ spikes\), 6 left out", page.text)
    json.loads((tmp_path / "page.json").read_text("utf-8"))


def test_windows_are_drawn_beside_the_baseline_that_they_hold(run, scores, tmp_path, monkeypatch):
    asked = []
    inner = figures.examples
    monkeypatch.setattr(
        figures, "examples", lambda windows, name: (asked.append(name), inner(windows, name))[1]
    )
    examples = tuple({**one, "beside": "something else"} for one in scores.examples)
    run_page(run, replace(scores, examples=examples), tmp_path / "page.html")
    assert asked == ["something else"]


def test_a_page_is_an_html_file(run, scores, tmp_path):
    with pytest.raises(UsageError, match=r"is an \.html file, found 'page\.htm'"):
        run_page(run, scores, tmp_path / "page.htm")
    assert not list(tmp_path.iterdir())


def test_one_epoch_is_one_epoch(run):
    (first, _) = run.metrics().to_dict("records")
    assert "Loss after 1 epoch:" in figures.training([first]).caption
    assert Run.open(run.folder).metrics().shape[0] == 2


def test_the_training_curve_names_the_epoch_that_did_best_in_validation():
    lines = [
        {"epoch": e, "training_loss": 1.0 - e / 10, "validation_loss": loss}
        for e, loss in enumerate([0.5, 0.4, 0.6])
    ]
    assert "lowest after 2 epochs" in figures.training(lines).caption
    assert "lowest" not in figures.training(lines[:2]).caption


def test_the_intervals_of_scores_are_drawn_once(scores, monkeypatch):
    module = sys.modules["neurostore.evaluate._scores"]
    fresh, drawn = replace(scores), []
    inner = module.metrics.interval
    monkeypatch.setattr(
        module.metrics, "interval", lambda *a, **more: (drawn.append(1), inner(*a, **more))[1]
    )
    first = fresh.to_json()
    before = len(drawn)
    first["models"].clear()  # what is given away is a copy
    assert before > 0
    assert fresh.to_json()["models"]
    fresh.table(), fresh.shown()
    assert len(drawn) == before
