"""Releases: one snapshot as a plain Zarr tree with manifests, at any URL that fsspec knows.

The format is told in `neurostore.store.release._manifest`.
"""

from __future__ import annotations

from neurostore.store.release._publish import Published, publish
from neurostore.store.release._read import Release

__all__ = ["Published", "Release", "publish"]
