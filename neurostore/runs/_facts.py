"""What a run notes of itself when it begins: recipe, data, versions, machine, time."""

from __future__ import annotations

import os
import platform
import secrets
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import neurostore
from neurostore.errors import JSON
from neurostore.recipes import Recipe
from neurostore.store.urls import redacted


def environment() -> dict[str, JSON]:
    """Versions that a result may depend on."""
    found: dict[str, JSON] = {"neurostore": neurostore.__version__}
    for name in ("torch", "lightning-fabric", "safetensors", "numpy", "zarr", "icechunk"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found | {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "threads": os.cpu_count(),
    }


def facts_of(recipe: Recipe, identity: Mapping[str, Any]) -> dict[str, JSON]:
    started = now()
    stamp = started.replace("-", "").replace(":", "")[:15]
    url = redacted(str(identity["url"]))
    return {
        "id": f"{recipe.name}-{stamp}-{secrets.token_hex(3)}",
        "store": url,
        "dataset": {**identity, "url": url},
        "recipe": recipe.digest,
        "environment": environment(),
        "host": socket.gethostname(),
        "seed": recipe.seed,
        "started": started,
        "finished": None,
        "status": "training",
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
