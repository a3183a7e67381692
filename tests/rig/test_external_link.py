"""One device's PVs, without a network: what is put when, what counts as a reading, what a lost connection undoes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from channels.libca import DOUBLE, LONG, CaChannel, Received, Shape
from facility.config.external import ExternalDevice
from rig.external import device as link_module
from rig.external.device import PUT_NS, ExternalLink, Reading, Wish

NORMAL = 1
NONE = Reading(math.nan, 0, False, math.nan)


class FakeCa:
    """What the link asks of libca; the test answers."""

    def __init__(self) -> None:
        self.channels: dict[str, CaChannel] = {}
        self.puts: list[tuple[str, list[float], Any]] = []

    def open(self, channel: CaChannel) -> None:
        self.channels[channel.name] = channel

    def subscribe(self, channel: CaChannel, shape: Shape) -> None:
        channel.subscribed = True

    def put(self, channel: CaChannel, kind: int, data: Any, answer: Any) -> int:
        self.puts.append((channel.name, [float(x) for x in data], answer))
        return 0

    def close(self, channels: list[CaChannel], done: Any) -> None:
        done()


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        self.now_ns = 1_000_000_000
        self.stamp_ns = 0
        monkeypatch.setattr(link_module, "monotonic_ns", lambda: self.now_ns)
        keys: dict[str, Any] = {
            "prefix": "P:", "address": "127.0.0.1:1", "readback": "RB", "setpoint": "SP", "unit": "kA",
            "mode": "per_spot", "max_age_ms": 40.0,
        } | changes  # fmt: skip
        self.ca = FakeCa()
        self.link = ExternalLink("scan_x", ExternalDevice(**{k: v for k, v in keys.items() if v is not None}), self.ca)  # type: ignore[arg-type]

    def connect(self, *parts: str) -> None:
        for part in parts:
            self.ca.channels[f"P:{part}"].on_connection(Shape(LONG if part == "TRIG" else DOUBLE, 1))

    def lose(self, part: str) -> None:
        self.ca.channels[f"P:{part}"].on_connection(None)

    def read(self, value: float, severity: int = 0, same_stamp: bool = False) -> Reading:
        """What the link makes of an update; NONE if nothing."""
        self.stamp_ns += 0 if same_stamp else 1
        self.ca.channels["P:RB"].on_value(Received(value, self.stamp_ns, severity, 0))
        _, readings = self.link.take()
        return readings[-1] if readings else NONE

    def answer(self, status: int = NORMAL) -> tuple[str, list[float]]:
        name, values, answer = self.ca.puts.pop(0)
        answer(status, None)
        return name, values


def test_a_set_point_counts_once_it_is_acknowledged_and_one_reading_later(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Bench(monkeypatch)
    it.link.want(Wish(50.0))
    assert it.ca.puts == [], "nothing is put to what is not connected"
    it.connect("RB", "SP")
    for _ in range(3):
        it.link.want(Wish(50.0))
    assert len(it.ca.puts) == 1, "it is asked once"
    assert math.isnan(it.read(0.05).acknowledged)
    assert it.answer() == ("P:SP", [0.05]), "in the unit of the PV"
    assert math.isnan(it.read(0.05).acknowledged), "this one may have been on its way"
    reading = it.read(0.0505)
    assert (reading.value, reading.acknowledged, reading.good) == (pytest.approx(50.5), 50.0, True)
    it.link.want(Wish(60.0))
    assert math.isnan(it.read(0.0505).acknowledged), "what is asked anew has not been acknowledged"
    it.link.want(Wish(70.0))
    it.answer()
    assert math.isnan(it.read(0.06).acknowledged), "an answer to what is no longer wanted"


def test_a_put_without_an_answer_and_one_that_failed_are_put_again(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Bench(monkeypatch)
    it.connect("RB", "SP")
    it.link.want(Wish(50.0))
    it.now_ns += PUT_NS + 1
    it.link.want(Wish(50.0))
    assert len(it.ca.puts) == 2
    it.answer()
    it.answer(status=192)
    it.read(0.05)
    assert math.isnan(it.read(0.05).acknowledged)
    it.link.want(Wish(50.0))
    it.answer()
    it.read(0.05)
    assert it.read(0.05).acknowledged == 50.0


def test_a_table_is_put_once_a_layer_and_the_trigger_for_each_spot(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Bench(monkeypatch, mode="table", setpoint=None, table="TAB", trigger="TRIG")
    it.connect("RB", "TAB", "TRIG")
    table = np.array([10.0, 20.0, 30.0])

    def spot(n: int) -> list[tuple[str, list[float]]]:
        said = []
        for _ in range(3):
            it.link.want(Wish(float(table[n]), 7, table, n))
            if it.ca.puts:
                said.append(it.answer())
        return said

    assert spot(0) == [("P:TAB", [0.01, 0.02, 0.03]), ("P:TRIG", [0.0])]
    assert spot(1) == [("P:TRIG", [1.0])]
    assert spot(2) == [("P:TRIG", [2.0])]
    it.read(0.03)
    assert it.read(0.03).acknowledged == 30.0
    it.lose("TAB")
    it.connect("TAB")
    assert spot(2) == [("P:TAB", [0.01, 0.02, 0.03]), ("P:TRIG", [2.0])], "it may have been switched off"
    it.link.want(Wish(5.0))
    assert it.answer() == ("P:TAB", [0.005]), "a set point of no layer is a table of one"


def test_what_is_no_good_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Bench(monkeypatch, status="ST", fail_severity="MAJOR")
    it.connect("RB", "SP", "ST")
    assert not it.read(0.01).good, "the status has said nothing yet"
    it.ca.channels["P:ST"].on_value(Received(0, 1, 0, 0))
    assert it.read(0.01).good
    assert it.read(0.01, severity=1).good
    assert not it.read(0.01, severity=2).good
    assert it.read(0.01, same_stamp=True) is NONE, "a stamp that has not risen is no reading"
    it.ca.channels["P:ST"].on_value(Received(3, 2, 0, 0))
    assert not it.read(0.01).good
    assert math.isnan(it.read(math.nan).value)


def test_a_lost_connection_voids_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Bench(monkeypatch)
    it.connect("RB", "SP")
    it.ca.channels["P:RB"].on_value(Received(0.01, 9, 0, 0))
    it.lose("RB")
    assert it.link.take() == (True, [])
    assert it.link.take() == (False, [])


def test_by_the_servers_stamp_a_reading_is_as_old_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Bench(monkeypatch, stamp="server")
    monkeypatch.setattr(link_module, "from_unix_seconds", lambda _s: 500_000_000)
    it.connect("RB", "SP")
    it.ca.channels["P:RB"].on_value(Received(0.01, 470_000_000, 0, 0))
    it.ca.channels["P:RB"].on_value(Received(0.01, 600_000_000, 0, 0))
    _, (old, ahead) = it.link.take()
    assert (old.wall_ns, ahead.wall_ns) == (it.now_ns - 30_000_000, it.now_ns)
