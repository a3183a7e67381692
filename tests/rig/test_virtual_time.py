"""The virtual loop: time jumps, the order of equal times is fixed, and nothing real gets in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from facility.errors import InternalError
from facility.timebase import NS_PER_MS, NS_PER_S, Clock, Rank, ranked
from rig.virtual_time import VirtualLoop, run_virtual


def loop_of() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise TypeError(loop)
    return loop


def test_a_day_of_sleep_takes_no_time_and_is_exact_to_the_nanosecond() -> None:
    async def main() -> int:
        for _ in range(1000):
            await asyncio.sleep(86.4 / 1000)
        return loop_of().now_ns()

    assert run_virtual(main(), VirtualLoop()) == 86_400_000_000


def test_the_loop_is_a_clock_and_its_time_is_the_clock_in_seconds() -> None:
    async def main() -> None:
        loop = loop_of()
        assert isinstance(loop, Clock)
        await asyncio.sleep(1.5)
        assert loop.now_ns() == 1_500_000_000
        assert loop.time() == 1.5

    run_virtual(main(), VirtualLoop())


def test_small_steps_do_not_drift() -> None:
    async def main() -> int:
        for _ in range(10_000):
            await asyncio.sleep(0.0001)
        return loop_of().now_ns()

    assert run_virtual(main(), VirtualLoop()) == NS_PER_S


def test_equal_times_run_by_rank_then_by_sequence() -> None:
    order: list[str] = []

    async def main() -> None:
        loop = loop_of()
        for number, rank in enumerate((Rank.TELEMETRY, Rank.CONTROL, Rank.P, Rank.PLANT, Rank.IOC, Rank.H, Rank.LINK)):
            loop.call_at_rank(NS_PER_MS, rank, order.append, f"{rank.name}{number}")
        loop.call_at_rank(NS_PER_MS, Rank.PLANT, order.append, "PLANT7")
        await asyncio.sleep(0.002)

    run_virtual(main(), VirtualLoop())
    assert order == ["PLANT3", "PLANT7", "H5", "LINK6", "P2", "IOC4", "CONTROL1", "TELEMETRY0"]


def test_what_a_timer_wakes_runs_before_the_next_timer_of_the_same_time() -> None:
    order: list[str] = []

    async def main() -> None:
        loop = loop_of()
        woken = asyncio.Event()

        async def waiter() -> None:
            await woken.wait()
            order.append("woken by P")

        task = asyncio.create_task(waiter())
        loop.call_at_rank(NS_PER_MS, Rank.CONTROL, order.append, "control")
        loop.call_at_rank(NS_PER_MS, Rank.P, woken.set)
        await asyncio.sleep(0.002)
        await task

    run_virtual(main(), VirtualLoop())
    assert order == ["woken by P", "control"]


def test_a_task_keeps_the_rank_it_was_created_under() -> None:
    order: list[str] = []

    async def sleeper(name: str) -> None:
        for _ in range(3):
            await asyncio.sleep(0.001)
            order.append(name)

    async def main() -> None:
        with ranked(Rank.TELEMETRY):
            late = asyncio.create_task(sleeper("telemetry"))
        with ranked(Rank.IOC):
            early = asyncio.create_task(sleeper("ioc"))
        await asyncio.gather(late, early)

    run_virtual(main(), VirtualLoop())
    assert order == ["ioc", "telemetry"] * 3


class Plant:
    """Advances as asked; stops at given times and has something to say there."""

    def __init__(self, events_ns: list[int], say: Callable[[int], None]) -> None:
        self.events_ns = sorted(events_ns)
        self.say = say
        self.t_ns = 0
        self.asked: list[int] = []
        self.loop: VirtualLoop | None = None

    def advance(self, target_ns: int) -> int:
        self.asked.append(target_ns)
        if self.events_ns and self.events_ns[0] <= target_ns:
            self.t_ns = self.events_ns.pop(0)
            if self.loop is not None:
                self.loop.call_at_rank(self.t_ns, Rank.PLANT, self.say, self.t_ns)
        else:
            self.t_ns = target_ns
        return self.t_ns


def test_the_plant_never_passes_the_next_timer_and_may_stop_earlier() -> None:
    said: list[tuple[int, int]] = []
    plant = Plant([1_500_000, 2_000_000], lambda t_ns: said.append((t_ns, loop_of().now_ns())))
    loop = VirtualLoop(plant.advance)
    plant.loop = loop

    async def main() -> None:
        for _ in range(3):
            await asyncio.sleep(0.001)
            said.append((plant.t_ns, loop.now_ns()))

    run_virtual(main(), loop)
    assert said == [
        (1_000_000, 1_000_000),
        (1_500_000, 1_500_000),
        (2_000_000, 2_000_000),  # the plant's event first, then the timer
        (2_000_000, 2_000_000),
        (3_000_000, 3_000_000),
    ]
    assert plant.asked == [1_000_000, 2_000_000, 2_000_000, 3_000_000]


def test_a_plant_event_can_end_a_wait_without_timers() -> None:
    async def main() -> int:
        woken = asyncio.Event()
        plant.say = lambda _t_ns: woken.set()
        await woken.wait()
        return loop.now_ns()

    plant = Plant([5 * NS_PER_MS], lambda _t_ns: None)
    loop = VirtualLoop(plant.advance, limit_ns=NS_PER_S)
    plant.loop = loop
    assert run_virtual(main(), loop) == 5 * NS_PER_MS


@pytest.mark.parametrize("reached", [lambda t_ns: t_ns + 1, lambda _t_ns: -1, lambda _t_ns: 0])
def test_a_plant_that_overshoots_goes_back_or_stands_still_ends_the_run(reached: Callable[[int], int]) -> None:
    with pytest.raises(InternalError) as caught:
        run_virtual(asyncio.sleep(1.0), VirtualLoop(reached))
    assert caught.value.code == "virtual.plant"


def test_a_deadlock_names_who_waits() -> None:
    async def waits_for_ever() -> None:
        await loop_of().create_future()

    with pytest.raises(InternalError) as caught:
        run_virtual(waits_for_ever(), VirtualLoop())
    assert caught.value.code == "virtual.deadlock"
    assert "waits_for_ever" in str(caught.value)


def test_the_limit_ends_a_run_that_would_not_end() -> None:
    async def main() -> None:
        for _ in range(100):
            await asyncio.sleep(1.0)

    with pytest.raises(InternalError) as caught:
        run_virtual(main(), VirtualLoop(limit_ns=10 * NS_PER_S))
    assert caught.value.code == "virtual.limit"


def test_work_that_lets_no_time_pass_ends_the_run() -> None:
    async def main() -> None:
        for _ in range(10_000_000):
            await asyncio.sleep(0)

    with pytest.raises(InternalError) as caught:
        run_virtual(main(), VirtualLoop())
    assert caught.value.code == "virtual.livelock"


def test_a_leaked_task_fails_the_run() -> None:
    async def forgotten() -> None:
        await asyncio.sleep(100)

    async def main() -> None:
        loop_of().keep = asyncio.create_task(forgotten())  # type: ignore[attr-defined]
        await asyncio.sleep(0.1)

    with pytest.raises(InternalError) as caught:
        run_virtual(main(), VirtualLoop())
    assert caught.value.code == "virtual.leak"
    assert "forgotten" in str(caught.value)


def test_an_exception_in_a_callback_fails_the_run() -> None:
    def broken() -> None:
        raise ZeroDivisionError("in a callback")

    async def main() -> None:
        loop_of().call_at_rank(NS_PER_MS, Rank.PLANT, broken)
        await asyncio.sleep(1)

    with pytest.raises(ZeroDivisionError, match="in a callback"):
        run_virtual(main(), VirtualLoop())


async def _thread() -> None:
    await asyncio.to_thread(lambda: None)


async def _socket() -> None:
    await asyncio.open_connection("127.0.0.1", 9)


async def _datagram() -> None:
    await loop_of().create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))


async def _process() -> None:
    await asyncio.create_subprocess_exec("true")


async def _reader() -> None:
    loop_of().add_reader(0, lambda: None)


@pytest.mark.parametrize("real", [_thread, _socket, _datagram, _process, _reader])
def test_real_input_output_and_threads_are_refused(real: Callable[[], Any]) -> None:
    with pytest.raises(InternalError) as caught:
        run_virtual(real(), VirtualLoop())
    assert caught.value.code == "virtual.io"


def test_timeouts_work_and_cancelled_timers_do_not_pile_up() -> None:
    async def main() -> None:
        loop = loop_of()
        event = asyncio.Event()
        for _ in range(5_000):
            loop.call_later(0.001, event.set)
            async with asyncio.timeout(3600):
                await event.wait()
            event.clear()
        assert len(loop._timers) < 1_000
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await event.wait()
        assert loop.now_ns() == 7_500_000_000

    run_virtual(main(), VirtualLoop())


def _trace(slices: int) -> list[tuple[int, int]]:
    """A little crowd of tasks; the run may be driven in slices."""
    log: list[tuple[int, int]] = []

    async def walker(number: int) -> None:
        step = 7 + number * 3
        for _ in range(50):
            await asyncio.sleep(step / 1000)
            log.append((loop.now_ns(), number))

    async def main() -> None:
        crowd = [asyncio.create_task(walker(number)) for number in range(9)]
        for _ in range(slices):
            await asyncio.sleep(0.25 / slices)
        await asyncio.gather(*crowd)

    loop = VirtualLoop()
    run_virtual(main(), loop)
    return log


def test_the_same_run_twice_and_sliced_differently_is_the_same() -> None:
    assert _trace(1) == _trace(1) == _trace(10)
