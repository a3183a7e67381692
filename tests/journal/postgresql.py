"""A PostgreSQL server of the tests' own: in a folder, on a socket there, gone with the block."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from importlib.util import find_spec
from pathlib import Path

USER = "postgres"


def _bin() -> Path | None:
    found = shutil.which("initdb") or next(iter(sorted(glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)), None)
    return None if found is None else Path(found).resolve().parent


def why_not() -> str:
    """Why no server can be started here; empty if one can."""
    if _bin() is None:
        return "PostgreSQL not installed"
    if find_spec("psycopg") is None:
        return "psycopg not installed"
    if os.geteuid() == 0 and USER not in {entry.pw_name for entry in pwd.getpwall()}:
        return "PostgreSQL does not run as root, and there is no other user for it"
    return ""


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """URL of a server that runs inside the block, with what one before it has left in this folder; it refuses to run as
    root, so it runs as its own user there."""
    programs = _bin()
    if programs is None:
        raise RuntimeError("PostgreSQL is not installed")
    owner = USER if os.geteuid() == 0 else None
    home = folder / "pg"  # short: a socket's path has 107 bytes at most
    begun = home.is_dir()
    home.mkdir(exist_ok=True)
    if owner is not None:
        shutil.chown(home, owner)
        for parent in [folder, *folder.parents][:3]:
            parent.chmod(parent.stat().st_mode | 0o011)

    def call(program: str, *arguments: str) -> None:
        subprocess.run([str(programs / program), *arguments], user=owner, check=True, cwd=home, timeout=60,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       env={**os.environ, "HOME": str(home)})  # fmt: skip

    data = str(home / "data")
    if not begun:
        call("initdb", "-D", data, "-A", "trust", "-U", USER, "-N")
    options = f"-c listen_addresses='' -c unix_socket_directories={home}"
    call("pg_ctl", "-D", data, "-w", "-l", str(home / "log"), "-o", options, "start")
    try:
        yield f"postgresql+psycopg://{USER}@/postgres?host={home}"
    finally:
        call("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
