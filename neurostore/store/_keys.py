"""The keys by which a store is read: plain segments below its root, and nothing else."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from zarr.storage import WrapperStore

from neurostore.errors import StoreError, UsageError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.abc.store import Store as ZarrStore
    from zarr.core.buffer import Buffer, BufferPrototype

    _Buffers: TypeAlias = list[Buffer | None]

_SEGMENT = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_LONGEST = 1024
"""Characters in a key."""


def check_key(key: str) -> str:
    """A key, or a folder of keys, whose every segment is one that format 1 writes.

    Raises
    ------
    StoreError
        Where it leads out of the store, or could: ``..``, a first slash, a backslash, NUL.
    """
    segments = key.removesuffix("/").split("/") if key else ()
    good = len(key) <= _LONGEST and all(
        _SEGMENT.fullmatch(one) and one not in (".", "..") and one[:2] != "__" for one in segments
    )
    if not good:
        raise StoreError(
            f"The key {key[:200]!r} is none of a store: its segments are letters, digits, '_', '-' "
            "and '.', at most 100 of them. Nothing was read."
        )
    return key


class Keys(WrapperStore[Any]):
    """A snapshot: it is asked for nothing but plain keys, lists nothing else, and is never written.

    Icechunk's own answers some calls that would delete without a word.
    """

    def _with_store(self, store: ZarrStore) -> Keys:
        return Keys(store)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        found: Buffer | None = await self._store.get(check_key(key), prototype, byte_range)
        return found

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> _Buffers:
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        for key, prototype, part in requests:
            yield key, await self.get(key, prototype, part)

    async def is_empty(self, prefix: str) -> bool:
        return bool(await self._store.is_empty(check_key(prefix)))

    async def exists(self, key: str) -> bool:
        return bool(await self._store.exists(check_key(key)))

    async def getsize(self, key: str) -> int:
        try:
            return int(await self._store.getsize(check_key(key)))  # else the whole value is read
        except KeyError as error:  # as the engine says that the group above is not there
            raise FileNotFoundError(key) from error

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        async for name in self._store.list_dir(check_key(prefix)):
            yield check_key(name)

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        async for key in self._store.list_prefix(check_key(prefix)):
            yield check_key(key)

    async def list(self) -> AsyncIterator[str]:
        async for key in self._store.list():
            yield check_key(key)

    @property
    def read_only(self) -> bool:
        return True

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        self._check_writable()

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        self._check_writable()

    async def delete(self, key: str) -> None:
        self._check_writable()

    async def delete_dir(self, prefix: str) -> None:
        self._check_writable()

    async def clear(self) -> None:
        self._check_writable()

    def _check_writable(self) -> None:
        if not self._store.supports_writes:
            self._store._check_writable()  # a release says how to go on
        raise UsageError("A snapshot is read-only. Write through a transaction of its store.")
