"""After a stop: what the journal booked and what the dose register holds, brought together. Pure.

The register speaks of one load of one layer, the journal of what was booked before. Whether the journal has that load
already is told by the table it was loaded with: its CRC covers what counted as delivered before, so it is that of the
journal's last account (the load came after, its ions are added), of an earlier one (they are in already), or of neither
(nothing is believed, and nothing delivered).

Never optimistic: charge that may have come and was not written down counts as delivered, at the spot under way and at
those behind it; a spot whose row is torn counts as delivered whole; a layer that was armed and of which no register
speaks any more counts as delivered whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from control.chambers import believed
from control.layer_table import (
    COLUMN,
    FloatArray,
    LayerRules,
    add_earlier,
    counted_ions,
    judge,
    spot_table,
)
from control.layer_table import table_crc32 as crc32_of
from control.machine_status import Dose
from control.session import ProgramLike, Session
from facility.errors import CommandRefused, JournalError
from facility.ids import field_number
from facility.pv_catalogue import REGISTER_COLUMNS
from journal.read import ARMING, ENDED, RECOVERED, UNKNOWN_RULES, LayerEntry, SessionEntry

UNTOLD_SHARE = 0.05
"""Of the prescription: what the backup counter may have more than the account, as its own rule has it."""
LEAST_COUNTS = 2.0
"""A remainder of fewer counts than this is none."""


@dataclass(frozen=True, eq=False)
class Reconciled:
    """What the present layer of a session has got, by journal and register."""

    words: str
    rows: FloatArray | None = None
    """Totals (n, len(REGISTER_COLUMNS)); None where the journal's account stands as it is."""
    uncertain: FloatArray = field(default_factory=lambda: np.zeros(0))
    """(n,): counts as delivered, was not measured."""
    unknown_spots: int = 0
    beyond_ions: float = 0.0
    """Uncertain charge that is more than the layer had left: it may have come on top of the prescription."""

    def to_data(self) -> dict[str, Any]:
        """For the event."""
        return {"words": self.words, "uncertain_ions": float(self.uncertain.sum()), "unknown_spots": self.unknown_spots,
                "beyond_ions": self.beyond_ions}  # fmt: skip


def require_same(entry: SessionEntry, program: ProgramLike, energy_table: str) -> None:
    """CommandRefused unless this program goes on with that session: plan, patient, room, configuration, energies, and
    what the plan's hash does not cover and a course goes by: its intent and how many fractions it has."""
    if entry.status in ENDED:
        raise CommandRefused("recovery.ended", f"session {entry.session} is {entry.status}", "recover")
    require_alike(entry, program, energy_table)


def require_alike(entry: SessionEntry, program: ProgramLike, energy_table: str) -> None:
    """The same, of a session that may have ended."""
    pairs = (
        ("plan hash", entry.plan_hash, program.plan_hash), ("patient", entry.patient, program.patient_id),
        ("room", entry.room, program.room_id), ("facility", entry.facility, program.facility_id),
        ("energy table", entry.energy_table, energy_table), ("configuration", entry.config_hash, program.facility_hash),
        ("QA", str(entry.qa), str(program.qa)), ("intent", entry.intent or "", program.intent),
        ("number of fractions", str(entry.fractions_planned), str(program.fractions)),
    )  # fmt: skip
    known = {"intent": entry.intent is not None, "number of fractions": entry.fraction > 0}
    for name, was, found in pairs:
        if was != found and known.get(name, True):
            what = f"{name} {found or 'none'}, the session was opened with {was or 'none'}"
            raise CommandRefused("recovery.other", what, entry.session, "go on with the same, or close it as partial")


def changed_limits(entry: SessionEntry, rules_hash: str, *, accepted: bool, rest: bool = False) -> str:
    """The hash of the interlock rules that a session went by, where those in force (`rules_hash`) are others;
    UNKNOWN_RULES where the journal does not say, empty where they are the same. CommandRefused unless a physicist has
    `accepted` other ones. With `rest` it is what the session has left that is asked for, as a session of its own."""
    was = entry.rules_hash
    if was == rules_hash:
        return ""
    if not was:
        return UNKNOWN_RULES
    if not accepted:
        what = (
            f"interlock rules {rules_hash[:16] or 'none'}, the session was opened with {was[:16]}; the journal keeps "
            "this hash of them and no limits, so that it cannot be said which differ"
        )
        how = "deliver --continues --new-limits --reason" if rest else "resume --new-limits"
        or_else = "make a plan of its own of what is left" if rest else "close it as partial"
        raise CommandRefused("recovery.limits", what, entry.session, f"put the rule files back; or a physicist goes on "
                             f"with {how}, which is recorded; or {or_else}")  # fmt: skip
    return was


def restore(session: Session, entries: Sequence[LayerEntry]) -> None:
    """Give a session that is opened again the journal's account. JournalError where that makes no sense."""
    session.recovering = True
    session.history = [entry for entry in entries if entry.status != ARMING]
    last: dict[int, LayerEntry] = {}
    for entry in session.history:
        last[entry.layer] = entry
    for index in range(len(session.books)):
        found = last.get(index)
        if found is None:
            break
        layer = session.books[index].layer
        if found.token != layer.token or len(found.rows) != layer.target_ions.size:
            raise JournalError("journal.layer", f"layer {index} in the journal is not that of this plan", session.id,
                               "give the plan that the session was opened with")  # fmt: skip
        verified = found.status == "verified"
        session.restore(found.rows, found.uncertain, found.loads, found.t_ns, verified=verified)
        if not verified:
            break
    armed = [entry for entry in entries if entry.status == ARMING]
    for entry in armed:  # a load that nobody lived to book was one
        book = session.books[entry.layer]
        book.loads = max(book.loads, entry.loads)
    booked = max((entry.seq for entry in session.history), default=-1)
    session.armed_unbooked = bool(armed) and armed[-1].seq > booked and armed[-1].layer == session.index


def reconcile(session: Session, doses: Sequence[Dose], rules: LayerRules) -> Reconciled:
    """The account of the present layer. JournalError 'recovery.register' where journal and register contradict."""
    if session.finished:
        return Reconciled("every layer is verified")
    layer = session.book.layer
    number = field_number(session.id)
    mine = [dose for dose in doses if dose.field == number and dose.plan_hash == session.program.plan_hash]
    _require_not_ahead(session, mine)
    accounts = [None, *(entry for entry in session.history if entry.layer == session.index)]
    for dose in mine:
        if dose.token != layer.token or len(dose.rows) != layer.target_ions.size:
            continue
        crcs = [_crc(session, entry, rules) for entry in accounts]
        if crcs[-1] == dose.table_crc32:
            return _added(session, dose, rules)
        if dose.table_crc32 in crcs and session.armed_unbooked and not dose.power_lost:
            return _all_of_it(session, "the register holds an earlier load of it and not that one")
        if dose.table_crc32 in crcs:
            return Reconciled(f"layer {session.index}: the journal has all that the register holds")
        what = f"the register holds layer {session.index}, loaded with another account than the journal's"
        raise JournalError("recovery.register", what, session.id, "close the session as partial")
    if not session.armed_unbooked or any(dose.power_lost for dose in mine):
        return Reconciled(f"layer {session.index}: nothing was delivered since the journal's account")
    return _all_of_it(session, "the register is older than that" if mine else "no register speaks of it")


def _require_not_ahead(session: Session, doses: Sequence[Dose]) -> None:
    """JournalError 'recovery.register' where the register holds a layer that this journal has never armed: somebody has
    put an older copy of the journal back, and what it has forgotten would be given once more.  Only the table of the
    next layer may be there, behind the load of the present one: it goes ahead of the journal, its beam does not."""
    place = {book.layer.token: index for index, book in enumerate(session.books)}
    layers = [place.get(dose.token, -1) for dose in doses]
    for dose, layer in zip(doses, layers, strict=True):
        waits = layer == session.index + 1 and session.index in layers and not _begun(dose)
        if layer > session.index and not waits:
            what = f"the register holds layer {layer}, the journal of this session ends in layer {session.index}"
            raise JournalError("recovery.register", what, session.id,
                               "put the newest copy of the journal back; with this one close the session as partial, "
                               "and count what it does not tell as delivered")  # fmt: skip


def _begun(dose: Dose) -> bool:
    """It was armed. Rows that a loss of power has torn say nothing: the slot has a spot from arming on."""
    return dose.spot >= 0 or bool((dose.rows[:, [COLUMN["ic1_ions"], COLUMN["ic2_ions"], COLUMN["done"]]] > 0.0).any())


def _all_of_it(session: Session, why: str) -> Reconciled:
    """The present layer was armed and nobody knows what it got: all that it can have got counts as delivered."""
    book, layer = session.book, session.book.layer
    left = np.maximum(layer.target_ions - book.start_ions, 0.0)
    rows = np.zeros((layer.target_ions.size, len(REGISTER_COLUMNS))) if book.rows is None else book.rows.copy()
    rows[:, COLUMN["done"]] = 1.0
    words = f"layer {session.index} was armed and {why}: all of it counts as delivered"
    return Reconciled(words, rows, book.uncertain + left, int(np.count_nonzero(left > 0.0)))


def go_on_from(session: Session, doses: Sequence[Dose], rules: LayerRules, t_ns: int) -> Reconciled:
    """Reconcile and book what was found: from now on the session goes on like any other. Raises as `reconcile`."""
    found = reconcile(session, doses, rules)
    session.recovering = False
    session.messages.append(found.words)
    if found.rows is not None:
        session.book.uncertain = found.uncertain
        if judge(session.book.layer, found.rows, rules, uncertain=found.uncertain).good:
            session.verified(found.rows, t_ns)
        else:
            session.account(found.rows, t_ns, RECOVERED)
    return found


def require_known(session: Session, doses: Sequence[Dose]) -> None:
    """JournalError 'recovery.register' where the register holds a load of this plan, begun in a field of which the
    journal has no dose: an older copy of the journal was put back, and by it a fraction would be given twice."""
    known = (session.known_fields or frozenset()) | {field_number(session.id)}
    for dose in doses:
        if dose.plan_hash == session.program.plan_hash and dose.field not in known and _begun(dose):
            what = f"the register holds dose of this plan, field {dose.field}, of which the journal has nothing"
            raise JournalError("recovery.register", what, session.id,
                               "put the newest copy of the journal back; where there is none, count that dose and give "
                               "what is left by a plan of its own")  # fmt: skip


def require_all_told(session: Session, had_ions: object) -> None:
    """JournalError 'recovery.register' where the front end's backup counter has counted much more of this field than
    journal and register tell: an older copy of the journal was put back, and later fields have taken the register.

    `had_ions` is what the front end says; what is no number is judged by its own rules.
    """
    told = math.fsum(float(book.start_ions.sum()) for book in session.books)
    if isinstance(had_ions, int | float) and had_ions > told + UNTOLD_SHARE * session.prescribed_ions:
        what = f"the backup counter has {had_ions:.4g} ions of this field, journal and register tell of {told:.4g}"
        raise JournalError("recovery.register", what, session.id,
                           "put the newest copy of the journal back, or close the session as partial")  # fmt: skip


def _crc(session: Session, entry: LayerEntry | None, rules: LayerRules) -> int:
    layer = session.book.layer
    none = np.zeros(layer.target_ions.size)
    start = none if entry is None else counted_ions(layer, entry.rows, entry.uncertain)
    return crc32_of(spot_table(layer, start, rules))


def _added(session: Session, dose: Dose, rules: LayerRules) -> Reconciled:
    """The load's ions on top of the journal's account, and what nobody measured."""
    book, layer = session.book, session.book.layer
    this = dose.rows.copy()
    unknown = this[:, COLUMN["done"]] < -0.5
    this[:, COLUMN["done"]] = np.maximum(this[:, COLUMN["done"]], 0.0)
    this[:, COLUMN["target_ions"]] = layer.target_ions
    this[:, COLUMN["start_ions"]] = book.start_ions
    this, beyond = believed(layer, this, book.start_ions, rules)
    rows = add_earlier(this, book.rows)
    uncertain = book.uncertain + beyond
    left = layer.target_ions - counted_ions(layer, rows, uncertain)
    uncertain[unknown] += np.maximum(left[unknown], 0.0)
    rows[unknown, COLUMN["done"]] = 1.0
    budget = dose.uncertain_ions
    for spot in range(max(dose.spot, 0), layer.target_ions.size):
        if budget <= 0.0:
            break
        if rows[spot, COLUMN["done"]] < 0.5 and left[spot] > 0.0:
            given = min(float(left[spot]), budget)
            uncertain[spot] += given
            budget -= given
    count = layer.ions_per_count
    counted = counted_ions(layer, rows, uncertain)
    begun = counted > 0.0
    rows[begun & (layer.target_ions - counted <= LEAST_COUNTS * count), COLUMN["done"]] = 1.0
    words = (
        f"layer {session.index}: {int(np.count_nonzero(rows[:, COLUMN['done']] > 0.5))} of {len(rows)} spots done, "
        f"{float(uncertain.sum()):.0f} ions uncertain"
        + (f", up to {budget:.0f} beyond the end of the layer" if budget > 0.0 else "")
    )
    return Reconciled(words, rows, uncertain, int(np.count_nonzero(unknown)), budget)
