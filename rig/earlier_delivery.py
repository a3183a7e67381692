"""What an earlier virtual delivery of the same name has left is kept when another one takes its place.

The name of a virtual delivery is a function of plan, configuration, room and seed, and so is its course: the same again
leaves the same. Where something else is different (a limit, an interruption, a part that went on, the program), the
earlier one happened otherwise, and what was recorded of it is nobody's to delete.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from facility.errors import JournalError
from journal.store import open_journal, sqlite_url
from rig.deliver import EVENTS_FILE
from rig.home import EARLIER, JOURNAL_FILE, PARTS

_LOCKS = ".lock"


def keep_earlier(folder: Path, session: str, facility_id: str, events: bytes, tip: str) -> tuple[str, ...]:
    """Put what is in the folder of a virtual session aside, as `earlier/N` in it, unless it is the very same.

    Args:
        folder: of the session.
        events, tip: event log and end of the journal's chain of the delivery that takes its place; an empty tip where
            it has no journal.

    Returns a sentence for whoever delivers; none where nothing was kept.
    """
    left = [path for path in folder.iterdir() if path.name != EARLIER and path.suffix != _LOCKS]
    if not left or (_bytes(folder / EVENTS_FILE) == events and not (folder / PARTS).exists()
                    and tip in ("", _tip(folder / JOURNAL_FILE, facility_id))):  # fmt: skip
        return ()
    below = folder / EARLIER
    numbers = [int(path.name) for path in below.glob("[0-9]*")] if below.exists() else []
    there = below / str(max(numbers, default=0) + 1)
    there.mkdir(parents=True, mode=0o700)
    for path in left:
        path.rename(there / path.name)
    return (f"session {session} was delivered before, and it went otherwise: what that left is kept in {there}",)


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _tip(path: Path, facility_id: str) -> str:
    """Where a journal ends; empty for none, or one that cannot be read."""
    try:
        with closing(open_journal(sqlite_url(path), facility_id, read_only=True)) as journal:
            return journal.tip().hash
    except JournalError:
        return ""
