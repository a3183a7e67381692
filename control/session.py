"""A treatment session: what was asked for, what each layer got, and how it ended.

Only what control itself can know is in here. Truth belongs to the rig, which adds it to the report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np

from control.layer_table import COLUMN, FloatArray, LayerLike, counted_ions, worst_position_mm
from facility.errors import InternalError
from facility.events import canonical_json
from facility.timebase import NS_PER_S
from journal.course import NO_FRACTION
from journal.read import BOOKED, VERIFIED, LayerEntry

SUMMARY_SCHEMA = "ionctl.session-summary/1"

Status = Literal["open", "completed", "interrupted", "terminated"]
Mode = Literal["clinical", "qa", "service"]
MODES: tuple[Mode, ...] = ("clinical", "qa", "service")
"""In the order of the states of SAFE:Mode-Sts."""


class ProgramLike(Protocol):
    """What control needs of a machine program (`control.plan.program.MachineProgram`)."""

    @property
    def plan_hash(self) -> str: ...

    @property
    def plan_label(self) -> str: ...

    @property
    def facility_id(self) -> str: ...

    @property
    def facility_hash(self) -> str: ...

    @property
    def room_id(self) -> str: ...

    @property
    def plan_uid(self) -> str: ...

    @property
    def intent(self) -> str: ...

    @property
    def fractions(self) -> int: ...

    @property
    def patient_id(self) -> str: ...

    @property
    def qa(self) -> bool: ...

    @property
    def layers(self) -> Sequence[LayerLike]: ...

    def rest(self, left: Sequence[FloatArray], attempt: int) -> ProgramLike:
        """See `control.plan.program.MachineProgram.rest`."""
        ...


@dataclass(frozen=True)
class LayerResult:
    """One layer that was delivered and verified, or the delivered part of one that was not."""

    index: int
    """0-based within the program."""
    beam: int
    layer: int
    """0-based within the beam."""
    token: int
    energy_mev_u: float
    intensity_ions_per_s: float
    spots: int
    spots_done: int
    prescribed_ions: float
    ic1_ions: float
    ic2_ions: float
    heaviest_spot_ions: float
    worst_spot: int
    worst_spot_error_ions: float
    """By the first chamber, signed; over finished spots."""
    worst_position_mm: float | None
    """By the strip chamber; None where nothing was measured."""
    loads: int
    """How often the layer was loaded; more than 1 after a resume."""
    t_armed_ns: int
    t_first_beam_ns: int | None
    t_done_ns: int
    beam_on_s: float
    verified: bool
    backup_ions: float | None = None
    """By the backup counter; see `LayerBook`."""

    @property
    def time_s(self) -> float:
        """Facility time from arming to the end of the layer, s."""
        return (self.t_done_ns - self.t_armed_ns) / NS_PER_S


@dataclass
class LayerBook:
    """The account of one layer while it is being delivered. Ions per spot, shape (n,)."""

    layer: LayerLike
    rows: FloatArray | None = None
    """What all loads of the layer gave together, as far as registers have been read (`add_earlier`)."""
    shown: FloatArray | None = None
    """The same while the layer is interrupted, for records only: the spot that was cut short is still open."""
    uncertain: FloatArray = field(default_factory=lambda: np.zeros(0))
    """Charge (n,) that counts as delivered although nobody has measured it: what a dead process could not tell."""
    backup_ions: float | None = None
    """By the backup counter; None where it was not asked, or the layer has been loaded more than once."""
    loaded_from: FloatArray = field(default_factory=lambda: np.zeros(0))
    """`start_ions` of the present load."""
    loads: int = 0
    t_armed_ns: int | None = None
    t_first_beam_ns: int | None = None
    result: LayerResult | None = None
    booked: LayerResult | None = None
    """`result` as of the last booking: without the present load, of which the record may show something already."""

    @property
    def log_rows(self) -> FloatArray | None:
        """Rows for the spot log; None if no register of the layer has been read."""
        return self.rows if self.shown is None else self.shown

    def __post_init__(self) -> None:
        if self.uncertain.size != self.layer.target_ions.size:
            self.uncertain = np.zeros(self.layer.target_ions.size)

    @property
    def start_ions(self) -> FloatArray:
        """What counts as delivered before the next load, ions (n,); see `control.layer_table.counted_ions`."""
        return counted_ions(self.layer, self.rows, self.uncertain)


@dataclass(frozen=True)
class Interlock:
    """An interlock that took the beam from this session."""

    t_ns: int
    rule: str
    action: str
    layer: int
    """0-based within the program."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """What the safety controller says of the rule: value, limit, unit."""


@dataclass(frozen=True)
class SessionSummary:
    """The record of a session in plain data; `to_json` is its canonical form."""

    session: str
    status: Status
    reason: str
    facility: str
    facility_hash: str
    plan: str
    plan_hash: str
    room: str
    mode: Mode
    qa: bool
    operator: str
    t_opened_ns: int
    t_started_ns: int | None
    t_ended_ns: int
    spots: int
    spots_done: int
    prescribed_ions: float
    ic1_ions: float
    ic2_ions: float
    beam_on_s: float
    facility_s: float
    """From START to the end, s."""
    layers: tuple[LayerResult, ...]
    layers_total: int
    interlocks: tuple[Interlock, ...]
    messages: tuple[str, ...]
    schema: str = SUMMARY_SCHEMA

    @cached_property
    def _data(self) -> dict[str, Any]:
        trips = tuple(vars(trip) | {"detail": dict(trip.detail)} for trip in self.interlocks)
        return vars(self) | {"layers": tuple(vars(layer).copy() for layer in self.layers), "interlocks": trips}

    def to_data(self) -> dict[str, Any]:
        """JSON-ready; nobody may change what is in it."""
        return dict(self._data)

    def to_json(self) -> bytes:
        """Canonical JSON, UTF-8."""
        return canonical_json(self.to_data())


class Session:
    """One program, one room, one operator; made by LOAD, ended by CLOSE."""

    def __init__(
        self, session_id: str, program: ProgramLike, *, mode: Mode, operator: str, t_ns: int, approved_hash: str = ""
    ) -> None:
        if not program.layers:
            raise InternalError("session.empty", "a program without layers", program.plan_label)
        self.id = session_id
        self.program = program
        self.mode: Mode = mode
        self.operator = operator
        self.approved_hash = approved_hash or program.plan_hash
        """Hash of the plan that was approved; the loaded one's where nobody named another."""
        self.permit_epoch = -1
        """Epoch of the permit under which somebody last started or resumed; beam is asked for under no other."""
        self.authorised_by = ""
        """Who started or resumed the delivery; empty while nobody has, and again when it ends or is interrupted."""
        self.t_opened_ns = t_ns
        self.t_started_ns: int | None = None
        self.status: Status = "open"
        self.reason = ""
        self.index = 0
        """Layer that is being delivered or comes next, 0-based; equals the number of layers when all are verified."""
        self.unaccounted = False
        """A layer was armed and its register has not been read since."""
        self.rules_before = ""
        """Hash, or `UNKNOWN_RULES`, of what it goes by until it is started under other interlock rules; empty: none."""
        self.recovering = False
        """The account comes from the journal; the dose register has to be heard before anything is delivered."""
        self.history: list[LayerEntry] = []
        """The journal's accounts of a session that is opened again."""
        self.armed_unbooked = False
        """The journal has the present layer armed after its last account."""
        self.plan_path = self.energy_table = self.rules_hash = self.opened_because = ""
        self.share = NO_FRACTION
        """Which part of a course this is."""
        self.known_fields: frozenset[int] | None = None
        """Of a fraction: fields of this plan whose dose the journal has; None: it does not matter."""
        self.on_booked: Callable[[LayerBook, LayerResult, str], None] = lambda _book, _result, _how: None
        """Told of every account of a layer: its book, what it comes to, and how (`journal.read`)."""
        self.books = [LayerBook(layer) for layer in program.layers]
        self.interlocks: list[Interlock] = []
        self.messages: list[str] = []
        self.spots = sum(int(layer.target_ions.size) for layer in program.layers)
        self.prescribed_ions = math.fsum(float(layer.target_ions.sum()) for layer in program.layers)

    def authorise(self, by: str, permit_epoch: int) -> None:
        """Somebody has started or resumed the delivery, under the permit of this epoch."""
        self.authorised_by = by
        self.permit_epoch = permit_epoch

    @property
    def finished(self) -> bool:
        """Every layer is verified."""
        return self.index >= len(self.books)

    @property
    def book(self) -> LayerBook:
        """Account of the present layer."""
        if self.finished:
            raise InternalError("session.finished", "there is no layer left", self.id)
        return self.books[self.index]

    @property
    def next_layer(self) -> LayerLike | None:
        """The layer after the present one."""
        return self.books[self.index + 1].layer if self.index + 1 < len(self.books) else None

    def armed(self, t_ns: int) -> None:
        """The present layer is about to be armed."""
        book = self.book
        if book.t_armed_ns is None:
            book.t_armed_ns = t_ns
        self.unaccounted = True

    def arm_refused(self) -> None:
        """The front end has refused to arm the present layer: it holds nothing that was not booked."""
        self.unaccounted = False

    def beam_on(self, t_ns: int) -> None:
        """The present layer has beam."""
        book = self.book
        if book.t_first_beam_ns is None:
            book.t_first_beam_ns = t_ns

    def account(self, rows: FloatArray, t_ns: int, how: str = BOOKED) -> None:
        """Book what an unfinished layer got in all (`rows` are totals): the next load starts there."""
        book = self.book
        book.rows, book.shown = rows, None
        book.result = book.booked = self._result(rows, t_ns, verified=False)
        self.unaccounted = False
        self.on_booked(book, book.result, how)

    def show(self, rows: FloatArray, t_ns: int) -> None:
        """Put what an interrupted layer got so far (totals) into the record, book nothing."""
        book = self.book
        book.shown = rows
        book.result = self._result(rows, t_ns, verified=False)

    def verified(self, rows: FloatArray, t_ns: int) -> LayerResult:
        """Book a finished, verified layer and go to the next one."""
        book = self.book
        book.rows, book.shown = rows, None
        book.result = book.booked = result = self._result(rows, t_ns, verified=True)
        self.unaccounted = False
        self.index += 1
        self.on_booked(book, result, VERIFIED)
        return result

    def restore(self, rows: FloatArray, uncertain: FloatArray, loads: int, t_ns: int, *, verified: bool) -> None:
        """Take the account of the present layer over from the journal; a verified one is left behind."""
        book = self.book
        book.rows, book.uncertain, book.loads = rows, uncertain, loads
        book.result = book.booked = self._result(rows, t_ns, verified=verified)  # armed when, the journal does not say
        if verified:
            self.index += 1

    def done(self) -> tuple[int, float, float]:
        """Spots, ions by the first chamber and beam-on s of all layers as far as they are booked."""
        results = [book.booked for book in self.books if book.booked]
        return (sum(result.spots_done for result in results), math.fsum(result.ic1_ions for result in results),
                math.fsum(result.beam_on_s for result in results))  # fmt: skip

    def summary(self, t_ns: int) -> SessionSummary:
        """The record as it stands at facility time `t_ns`."""
        results = tuple(book.result for book in self.books if book.result is not None)
        started = self.t_started_ns
        program = self.program
        return SessionSummary(
            session=self.id,
            status=self.status,
            reason=self.reason,
            facility=program.facility_id,
            facility_hash=program.facility_hash,
            plan=program.plan_label,
            plan_hash=program.plan_hash,
            room=program.room_id,
            mode=self.mode,
            qa=program.qa,
            operator=self.operator,
            t_opened_ns=self.t_opened_ns,
            t_started_ns=started,
            t_ended_ns=t_ns,
            spots=self.spots,
            spots_done=sum(result.spots_done for result in results),
            prescribed_ions=self.prescribed_ions,
            ic1_ions=math.fsum(result.ic1_ions for result in results),
            ic2_ions=math.fsum(result.ic2_ions for result in results),
            beam_on_s=math.fsum(result.beam_on_s for result in results),
            facility_s=0.0 if started is None else (t_ns - started) / NS_PER_S,
            layers=results,
            layers_total=len(self.books),
            interlocks=tuple(self.interlocks),
            messages=tuple(self.messages),
        )

    def _result(self, rows: FloatArray, t_ns: int, *, verified: bool) -> LayerResult:
        book = self.book
        layer = book.layer
        ic1, done = rows[:, COLUMN["ic1_ions"]], rows[:, COLUMN["done"]] > 0.5
        error = np.where(done, ic1 - layer.target_ions, 0.0)
        worst = int(np.argmax(np.abs(error)))
        position = worst_position_mm(layer, rows)
        done_ns = self._last_ns(rows, t_ns)
        return LayerResult(
            index=self.index,
            beam=layer.beam_index,
            layer=layer.layer_index,
            token=layer.token,
            energy_mev_u=layer.energy_mev_u,
            intensity_ions_per_s=layer.intensity_ions_per_s,
            spots=int(layer.target_ions.size),
            spots_done=int(np.count_nonzero(done)),
            prescribed_ions=float(layer.target_ions.sum()),
            ic1_ions=float(ic1.sum()),
            ic2_ions=float(rows[:, COLUMN["ic2_ions"]].sum()),
            heaviest_spot_ions=float(layer.target_ions.max()),
            worst_spot=worst,
            worst_spot_error_ions=float(error[worst]),
            worst_position_mm=None if math.isnan(position) else position,
            loads=book.loads,
            t_armed_ns=done_ns if book.t_armed_ns is None else book.t_armed_ns,
            t_first_beam_ns=book.t_first_beam_ns,
            t_done_ns=done_ns,
            beam_on_s=float(rows[:, COLUMN["beam_us"]].sum()) * 1e-6,
            verified=verified,
            backup_ions=book.backup_ions,
        )

    @staticmethod
    def _last_ns(rows: FloatArray, t_ns: int) -> int:
        last = float(rows[:, COLUMN["t_end_ns"]].max())
        return int(last) if last > 0.0 else t_ns
