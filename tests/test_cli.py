"""The commands answer people in words, programs in JSON, and shells in exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import neurostore
from neurostore import cli
from neurostore.simulate import simulate, write_nwb


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "maze"
    folder.mkdir()
    for k in (1, 2):
        made = simulate(k, units=8, seconds=120)
        write_nwb(made, folder / f"s{k}.nwb", session_id=f"a-rather-long-name-of-session-{k}")
    store = neurostore.create(folder / "lab")
    neurostore.ingest(store, [folder / "s1.nwb", folder / "s2.nwb"])
    return folder / "lab"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


SESSION = "maze/a-rather-long-name-of-session-1"


@pytest.mark.parametrize(
    "words",
    [
        ["sessions", "LAB"],
        ["units", "LAB", "--where", "n_spikes > 0"],
        ["show", "LAB", SESSION],
        ["validate", "LAB"],
        ["log", "LAB"],
    ],
    ids=lambda words: words[0],
)
def test_every_reading_command_has_json_that_parses(capsys, lab, words):
    code, out, err = run(capsys, *(lab if word == "LAB" else word for word in words), "--json")
    assert code == 0
    assert json.loads(out)
    assert err == ""
    code, out, err = run(capsys, *(lab if word == "LAB" else word for word in words))
    assert code == 0
    assert out
    assert err == ""


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_tables_fit_the_terminal_and_say_what_they_leave_out(capsys, lab, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = run(capsys, "sessions", lab)
    table = out.splitlines()
    assert max(len(line) for line in table[:-1]) <= columns
    assert "a-rather-long-name-of-session-1" in out.replace("\n", "") or columns < 100
    for name in ("findings", "regions", "species"):
        assert name in out
    _, out, _ = run(capsys, "show", lab, SESSION)
    assert max(len(line) for line in out.splitlines()) <= max(columns, 120)


def test_show_draws_a_raster_and_sums_up_the_trials(capsys, lab):
    code, out, _ = run(capsys, "show", lab, SESSION)
    assert code == 0
    assert "raster of 8 of 8 units" in out
    assert "trials:" in out
    assert "█" in out


@pytest.mark.parametrize("columns", [44, 80, 97, 124])
def test_the_raster_counts_every_spike_the_last_one_too(capsys, tmp_path, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    store = neurostore.create(tmp_path / "store")
    with store.transaction("spikes") as tx:
        made = neurostore.SessionBuilder(dataset="d", session="s", rate=30_000)
        made.add_units({"u": [0.1 + k / 7 for k in range(1232)]})
        tx.put(made)
    _, out, _ = run(capsys, "show", store.url, "d/s")
    (line,) = [line for line in out.splitlines() if line.startswith("  u ")]
    assert line.split()[-1] == "1,232"


def test_show_says_lengths_and_numbers_as_people_do(capsys, tmp_path):
    store = neurostore.create(tmp_path / "store")
    with store.transaction("trials") as tx:
        made = neurostore.SessionBuilder(dataset="d", session="s", rate=1000)
        made.add_intervals("epochs", [0.0], [1090.25])
        made.add_intervals("trials", [0.0, 10.0], [0.05, 12.5])
        tx.put(made)
    _, out, _ = run(capsys, "show", store.url, "d/s")
    assert "epochs: 1 row (1 valid), 1,090.2 s long, 1,090.2 s in all" in out
    assert "trials: 2 rows (2 valid), 0.05 to 2.5 s long, 2.5 s in all" in out
    assert "1 rows" not in out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("stores/lob", "Did you mean 'ROOT/stores/lab'?"),
        ("stores/nosuch", "There is: ROOT/stores/lab."),
        ("stores", "It is a folder that holds neither a store nor a release; a store is in it: "),
        (
            "empty",
            "holds neither a store nor a release; neurostore create makes one.",
        ),
        ("notes.txt", "It is a file, and a store is a folder."),
        ("r.zip", "It is a zip file: a release in it opens as zip::ROOT/r.zip"),
    ],
)
def test_a_path_that_is_no_store_says_what_it_is(capsys, tmp_path, name, said):
    neurostore.create(tmp_path / "stores" / "lab")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("lab")
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as made:
        made.writestr("release.json", "{}")
    code, _, err = run(capsys, "sessions", tmp_path / name)
    assert code == 2
    assert said.replace("ROOT", str(tmp_path)) in err
    assert len(err.splitlines()) == 1


def test_a_zip_named_as_a_host_and_no_url_at_all_are_wrong_usage(capsys):
    code, _, err = run(capsys, "sessions", "zip:///data/r.zip")
    assert (code, err.count("\n")) == (2, 1)
    assert "zip::/data/r.zip" in err
    with pytest.raises(neurostore.UsageError, match="found NoneType"):
        neurostore.open(None)


def test_a_mistyped_command_and_file_of_rules_are_answered_with_the_nearest(capsys, lab, tmp_path):
    assert "Did you mean 'sessions'?" in run(capsys, "session", lab)[2]
    (tmp_path / "rules.toml").write_text("")
    code, _, err = run(capsys, "validate", lab, "--config", tmp_path / "rulse.toml")
    assert code == 2
    assert f"Did you mean '{tmp_path}/rules.toml'?" in err


@pytest.mark.parametrize("name", ["maze/zz", "maze/4", "nothing"])
def test_a_session_that_is_near_to_none_is_answered_with_those_there_are(capsys, lab, name):
    code, _, err = run(capsys, "show", lab, name)
    assert code == 2
    assert f"There is: {SESSION}, " in err


def test_a_mistyped_session_is_answered_with_the_nearest(capsys, lab):
    code, out, err = run(capsys, "show", lab, "maze/a-rather-long-name-of-sesion-1")
    assert code == 2
    assert out == ""
    assert f"Did you mean {SESSION!r}?" in err
    assert len(err.splitlines()) == 1


def test_exit_codes_tell_refused_from_usage_from_failed(capsys, lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "bad.nwb"
    bad.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n")
    assert run(capsys, "create", lab)[0] == 2
    assert run(capsys, "sessions", tmp_path / "nowhere")[0] == 2
    assert run(capsys, "sessions", lab, "--where", "n_units >")[0] == 2
    assert run(capsys, "create", tmp_path / "lab")[0] == 0
    assert run(capsys, "create", "https://host/lab")[0] == 2
    assert not (tmp_path / "https:").exists()
    code, _, err = run(capsys, "ingest", tmp_path / "lab", bad)
    assert code == 1
    assert "git-LFS pointer" in err
    (tmp_path / "lab" / "refs").rename(tmp_path / "lab" / "refs.gone")
    (tmp_path / "lab" / "refs").mkdir()
    assert run(capsys, "sessions", tmp_path / "lab")[0] == 3


def test_ingest_reports_in_json_and_findings_alone_are_no_failure(capsys, lab, tmp_path):
    store = tmp_path / "lab"
    run(capsys, "create", store)
    file = lab.parent / "s1.nwb"
    code, out, err = run(capsys, "ingest", store, file, "--dry-run", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["snapshot"] is None
    code, out, _ = run(capsys, "ingest", store, file, "--json")
    assert code == 0
    assert json.loads(out)["outcomes"][0]["status"] == "written"
    code, out, _ = run(capsys, "ingest", store, file)
    assert code == 0
    assert "already" in out


def test_a_tag_is_made_once_and_read_by_name(capsys, lab):
    assert run(capsys, "tag", lab, "v1")[0] == 0
    code, _, err = run(capsys, "tag", lab, "v1")
    assert code == 2
    assert "never move" in err
    assert run(capsys, "sessions", lab, "--at", "v1", "--json")[0] == 0
    assert run(capsys, "tag", lab, "a/b")[0] == 2
    assert "[v1]" in run(capsys, "log", lab)[1]


def test_tags_are_listed_and_deleted_and_a_deleted_name_is_never_free(capsys, tmp_path):
    store = neurostore.create(tmp_path / "lab")
    url, first = store.url, store.snapshot
    store.tag("v1")
    store.tag("v2")
    assert store.tags == {"v1": first, "v2": first}
    assert run(capsys, "tag", url)[1].splitlines() == [f"{first}  v1", f"{first}  v2"]
    assert json.loads(run(capsys, "tag", url, "--json")[1]) == store.tags
    code, out, _ = run(capsys, "tag", url, "v1", "--delete", "--dry-run")
    assert (code, set(store.tags)) == (0, {"v1", "v2"})
    assert "v1 would be deleted, with 0 commits that nothing else holds" in out
    assert "No other tag can be called so" in run(capsys, "tag", url, "v1", "--delete")[1]
    assert set(store.tags) == {"v2"}
    code, _, err = run(capsys, "tag", url, "v1")
    assert code == 2
    assert "never free again" in err
    for words in (["v3", "--delete"], ["--delete"], ["v2", "--dry-run"]):
        assert run(capsys, "tag", url, *words)[0] == 2


def test_validate_fails_on_a_store_whose_chunk_was_changed(capsys, lab, tmp_path):
    store = tmp_path / "lab"
    run(capsys, "create", store)
    run(capsys, "ingest", store, lab.parent / "s1.nwb")
    chunk = max((store / "chunks").iterdir(), key=lambda path: path.stat().st_size)
    raw = bytearray(chunk.read_bytes())
    raw[len(raw) // 2] ^= 1
    chunk.write_bytes(raw)
    code, out, _ = run(capsys, "validate", store)
    assert code == 1
    assert "store/damage" in out
    assert len([line for line in out.splitlines() if "critical" in line]) == 1


def test_usage_errors_exit_with_2_and_help_with_0():
    def code(*words: str) -> int:
        done = subprocess.run(
            [sys.executable, "-m", "neurostore", *words], capture_output=True, timeout=120
        )
        return done.returncode

    assert code("frobnicate") == 2
    assert code("sessions") == 2
    assert code("--help") == 0
    assert code("--version") == 0


def test_stdout_holds_nothing_but_the_json_in_a_process_of_its_own(lab):
    done = subprocess.run(
        [sys.executable, "-m", "neurostore", "sessions", str(lab), "--json"],
        capture_output=True,
        timeout=120,
        text=True,
    )
    assert len(json.loads(done.stdout)) == 2
    assert done.stderr == ""


def test_the_command_line_loads_nothing_heavy_before_it_is_needed():
    heavy = ["xarray", "pandas", "zarr", "icechunk", "matplotlib", "pynwb", "pandera", "duckdb"]
    code = (
        "import sys, neurostore.cli as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("command", "usage"),
    [("diff", "URL A [B]"), ("lineage", "URL SESSION [TABLE]"), ("branch", "URL [NAME]")],
)
def test_help_shows_what_may_be_left_out_and_names_storage(capsys, command, usage):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert usage in out
    assert "--storage KEY=VALUE" in out


def test_session_and_sessions_are_one_word_where_several_may_be_said(capsys, lab):
    at = neurostore.open(lab).log()[-1].snapshot
    for word in ("--session", "--sessions"):
        code, out, _ = run(capsys, "diff", lab, at, word, SESSION)
        assert (code, out.count(": added")) == (0, 1)
        assert run(capsys, "validate", lab, word, SESSION)[0] == 0


def test_a_wrong_query_names_the_column_or_the_quotes(capsys, lab):
    assert "Did you mean 'n_units'?" in run(capsys, "sessions", lab, "--where", "n_unit > 3")[2]
    assert "single quotes" in run(capsys, "units", lab, "--where", "region = hippocampus")[2]


def test_ingest_without_a_file_is_wrong_usage(capsys, lab):
    assert run(capsys, "ingest", lab)[0] == 2


def test_a_tag_is_held_to_its_own_words(capsys, lab):
    for name in ("my tag", "..", "a/b", "main", ""):
        assert run(capsys, "tag", lab, name)[0] == 2


def test_storage_options_are_refused_where_no_url_takes_them(capsys, lab):
    code, out, err = run(capsys, "sessions", lab, "--storage", "foo=bar", "--storage", "a.b=c")
    assert (code, out) == (2, "")
    assert "found ['a', 'foo'] and no such URL" in err
    assert run(capsys, "sessions", f"file://{lab}", "--storage=foo=bar")[0] == 2
    for url in ("zip::nowhere.zip", f"{lab} + zip::nowhere.zip"):
        assert "no such URL" not in run(capsys, "sessions", url, "--storage", "foo=bar")[2]


def test_a_reader_that_leaves_early_is_no_error(lab):
    command = [sys.executable, "-m", "neurostore", "units", str(lab), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 0
