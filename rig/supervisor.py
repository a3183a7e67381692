"""Starts, stops and shows the three processes of a facility on loopback.

It restarts nothing: a process that died takes the beam with it, and what comes next is a person's decision.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facility.config.models import Facility
from facility.errors import ChannelError, ConfigError, IonctlError
from facility.run_values import require_seed, require_speed
from rig.broker import broker_address
from rig.children import GONE, START_TIMEOUT_S, start, stop, tell_line, wait_ready
from rig.external.watch import require_real_time
from rig.home import Home
from rig.keys import KeyStore
from rig.link_relay import LinkRelay
from rig.run_dir import CONFIG_FILE, NAMES, RunFile, is_alive, read_run_file
from rig.trip_history import put_aside
from rig.wall_clock import unix_s

Tell = Callable[[str], None]
STOP_ORDER = ("control", "plant", "safety")
"""Control lets go of its session, the plant takes the beam off; safety watches until the end."""


@dataclass(frozen=True)
class RunOptions:
    """How a facility is started."""

    room: str
    species: str
    seed: int = 1
    speed: float = 1.0
    mqtt: str = ""
    log_json: bool = False
    allow_faults: bool = False
    mode: str = "clinical"
    """Mode at the start, and where the key switch stands."""

    def __post_init__(self) -> None:
        """UsageError for what no process could run with, before one is started."""
        require_seed(self.seed)
        require_speed(self.speed)
        if self.mqtt:
            broker_address(self.mqtt)


@dataclass(frozen=True)
class ProcessStatus:
    """One line of `ionctl status`."""

    name: str
    alive: bool
    pid: int | None
    ready: dict[str, Any]


class Supervisor:
    """The processes of one facility below one home."""

    def __init__(self, home: Home, facility_id: str, relay: LinkRelay | None = None) -> None:
        self.home = home
        self._relay = relay
        """Between the ends of the safety link, in tests."""
        self.facility_id = facility_id
        self.folder = home.run_dir(facility_id)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def up(self, facility: Facility, options: RunOptions, tell: Tell = lambda words: None) -> RunFile:
        """Start all three and wait until each is ready; ends those it started when one fails."""
        running = [name for name in NAMES if is_alive(self.folder, name)]
        if running:
            raise ChannelError(
                "run.already", f"{', '.join(running)} already run", str(self.folder), "stop them: ionctl down"
            )
        require_real_time(facility, options.speed)
        facility.room_named(options.room)
        facility.species_named(options.species)
        self._clear()
        (self.folder / CONFIG_FILE).write_text(facility.canonical_json(), encoding="utf-8")
        run = RunFile(facility.id, facility.hash, options.room, options.species, options.seed, options.speed, unix_s())
        keys = KeyStore(self.home)
        keys.write_rings(self.folder)
        try:
            for name in NAMES:
                tell(f"starting {name}")
                run.processes[name] = self._start(name, run, options, keys)
                run.write(self.folder)
                if name == "safety":
                    self._tell_peer(run, last=not options.allow_faults)
        except BaseException:
            self._stop_children(run)
            raise
        return run

    def _start(self, name: str, run: RunFile, options: RunOptions, keys: KeyStore) -> dict[str, Any]:
        log = self.folder / f"{name}.log"
        arguments = _arguments(name, self.folder, run, options, keys)
        if name == "safety" and self._relay is not None:
            self._relay.rack_at("127.0.0.1", run.port("plant", "link_port"))
            arguments += ["--plant-link", _text(self._relay.for_safety)]  # the last one counts
        child = start(name, arguments, self.folder, log)
        self._children[name] = child
        try:
            ready = wait_ready(child, name, log, START_TIMEOUT_S)
        except IonctlError:
            child.kill()
            child.wait()
            raise
        finally:
            if child.stdout is not None:
                child.stdout.close()
        if ready.get("config_hash") != run.config_hash:
            raise ConfigError(
                "run.config-hash", f"{name} runs configuration {ready.get('config_hash')}", str(log), run.config_hash
            )
        return ready

    def break_plant(self, order: str) -> None:
        """Say to the plant what fails (`ioc_sim.faults.fault_from_line`); it has to be started with `allow_faults`."""
        tell_line(self._children["plant"], order, last=False)

    def _tell_peer(self, run: RunFile, *, last: bool) -> None:
        """Tell the plant where the safety controller's end of the link is."""
        address = ("127.0.0.1", run.port("safety", "link_port"))
        if self._relay is not None:
            self._relay.safety_at(*address)
            address = self._relay.for_rack
        tell_line(self._children["plant"], _text(address), last=last)

    def down(self, tell: Tell = lambda words: None) -> dict[str, str]:
        """Stop what runs: control, plant (beam off), safety. What became of each; empty where nothing was up."""
        run = read_run_file(self.folder)
        if run is None and not any(is_alive(self.folder, name) for name in NAMES):
            return {}
        outcome: dict[str, str] = {}
        for name in STOP_ORDER:
            pid = None if run is None else run.processes.get(name, {}).get("pid")
            if pid is None:
                outcome[name] = self._orphan(name)
                continue
            outcome[name] = stop(self.folder, name, int(pid), self._children.pop(name, None))
            tell(f"{name} {outcome[name]}")
        (self.folder / "run.json").unlink(missing_ok=True)
        return outcome

    def _orphan(self, name: str) -> str:
        if is_alive(self.folder, name):
            raise ChannelError(
                "run.orphan", f"{name} runs but no run file names it", str(self.folder), "end that process by hand"
            )
        return GONE

    def status(self) -> tuple[RunFile | None, list[ProcessStatus]]:
        """The run file, and each process with whether it lives."""
        run = read_run_file(self.folder)
        lines = []
        for name in NAMES:
            ready = {} if run is None else run.processes.get(name, {})
            lines.append(ProcessStatus(name, is_alive(self.folder, name), ready.get("pid"), ready))
        return run, lines

    def running(self) -> RunFile | None:
        """The run file if all three live; None if none does; ChannelError in between."""
        run, lines = self.status()
        alive = [line.name for line in lines if line.alive]
        if not alive:
            return None
        if run is None or len(alive) < len(NAMES):
            raise ChannelError(
                "run.partial", f"only {', '.join(alive)} of {', '.join(NAMES)} run", str(self.folder), "ionctl down"
            )
        return run

    def _clear(self) -> None:
        for name in ("run.json", *(f"{n}.log" for n in NAMES)):
            (self.folder / name).unlink(missing_ok=True)
        put_aside(self.folder)

    def _stop_children(self, run: RunFile) -> None:
        for name in STOP_ORDER:
            child = self._children.pop(name, None)
            if child is None:
                continue
            with contextlib.suppress(IonctlError):
                stop(self.folder, name, child.pid, child)
            if child.poll() is None:
                child.kill()
                child.wait()
        (self.folder / "run.json").unlink(missing_ok=True)


def _text(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def _arguments(name: str, folder: Path, run: RunFile, options: RunOptions, keys: KeyStore) -> list[str]:
    common = ["--run-dir", str(folder), "--config-hash", run.config_hash, "--room", run.room,
              "--species", run.species, "--seed", str(run.seed), "--speed", str(run.speed)]  # fmt: skip
    if options.log_json:
        common.append("--log-json")
    if name == "plant":
        return [*common, "--key", options.mode, *(["--allow-faults"] if options.allow_faults else [])]
    common += ["--epoch-ns", str(run.processes["plant"]["epoch_ns"])]
    if name == "safety":
        return [*common, "--mode", options.mode, "--plant-link", f"127.0.0.1:{run.port('plant', 'link_port')}"]
    servers = " ".join(run.ca_addresses)
    extra = ["--servers", servers, "--key", str(keys.private_path("control")), "--sessions", str(keys.home.sessions),
             "--journal", keys.home.journal_url(run.facility)]  # fmt: skip
    return [*common, *extra, *(["--mqtt", options.mqtt] if options.mqtt else [])]
