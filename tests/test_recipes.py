"""A recipe is typed in every value, says where each came from, and refuses the unknown."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import neurostore
from neurostore import _declared, recipes
from neurostore.errors import NotFoundError, UsageError
from neurostore.recipes import Data, Parts, Recipe, Training, load
from neurostore.recipes._recipe import digest
from neurostore.sample import Mask, Spikes, Window
from neurostore.simulate import simulate

TEXT = """
architecture = "{architecture}"
title = "A line"
citation = "Nobody 2026"
seed = 3
[arguments]
{arguments}
[window]
history = 1
horizon = 0.5
stride = 0.1
[streams.spikes]
kind = "Spikes"
bin = 0.02
{streams}
[split]
method = "interleaved_blocks"
block = 60
ratios = {{train = 7, validation = 1, test = 2}}
guard = 1.0
[train]
epochs = 5
learning_rate = 1
[evaluate]
stride = 0.5
[reference]
w-maze = {{bits = 0.75, seeds = [0.7505, 0.7524]}}
{more}
"""


@pytest.fixture
def write(tmp_path: Path):
    def make(text=TEXT, *, architecture="_architectures:Linear", arguments="", streams="", more=""):
        path = tmp_path / "line.toml"
        parts = {"arguments": arguments, "streams": streams, "more": more}
        path.write_text(text.format(architecture=architecture, **parts), encoding="utf-8")
        return path

    return make


def test_every_value_is_typed_and_says_where_it_came_from(write) -> None:
    path = write(arguments="boxcars = [0.02, 1]")
    recipe = load(path, ["--train.epochs", "3", "--arguments.width", "4"])
    assert recipe.window == Window(history=1.0, horizon=0.5, stride=0.1)
    assert recipe.streams == {"spikes": Spikes(bin=0.02)}
    assert recipe.train == Training(epochs=3, learning_rate=1.0)
    assert recipe.data == Data()
    ratios = {"train": 7.0, "validation": 1.0, "test": 2.0}
    made = {"block": 60.0, "ratios": ratios, "guard": 1.0, "rotation": 0}
    assert recipe.split == Parts(method="interleaved_blocks", arguments=made)
    assert recipe.arguments["boxcars"] == (0.02, 1.0)
    assert recipe.origins["arguments.boxcars"] == ((0.02, 1.0), str(path))
    assert recipe.origins["arguments.width"] == (4, "command line")
    assert recipe.origins["arguments.deep"] == (False, "default of Linear.__init__")
    assert recipe.origins["train.epochs"] == (3, "command line")
    assert recipe.origins["train.clip"] == (None, "default of Training")
    assert recipe.origins["split.rotation"] == (0, "default of interleaved_blocks")
    assert recipe.origins["split.ratios.train"] == (7.0, str(path))
    assert recipe.origins["window.around"] == (None, "default of Window")
    assert recipe.origins["streams.spikes.bin"] == (0.02, str(path))
    assert recipe.origins["device"] == ("cpu", "default of Recipe")


def test_a_whole_number_stands_for_a_float_and_is_one_afterwards(write) -> None:
    recipe = load(write())
    assert type(recipe.window.history) is float
    assert type(recipe.train.learning_rate) is float


def test_the_command_line_sets_every_kind_of_value(write) -> None:
    words = "--arguments.boxcars 0.02 0.1 1 --arguments.gain=-2.5 --arguments.kind identity"
    words += " --arguments.pair 3 b --arguments.scales fast=2 slow=3 --arguments.deep true"
    words += (
        " --train.batch-size 64 --train.clip none --data.units n_spikes>20 --split.ratios.train 8"
    )
    recipe = load(write(), words.split())
    assert recipe.arguments == {
        "boxcars": (0.02, 0.1, 1.0),
        "width": 8,
        "gain": -2.5,
        "kind": "identity",
        "pair": (3, "b"),
        "scales": {"fast": 2.0, "slow": 3.0},
        "deep": True,
    }
    assert recipe.train.batch_size == 64
    assert recipe.train.clip is None
    assert recipe.data.units == "n_spikes>20"
    assert recipe.split.arguments["ratios"] == {"train": 8.0, "validation": 1.0, "test": 2.0}


@pytest.mark.parametrize(
    "words",
    ["[0.02,0.1,0.3]", "[0.02, 0.1, 0.3]", "0.02,0.1,0.3", "0.02, 0.1, 0.3", "0.02 0.1 0.3"],
)
def test_a_list_is_said_as_words_with_commas_or_as_json(write, words) -> None:
    recipe = load(write(), ["--arguments.boxcars", *words.split()])
    assert recipe.arguments["boxcars"] == (0.02, 0.1, 0.3)


def test_several_sessions_are_chosen_by_their_ids_and_a_sentence_stays_sql(write) -> None:
    recipe = load(write(), ["--data.sessions", "w/1", "w/2"])
    assert recipe.data.sessions == ("w/1", "w/2")
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    sql = "id IN ('w/1', 'w/2')"
    assert load(write(), ["--data.sessions", sql]).data.sessions == sql
    assert load(write(), ["--data.sessions", "none"]).data.sessions is None


def test_overrides_from_python_are_typed_as_the_file_is(write) -> None:
    recipe = load(write(), {"train.epochs": 2, "arguments.boxcars": [0.5]})
    assert (recipe.train.epochs, recipe.arguments["boxcars"]) == (2, (0.5,))
    assert recipe.origins["train.epochs"] == (2, "overrides")
    with pytest.raises(UsageError, match=r"train.epochs must be a whole number, found '2'"):
        load(write(), {"train.epochs": "2"})


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--train.epoch 3", "No key 'train.epoch' in command line. Did you mean 'train.epochs'"),
        ("--trian.epochs 3", "Did you mean 'train'"),
        ("--arguments.boxcar 3", "Did you mean 'arguments.boxcars'"),
        ("--split.blok 3", "Did you mean 'split.block'"),
        ("--streams.spikes.bins 3", "Did you mean 'streams.spikes.bin'"),
        ("--streams.spikes.kind Spike", "Did you mean 'Spikes'"),
        ("--split.method interleaved --split.block 3", "Did you mean 'interleaved_blocks'"),
        ("--arguments.units 3", "No key 'arguments.units'"),
        ("--arguments.bin 3", "No key 'arguments.bin'"),
        ("--seed.x 3", "No section 'seed'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_and_the_place(write, words, named) -> None:
    with pytest.raises(NotFoundError) as caught:
        load(write(), words.split())
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--train.epochs 1.5", "train.epochs must be a whole number, found 1.5 in command line"),
        ("--train.epochs 1 2", "train.epochs must be a whole number, found 1 2"),
        ("--train.learning_rate nan", "train.learning_rate must be a finite number, found nan"),
        ("--train.learning_rate fast", "train.learning_rate must be a finite number, found fast"),
        ("--train.schedule linear", "one of 'cosine', 'constant', found linear"),
        ("--arguments.deep yes", "arguments.deep must be true or false, found yes"),
        ("--arguments.pair 3", "a list of 2: a whole number, text, found 3"),
        ("--arguments.boxcars 1 x", "a list, each a finite number, found 1 x"),
        ("--arguments.boxcars 1,,2", "found 1,,2 in command line. Say a list as words (1 2)"),
        ("--arguments.boxcars [1,x]", "with commas (1,2) or as JSON ([1, 2])"),
        ("--arguments.boxcars [[1]]", "a list, each a finite number, found [[1]]"),
        ("--arguments.gain x", "a finite number or none, found x"),
        ("--arguments.scales 3", "arguments.scales must be a table, found 3"),
        ("--train.epochs 0", "train.epochs is 1 or more, found 0"),
        ("--train.learning_rate 0", "train.learning_rate is above 0, found 0"),
        ("--train.weight_decay -1", "train.weight_decay is 0 or more, found -1"),
        ("--evaluate.stride 0", "evaluate.stride is above 0 s"),
        ("--window.history -1", "history of a window"),
        ("--device gpu", "one of 'cpu', 'cuda', 'mps', found gpu"),
        ("--train 3", "train must be a table"),
        ("--train.epochs", "--train.epochs on the command line has no value"),
        ("--seed 1 --seed 2", "--seed is given twice"),
        ("3 --seed 1", "found '3' before any --key"),
    ],
)
def test_a_wrong_value_is_refused_with_found_and_expected(write, words, message) -> None:
    with pytest.raises(UsageError) as caught:
        load(write(), words.split())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("width = true", "arguments.width must be a whole number, found True"),
        ("width = 1.0", "arguments.width must be a whole number, found 1.0"),
        ("gain = true", "arguments.gain must be a finite number or none, found True"),
        ("gain = inf", "a finite number or none, found inf"),
        ("deep = 1", "arguments.deep must be true or false, found 1"),
        ("boxcars = 0.1", "arguments.boxcars must be a list"),
        ("boxcars = {a = 1}", "arguments.boxcars must be a list"),
        ("kind = 1", "one of 'log', 'identity', found 1"),
        ("scales = {fast = 'x'}", "arguments.scales.fast must be a finite number, found 'x'"),
        ("'a.b' = 1", "holds no dot"),
    ],
)
def test_a_wrong_type_in_the_file_is_refused_with_the_file_named(write, line, message) -> None:
    path = write(arguments=line)
    with pytest.raises(UsageError) as caught:
        load(path)
    assert message in str(caught.value)
    assert path.name in str(caught.value)


def test_a_value_that_nothing_sets_is_named_with_the_way_out(write) -> None:
    text = TEXT.replace("bin = 0.02", "")
    with pytest.raises(
        UsageError, match=r"streams.spikes.bin is not set; Spikes expects.*--streams"
    ):
        load(write(text))


@pytest.mark.parametrize(
    ("words", "split"),
    [
        ("--split.stored blocks/v2", Parts(stored="blocks/v2")),
        (
            "--split.method contiguous --split.ratios train=1 test=1",
            Parts(
                method="contiguous",
                arguments={"ratios": {"train": 1.0, "test": 1.0}, "guard": 0.0},
            ),
        ),
    ],
)
def test_another_split_replaces_the_one_of_the_file_whole(write, words, split) -> None:
    assert load(write(), words.split()).split == split


def test_the_same_choice_again_keeps_the_rest_of_its_table(write) -> None:
    words = ["--split.method", "interleaved_blocks", "--streams.spikes.kind", "Spikes"]
    assert load(write(), words) == load(write())


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (("method = ", "stored = 'x'\nmethod = "), "'x' and 'interleaved_blocks'"),
        (('method = "interleaved_blocks"\nblock = 60', ""), "No key 'split.ratios'"),
    ],
)
def test_a_split_is_stored_or_made_and_never_both(write, change, found) -> None:
    with pytest.raises(UsageError, match=found):
        load(write(TEXT.replace(*change)))


def test_a_label_that_gets_no_row_is_refused_with_the_rows_there_are(write, tmp_path) -> None:
    store = neurostore.create(tmp_path / "lab")
    with store.transaction("80 s") as tx:
        tx.put(simulate(0, units=2, seconds=80).builder("sim", "a").build())
    with pytest.raises(UsageError) as caught:
        recipes.split_of(load(write()), store)
    message = "The split has 1 row (train 1), none of them for validation, test. Shorten split.bl"
    assert message in str(caught.value)
    words = ["--split.ratios", "train=1", "validation=0"]
    assert recipes.split_of(load(write(), words), store).labels == ("train",)


def test_streams_and_forward_are_checked_against_one_another_before_any_data(write) -> None:
    position = '[streams.position]\nkind = "Behaviour"\nname = "position"\nrate = 50'
    with pytest.raises(UsageError, match=r"forward takes spikes; .* are spikes, position. Remove"):
        load(write(streams=position))
    with pytest.raises(UsageError, match=r"takes spikes, position, extra; .* are spikes. Add"):
        load(write(architecture="_architectures:TwoInputs"))
    recipe = load(write(architecture="_architectures:TwoInputs", streams=position))
    assert list(recipe.streams) == ["spikes", "position"]
    assert recipe.build(units=1).said == (1.0, 0.5)


def test_a_model_is_built_from_the_data_and_the_arguments(write) -> None:
    said = load(write(), ["--arguments.width", "2"]).build(units=24).said
    assert (said["units"], said["bin"], said["width"]) == (24, 0.02, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os.system", "named 'package.module:Class'"),
        ("__import__('os'):x", "named 'package.module:Class'"),
        ("no_such_module_here:X", "does not import"),
        ("_architectures:Liner", "Did you mean 'Linear'"),
        ("_architectures:Unbindable", "needs 'neurons', which has no default"),
        ("_architectures:Open", "takes **options"),
        ("fractions:Fraction", "Fraction"),
    ],
)
def test_an_architecture_that_is_none_is_refused(write, name, message) -> None:
    with pytest.raises(UsageError) as caught:
        load(write(architecture=name))
    assert message in str(caught.value)


def test_a_recipe_that_is_not_there_is_answered_with_the_nearest(write, tmp_path) -> None:
    write()
    with pytest.raises(NotFoundError, match=r"line\.toml"):
        load(tmp_path / "lime.toml")
    with pytest.raises(NotFoundError, match="in the bundled ones"):
        load("glmm")


def test_a_bundled_recipe_is_found_by_name_and_named_by_its_place(
    write, tmp_path, monkeypatch
) -> None:
    write()
    monkeypatch.setattr(_declared, "declared", lambda kind: [tmp_path / "line.toml"])
    recipe = load("line")
    assert recipe.name == "line"
    assert recipe.origins["train.epochs"] == (5, "models/line.toml")


def test_text_that_is_no_toml_is_refused_by_its_file(tmp_path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("seed = ", encoding="utf-8")
    with pytest.raises(UsageError, match=r"broken\.toml is no TOML"):
        load(path)


def test_a_recipe_comes_back_from_json_whole(write) -> None:
    words = ["--arguments.scales", "fast=2", "slow=3", "--train.clip", "1"]
    recipe = load(write(), words)
    text = json.dumps(recipe.to_json(), allow_nan=False)
    again = Recipe.from_json(json.loads(text))
    assert again == recipe
    assert again.origins == recipe.origins
    assert again.digest == recipe.digest
    assert json.dumps(again.to_json()) == text
    assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_a_stored_recipe_is_read_without_importing_its_architecture(write, tmp_path) -> None:
    document = load(write()).to_json()
    document["values"]["architecture"] = "no_such_module_here:X"
    with pytest.raises(UsageError, match="not the ones that were written"):
        Recipe.from_json(document)


def test_the_digest_changes_with_every_value_a_run_depends_on_and_with_no_other(write) -> None:
    recipe = load(write())
    for words in ("--train.epochs 6", "--seed 4", "--arguments.width 9", "--split.ratios.test 3"):
        other = load(write(), words.split())
        assert other.digest != recipe.digest
        (key,) = other.differs(recipe)
        assert f"--{key}" == words.split()[0]
    for words in ("--title x", "--citation x", "--reference.w-maze.bits 1"):
        if "reference" in words:
            other = load(write(), {"reference.w-maze.bits": 1.0})
        else:
            other = load(write(), words.split())
        assert other.digest == recipe.digest
        assert other.differs(recipe) == {}


def test_the_digest_is_the_same_in_another_process(write) -> None:
    path = write()
    code = f"from neurostore.recipes import load; print(load({str(path)!r}).digest)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7"},
    )
    assert done.stdout.strip() == load(path).digest


def test_the_table_shows_every_key_value_and_origin(write) -> None:
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(load(write(), ["--seed", "11"]).show())
    text = console.export_text()
    for key in ("train.epochs", "arguments.boxcars", "split.ratios.train", "streams.spikes.bin"):
        assert key in text
    assert "command line" in text
    assert "default of Linear.__init__" in text


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4))
def test_numbers_on_the_command_line_are_the_numbers_of_python(values) -> None:
    from neurostore.recipes._typed import Leaf, Words, typed

    words = Words(tuple(repr(value) for value in values))
    assert typed(Leaf(words, ""), tuple[float, ...], "x", {}) == tuple(values)


def test_the_package_offers_what_it_says() -> None:
    assert set(recipes.__all__) <= set(vars(recipes))


def test_a_recipe_of_an_earlier_version_has_the_defaults_of_what_it_could_not_say() -> None:
    document = load("glm").to_json()
    for part in ("values", "origins"):
        del document[part]["data.same_units"]  # type: ignore[index, arg-type]
    document["digest"] = digest(document["values"])  # type: ignore[arg-type]
    again = Recipe.from_json(document)
    assert again.data.same_units is False
    assert again.differs(load("glm")) == {}


def test_a_mask_and_units_are_tables_and_lists_of_a_recipe(write, tmp_path) -> None:
    one = 'mask = { kind = "bins", share = 0.25 }\nunits_in = "region = \'CA1\'"'
    recipe = load(write(streams=one))
    assert recipe.streams["spikes"] == Spikes(
        0.02, mask=Mask("bins", 0.25), units_in="region = 'CA1'"
    )
    two = """mask = [
    { kind = "units", share = 0.5 },
    { kind = "spans", share = 0.1, length = 0.1 },
]
units_out = ["a", "b"]"""
    several = load(write(streams=two))
    masks = (Mask("units", 0.5), Mask("spans", 0.1, length=0.1))
    assert several.streams["spikes"] == Spikes(0.02, mask=masks, units_out=("a", "b"))
    table = load(write(streams='[streams.spikes.mask]\nkind = "bins"\nshare = 0.25'))
    assert table.streams["spikes"].mask == Mask("bins", 0.25)
    for made in (recipe, several, table):
        document = json.loads(json.dumps(made.to_json(), allow_nan=False))
        again = Recipe.from_json(document)
        assert (again, again.digest) == (made, made.digest)
        assert pickle.loads(pickle.dumps(made)) == made
    assert len({made.digest for made in (recipe, several, load(write()))}) == 3


def test_a_field_of_a_mask_is_set_on_the_command_line(write) -> None:
    path = write(streams='mask = { kind = "bins", share = 0.25 }')
    made = load(path, ["--streams.spikes.mask.share", "0.5"])
    assert made.streams["spikes"].mask == Mask("bins", 0.5)
    other = ["--streams.spikes.mask.kind", "units", "--streams.spikes.mask.share", "0.1"]
    assert load(path, other).streams["spikes"].mask == Mask("units", 0.1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('mask = { kind = "bins", share = 2 }', "streams.spikes.mask in .*above 0 and below 1"),
        ('mask = { kind = "bins", shaer = 0.2 }', "Did you mean 'share'"),
        ('mask = { kind = "bin", share = 0.2 }', "streams.spikes.mask must be a table of kind"),
        ('mask = { kind = "bins" }', "streams.spikes.mask must be a table of kind, share, length"),
        ("mask = 0.25", "streams.spikes.mask must be a table of kind, share, length"),
    ],
)
def test_a_mask_that_is_none_is_refused_with_its_key(write, line, message) -> None:
    with pytest.raises(UsageError, match=message):
        load(write(streams=line))
