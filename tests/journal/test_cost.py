"""The benchmark of what journal and records cost finds what it measures: a name that has moved would be left out."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bench_journal import Account, measure
from control.plan.dicom_writer import write_dicom_plan
from control.plan.maker import make_small_plan
from facility.config import load_facility
from rig.deliver import DeliveryRequest, checked_program
from rig.home import Home

WRITTEN = {"opened", "event", "arming", "booked", "record", "command", "add", "seal", "flush", "append", "open_journal",
           "read_course"}  # fmt: skip
ON_RECORD = {"record_files", "spot_log_bytes", "to_bytes", "_heard", "_heard_ring"}


def test_every_step_of_a_delivery_s_books_and_records_is_in_the_account(tmp_path: Path) -> None:
    facility = load_facility("wuwei")
    write_dicom_plan(make_small_plan(facility, "carbon"), tmp_path / "small.dcm")
    home, room = Home(tmp_path / "home"), next(iter(facility.rooms))
    request = DeliveryRequest(tmp_path / "small.dcm", facility, room, home)
    books, records = Account(), Account()
    found = measure(request, checked_program(request), books, records)
    assert set(books.calls) >= WRITTEN
    assert set(records.calls) >= ON_RECORD
    assert 0.0 < 1e3 * books.cpu_s == found["books_ms"]
    assert 0.0 < 1e3 * records.cpu_s == found["records_ms"]
