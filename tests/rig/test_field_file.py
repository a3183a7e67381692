"""The record of the field in a file: there and back, and anything else is a ValueError."""

from __future__ import annotations

from pathlib import Path

import pytest

from interlocks.field_book import FieldBook
from interlocks.model import PolicySettings
from rig.field_file import MAX_BYTES, FieldFile

RECORD = {"schema": "ionctl.field/1", "session": "S-1", "begun": True, "holds": {}, "pauses": 2, "unresolved": False}


def test_there_and_back(tmp_path: Path) -> None:
    store = FieldFile(tmp_path)
    assert store.load() is None
    store.save(RECORD)
    store.save({**RECORD, "pauses": 3})
    assert FieldFile(tmp_path).load() == {**RECORD, "pauses": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["field.json"]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"schema": "ionctl.field/1"}', b" " * (MAX_BYTES + 1)])
def test_a_record_that_cannot_be_read_is_a_termination(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "field.json").write_bytes(data)
    events: list[str] = []
    book = FieldBook((), PolicySettings(), FieldFile(tmp_path), lambda kind, **_: events.append(kind))
    assert book.state.unresolved
    assert events == ["field.terminated"]
    assert FieldFile(tmp_path).load() is not None


def test_a_folder_in_its_place_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "field.json").mkdir()
    with pytest.raises(ValueError, match="field"):
        FieldFile(tmp_path).load()
