"""What journal and records cost of a delivery of the reference plan in virtual time.

Everything is measured in one run, as a share of that run, so that a busy machine divides out: CPU time of the thread
for what is computed, and wall time less CPU time, inside a commit, for what the disk is waited for. The whole delivery
is one thread, with its files, so its CPU time is its wall time without the disk's waiting, which stands apart, on a
machine that does nothing else. The outermost call counts, so nothing is counted twice.
Books: making rows, sealing, hashing and committing them, opening the journal, reading of the course what was given.
Records: the treatment record, spot log and sample log, and gathering the samples. The best of several runs counts.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.bench_virtual import SPECIES, TARGET
from benchmarks.report import save
from control import session_desk
from control.bookkeeper import Bookkeeper
from control.bypass_watch import BypassWatch
from control.plan.dicom_writer import write_dicom_plan
from control.plan.maker import make_plan
from control.plan.program import MachineProgram
from control.sample_log import SampleLog
from facility.config import load_facility
from journal.store import Journal
from journal.writer import InlineWriter
from rig import deliver_virtual as delivering
from rig.deliver import DeliveryRequest, checked_program
from rig.home import Home

FACILITY = "wuwei"
RUNS = 3
SHARE_ALLOWED = 0.10
BOOKS = (
    (Bookkeeper, ("opened", "person", "event", "arming", "booked", "interlock", "bypasses", "record", "command",
                  "settle")),
    (BypassWatch, ("_heard",)),
    (InlineWriter, ("add", "seal", "flush")),
    (Journal, ("tip",)),
    (session_desk, ("read_course",)),
    (delivering, ("open_journal",)),
)  # fmt: skip
RECORDS = (
    (SampleLog, ("_heard", "_heard_ring", "to_bytes")),
    (delivering, ("record_files", "spot_log_bytes")),
)


class Account:
    """CPU and waiting time of the outermost of some calls, s."""

    def __init__(self) -> None:
        self.cpu_s = self.waited_s = 0.0
        self.calls: Counter[str] = Counter()
        """By name, those within others too."""
        self._inside = False

    def around(self, call: Callable[..., Any], *, disk: bool = False) -> Callable[..., Any]:
        """The same call, accounted for; `disk`: what it waits is the disk's."""

        @functools.wraps(call)
        def measured(*arguments: Any, **named: Any) -> Any:
            self.calls[call.__name__] += 1
            if self._inside and not disk:
                return call(*arguments, **named)
            outer, self._inside = self._inside, True
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return call(*arguments, **named)
            finally:
                self._inside = outer
                used = time.thread_time() - cpu
                if disk:
                    self.waited_s += max(0.0, time.perf_counter() - wall - used)
                if not outer:
                    self.cpu_s += used

        return measured


@contextlib.contextmanager
def accounted(books: Account, records: Account) -> Iterator[None]:
    """Inside, both are accounted for."""
    before: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, call: Callable[..., Any]) -> None:
        before.append((owner, name, getattr(owner, name)))
        setattr(owner, name, call)

    for account, table in ((books, BOOKS), (records, RECORDS)):
        for owner, names in table:
            for name in names:
                put(owner, name, account.around(getattr(owner, name)))
    put(Journal, "append", books.around(Journal.append, disk=True))
    try:
        yield
    finally:
        for owner, name, call in reversed(before):
            setattr(owner, name, call)


def measure(
    request: DeliveryRequest, program: MachineProgram, books: Account | None = None, records: Account | None = None
) -> dict[str, Any]:
    """One delivery; into these accounts, if somebody wants to see them."""
    books, records = books or Account(), records or Account()
    wall, cpu = time.perf_counter(), time.thread_time()
    with accounted(books, records):
        result = delivering.deliver_virtual(request, program)
    total_s, used_s = time.perf_counter() - wall, time.thread_time() - cpu
    if not result.completed:
        raise RuntimeError(f"{result.summary['status']}, {result.summary['reason']}")
    return {
        "spots": result.summary["spots_done"], "cpu_s": used_s, "books_ms": books.cpu_s * 1e3,
        "records_ms": records.cpu_s * 1e3, "share": (books.cpu_s + records.cpu_s) / used_s,
        "wall_s_less_disk": total_s - books.waited_s, "disk_ms": books.waited_s * 1e3,
        "book_calls": books.calls.total(), "record_calls": records.calls.total(),
    }  # fmt: skip


def main() -> int:
    """Measure, print, save; exit code 1 above what is allowed."""
    facility = load_facility(FACILITY)
    with tempfile.TemporaryDirectory(prefix="ionctl-bench-") as folder:
        path = Path(folder) / "reference.dcm"
        write_dicom_plan(make_plan(*TARGET, SPECIES, facility), path)
        request = DeliveryRequest(path, facility, next(iter(facility.rooms)), Home(Path(folder) / "home"))
        program = checked_program(request)
        measure(request, program)  # compiles, loads
        best = min((measure(request, program) for _ in range(RUNS)), key=lambda row: float(row["share"]))
    save("journal", {"journal and records, reference plan, virtual target": [best]}, share_allowed=SHARE_ALLOWED)
    print(
        f"  journal and records: {100 * best['share']:.1f} % of the virtual wall time of the reference plan, the "
        f"thread's own ({best['cpu_s']:.2f} s); at most {100 * SHARE_ALLOWED:g} %\n"
        f"  disk synchronisation, apart: {best['disk_ms']:.0f} ms"
    )
    return 0 if best["share"] <= SHARE_ALLOWED else 1


if __name__ == "__main__":
    raise SystemExit(main())
