"""Tier T: what treatment control vouches for while a field is on, and the signed keep-alives that say so.

Four lines, each 1 while nothing contradicts it:

- plan: the program in memory is, layer by layer, the one that was sealed when it was loaded, and its plan hash is the
  one that was approved;
- set points: the table at the front end and the readbacks of ring, range shifter and room are those of the layer;
- session: a layer at the front end belongs to the open session;
- authority: who started or resumed this delivery is on record, and the journal can be relied upon: what it cannot write
  down is not delivered.

The safety controller judges the lines (`interlocks.procedure_lines`). Lines that are not kept alive fall by
themselves, so control can withhold beam and can never give it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import numpy as np

from channels.background import Background
from channels.keepalive import KeepAliveMaker
from control.bookkeeper import Bookkeeper
from control.layer_machine import BEAM_POSSIBLE, State
from control.layer_table import LayerLike, LayerRules, spot_table, table_crc32
from control.machine_link import MachineLink
from control.session import Session
from control.stages import ACTIVE, UNFINISHED
from facility.errors import ChannelError
from facility.timebase import to_next_s

PERIOD_S = 0.5
"""Time between two keep-alives, event-loop s; a line that changes is told at once."""
_ARRAYS = ("x_mm", "y_mm", "x_set_a", "y_set_a", "target_ions")
_SCALARS = (
    "beam_index",
    "layer_index",
    "token",
    "species",
    "energy_code",
    "energy_mev_u",
    "intensity_ions_per_s",
    "range_shifter_code",
)


class Lines(NamedTuple):
    """What control vouches for; the order is that of `interlocks.model.LINE_INPUTS`."""

    plan_ok: bool
    setpoints_ok: bool
    session_ok: bool
    authorised: bool

    @property
    def bits(self) -> int:
        """As a mask, the first line in bit 0."""
        return sum(line << k for k, line in enumerate(self))


class Seal(NamedTuple):
    """Everything of a layer that reaches the machine, as it was: compared whole, which costs less than a hash of it."""

    scalars: tuple[object, ...]
    arrays: tuple[bytes, ...]


def seal(layer: LayerLike) -> Seal:
    """What a layer is now."""
    arrays = [np.asarray(getattr(layer, name), dtype="<f8").tobytes() for name in _ARRAYS]
    return Seal(tuple(getattr(layer, name) for name in _SCALARS), tuple(arrays))


class Procedure:
    """The checks of one control.

    Args:
        link: the machine.
        rules: numbers of the front end, as the tables are made with.
        facility_hash: configuration that this control runs; None: not checked.
        books: the journal.
    """

    def __init__(
        self, link: MachineLink, rules: LayerRules, facility_hash: str | None = None, books: Bookkeeper | None = None
    ) -> None:
        self._link = link
        self._books = books or Bookkeeper()
        self._rules = rules
        self._facility_hash = facility_hash
        self._seals: tuple[Seal, ...] = ()
        self._hash = ""
        self._lines: Lines | None = None
        self._plan_fault: str | None = None
        """What the last look at the whole layer found."""
        self._table_crc32: int | None = None
        """Of the table that the front end holds."""

    # --- what is noted -------------------------------------------------------------------------------------
    def opened(self, session: Session) -> None:
        """A session has been loaded: seal its program."""
        self._seals = tuple(seal(book.layer) for book in session.books)
        self._hash = session.approved_hash
        self._table_crc32 = self._plan_fault = None

    def table_loaded(self, crc32: int) -> None:
        """The front end has acknowledged a table."""
        self._table_crc32 = crc32

    # --- what is checked -----------------------------------------------------------------------------------
    def plan_fault(self, session: Session) -> str | None:
        """Why the program is not the approved and loaded one, in words; looks at the whole present layer."""
        self._plan_fault = self._look_at_plan(session)
        return self._plan_fault

    def _look_at_plan(self, session: Session) -> str | None:
        program = session.program
        if program.plan_hash != self._hash:
            return f"plan hash {program.plan_hash[:12]}, approved was {self._hash[:12]}"
        if self._facility_hash not in (None, program.facility_hash):
            return "the program was made for another configuration of the facility"
        if not session.finished and seal(session.book.layer) != self._seals[session.index]:
            return f"layer {session.index} of the program has changed since it was loaded"
        return None

    def table_fault(self, session: Session) -> str | None:
        """Whether the table at the front end is that of the present layer, as it was sealed."""
        book = session.book
        if table_crc32(spot_table(book.layer, book.loaded_from, self._rules)) != self._table_crc32:
            return f"the front end's table is not that of layer {session.index}"
        return None

    def readback_fault(self, session: Session) -> str | None:
        """Which readback is not what the present layer wants, in words. The front end's own count and token among
        them: what was loaded is this version of the plan and no other."""
        link, layer = self._link, session.book.layer
        fe, ring = link.fe, link.ring
        if fe is None or fe.token != layer.token or fe.spots != layer.target_ions.size:
            return "the front end holds another layer"
        if link.range_shifter_code != layer.range_shifter_code:
            return f"range shifters {link.range_shifter_code}, the layer wants {layer.range_shifter_code}"
        if ring is not None and ring.token == layer.token and ring.energy_code != layer.energy_code:
            return f"the ring runs energy code {ring.energy_code}, the layer wants {layer.energy_code}"
        if link.room != session.program.room_id:
            return f"the beam goes to room {link.room or 'none'}, the program is for {session.program.room_id}"
        return None

    def before_beam(self, session: Session) -> str | None:
        """Everything, on the way to beam: at every arming and at every resume."""
        if not session.authorised_by:
            return "nobody has started this delivery"
        written = self._books.fault()
        return written or self.plan_fault(session) or self.table_fault(session) or self.readback_fault(session)

    def lines(self, state: State, session: Session | None, *, whole: bool) -> Lines:
        """The lines as they stand; with `whole` the present layer's arrays are looked at again, too.

        Control is woken where one has changed: why it has fallen is for control to say, not for the interlock alone.
        """
        before, self._lines = self._lines, self._found(state, session, whole)
        if before != self._lines:
            self._link.wake.set()
        return self._lines

    def _found(self, state: State, session: Session | None, whole: bool) -> Lines:
        fe = self._link.fe
        active = fe is None or fe.state in ACTIVE
        if session is None:
            return Lines(True, True, not active, not active)
        on = active or state in BEAM_POSSIBLE
        mine = fe is not None and not session.finished and fe.token == session.book.layer.token
        held = mine and fe is not None and fe.state in UNFINISHED
        return Lines(
            plan_ok=(self.plan_fault(session) if whole else self._plan_fault) is None,
            setpoints_ok=not held or self.readback_fault(session) is None,
            session_ok=not active or mine,
            authorised=not on or (bool(session.authorised_by) and self._books.fault() is None),
        )


class LineSender:
    """Looks at everything each `look_s`; sends each `period_s`, and at once when a line changes. Use as an async
    context manager.

    Args:
        put: writes a frame to the safety controller; ChannelError where that fails.
        maker: makes the frames, with control's own key.
        look: the lines as they stand; its argument says whether to look at the whole layer.
        period_s: time between two frames, event-loop s; a multiple of `look_s`.
        look_s: time between two looks at everything, event-loop s.
    """

    def __init__(
        self, put: Callable[[bytes], Awaitable[None]], maker: KeepAliveMaker, look: Callable[[bool], Lines],
        period_s: float = PERIOD_S, look_s: float = PERIOD_S,
    ) -> None:  # fmt: skip
        self._put = put
        self._maker = maker
        self._look = look
        self._period_s = period_s
        self._look_s = look_s
        self._due_s = 0.0
        self._wake = asyncio.Event()
        self._sent: Lines | None = None
        self._task = Background("lines")
        self.silent = False
        """A fault: nothing is sent."""

    async def __aenter__(self) -> LineSender:
        with contextlib.suppress(ChannelError):  # the next one is as good; safety counts the silence
            await self._send(self._look(True))
        self._task.start(self._send_for_ever())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._task.stop()

    def look_again(self) -> None:
        """Something has happened: send at once if a line has changed."""
        if self._look(False) != self._sent:
            self._wake.set()

    async def _send(self, lines: Lines) -> None:
        if self.silent:
            return
        now_s = self._due_s = asyncio.get_running_loop().time()  # until it has been taken the next one is due
        self._sent = lines
        await self._put(self._maker.make(lines.bits))
        self._due_s = now_s + to_next_s(now_s, self._period_s)

    async def _send_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            timer = loop.call_later(to_next_s(loop.time(), self._look_s), self._wake.set)
            await self._wake.wait()
            timer.cancel()
            self._wake.clear()
            lines = self._look(True)
            if lines == self._sent and loop.time() < self._due_s - 0.5 * self._look_s:
                continue
            with contextlib.suppress(ChannelError):
                await self._send(lines)
