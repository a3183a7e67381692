"""Broken plans and records: whatever the bytes, a reader gives a plan, a record, or the project's own error.

Each input is a whole file that was damaged, by its number alone: bytes flipped, runs cut out, doubled, or taken from
another file, lengths made enormous, the end cut off. No crash, no hang, no memory beyond what is stated, and no error
but `PlanError`. Seeds are files that are made here, and real ones of other makers where they are at hand.
"""

from __future__ import annotations

import dataclasses
import functools
import resource
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from control.plan.dicom_writer import dicom_bytes
from control.plan.load import read_plan
from control.plan.maker import make_small_plan
from control.plan.program import compile_program
from facility.config import load_facility
from facility.errors import PlanError
from journal.store import open_journal
from records.account import read_account
from records.dicom_record import record_bytes
from records.reader import read_record
from rig.crashes import Crashes

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "plans"
LARGEST_BYTES = 600_000
"""Larger real files are left out: they say the same, slowly."""
INPUTS = 1000
"""In one case of a long count."""
SLOWEST_S = 5.0
MEMORY_BYTES = 1 << 30
_LENGTHS = (b"\xff\xff\xff\xff", b"\xfe\xff\xff\xff", b"\x00\x00\x00\x80", b"\x00\x00\x00\x00", b"\xff\xff")
Reader = Callable[[bytes, str], object]


@functools.cache
def seeds() -> tuple[tuple[str, Reader, bytes], ...]:
    """(name, reader, whole file)."""
    facility = load_facility("wuwei")
    plan = make_small_plan(facility, "carbon")
    beam = dataclasses.replace(plan.beams[0], meterset_unit="MU")
    in_mu = dataclasses.replace(plan, unit="MU", beams=(beam,))
    found: list[tuple[str, Reader, bytes]] = [
        ("made.dcm", read_plan, dicom_bytes(plan)), ("made-mu.dcm", read_plan, dicom_bytes(in_mu)),
        ("record.dcm", read_record, _record()),
    ]  # fmt: skip
    real = sorted(SHARED.glob("*")) if SHARED.is_dir() else []
    found += [
        (path.name, read_plan, path.read_bytes())
        for path in real
        if path.suffix in (".dcm", ".rst") and path.stat().st_size <= LARGEST_BYTES
    ]
    return tuple(found)


def _record() -> bytes:
    facility = load_facility("wuwei")
    program = compile_program(make_small_plan(facility, "carbon"), facility, next(iter(facility.rooms)), qa=True)
    with tempfile.TemporaryDirectory(prefix="ionctl-fuzz-") as folder:
        left = Crashes(facility, program, Path(folder)).deliver(1, None)
        with closing(open_journal(left.url, facility.id)) as journal:
            return record_bytes(read_account(journal, left.session(facility.id), program))


def damaged(number: int) -> tuple[str, Reader, bytes]:
    """Input of this number."""
    rng = np.random.default_rng(number)
    files = seeds()
    name, reader, whole = files[int(rng.integers(len(files)))]
    data = bytearray(whole)
    for _ in range(int(rng.integers(1, 6))):
        _damage(data, rng, files[int(rng.integers(len(files)))][2])
    return f"{number}-{name}", reader, bytes(data)


def _damage(data: bytearray, rng: np.random.Generator, other: bytes) -> None:
    if not data:
        return
    at = int(rng.integers(len(data)))
    run = int(rng.integers(1, 64))
    match int(rng.integers(6)):
        case 0:
            data[at] = int(rng.integers(256))
        case 1:
            data[at : at + 4] = _LENGTHS[int(rng.integers(len(_LENGTHS)))]
        case 2:
            del data[at : at + run]
        case 3:
            data[at:at] = data[at : at + run]
        case 4:
            begin = int(rng.integers(len(other)))
            data[at : at + run] = other[begin : begin + run]
        case _:
            del data[at:]


def objection(number: int) -> str:
    """What is wrong with how this input was taken; empty if nothing is."""
    name, reader, data = damaged(number)
    begin = time.thread_time()
    try:
        reader(data, name)
    except PlanError as problem:
        if not str(problem).strip():
            return f"{name}: an error without words"
    except Exception as problem:  # noqa: BLE001 - that is what is looked for
        return f"{name}: {type(problem).__name__}: {problem}"
    took_s = time.thread_time() - begin
    return f"{name}: took {took_s:.1f} s" if took_s > SLOWEST_S else ""


def block(number: int) -> str:
    """Case of a long count: a thousand inputs."""
    seeds()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for k in range(number * INPUTS, (number + 1) * INPUTS):
        if problem := objection(k):
            return problem
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return f"memory grew by {grown / 1e6:.0f} MB" if grown > MEMORY_BYTES else ""
