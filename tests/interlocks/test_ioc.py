"""The safety IOC: PVs of controller and rules, signed commands, keep-alives."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest

from channels.command import Signer, Status
from channels.command_server import CommandVerifier
from channels.keys import KeyRing, derived_private_key
from channels.publish import native_value
from facility.pv_catalogue import entries
from interlocks import ioc, pvs
from interlocks.ioc import SafetyIoc, latched_json
from interlocks.own_inputs import CONSOLE_INPUT
from interlocks.verbs import VERBS
from tests.interlocks.support import MS, Safety, rule_set

ROLES = {"operator": ("operator",), "physicist": ("physicist", "operator"), "control": ("control",)}


class Served(Safety):
    """A safety controller behind its IOC; people and control sign."""

    def __init__(self) -> None:
        super().__init__()
        ring = KeyRing()
        self.signers = {}
        for name, roles in ROLES.items():
            key = derived_private_key(1, name)
            ring.add(name, key.public_key(), roles)
            self.signers[name] = Signer(name, roles[0], key)
        self.ioc = SafetyIoc("WW", self.controller, CommandVerifier(ring, VERBS, self), self)

    def value(self, name: str) -> Any:
        return native_value(self.ioc.pvdb[f"WW:{name}"])

    def severity(self, name: str) -> int:
        return int(self.ioc.pvdb[f"WW:{name}"].alarm.severity)

    def write(self, name: str, data: Any) -> None:
        asyncio.run(self.ioc.pvdb[f"WW:{name}"].write(data))

    def ask(self, verb: str, who: str, **arguments: object) -> dict[str, Any]:
        signer = self.signers[who]
        frame = signer.sign(signer.command(verb, arguments, self))
        self.write("SAFE:Cmd", frame)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.value("SAFE:Cmd-Result"))
        return found

    def go(self, count: int = 1, **changes: float) -> None:
        self.run(count, **changes)
        self.ioc.refresh()

    def start(self) -> None:
        self.go(5)
        assert self.ask("reset", "operator")["status"] == "done"
        self.go(200)


@pytest.fixture
def served() -> Served:
    return Served()


def test_every_pv_of_the_catalogue_and_of_the_rules_is_there(served: Served) -> None:
    rules = rule_set().rules
    names = {entry.name for entry in entries("safety")} | {entry.name for entry in pvs.entries(rules)}
    assert {name.removeprefix("WW:") for name in served.ioc.pvdb} == names
    assert len(pvs.entries(rules)) == 5 * len(rules)
    assert "SAFE:DOOR:Present-Sts" in names


def test_permit_and_trip_show(served: Served) -> None:
    served.start()
    assert served.value("SAFE:Permit-Sts") == 1
    assert served.value("SAFE:Action-Sts") == 0
    assert json.loads(served.value("SAFE:Latched-RB")) == []
    served.go(200, door__a_closed=0.0)
    assert served.value("SAFE:Permit-Sts") == 0
    assert served.value("SAFE:Action-Sts") == 4
    assert served.severity("SAFE:Action-Sts") == 2
    assert served.value("SAFE:FirstFault-RB") == "door"
    row = json.loads(served.value("SAFE:Latched-RB"))[0]
    assert (row["id"], row["value"], row["limit"], row["present"]) == ("door", 0.0, 1.0, True)
    assert (served.value("SAFE:DOOR:Present-Sts"), served.value("SAFE:DOOR:Latched-Sts")) == (1, 1)
    assert (served.value("SAFE:DOOR:Value-RB"), served.value("SAFE:DOOR:Limit-RB")) == (0.0, 1.0)
    assert served.severity("SAFE:DOOR:Value-RB") == 2, "beyond its limit"
    served.go(200, door__a_closed=1.0)
    assert (served.value("SAFE:DOOR:Present-Sts"), served.value("SAFE:DOOR:Latched-Sts")) == (0, 1)
    assert served.ask("reset", "operator")["code"] == "safety.role"
    answer = served.ask("reset", "physicist")
    assert (answer["status"], answer["data"]["permit"]) == ("done", False)
    assert "not accounted for" in answer["words"]
    served.go(200)
    assert served.value("SAFE:Permit-Sts") == 0
    assert (served.value("SAFE:DOOR:Present-Sts"), served.value("SAFE:DOOR:Latched-Sts")) == (0, 0)
    assert served.ask("resolve", "physicist", words="door opened by hand")["status"] == "done"
    assert served.ask("reset", "operator")["data"]["permit"]
    served.go(200)
    assert served.value("SAFE:FirstFault-RB") == ""
    assert served.value("SAFE:Permit-Sts") == 1


def test_a_hold_is_a_minor_alarm(served: Served) -> None:
    served.start()
    index = [rule.id for rule in served.rules.h].index("gate")
    served.go(200, h__present=float(1 << index))
    assert (served.value("SAFE:Action-Sts"), served.severity("SAFE:Action-Sts")) == (2, 1)


def test_control_is_refused_at_every_verb(served: Served) -> None:
    served.go(5)
    for verb in VERBS:
        answer = served.ask(verb, "control", mode="qa")
        assert answer["status"] == "refused"
    assert not served.out.permit


def test_strangers_and_noise_are_refused(served: Served) -> None:
    served.go(5)
    served.write("SAFE:Cmd", b"nonsense")
    assert served.answer()["code"] == "command.malformed"
    served.write("SAFE:KeepAlive", b"nonsense")
    assert served.controller.snapshot().released is False


def test_a_signed_reset_cannot_be_read_from_the_command_pv(served: Served) -> None:
    served.go(5)
    served.ask("reset", "physicist")
    served.go(5)
    assert served.out.permit
    assert b"physicist" not in bytes(bytearray(served.value("SAFE:Cmd")))


def test_a_repeated_command_gets_the_same_answer_and_does_nothing(served: Served) -> None:
    served.go(5)
    signer = served.signers["operator"]
    frame = signer.sign(signer.command("reset", {}, served))
    served.write("SAFE:Cmd", frame)
    first = served.answer()
    served.go(200, gate__age_ms=200.0)
    assert not served.out.permit
    served.go(200, gate__age_ms=0.0)
    served.write("SAFE:Cmd", frame)
    assert served.answer() == first
    assert not served.run(5).permit


def test_keep_alives_come_by_their_pv(served: Served) -> None:
    served.speaks = False
    served.go(3)
    served.write("SAFE:KeepAlive", served.maker.make())
    served.go(1)
    assert not served.controller._scanner.is_present_on(CONSOLE_INPUT)


def test_a_reset_through_the_rack_is_answered_twice(served: Served) -> None:
    served.start()
    served.go(1, h__latched=1.0)
    assert served.ask("reset", "physicist")["status"] == Status.ACCEPTED
    served.go(1, h__latched=0.0)
    assert served.answer()["status"] == Status.DONE


def test_publishes_on_change_at_most_ten_times_a_second(served: Served) -> None:
    served.start()
    written: list[tuple[int, str]] = []
    plain = served.ioc._put

    def note(name: str, value: Any, severity: int) -> None:
        written.append((served.t_ns, name))
        plain(name, value, severity)

    served.ioc._put = note  # type: ignore[method-assign]
    for k in range(2000):
        served.go(1, gate__age_ms=float(k % 2) * 200.0)
    times = sorted({t_ns for t_ns, _ in written})
    assert all(b - a >= ioc.PUBLISH_NS for a, b in itertools.pairwise(times))
    beats = [t_ns for t_ns, name in written if name == "SAFE:Heartbeat-RB"]
    assert 7 <= len(beats) <= 9
    written.clear()
    served.go(50, gate__age_ms=0.0)
    due = served.ioc.refresh()
    assert due > served.t_ns


def test_quiet_means_heartbeats_and_values_only(served: Served) -> None:
    served.start()
    written: list[str] = []
    plain = served.ioc._put
    served.ioc._put = lambda name, *rest: (written.append(name), plain(name, *rest))[1]  # type: ignore[method-assign]
    for _ in range(1000):
        served.go()
    assert written.count("SAFE:Heartbeat-RB") == 4
    assert len(written) <= 8


def test_a_long_list_of_latches_is_cut_to_the_pv(served: Served) -> None:
    served.start()
    served.run(
        2,
        **dict.fromkeys(("h__latched", "ic1__hv_rel", "ic2__hv_rel", "gate__age_ms"), float("nan")),
        **dict.fromkeys(("door__a_closed", "estop__a_ok", "strip__ok", "link__p_ok"), 0.0),
        room__token=3.0,
    )
    data = latched_json(served.controller.snapshot())
    assert len(data) <= 4096
    rows = json.loads(data)
    assert rows[0]["id"] == served.controller.snapshot().first_fault
    assert len(rows) < len(served.controller.snapshot().latched)


def test_times_are_facility_time(served: Served) -> None:
    served.start()
    stamp = served.ioc.pvdb["WW:SAFE:Permit-Sts"].epics_timestamp
    assert stamp.nanoSeconds % MS == 0


def test_where_nothing_was_scanned_only_the_heartbeat_goes_on(served: Served) -> None:
    served.start()
    served.ioc.refresh()
    beat, permit = served.value("SAFE:Heartbeat-RB"), served.value("SAFE:Permit-Sts")
    for _ in range(2):
        served.t_ns += 300 * MS
        served.ioc.refresh()
    assert served.value("SAFE:Heartbeat-RB") > beat
    assert served.value("SAFE:Permit-Sts") == permit


def test_the_link_is_shown_when_it_has_changed(served: Served) -> None:
    values = (4.0, 20.0, 8.5, 100.0, 3.0, 0.0, 0.0)
    served.ioc.show_link(values)
    served.ioc.show_link(values)
    assert served.value("SAFE:Link-RB").tolist() == [1.0, *values]
    served.ioc.show_link((5.0, *values[1:]))
    assert served.value("SAFE:Link-RB").tolist() == [2.0, 5.0, *values[1:]]


def test_lines_of_control_come_by_their_own_pv(served: Served) -> None:
    served.vouches = None
    served.go(3)
    assert served.value("SAFE:PROCEDURE-CHECKS:Present-Sts") == 1
    served.write("SAFE:TcsKeepAlive", served.control.make(0b1111))
    served.go(200)
    assert served.value("SAFE:PROCEDURE-CHECKS:Present-Sts") == 0
