"""What an EPICS client sees of the plant's IOCs; each case in a process of its own: libca reads its settings once.

Plain pyepics, as on any operator's desk, not our own client.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from channels.command import CommandResult, Signer
from channels.keys import derived_private_key
from channels.libca_settings import configure_libca
from facility import signals as g
from facility.pv_catalogue import PvEntry, entries
from facility.timebase import FACILITY_EPOCH_UNIX_S, ManualClock
from tests.iocs.ca_plant import START_NS
from tests.iocs.fakes import PREFIX, load_args, spot_table, wuwei

PLANT = tuple(entries("plant"))
TIMEOUT_S = 10.0
TYPES = {"float": "double", "floats": "double", "int": "long", "enum": "enum", "string": "string", "bytes": "char"}


class Rig:
    """The IOC's process and pyepics PVs on it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.iocs.ca_plant"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        word, data = self._line()
        if word != "READY":
            raise RuntimeError(data)
        configure_libca(data["addresses"])
        import epics

        self.epics: Any = epics
        self.pvs: dict[str, Any] = {}

    def _line(self) -> tuple[str, Any]:
        if self.process.stdout is None:
            raise RuntimeError("no output")
        word, _, data = self.process.stdout.readline().partition(" ")
        return word, json.loads(data)

    def order(self, **what: Any) -> list[Any]:
        """Let the plant do something; what it was told to do so far."""
        if self.process.stdin is None:
            raise RuntimeError("no input")
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        done: list[Any] = self._line()[1]
        return done

    def connect(self, *names: str, form: str = "ctrl") -> None:
        made = {name: self.epics.PV(f"{PREFIX}:{name}", form=form, auto_monitor=False) for name in names}
        for name, pv in made.items():
            if not pv.wait_for_connection(TIMEOUT_S):
                raise RuntimeError(f"{name} does not connect")
        self.pvs |= made

    def pv(self, name: str) -> Any:
        if name not in self.pvs:
            self.connect(name)
        return self.pvs[name]

    def get(self, name: str, **options: Any) -> Any:
        return self.pv(name).get(timeout=TIMEOUT_S, use_monitor=False, **options)

    def time(self, name: str) -> dict[str, Any]:
        """Value, severity and stamp."""
        self.pv(name)
        found: dict[str, Any] = self.pvs[name].get_with_metadata(form="time", timeout=TIMEOUT_S, use_monitor=False)
        return found

    def ctrl(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.pv(name).get_with_metadata(form="ctrl", timeout=TIMEOUT_S, use_monitor=False)
        return found

    def command(self, signer: Signer, group: str, verb: str, args: dict[str, Any] | None = None) -> CommandResult:
        command = signer.command(verb, args or {}, ManualClock())
        self.pv(f"{group}:Cmd").put(np.frombuffer(signer.sign(command), dtype=np.uint8), wait=True, timeout=TIMEOUT_S)
        result = CommandResult.decode(bytes(np.asarray(self.get(f"{group}:Cmd-Result"), dtype=np.uint8)))
        if result.id not in ("", command.id):
            raise RuntimeError("somebody else's result")
        return result


@contextmanager
def rig() -> Iterator[Rig]:
    made = Rig()
    try:
        yield made
    finally:
        for pv in made.pvs.values():
            pv.disconnect()
        made.epics.ca.finalize_libca()
        if made.process.stdin is not None:
            made.process.stdin.close()
        made.process.wait(TIMEOUT_S)


def unix_s(t_ns: int) -> float:
    return FACILITY_EPOCH_UNIX_S + t_ns * 1e-9


def same(found: Any, wanted: Any, what: str) -> None:
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, not {wanted!r}")


def check_entry(r: Rig, entry: PvEntry) -> None:
    pv, meta = r.pv(entry.name), r.ctrl(entry.name)
    same(pv.type.removeprefix("ctrl_").removeprefix("time_"), TYPES[entry.kind], f"{entry.name} type")
    same(pv.nelm if hasattr(pv, "nelm") else pv.count, entry.length, f"{entry.name} length")
    same(pv.write_access, entry.writer != "nobody", f"{entry.name} write access")
    if entry.kind == "enum":
        same(tuple(pv.enum_strs), entry.states, f"{entry.name} states")
    if entry.kind in ("float", "floats", "int"):
        same(meta["units"], entry.unit, f"{entry.name} unit")
        low, high = entry.limits or (0, 0)
        same((meta["lower_ctrl_limit"], meta["upper_ctrl_limit"]), (low, high), f"{entry.name} limits")
        alarms = ("lower_alarm_limit", "lower_warning_limit", "upper_warning_limit", "upper_alarm_limit")
        same(tuple(meta[key] for key in alarms), entry.alarms or (0, 0, 0, 0), f"{entry.name} alarm limits")
    if entry.kind in ("float", "floats"):
        same(meta["precision"], entry.precision, f"{entry.name} precision")


def metadata(r: Rig) -> None:
    """Type, length, unit, precision, limits, states, access and description of every PV."""
    r.connect(*(entry.name for entry in PLANT))
    for entry in PLANT:
        check_entry(r, entry)
    for entry in PLANT:
        r.connect(f"{entry.name}.DESC", f"{entry.name}.DESC$", form="native")
    for entry in PLANT:
        same(r.get(f"{entry.name}.DESC"), entry.description[:39].rstrip(), f"{entry.name}.DESC")
        same(r.get(f"{entry.name}.DESC$", as_string=True), entry.description, f"{entry.name}.DESC$")
    r.connect("DOSE:IC1:HV-RB.RTYP", form="native")
    same(r.get("DOSE:IC1:HV-RB.RTYP"), "ai", "record type")
    same(r.pv("DOSE:IC1:HV-RB.DESC").write_access, False, "access to DESC")
    missing = r.epics.PV(f"{PREFIX}:DOSE:IC1:HV-RB.HIHI")
    same(missing.wait_for_connection(0.5), False, "a client that moves alarm limits")


def stamps(r: Rig) -> None:
    """Time stamps are facility time, to the microsecond that a float of seconds holds."""
    for name in ("RING:Phase-Sts", "FE:Status-RB", "DOSE:IC1:HV-RB", "PLANT:Time-RB", "HEBT:Room-RB"):
        same(r.time(name)["timestamp"], pytest.approx(unix_s(START_NS), abs=1e-6), name)
    r.order(advance_ms=2000, status={"state": "HELD"}, events=["HELD"])
    t_ns = START_NS + 2_000_000_000
    stamp = r.time("FE:State-Sts")
    same(stamp["timestamp"], pytest.approx(unix_s(t_ns), abs=1e-6), "stamp of a new state")
    same(stamp["value"], 4, "state")
    same(stamp["nanoseconds"], t_ns % 1_000_000_000, "nanoseconds")
    same(r.get("PLANT:Time-RB"), pytest.approx(t_ns * 1e-9), "facility time")
    r.pv("FE:Spots-SP").put(np.arange(8.0), wait=True, timeout=TIMEOUT_S)
    same(r.time("FE:Spots-SP")["timestamp"], pytest.approx(unix_s(t_ns), abs=1e-6), "stamp of a client's put")


def alarms(r: Rig) -> None:
    """Severities by limits and by fault; each PV its own."""
    names = ("DOSE:IC1:HV-RB", "DOSE:IC2:HV-RB", "DOSE:IC1:Electronics-Sts", "ROOM:EStop-Sts")
    same([r.time(name)["severity"] for name in names], [0, 0, 0, 0], "severities at rest")
    nominal = wuwei()[0].chambers.ic1.voltage_v
    for volt, severity, status in ((370.0, 1, 6), (300.0, 2, 5), (1650.0, 1, 4), (1800.0, 2, 3), (nominal, 0, 0)):
        r.order(signals={g.IC1_HV_REL: volt / nominal}, advance_ms=500)
        found = r.time("DOSE:IC1:HV-RB")
        same((found["severity"], found["status"]), (severity, status), f"at {volt} V")
        same(found["value"], pytest.approx(volt), "voltage")
    r.order(signals={g.IC1_OK: 0.0, g.ESTOP_A: 0.0}, advance_ms=500)
    same([r.time(name)["severity"] for name in names], [0, 0, 2, 2], "severities with faults")
    same(r.get("DOSE:IC1:Electronics-Sts", as_string=True), "FAULT", "electronics")
    same(r.get("ROOM:EStop-Sts", as_string=True), "PRESSED", "emergency stop")
    r.order(signals={g.IC1_HV_REL: math.nan}, advance_ms=500)
    same(r.time("DOSE:IC1:HV-RB")["severity"], 3, "no number")


def refusals(r: Rig) -> None:
    """Refused writes leave the value; a command's refusal is in its result, whatever the put says."""
    for name, value in (
        ("SCAN:X:Current-SP", 10.0),
        ("RING:Phase-Sts", 3),
        ("FE:Cmd-Result", b"{}"),
        ("HEBT:Room-RB", "9"),
    ):
        before = r.get(name)
        with pytest.raises(r.epics.ca.CASeverityException):
            r.pv(name).put(value, wait=True, timeout=TIMEOUT_S)
        same(np.array_equal(np.asarray(r.get(name)), np.asarray(before)), True, f"{name} as before")
    table = spot_table().ravel()
    r.pv("FE:Spots-SP").put(table, wait=True, timeout=TIMEOUT_S)
    stranger = Signer("tcs", "control", derived_private_key(99, "tcs"))
    same(r.command(stranger, "FE", "arm", {"token": 7, "permit_epoch": 1}).code, "command.not-genuine", "a stranger")
    ann = Signer("ann", "operator", derived_private_key(1, "ann"))
    refused = r.command(ann, "FE", "arm", {"token": 7, "permit_epoch": 1})
    same((refused.status.value, refused.code), ("refused", "command.not-allowed"), "an operator")
    tcs = Signer("tcs", "control", derived_private_key(1, "tcs"))
    wrong = r.command(tcs, "FE", "load_layer", load_args(spot_table()) | {"crc32": 5})
    same(wrong.code, "fe.crc", "another table")
    r.pv("FE:Cmd").put(np.frombuffer(b"open the door", dtype=np.uint8), wait=True, timeout=TIMEOUT_S)
    words = CommandResult.decode(bytes(np.asarray(r.get("FE:Cmd-Result"), dtype=np.uint8)))
    same(words.code, "command.malformed", "plain words")
    same(np.array_equal(r.get("FE:Spots-SP"), table), True, "the staged table as before")
    same(r.order(), [], "nothing was done")


def commands(r: Rig) -> None:
    """A layer from the table to the register, by a plain EPICS client with a key."""
    tcs = Signer("tcs", "control", derived_private_key(1, "tcs"))
    table = spot_table(1500)
    r.pv("FE:Spots-SP").put(table.ravel(), wait=True, timeout=TIMEOUT_S)
    steps = [
        ("RING", "request_cycle", {"token": 7, "energy_code": 100, "transport_set": 9}, {}),
        ("FE", "load_layer", load_args(table), {"token": 7, "n": 1500}),
        ("FE", "arm", {"token": 7, "permit_epoch": 1}, {}),
        ("FE", "read_register", {}, {"token": 7, "n": 2}),
        ("RS", "insert", {"code": 1}, {}),
    ]
    for group, verb, args, data in steps:
        result = r.command(tcs, group, verb, args)
        same((result.status.value, dict(result.data)), ("done", data), verb)
    register = r.get("FE:Register-RB")
    same(np.array_equal(register, np.arange(len(register), dtype=float)), True, "register")
    done = [what[0] for what in r.order()]
    same(done, ["request_cycle", "load_layer", "arm", "insert"], "what the plant was told")


def monitors(r: Rig) -> None:
    """Monitors bring every state and nothing while the plant rests."""
    seen: list[int] = []
    pv = r.epics.PV(f"{PREFIX}:FE:State-Sts", auto_monitor=True, callback=lambda value=None, **_: seen.append(value))
    if not pv.wait_for_connection(TIMEOUT_S):
        raise RuntimeError("no connection")
    wait_for(r, lambda: seen == [0])
    r.order(advance_ms=1000)
    for state in ("LOADED", "ARMED", "IRRADIATING", "HELD", "IRRADIATING", "DONE"):
        r.order(status={"state": state}, events=["STATE"])
    wait_for(r, lambda: len(seen) >= 7)
    same(seen, [0, 1, 2, 3, 4, 3, 6], "states")
    pv.disconnect()


def wait_for(r: Rig, met: Callable[[], bool]) -> None:
    for _ in range(200):
        if met():
            return
        r.epics.ca.poll(0.01, 0.05)
    raise AssertionError("what was waited for did not come")


CASES = {case.__name__: case for case in (metadata, stamps, alarms, refusals, commands, monitors)}


if __name__ == "__main__":
    with rig() as made:
        CASES[sys.argv[1]](made)
    print("PASSED", flush=True)
    os._exit(0)  # libca's threads outlive the interpreter otherwise
