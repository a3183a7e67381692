"""A journal that cannot be opened: control lives, says why, and there is no beam."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from control.bookkeeper import Bookkeeper
from control.layer_machine import State
from control.session_desk import SessionDesk
from facility.errors import JournalError
from facility.timebase import ManualClock
from journal.schema import VERSION
from journal.store import open_journal, sqlite_url
from rig.processes.control import journal_of
from rig.virtual_time import VirtualLoop, run_virtual
from tests.control.fakes import bench, program
from tests.journal.rows import batch


def garbage(path: Path) -> str:
    path.write_bytes(b"no journal " * 4096)
    return sqlite_url(path)


def of_another_facility(path: Path) -> str:
    open_journal(sqlite_url(path), "pimms").close()
    return sqlite_url(path)


def of_a_newer_version(path: Path) -> str:
    journal = open_journal(sqlite_url(path), "wuwei")
    with journal.engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO schema_steps VALUES ({VERSION + 1}, 'wuwei')")
    journal.close()
    return sqlite_url(path)


def torn(path: Path) -> str:
    """The disk has lost its middle."""
    journal = open_journal(sqlite_url(path), "wuwei")
    journal.append([batch(*range(200))])
    journal.close()
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xff" * (len(data) - 100))
    return sqlite_url(path)


def without_a_folder(path: Path) -> str:
    return sqlite_url(path.parent / "nowhere" / path.name)


def without_a_server(path: Path) -> str:
    if find_spec("psycopg") is None:
        pytest.skip("psycopg not installed")
    return f"postgresql+psycopg://nobody@/journal?host={path.parent}"


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (garbage, "file is not a database"), (torn, "malformed"), (without_a_folder, "unable to open"),
        (of_another_facility, "journal of pimms, not of wuwei"), (of_a_newer_version, "version 3; known: 2"),
        (without_a_server, "cannot be opened: "),
    ],
)  # fmt: skip
def test_without_a_journal_nothing_is_loaded_and_nothing_armed(
    made: Callable[[Path], str], words: str, tmp_path: Path
) -> None:
    opened, writer = journal_of(made(tmp_path / "journal.sqlite"), "wuwei", ManualClock())
    assert opened is None
    assert words in str(writer.fault())
    loop = VirtualLoop(limit_ns=3_600_000_000_000)

    async def main() -> None:
        made = await bench(loop, books=Bookkeeper(writer))
        async with made.sequencer:
            desk = SessionDesk(made.sequencer, lambda *_: program(), None, "energies")
            with pytest.raises(JournalError, match=words):
                await desk.verbs["load"]({"plan": "p", "room": "H"}, "operator")
            await made.sequencer.load(program(), mode="qa", operator="test")  # if somebody came so far all the same
            await made.sequencer.prepare()
            await made.sequencer.until({State.READY}, 30.0)
            await made.sequencer.start("test")
            summary = await made.sequencer.recorded(30.0)
        assert words in summary.reason
        assert not any(line.startswith("arm ") for line in made.machine.log)

    run_virtual(main(), loop)
