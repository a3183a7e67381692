"""A scripted machine behind fake channels, in virtual time: enough of ring and front end for the sequencer."""

from __future__ import annotations

import asyncio
import dataclasses
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from channels.command import CommandResult, Status
from channels.protocol import LinkState, Sample
from control.bookkeeper import Bookkeeper
from control.machine_link import LinkLimits, MachineLink
from control.sequencer import Sequencer
from control.stages import SequencerLimits
from facility.errors import ChannelError, CommandRefused
from facility.events import EventLog
from facility.ids import IdSource
from facility.pv_catalogue import FE_STATUS, REGISTER_COLUMNS, RING_STATUS, SPOT_COLUMNS
from facility.states import Action, FrontEndState, HoldReason, RingPhase
from rig.virtual_time import VirtualLoop

PREFIX = "WWX"
PUT_S, MONITOR_S = 0.001, 0.002


@dataclass(frozen=True, eq=False)
class FakeLayer:
    token: int
    target_ions: np.ndarray
    x_mm: np.ndarray
    y_mm: np.ndarray
    beam_index: int = 0
    layer_index: int = 0
    species: str = "carbon"
    energy_code: int = 7
    energy_mev_u: float = 250.0
    intensity_ions_per_s: float = 1e7
    range_shifter_code: int = 0
    expected_s: float = 1.0
    ions_per_count: float = 1000.0
    transport_set: int = 5

    @property
    def x_set_a(self) -> np.ndarray:
        return self.x_mm * 4.0

    @property
    def y_set_a(self) -> np.ndarray:
        return self.y_mm * 3.0


@dataclass(frozen=True)
class FakeProgram:
    layers: tuple[FakeLayer, ...]
    plan_hash: str = "ab" * 32
    patient_id: str = "P-1"
    plan_label: str = "test"
    facility_id: str = "wuwei"
    facility_hash: str = "cd" * 32
    room_id: str = "H"
    qa: bool = True
    plan_uid: str = "2.25.1"
    intent: str = ""
    fractions: int = 1

    def rest(self, left: Sequence[np.ndarray], attempt: int) -> FakeProgram:
        kept = []
        for layer, ions in zip(self.layers, left, strict=True):
            keep = ions > 0.0
            columns = {"target_ions": ions[keep], "x_mm": layer.x_mm[keep], "y_mm": layer.y_mm[keep]}
            if keep.any():
                kept.append(dataclasses.replace(layer, **columns, token=layer.token + 100 * attempt))
        return dataclasses.replace(self, layers=tuple(kept))


def program(layers: int = 3, spots: int = 20, ions: float = 1e5, shifters: tuple[int, ...] = ()) -> FakeProgram:
    """Layers of equal size; a layer lasts spots x ions / 1e7 s."""
    made = []
    for i in range(layers):
        x = np.linspace(-20.0, 20.0, spots)
        made.append(
            FakeLayer(
                token=1001 + i,
                target_ions=np.full(spots, ions) + np.arange(spots),
                x_mm=x,
                y_mm=x[::-1] + i,
                layer_index=i,
                energy_code=40 - i,
                range_shifter_code=shifters[i] if i < len(shifters) else 0,
            )
        )
    return FakeProgram(tuple(made))


class FakeChannel:
    def __init__(self, name: str, loop: VirtualLoop, value: Any) -> None:
        self.name = name
        self.state = LinkState.CONNECTED
        self.value = value
        self._loop = loop
        self._sample = Sample(value, 0)
        self._stamp_ns: int | None = None
        self._callbacks: list[Callable[[Any, Sample], None]] = []
        self._states: list[Callable[[Any, LinkState], None]] = []
        self.on_put: Callable[[Any], None] = lambda _value: None

    def latest(self) -> Sample:
        return self._sample

    def publish(self, value: Any) -> None:
        self.value = value
        self._loop.call_later(MONITOR_S, self._arrive, value, self._loop.now_ns())

    def _arrive(self, value: Any, t_ns: int) -> None:
        if self.state is LinkState.DISCONNECTED:
            return
        self._sample = Sample(value, t_ns)
        for callback in self._callbacks:
            callback(self, self._sample)

    def set_state(self, state: LinkState) -> None:
        self.state = state
        for callback in self._states:
            callback(self, state)

    async def get(self, timeout_s: float) -> Sample:
        await asyncio.sleep(PUT_S)
        if self.state is LinkState.DISCONNECTED:
            raise ChannelError("channel.disconnected", "not connected", self.name)
        return Sample(self.value, self._loop.now_ns() if self._stamp_ns is None else self._stamp_ns)

    def stamped(self, value: Any, t_ns: int) -> None:
        """What a get finds from now on, and its stamp."""
        self.value, self._stamp_ns = value, t_ns

    async def put(self, value: Any, timeout_s: float) -> None:
        await asyncio.sleep(PUT_S)
        self.on_put(value)

    def subscribe(self, callback: Callable[[Any, Sample], None]) -> Callable[[], None]:
        self._callbacks.append(callback)
        callback(self, self._sample)
        return lambda: self._callbacks.remove(callback)

    def on_state(self, callback: Callable[[Any, LinkState], None]) -> Callable[[], None]:
        self._states.append(callback)
        return lambda: self._states.remove(callback)


@dataclass
class FakeMachine:
    """Ring and front end; `log` holds every command and table write in the order of arrival."""

    loop: VirtualLoop
    cycle_s: float = 1.0
    """From the start of a cycle to its flat top."""
    flat_top_s: float = 3.0
    log: list[str] = field(default_factory=list)
    times: list[tuple[str, float]] = field(default_factory=list)
    refuse: dict[str, str] = field(default_factory=dict)
    """verb -> words: refuse that command."""
    field_told_s: float = 0.0
    """Loop time from which on the front end knows which field is open."""
    mute: set[str] = field(default_factory=set)
    """verbs that are never answered."""
    hasty: bool = False
    """The ring goes to the queued cycle although the present layer is not finished."""
    tells_register: bool = True
    """The register is published when the layer ends, as the front end does."""
    dose: dict[str, Any] | None = None
    """What the dose register says, of a layer that got nothing; None: it is empty."""
    gain2: float = 1.001
    spoil: Callable[[np.ndarray], None] = lambda _register: None
    channels: dict[str, FakeChannel] = field(default_factory=dict)
    state: FrontEndState = FrontEndState.IDLE
    token: int = 0
    ring_token: int = 0
    ring_code: int = 0
    phase: RingPhase = RingPhase.STANDBY
    queued: tuple[int, int] | None = None
    permit: bool = True
    opened: tuple[int, float, float] = (0, 0.0, 0.0)
    """Number, ions, ms of the open field."""
    epoch: int = 1
    """Of the permit, counted by the front end."""
    beating: bool = True
    given_by_token: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._seq = 0
        self._cycle_id = 0
        self._written = np.zeros(0)
        self._table = np.zeros((0, len(SPOT_COLUMNS)))
        self._given = np.zeros(0)
        self._level = 1e7
        self._beam_from_s: float | None = None
        self._done_timer: asyncio.TimerHandle | None = None
        self._beat = 0
        values: dict[str, Any] = {
            "FE:Status-RB": self._fe_values(), "RING:Status-RB": self._ring_values(), "RS:Code-RB": 0,
            "HEBT:Room-RB": "H", "SAFE:Action-Sts": 0, "SAFE:Mode-Sts": 1, "SAFE:Permit-Sts": 1,
            "SAFE:Bypassed-RB": b"[]",
            "SAFE:FirstFault-RB": "", "SAFE:Heartbeat-RB": 0, "PLANT:Heartbeat-RB": 0, "FE:Spots-SP": np.zeros(1),
            "FE:Register-RB": np.zeros(1), "SAFE:Latched-RB": b"[]", "SAFE:TcsKeepAlive": b"",
            **{f"{group}:{kind}": b"" for group in ("RING", "FE", "RS") for kind in ("Cmd", "Cmd-Result")},
        }  # fmt: skip
        self.channels = {name: FakeChannel(f"{PREFIX}:{name}", self.loop, value) for name, value in values.items()}
        self.channels["FE:Register-RB"].stamped(np.zeros(1), 0)
        self.channels["FE:Spots-SP"].on_put = self._on_table
        self._tick()

    # the provider
    async def connect(
        self, names: Collection[str], timeout_s: float, *, monitor: Any = None, stale_after_s: Any = None
    ) -> dict[str, Any]:
        return {name: self.channels[name.removeprefix(f"{PREFIX}:")] for name in names}

    async def close(self) -> None:
        for channel in self.channels.values():
            channel.set_state(LinkState.DISCONNECTED)

    def caller(self, cmd: Any, _result: Any) -> FakeCaller:
        return FakeCaller(self, cmd.name.removeprefix(f"{PREFIX}:").removesuffix(":Cmd"))

    # safety
    def trip(self, rule: str, action: Action, front_end: FrontEndState, name_after_s: float = 0.01) -> None:
        """A rule takes the beam: front end at once, its name a little later."""
        self.epoch += self.permit
        self.permit = False
        self._note_beam()
        self._set_fe(front_end)
        self.channels["SAFE:Permit-Sts"].publish(0)
        self.channels["SAFE:Action-Sts"].publish(int(action))
        self.loop.call_later(name_after_s, self.channels["SAFE:FirstFault-RB"].publish, rule)
        self.loop.call_later(name_after_s, self.channels["SAFE:Latched-RB"].publish,
                             f'[{{"id":"{rule}","value":3.5}}]'.encode())  # fmt: skip

    def reset(self) -> None:
        self.epoch += not self.permit
        self.permit = True
        self._set_fe(self.state)
        self.channels["SAFE:Permit-Sts"].publish(1)
        self.channels["SAFE:Action-Sts"].publish(0)
        self.channels["SAFE:FirstFault-RB"].publish("")
        self._serve_ring()

    def delivered(self, token: int) -> np.ndarray:
        """Ions per spot over all loads of a layer: the fake's truth."""
        return self.given_by_token[token]

    # commands
    def command(self, verb: str, args: Mapping[str, Any]) -> dict[str, Any]:
        self.log.append(f"{verb} {args['token']}" if "token" in args else verb)
        self.times.append((self.log[-1], self.loop.time()))
        if verb in self.refuse:
            raise CommandRefused("fake.refused", self.refuse[verb], verb)
        result: dict[str, Any] = getattr(self, f"_{verb}")(**args) or {}
        return result

    def _request_cycle(self, token: int, energy_code: int, transport_set: int) -> None:
        self.queued = (token, energy_code)
        self._serve_ring()

    def _end_cycle(self) -> None:
        self.queued = None
        if self.phase is RingPhase.FLAT_TOP:
            self._leave_flat_top(self._cycle_id)

    def _open_field(self, field: int, preset_ions: float, expected_ms: float, plan_hash: str) -> None:
        if self.loop.time() < self.field_told_s:
            raise CommandRefused("fe.other-field", f"field {field} is not the one, which is none", "open_field")
        self.opened = (field, preset_ions, expected_ms)

    def _load_layer(
        self, token: int, energy_code: int, level_ions_per_s: float, n: int, crc32: int, range_shifter_code: int,
        transport_set: int,
    ) -> None:  # fmt: skip
        if self.state in (FrontEndState.ARMED, FrontEndState.IRRADIATING, FrontEndState.HELD, FrontEndState.PAUSED):
            raise CommandRefused("fe.active", f"a layer is {self.state.name}", "load_layer")
        if zlib.crc32(self._written.astype("<f8").tobytes()) != crc32 or self._written.size != n * len(SPOT_COLUMNS):
            raise CommandRefused("fe.crc", "the table is another one", "load_layer")
        self._table = self._written.reshape(n, len(SPOT_COLUMNS))
        self._given = np.zeros(n)
        self.given_by_token.setdefault(token, np.zeros(n))
        self._level = level_ions_per_s
        self.token = token
        self._set_fe(FrontEndState.LOADED)

    def _arm(self, token: int, permit_epoch: int) -> None:
        if self.state is not FrontEndState.LOADED or token != self.token:
            raise CommandRefused("fe.arm", "not loaded", "arm")
        self._check_permit(permit_epoch)
        self._set_fe(FrontEndState.ARMED)
        self._maybe_beam()

    def _disarm(self) -> None:
        self._note_beam()
        self._set_fe(FrontEndState.LOADED)

    def _pause(self) -> None:
        self._note_beam()
        self._set_fe(FrontEndState.PAUSED)

    def _resume(self, permit_epoch: int) -> None:
        if self.state is not FrontEndState.PAUSED:
            raise CommandRefused("fe.resume", "not paused", "resume")
        self._check_permit(permit_epoch)
        self._set_fe(FrontEndState.HELD)
        self._maybe_beam()
        self._serve_ring()

    def _check_permit(self, epoch: int) -> None:
        if not self.permit or epoch != self.epoch:
            raise CommandRefused("fe.epoch", f"meant for permit {epoch}, this is {self.epoch}", "front end")

    def _read_register(self) -> None:
        self.channels["FE:Register-RB"].stamped(self._register_now(), self.loop.now_ns())

    def _register_now(self) -> np.ndarray:
        rows = np.zeros((len(self._table), len(REGISTER_COLUMNS)))
        column = {name: i for i, name in enumerate(REGISTER_COLUMNS)}
        target, start = (self._table[:, SPOT_COLUMNS.index(name)] for name in ("target_ions", "start_ions"))
        rows[:, column["spot"]] = np.arange(len(rows))
        rows[:, column["target_ions"]] = target
        rows[:, column["start_ions"]] = start
        rows[:, column["ic1_ions"]] = self._given
        rows[:, column["ic2_ions"]] = self._given * self.gain2
        rows[:, column["x_mm"]] = self._table[:, 0] + 0.1
        rows[:, column["y_mm"]] = self._table[:, 1]
        rows[:, column["beam_us"]] = self._given / self._level * 1e6
        rows[:, column["t_end_ns"]] = np.where(self._given > 0, float(self.loop.now_ns()), 0.0)
        rows[:, column["done"]] = start + self._given >= target - 1e-6
        self.spoil(rows)
        return rows.ravel()

    def _read_dose(self, back: int) -> dict[str, Any]:
        if self.dose is not None:
            rows = np.zeros(self.dose["n"] * len(REGISTER_COLUMNS))
            self.channels["FE:Register-RB"].stamped(rows, self.loop.now_ns())
        return dict(self.dose or {})

    def _insert(self, code: int) -> None:
        self.loop.call_later(0.5, self.channels["RS:Code-RB"].publish, code)

    # beam
    def _spots_done(self) -> int:
        """Of this load: what had been given before it does not count, as at the front end."""
        target, start = (self._table[:, SPOT_COLUMNS.index(name)] for name in ("target_ions", "start_ions"))
        return int(((self._left() <= 0) & (start < target)).sum())

    def _left(self) -> np.ndarray:
        target, start = (self._table[:, SPOT_COLUMNS.index(name)] for name in ("target_ions", "start_ions"))
        return np.maximum(target - start - self._given, 0.0)

    def _maybe_beam(self) -> None:
        ready = self.phase is RingPhase.FLAT_TOP and self.ring_token == self.token and self.permit
        if ready and self.state in (FrontEndState.ARMED, FrontEndState.HELD):
            self._beam_from_s = self.loop.time()
            self._done_timer = self.loop.call_later(float(self._left().sum()) / self._level, self._layer_done)
            self._set_fe(FrontEndState.IRRADIATING)

    def _note_beam(self) -> None:
        """Book what has come since the beam came on; the beam is off now."""
        if self._beam_from_s is None:
            return
        if self._done_timer is not None:
            self._done_timer.cancel()
        came = (self.loop.time() - self._beam_from_s) * self._level
        left = self._left()
        before = np.cumsum(left) - left
        new = np.clip(came - before, 0.0, left)
        self._given = self._given + new
        self.given_by_token[self.token] = self.given_by_token[self.token] + new
        self._beam_from_s = None

    def _layer_done(self) -> None:
        left = self._left()
        self._given = self._given + left
        self.given_by_token[self.token] = self.given_by_token[self.token] + left
        self._beam_from_s = None
        if self.tells_register:
            self._read_register()
        self._set_fe(FrontEndState.DONE)
        if self.queued is not None and self.phase is RingPhase.FLAT_TOP:
            self._leave_flat_top(self._cycle_id)

    # ring
    def _serve_ring(self) -> None:
        if self.phase is not RingPhase.STANDBY or not self.permit:
            return
        unfinished = self.state in (FrontEndState.ARMED, FrontEndState.HELD) and self.token == self.ring_token
        if not unfinished or (self.hasty and self.queued is not None):
            if self.queued is None:
                return
            (self.ring_token, self.ring_code), self.queued = self.queued, None
        self._cycle_id += 1
        self._set_phase(RingPhase.RAMP)
        self.loop.call_later(self.cycle_s, self._flat_top, self._cycle_id)

    def _flat_top(self, cycle: int) -> None:
        self._set_phase(RingPhase.FLAT_TOP)
        self.loop.call_later(self.flat_top_s, self._leave_flat_top, cycle)
        self._maybe_beam()

    def _leave_flat_top(self, cycle: int) -> None:
        if cycle != self._cycle_id or self.phase is not RingPhase.FLAT_TOP:
            return
        self._set_phase(RingPhase.STANDARDISE)
        if self.state is FrontEndState.IRRADIATING:
            self._note_beam()
            self._set_fe(FrontEndState.HELD)
        self.loop.call_later(0.3, self._at_rest)

    def _at_rest(self) -> None:
        self._set_phase(RingPhase.STANDBY)
        self._serve_ring()

    def _set_phase(self, phase: RingPhase) -> None:
        self.phase = phase
        self.channels["RING:Status-RB"].publish(self._ring_values())

    def _set_fe(self, state: FrontEndState) -> None:
        self.state = state
        self.channels["FE:Status-RB"].publish(self._fe_values())

    def _fe_values(self) -> np.ndarray:
        self._seq += 1
        values = {"seq": self._seq, "state": self.state, "hold_reason": HoldReason.NONE, "token": self.token, "spot": 0,
                  "spots": len(self._table), "done_spots": self._spots_done(),
                  "ic1_ions": float(self._given.sum()), "first_rule": -1,
                  "permit": self.permit, "permit_epoch": self.epoch}  # fmt: skip
        return np.array([float(values.get(name, 0.0)) for name in FE_STATUS])

    def _ring_values(self) -> np.ndarray:
        values = {"phase": self.phase, "token": self.ring_token, "energy_code": self.ring_code, "cycle": self._cycle_id}
        return np.array([float(values.get(name, 0.0)) for name in RING_STATUS])

    def _on_table(self, value: Any) -> None:
        self.log.append("table")
        self._written = np.asarray(value, dtype=np.float64).copy()

    def _tick(self) -> None:
        if self.beating:
            self._beat += 1
            for name in ("SAFE:Heartbeat-RB", "PLANT:Heartbeat-RB"):
                self.channels[name].publish(self._beat)
        self.loop.call_later(0.2, self._tick)


class FakeCaller:
    def __init__(self, machine: FakeMachine, group: str) -> None:
        self._machine = machine
        self._group = group

    async def call(self, verb: str, args: Mapping[str, Any], timeout_s: float) -> CommandResult:
        await asyncio.sleep(PUT_S / 2)
        if verb in self._machine.mute:
            await asyncio.sleep(timeout_s)
            raise ChannelError("command.no-answer", f"no result of {verb}", f"{PREFIX}:{self._group}:Cmd-Result")
        try:
            result = CommandResult("C-1", Status.DONE, data=self._machine.command(verb, args))
        except CommandRefused as refusal:
            result = CommandResult("C-1", Status.REFUSED, refusal.code, str(refusal))
        await asyncio.sleep(MONITOR_S)
        return result


@dataclass
class Bench:
    """Everything a test of the sequencer needs."""

    loop: VirtualLoop
    machine: FakeMachine
    link: MachineLink
    sequencer: Sequencer
    events: EventLog
    told: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)


async def bench(
    loop: VirtualLoop, *, limits: SequencerLimits | None = None, cycle_s: float = 1.0, books: Bookkeeper | None = None
) -> Bench:
    """A machine and a sequencer connected to it; enter `bench.sequencer`."""
    machine = FakeMachine(loop, cycle_s=cycle_s)
    link = await MachineLink.connect(machine, PREFIX, machine.caller, LinkLimits(command_s=0.5))
    events = EventLog("R-test", loop)
    sequencer = Sequencer(link, loop, IdSource(1), events, limits=limits, books=books)
    made = Bench(loop, machine, link, sequencer, events)
    sequencer.listeners.append(lambda topic, data: made.told.append((topic, data)))
    return made
