"""`Stimulus`: frames, or where they lie, and embeddings of them, as they are put into a store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from fractions import Fraction
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from neurostore.clocks import exact
from neurostore.errors import UsageError
from neurostore.schemas import Values, contract
from neurostore.store._columns import text

FRAMES, EMBEDDINGS = "stimulus_frames/v1", "stimulus_embeddings/v1"
TAKEN = ("frame", "stimulus")
"""No encoder has these names: a stream of presentations means something else by them."""


@dataclass(frozen=True, eq=False)
class Stimulus:
    """A stimulus and embeddings of its frames, kept once for all sessions that saw it.

    A stimulus never changes once it is in a store; embeddings are added to it, and another one by
    the same encoder is its next version. Without frames and URL it names one that is there.

    Parameters
    ----------
    name : str
        As presentations name it: ``builder.add_presentations(..., stimulus=name)``.
    frames : (frame, ...), optional
        uint8 or float; may be lazy and larger than memory.
    url : str, optional
        Where the frames lie; kept as text and never fetched.
    n_frames : int, optional
        How many there are, where neither frames nor embeddings say so.
    rate : float, optional
        Frames a second, exact as written, where they are regular.
    embeddings : mapping of str to (frame, dim) float16 or float32
        One vector a frame, by encoder.
    description : str, optional

    Raises
    ------
    UsageError
        Where a name cannot be asked for, values are of another kind, or lengths differ.
    """

    name: str
    frames: Values | None = field(default=None, repr=False)
    _: KW_ONLY
    url: str = ""
    n_frames: int | None = None
    rate: float | str | Fraction | None = None
    embeddings: Mapping[str, Values] = field(default_factory=dict, repr=False)
    description: str = ""

    def __post_init__(self) -> None:
        if not text(self.name, "The name of a stimulus") or not self.name.isprintable():
            raise UsageError(f"A stimulus needs a name in plain characters, found {self.name!r}.")
        for key in ("url", "description"):
            object.__setattr__(self, key, text(getattr(self, key), f"{self._said}: {key}"))
        if self.rate is not None and exact(self.rate) <= 0:
            raise UsageError(f"{self._said} needs a rate above 0 frames a second: {self.rate}.")
        self._refuse_secret()
        if self.frames is not None:
            frames = _numbers(self.frames, FRAMES, f"Frames of {self._said}")
            object.__setattr__(self, "frames", frames)
        made = {}
        for encoder, values in self.embeddings.items():
            _check_encoder(encoder)
            where = f"The embedding {encoder!r} of {self._said}"
            made[encoder] = _numbers(values, EMBEDDINGS, where)
            if len(made[encoder].shape) != 2:
                raise UsageError(f"{where} must be (frame, dim), found {made[encoder].shape}.")
        object.__setattr__(self, "embeddings", made)
        if self.adds and (self.rate is not None or self.description or not made):
            raise UsageError(
                f"{self._said} has neither frames nor a URL, so it can only add embeddings to the "
                "one that is in the store."
            )
        self._refuse_lengths()

    @property
    def adds(self) -> bool:
        """Whether it only names a stimulus that is there, for its embeddings."""
        return self.frames is None and not self.url

    @property
    def length(self) -> int:
        """How many frames it has."""
        return next(iter(self._lengths().values()))

    @property
    def _said(self) -> str:
        return f"stimulus {self.name!r}"

    def _lengths(self) -> dict[str, int]:
        found = {} if self.frames is None else {"frames": self.frames.shape[0]}
        found |= {} if self.n_frames is None else {"n_frames": int(self.n_frames)}
        return found | {encoder: one.shape[0] for encoder, one in self.embeddings.items()}

    def _refuse_lengths(self) -> None:
        if self.n_frames is not None and not isinstance(self.n_frames, int | np.integer):
            raise UsageError(f"{self._said} needs a whole n_frames, found {self.n_frames!r}.")
        found = self._lengths()
        if len(set(found.values())) != 1 or min(found.values()) < 1:
            raise UsageError(
                f"{self._said} needs one number of frames, above 0, found {found or 'none'}. "
                "Say n_frames= where only a URL is given."
            )

    def _refuse_secret(self) -> None:
        parts = urlsplit(self.url)
        if parts.username or parts.password:
            raise UsageError(
                f"The URL of {self._said} holds a user name or password, which everybody who reads "
                "the store would see. Leave it out."
            )


def _check_encoder(encoder: str) -> None:
    text(encoder, "The name of an encoder")
    if (
        not encoder
        or "/" in encoder
        or not encoder.isprintable()
        or encoder in TAKEN
        or re.fullmatch(r"v\d+", encoder)
    ):
        raise UsageError(
            "An encoder needs a name without slashes that is no version and none of "
            f"{', '.join(TAKEN)}: 'clip_l14'; found {encoder!r}."
        )


def _numbers(values: Any, id: str, where: str) -> Values:
    """Values (frame, ...) of a dtype that the contract takes; lazy where they were."""
    if np.ma.isMaskedArray(values):
        raise UsageError(f"{where} are masked; every value of a frame must be there.")
    lazy = hasattr(values, "shape") and isinstance(getattr(values, "dtype", None), np.dtype)
    try:
        made: Values = values if lazy and not hasattr(values, "iloc") else np.asarray(values)
    except ValueError as error:
        raise UsageError(f"{where} are no array: {str(error).splitlines()[0]}") from error
    kinds = contract(id).columns["value"].dtype
    if str(made.dtype) not in kinds:
        raise UsageError(
            f"{where}: found {made.dtype}, expected {', '.join(kinds)}. Convert it: "
            f"values.astype({kinds[-1]!r})."
        )
    if not made.shape or 0 in made.shape:
        raise UsageError(f"{where} must be (frame, ...) and not empty, found {made.shape}.")
    return made
