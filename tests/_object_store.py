"""An object store on this machine, in a process of its own, that knows conditional puts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

BUCKET = "box"
_REQUEST = re.compile(r"\b([A-Z]+) /\S* HTTP/")
ADMIN = {"key": "AKIAADMINADMINADMIN0", "secret": "secret-of-the-admin"}


@dataclass(frozen=True)
class Served:
    """A running object store with one bucket, and where it notes its requests."""

    endpoint: str
    notes: Path

    def options(self, **other: Any) -> dict[str, Any]:
        """Storage options of one who may do all."""
        return {**ADMIN, "endpoint_url": self.endpoint, **other}

    def client(self, service: str = "s3", key: str = ADMIN["key"], secret: str = ADMIN["secret"]):
        """A client of boto3, for what the package itself does not do."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
        )

    def keys(self, prefix: str) -> list[str]:
        """What lies below a prefix."""
        pages = self.client().get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=BUCKET, Prefix=prefix)
        return [one["Key"] for page in found for one in page.get("Contents", [])]

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """The requests made inside, by method, known when it ends."""
        made: Counter[str] = Counter()
        before = len(self.notes.read_text().splitlines())
        yield made
        lines = self.notes.read_text().splitlines()[before:]
        made.update(found[1] for found in map(_REQUEST.search, lines) if found)


@contextmanager
def served(folder: Path, **environment: str) -> Iterator[Served]:
    """Start an object store with an empty bucket; ends it."""
    notes, announced = folder / "requests.log", "Running on http://127.0.0.1:"
    code = "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"
    with notes.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.DEVNULL,
            stderr=out,
            env={**os.environ, "NO_COLOR": "1", **environment},
        )
        try:
            deadline = time.monotonic() + 300
            while announced not in notes.read_text():
                assert process.poll() is None, notes.read_text()
                assert time.monotonic() < deadline, notes.read_text()
                time.sleep(0.05)
            port = notes.read_text().partition(announced)[2].split()[0]
            made = Served(f"http://127.0.0.1:{port}", notes)
            made.client().create_bucket(Bucket=BUCKET)
            yield made
        finally:
            process.kill()
            process.wait(30)


def user(store: Served, name: str, actions: list[str], by: dict[str, str]) -> dict[str, str]:
    """A user of the store who may do so much; gives the key and the secret."""
    iam = store.client("iam", **by)
    iam.create_user(UserName=name)
    statement = [{"Effect": "Allow", "Action": actions, "Resource": "*"}]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statement})
    iam.put_user_policy(UserName=name, PolicyName="may", PolicyDocument=policy)
    made = iam.create_access_key(UserName=name)["AccessKey"]
    return {"key": made["AccessKeyId"], "secret": made["SecretAccessKey"]}


def open_to_all(store: Served) -> None:
    """From now on everybody may read the bucket, who names no key too."""
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}
    statement["Resource"] = f"arn:aws:s3:::{BUCKET}/*"
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    store.client().put_bucket_policy(Bucket=BUCKET, Policy=policy)


def forbid_the_rest(store: Served) -> None:
    """From now on a request needs a user who may make it."""
    plain = {"Content-Type": "text/plain"}  # else the number is taken for a form
    request = urllib.request.Request(f"{store.endpoint}/moto-api/reset-auth", b"0", plain)
    with urllib.request.urlopen(request, timeout=10):
        pass
