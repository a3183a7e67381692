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
from journal.read import SessionEntry

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
            raise _unfinished(part, "load")


def require_given_by_nobody_else(entry: SessionEntry, course: Course) -> None:
    """CommandRefused 'course.twice' or 'course.unfinished' where this session, of which little or nothing was delivered
    when it was left, is no longer the one that gives its fraction: another one has, or is about to."""
    before, name = {entry.session}, entry.continues
    known = {part.entry.session: part for part in course.parts}
    while name in known and name not in before:
        before.add(name)
        name = known[name].entry.continues
    for part in course.parts:
        other = part.entry
        if other.session in before:
            continue
        if part.open:
            raise _unfinished(part, "recover")
        if other.fraction == entry.fraction:
            what = f"fraction {entry.fraction} was given by session {other.session} ({other.status}) meanwhile"
            raise CommandRefused("course.twice", what, entry.session, f"ionctl session close {entry.session}")


def share_of(mode: Mode, program: ProgramLike, course: Course | None, fraction: int = 0, continues: str = "") -> Share:
    """Which fraction a delivery would be; CommandRefused where it would give something twice.

    Args:
        course: what the journal knows of it; None: there is no journal.
        fraction: the one that is wanted, from 1; 0: the next one.
        continues: a session that was closed as partial, whose rest is wanted.
    """
    if not is_fraction(mode, program):
        if fraction or continues:
            what = f"mode {mode}{', --qa' if program.qa else ''}, plan for {program.intent or 'treatment'}: no fraction"
            raise CommandRefused("course.none", what, "load", "only a course in clinical mode has fractions")
        if mode == "clinical" and not program.qa and course is not None:
            _require_begun_so(course, program)
        return NO_FRACTION
    found = course or Course(program.patient_id, program.plan_hash, program.fractions)
    _require_begun_so(found, program)
    require_none_open(found)
    share = _continuation(found, continues, program.fractions) if continues else _next(found, program.fractions)
    if fraction not in (0, share.number):
        _refuse_number(found, fraction, share)
    return share


def _require_begun_so(course: Course, program: ProgramLike) -> None:
    """CommandRefused 'course.other' where the plan's file says another intent or number of fractions than the course
    was begun with: the plan's hash covers neither, and either would let more be given than was planned."""
    if not course.parts:
        return
    first = course.parts[0].entry
    intent = program.intent if first.intent is None else first.intent
    for name, was, found in (
        ("intent", intent or "none", program.intent or "none"),
        ("number of fractions", first.fractions_planned, program.fractions),
    ):
        if was != found:
            raise CommandRefused(
                "course.other", f"{name} {found}, session {first.session} began the course of this plan with {was}",
                "load", "deliver the plan as its course was begun: a file does not prescribe its rest anew",
            )  # fmt: skip


def _next(course: Course, planned: int) -> Share:
    number = 1 + max((fraction.number for fraction in course.fractions), default=0)
    if number <= planned:
        return Share(number, planned)
    last = course.fractions[-1]
    partial = [one for one in course.fractions if one.status == "partial"]
    rest = partial[0].parts[-1].entry.session if partial else ""
    raise CommandRefused(
        "course.complete",
        f"all {planned} fractions of this plan were given, {last.number} by session {last.parts[-1].entry.session}",
        "load", f"the rest of fraction {partial[0].number}: --continues {rest}" if partial else "nothing is left",
    )  # fmt: skip


def _continuation(course: Course, continues: str, planned: int) -> Share:
    for fraction in course.fractions:
        if continues not in [part.entry.session for part in fraction.parts]:
            continue
        last = fraction.parts[-1].entry
        if fraction.status == "partial" and last.session == continues:
            return Share(fraction.number, planned, continues)
        what = f"fraction {fraction.number} is {fraction.status}, its last session is {last.session}"
        raise CommandRefused("course.twice", what, continues, "only what is left of a partial fraction is carried on")
    raise CommandRefused("course.unknown", "it has delivered no fraction of this plan", continues or "load",
                         "ionctl session list shows them")  # fmt: skip


def _refuse_number(course: Course, fraction: int, share: Share) -> None:
    for one in course.fractions:
        if one.number == fraction:
            what = f"fraction {fraction} of {share.planned} was given by session {one.parts[-1].entry.session}"
            raise CommandRefused("course.twice", f"{what} ({one.status})", "load", f"next is {share.number}")
    raise CommandRefused("course.order", f"fraction {fraction} of {share.planned} is not the next one", "load",
                         f"next is {share.number}")  # fmt: skip


def _unfinished(part: Part, verb: str) -> CommandRefused:
    name = part.entry.session
    return CommandRefused(
        "course.unfinished", f"session {name} ({part.entry.status}) {_given(part)} of this plan", verb,
        f"go on with it (ionctl resume {name}) or close it as partial (ionctl session close {name})",
    )  # fmt: skip


def _given(part: Part) -> str:
    return f"may have delivered {part.ions:.4g} ions" if part.unsure else f"has delivered {part.ions:.4g} ions"
