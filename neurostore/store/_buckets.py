"""Buckets as the engine takes them: fsspec's storage options become Icechunk's storages.

Whatever is not in the options comes from the environment, as the libraries of the provider read it
(``AWS_ACCESS_KEY_ID``, ``GOOGLE_APPLICATION_CREDENTIALS``, ``AZURE_STORAGE_ACCOUNT_NAME`` ...).
"""

from __future__ import annotations

import difflib
import http.client
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import icechunk

from neurostore.errors import MissingExtraError, StoreError, UsageError
from neurostore.store._format import digest
from neurostore.store.urls import Place, remember

SECONDS = 10.0
"""For how long an endpoint may stay silent when it is first asked for anything."""
IDLE_SECONDS = 30
"""For how long a stream of bytes may stand still."""
KNOWN: dict[str, dict[str, type | tuple[type, ...]]] = {
    "s3": {
        **dict.fromkeys(["key", "secret", "token", "profile", "endpoint_url"], str),
        **dict.fromkeys(["client_kwargs.endpoint_url", "client_kwargs.region_name"], str),
        **dict.fromkeys(["anon", "requester_pays"], bool),
    },
    "gs": {"token": (str, dict), "anon": bool},
    "az": {
        **dict.fromkeys(["account_name", "account_key", "sas_token", "connection_string"], str),
        **dict.fromkeys(["tenant_id", "client_id", "client_secret"], str),
        "anon": bool,
    },
}
"""The storage options of each scheme and their types, named as s3fs, gcsfs and adlfs name them."""
_FROM_ENVIRONMENT = ("google_default", "cloud")

RETRIES = icechunk.StorageSettings(
    retries=icechunk.StorageRetriesSettings(
        max_tries=5, initial_backoff_ms=100, max_backoff_ms=2_000
    )
)
"""Icechunk's own ten tries wait for half a minute before they say that nobody answers."""


def storage(place: Place) -> icechunk.Storage:
    """The storage of a bucket, with credentials from its options or from the environment.

    Raises
    ------
    UsageError
        Where an option is not known or of another type, or the URL holds what belongs there.
    StoreError
        Where an endpoint that is named does not answer.
    """
    scheme, bucket, prefix = _parts(place)
    options = _checked(scheme, place)
    if scheme == "s3":
        return _s3(bucket, prefix, options)
    return (_gs if scheme == "gs" else _az)(bucket, prefix, options)


def identity(place: Place) -> str:
    """Which bucket of which provider this is: the same text for the same objects, and no secret."""
    scheme, bucket, prefix = _parts(place)
    options = _checked(scheme, place)
    where = _endpoint(options) if scheme == "s3" else ""
    account = _account(options)[0] if scheme == "az" else ""
    return digest([scheme, where, account, bucket, prefix])[:16]


def _parts(place: Place) -> tuple[str, str, str]:
    parts = urlsplit(place.path)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            f"{place.url} was given with a user, a password or a query. Leave them out: "
            "credentials go into storage_options, or into the environment."
        )
    if not parts.netloc:
        raise UsageError(f"{place.url} names no bucket: {parts.scheme or 's3'}://BUCKET/PREFIX.")
    return parts.scheme, parts.netloc, parts.path.strip("/")


def _checked(scheme: str, place: Place) -> dict[str, Any]:
    """The options by name, each known and of its type; of values nothing is said."""
    remember(place.options)  # of a place that another process sent
    flat: dict[str, Any] = {}
    for name, value in place.options.items():
        if name == "client_kwargs" and isinstance(value, Mapping):
            flat |= {f"{name}.{key}": one for key, one in value.items()}
        elif value is not None:
            flat[name] = value
    known = KNOWN[scheme]
    for name, value in flat.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(
                f"{place.url} takes no storage option {name!r}.{hint} It takes: {', '.join(known)}."
            )
        if not isinstance(value, known[name]):
            raise UsageError(
                f"The storage option {name!r} of {place.url} is {_type(known[name])}, found "
                f"{type(value).__name__}."
            )
    return flat


def _type(known: type | tuple[type, ...]) -> str:
    names = {str: "text", bool: "true or false", dict: "a mapping"}
    return " or ".join(names[one] for one in (known if isinstance(known, tuple) else (known,)))


# ---- s3


def _endpoint(options: Mapping[str, Any]) -> str:
    said = options.get("endpoint_url") or options.get("client_kwargs.endpoint_url")
    found = said or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return str(found or "").rstrip("/")


def _s3(bucket: str, prefix: str, options: Mapping[str, Any]) -> icechunk.Storage:
    endpoint = _endpoint(options)
    if endpoint:
        _reach(endpoint)
    region = options.get("client_kwargs.region_name") or os.environ.get("AWS_REGION")
    region = region or os.environ.get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else None)
    given: dict[str, Any] = {}
    if options.get("anon"):
        given["anonymous"] = True
    elif "profile" in options:
        given["get_credentials"] = partial(profile_credentials, options["profile"])
        given["get_credentials"]()  # a profile that is not there is said now, and in one line
    elif {"key", "secret"} & options.keys():
        if not {"key", "secret"} <= options.keys():
            raise UsageError(f"s3://{bucket} needs both storage options 'key' and 'secret'.")
        given |= {"access_key_id": options["key"], "secret_access_key": options["secret"]}
        given |= {"session_token": options.get("token")}
    elif "token" in options:
        raise UsageError(f"s3://{bucket} takes 'token' together with 'key' and 'secret' only.")
    else:
        given["from_env"] = True
    return icechunk.s3_storage(
        bucket=bucket,
        prefix=prefix or None,
        region=region,
        endpoint_url=endpoint or None,
        allow_http=endpoint.startswith("http://"),
        force_path_style=bool(endpoint),
        network_stream_timeout_seconds=IDLE_SECONDS,
        requester_pays=bool(options.get("requester_pays")),
        **given,
    )


def profile_credentials(profile: str) -> icechunk.S3StaticCredentials:
    """The credentials of a named profile of AWS, asked for again when they run out."""
    try:
        import botocore.exceptions
        import botocore.session
    except ImportError as error:
        raise MissingExtraError("The storage option 'profile'", "s3") from error
    try:
        found = botocore.session.Session(profile=profile).get_credentials()
    except botocore.exceptions.BotoCoreError as error:
        raise UsageError(f"The profile {profile!r} of AWS cannot be used: {error}.") from error
    if found is None:
        raise UsageError(f"The profile {profile!r} of AWS holds no credentials.")
    frozen = found.get_frozen_credentials()
    until = getattr(found, "_expiry_time", None)
    return icechunk.S3StaticCredentials(
        access_key_id=frozen.access_key,
        secret_access_key=frozen.secret_key,
        session_token=frozen.token,
        expires_after=until,
    )


_reached: set[str] = set()


def _reach(endpoint: str) -> None:
    """Ask an endpoint for anything at all, once a process: the engine would try for minutes."""
    wrong = UsageError("The storage option 'endpoint_url' is a URL like https://host:port.")
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:  # which would show what stands there, and may be a password
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in endpoint:
        raise wrong
    shown = f"{parts.scheme}://{parts.hostname}{f':{port}' if port else ''}"
    proxied = any(os.environ.get(name) for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy"))
    if shown in _reached or proxied:
        return
    made: Callable[..., http.client.HTTPConnection] = (
        http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    )
    connection = made(parts.hostname, port, timeout=SECONDS)
    try:
        connection.request("HEAD", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise StoreError(
            f"{shown} does not answer: {error or type(error).__name__}. Look at endpoint_url and "
            "at the network; nothing was read or written."
        ) from error
    finally:
        connection.close()
    _reached.add(shown)


# ---- gs, az


def _gs(bucket: str, prefix: str, options: Mapping[str, Any]) -> icechunk.Storage:
    token = options.get("token")
    given: dict[str, Any] = {}
    if token == "anon":
        given["anonymous"] = True
    elif token is None or token in _FROM_ENVIRONMENT:
        given["from_env"] = True
    elif isinstance(token, dict):
        given["service_account_key"] = json.dumps(token)
    else:
        try:
            kind = json.loads(Path(token).expanduser().read_text()).get("type")
        except (OSError, ValueError, AttributeError) as error:
            raise UsageError(
                f"The storage option 'token' of gs://{bucket} is a path of a JSON key file, 'anon' "
                f"or 'google_default'; what was given cannot be read ({type(error).__name__})."
            ) from None
        service = kind == "service_account"
        given["service_account_file" if service else "application_credentials"] = token
    return icechunk.gcs_storage(bucket=bucket, prefix=prefix or None, **given)


def _account(options: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The account of Azure, and the fields of a connection string."""
    text = str(options.get("connection_string", ""))
    fields = dict(part.partition("=")[::2] for part in text.split(";") if "=" in part)
    found = options.get("account_name") or fields.get("AccountName")
    return str(found or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")), fields


def _az(container: str, prefix: str, options: Mapping[str, Any]) -> icechunk.Storage:
    account, fields = _account(options)
    if not account:
        raise UsageError(
            f"az://{container} needs the storage option 'account_name', or "
            "AZURE_STORAGE_ACCOUNT_NAME in the environment."
        )
    names = {"tenant_id": "azure_storage_tenant_id", "client_id": "azure_storage_client_id"}
    names["client_secret"] = "azure_storage_client_secret"
    config = {names[name]: str(options[name]) for name in names if name in options}
    if options.get("anon"):
        config["azure_skip_signature"] = "true"
    if "BlobEndpoint" in fields:
        config["azure_storage_endpoint"] = fields["BlobEndpoint"]
    key = options.get("account_key") or fields.get("AccountKey")
    sas = options.get("sas_token") or fields.get("SharedAccessSignature")
    given: dict[str, Any] = (
        {"access_key": key} if key else {"sas_token": sas} if sas else {"from_env": True}
    )
    return icechunk.azure_storage(
        account=account, container=container, prefix=prefix, config=config or None, **given
    )
