"""`neurostore validate`: every kind of target, stable ids, rules from a file, JSON and JUnit."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree as XML

import numpy as np
import pytest
from _damaged import flipped

import neurostore
from neurostore import _declared, cli
from neurostore.cli._checks import Checked, as_json, as_junit, check_target, find_rules, known
from neurostore.errors import Finding, UsageError
from neurostore.store import Fault

SCHEMAS = _declared.folder("schemas")


def codes(checked: Checked) -> list[str]:
    return [one.finding.check for one in checked.faults]


def contract_file(folder: Path, change: tuple[str, str] = ("", ""), table: str = "units") -> Path:
    path = folder / table / "v1.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text((SCHEMAS / "units" / "v1.toml").read_text("utf-8").replace(*change, 1), "utf-8")
    return path


@pytest.fixture
def lab(tmp_path):
    store = neurostore.create(tmp_path / "lab")
    builder = neurostore.SessionBuilder(dataset="lab", session="a")
    builder.add_behaviour(
        "wheel", np.random.default_rng(0).normal(size=900), start=0, rate=9, units="rad"
    )
    with store.transaction("one") as tx:
        tx.put(builder)
    return Path(store.url)


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*/v*.toml")), ids=lambda one: one.parent.name)
def test_every_bundled_contract_is_a_contract(path):
    checked = check_target(str(path))
    assert (checked.kind, codes(checked)) == ("contract", [])


def test_the_file_of_digests_is_held_against_the_contracts_beside_it(tmp_path):
    assert check_target(str(SCHEMAS / "frozen.toml")).faults == ()
    frozen = tmp_path / "frozen.toml"
    contract_file(tmp_path, ('title = "Id,', 'title = "The id,'))
    text = (SCHEMAS / "frozen.toml").read_text("utf-8")
    kept = [
        line for line in text.splitlines() if "units" in line or "spikes" in line or "[" in line
    ]
    frozen.write_text("\n".join(kept), "utf-8")
    assert sorted(codes(check_target(str(frozen)))) == ["contract/deleted", "contract/frozen"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (('rules = ["unique", "named"]', 'rules = ["unique", "nmaed"]'), "contract/rule"),
        (('dtype = ["int64"]', 'dtype = ["int63"]'), "contract/rule"),
        (('dims = ["unit"]', 'dims = ["unit"]\nlink = "nothing"'), "contract/rule"),
        (('dims = ["unit"]', 'dimensions = ["unit"]'), "contract/toml"),
        (("version = 1", "version = 2"), "contract/place"),
        (('table = "units"', 'table = "unit"'), "contract/place"),
        (("table =", "table"), "contract/toml"),
        (("[columns.unit]", "[columns]\nunit = 7\n[other]"), "contract/toml"),
    ],
)
def test_a_contract_that_is_wrong_says_where(tmp_path, change, code):
    checked = check_target(str(contract_file(tmp_path, change)))
    assert code in codes(checked)
    assert all(one.finding.check in known() for one in checked.faults)


def test_a_changed_frozen_contract_is_refused_with_the_way_out(tmp_path):
    checked = check_target(str(contract_file(tmp_path, ("optional = true", "optional = false"))))
    (fault,) = [one for one in checked.faults if one.finding.check == "contract/frozen"]
    assert fault.hint == "Write v2.toml beside it."


def test_a_card_says_what_a_card_says(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('title = "Mine"\nlicence = "CC0"\ntables = ["spikes/v9"]\ncolour = 1\n')
    assert sorted(codes(check_target(str(path)))) == ["card/contract", "card/missing", "card/toml"]
    text = 'title = "Mine"\nlicence = "CC0"\ncitation = "Me"\ntables = ["spikes/v1"]\n'
    path.write_text(f'{text}description = "All"\nurl = "https://x.org"\nauthors = ["A. Person"]\n')
    assert check_target(str(path)).faults == ()
    path.write_text(f"{text}authors = [7]\n")  # what publish would refuse
    (fault,) = check_target(str(path)).faults
    assert fault.finding.check == "card/toml"
    assert "found 7" in fault.finding.message


def test_a_recipe_of_another_package_is_not_imported(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('architecture = "os:system"\n[streams.spikes]\nkind = "Spikes"\n')
    checked = check_target(str(path))
    assert (checked.kind, codes(checked)) == ("recipe", ["recipe/architecture"])


def test_recipes_are_loaded_as_training_loads_them(tmp_path):
    pytest.importorskip("torch")
    glm = _declared.folder("models") / "glm.toml"
    assert check_target(str(glm)).faults == ()
    broken = tmp_path / "glm.toml"
    broken.write_text(glm.read_text("utf-8").replace('kind = "Spikes"', 'kind = "Spike"'), "utf-8")
    (fault,) = check_target(str(broken)).faults
    assert fault.finding.check == "recipe/invalid"
    assert "Spikes" in fault.finding.message


def test_a_file_that_no_reader_takes_is_refused_and_nothing_is_written(tmp_path):
    path = tmp_path / "a.nwb"
    path.write_bytes(b"no HDF5")
    checked = check_target(str(path))
    assert (checked.kind, codes(checked)) == ("file", ["file/refused"])
    assert [one.name for one in tmp_path.iterdir()] == ["a.nwb"]


def test_a_store_with_damage_fails_in_words_json_and_junit(lab, tmp_path, capsys):
    assert cli.main(["validate", str(lab)]) == 0
    assert "lab/a: holds its contracts" in capsys.readouterr().out
    (chunk,) = (lab / "chunks").iterdir()
    chunk.write_bytes(flipped(chunk.read_bytes(), 99))
    junit = tmp_path / "out" / "junit.xml"
    assert cli.main(["validate", str(lab), "--json", "--junit", str(junit)]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["format"], said["passed"], said["fail_on"]) == (1, False, "violation")
    (finding,) = said["targets"][0]["findings"]
    assert finding.keys() >= {"code", "severity", "path", "row", "found", "expected", "hint"}
    assert (finding["code"], finding["path"]) == ("store/damage", "lab/a")
    suite = XML.parse(junit).getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert suite[0].get("classname") == "store/damage"
    assert "neurostore verify" in suite[0][0].text


# ---- rules


def faults() -> tuple[Fault, ...]:
    def one(check: str, severity: str) -> Fault:
        return Fault(
            "lab/a", Finding(check, severity, "t", "c", f"{check} is wrong", 3, "1", "2", 4)
        )

    return (
        one("nwb/lab_missing", "suggestion"),
        one("nwb/index_broken", "violation"),
        one("spikes/v1/time/ascending", "critical"),
    )


def rules_of(tmp_path: Path, text: str, name: str = "neurostore.toml") -> Path:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    ("fail_on", "failed"), [("critical", 1), ("violation", 2), ("suggestion", 3), (None, 2)]
)
def test_what_fails_is_as_grave_as_said(fail_on, failed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checked = Checked("t", "file", (), faults())
    assert len(checked.failed(find_rules(None, fail_on))) == failed


def test_what_was_found_at_ingest_counts_until_it_is_ignored_or_relaxed(lab, tmp_path, capsys):
    builder = neurostore.SessionBuilder(dataset="lab", session="b")
    for name in ("pupil", "whisk"):
        builder.add_behaviour(name, np.arange(4.0), time=np.array([0, 2, 1, 3.0]), units="mm")
    with neurostore.open(lab).transaction("two") as tx:
        assert {one.check for one in tx.put(builder)} == {"behaviour/v1/time/sorted"}
    junit = tmp_path / "junit.xml"
    assert cli.main(["validate", str(lab), "--junit", str(junit)]) == 1
    out = capsys.readouterr().out
    assert out.count("(found at its ingest)") == 2
    names = [case.get("name") for case in XML.parse(junit).iter("testcase")]
    assert len(names) == len({*names}) == 3
    rules = tmp_path / "rules.toml"
    entry = '{check = "behaviour/v1/time/sorted", severity = "suggestion", reason = "old rigs"}'
    rules.write_text(f"[validate]\nrelax = [{entry}]\n")
    assert cli.main(["validate", str(lab), "--config", str(rules), "--json"]) == 0
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert [one["kept"] for one in target["findings"]] == [True, True]
    assert {one["relaxed"] for one in target["findings"]} == {"old rigs"}
    assert cli.main(["validate", str(lab), "--config", str(rules)]) == 0
    assert "(here a suggestion: old rigs)" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["neurostore.toml", "pyproject.toml"])
def test_what_is_ignored_is_counted_and_listed_with_its_reason(tmp_path, monkeypatch, name):
    section = "[tool.neurostore.validate]" if name == "pyproject.toml" else "[validate]"
    rules_of(
        tmp_path,
        f'{section}\nignore = [{{ check = "nwb/*", reason = "exported in 2015" }}]\n'
        'relax = [{ check = "spikes/*/ascending", severity = "suggestion", reason = "known" }]',
        name,
    )
    monkeypatch.chdir(tmp_path)
    rules, checked = find_rules(None), Checked("t", "file", (), faults())
    assert checked.failed(rules) == []
    (said,) = as_json([checked], rules)["targets"]
    assert said["counts"] == {"critical": 0, "violation": 0, "suggestion": 1, "ignored": 2}
    assert [one["ignored"] for one in said["findings"]] == [*2 * ["exported in 2015"], None]
    suite = XML.fromstring(as_junit([checked], rules))[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "0", "2")
    assert "exported in 2015" in suite[0][0].get("message")


def test_only_what_is_chosen_is_reported(tmp_path):
    rules = find_rules(rules_of(tmp_path, '[validate]\nonly = ["spikes/*"]\nfail_on = "critical"'))
    said = as_json([Checked("t", "file", (), faults())], rules)
    assert [one["code"] for one in said["targets"][0]["findings"]] == ["spikes/v1/time/ascending"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('ignore = [{ check = "nwb/index_broke", reason = "x" }]', "Did you mean"),
        (
            'ignore = [{ check = "spikes/v1/time/ascend", reason = "x" }]',
            "spikes/v1/time/ascending",
        ),
        ('ignore = [{ check = "nwb/index_broken" }]', "needs a reason"),
        ('ignore = ["nwb/index_broken"]', "an entry is"),
        (
            'relax = [{ check = "nwb/index_broken", severity = "mild", reason = "x" }]',
            "a severity is",
        ),
        ('fail_on = "never"', "a severity is"),
        ("ignored = []", "unknown key 'ignored'"),
        ("ignore = [", "cannot be read as TOML"),
    ],
)
def test_a_wrong_file_of_rules_is_an_error_that_says_what_is_meant(tmp_path, text, message):
    if "nwb/index_broke" in text and "index_broken" not in text:
        text = text.replace("nwb/index_broke", "clock/time_scal")
    with pytest.raises(UsageError, match=re.escape(message)):
        find_rules(rules_of(tmp_path, f"[validate]\n{text}"))


def test_hostile_names_make_xml_that_parses(tmp_path):
    fault = Fault("a<b>\x00]]>", Finding("nwb/x\x1b", "critical", "t", "&", "<&\ud800", 0, "\x07"))
    root = XML.fromstring(as_junit([Checked("t\x01", "file", (), (fault,))], find_rules(None)))
    assert "a<b>\ufffd]]>" in root[0][0].get("name")


# ---- ids


def test_every_id_that_the_package_writes_is_known():
    package = Path(neurostore.__file__).parent
    written = set()
    for path in package.rglob("*.py"):
        text = path.read_text("utf-8")
        written |= set(
            re.findall(r'"((?:store|clock|file|contract|card|recipe|nwb)/[a-z0-9_/-]+)"', text)
        )
        if path.parent.name == "ingest":
            found = re.findall(r'(?:self\.find\(|Unkept\([^)]*?, )"([a-z_]+)"', text)
            written |= {f"nwb/{one}" for one in found}
    assert len(written) > 40
    unknown = {one for one in written if not any(fnmatchcase(one, id) for id in known())}
    assert unknown <= {"store/file/"}
    exact = {one for one in written if one in known()}
    assert {"store/chunk/crc32c", "nwb/index_broken", "clock/unix_time"} <= exact


def test_the_list_names_every_check_once_with_its_severity(capsys):
    assert cli.main(["validate", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(known()) > 200
    assert any(re.match(r"spikes/v1/time/ascending +critical +", line) for line in lines)
    assert cli.main(["validate", "--list", "--json"]) == 0
    assert {one["id"] for one in json.loads(capsys.readouterr().out)} == set(known())


def test_nothing_to_validate_is_wrong_usage(tmp_path):
    assert cli.main(["validate"]) == 2
    assert cli.main(["validate", str(tmp_path / "none.toml")]) == 2
