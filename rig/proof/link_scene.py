"""Scene `link`: both ends of the safety link, the latch and the permit behind it, over a wire that does anything.

The ends are `interlocks.link.RackEnd` and `SafetyEnd` with `channels.frames`: frames are encoded, lost or corrupted,
and judged.  Either end may restart at any moment, and the controller may find a cause of its own that is gone and reset
before the next frame.  One step is a period of the link; the watchdog is two of them.

Sequence numbers, boots and times only matter by how far apart they are: after each step both ends are written down
relative to now and to each other, no further apart than makes a difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from channels.frames import ReceiveState
from facility.states import Action
from interlocks import latch, permit
from interlocks.latch import LatchSpec, LatchState
from interlocks.link import PermitCommand, RackEnd, SafetyEnd
from interlocks.model import LinkSettings
from interlocks.permit import PermitState
from interlocks.process_image import N_IMAGE, NO_FAULT
from rig.proof.explore import Always, Occurs, Property, Recurs, Step
from rig.proof.safety_scene import aged

PERIOD_MS = 100.0
PERIOD_NS = 100_000_000
WATCHDOG = 2
"""Periods."""
SETTINGS = LinkSettings(
    period_ms=PERIOD_MS, scan_ms=PERIOD_MS, latency_ms=0.0, watchdog_ms=WATCHDOG * PERIOD_MS, max_age_ms=PERIOD_MS / 2
)
_SEQ = 1000
_FAR = WATCHDOG + 1
_DROPS = 1000
_UNTOLD = -1
"""The rack has heard no count of the present controller."""
_LATCH = LatchSpec(Action.ABORT, True, "physicist", 0)
_IMAGE = np.zeros(N_IMAGE, dtype=np.int32)
_WIRES = (
    ("good", "good"),
    ("lost", "good"),
    ("good", "lost"),
    ("lost", "lost"),
    ("corrupt", "good"),
    ("good", "corrupt"),
)


class Heard(NamedTuple):
    """What an end knows of its peer, relative."""

    boot: int | None
    floor: int
    lag: int
    echo_lag: int
    good_age: int
    echo_age: int
    bad: tuple[int, ...]
    """Ages of the last bad frames."""
    tripped: bool


class State(NamedTuple):
    """Both ends, the controller's latch and permit, and two witnesses."""

    rack: Heard
    safety: Heard
    rack_lost: bool
    safety_lost: bool
    believed: bool
    command: tuple[bool, bool] | None
    image: bool
    latch: LatchState
    permit: PermitState
    line: bool
    given_ago: int
    """Periods since the controller's command carried a permit."""
    granted: bool
    """A person has reset since an end restarted or the rack's lines died."""
    drops_lag: int
    """Whether the permit has gone since the rack last heard of a count, 1 or 0: how often says nothing more."""
    dropped: bool
    drop_told: bool
    owed: bool
    """The permit has gone while the rack's line was on, and the line has not been off since."""


class LinkScene:
    """See the module."""

    name = "link"
    words = "both ends of the link with latch and permit; frames are lost and corrupted, either end restarts"

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], State] = {}
        self._fresh_rack = RackEnd("proof", 1, SETTINGS, 0)
        self._fresh_safety = SafetyEnd("proof", 1, SETTINGS, 0)

    def initial(self) -> Iterable[tuple[str, State]]:
        """Both have just started."""
        yield "start", self._write(
            RackEnd("proof", 1, SETTINGS, 0), SafetyEnd("proof", 1, SETTINGS, 0), 0, aged(_LATCH, LatchState()),
            PermitState(), False, _FAR, False, _DROPS, False,
        )  # fmt: skip

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """A period with any wire each way, a restart, a cause of the controller's own that goes at once, a reset."""
        for up, down in _WIRES:
            yield f"period up={up} down={down}", self._period(state, up, down)
        yield "restart rack", self._restart_rack(state)
        yield "restart safety", self._restart_safety(state)
        if state.permit.released:
            yield "a cause comes and goes", self._cause(state)
        for role in ("physicist", "operator"):
            yield f"reset {role}", self._reset(state, role)

    # --- steps ------------------------------------------------------------------------------------------------
    def _period(self, state: State, up: str, down: str) -> State:
        rack, safety = self._read(state)
        now = PERIOD_NS
        _carry(rack.send(_IMAGE, NO_FAULT, now), up, safety, now)
        heard = safety.link_ok(now)
        memory, _ = latch.step(_LATCH, state.latch, latch.Observed(heard, 0.0, 0.0), now)
        force = latch.in_force(_LATCH, memory)
        held, effects = permit.step(state.permit, permit.Observed(force, False, 0, Action.NONE), now)
        lines, drops = permit.lines(held), _DROPS + (state.permit.released and not held.released)
        command = PermitCommand(lines.permit, lines.hold, 0, 0, drops=drops)
        _carry(safety.send(command, now), down, rack, now)
        line = rack.lines(now)
        granted = state.granted and not (state.line and not line.link_ok) and permit.Effect.DROPPED not in effects
        given = 0 if lines.permit else min(state.given_ago + 1, _FAR)
        memory = aged(_LATCH, memory)
        owed = line.permit and (state.owed or drops > _DROPS)
        return self._write(rack, safety, now, memory, held, line.permit, given, granted, drops, owed)

    def _restart_rack(self, state: State) -> State:
        older = _forgotten(state.safety)
        fresh = Heard(None, -1, _FAR, _FAR, 0, 0, (), False)
        return state._replace(
            rack=fresh, safety=older, rack_lost=False, believed=False, command=None, line=False, granted=False,
            drops_lag=_UNTOLD, dropped=False, drop_told=False, owed=False,
        )  # fmt: skip

    def _restart_safety(self, state: State) -> State:
        older = _forgotten(state.rack)
        fresh = Heard(None, -1, _FAR, _FAR, 0, 0, (), False)
        return state._replace(
            safety=fresh, rack=older, safety_lost=False, image=False, latch=aged(_LATCH, LatchState()),
            permit=PermitState(), granted=False, drops_lag=_UNTOLD,
        )  # fmt: skip

    def _cause(self, state: State) -> State:
        """A rule of the controller's own trips and is good again before the next frame."""
        held, _ = permit.step(state.permit, permit.Observed(Action.PAUSE, False, 0, Action.NONE), 0)
        held, _ = permit.step(held, permit.Observed(Action.NONE, False, 0, Action.NONE), 0)
        lag = state.drops_lag if state.drops_lag == _UNTOLD else 1
        return state._replace(permit=held, granted=False, drops_lag=lag, owed=state.owed or state.line)

    def _reset(self, state: State, role: str) -> State:
        memory, _ = latch.step(_LATCH, state.latch, latch.Reset(role), 0)
        force = latch.in_force(_LATCH, memory)
        held, _ = permit.step(state.permit, permit.Observed(force, False, 0, Action.NONE), 0)
        held, effects = permit.step(held, permit.Granted(0), 0)
        granted = state.granted or permit.Effect.NOT_GRANTED not in effects
        return state._replace(latch=memory, permit=held, granted=granted)

    # --- between the ends and what is written of them -----------------------------------------------------------
    def _read(self, state: State) -> tuple[RackEnd, SafetyEnd]:
        rack, safety = RackEnd("proof", 1, SETTINGS, 0), SafetyEnd("proof", 1, SETTINGS, 0)
        for end, heard, lost in ((rack, state.rack, state.rack_lost), (safety, state.safety, state.safety_lost)):
            end._sender = end._sender._replace(seq=_SEQ)
            end._state = _heard(end._state, heard)
            end._lost = lost
        rack._believed = state.believed
        rack._command = None if state.command is None else PermitCommand(*state.command, 0, 0)
        rack._drops_of = None if state.drops_lag == _UNTOLD else (1, _DROPS - state.drops_lag)
        rack._dropped, rack._drop_told = state.dropped, state.drop_told
        safety.image = _IMAGE if state.image else None
        return rack, safety

    def _write(
        self, rack: RackEnd, safety: SafetyEnd, now: int, memory: LatchState, held: PermitState, line: bool,
        given: int, granted: bool, drops: int, owed: bool,
    ) -> State:  # fmt: skip
        command, known = rack._command, rack._drops_of
        return State(
            _relative(rack._state, safety._sender.seq, rack._sender.seq, now),
            _relative(safety._state, rack._sender.seq, safety._sender.seq, now),
            rack._lost,
            safety._lost,
            rack._believed,
            None if command is None else (command.permit, command.hold),
            safety.image is not None,
            memory,
            held,
            line,
            given,
            granted,
            _UNTOLD if known is None or known[0] != 1 else min(drops - known[1], 1),
            rack._dropped,
            rack._drop_told,
            owed,
        )

    @property
    def properties(self) -> Sequence[Property]:
        """What must hold."""
        return (
            Always("the rack's permit is the controller's of the last watchdog", _is_recent),
            Always("a permit that went does not come again before the rack has been without it", _is_paid),
            Step("after a restart or a trip of the link no permit comes without a person's reset", _comes_granted),
            Recurs("every failure of the link leads to reset", lambda state: state.line),
            Occurs("the permit reaches the rack", lambda _b, _l, after: after.line),
            Occurs("the link trips and comes back", _comes_back),
        )

    def describe(self, state: State) -> str:
        """One line."""
        lines = permit.lines(state.permit)
        return (
            f"rack hears={state.rack.boot is not None:d} believes={state.believed:d} line={state.line:d} "
            f"safety hears={state.safety.boot is not None:d} latched={state.latch.latched:d} permit={lines.permit:d} "
            f"granted={state.granted:d}"
        )


def _carry(frame: bytes, how: str, end: RackEnd | SafetyEnd, now: int) -> None:
    if how == "corrupt":
        frame = frame[:-1] + bytes([frame[-1] ^ 1])
    if how != "lost":
        end.receive(frame, now)


def _forgotten(heard: Heard) -> Heard:
    """What an end knows of a peer that has restarted since: an older boot, whose numbers say nothing any more."""
    return heard._replace(boot=None if heard.boot is None else 0, floor=min(heard.floor, 0), lag=_FAR)


def _relative(state: ReceiveState, peer_seq: int, own_seq: int, now: int) -> Heard:
    current = state.boot_floor == 1
    lag = peer_seq - state.seq
    good, echo = (min((now - t) // PERIOD_NS, WATCHDOG + 1) for t in (state.good_ns, state.echo_ns))
    if not current:
        lag = _FAR
    return Heard(
        state.boot, state.boot_floor, min(lag, _FAR), max(-1, min(own_seq - state.echo, _FAR)), good, echo,
        tuple(age for t in state.bad_ns if (age := (now - t) // PERIOD_NS) <= WATCHDOG), state.tripped,
    )  # fmt: skip


def _heard(fresh: ReceiveState, heard: Heard) -> ReceiveState:
    return fresh._replace(
        boot=heard.boot, boot_floor=heard.floor, seq=_SEQ - heard.lag, echo=_SEQ - heard.echo_lag,
        good_ns=-heard.good_age * PERIOD_NS, echo_ns=-heard.echo_age * PERIOD_NS,
        bad_ns=tuple(-age * PERIOD_NS for age in heard.bad),
        tripped=heard.tripped,
    )  # fmt: skip


def _is_recent(state: State) -> bool:
    return not state.line or state.given_ago <= WATCHDOG


def _is_paid(state: State) -> bool:
    return not (state.line and state.owed and state.drops_lag == 0)


def _comes_granted(before: State, _label: str, after: State) -> bool:
    return before.line or not after.line or after.granted


def _comes_back(before: State, label: str, after: State) -> bool:
    return before.rack.boot is None and after.rack.boot is not None and after.latch.latched
