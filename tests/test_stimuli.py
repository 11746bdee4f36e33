"""Stimuli in the store: kept once, never changed, embeddings added, damage and links found."""

from __future__ import annotations

import json
import pickle
import random
import re
from collections import Counter
from fractions import Fraction
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from _damaged import flipped, replaced

import neurostore
from neurostore import cli
from neurostore.errors import (
    ConflictError,
    DamagedError,
    NeurostoreError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from neurostore.store import Stimulus, _catalogue, _stimuli, layout
from neurostore.store._versions import IcechunkVersions
from neurostore.store.transaction import who
from neurostore.store.urls import parse

NUMBERS = count()
RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (90, 9, 11)).astype(np.uint8)
CLIP = RNG.normal(size=(90, 24)).astype(np.float32)
HALF = CLIP.astype(np.float16)


@pytest.fixture
def store():
    return neurostore.create(f"memory://stimuli-{next(NUMBERS)}")


def put(store, *stimuli, message="stimuli"):
    with store.transaction(message) as tx:
        return [tx.put(one) for one in stimuli]


def movie(**more) -> Stimulus:
    return Stimulus("movie", FRAMES, **{"rate": 30, "embeddings": {"clip_l14": CLIP}, **more})


def session(rows, name="s", stimulus="movie") -> neurostore.SessionBuilder:
    made = neurostore.SessionBuilder(dataset="d", session=name)
    start = np.arange(len(rows)) / 30
    made.add_presentations("movie", start, start + 1 / 30, rows, stimulus=stimulus)
    return made


# ---- what comes back


def test_frames_and_embeddings_come_back_as_they_were_put(store):
    put(store, movie(description="a forest"))
    found = neurostore.open(store.url).stimulus("movie")
    assert (found.n_frames, found.rate, found.url) == (90, Fraction(30), "")
    assert found.description == "a forest"
    assert found.frames.shape == FRAMES.shape
    assert found.frames.dtype == np.uint8
    np.testing.assert_array_equal(np.asarray(found.frames), FRAMES)
    clip = found.embedding("clip_l14")
    assert (clip.title, clip.shape, clip.dtype) == ("clip_l14/v1", (90, 24), np.float32)
    np.testing.assert_array_equal(clip.read(), CLIP)
    np.testing.assert_array_equal(np.asarray(clip), CLIP)
    np.testing.assert_array_equal(clip[[3, 80, 3]], CLIP[[3, 80, 3]])


@pytest.mark.parametrize(
    "key", [0, -1, slice(3, 9), slice(-4, None), [7, 2, 2, 80], (5, 3), (slice(2, 4), slice(1, 3))]
)
def test_frames_are_read_as_an_array_is(store, key):
    put(store, movie())
    expected = FRAMES[np.array(key)] if isinstance(key, list) else FRAMES[key]
    np.testing.assert_array_equal(store.stimulus("movie").frames[key], expected)


@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 3, 4, 3), (1, 1)])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_frames_of_any_shape_and_dtype_come_back(store, shape, dtype):
    frames = RNG.integers(0, 200, shape).astype(dtype)
    put(store, Stimulus("any", frames))
    back = store.stimulus("any").frames
    assert (back.shape, back.dtype) == (shape, np.dtype(dtype))
    np.testing.assert_array_equal(back[:], frames)
    assert not any(store.validate().values())


def test_only_the_chunks_of_the_frames_asked_for_are_read(store):
    frames = RNG.integers(0, 256, (40, 600, 500)).astype(np.uint8)  # more than a chunk each
    put(store, Stimulus("large", frames))
    flat = store.stimulus("large").frames.flat
    assert flat.chunks[0] == 1
    keys = []
    found = store.stimulus("large").frames
    opened = found.flat._array.store
    kept = type(opened).get

    async def noted(self, key, *arguments, **more):
        keys.append(key)
        return await kept(self, key, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(opened), "get", noted)
        np.testing.assert_array_equal(found[[3, 17]], frames[[3, 17]])
    assert sorted(key.rpartition("/c/")[2] for key in keys if "/c/" in key) == ["17/0", "3/0"]


def test_lazy_frames_are_put_piece_by_piece(store):
    class Lazy:
        shape, dtype, most = (5000, 32, 32), np.dtype(np.uint8), 0

        def __getitem__(self, key):
            low, high, _ = key.indices(5000)
            Lazy.most = max(Lazy.most, (high - low) * 1024)
            return np.broadcast_to(
                (np.arange(low, high) % 251)[:, None, None], (high - low, 32, 32)
            ).astype(np.uint8)

    put(store, Stimulus("lazy", Lazy()))
    assert 0 < Lazy.most < 5000 * 1024 * 8
    np.testing.assert_array_equal(store.stimulus("lazy").frames[:, 0, 0], np.arange(5000) % 251)


def test_a_stimulus_by_url_has_a_number_of_frames_and_embeddings_and_no_frames(store):
    put(store, Stimulus("far", url="https://example.org/a.npy", embeddings={"clip": CLIP}))
    found = store.stimulus("far")
    assert (found.n_frames, found.url, found.rate) == (90, "https://example.org/a.npy", None)
    with pytest.raises(UsageError, match=r"no frames of 'far', only .* https://example.org/a.npy"):
        _ = found.frames
    put(store, Stimulus("further", url="s3://bucket/b", n_frames=7))
    assert store.stimulus("further").embeddings == {}
    assert not any(store.validate().values())


def test_the_table_of_stimuli_says_frames_rate_shape_and_embeddings_with_their_dims(store):
    assert not len(store.stimuli)
    put(store, movie(), Stimulus("b", url="u", n_frames=3))
    put(store, Stimulus("movie", embeddings={"clip_l14": HALF, "dino": CLIP[:, :5]}))
    rows = store.stimuli.to_dict("records")
    assert [(one["name"], one["frames"], one["url"]) for one in rows] == [
        ("b", 3, "u"),
        ("movie", 90, ""),
    ]
    assert rows[1]["embeddings"] == {"clip_l14/v1": 24, "clip_l14/v2": 24, "dino/v1": 5}
    assert (rows[1]["rate_hz"], rows[1]["shape"]) == (30.0, (9, 11))
    assert "90 frames (9, 11), embeddings clip_l14/v1 (24)" in repr(store.stimulus("movie"))


# ---- versions


def test_an_embedding_is_added_by_a_commit_of_its_own_and_the_stimulus_stays(store):
    put(store, Stimulus("movie", FRAMES))
    before = store.stimulus_rows[0]
    put(store, Stimulus("movie", embeddings={"clip_l14": CLIP}), message="CLIP")
    assert store.log(1)[0].changes == {"/stimuli/movie/embeddings/clip_l14/v1": "put"}
    assert store.stimulus_rows[0] == before
    put(store, Stimulus("movie", embeddings={"clip_l14": HALF}))
    found = store.stimulus("movie")
    assert found.embedding("clip_l14").title == "clip_l14/v2"
    np.testing.assert_array_equal(found.embedding("clip_l14").read(), HALF)
    np.testing.assert_array_equal(found.embedding("clip_l14/v1").read(), CLIP)


def test_the_same_again_is_no_commit(store):
    put(store, movie())
    before = store.snapshot
    put(store, movie(), Stimulus("movie", FRAMES, rate=30), Stimulus("movie", **CLIPPED))
    assert store.snapshot == before


CLIPPED = {"embeddings": {"clip_l14": CLIP}}


def test_several_versions_may_come_in_one_transaction_and_the_tenth_is_newest(store):
    put(store, movie(), *(Stimulus("movie", embeddings={"e": CLIP[:, k:]}) for k in range(10)))
    found = store.stimulus("movie")
    assert found.embedding("e").title == "e/v10"
    assert found.embedding("e").shape == (90, 15)
    assert found.embedding("e/v2").shape == (90, 23)


def test_a_store_as_it_was_shows_the_embeddings_it_had(store):
    put(store, movie())
    store.tag("one")
    put(store, Stimulus("movie", embeddings={"clip_l14": HALF}))
    assert store.at("one").stimulus("movie").embeddings == {"clip_l14/v1": 24}
    with pytest.raises(NotFoundError, match="'v2'"):
        store.at("one").stimulus("movie").embedding("clip_l14/v2")


@pytest.mark.parametrize("name", ["with space", "µ", "..", "zarr.json", "a/b", "c", "x" * 150])
def test_any_name_comes_back_and_is_linked(store, name):
    put(store, Stimulus(name, FRAMES[:3], embeddings={"é 1": CLIP[:3]}))
    assert store.stimulus(name).embedding("é 1").shape == (3, 24)
    with pytest.raises(RefusedError, match="has 3 frames"):
        put(store, session([3], stimulus=name))
    assert not any(store.validate().values())


# ---- refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": ""}, "needs a name"),
        ({"name": "a\nb"}, "needs a name"),
        ({"frames": None}, "can only add embeddings"),
        ({"frames": FRAMES > 5}, "found bool, expected uint8"),
        ({"frames": FRAMES.astype(object)}, "found object"),
        ({"frames": FRAMES[:0]}, "not empty"),
        ({"frames": [[1, 2], [3]]}, "are no array"),
        ({"frames": FRAMES[:, :0]}, "not empty"),
        ({"frames": np.uint8(3)}, r"must be \(frame"),
        ({"frames": np.ma.masked_equal(FRAMES, 3)}, "masked"),
        ({"rate": 0}, "above 0 frames a second"),
        ({"rate": "x"}, "no finite number"),
        ({"n_frames": 89}, r"one number of frames.*'frames': 90, 'n_frames': 89"),
        ({"n_frames": 90.5}, "whole n_frames"),
        ({"url": "https://me:secret@host/a"}, "user name or password"),
        ({"embeddings": {"clip": CLIP[:89]}}, r"one number of frames.*'clip': 89"),
        ({"embeddings": {"clip": CLIP.astype(float)}}, "found float64, expected float16, float32"),
        ({"embeddings": {"clip": CLIP[:, 0]}}, r"must be \(frame, dim\)"),
        ({"embeddings": {"a/b": CLIP}}, "without slashes"),
        ({"embeddings": {"v3": CLIP}}, "no version"),
        ({"embeddings": {"frame": CLIP}}, "none of frame, stimulus"),
        ({"embeddings": {"": CLIP}}, "needs a name"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_what_was_expected(arguments, said):
    given = {"name": "movie", "frames": FRAMES, **arguments}
    with pytest.raises(UsageError, match=said):
        Stimulus(given.pop("name"), given.pop("frames"), **given)


def test_a_url_without_a_number_of_frames_is_refused():
    with pytest.raises(UsageError, match="Say n_frames="):
        Stimulus("far", url="u")


def test_another_stimulus_of_the_same_name_is_refused(store):
    put(store, movie())
    before = store.snapshot
    other = FRAMES.copy()
    other[5, 5, 5] ^= 1
    for made in (Stimulus("movie", other, rate=30), movie(rate=60), movie(url="u")):
        with pytest.raises(UsageError, match="never changes: give this one another name"):
            put(store, made)
    with pytest.raises(UsageError, match="never replaced"), store.transaction("over") as tx:
        tx.put(movie(), replace=True)
    assert store.snapshot == before


def test_embeddings_of_an_unknown_stimulus_or_of_another_length_are_refused(store):
    put(store, movie())
    with pytest.raises(NotFoundError, match=r"No stimulus 'moive' in .*Did you mean 'movie'"):
        put(store, Stimulus("moive", **CLIPPED))
    with pytest.raises(UsageError, match=r"have 80 rows, the stimulus in .* has 90 frames"):
        put(store, Stimulus("movie", embeddings={"clip_l14": CLIP[:80]}))


def test_values_that_are_not_finite_are_refused_and_nothing_is_written(store):
    bad, frames = CLIP.copy(), FRAMES.astype(np.float32)
    bad[70, 3], frames[8, 0, 0] = np.nan, np.inf
    before = store.snapshot
    for made, row in ((movie(embeddings={"a": CLIP, "b": bad}), 70), (Stimulus("f", frames), 8)):
        with store.transaction("bad") as tx:
            with pytest.raises(RefusedError, match=f"first at row {row}") as caught:
                tx.put(made)
            assert "\n" not in str(caught.value)
        assert caught.value.findings[0].row == row
    assert store.snapshot == before  # though the transaction went on, not even the frames
    assert not len(store.stimuli)


def test_an_unknown_stimulus_encoder_or_version_is_answered_with_the_nearest(store):
    with pytest.raises(NotFoundError, match="There is no stimulus at all"):
        store.stimulus("movie")
    put(store, movie())
    with pytest.raises(NotFoundError, match="Did you mean 'movie'"):
        store.stimulus("moive")
    found = store.stimulus("movie")
    for name, said in (
        ("clip_l41", "No embedding 'clip_l41' in stimulus 'movie' of .*Did you mean 'clip_l14'"),
        ("clip_l14/v2", "No version 'v2' in embedding 'clip_l14'.*Did you mean 'v1'"),
        ("clip_l14/", "No version '' in embedding"),
    ):
        with pytest.raises(NotFoundError, match=said):
            found.embedding(name)


# ---- links of presentations


def test_a_presentation_beyond_the_frames_is_refused_whichever_comes_last(store):
    put(store, movie())
    with pytest.raises(RefusedError, match=r"'row' is 90 in row 2, .* has 90 frames") as caught:
        put(store, session([0, -1, 90, 91]))
    finding = caught.value.findings[0]
    assert (finding.check, finding.row, finding.count) == ("presentations/v1/row/link", 2, 2)
    put(store, session([0, -1, 89]))
    put(store, session([500], "t", "other"))
    with pytest.raises(RefusedError, match=r"d/t: presentations/movie: 'row' is 500 in row 0"):
        put(store, Stimulus("other", url="u", n_frames=500))
    put(store, Stimulus("other", url="u", n_frames=501))
    assert not any(store.validate().values())


def test_a_presentation_is_held_against_a_stimulus_of_the_same_transaction_or_update(store):
    for order in (0, 1):
        things = [session([90]), movie()]
        with pytest.raises(RefusedError, match="'row' is 90 in row 0"):
            put(store, *(things[::-1] if order else things))
    put(store, session([9]), movie())
    table = neurostore.tables.intervals(
        "movie",
        [0.0],
        [1.0],
        store.session("d/s").span,
        {"row": [90]},
        kind="presentations",
        attrs={"stimulus": "movie"},
    )
    with pytest.raises(RefusedError, match="'row' is 90"), store.transaction("update") as tx:
        tx.update("d/s", table)
    with store.transaction("a wrong one goes with its session") as tx:
        tx.delete("d/s")


# ---- history, two writers


def test_the_log_and_validate_name_stimuli(store, capsys):
    put(store, movie())
    assert cli.main(["log", store.url]) == cli.DONE
    assert "        put /stimuli/movie\n" in capsys.readouterr().out
    assert cli.main(["log", store.url, "--json"]) == cli.DONE
    said = json.loads(capsys.readouterr().out)[0]["stimuli"]
    assert said == {"/stimuli/movie": "put", "/stimuli/movie/embeddings/clip_l14/v1": "put"}
    assert cli.main(["validate", store.url]) == cli.DONE
    out = capsys.readouterr().out
    assert re.search(r"^/stimuli/movie/embeddings/clip_l14/v1: holds its contracts", out, re.M)


def test_a_store_from_before_stimuli_opens_and_takes_them():
    place = parse("memory://stimuli-before")

    def start(zarr):
        layout.put_group(zarr, "", {"neurostore_format": layout.FORMAT})
        layout.put_group(zarr, "sessions", {})

    about = who() | {"sessions": {}, "catalogue": _catalogue.Total().to_json()}
    IcechunkVersions.create(place, start, about)
    store = neurostore.open("memory://stimuli-before")
    assert "stimulus_catalogue" not in store.log()[-1].metadata
    assert not len(store.stimuli)
    put(store, movie())
    assert store.log(1)[0].metadata["stimulus_catalogue"]["stimuli"] == 2
    assert not any(store.validate().values())
    assert store.at(store.log()[-1].snapshot).validate() == {}


def test_two_writers_of_one_stimulus_or_version_conflict(store):
    other = neurostore.open(store.url)
    for mine, theirs, id in (
        (movie(), Stimulus("movie", FRAMES[:5]), "/stimuli/movie"),
        (
            Stimulus("movie", embeddings={"e": CLIP}),
            Stimulus("movie", embeddings={"e": HALF}),
            "/stimuli/movie/embeddings/e/v1",
        ),
    ):
        first, second = store.transaction("mine"), other.transaction("theirs")
        first.put(mine)
        second.put(theirs)
        with first:
            pass
        with pytest.raises(ConflictError, match=f"'{id}' was added by .*one stimulus"), second:
            pass
        other.refresh()
    assert neurostore.open(store.url).stimulus("movie").embeddings == {
        "clip_l14/v1": 24,
        "e/v1": 24,
    }


def test_writers_of_different_stimuli_encoders_and_sessions_merge(store):
    put(store, Stimulus("movie", FRAMES))
    others = [neurostore.open(store.url) for _ in range(4)]
    things = [
        Stimulus("movie", embeddings={"one": CLIP}),
        Stimulus("movie", embeddings={"two": CLIP}),
        Stimulus("second", FRAMES),
        session([3]),
    ]
    open_ones = [other.transaction("writes") for other in others]
    for tx, thing in zip(open_ones, things, strict=True):
        tx.put(thing)
    for tx in open_ones:
        with tx:
            pass
    newest = neurostore.open(store.url)
    assert newest.stimuli["name"].tolist() == ["movie", "second"]
    assert newest.stimulus("movie").embeddings == {"one/v1": 24, "two/v1": 24}
    assert len(newest.sessions()) == 1
    assert not any(newest.validate().values())


def test_a_stimulus_pickles_as_where_it_lies(tmp_path):
    store = neurostore.create(tmp_path / "lab")
    put(store, movie())
    back = pickle.loads(pickle.dumps(store.stimulus("movie")))
    np.testing.assert_array_equal(back.frames[7], FRAMES[7])


# ---- damage


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    store = neurostore.create(tmp_path_factory.mktemp("stimuli") / "lab")
    put(store, movie())
    put(store, Stimulus("movie", embeddings={"clip_l14": HALF}))
    put(store, Stimulus("other", FRAMES[::2]))
    return Path(store.url)


def reading(url: Path) -> dict[str, object]:
    """The stimuli, by name; the error where that was the answer."""

    def read(what):
        try:
            return what()
        except NeurostoreError as error:
            return error

    store = read(lambda: neurostore.open(url))
    if isinstance(store, NeurostoreError):
        return {"open": store}
    found = {"stimuli": read(lambda: store.stimuli.to_json())}
    for name in ("movie", "other"):
        found[name] = read(lambda n=name: np.asarray(store.stimulus(n).frames).tolist())
    for title in ("clip_l14/v1", "clip_l14/v2"):
        found[title] = read(lambda t=title: store.stimulus("movie").embedding(t).read().tolist())
    return found


def judge(good, found) -> str:
    for name, value in found.items():
        if isinstance(value, NeurostoreError):
            assert not isinstance(value, NotFoundError), value.line
        else:
            assert value == good[name], name
    return "error" if any(isinstance(one, NeurostoreError) for one in found.values()) else "same"


@pytest.mark.parametrize("how", ["flipped", "empty", "gone"])
def test_a_damaged_chunk_is_an_error_that_names_it_and_harms_no_other(url, how):
    good, named = reading(url), set()
    for path in sorted((url / "chunks").iterdir()):
        data = path.read_bytes()
        damage = {"flipped": flipped(data, 4 * len(data)), "empty": b"", "gone": None}[how]
        with replaced(path, damage):
            found = reading(url)
            checked = neurostore.open(url).validate()
        assert judge(good, found) == "error"
        (name,) = {ref for ref, one in found.items() if isinstance(one, DamagedError)}
        assert "stimuli/" in found[name].line
        ((id, (finding,)),) = {id: one for id, one in checked.items() if one}.items()
        assert finding.check == "store/damage"
        assert id.endswith(name)
        named.add(name)
    assert named == {"movie", "other", "clip_l14/v1", "clip_l14/v2"}


@pytest.mark.parametrize("folder", ["manifests", "snapshots"])
def test_a_bit_turned_above_the_chunks_is_never_another_stimulus_nor_none(url, folder):
    good, rng, outcomes = reading(url), random.Random(3), Counter()
    newest = max((url / folder).iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for _ in range(30):
        data = newest.read_bytes()
        with replaced(newest, flipped(data, rng.randrange(8 * len(data)))):
            outcomes[judge(good, reading(url))] += 1
    assert outcomes["error"] >= 5


@pytest.mark.parametrize("hidden", ["other", "v2", "clip_l14"])
def test_a_stimulus_or_embedding_that_is_not_found_is_damage_and_not_absence(
    url, monkeypatch, hidden
):
    children = layout.children

    def without(zarr, path):
        return [name for name in children(zarr, path) if name != hidden]

    monkeypatch.setattr(layout, "children", without)
    for use in (
        lambda: neurostore.open(url).stimulus("movie"),
        lambda: neurostore.open(url).stimuli,
    ):
        with pytest.raises(DamagedError, match=r"names 4 stimuli and embeddings, [123] are found"):
            use()


def test_values_that_are_not_those_of_the_digest_are_damage(store):
    put(store, movie())
    clip = store.stimulus("movie").embedding("clip_l14")
    object.__setattr__(clip, "digest", clip.digest[::-1])
    with pytest.raises(DamagedError, match="clip_l14/v1 of 'movie' is not what was written"):
        clip.read()


def test_the_digest_is_of_values_and_not_of_how_they_lie():
    turned = np.asfortranarray(CLIP)
    big = CLIP.astype(">f4")
    assert _stimuli.content_digest(turned) == _stimuli.content_digest(CLIP)
    assert _stimuli.content_digest(big) == _stimuli.content_digest(CLIP)
    assert _stimuli.content_digest(HALF) != _stimuli.content_digest(CLIP)
    assert _stimuli.content_digest(CLIP.reshape(45, 48)) != _stimuli.content_digest(CLIP)
