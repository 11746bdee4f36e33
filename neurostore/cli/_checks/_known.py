"""Every check id with its severity and what it means in one line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from neurostore.errors import Severity
from neurostore.schemas import Contract, contracts


@dataclass(frozen=True)
class Check:
    """A check: its stable id, how grave it is, and what it holds."""

    id: str
    severity: Severity
    line: str


_OWN: tuple[tuple[str, Severity, str], ...] = (
    ("store/damage", "critical", "a value or a digest of the store is what was written"),
    ("store/unreadable", "critical", "the store can be opened and read"),
    ("store/format", "critical", "the root of a snapshot carries neurostore_format"),
    ("store/branch", "critical", "a branch leads to a snapshot that can be read"),
    ("store/tag", "critical", "a tag leads to a snapshot that can be read"),
    ("store/history/commit", "critical", "every commit of the history is what was written"),
    ("store/file/snapshot", "critical", "a snapshot's file of the engine can be read"),
    ("store/file/manifest", "critical", "a manifest of the engine is there, as long as written"),
    ("store/file/transaction", "critical", "a transaction log of the engine can be read"),
    ("store/file/unreadable", "critical", "the files of the store can be read"),
    ("store/group/unreadable", "critical", "a group of the tree can be read"),
    ("store/group/missing", "critical", "a group that its parent names is there"),
    ("store/row/checksum", "critical", "a catalogue row fits its checksum"),
    ("store/row/columns", "critical", "a catalogue row says what the session's tables say"),
    ("store/row/place", "critical", "a thing lies where its id belongs"),
    ("store/attributes/digest", "critical", "attributes fit the digest in their row"),
    ("store/catalogue/total", "critical", "the sessions found are the ones committed"),
    ("store/split-catalogue/total", "critical", "the splits found are the ones committed"),
    ("store/stimulus-catalogue/total", "critical", "the stimuli found are the ones committed"),
    ("store/table/entry", "critical", "the row of a session says what its table is"),
    ("store/table/metadata", "critical", "the metadata of a table fits its digest"),
    ("store/table/contract", "critical", "the contract of a table is one that is known"),
    ("store/table/digest", "critical", "the decoded values of a table fit its digest"),
    ("store/split/digest", "critical", "the rows of a split fit its digest"),
    ("store/chunk/crc32c", "critical", "a chunk fits its checksum"),
    ("store/chunk/missing", "critical", "a chunk that an array has is there"),
    ("store/chunk/other", "critical", "a chunk is the one that was written in its place"),
    ("store/chunk/unreadable", "critical", "a chunk can be read and decoded"),
    ("store/link/row", "critical", "rows that a table names are rows of the other table"),
    ("store/link/session", "violation", "the sessions that a split names are in the store"),
    ("store/clone/unfinished", "violation", "a clone holds all that it is to hold"),
    ("store/link/clock", "critical", "a split counts the ticks of its sessions' clocks"),
    ("store/link/stimulus", "critical", "an embedding has its stimulus, and as many rows"),
    ("clock/unix_time", "suggestion", "times count from the session's start, not from 1970"),
    ("clock/time_scale", "violation", "the times of all tables are on one scale"),
    ("clock/apart", "violation", "every table lies within 10 s of the spikes"),
    ("clock/unit_scale", "violation", "the spike times of all units are on one scale"),
    ("file/refused", "critical", "a file is one that its reader can keep"),
    ("contract/toml", "critical", "a contract is TOML in the language of contracts"),
    ("contract/place", "critical", "a contract lies at <table>/v<N>.toml, as it says"),
    ("contract/frozen", "critical", "a frozen contract is the one that was frozen"),
    ("contract/unfrozen", "critical", "a contract that says it is frozen has its digest kept"),
    ("contract/deleted", "critical", "a contract that was frozen is there"),
    ("contract/rule", "critical", "a contract names rules, links and dtypes that exist"),
    ("contract/title", "suggestion", "every column of a contract says what it is"),
    ("card/toml", "critical", "a card is TOML of known keys"),
    ("card/missing", "violation", "a card says title, licence and citation"),
    ("card/contract", "critical", "the contracts that a card names are declared"),
    ("card/licence", "suggestion", "the datasets of a release have a licence"),
    ("card/citation", "suggestion", "the datasets of a release say how they are cited"),
    ("card/authors", "suggestion", "the datasets of a release have authors"),
    ("card/url", "suggestion", "a release or its cards give a web address"),
    ("recipe/invalid", "critical", "a recipe parses, its streams and architecture are known"),
    ("recipe/architecture", "violation", "a recipe names an architecture of the package"),
    ("nwb/index_broken", "violation", "a ragged column of an NWB file fits its index"),
    ("nwb/column_length", "violation", "a column of an NWB file has a value a row"),
    ("nwb/link_broken", "violation", "the electrodes that an NWB file names are there"),
    ("nwb/observed_broken", "violation", "observation intervals end after they begin"),
    ("nwb/electrode_twice", "violation", "the ids of electrodes are unique"),
    ("nwb/pynwb_warning", "suggestion", "pynwb reads the file without a warning"),
    ("nwb/*_missing", "suggestion", "an NWB file says subject, species, lab and the like"),
    ("nwb/*", "violation", "an NWB file holds together"),
)
_LAYOUT = {
    "missing": "a required column is there",
    "shape": "as many dimensions as names for them",
    "length": "one length along one dimension",
    "dims": "the dimensions of the contract",
    "dtype": "a dtype of the contract",
    "units": "the unit of the contract",
}
_MENDED: tuple[tuple[str, str, str, Severity, str], ...] = (
    ("spikes", "time", "twice", "suggestion", "no unit has two spikes in one tick"),
    ("spikes", "time", "range", "critical", "no spike is out of range"),
    ("spikes", "time", "finite", "violation", "every spike has a time"),
    ("spikes", "time", "sorted", "violation", "spikes come in order of time"),
    ("intervals", "start", "range", "violation", "observed time is in range"),
    ("intervals", "start", "merged", "violation", "observed intervals do not overlap"),
    ("presentations", "row", "link", "critical", "presentations name rows of their stimulus"),
    *(
        (table, "time", what, "violation", line)
        for table in ("behaviour", "activity")
        for what, line in (
            ("range", "samples are in range"),
            ("missing", "every sample has a time"),
            ("sorted", "samples come in order of time"),
        )
    ),
    *(
        (table, "valid", "missing", "violation", "every row has a start and a stop")
        for table in ("intervals", "presentations")
    ),
    *(
        (table, "*", "range", "violation", "times are in range")
        for table in ("intervals", "presentations")
    ),
)
"""What was found and mended while a table was made: table, column, check, severity, meaning."""


@cache
def known() -> dict[str, Check]:
    """Every check by its id; a ``*`` in an id stands for a column (or a field) of the source."""
    found = [Check(*one) for one in _OWN]
    for spec in contracts().values():
        found += _of(spec)
        found += [
            Check(spec.check(column, what), severity, f"{spec.table}: {line}")
            for table, column, what, severity, line in _MENDED
            if table == spec.table
        ]
    by_id: dict[str, Check] = {}
    for one in found:
        by_id.setdefault(one.id, one)
    return dict(sorted(by_id.items()))


def _of(spec: Contract) -> list[Check]:
    """The checks of a contract: its layout and its rules."""
    made = [
        Check(spec.check("*", "dims"), "critical", f"{spec.table}: a further column has its rows"),
        Check(spec.check("*", "dtype"), "critical", f"{spec.table}: a further column is plain"),
        Check(spec.check("*", "shape"), "critical", f"{spec.table}: {_LAYOUT['shape']}"),
        Check(spec.check("*", "length"), "critical", f"{spec.table}: {_LAYOUT['length']}"),
    ]
    if not spec.open:
        line = f"{spec.table}: no column beyond the contract's"
        made.append(Check(spec.check("*", "unknown"), "critical", line))
    for name, said in spec.columns.items():
        for what, line in _LAYOUT.items():
            if not (what == "missing" and said.optional) and not (
                what == "units" and not said.units
            ):
                made.append(Check(spec.check(name, what), "critical", f"{name}: {line}"))
        for rule in said.rules:
            made.append(Check(spec.check(name, rule.rule), rule.severity, f"{name}: {rule.rule}"))
        if said.min is not None or said.max is not None:
            made.append(Check(spec.check(name, "range"), "critical", f"{name}: in range"))
        if said.link:
            line = f"{name}: a row of {said.link}"
            made.append(Check(spec.check(name, "link"), "critical", line))
    for rule in spec.rules:
        for name in spec.columns:
            made.append(Check(spec.check(name, rule.rule), rule.severity, f"{name}: {rule.rule}"))
    return made
