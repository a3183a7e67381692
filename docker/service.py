"""One process of a facility as the main process of a container: ``python service.py plant|safety|control``.

The containers share a home (volume) and the plant's network, so that everything stays on loopback as on one machine.
Each waits for the one before it, starts its process with the supervisor's arguments, adds what the process said when it
was ready to ``run.json``, passes SIGTERM on and ends with its exit code. Nothing is restarted: see docker-compose.yml.

Settings by environment: IONCTL_HOME, IONCTL_FACILITY, IONCTL_ROOM, IONCTL_SPECIES, IONCTL_SEED, IONCTL_SPEED,
IONCTL_MQTT. ``--ready NAME`` is the health check: exit code 0 if that process is ready and alive.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from facility.config import Facility, load_facility
from facility.errors import ChannelError, IonctlError
from rig.children import START_TIMEOUT_S, start, wait_ready
from rig.home import find_home
from rig.keys import KeyStore
from rig.run_dir import CONFIG_FILE, NAMES, RunFile, is_alive, read_run_file
from rig.supervisor import RunOptions, _arguments
from rig.wall_clock import monotonic_s, sleep_s, unix_s

LOG = Path("/dev/stderr")
POLL_S = 0.1


def options_of(facility: Facility) -> RunOptions:
    """What the environment says, with the facility's first room and species where it says nothing."""
    env = os.environ.get
    return RunOptions(
        room=env("IONCTL_ROOM") or next(iter(facility.rooms)),
        species=env("IONCTL_SPECIES") or next(iter(facility.species)),
        seed=int(env("IONCTL_SEED") or 1),
        speed=float(env("IONCTL_SPEED") or 1.0),
        mqtt=env("IONCTL_MQTT") or "",
        log_json=True,
    )


def new_run(folder: Path, facility: Facility, options: RunOptions, keys: KeyStore) -> RunFile:
    """Begin a run: configuration, public keys, an empty run file."""
    (folder / "run.json").unlink(missing_ok=True)
    (folder / CONFIG_FILE).write_text(facility.canonical_json(), encoding="utf-8")
    keys.write_rings(folder)
    return RunFile(facility.id, facility.hash, options.room, options.species, options.seed, options.speed, unix_s())


def wait_for(folder: Path, name: str) -> RunFile:
    """The run file once `name` is ready in it and alive."""
    deadline = monotonic_s() + START_TIMEOUT_S
    while monotonic_s() < deadline:
        run = read_run_file(folder)
        if run is not None and name in run.processes and is_alive(folder, name):
            return run
        sleep_s(POLL_S)
    raise ChannelError("service.waits", f"{name} was not ready after {START_TIMEOUT_S:g} s", str(folder))


def serve(name: str) -> int:
    """Run one process until it ends."""
    facility = load_facility(os.environ.get("IONCTL_FACILITY") or "wuwei")
    home = find_home()
    folder = home.run_dir(facility.id)
    keys, options = KeyStore(home), options_of(facility)
    position = NAMES.index(name)
    run = new_run(folder, facility, options, keys) if position == 0 else wait_for(folder, NAMES[position - 1])
    child = start(name, _arguments(name, folder, run, options, keys), folder, LOG)

    def pass_on(number: int, _frame: Any) -> None:
        child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    run.processes[name] = wait_ready(child, name, LOG, START_TIMEOUT_S)
    run.write(folder)
    return child.wait()


def ready(name: str) -> int:
    """Health check."""
    facility_id = os.environ.get("IONCTL_FACILITY") or "wuwei"
    folder = find_home().run_dir(facility_id)
    run = read_run_file(folder)
    return 0 if run is not None and name in run.processes and is_alive(folder, name) else 1


def main(words: list[str]) -> int:
    """Exit code of the process, or of the error that kept it from starting."""
    if words[:1] == ["--ready"] and words[1:] and words[1] in NAMES:
        return ready(words[1])
    if len(words) != 1 or words[0] not in NAMES:
        sys.stderr.write(f"usage: service.py [--ready] {'|'.join(NAMES)}\n")
        return 2
    try:
        return serve(words[0])
    except IonctlError as problem:
        sys.stderr.write(f"{words[0]}: {problem}\n")
        return int(problem.exit_code)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
