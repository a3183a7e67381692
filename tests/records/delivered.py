"""A small plan that is delivered once in virtual time, and what the tests of records read of it."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import shutil
import tempfile
from pathlib import Path

from control.plan.dicom_writer import dicom_bytes
from control.plan.load import read_plan
from control.plan.maker import make_small_plan
from control.plan.model import Plan, make_layer
from control.plan.program import MachineProgram, compile_program
from facility.config import load_facility
from facility.config.models import Facility
from facility.energy_table import load_energy_table
from journal.store import Journal, open_journal
from records.account import SessionAccount, read_account
from rig.crashes import Crash, Crashes, Left


@functools.cache
def facility() -> Facility:
    return load_facility("wuwei")


@functools.cache
def plan() -> Plan:
    return read_plan(dicom_bytes(make_small_plan(facility(), "carbon")), "small.dcm")


def in_mu(np_plan: Plan) -> Plan:
    """The same plan with its weights in MU, by the factor of the room in the energy table."""
    table = load_energy_table(facility(), "carbon")
    (beam,) = np_plan.beams
    layers = []
    for index, layer in enumerate(beam.layers):
        code = table.nearest(layer.energy_mev_u)
        charge_fc = table.room(next(iter(facility().rooms))).charge_per_ion_ic1_fc[code]
        factor = facility().species["carbon"].mu_reference_fc / float(charge_fc)
        made = make_layer(beam.name, beam.number, index, energy_mev_u=layer.energy_mev_u, x_mm=layer.x_mm,
                          y_mm=layer.y_mm, weight=layer.weight / factor)  # fmt: skip
        assert made is not None
        layers.append(made)
    total = float(sum(layer.weight.sum() for layer in layers))
    changed = dataclasses.replace(beam, layers=tuple(layers), meterset_unit="MU", meterset=total)
    return dataclasses.replace(np_plan, unit="MU", beams=(changed,))


def compiled(of: Plan) -> MachineProgram:
    return compile_program(of, facility(), next(iter(facility().rooms)), qa=True)


def deliver(program: MachineProgram, folder: Path, die_ns: int | None = None) -> tuple[Left, Journal]:
    left = Crashes(facility(), program, folder).deliver(1, None if die_ns is None else Crash(die_ns))
    return left, open_journal(left.url, facility().id)


@functools.cache
def whole() -> tuple[Left, SessionAccount]:
    """The delivery that nobody interrupts, and its account."""
    folder = Path(tempfile.mkdtemp(prefix="ionctl-records-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    left, journal = deliver(compiled(plan()), folder)
    account = read_account(journal, left.session(facility().id), compiled(plan()))
    journal.close()
    return left, account
