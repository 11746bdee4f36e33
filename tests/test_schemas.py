"""Contracts say what a table is; both gates and the pandera schema find what is not so."""

import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dask.array
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandera.errors import SchemaError, SchemaErrors

import neurostore
from neurostore import _declared
from neurostore.clocks import MISSING, Clock
from neurostore.errors import NotFoundError, UsageError, counted
from neurostore.schemas import (
    JSON,
    Column,
    Table,
    check_ids,
    contract,
    contracts,
    from_xarray,
    frozen,
    layout,
    validate,
    values,
)
from neurostore.schemas._contract import ColumnSpec, parse
from neurostore.schemas._values import COLUMN_RULES, PIECE, TABLE_RULES
from neurostore.store import Ragged, Span, tables

TEXT = np.dtypes.StringDType()
NAN = float("nan")
every = pytest.mark.parametrize("id", contracts())
files = {p.parent.name + "/" + p.stem: p for p in _declared.declared("schemas", "*/v*.toml")}


# ---- the declarations


@every
def test_a_declared_contract_is_the_one_its_file_is_named_after(id: str) -> None:
    found = contract(id)
    assert found.id == id
    assert id in files
    assert found.title
    assert found.status in ("frozen", "draft")


def test_every_file_is_a_contract_and_the_newest_of_a_table_goes_by_its_name() -> None:
    assert set(files) == set(contracts())
    assert contract("spikes") is contract("spikes/v1")


@every
def test_a_contract_names_only_rules_dtypes_links_and_columns_that_exist(id: str) -> None:
    found = contract(id)
    for name, column in found.columns.items():
        assert {rule.rule for rule in column.rules} <= set(COLUMN_RULES), name
        for word in column.dtype:
            assert word in ("number", "string") or str(np.dtype(word)) == word
        assert column.dims
        assert column.title
        assert not any(dim.endswith("?") for dim in column.dims[:1])
        assert column.link == "" or f"{column.link}/v1" in contracts()
    needs = {
        "ordered": {"start", "stop"},
        "disjoint": {"start", "stop"},
        "blocks": {"block", "time"},
        "counts": {"n_spikes"},
        "timed": {"time"},
    }
    assert set(needs) == set(TABLE_RULES)
    for rule in found.rules:
        assert needs[rule.rule] <= set(found.columns)
        for one in (rule, *(r for c in found.columns.values() for r in c.rules)):
            assert one.severity in ("critical", "violation", "suggestion")


def test_a_frozen_contract_is_the_one_that_was_frozen() -> None:
    found = {id: one.digest for id, one in contracts().items() if one.status == "frozen"}
    assert found == frozen()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("optional = true", "optional = false"),
        ('"int64"', '"int32"'),
        ('rules = ["ascending"]', "rules = []"),
        ("title = ", "title = 'again '\n#"),
        ("version = 1", "version = 2"),
    ],
)
def test_any_change_of_a_frozen_contract_is_noticed(before: str, after: str) -> None:
    text = files["behaviour/v1"].read_text("utf-8")
    assert before in text
    assert parse(text).digest == frozen()["behaviour/v1"]
    assert parse(text.replace(before, after, 1)).digest != frozen()["behaviour/v1"]


def test_a_comment_is_no_change() -> None:
    text = files["spikes/v1"].read_text("utf-8")
    assert parse("# said more clearly\n" + text).digest == frozen()["spikes/v1"]


def test_a_contract_with_a_word_nobody_knows_is_refused() -> None:
    text = files["spikes/v1"].read_text("utf-8").replace("optional", "optionnal")
    text += "\n[columns.more]\ndims = ['spike']\ndtype = ['int8']\noptionnal = true\n"
    with pytest.raises(UsageError, match=r"'more' has unknown {'optionnal'}"):
        parse(text)


def test_a_mistyped_contract_is_answered_with_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'spikes/v1'"):
        contract("spike/v1")
    with pytest.raises(NotFoundError, match="No contract 'spikes/v9'"):
        contract("spikes/v9")


def whole_session() -> neurostore.SessionBuilder:
    made = neurostore.SessionBuilder(dataset="d", session="s", rate=1000)
    made.add_units({"a": [0.1, 0.2], "b": []}, region=["CA1", None], waveform=np.ones((2, 4)))
    made.add_electrodes(["e1"], region=["CA1"])
    made.add_behaviour("wheel", np.ones(3), start=0, rate=10, units="m")
    made.add_behaviour("eye", np.ones((2, 2)), time=[0, 1], units="px", channels=["x", "y"])
    made.add_activity("lfp", np.ones((2, 1)), time=[0, 1], units="V", valid=[True, False])
    made.add_intervals("trials", [0, 1], [1, NAN], go_time=[0.5, NAN], note=["a", None])
    made.add_presentations("movie", [0], [1], [3], stimulus="m")
    made.add_observed([0], [2])
    return made


def test_every_contract_that_the_store_writes_is_frozen_and_holds() -> None:
    staged = whole_session().build()
    written = {table.contract for table in staged.tables.values()} | {"sessions/v1", "split/v1"}
    written |= {"stimulus_frames/v1", "stimulus_embeddings/v1"}
    assert written == set(frozen())
    for table in staged.tables.values():
        assert validate(table, staged.tables) == []


def test_the_catalogue_has_the_columns_of_its_contract() -> None:
    store = neurostore.create("memory://test-schemas-catalogue")
    with store.transaction("one") as tx:
        tx.put(whole_session())
    made = store.sessions()
    for name, column in contract("sessions").columns.items():
        assert name in made
        assert made[name].dtype.kind == {"string": "O", "int64": "i", "float64": "f"}[
            column.dtype[0]
        ] or (column.dtype[0] == "string" and str(made[name].dtype).startswith("str"))


# ---- layout


class Unreadable:
    """Values that must not be looked at."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype) if isinstance(dtype, str) else dtype

    def __getitem__(self, key: object) -> Any:
        raise AssertionError("a value was read")

    def __array__(self, *_: object, **__: object) -> Any:
        raise AssertionError("a value was read")

    def __len__(self) -> int:
        raise AssertionError("a value was read")


def dtype_of(spec: ColumnSpec) -> Any:
    word = {"string": TEXT, "number": np.dtype("float64")}.get(spec.dtype[0], spec.dtype[0])
    return np.dtype(word) if isinstance(word, str) else word


def attrs_of(spec: ColumnSpec) -> dict[str, JSON]:
    return {"units": spec.units.replace("*", "mV")} if spec.units else {}


@every
def test_layout_reads_no_value(id: str) -> None:
    columns = {
        name: Column(
            spec.all_dims, Unreadable((3,) * len(spec.all_dims), dtype_of(spec)), attrs_of(spec)
        )
        for name, spec in contract(id).columns.items()
    }
    columns["own"] = Column((contract(id).dim,), Unreadable((3,), "int8"))
    found = layout(Table(id.partition("/")[0], id, columns))
    assert [one.check for one in found] == ([] if contract(id).open else [f"{id}/own/unknown"])


def units_table(**columns: Column) -> Table:
    made = {
        "unit": Column(("unit",), np.array(["a", "b"], TEXT)),
        "n_spikes": Column(("unit",), np.array([1, 2]), {"units": "1"}),
    }
    return Table("units", "units/v1", {**made, **columns})


LAYOUTS = {
    "missing": ({"n_spikes": None}, "n_spikes/missing"),
    "dims": ({"region": Column(("x",), np.array(["a"], TEXT))}, "region/dims"),
    "no dims": ({"region": Column((), np.array("a", TEXT))}, "region/dims"),
    "dtype": ({"n_spikes": Column(("unit",), np.zeros(2, "i4"), {"units": "1"})}, "n_spikes/dtype"),
    "text as objects": ({"region": Column(("unit",), np.array(["a", "b"], "O"))}, "region/dtype"),
    "text with a missing one": (
        {"region": Column(("unit",), np.array(["a", "b"], np.dtypes.StringDType(na_object=None)))},
        "region/dtype",
    ),
    "byte order": (
        {"n_spikes": Column(("unit",), np.zeros(2, ">i8"), {"units": "1"})},
        "n_spikes/dtype",
    ),
    "units": ({"n_spikes": Column(("unit",), np.zeros(2, "i8"), {"units": "s"})}, "n_spikes/units"),
    "no units": ({"n_spikes": Column(("unit",), np.zeros(2, "i8"))}, "n_spikes/units"),
    "own dims": ({"own": Column(("x", "unit"), np.zeros((1, 2)))}, "own/dims"),
    "own dtype": ({"own": Column(("unit",), np.zeros(2, "M8[s]"))}, "own/dtype"),
    "own long double": ({"own": Column(("unit",), np.zeros(2, np.longdouble))}, "own/dtype"),
    "shape": ({"own": Column(("unit",), np.zeros((2, 2)))}, "own/shape"),
    "length": ({"own": Column(("unit",), np.zeros(3))}, "own/length"),
}


@pytest.mark.parametrize(("columns", "check"), LAYOUTS.values(), ids=LAYOUTS)
def test_what_does_not_fit_the_layout_is_a_critical_finding(columns: dict, check: str) -> None:
    table = units_table(**columns)
    kept = {name: column for name, column in table.columns.items() if column is not None}
    found = layout(replace(table, columns=kept))
    assert [one.check for one in found] == [f"units/v1/{check}"]
    assert found[0].severity == "critical"
    assert "\n" not in str(found[0])


def test_a_column_that_a_closed_contract_does_not_know_is_found() -> None:
    table = tables.spikes(Ragged.of({"a": [0.1]}), Span(Clock()))
    own = {**table.columns, "own": Column(("spike",), np.zeros(1))}
    assert [one.check for one in layout(replace(table, columns=own))] == ["spikes/v1/own/unknown"]


# ---- rules


def made_table(id: str, attrs: Mapping[str, JSON] | None = None, /, **columns: Any) -> Table:
    """A table of the contract with these columns, others as simple as they can be."""
    spec = contract(id)
    lengths = {spec.columns[k].all_dims[0]: len(v) for k, v in columns.items() if v is not None}
    made = {}
    for name, said in spec.columns.items():
        if name in columns or not said.optional:
            given = columns.get(name)
            if given is None:
                given = simple(said, tuple(lengths.get(dim, 2) for dim in said.all_dims))
            array = np.asarray(given, dtype=dtype_of(said))
            made[name] = Column(said.all_dims[: array.ndim], array, attrs_of(said))
    return Table(id.partition("/")[0], id, made, attrs or {})


def simple(said: ColumnSpec, shape: tuple[int, ...]) -> np.ndarray:
    count = np.arange(int(np.prod(shape))).reshape(shape)
    if said.dtype == ("string",):
        return np.array([f"{said.name}{k}" for k in range(shape[0])], TEXT)
    return count.astype(dtype_of(said)) + (1 if dtype_of(said).kind == "f" else 0)


def spikes_table(time: list, unit: list, block: list, where: JSON = None) -> Table:
    said = {"start": 0, "length": 10} if where is None else where
    return made_table("spikes/v1", {"block": said}, time=time, unit=unit, block=block)


def regular(time: list | None = None, **attrs: JSON) -> Table:
    return made_table("behaviour/v1", attrs, value=[1.0, 2.0], **({"time": time} if time else {}))


def observed(start: list, stop: list, **columns: list) -> Table:
    table = made_table("intervals/v1", start=start, stop=stop, valid=[True] * len(start), **columns)
    return replace(table, name="intervals/observed")


def trials(start: list, stop: list, valid: list) -> Table:
    return made_table("intervals/v1", start=start, stop=stop, valid=valid)


LINKED = {
    "units": units_table(),
    "spikes": spikes_table([1, 2, 3], [0, 1, 1], [0, 3]),
}
STD, EMBEDDING = "normaliser/v1", "stimulus_embeddings/v1"
RULES: dict[str, tuple[Table, Table, str, int, int]] = {
    # name: good, bad, check, first row, count
    "ascending": (
        spikes_table([1, 1, 2, 9], [0] * 4, [0, 4]),
        spikes_table([1, 0, 2, 1], [0] * 4, [0, 4]),
        "spikes/v1/time/ascending",
        1,
        2,
    ),
    "finite": (
        made_table(EMBEDDING, value=np.zeros((4, 2))),
        made_table(EMBEDDING, value=[[0, 0], [0, NAN], [np.inf, NAN], [0, 0]]),
        f"{EMBEDDING}/value/finite",
        1,
        2,
    ),
    "finite ticks": (
        spikes_table([-5, 3], [0] * 2, [0, 1, 2], {"start": -10, "length": 10}),
        spikes_table([MISSING, 3], [0] * 2, [0, 1, 2], {"start": -10, "length": 10}),
        "spikes/v1/time/finite",
        0,
        1,
    ),
    "non_negative": (
        made_table("units/v1", n_spikes=[0, 1, 2]),
        made_table("units/v1", n_spikes=[0, -1, -2]),
        "units/v1/n_spikes/non_negative",
        1,
        2,
    ),
    "positive": (
        made_table(STD, std=[0.1, 1.0]),
        made_table(STD, std=[0.1, 0.0]),
        f"{STD}/std/positive",
        1,
        1,
    ),
    "named": (
        made_table("electrodes/v1", electrode=["a", "b"]),
        made_table("electrodes/v1", electrode=["a", ""]),
        "electrodes/v1/electrode/named",
        1,
        1,
    ),
    "unique": (
        made_table("electrodes/v1", electrode=["a", "b", "A"]),
        made_table("electrodes/v1", electrode=["b", "a", "b", "b"]),
        "electrodes/v1/electrode/unique",
        2,
        2,
    ),
    "range": (
        made_table("presentations/v1", row=[-1, 0, 7]),
        made_table("presentations/v1", row=[-1, -2, 7]),
        "presentations/v1/row/range",
        1,
        1,
    ),
    "link": (
        spikes_table([1, 2, 3], [0, 1, 1], [0, 3]),
        spikes_table([1, 2, 3], [0, 2, 9], [0, 3]),
        "spikes/v1/unit/link",
        1,
        2,
    ),
    "ordered": (
        trials([0, 5, MISSING, 9], [1, 5, 3, MISSING], [True, True, False, False]),
        trials([0, 5, MISSING, 9], [1, 4, 3, 8], [True, True, True, False]),
        "intervals/v1/stop/ordered",
        1,
        2,
    ),
    "disjoint": (
        observed([5, 0, 9], [9, 5, 12]),
        observed([5, 0, 9], [10, 6, 12]),
        "intervals/v1/start/disjoint",
        0,
        2,
    ),
    "disjoint by unit": (
        observed([0, 0, 5], [5, 9, 6], unit=[0, 1, 0]),
        observed([0, 0, 5], [5, 9, 6], unit=[0, 1, 1]),
        "intervals/v1/start/disjoint",
        2,
        1,
    ),
    "blocks": (
        spikes_table([1, 9, 10, 25], [0] * 4, [0, 2, 3, 4]),
        spikes_table([1, 9, 10, 25], [0] * 4, [0, 2, 4, 4]),
        "spikes/v1/block/blocks",
        1,
        2,
    ),
    "counts": (
        units_table(),
        units_table(n_spikes=Column(("unit",), np.array([1, 3]), {"units": "1"})),
        "units/v1/n_spikes/counts",
        1,
        1,
    ),
    "timed": (
        regular(start=0, rate="100/3"),
        regular(start=0),
        "behaviour/v1/time/timed",
        0,
        1,
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_passes_what_keeps_it_and_finds_what_breaks_it(rule: str) -> None:
    good, bad, check, row, count = RULES[rule]
    linked = LINKED if rule in ("link", "counts") else {}
    assert validate(good, linked) == []
    assert layout(bad) == []
    found = {one.check: one for one in values(bad, linked)}[check]
    assert (found.row, found.count) == (row, count)
    assert found.table == bad.name
    assert f"{counted(count, 'row')}, first at row {row}" in found.message
    assert "\n" not in str(found)


def test_every_rule_has_a_case() -> None:
    assert {*COLUMN_RULES, *TABLE_RULES, "range", "link"} <= set(RULES)


def test_the_severity_of_a_finding_is_what_the_contract_says() -> None:
    for good_bad in RULES.values():
        for one in values(good_bad[1], LINKED):
            expected = "violation" if one.check.endswith("ordered") else "critical"
            assert one.severity == expected


TIMED = {
    "times": (regular([0, 1]), True),
    "start and rate": (regular(start=-5, rate="60"), True),
    "both": (regular([0, 1], start=0, rate="60"), False),
    "neither": (regular(), False),
    "no start": (regular(rate="60"), False),
    "half a tick": (regular(start=0.5, rate="60"), False),
    "a start beyond int64": (regular(start=2**62, rate="60"), False),
    "no number": (regular(start=0, rate="fast"), False),
    "backward": (regular(start=0, rate="-60"), False),
    "standing": (regular(start=0, rate="0"), False),
    "times and a start": (regular([0, 1], start=0), False),
}


@pytest.mark.parametrize(("table", "holds"), TIMED.values(), ids=TIMED)
def test_samples_have_times_or_a_start_and_a_rate(table: Table, holds: bool) -> None:
    assert [one.check for one in validate(table)] == ([] if holds else ["behaviour/v1/time/timed"])


@pytest.mark.parametrize(
    "where",
    [
        *({}, {"start": 0}, {"start": "x", "length": 10}, {"start": 0, "length": 0}, "nonsense", 5),
        *(
            {"start": 0, "length": -1},
            {"start": None, "length": None},
            {"start": 2**63, "length": 1},
        ),
        {"start": 0.5, "length": 1},
    ],
    ids=str,
)
def test_an_index_of_blocks_that_says_nonsense_is_found_not_raised(where: JSON) -> None:
    found = values(spikes_table([1, 2], [0, 0], [0, 2], where))
    assert [one.check for one in found] == ["spikes/v1/block/blocks"]


@pytest.mark.parametrize(
    "block", [[], [0], [0, 1], [0, 3], [1, 2], [0, 5, 2], [-1, 2], [0, 2, 2, 2], [0, 0, 2]], ids=str
)
def test_a_block_index_that_is_not_the_one_of_the_times_is_found(block: list[int]) -> None:
    found = {one.check for one in values(spikes_table([1, 2], [0, 0], block))}
    good = block == [0, 2, 2, 2]  # empty blocks at the end are right
    assert ("spikes/v1/block/blocks" in found) is not good


def test_a_unit_far_out_of_range_is_found_without_taking_its_memory() -> None:
    unit = np.array([0, 1, 2**32 - 1], np.uint32)
    spikes = LINKED["spikes"]
    broken = replace(spikes, columns={**spikes.columns, "unit": Column(("spike",), unit)})
    tracemalloc.start()
    found = values(LINKED["units"], {"spikes": broken})
    found += values(broken, LINKED)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {one.check for one in found} == {"units/v1/n_spikes/counts", "spikes/v1/unit/link"}
    assert peak < 1e6


def test_rules_see_across_the_pieces_they_read_by() -> None:
    time = np.arange(2 * PIECE + 3)
    time[PIECE] = 5
    table = made_table("behaviour/v1", value=np.zeros(len(time)), time=time)
    (found,) = values(table)
    assert (found.check, found.row, found.count) == ("behaviour/v1/time/ascending", PIECE, 1)


def test_tables_without_rows_pass() -> None:
    for id in contracts():
        spec = contract(id)
        columns = {
            name: Column(
                said.all_dims, np.zeros((0,) * len(said.all_dims), dtype_of(said)), attrs_of(said)
            )
            for name, said in spec.columns.items()
        }
        if id == "spikes/v1":
            columns["block"] = Column(("block",), np.zeros(1, "i8"), {"units": "1"})
        attrs: dict[str, JSON] = {"block": {"start": 0, "length": 10}} if id == "spikes/v1" else {}
        assert validate(Table(id.partition("/")[0], id, columns, attrs)) == [], id


# ---- the pandera schema


def pandera_ids(dataset: xr.Dataset, id: str) -> set[str]:
    try:
        contract(id).to_pandera(values=True).validate(dataset, lazy=True)
    except SchemaErrors as error:
        return check_ids(error, id)
    return set()


def own_ids(dataset: xr.Dataset, id: str) -> set[str]:
    return {one.check for one in validate(from_xarray(dataset, id))}


@pytest.mark.parametrize("lazy", [False, True], ids=["numpy", "dask"])
@pytest.mark.parametrize("rule", [name for name in RULES if name not in ("link", "counts")])
def test_the_pandera_schema_finds_what_the_gates_find(rule: str, lazy: bool) -> None:
    for table in RULES[rule][:2]:
        dataset = table.to_xarray()
        if lazy:
            dataset = chunked(dataset)
        id = table.contract
        assert pandera_ids(dataset, id) == own_ids(dataset, id)


def test_a_whole_session_passes_as_pandera_too() -> None:
    for table in whole_session().build().tables.values():
        dataset = table.to_xarray()
        schema = contract(table.contract).to_pandera(values=True)
        assert schema.validate(dataset, lazy=True) is dataset
        assert own_ids(dataset, table.contract) == set()


def test_the_schema_without_values_looks_at_the_layout_only() -> None:
    bad = spikes_table([2, 1], [0, 0], [0, 2]).to_xarray()
    contract("spikes").to_pandera().validate(bad)
    with pytest.raises(SchemaError):
        contract("spikes").to_pandera(values=True).validate(bad)
    with pytest.raises(SchemaError):
        contract("spikes").to_pandera().validate(bad.drop_vars("time"))


def chunked(dataset: xr.Dataset) -> xr.Dataset:
    """With every number behind dask, two rows a piece."""
    return dataset.assign(
        {
            name: (v.dims, dask.array.from_array(np.asarray(v), chunks=2), v.attrs)
            for name, v in dataset.variables.items()
            if v.dtype.kind in "iufb" and v.size
        }
    )


def valid_dataset(id: str) -> xr.Dataset:
    spec = contract(id)
    attrs: dict[str, JSON] = {}
    given: dict[str, Any] = {}
    if id == "spikes/v1":
        attrs, given["block"] = {"block": {"start": 0, "length": 100}}, [0, 3]
    made = made_table(id, attrs, **{name: given.get(name) for name in spec.columns})
    three = {
        name: simple(said, tuple(2 if dim == "block" else 3 for dim in said.all_dims))
        for name, said in spec.columns.items()
    }
    three |= {name: np.array(value) for name, value in given.items()}
    columns = {
        name: Column(spec.columns[name].all_dims, array, attrs_of(spec.columns[name]))
        for name, array in three.items()
    }
    return Table(made.name, id, columns, attrs).to_xarray()


def set_column(dataset: xr.Dataset, name: str, dims: Any, data: Any, attrs: Any) -> xr.Dataset:
    return dataset.drop_vars(name).assign({name: (dims, data, attrs)})


def broken(draw: Any, dataset: xr.Dataset) -> xr.Dataset:
    """One thing wrong (or harmlessly other) with a dataset."""
    names = sorted(map(str, dataset.variables))
    if not names:
        return dataset
    name = draw(st.sampled_from([n for n in names if dataset.variables[n].ndim] or names[:1]))
    old = dataset.variables[name]
    array = np.asarray(old)
    what = draw(st.sampled_from(sorted(BREAKS)))
    if what == "drop":
        return dataset.drop_vars(name)
    if what == "rename":
        new = draw(st.sampled_from(["own", "it's, so", 'a "b"', "x y"]))
        return dataset if new in dataset.variables else dataset.rename_vars({name: new})
    if what == "units":
        return set_column(dataset, name, old.dims, old.data, draw(UNITS))
    if what == "dims" and old.ndim:
        return set_column(
            dataset, name, (f"elsewhere{old.shape[0]}", *old.dims[1:]), old.data, old.attrs
        )
    if what == "more dims" and "more" not in old.dims:
        return set_column(dataset, name, (*old.dims, "more"), array[..., None], old.attrs)
    if what == "dtype":
        kind = draw(st.sampled_from(["i4", "i8", ">i8", "f4", "f8", "c16", "?", "M8[s]", "U4"]))
        other = np.arange(array.size).reshape(array.shape).astype(kind)
        return set_column(dataset, name, old.dims, other, old.attrs)
    if what == "extra":
        extra = draw(
            st.sampled_from(
                [
                    (old.dims[:1], np.arange(old.shape[0] if old.ndim else 1)[: old.size or 1]),
                    (("far",), np.arange(4.0)),
                    (("far",), np.arange(4).astype("M8[s]")),
                    ((), np.float64(3)),
                ]
            )
        )
        if extra[0] and extra[0] == old.dims[:1] and len(extra[1]) != old.shape[0]:
            return dataset
        return dataset.assign(own2=extra)
    if what == "coordinate" and name not in old.dims:
        return dataset.set_coords(name)
    if what == "attributes":
        return dataset.assign_attrs(draw(ATTRS))
    if array.dtype.kind in "iuf" and array.size:
        worse = array.copy()
        worse.flat[draw(st.integers(0, array.size - 1))] = draw(
            st.sampled_from([-1, -5, 0, 1, 10**4] if array.dtype.kind != "u" else [0, 1, 5])
        )
        if array.dtype.kind == "f" and draw(st.booleans()):
            worse.flat[0] = NAN
        return set_column(dataset, name, old.dims, worse, old.attrs)
    if isinstance(array.dtype, np.dtypes.StringDType) and array.size:
        worse = array.copy()
        worse[-1] = draw(st.sampled_from(["", str(worse[0]), "new"]))
        return set_column(dataset, name, old.dims, worse, old.attrs)
    return dataset


BREAKS = ["drop", "rename", "units", "dims", "more dims", "dtype", "extra", "coordinate"]
BREAKS += ["attributes", "value", "value again", "value once more"]
UNITS = st.sampled_from([{}, {"units": "tick"}, {"units": "ms"}, {"units": 5}, {"units": ""}])
ATTRS = st.sampled_from(
    [
        {"start": 0, "rate": "60"},
        {"start": "x", "rate": None},
        {"block": {"start": 0, "length": 1}},
        {"block": 5},
    ]
)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_over_any_broken_table_the_gates_and_the_pandera_schema_agree(data: st.DataObject) -> None:
    id = data.draw(st.sampled_from(sorted(contracts())))
    dataset = valid_dataset(id)
    for _ in range(data.draw(st.integers(0, 3))):
        dataset = broken(data.draw, dataset)
    if data.draw(st.booleans()):
        dataset = chunked(dataset)
    assert pandera_ids(dataset, id) == own_ids(dataset, id)


# ---- memory


def peak_of(table: Table, linked: Mapping[str, Table] | None = None) -> tuple[list, float]:
    """What is found, and the memory it takes beyond the table, in sizes of the table."""
    size = sum(np.asarray(column.values[:]).nbytes for column in table.columns.values())
    tracemalloc.start()
    found = validate(table, linked)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found, peak / size


def test_ten_million_bad_rows_do_not_fill_the_memory() -> None:
    n = 10_000_000
    table = Table(
        "spikes",
        "spikes/v1",
        {
            "time": Column(("spike",), np.arange(n, 0, -1), {"units": "tick"}),
            "unit": Column(("spike",), np.full(n, 9, np.uint16)),
            "block": Column(("block",), np.array([0, n]), {"units": "1"}),
        },
        {"block": {"start": 0, "length": 2 * n}},
    )
    found, peak = peak_of(table, {"units": units_table()})
    assert {one.check: (one.row, one.count) for one in found} == {
        "spikes/v1/time/ascending": (1, n - 1),
        "spikes/v1/unit/link": (0, n),
    }
    assert peak < 0.5


def test_millions_of_bad_intervals_do_not_fill_the_memory() -> None:
    n = 3_000_000
    rows = np.arange(n)
    table = observed(rows.tolist()[:1], [1])
    ticks = {"units": "tick"}
    columns = {
        "start": Column(("interval",), rows, ticks),
        "stop": Column(("interval",), rows - 1, ticks),
        "valid": Column(("interval",), np.ones(n, dtype=bool)),
    }
    found, peak = peak_of(replace(table, columns=columns))
    assert [(one.check, one.count) for one in found] == [("intervals/v1/stop/ordered", n)]
    columns["stop"] = Column(("interval",), rows + 2, ticks)
    found, peak = peak_of(replace(table, columns=columns))
    assert [(one.check, one.count) for one in found] == [("intervals/v1/start/disjoint", n - 1)]
    assert peak < 1.5


def test_lazy_values_are_read_by_pieces() -> None:
    n = 4 * PIECE
    big = Unreadable((n,), "int64")
    read: list[int] = []

    class Pieces(Unreadable):
        def __getitem__(self, key: slice) -> np.ndarray:
            rows = np.arange(n)[key]
            read.append(len(rows))
            return rows

    table = made_table("behaviour/v1", value=[0.0] * 2, time=[0, 1])
    columns = {
        "time": Column(("time",), Pieces(big.shape, "int64"), {"units": "tick"}),
        "value": Column(("time",), Unreadable((n,), "float32"), {"units": "m"}),
    }
    assert validate(replace(table, columns=columns)) == []
    assert read == [PIECE] * 4
