"""Two C soft IOCs as devices of a facility, and what can be done to them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from facility.config import Facility, change_facility, load_facility
from facility.errors import ChannelError
from rig.children import wait_line
from rig.external.soft_ioc import DONE, READY
from rig.run_dir import RunFile

MAX_AGE_MS = 40.0
"""Four periods of their readings. A spot lasts five of it, so that it decides how long a field takes."""
SETTLE_MS = 400.0
IOC_START_S = 60.0
ANSWER_S = 10.0
SUPPLY, VOLTAGE = "scan_x", "ic1_hv"
_DATABASE = {SUPPLY: ("scan-supply.db", "PS1:", "Current-RB"), VOLTAGE: ("chamber-voltage.db", "HV1:", "Voltage-RB")}


class SoftIoc:
    """One C soft IOC in a process of its own; its shell takes lines from us."""

    def __init__(self, device: str) -> None:
        self.database, self.prefix, self.readback = _DATABASE[device]
        self.port = _free_port()
        self._child: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, on the same port each time, and wait until it serves."""
        command = [sys.executable, "-m", "rig.external.soft_ioc", self.database, "--prefix", self.prefix,
                   "--port", str(self.port)]  # fmt: skip
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        wait_line(self._child, READY, IOC_START_S)

    def say(self, line: str) -> None:
        """A line to the shell of the IOC; returns when it has been carried out."""
        if self._child is None or self._child.stdin is None:
            raise ChannelError("trial.no-ioc", "the soft IOC does not run", self.prefix)
        self._child.stdin.write(line.encode() + b"\n")
        self._child.stdin.flush()
        wait_line(self._child, DONE, ANSWER_S)

    def put(self, pv: str, value: str) -> None:
        """Set a field of its database."""
        self.say(f'dbpf "{self.prefix}{pv}" "{value}"')

    def signal(self, number: signal.Signals) -> None:
        """SIGKILL, SIGSTOP or SIGCONT."""
        if self._child is not None:
            self._child.send_signal(number)

    @property
    def pid(self) -> int | None:
        """Process id; None while it does not run."""
        return None if self._child is None else self._child.pid

    def restart(self) -> None:
        """A new one in the place of one that was killed."""
        self.end()
        self.start()

    def end(self) -> None:
        """Kill it."""
        if self._child is None:
            return
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._child = None


def _free_port() -> int:
    """A port that is free for TCP and UDP now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass(frozen=True)
class Deed:
    """Something that is done to a device, and undone."""

    name: str
    way: str
    """As the catalogue of faults calls it."""
    device: str
    rules: frozenset[str]
    """One of them takes the beam."""
    do: Callable[[SoftIoc], None]
    undo: Callable[[SoftIoc], None]


LOADED = frozenset({
    "link-plant", "link-safety", "link-return", "plant-late", "operator-heartbeat", "front-end-alive",
    "fast-tier-alive", "session-authority",
})  # fmt: skip
"""Rules that trip when this machine is busy with other things: only if it was, which `rig.external.waiting` tells."""
LOST = frozenset({"external-device"})
"""Rules that say that a device is lost: once all are mended, that this machine has kept its readings waiting; if so,
as above."""


def processes_of(run: RunFile, iocs: Mapping[str, SoftIoc]) -> tuple[int, ...]:
    """Everybody who has to run in time: the facility's processes, the devices', and this one as the console."""
    known = [entry.get("pid") for entry in run.processes.values()] + [ioc.pid for ioc in iocs.values()]
    return (*(int(pid) for pid in known if pid is not None), os.getpid())


DEEDS: tuple[Deed, ...] = (
    Deed("supply killed, started again", "killed", SUPPLY, LOST, lambda ioc: ioc.signal(signal.SIGKILL),
         SoftIoc.restart),
    Deed("supply stopped, runs on", "stopped", SUPPLY, LOST, lambda ioc: ioc.signal(signal.SIGSTOP),
         lambda ioc: ioc.signal(signal.SIGCONT)),
    Deed("supply gives stale readings", "stale", SUPPLY, LOST, lambda ioc: ioc.put("Current-RB.SCAN", "Passive"),
         lambda ioc: ioc.put("Current-RB.SCAN", ".01 second")),
    Deed("supply reads wrongly", "wrong", SUPPLY, frozenset({"scan-readback-x", "scan-settling"}),
         lambda ioc: ioc.put("Bias-SP", "25"), lambda ioc: ioc.put("Bias-SP", "0")),
    Deed("supply in alarm", "alarm", SUPPLY, LOST, lambda ioc: ioc.put("Fault-SP", "1"),
         lambda ioc: ioc.put("Fault-SP", "0")),
    Deed("voltage stopped, runs on", "stopped", VOLTAGE, LOST, lambda ioc: ioc.signal(signal.SIGSTOP),
         lambda ioc: ioc.signal(signal.SIGCONT)),
    Deed("voltage gives stale readings", "stale", VOLTAGE, LOST, lambda ioc: ioc.put("Voltage-RB.SCAN", "Passive"),
         lambda ioc: ioc.put("Voltage-RB.SCAN", ".01 second")),
    Deed("voltage wrong", "wrong", VOLTAGE, frozenset({"chamber-voltage-ic1"}), lambda ioc: ioc.put("Bias-SP", "-225"),
         lambda ioc: ioc.put("Bias-SP", "0")),
    Deed("voltage killed, started again", "killed", VOLTAGE, LOST, lambda ioc: ioc.signal(signal.SIGKILL),
         SoftIoc.restart),
)  # fmt: skip
"""Wrong values come in between: they are an ABORT, and its account begins the count of interruptions anew."""


DEED_OF = {f"{deed.device}/{deed.way}": deed for deed in DEEDS}


def trial_facility(iocs: dict[str, SoftIoc], mode: str = "per_spot", base: str = "wuwei") -> Facility:
    """A facility of the configuration with these devices."""
    return with_devices(load_facility(base), iocs, mode)


def with_devices(facility: Facility, iocs: dict[str, SoftIoc], mode: str) -> Facility:
    """A facility whose scanning supply x and voltage of chamber 1 are these IOCs."""
    supply, voltage = iocs[SUPPLY], iocs[VOLTAGE]
    set_by = {"setpoint": "Current-SP"} if mode == "per_spot" else {"table": "Table-SP", "trigger": "Trigger-SP"}
    common = {"max_age_ms": MAX_AGE_MS, "settle_ms": SETTLE_MS}
    return change_facility(facility, {"external": {
        SUPPLY: {"prefix": supply.prefix, "address": f"127.0.0.1:{supply.port}", "readback": "Current-RB",
                 "status": "Power-Sts", "unit": "A", "mode": mode, **set_by, **common},
        VOLTAGE: {"prefix": voltage.prefix, "address": f"127.0.0.1:{voltage.port}", "readback": "Voltage-RB",
                  "setpoint": "Voltage-SP", "unit": "V", "mode": "constant", **common},
    }})  # fmt: skip


@contextlib.contextmanager
def soft_iocs() -> Iterator[dict[str, SoftIoc]]:
    """Both IOCs, ended with the block."""
    started: dict[str, SoftIoc] = {}
    try:
        for device in (SUPPLY, VOLTAGE):
            started[device] = SoftIoc(device)
        yield started
    finally:
        for ioc in started.values():
            ioc.end()
