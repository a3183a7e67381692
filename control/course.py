"""Which delivery may begin: nothing is given twice, whoever forgets what was given before.

The one place for it. A plan of which a session that is open has delivered something is not loaded again beside it, in
no mode; of a course the journal knows every session, whichever process kept it. A session is a fraction of a course
where beam is for a patient: clinical mode, beams at their own angles, and a plan that is not meant for quality
assurance. What is no fraction can be delivered as often as one likes, once the session before is closed.
"""

from __future__ import annotations

from control.session import Mode, ProgramLike, Session
from facility.errors import CommandRefused
from journal.course import NO_FRACTION, Course, Part, Share

QA_INTENTS = frozenset({"VERIFICATION", "MACHINE_QA", "RESEARCH", "SERVICE"})
"""PlanIntent (300A,000A) of plans that are for no patient (PS3.3 C.8.8.9)."""


def is_fraction(mode: Mode, program: ProgramLike) -> bool:
    """Whether a delivery is a fraction of a patient's course."""
    return mode == "clinical" and not program.qa and program.intent not in QA_INTENTS


def require_let_go(open_session: Session | None, program: ProgramLike) -> None:
    """CommandRefused 'course.open' while a session of this plan is open that has, or may have, delivered something."""
    session = open_session
    if session is None:
        return
    same = (session.program.patient_id, session.program.plan_hash) == (program.patient_id, program.plan_hash)
    dosed = session.done()[1] > 0.0 or session.unaccounted or session.armed_unbooked
    if same and dosed:
        raise CommandRefused(
            "course.open", f"session {session.id} is open and has delivered part of this plan", "load",
            f"go on with it (ionctl resume {session.id}) or close it (ionctl session close {session.id})",
        )  # fmt: skip


def require_none_open(course: Course) -> None:
    """CommandRefused 'course.unfinished' while a session of this course can be gone on with."""
    for part in course.parts:
        if part.open:
            name = part.entry.session
            raise CommandRefused(
                "course.unfinished", f"session {name} ({part.entry.status}) {_given(part)} of this plan", "load",
                f"go on with it (ionctl resume {name}) or close it as partial (ionctl session close {name})",
            )  # fmt: skip


def share_of(mode: Mode, program: ProgramLike, course: Course | None) -> Share:
    """Which fraction a delivery would be; CommandRefused where it would give something twice."""
    if not is_fraction(mode, program):
        return NO_FRACTION
    if course is not None:
        require_none_open(course)
    return Share(1 if course is None else len(course.fractions) + 1, program.fractions)


def _given(part: Part) -> str:
    return f"may have delivered {part.ions:.4g} ions or more" if part.unsure else f"has delivered {part.ions:.4g} ions"
