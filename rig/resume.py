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
from rig.parts import read_earlier
from rig.remote import operator_at, running
from rig.result import DeliveryResult
from rig.session_desk import LayerLine, journal_at, layer_lines, program_of

Confirm = Callable[[SessionEntry, list[LayerLine]], bool]
"""Shown what is planned, delivered and left; whether to go on."""


def resume_session(
    facility: Facility, home: Home, name: str, plan: Path | None, reason: str, confirm: Confirm,
    on_progress: OnProgress | None = None,
) -> DeliveryResult:  # fmt: skip
    """Deliver what a session has left. Raises as `deliver_plan`, and CommandRefused where it must not go on."""
    if home.virtual_journal(name) is not None:
        from rig.resume_virtual import resume_virtual

        return resume_virtual(facility, home, name, plan, reason, confirm, on_progress)
    run = running(facility, home)
    with journal_at(home, facility.id) as journal:
        entry = read.session(journal, name)
        program = program_of(entry, facility, home, plan)

        def shown() -> None:
            if not confirm(entry, layer_lines(journal, entry, program)):
                raise CommandRefused("recovery.declined", "not confirmed: nothing was delivered", name)

        request = DeliveryRequest(
            plan=plan or Path(entry.plan_path), facility=facility, room=entry.room, home=home, qa=entry.qa,
            going_on=GoingOn(name, reason, shown, read_earlier(journal, name, home.session_dir(name))),
        )  # fmt: skip
        return deliver_at(request, program, run, on_progress)


def close_partial(facility: Facility, home: Home, name: str, reason: str) -> None:
    """Close a session as partial, by control at the facility that is up; of a virtual delivery at one of its own."""
    if home.virtual_journal(name) is not None:
        from rig.resume_virtual import close_virtual

        close_virtual(facility, home, name, reason)
        return
    run = running(facility, home)

    async def close() -> None:
        async with operator_at(facility, home, run) as client:
            await client.ask("TCS", "close_partial", {"session": name, "reason": reason})

    asyncio.run(close())
