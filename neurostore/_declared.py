"""Where the declarations (contracts, cards, recipes) lie, installed or in a checkout."""

from __future__ import annotations

from pathlib import Path

from neurostore.errors import NeurostoreError, NotFoundError

FOLDERS = ("schemas", "catalog", "models")

_PACKAGE = Path(__file__).parent


def folder(name: str) -> Path:
    """Find a declaration folder: inside the installed package, else beside it in a checkout.

    Parameters
    ----------
    name : str
        One of ``schemas``, ``catalog`` and ``models``.

    Returns
    -------
    Path
        The folder, absolute where the package's own path is.

    Raises
    ------
    NotFoundError
        There is no declaration folder of that name.
    NeurostoreError
        The folder is missing: the installation is not whole.
    """
    if name not in FOLDERS:
        raise NotFoundError("declaration folder", name, FOLDERS)
    places = (_PACKAGE / "_bundled" / name, _PACKAGE.parent / name)
    for place in places:
        if place.is_dir():
            return place
    raise NeurostoreError(
        f"The declaration folder {name!r} is neither at {places[0]} nor at {places[1]}. "
        "Install the package again: pip install --force-reinstall --no-deps neurostore"
    )


def declared(name: str, pattern: str = "*.toml") -> list[Path]:
    """List the declarations of one kind.

    Parameters
    ----------
    name : str
        One of ``schemas``, ``catalog`` and ``models``.
    pattern : str
        Glob within the folder, e.g. ``"*/v*.toml"`` for contracts.

    Returns
    -------
    list of Path
        The files, sorted by path.

    Raises
    ------
    NeurostoreError
        As `folder` does.
    """
    return sorted(path for path in folder(name).glob(pattern) if path.is_file())
