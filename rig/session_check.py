"""What is wrong with a session that came to its end, whoever died on the way: by truth, journal, record and register.

No spot is over by more than 1 % or 2 counts and what a stop lets through; none is under by more than that and what was
stated as uncertain; the sum is over by at most 0.5 %; the journal is whole, and its account is that of the
prescription, of the treatment record, and of the dose register for the load that came last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import numpy as np

from control.plan.program import MachineProgram
from facility.config import Facility
from facility.errors import IonctlError
from facility.ids import field_number
from facility.intensity import spot_tolerance_ions
from facility.pv_catalogue import REGISTER_COLUMNS
from ioc_sim.register_store import RegisterStore, read_records
from journal import read
from journal.read import LayerEntry
from journal.store import Journal, open_journal
from journal.verify import verify
from records.account import read_account
from records.dicom_record import record_bytes
from records.reader import read_record

MOST_IN_ALL = 1.005
"""Of the prescription."""
REGISTER_IONS = 1.0
"""The register holds thousandths of an ion, the journal sums of what was read from it."""
RECORD_SHARE = 1e-6
"""A record's metersets are float32."""
_IC1 = REGISTER_COLUMNS.index("ic1_ions")
Truth = Mapping[int, np.ndarray]
"""Ions by spot, (n,), of all lives together; by layer token."""


def objections(
    facility: Facility, program: MachineProgram, url: str, session: str, truth: Truth, register: RegisterStore
) -> list[str]:
    """Objections to a completed session, in words; empty if there are none. `url` is where the journal lies."""
    with closing(open_journal(url, facility.id, read_only=True)) as journal:
        found = [broken] if (broken := verify(journal).broken) else []
        entries = [one for one in read.layers(journal, session) if one.status != read.ARMING]
        found += _record(journal, session, program)
    booked = {one.layer: one for one in entries}
    for index, layer in enumerate(program.layers):
        entry = booked.get(index)
        if entry is None or entry.status != read.VERIFIED:
            found.append(f"layer {index} is not verified in the journal")
            continue
        found += _layer(program, index, entry, truth.get(layer.token))
    total = sum(float(ions.sum()) for ions in truth.values())
    if total > MOST_IN_ALL * program.total_ions:
        found.append(f"{total:.0f} ions in all, prescribed {program.total_ions:.0f}")
    return found + _register(session, program, entries, register)


def _layer(program: MachineProgram, index: int, entry: LayerEntry, truth: np.ndarray | None) -> Iterator[str]:
    layer = program.layers[index]
    ions = np.zeros(layer.n_spots) if truth is None else truth
    level, target = layer.intensity_ions_per_s, layer.target_ions
    allowed, _ = spot_tolerance_ions(target, level, layer.ions_per_count, float(target.max()))
    error = ions - target
    for words, beyond in (("over", error - allowed), ("under", -error - allowed - entry.uncertain)):
        if (beyond > 0.0).any():
            spot = int(beyond.argmax())
            yield f"layer {index}, spot {spot}: {words} by {abs(error[spot]):.0f} ions"
    account = np.abs(entry.rows[:, _IC1] + entry.uncertain - target)
    if (account > 2.0 * allowed).any():
        yield f"layer {index}, spot {int(account.argmax())}: the journal is off by {account.max():.0f} ions"


def _record(journal: Journal, session: str, program: MachineProgram) -> list[str]:
    """The treatment record, written and read again, against the journal's account."""
    try:
        account = read_account(journal, session, program)
        record = read_record(record_bytes(account), session)
    except IonctlError as problem:
        return [f"no record: {problem}"]
    layers = [one for beam in record.beams for one in beam.layers]
    if len(layers) != len(account.layers):
        return [f"the record has {len(layers)} layers, the journal {len(account.layers)}"]
    return [
        f"layer {booked.index}: the record does not say what the journal says"
        for one, booked in zip(layers, account.layers, strict=True)
        if not np.allclose(
            one.meterset * booked.layer.ions_per_unit, booked.given_ions[booked.begun], rtol=RECORD_SHARE, atol=1.0
        )
    ]


def _register(
    session: str, program: MachineProgram, entries: Sequence[LayerEntry], register: RegisterStore
) -> list[str]:
    """What the last load gave, by the register, is what its booking added to the account before it."""
    found = [one for one in read_records(register) if one.layer.field == field_number(session)]
    if not found:
        return ["the register does not know the session"]
    record, said = found[0], []
    index = next((i for i, layer in enumerate(program.layers) if layer.token == record.layer.token), -1)
    mine = [one for one in entries if one.layer == index]
    if record.layer.plan_hash != program.plan_hash or not mine:
        return ["the register holds a layer that the journal does not have"]
    before = [np.zeros(len(mine[-1].rows)), *(one.rows[:, _IC1] for one in mine[:-1])]
    off = min((np.abs(mine[-1].rows[:, _IC1] - one - record.ions[:, 0]) for one in before), key=np.max)
    if not (off <= REGISTER_IONS).all():
        spot = int(off.argmax())
        said.append(f"layer {index}, spot {spot}: register and journal differ by {off[spot]:.0f} ions of the last load")
    return said
