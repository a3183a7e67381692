"""The course of a patient's plan, as the journal has it: what each fraction got, what is open.

Patient and plan are identifiers, nothing else. A session belongs to a course when it was opened as a fraction of one;
what quality assurance delivers belongs to none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from journal.read import ARMING, CONTINUATION, ENDED, TREATMENT, SessionEntry, sessions
from journal.schema import LAYERS
from journal.store import Journal


@dataclass(frozen=True)
class Share:
    """Which part of a course a session is; `number` from 1, 0 for none."""

    number: int = 0
    planned: int = 0
    continues: str = ""
    """The session whose rest it gives; empty for a fraction from its beginning."""

    @property
    def delivery(self) -> str:
        """In DICOM's words."""
        return CONTINUATION if self.continues else TREATMENT


NO_FRACTION = Share()


@dataclass(frozen=True)
class Part:
    """One session of a course that has, or may have, delivered something."""

    entry: SessionEntry
    beams: dict[int, float]
    """Ions by 0-based index of the beam, first chamber; what is uncertain counts as delivered."""
    unsure: bool
    """A layer was armed and the journal does not say what it got: in `beams` it counts whole."""

    @property
    def ions(self) -> float:
        """Of all beams."""
        return sum(self.beams.values())

    @property
    def open(self) -> bool:
        """Somebody can go on with it."""
        return self.entry.status not in ENDED


@dataclass(frozen=True)
class Fraction:
    """One fraction: the session that began it, and those that carried its rest."""

    number: int
    parts: tuple[Part, ...]

    @property
    def status(self) -> str:
        """completed, partial, or open while one of its sessions is."""
        if any(part.open for part in self.parts):
            return "open"
        return "completed" if any(part.entry.status == "completed" for part in self.parts) else "partial"

    def to_data(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"fraction": self.number, "status": self.status, "ions": sum(part.ions for part in self.parts),
                "sessions": [part.entry.session for part in self.parts]}  # fmt: skip


@dataclass(frozen=True)
class Course:
    """All that a patient has got of a plan."""

    patient: str
    plan_hash: str
    planned: int
    """Fractions, as its last session said; 0 where there is none."""
    fractions: tuple[Fraction, ...] = field(default=())
    """Begun: something was delivered. By number."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """All sessions that have delivered."""
        return tuple(part for fraction in self.fractions for part in fraction.parts)

    @property
    def completed(self) -> int:
        """Fractions that were delivered whole."""
        return sum(1 for fraction in self.fractions if fraction.status == "completed")

    @property
    def beams(self) -> dict[int, float]:
        """Ions by 0-based index of the beam, all fractions together."""
        total: dict[int, float] = {}
        for part in self.parts:
            for beam, ions in part.beams.items():
                total[beam] = total.get(beam, 0.0) + ions
        return dict(sorted(total.items()))

    def to_data(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "patient": self.patient, "plan_hash": self.plan_hash, "fractions_planned": self.planned,
            "fractions_completed": self.completed, "fractions": [one.to_data() for one in self.fractions],
            "beams": [{"beam": beam, "ions": ions} for beam, ions in self.beams.items()],
        }  # fmt: skip


def read_course(journal: Journal, patient: str, plan_hash: str) -> Course:
    """The course of this patient with this plan; one without fractions where nothing was delivered."""
    entries = [one for one in sessions(journal, patient=patient, plan_hash=plan_hash) if one.fraction > 0]
    by_number: dict[int, list[Part]] = {}
    for part in _parts(journal, entries):
        if part.ions > 0.0 or part.unsure:
            by_number.setdefault(part.entry.fraction, []).append(part)
    planned = entries[-1].fractions_planned if entries else 0
    fractions = tuple(Fraction(number, tuple(parts)) for number, parts in sorted(by_number.items()))
    return Course(patient, plan_hash, planned, fractions)


def delivered_by_beam(journal: Journal, session: str) -> dict[int, float]:
    """Ions by 0-based index of the beam in one session; what is uncertain counts."""
    return _accounts(journal, [session])[session][0]


def _parts(journal: Journal, entries: Sequence[SessionEntry]) -> list[Part]:
    found = _accounts(journal, [entry.session for entry in entries])
    return [Part(entry, *found[entry.session]) for entry in entries]


def _accounts(journal: Journal, names: Sequence[str]) -> dict[str, tuple[dict[int, float], bool]]:
    """By session: ions by beam of the last account of each layer, and whether a layer was armed after the last one:
    then nobody knows what it got, and it counts whole."""
    wanted = sa.select(LAYERS).where(LAYERS.c.session.in_(names)).order_by(LAYERS.c.seq)
    last: dict[str, dict[int, tuple[int, float]]] = {name: {} for name in names}
    unsure, armed = dict.fromkeys(names, False), {}
    with journal.reading() as connection:
        for row in connection.execute(wanted).mappings():
            name = row["session"]
            last[name][row["layer"]] = row["beam"], row["ic1_ions"] + row["uncertain_ions"]
            unsure[name] = row["status"] == ARMING
            armed[name] = row
    for name, row in armed.items():
        if unsure[name]:
            last[name][row["layer"]] = row["beam"], max(row["prescribed_ions"], row["ic1_ions"])
    return {name: (_by_beam(last[name]), unsure[name]) for name in names}


def _by_beam(accounts: dict[int, tuple[int, float]]) -> dict[int, float]:
    beams: dict[int, float] = {}
    for beam, ions in accounts.values():
        beams[beam] = beams.get(beam, 0.0) + ions
    return beams
