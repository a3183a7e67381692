"""The run directory: what runs for a facility, who holds it, and where it is reached.

Each process holds an exclusive lock on its `<name>.lock` for its whole life; the kernel lets go when the process dies,
however it dies. So a process id in a file is believed only while the lock of that name is held.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facility.errors import ChannelError, ConfigError

RUN_SCHEMA = "ionctl.run/1"
NAMES = ("plant", "safety", "control")
CONFIG_FILE = "facility.json"
_ENDED = b"ended\n"
POST_MORTEM = "post-mortem"
"""Kind of the event that tells of one, and the folder of the files, below a session's (virtual) or the run's."""
SAFETY_SCANS = "post-mortem.safety"
"""Kind of the event that names a file of scans that the safety controller has kept of a trip."""


class Lock:
    """The lock of one process; held until the process ends or `release` is called."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.lock"
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            os.close(self._fd)
            raise ChannelError(
                "run.already", f"{name} already runs", str(folder), "stop it first: ionctl down"
            ) from problem
        os.ftruncate(self._fd, 0)

    def note_end(self) -> None:
        """Leave a note that the process has come to its orderly end (`has_noted_end`)."""
        os.pwrite(self._fd, _ENDED, 0)

    def release(self) -> None:
        """Let go."""
        os.close(self._fd)


def is_alive(folder: Path, name: str) -> bool:
    """Whether a process holds the lock of this name."""
    try:
        fd = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def has_noted_end(folder: Path, name: str) -> bool:
    """Whether the last process that held the lock of this name came to its orderly end."""
    try:
        return (folder / f"{name}.lock").read_bytes() == _ENDED
    except FileNotFoundError:
        return False


@dataclass
class RunFile:
    """`run.json`: what was started, and what each process said when it was ready."""

    facility: str
    config_hash: str
    room: str
    species: str
    seed: int
    speed: float
    started_unix_s: float
    processes: dict[str, dict[str, Any]] = field(default_factory=dict)
    schema: str = RUN_SCHEMA

    def write(self, folder: Path) -> None:
        """Replace `run.json` in one step."""
        text = json.dumps(self.__dict__, indent=1, sort_keys=True)
        new = folder / "run.json.new"
        new.write_text(text + "\n", encoding="utf-8")
        new.replace(folder / "run.json")

    def port(self, process: str, name: str = "ca_port") -> int:
        """A port that a process reported; ChannelError if it has not."""
        try:
            return int(self.processes[process][name])
        except KeyError:
            raise ChannelError("run.not-ready", f"{process} reported no {name}", self.facility) from None

    @property
    def ca_addresses(self) -> list[str]:
        """Every Channel Access server of the run as `127.0.0.1:port`, in the order in which the file has them."""
        ready = [self.processes[name] for name in sorted(self.processes)]
        return [f"127.0.0.1:{one['ca_port']}" for one in ready if one.get("ca_port")]


def read_run_file(folder: Path) -> RunFile | None:
    """The run file, None where there is none; ConfigError if it is not one."""
    path = folder / "run.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise ConfigError("run.unreadable", str(problem), str(path), "run 'ionctl down'") from problem
    if not isinstance(data, dict) or data.get("schema") != RUN_SCHEMA:
        raise ConfigError("run.schema", f"schema is not {RUN_SCHEMA}", str(path), "run 'ionctl down'")
    try:
        return RunFile(**data)
    except TypeError as problem:
        raise ConfigError("run.keys", str(problem), str(path), "run 'ionctl down'") from problem
