"""What holds for every test: Channel Access stays on loopback, no task is left behind, every skip is on a list."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from inspect import iscoroutinefunction
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import Phase, settings

from tests.skips import objection, read_allowed

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


def _free_port() -> int:
    """A port that is free for UDP and TCP on loopback."""
    for _ in range(50):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        ):
            udp.bind(("127.0.0.1", 0))
            port = int(udp.getsockname()[1])
            try:
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free for UDP and TCP on loopback")


def _stay_on_loopback() -> None:
    """libca and caproto read these once, when they are first used: so before any test is imported."""
    port, repeater = _free_port(), _free_port()
    os.environ.update(
        EPICS_CA_ADDR_LIST="127.0.0.1",
        EPICS_CA_AUTO_ADDR_LIST="NO",
        EPICS_CA_SERVER_PORT=str(port),
        EPICS_CA_REPEATER_PORT=str(repeater),
        EPICS_CAS_SERVER_PORT=str(port),
        EPICS_CAS_INTF_ADDR_LIST="127.0.0.1",
        EPICS_CAS_BEACON_PORT=str(repeater),
        EPICS_CAS_BEACON_ADDR_LIST="127.0.0.1",
        EPICS_CAS_AUTO_BEACON_ADDR_LIST="NO",
    )


_stay_on_loopback()
for _name in ("IONCTL_CONFIG", "IONCTL_HOME"):  # a developer's own settings must not reach the tests
    os.environ.pop(_name, None)

settings.register_profile("ionctl", derandomize=True, deadline=None, database=None)
# mutation testing wants to know that a test fails, not the smallest example of it
settings.register_profile("mutants", settings.get_profile("ionctl"), phases=(Phase.explicit, Phase.generate))
settings.load_profile(os.environ.get("IONCTL_TEST_PROFILE", "ionctl"))

ALLOWED_SKIPS = read_allowed()


def pytest_configure() -> None:
    """A session that is told to end by SIGTERM ends like one that Ctrl-C ends: fixtures take their processes down."""
    if threading.current_thread() is not threading.main_thread():
        return
    session = os.getpid()

    def end(number: int, _frame: FrameType | None) -> None:
        if os.getpid() == session:
            raise KeyboardInterrupt
        os._exit(128 + number)  # a fork of ours has nothing to take down

    signal.signal(signal.SIGTERM, end)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every coroutine test is watched for tasks it leaves behind."""
    for item in items:
        if isinstance(item, pytest.Function) and iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "no_task_left_behind")  # set up first, so torn down last


@pytest.fixture
async def no_task_left_behind() -> AsyncIterator[None]:
    """Fails a test that ends while tasks it started still run; its fixtures may end theirs first."""
    before = asyncio.all_tasks()
    yield
    left = [task for task in asyncio.all_tasks() - before - {asyncio.current_task()} if not task.done()]
    names = sorted(str(task.get_coro()) for task in left)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    if names:
        pytest.fail(f"{len(names)} tasks left behind: {'; '.join(names)}")


def _refuse_unlisted_skip(report: Any) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if problem := objection(reason, ALLOWED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: {problem}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """A skip that is not on the list is a failure."""
    report = yield
    _refuse_unlisted_skip(report)
    return report  # type: ignore[return-value]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """The same for modules that skip as a whole."""
    report = yield
    _refuse_unlisted_skip(report)
    return report  # type: ignore[return-value]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real plans and reference tables beside the repository; skips where it is not there."""
    if not SHARED_DATA.is_dir():
        pytest.skip("shared data not present")
    return SHARED_DATA
