"""Pictures small enough to be inlined in a page, in one look."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats: TypeAlias = NDArray[np.float64]

# Okabe & Ito 2008, without its yellow and black: colours that colour-blind people tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
REST, INK, MARK = "#777777", "#222222", "#EDEDED"

DPI = 200


@dataclass(frozen=True)
class Picture:
    """A picture as bytes, with the words that go with it.

    Attributes
    ----------
    data : bytes
        An SVG file.
    alt : str
        What is to be seen, for who cannot see it.
    caption : str
        What it shows, and of what.
    """

    data: bytes
    alt: str
    caption: str

    @property
    def uri(self) -> str:
        """The picture as a ``data:`` address; as an image, an SVG runs no script."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.data).decode()

    def html(self) -> str:
        """Write it as a ``<figure>`` that stands on its own."""
        image = f'<img src="{self.uri}" alt="{escape(self.alt)}">'
        return f"<figure>{image}<figcaption>{escape(self.caption)}</figcaption></figure>"

    def _repr_html_(self) -> str:
        return self.html()

    def save(self, path: str | Path) -> Path:
        """Write the SVG to `path`."""
        Path(path).write_bytes(self.data)
        return Path(path)


def empty(width: float, height: float) -> Figure:
    """Make an empty figure, inches; no pyplot, so that nothing outlives the call."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("Drawing figures", "figures") from error
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def picture(figure: Figure, alt: str, caption: str) -> Picture:
    """The figure as a picture."""
    file = BytesIO()
    figure.savefig(file, format="svg", dpi=DPI, metadata={"Date": None, "Creator": None})
    return Picture(file.getvalue(), alt, caption)


def plain(axes: Axes) -> None:
    """Take away what is not data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.locator_params(axis="x", steps=[1, 2, 5, 10])
