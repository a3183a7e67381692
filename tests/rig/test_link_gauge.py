"""How late frames of the safety link come: measured at each end, and refused beyond half the watchdog."""

from __future__ import annotations

import pytest

from channels.memory import MemoryProvider
from channels.publish import publish
from channels.pv_groups import CataloguedGroup, declared
from facility.errors import ChannelError
from rig.link_check import LIMIT_MS, LinkReading, read_link, refusal, require_link
from rig.link_gauge import LinkGauge
from rig.virtual_time import VirtualLoop, run_virtual

MS = 1_000_000


def gauge_of(*gaps_ms: float) -> tuple[LinkGauge, int]:
    gauge, now_ns = LinkGauge(), 0
    gauge.heard(now_ns)
    for gap_ms in gaps_ms:
        now_ns += round(gap_ms * MS)
        gauge.heard(now_ns)
    return gauge, now_ns


def test_gaps_are_measured_by_the_second_and_over_all() -> None:
    gauge, now_ns = gauge_of(*[4.0] * 100, 61.0, *[4.0] * 150, *[4.0] * 260)
    reading = gauge.reading(now_ns)
    assert (reading.window_ms, reading.worst_ms, reading.windows) == (4.0, 61.0, 2)
    assert reading.p999_ms == 61.0  # one in 511
    gauge, now_ns = gauge_of(*[4.0] * 1100, 61.0)
    assert gauge.reading(now_ns).p999_ms == 4.5


def test_a_silence_that_lasts_counts() -> None:
    gauge, now_ns = gauge_of(*[4.0] * 300)
    assert gauge.reading(now_ns + 1500 * MS).window_ms == 1500.0
    assert LinkGauge().reading(5 * MS).windows == 0


def test_nothing_is_read_before_the_first_second() -> None:
    assert read_link(None) is None
    assert read_link([0.0] * 8) is None
    gauge, now_ns = gauge_of(*[4.0] * 300)
    found = read_link((1.0, *gauge.reading(now_ns).values(100.0, 3, 1)))
    assert found == LinkReading(4.0, 4.0, 4.0, 100.0, 1, 3, 1)


def test_a_speed_is_refused_beyond_half_the_watchdog_with_what_would_do() -> None:
    good = LinkReading(LIMIT_MS, 90.0, 20.0, 100.0, 3, 0, 0)
    assert refusal({"rack": good, "safety": good}, 20.0) is None
    late = LinkReading(83.0, 90.0, 20.0, 100.0, 3, 0, 0)
    problem = refusal({"rack": late, "safety": good}, 20.0)
    assert problem is not None
    assert problem.code == "link.jitter"
    for words in ("83 ms apart at speed 20", "at most 50 ms, half the watchdog", "a speed of at most 10"):
        assert words in str(problem)
    silent = refusal({"rack": good}, 1.0)
    assert silent is not None
    assert silent.code == "link.silent"
    assert "safety" in str(silent)


class Group(CataloguedGroup):
    rack = declared("PLANT:Link-RB")
    safety = declared("SAFE:Link-RB")


@pytest.mark.parametrize("late_ms", [0.0, 70.0])
def test_one_quiet_second_is_waited_for_and_no_longer_than_patience(late_ms: float) -> None:
    loop = VirtualLoop()
    group = Group("WW", loop)

    def show(gap_ms: float) -> None:
        for channel in (group.rack, group.safety):
            publish(channel, [1.0, gap_ms, 90.0, 9.0, 100.0, 2.0, 0.0, 0.0], loop.now_ns())

    async def work() -> None:
        provider = MemoryProvider(group.pvdb, loop, seed=1)
        show(80.0)
        loop.call_later(3.0, show, late_ms)
        try:
            await require_link(provider, "WW", 4.0)
        finally:
            await provider.close()

    if late_ms:
        with pytest.raises(ChannelError, match="70 ms apart at speed 4"):
            run_virtual(work(), loop)
        assert loop.now_ns() >= 6_000 * MS
    else:
        run_virtual(work(), loop)
        assert loop.now_ns() < 4_000 * MS
