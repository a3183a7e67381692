"""Where a user's runs, sessions and keys live: `$IONCTL_HOME`, by default the user's data directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from facility.errors import ConfigError

HOME_ENV = "IONCTL_HOME"
JOURNAL_ENV = "IONCTL_JOURNAL"
PARTS = "parts"
"""Below the folder of a session: what its earlier parts left."""
EARLIER = "earlier"
"""Below a folder: what earlier runs, or deliveries of the same name, left in it."""
JOURNAL_FILE = "journal.sqlite"


@dataclass(frozen=True)
class Home:
    """Folders below one root; made when first asked for, readable by their owner alone."""

    root: Path

    def run_dir(self, facility_id: str) -> Path:
        """Run files, ports, process ids and logs of the processes of one facility."""
        return _folder(self.root / "run" / facility_id)

    def session_dir(self, session: str) -> Path:
        """Spot log, events, truth and summary of one session."""
        return _folder(self.root / "sessions" / session)

    @property
    def sessions(self) -> Path:
        """Folders of the sessions: all of the home that control is told of."""
        return _folder(self.root / "sessions")

    def virtual_journal(self, session: str) -> Path | None:
        """The journal that a virtual delivery left in its session's folder; None if there is none."""
        found = self.sessions / session / JOURNAL_FILE
        return found if Path(session).name == session and found.is_file() else None

    def journal_url(self, facility_id: str, env: Mapping[str, str] | None = None) -> str:
        """Where the journal of a facility lies: `$IONCTL_JOURNAL`, or a file of its own."""
        environment = os.environ if env is None else env
        return environment.get(JOURNAL_ENV) or f"sqlite:///{_folder(self.root / 'journal') / f'{facility_id}.sqlite'}"

    @property
    def keys(self) -> Path:
        """Keys that sign commands."""
        return _folder(self.root / "keys")

    @property
    def received(self) -> Path:
        """Plans that came by DICOM."""
        return _folder(self.root / "received")

    @property
    def plans(self) -> Path:
        """Plans that the demo makes."""
        return _folder(self.root / "plans")


def find_home(given: Path | None = None, env: Mapping[str, str] | None = None) -> Home:
    """The home folder: argument, `$IONCTL_HOME`, the user's data directory."""
    environment = os.environ if env is None else env
    if given is not None:
        return Home(Path(given).expanduser().resolve())
    if environment.get(HOME_ENV):
        return Home(Path(environment[HOME_ENV]).expanduser().resolve())
    import platformdirs

    return Home(Path(platformdirs.user_data_dir("ionctl", appauthor=False)))


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as problem:
        raise ConfigError(
            "home.unwritable",
            f"cannot make the folder: {problem.strerror or problem}",
            str(path),
            f"give a writable folder with --home or ${HOME_ENV}",
        ) from problem
    return path
