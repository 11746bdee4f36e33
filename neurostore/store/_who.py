"""Who does something to a store, from where and when."""

from __future__ import annotations

import getpass
import os
import socket
from datetime import UTC, datetime
from typing import Any

import neurostore


def who() -> dict[str, Any]:
    """Author, host, version and time, as every commit, lease and expiry carries them."""
    return {
        "author": os.environ.get("NEUROSTORE_AUTHOR") or getpass.getuser(),
        "host": socket.gethostname(),
        "version": neurostore.__version__,
        "time": datetime.now(UTC).isoformat(timespec="microseconds"),
    }
