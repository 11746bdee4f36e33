from pathlib import Path

import pytest

from neurostore import _declared
from neurostore.errors import NeurostoreError, NotFoundError


@pytest.mark.parametrize("name", _declared.FOLDERS)
def test_every_declaration_folder_is_found_and_says_what_it_holds(name: str) -> None:
    assert (_declared.folder(name) / "README.md").is_file()


def test_a_mistyped_folder_is_answered_with_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'schemas'"):
        _declared.folder("schema")


def test_the_bundled_folder_wins_over_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_declared, "_PACKAGE", tmp_path / "neurostore")
    beside = tmp_path / "catalog"
    beside.mkdir()
    assert _declared.folder("catalog") == beside
    bundled = tmp_path / "neurostore" / "_bundled" / "catalog"
    bundled.mkdir(parents=True)
    assert _declared.folder("catalog") == bundled


def test_a_missing_folder_names_both_places_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_declared, "_PACKAGE", tmp_path / "neurostore")
    with pytest.raises(NeurostoreError, match="pip install") as caught:
        _declared.folder("models")
    assert str(tmp_path / "neurostore" / "_bundled" / "models") in caught.value.line
    assert str(tmp_path / "models") in caught.value.line


def test_declared_lists_only_matching_files_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_declared, "_PACKAGE", tmp_path / "neurostore")
    for name in ("schemas/units/v1.toml", "schemas/spikes/v1.toml", "schemas/README.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = [path.parent.name for path in _declared.declared("schemas", "*/v*.toml")]
    assert found == ["spikes", "units"]
    assert _declared.declared("schemas") == []
