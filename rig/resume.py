"""Go on with a session of the journal, or close it as partial: at the facility that is up, or, of a virtual delivery,
at a virtual one of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from facility.config import Facility
from facility.errors import CommandRefused
from journal import read
from journal.read import SessionEntry
from rig.deliver import DeliveryRequest, GoingOn, OnProgress
from rig.deliver_ca import deliver_at
from rig.home import Home
from rig.operator_client import Closed
from rig.parts import read_earlier
from rig.remote import operator_at, running
from rig.result import DeliveryResult
from rig.session_desk import LayerLine, layer_lines, plan_file, program_of, session_at

Confirm = Callable[[SessionEntry, list[LayerLine]], bool]
"""Shown what is planned, delivered and left; whether to go on."""


def resume_session(
    facility: Facility, home: Home, name: str, plan: Path | None, reason: str, confirm: Confirm,
    on_progress: OnProgress | None = None, *, new_limits: bool = False,
) -> DeliveryResult:  # fmt: skip
    """Deliver what a session has left; with `new_limits` as the physicist, although the interlock rules are others than
    it went by. Raises as `deliver_plan`, and CommandRefused where it must not go on."""
    if home.virtual_journal(name) is not None:
        from rig.resume_virtual import resume_virtual

        return resume_virtual(facility, home, name, plan, reason, confirm, on_progress, new_limits=new_limits)
    with session_at(home, facility.id, name) as (journal, entry):
        program = program_of(entry, facility, home, plan)
        run = running(facility, home)

        def shown() -> None:
            if not confirm(entry, layer_lines(journal, entry, program)):
                raise CommandRefused("recovery.declined", "not confirmed: nothing was delivered", name)

        request = DeliveryRequest(
            plan=plan or Path(entry.plan_path), facility=facility, room=entry.room, home=home, qa=entry.qa,
            going_on=GoingOn(name, reason, shown, read_earlier(journal, name, home.session_dir(name)), new_limits),
        )  # fmt: skip
        return deliver_at(request, program, run, on_progress)


def close_partial(
    facility: Facility, home: Home, name: str, reason: str, plan: Path | None = None, *, without_plan: bool = False
) -> Closed:
    """Close a session as partial, by control at the facility that is up; of a virtual delivery at one of its own.

    `plan`: its file, where it has moved; PlanError where it is not found, unless it is to be closed `without_plan`:
    then what the dose register has of it is not heard, and no rest of it can be given.
    """
    if home.virtual_journal(name) is not None:
        from rig.resume_virtual import close_virtual

        return close_virtual(facility, home, name, reason, plan, without_plan=without_plan)
    with session_at(home, facility.id, name) as (_, entry):
        if entry.status in read.ENDED:
            raise CommandRefused("session.ended", f"session {name} is {entry.status}", "close")
        if plan is None and not without_plan:
            plan_file(entry)
    run, file = running(facility, home), "" if plan is None else str(plan.resolve())

    async def close() -> Closed:
        async with operator_at(facility, home, run) as client:
            return await client.close_partial(name, reason, file)

    return asyncio.run(close())
