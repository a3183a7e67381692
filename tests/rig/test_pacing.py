"""Pacing: in step at any speed, no bursts after a stall, lateness visible."""

from __future__ import annotations

import pytest

from rig.pacing import NS_PER_MS, Pacer


@pytest.mark.parametrize("speed", [0.5, 1.0, 10.0])
def test_in_step(speed):
    pacer = Pacer(speed)
    pacer.start(5_000_000, 700)
    wall = 5_000_000
    for _ in range(1000):
        wall += pacer.wait_ns(wall)
        target = pacer.target_ns(wall)
    assert target == 700 + round((wall - 5_000_000) * speed)
    assert pacer.late_slices == 0
    assert pacer.slip_ns == 0


def test_small_lateness_is_made_up_for():
    pacer = Pacer(1.0)
    pacer.start(0, 0)
    assert pacer.target_ns(3 * NS_PER_MS) == 3 * NS_PER_MS
    assert pacer.late_slices == 0


def test_a_stall_slips_and_never_bursts():
    pacer = Pacer(10.0)
    pacer.start(0, 0)
    wall = 0
    target = 0
    biggest = 0
    for i in range(2000):
        wall += pacer.wait_ns(wall) + (500 * NS_PER_MS if i == 1000 else 0)
        late = pacer.late_ms(wall)
        step = pacer.target_ns(wall) - target
        target += step
        biggest = max(biggest, step)
        if i == 1000:
            assert late == pytest.approx(500.0)
    assert biggest <= 10.0 * (pacer.slack_wall_ns + pacer.slice_wall_ns)
    assert pacer.late_slices == 1
    assert pacer.slip_ns == 500 * NS_PER_MS
    assert target == round((wall - 500 * NS_PER_MS) * 10.0)


def test_time_never_goes_back():
    pacer = Pacer(3.0)
    pacer.start(0, 0)
    wall, before = 0, 0
    for late in (0, 5, 1, 90, 0, 4, 0, 300, 2):
        wall += pacer.wait_ns(wall) + late * NS_PER_MS
        target = pacer.target_ns(wall)
        assert target >= before
        before = target
