"""What the effects of the layer machine mean at the machine: commands, waits with an end, checks.

A stage either returns the event that reports its success (or None), or raises `StageFault` with the event that
reports its failure. Waits end early with `Preempted` when something more urgent has to be dealt with.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from control.bookkeeper import Bookkeeper
from control.chambers import believed
from control.layer_machine import Event
from control.layer_table import (
    FloatArray,
    LayerLike,
    LayerRules,
    add_earlier,
    field_preset,
    judge,
    program_fault,
    register_rows,
    spot_table,
    table_crc32,
)
from control.machine_link import MachineLink
from control.recovery import go_on_from, require_all_told, require_known
from control.session import LayerBook, Session
from control.stage_fault import Preempted, StageFault
from facility.errors import ChannelError, CommandRefused
from facility.ids import field_number
from facility.states import FrontEndState, RingPhase
from facility.timebase import CLOCK_STEP_S
from journal.read import RECONCILED_KIND

if TYPE_CHECKING:
    from control.procedure import Procedure

ACTIVE = frozenset({FrontEndState.ARMED, FrontEndState.IRRADIATING, FrontEndState.HELD})
"""The front end may have beam."""
UNFINISHED = ACTIVE | {FrontEndState.PAUSED}
"""The front end holds a layer that is not finished; it takes no other one."""
_RING_AT_REST = frozenset({RingPhase.STANDBY, RingPhase.FAULT})


@dataclass(frozen=True)
class SequencerLimits:
    """Longest waits, and how often one looks. `scale` is event-loop seconds per facility second: 1 unless the facility
    runs faster or slower."""

    loaded_s: float = 1.0
    """From the acknowledgement of load_layer to the status that shows it."""
    range_shifter_s: float = 20.0
    progress_s: float = 60.0
    """With a layer armed: longest time in which nothing is delivered (facility time)."""
    resumed_s: float = 1.0
    permit_shown_s: float = 1.0
    """From the safety controller's permit to the front end's word that it has it."""
    rule_name_s: float = 0.3
    """After a trip, for the rule's name."""
    settle_s: float = 0.05
    """After the beam was taken away for good, until the register is read: late charge."""
    scale: float = 1.0
    check_s: float = 0.25
    """How often heartbeats and time-outs are looked at while nothing changes, event-loop s."""


@dataclass
class Prefetched:
    """What has been done ahead for the next layer."""

    requested_token: int = 0
    written_token: int = 0
    table: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))


class Stages:
    """The stages of one session's delivery over one link."""

    def __init__(
        self, link: MachineLink, rules: LayerRules, limits: SequencerLimits, preempted: Callable[[], bool],
        procedure: Procedure, books: Bookkeeper | None = None,
    ) -> None:  # fmt: skip
        self._link = link
        self._books = books or Bookkeeper()
        self._rules = rules
        self._limits = limits
        self._preempted = preempted
        self._procedure = procedure
        self._ahead = Prefetched()
        self._recalled: tuple[int, bool] | None = None
        self._left: FrontEndState | None = None
        """State that the front end has been told to leave for beam: while it shows it still, it counts as armed."""
        self.verdict: FloatArray | None = None
        """Total rows of the layer that has been verified and not booked yet."""

    def forget_ahead(self) -> None:
        """What was prefetched is not trusted any more."""
        self._ahead = Prefetched()

    # --- before beam ---------------------------------------------------------------------------------------
    async def check_machine(self, session: Session, t_ns: int) -> Event:
        """All that must be right before READY."""
        self.forget_ahead()
        if (lost := self._link.lost()) is not None:
            raise StageFault(Event.LINK_LOST, lost)
        if self._link.room != session.program.room_id:
            reason = f"the beam goes to room {self._link.room or 'none'}, the program is for {session.program.room_id}"
            raise StageFault(Event.VERIFY_FAILED, reason)
        if self._link.mode != session.mode:
            reason = f"the facility is in mode {self._link.mode}, the session was loaded in mode {session.mode}"
            raise StageFault(Event.VERIFY_FAILED, reason)
        for book in session.books:
            if (fault := program_fault(book.layer)) is not None:
                where = f"beam {book.layer.beam_index}, layer {book.layer.layer_index}"
                raise StageFault(Event.VERIFY_FAILED, f"{where}: {fault}")
        if await self._disarm():  # what comes after a stop is waited for
            await asyncio.sleep(self._limits.settle_s * self._limits.scale)
        if session.recovering:
            await self.reconcile(session, t_ns)
        elif session.known_fields is not None:
            require_known(session, await self._link.read_doses())
        if session.unaccounted:
            await self._account(session, t_ns)
        if session.finished:
            return Event.NOTHING_LEFT
        await self._range_shifters(session.book.layer)
        await self._open_field(session)
        return Event.CHECKS_PASSED

    async def _open_field(self, session: Session) -> None:
        """Counter and timer of the field at the front end; they go on where this session has opened it before."""
        ions, expected_ms = field_preset(session.program.layers, self._rules)
        arguments = {"field": field_number(session.id), "preset_ions": ions, "expected_ms": expected_ms,
                     "plan_hash": session.program.plan_hash}  # fmt: skip
        require_all_told(session, (await self._link.open_field(arguments)).data.get("ions"))

    async def select_energy(self, session: Session) -> Event:
        """Range shifters in place, the ring's cycle asked for."""
        if session.finished:
            raise StageFault(Event.VERIFY_FAILED, "no layer is left")
        layer = session.book.layer
        await self._range_shifters(layer)
        if self._ahead.requested_token != layer.token:
            await self._request_cycle(layer)
        return Event.ENERGY_SELECTED

    async def load_spots(self, session: Session) -> Event:
        """The table at the front end, acknowledged by its CRC and seen in the status."""
        book, layer = session.book, session.book.layer
        self._left = None
        table = self._ahead.table
        if self._ahead.written_token != layer.token:
            table = spot_table(layer, book.start_ions, self._rules)
            await self._link.write_table(table)
        book.loaded_from = book.start_ions
        crc32 = table_crc32(table)
        arguments = {
            "token": layer.token, "energy_code": layer.energy_code, "level_ions_per_s": layer.intensity_ions_per_s,
            "n": int(layer.target_ions.size), "crc32": crc32, "range_shifter_code": layer.range_shifter_code,
            "transport_set": layer.transport_set,
        }  # fmt: skip
        await self._link.command("FE", "load_layer", arguments)
        self._procedure.table_loaded(crc32)
        book.loads += 1
        await self._until(lambda: self._loaded(layer), self._limits.loaded_s, "load_layer")
        self._verify_set_points(layer)
        return Event.SPOTS_LOADED

    async def arm(self, session: Session, t_ns: int) -> Event:
        """Check once more, and arm what is on the journal's disk; from here on beam may come at any time. The front end
        takes the command only under the permit that stood when somebody started or resumed."""
        self._books.arming(session)
        await self._books.durable()
        self._check_before_beam(session)
        session.armed(t_ns)
        try:
            await self._leave(FrontEndState.LOADED, "arm", session, token=session.book.layer.token)
        except CommandRefused:
            session.arm_refused()
            raise
        return Event.ARMED_OK

    def prefetch_possible(self, session: Session) -> bool:
        """The ring runs the present layer's cycle, so that a request is queued and replaces nothing."""
        ring = self._link.ring
        return ring is not None and ring.token == session.book.layer.token and ring.phase not in _RING_AT_REST

    async def prefetch(self, session: Session) -> None:
        """Ask for the next cycle and write the next table, while the present layer is being delivered."""
        layer = session.next_layer
        if layer is None or self._ahead.requested_token == layer.token:
            return
        await self._request_cycle(layer)
        start_ions = session.books[session.index + 1].start_ions
        table = spot_table(layer, start_ions, self._rules)
        await self._link.write_table(table)
        self._ahead.table, self._ahead.written_token = table, layer.token

    def strayed(self, session: Session) -> bool:
        """The ring has gone to the next layer's cycle although the present layer waits for beam."""
        ring, layer, following = self._link.ring, session.book.layer, session.next_layer
        fe = self._link.fe
        if ring is None or fe is None or following is None or ring.token != following.token:
            return False
        waiting = fe.token == layer.token and fe.state in (FrontEndState.ARMED, FrontEndState.HELD)
        if not waiting or not RingPhase.INJECTION <= ring.phase <= RingPhase.FLAT_TOP:
            return False
        return self._recalled != (ring.cycle, ring.phase is RingPhase.FLAT_TOP)

    async def recall(self, session: Session) -> None:
        """Have the ring come back to the present layer: queue its cycle, leave a flat top that nobody uses."""
        ring = self._link.ring
        if ring is None:
            return
        flat_top = ring.phase is RingPhase.FLAT_TOP
        self._recalled = (ring.cycle, flat_top)
        self.forget_ahead()
        if flat_top:  # first: the ring forgets with it what is queued
            await self._link.command("RING", "end_cycle", {})
        await self._request_cycle(session.book.layer)

    async def resume_beam(self, session: Session) -> None:
        """Lift the front end's pause; the ring is asked again unless it runs the layer's cycle."""
        layer = session.book.layer
        self.forget_ahead()
        if self._fe_state() is FrontEndState.DONE:
            return
        ring = self._link.ring
        if ring is None or ring.token != layer.token or ring.phase in _RING_AT_REST:
            if ring is not None and ring.phase is RingPhase.FLAT_TOP:
                await self._link.command("RING", "end_cycle", {})
            await self._request_cycle(layer)
        if self._fe_state() is FrontEndState.PAUSED:
            self._check_before_beam(session)
            await self._leave(FrontEndState.PAUSED, "resume", session)
            await self._until(lambda: self._fe_state() is not FrontEndState.PAUSED, self._limits.resumed_s, "resume")
            self._left = None

    # --- after beam ----------------------------------------------------------------------------------------
    async def read_register(self, session: Session, last: bool) -> Event:
        """Read and judge the register of a layer that is done; `verdict` holds it."""
        layer = session.book.layer
        rows = await self._rows(session.book, ended=True)
        if rows is None:
            raise StageFault(Event.VERIFY_FAILED, "the register is not that of the layer")
        fe = self._link.fe
        if session.book.loads == 1 and fe is not None and fe.state is FrontEndState.DONE and fe.token == layer.token:
            session.book.backup_ions = fe.backup_ions
        verdict = judge(layer, rows, self._rules, uncertain=session.book.uncertain)
        if not verdict.good:
            where = f"beam {layer.beam_index}, layer {layer.layer_index}"
            raise StageFault(Event.VERIFY_FAILED, f"{where}: {'; '.join(verdict.faults)}")
        self.verdict = rows
        return Event.VERIFIED_LAST if last else Event.VERIFIED_MORE

    async def account(self, session: Session, t_ns: Callable[[], int]) -> None:
        """After a stop: book what the unfinished layer got, once late charge has come in."""
        if not session.unaccounted or session.finished:
            return
        await asyncio.sleep(self._limits.settle_s * self._limits.scale)
        await self._account(session, t_ns())

    async def pause_beam(self) -> None:
        """Pause the front end if it could have beam."""
        if self._may_have_beam():
            await self._link.command("FE", "pause", {})
            await self._until(lambda: self._fe_state() not in ACTIVE, self._limits.loaded_s, "pause", urgent=True)
            self._left = None

    async def peek(self, session: Session, t_ns: int) -> None:
        """Have the record of an interrupted layer show what its finished spots got; nothing is booked."""
        if session.unaccounted and not session.finished and (rows := await self._rows(session.book)) is not None:
            session.show(rows, t_ns)

    async def stop_beam(self) -> None:
        """Disarm the front end, let go of the cycle. A pause comes first where there may be beam: a paused front end
        still counts the last ions, a disarmed one does not."""
        self.forget_ahead()
        if self._may_have_beam():
            with contextlib.suppress(CommandRefused, ChannelError):
                await self._link.command("FE", "pause", {})
                await asyncio.sleep(self._limits.settle_s * self._limits.scale)
        try:
            await self._disarm()
        finally:
            await self.end_cycle()

    def _may_have_beam(self) -> bool:
        """The front end could start or has beam: it says so, or it has been told to and has said nothing since."""
        state = self._fe_state()
        return state in ACTIVE or (state is not None and state is self._left)

    async def _leave(self, state: FrontEndState, verb: str, session: Session, **more: int) -> None:
        self._left = state
        try:
            await self._link.command("FE", verb, {**more, "permit_epoch": session.permit_epoch})
        except CommandRefused:
            self._left = None
            raise

    async def _disarm(self) -> bool:
        """Take an unfinished layer out of action; True if there was one."""
        if unfinished := self._fe_state() in UNFINISHED or self._may_have_beam():
            self._left = None
            await self._link.command("FE", "disarm", {})
            await self._until(lambda: self._fe_state() not in UNFINISHED, self._limits.loaded_s, "disarm", urgent=True)
        return unfinished

    async def end_cycle(self) -> None:
        """End the ring's cycle if one is running."""
        ring = self._link.ring
        if ring is not None and ring.phase not in _RING_AT_REST:
            await self._link.command("RING", "end_cycle", {})

    # --- inside --------------------------------------------------------------------------------------------
    async def _request_cycle(self, layer: LayerLike) -> None:
        arguments = {"token": layer.token, "energy_code": layer.energy_code, "transport_set": layer.transport_set}
        await self._link.command("RING", "request_cycle", arguments)
        self._ahead.requested_token = layer.token

    async def _range_shifters(self, layer: LayerLike) -> None:
        code = layer.range_shifter_code
        if self._link.range_shifter_code == code:
            return
        await self._link.command("RS", "insert", {"code": code})
        await self._until(lambda: self._link.range_shifter_code == code, self._limits.range_shifter_s, "range-shifter")

    async def _account(self, session: Session, t_ns: int) -> None:
        book, layer = session.book, session.book.layer
        load = register_rows(await self._link.read_register(), layer, book.loaded_from)
        if load is None:
            what = f"what beam {layer.beam_index}, layer {layer.layer_index} got is not known: the register is gone"
            raise StageFault(Event.VERIFY_FAILED, what)
        this, beyond = believed(layer, load, book.loaded_from, self._rules)
        rows, book.uncertain = add_earlier(this, book.rows), book.uncertain + beyond
        if judge(layer, rows, self._rules, uncertain=book.uncertain).good:  # the stop came after the last spot
            session.verified(rows, t_ns)
        else:
            session.account(rows, t_ns)

    async def reconcile(self, session: Session, t_ns: int, *, disarm: bool = False) -> str:
        """Bring the journal's account and the dose register together: what is left is what neither has. With `disarm`
        a layer that a control which died has left at the front end is ended before; ChannelError if it does not end."""
        try:
            if disarm:
                await self._disarm()
        except StageFault as fault:
            raise ChannelError("control.timeout", fault.reason, "FE disarm") from fault
        await asyncio.sleep(self._limits.settle_s * self._limits.scale)
        found = go_on_from(session, await self._link.read_doses(), self._rules, t_ns)
        self._books.event(session.id, RECONCILED_KIND, found.to_data())
        await self._books.durable()
        return found.words

    async def _rows(self, book: LayerBook, *, ended: bool = False) -> FloatArray | None:
        rows = register_rows(await self._link.read_register(ended=ended), book.layer, book.loaded_from)
        return None if rows is None else add_earlier(rows, book.rows)

    def _check_before_beam(self, session: Session) -> None:
        if self._preempted():
            raise Preempted
        if (fault := self._procedure.before_beam(session)) is not None:
            raise StageFault(Event.VERIFY_FAILED, fault)
        self._verify_set_points(session.book.layer)

    def _verify_set_points(self, layer: LayerLike) -> None:
        link, ring = self._link, self._link.ring
        if link.range_shifter_code != layer.range_shifter_code:
            reason = f"range shifters {link.range_shifter_code}, the layer wants {layer.range_shifter_code}"
            raise StageFault(Event.VERIFY_FAILED, reason)
        if ring is not None and ring.token == layer.token and ring.energy_code != layer.energy_code:
            reason = f"the ring runs energy code {ring.energy_code}, the layer wants {layer.energy_code}"
            raise StageFault(Event.VERIFY_FAILED, reason)

    def _loaded(self, layer: LayerLike) -> bool:
        fe, wanted = self._link.fe, (FrontEndState.LOADED, layer.token, layer.target_ions.size)
        return fe is not None and (fe.state, fe.token, fe.spots) == wanted

    def _fe_state(self) -> FrontEndState | None:
        fe = self._link.fe
        return None if fe is None else fe.state

    async def _until(self, met: Callable[[], bool], timeout_s: float, name: str, *, urgent: bool = False) -> None:
        """Wait for the machine to say so. StageFault TIMEOUT with the wait's name, or Preempted unless `urgent`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s * self._limits.scale
        while not met():
            if not urgent and self._preempted():
                raise Preempted
            left = end - loop.time()
            if left < CLOCK_STEP_S:
                raise StageFault(Event.TIMEOUT, f"timeout.{name}: not within {timeout_s:g} s")
            await self._link.changed(left)
