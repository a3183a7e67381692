"""The record of the field in a file: there and back, and anything else is a ValueError."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event

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


def test_record_and_folder_are_forced_to_the_disk_in_this_order(tmp_path: Path) -> None:
    forced: list[str] = []
    store = FieldFile(tmp_path, lambda handle: forced.append(os.readlink(f"/proc/self/fd/{handle}")))
    store.save(RECORD)
    store.wait(5.0)
    assert forced == [str(tmp_path / "field.json"), str(tmp_path)]


def test_a_disk_that_is_slow_keeps_nobody_waiting_and_gets_the_newest_record(tmp_path: Path) -> None:
    begun, goes_on, forced = Event(), Event(), []

    def slow(handle: int) -> None:
        begun.set()
        if not goes_on.wait(5.0):
            raise OSError("nobody let the disk go on")
        forced.append(
            os.pread(handle, MAX_BYTES, 0) if os.readlink(f"/proc/self/fd/{handle}") != str(tmp_path) else b""
        )

    store = FieldFile(tmp_path, slow)
    store.save(RECORD)
    assert begun.wait(5.0)
    for pauses in range(3, 8):
        store.save({**RECORD, "pauses": pauses})
    assert FieldFile(tmp_path).load() == {**RECORD, "pauses": 7}
    goes_on.set()
    store.wait(5.0)
    assert len(forced) == 4  # the first, and one for the five after it
    assert b'"pauses": 7' in forced[2]


def test_a_disk_that_fails_ends_the_next_save(tmp_path: Path) -> None:
    def broken(_handle: int) -> None:
        raise OSError("no disk")

    store = FieldFile(tmp_path, broken)
    store.save(RECORD)
    with pytest.raises(OSError, match="no disk"):
        store.wait(5.0)
    with pytest.raises(OSError, match="no disk"):
        store.save(RECORD)
