"""Buckets that refuse, or do not answer: one clear error, soon, nothing half-written, no secret."""

from __future__ import annotations

import json
import logging
import pickle
import socket
import time
import traceback

import pytest
from _object_store import BUCKET, forbid_the_rest, served, user
from _writers import session

import neurostore
from neurostore import cli
from neurostore.errors import NotFoundError, StoreError, UsageError
from neurostore.store import _buckets
from neurostore.store.urls import hidden, parse

CANARY = "c4n4ry-5ecret/of+nobody"
URL = f"s3://{BUCKET}/lab"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A store in a bucket that asks who one is, and the options of one who may only read."""
    with served(tmp_path_factory.mktemp("guarded")) as made:
        writer = user(made, "writer", ["s3:*"], {})
        reader = user(made, "reader", ["s3:GetObject", "s3:ListBucket"], {})
        forbid_the_rest(made)
        store = neurostore.create(URL, made.options(**writer))
        with store.transaction("first") as tx:
            tx.put(session("d/s"))
        yield made, made.options(**writer), made.options(**reader)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No credentials but the ones that are given."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(_buckets, "SECONDS", 1.0)


@pytest.fixture
def silent():
    """The endpoint of a server that takes what it is sent, and never answers."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        yield f"http://127.0.0.1:{made.getsockname()[1]}"


@pytest.fixture
def closed():
    """An endpoint at which nobody listens."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{made.getsockname()[1]}"


def shown(error: BaseException) -> str:
    """Whatever can be printed of an error."""
    return f"{error} {error!r} {''.join(traceback.format_exception(error))}"


def opened(options, url=URL):
    return neurostore.open(url, storage_options=options)


WRONG = {
    "a wrong secret": (
        lambda options: opened({**options, "secret": CANARY}),
        "credentials are wrong",
    ),
    "an unknown key": (
        lambda options: opened({**options, "key": CANARY}),
        "credentials are wrong",
    ),
    "a wrong token": (
        lambda options: opened({**options, "secret": "x", "token": CANARY}),
        "credentials are wrong",
    ),
    "a wrong secret, making": (
        lambda options: neurostore.create(f"{URL}-2", {**options, "secret": CANARY}),
        "credentials are wrong",
    ),
    "no bucket": (
        lambda options: opened(options, "s3://no-such-box/lab"),
        "There is no such bucket",
    ),
    "no bucket, making": (
        lambda options: neurostore.create("s3://no-such-box/lab", options),
        "There is no such bucket",
    ),
    "no credentials": (
        lambda options: opened({"endpoint_url": options["endpoint_url"]}),
        "No credentials were found",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_refusal_is_one_clear_error_and_comes_soon(guarded, caplog, name):
    caplog.set_level(logging.DEBUG, "neurostore")
    call, words = WRONG[name]
    began = time.monotonic()
    with pytest.raises(StoreError, match=words) as caught:
        call(guarded[1])
    assert type(caught.value) is StoreError  # and no damage
    assert time.monotonic() - began < 20
    assert CANARY not in shown(caught.value) + caplog.text
    assert guarded[1]["secret"] not in shown(caught.value) + caplog.text


def test_an_endpoint_that_refuses_or_stays_silent_is_said_within_seconds(closed, silent):
    options = {"key": "k", "secret": CANARY}
    for endpoint in (closed, silent):
        began = time.monotonic()
        with pytest.raises(StoreError, match=f"^{endpoint} does not answer") as caught:
            opened({**options, "endpoint_url": endpoint})
        assert time.monotonic() - began < 10
        assert CANARY not in shown(caught.value)


def test_one_who_may_only_read_reads_and_is_refused_clearly_where_it_writes(guarded):
    store, before = opened(guarded[2]), guarded[0].keys
    keys = [one for one in _keys(guarded) if "/refs/" in one or "/snapshots/" in one]
    assert store.validate() == {"d/s": []}
    with pytest.raises(StoreError, match="do not allow it") as caught, store.transaction("x") as tx:
        tx.put(session("d/t"))
    assert "cannot be written" in caught.value.line
    with pytest.raises(StoreError, match="do not allow it"):
        store.tag("v1")
    with pytest.raises(StoreError, match="do not allow it"):
        neurostore.create(f"{URL}-3", guarded[2])
    assert before is not None
    assert [one for one in _keys(guarded) if "/refs/" in one or "/snapshots/" in one] == keys
    assert list(store.refresh().sessions()["id"]) == ["d/s"]


def _keys(guarded):
    client = guarded[0].client(key=guarded[1]["key"], secret=guarded[1]["secret"])
    return sorted(one["Key"] for one in client.list_objects_v2(Bucket=BUCKET)["Contents"])


OPTIONS = [
    ("s3://b/lab", {"secrte": CANARY}, "takes no storage option 'secrte'. Did you mean 'secret'"),
    ("s3://b/lab", {"client_kwargs": {"verify": CANARY}}, "'client_kwargs.verify'"),
    ("s3://b/lab", {"anon": CANARY}, "'anon' of s3://b/lab is true or false, found str"),
    ("s3://b/lab", {"key": CANARY}, "needs both storage options 'key' and 'secret'"),
    ("s3://b/lab", {"token": CANARY}, "together with 'key' and 'secret' only"),
    ("s3://b/lab", {"endpoint_url": f"http://me:{CANARY}@host"}, "is a URL like"),
    (f"s3://me:{CANARY.replace('/', '')}@b/lab", {}, "credentials go into storage_options"),
    (f"s3://b/lab?sig={CANARY}", {}, "credentials go into storage_options"),
    ("s3:///lab", {"secret": CANARY}, "names no bucket"),
    ("gs://b/lab", {"token": CANARY}, "'token' of gs://b is a path of a JSON key file"),
    ("gs://b/lab", {"secret": CANARY}, "It takes: token, anon"),
    ("az://b/lab", {"account_key": CANARY}, "needs the storage option 'account_name'"),
]


@pytest.mark.parametrize(("url", "options", "words"), OPTIONS)
def test_an_option_that_does_not_fit_is_said_without_its_value(url, options, words):
    for call in (neurostore.create, opened):
        with pytest.raises(UsageError) as caught:
            call(options, url) if call is opened else call(url, options)
        assert words in caught.value.line
        assert CANARY not in shown(caught.value)
        assert CANARY.replace("/", "") not in shown(caught.value)


GIVEN = [
    ("gs://b/lab", {"token": "anon"}),
    ("gs://b/lab", {"token": {"type": "service_account", "private_key": CANARY}}),
    ("az://b/lab", {"account_name": "me", "account_key": "Y2FuYXJ5"}),
    ("az://b/lab", {"account_name": "me", "sas_token": f"sv=1&sig={CANARY}"}),
    ("az://b/lab", {"connection_string": "AccountName=me;AccountKey=Y2FuYXJ5"}),
    ("az://b/lab", {"account_name": "me", "anon": True}),
    ("s3://b/lab", {"anon": True, "client_kwargs": {"region_name": "eu-west-1"}}),
    ("s3://b", {"key": "k", "secret": CANARY, "token": "t", "requester_pays": True}),
]


@pytest.mark.parametrize(("url", "options"), GIVEN)
def test_options_of_every_provider_become_a_storage_of_the_engine(url, options):
    place = parse(url, options)
    made = _buckets.storage(place)
    assert CANARY not in f"{place} {place!r} {made!r}"
    assert len(_buckets.identity(place)) == 16
    assert pickle.loads(pickle.dumps(place)) == place


def test_a_profile_of_aws_is_read_and_one_that_is_not_there_is_said(tmp_path, monkeypatch):
    file = tmp_path / "credentials"
    file.write_text(f"[lab]\naws_access_key_id = me\naws_secret_access_key = {CANARY}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    found = _buckets.profile_credentials("lab")
    assert (found.access_key_id, found.secret_access_key) == ("me", CANARY)
    with pytest.raises(UsageError, match="profile 'bal'"):
        _buckets.profile_credentials("bal")


def test_nothing_that_is_kept_or_printed_of_a_store_holds_a_secret(guarded, tmp_path, capsys):
    made, writer, _ = guarded
    store = opened(writer)
    store.sessions()
    streams = {"spikes": neurostore.Spikes(bin=0.02)}
    dataset = neurostore.Dataset(store, window=neurostore.Window(1.0), streams=streams)
    texts = [repr(store), store._repr_html_(), repr(store.session("d/s")), repr(dataset)]
    texts += [repr(store._form), repr(store._versions), repr(store.transaction("x"))]
    texts += [json.dumps([dict(one.metadata) for one in store.log()], default=str)]
    texts += [json.dumps(dataset.to_json(), default=str)] if hasattr(dataset, "to_json") else []
    for folder in (tmp_path, neurostore.cache.folder()):
        texts += [one.read_bytes().decode("latin-1") for one in folder.rglob("*") if one.is_file()]
    client = made.client(key=writer["key"], secret=writer["secret"])
    for key in _keys(guarded):
        body = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        texts.append(body.decode("latin-1"))
    for text in texts:
        assert writer["secret"] not in text
        assert writer["key"] not in text


def test_commands_take_storage_options_and_print_none_of_them(guarded, capsys):
    _, writer, reader = guarded
    given = [f"--storage={name}={value}" for name, value in reader.items()]
    assert cli.main(["sessions", URL, "--json", *given]) == cli.DONE
    out = capsys.readouterr()
    assert [one["id"] for one in json.loads(out.out)] == ["d/s"]
    assert cli.main([*given, "log", URL]) == cli.DONE
    for more in ([], ["-v"]):
        assert cli.main(["tag", URL, "v1", *given, *more]) == cli.FAILED
        out = capsys.readouterr()
        assert "do not allow it" in out.err
        assert ("Traceback" in out.err) == bool(more)
        assert reader["secret"] not in out.out + out.err
        assert reader["key"] not in out.out + out.err
    assert cli.main(["sessions", URL, "--storage", CANARY]) == cli.USAGE
    assert cli.main(["sessions", URL, "--storage", f"secrte={CANARY}", "-v"]) == cli.USAGE
    out = capsys.readouterr()
    assert CANARY not in out.out + out.err
    assert writer["secret"] not in out.out + out.err


def test_a_place_where_there_is_none_is_not_found_under_its_plain_url(guarded):
    with pytest.raises(NotFoundError, match=f"No store 's3://{BUCKET}/nothing'"):
        opened(guarded[1], f"s3://{BUCKET}/nothing")


def test_a_text_is_shown_without_the_secrets_that_were_given():
    parse("s3://b/lab", {"secret": CANARY, "client_kwargs": {"aws_session_token": f"{CANARY}2"}})
    text = f"403, url='https://me:pw@host/x?sig=abc', {CANARY}, {CANARY}2, http://[::1?a=b end"
    found = hidden(text)
    assert found == "403, url='https://host/x', ***, ***, http://... end"
