"""Control's view of the machine: the few PVs it watches and the commands it sends.

Values are taken level by level (the last sample counts), so that a lost monitor costs time, never correctness.
Heartbeats must change: a server that repeats one number, or a network that repeats one packet, is as dead as one
that is silent. How long they may stand still is counted on the event loop, because facility time stands still with
the plant.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from channels.command import CommandResult, Signer, Status
from channels.command_client import CommandClient
from channels.protocol import Channel, ChannelProvider, LinkState, Sample, Unsubscribe
from control.layer_table import FloatArray
from control.machine_status import Dose, FeStatus, RingStatus
from control.session import MODES, Mode
from facility.errors import ChannelError, CommandRefused
from facility.pv_catalogue import FE_STATUS, REGISTER_COLUMNS, RING_STATUS
from facility.states import Action
from facility.timebase import Clock

HEARTBEATS = ("SAFE:Heartbeat-RB", "PLANT:Heartbeat-RB")
MONITORED = (
    "FE:Status-RB",
    "RING:Status-RB",
    "RS:Code-RB",
    "HEBT:Room-RB",
    "SAFE:Action-Sts",
    "SAFE:Permit-Sts",
    "SAFE:FirstFault-RB",
    "SAFE:Mode-Sts",
    "SAFE:Bypassed-RB",
    *HEARTBEATS,
)
"""PVs control listens to."""
NOT_MONITORED = ("FE:Spots-SP", "FE:Register-RB", "SAFE:Latched-RB", "SAFE:TcsKeepAlive")
"""PVs control puts or gets when it needs them."""


class Caller(Protocol):
    """The client's side of one command PV pair; `channels.command_client.CommandClient` is one."""

    async def call(self, verb: str, args: Mapping[str, Any], timeout_s: float) -> CommandResult:
        """Send and wait for the final result; ChannelError where there is none."""
        ...


CallerFactory = Callable[[Channel, Channel], Caller]
"""(Cmd channel, Cmd-Result channel) -> Caller."""

COMMANDED = ("RING", "FE", "RS")
OTHER_FIELD = "fe.other-field"
"""Code of the front end's refusal of a field that is not the safety controller's."""


def signed_by(signer: Signer, clock: Clock) -> CallerFactory:
    """Callers whose commands `signer` signs."""
    return lambda command, result: CommandClient(command, result, signer, clock)


@dataclass(frozen=True)
class LinkLimits:
    """Times in s on the event loop."""

    connect_s: float = 10.0
    command_s: float = 2.0
    read_s: float = 2.0
    heartbeat_s: float = 1.0
    """A heartbeat that stands still longer means the link is lost."""
    field_told_s: float = 0.5
    """From the safety controller's answer that a field is open to the front end's knowing of it, at most."""
    field_asked_s: float = 0.02
    """Between two questions meanwhile."""


class MachineLink:
    """Channels to plant and safety controller. Make it with `connect`."""

    def __init__(
        self, prefix: str, channels: Mapping[str, Channel], callers: Mapping[str, Caller], limits: LinkLimits
    ) -> None:
        self._prefix = prefix
        self._channels = channels
        self._callers = callers
        self.limits = limits
        self.wake = asyncio.Event()
        """Set on every change; the waiter clears it."""
        self.fe: FeStatus | None = None
        self.ring: RingStatus | None = None
        self._worst = Action.NONE
        self._tripped = ""
        self._permitted = asyncio.Event()
        self._loop = loop = asyncio.get_running_loop()
        self._beats: dict[str, tuple[object, float]] = {name: (None, loop.time()) for name in HEARTBEATS}
        self._register = asyncio.Lock()
        """Both registers are read by the same PV: nobody asks for one while another waits for the other."""
        self._dose_asked = False
        """That PV has been given the dose register since a layer's own was asked for."""
        self._unsubscribe: list[Unsubscribe] = []
        for name in MONITORED:
            self._listen(name)

    @staticmethod
    async def connect(
        provider: ChannelProvider, prefix: str, make_caller: CallerFactory, limits: LinkLimits | None = None
    ) -> MachineLink:
        """Connect all channels. Raises ChannelError 'channel.connect' naming those that did not come."""
        limits = limits or LinkLimits()
        names = [*MONITORED, *NOT_MONITORED]
        commands = [f"{group}:{kind}" for group in COMMANDED for kind in ("Cmd", "Cmd-Result")]
        results = {f"{prefix}:{group}:Cmd-Result" for group in COMMANDED}
        found = await provider.connect(
            [f"{prefix}:{name}" for name in (*names, *commands)],
            limits.connect_s,
            monitor={f"{prefix}:{name}" for name in MONITORED} | results,
        )
        channels = {name.removeprefix(f"{prefix}:"): channel for name, channel in found.items()}
        callers = {group: make_caller(channels[f"{group}:Cmd"], channels[f"{group}:Cmd-Result"]) for group in COMMANDED}
        return MachineLink(prefix, channels, callers, limits)

    def close(self) -> None:
        """Listen no more; the provider closes the channels."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe.clear()

    def follow(self, name: str, callback: Callable[[Channel, Sample], None]) -> None:
        """Tell somebody else, too, what is heard of a monitored PV."""
        self._unsubscribe.append(self._channels[name].subscribe(callback))

    # what the machine says

    @property
    def action(self) -> Action:
        """Strongest action in force; ABORT where nothing is known."""
        value = self._latest("SAFE:Action-Sts")
        return Action.ABORT if value is None else Action(int(value))

    @property
    def worst_action(self) -> Action:
        """Strongest action seen since `acknowledge`, though it may have gone: a reset is no START."""
        return max(self._worst, self.action)

    def acknowledge(self) -> None:
        """A person has decided to go on: what was in force before counts no more, what is in force now does."""
        self._worst = Action.NONE
        self._tripped = self.first_fault

    @property
    def permit(self) -> bool:
        """Whether the safety controller permits beam and the front end has the permit."""
        return bool(self._latest("SAFE:Permit-Sts") == 1) and self._permitted.is_set()

    @property
    def permit_epoch(self) -> int:
        """Epoch of the permit as the front end told it last, -1 where nothing is known: what a person decides now is
        decided under it, and under no later one."""
        return -1 if self.fe is None else self.fe.permit_epoch

    async def permit_shown(self, timeout_s: float) -> None:
        """Give the front end `timeout_s` (s) at most to tell of a permit that the safety controller gives."""
        if self._latest("SAFE:Permit-Sts") == 1:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._permitted.wait(), timeout_s)

    @property
    def mode(self) -> Mode:
        """Operating mode, as the safety controller says; clinical where nothing is known."""
        return MODES[int(self._latest("SAFE:Mode-Sts") or 0)]

    @property
    def first_fault(self) -> str:
        """Id of the rule that tripped first since the last reset, empty if none."""
        return str(self._latest("SAFE:FirstFault-RB") or "")

    @property
    def tripped(self) -> str:
        """The same, though a reset may have taken it away since: the last one since `acknowledge`; empty if none."""
        return self.first_fault or self._tripped

    @property
    def range_shifter_code(self) -> int:
        """Bit mask of the range shifters in the beam; -1 where nothing is known."""
        value = self._latest("RS:Code-RB")
        return -1 if value is None else int(value)

    @property
    def room(self) -> str:
        """Room that holds the beam token, empty if none."""
        return str(self._latest("HEBT:Room-RB") or "")

    async def changed(self, timeout_s: float) -> None:
        """Wait until anything changes, `timeout_s` (s) at most. One waiter at a time."""
        timer = self._loop.call_later(timeout_s, self.wake.set)
        try:
            await self.wake.wait()
        finally:
            timer.cancel()
            self.wake.clear()

    def lost(self) -> str | None:
        """The first thing that is wrong with the links, in words; None if all live."""
        now = self._loop.time()
        for name in MONITORED:
            state = self._channels[name].state
            if state is not LinkState.CONNECTED:
                return f"{self._prefix}:{name} is {state.value}"
        for name, (_, since) in self._beats.items():
            if now - since > self.limits.heartbeat_s:
                return f"{self._prefix}:{name} stands still for {now - since:.2f} s"
        return None

    # what control asks for

    async def command(self, group: str, verb: str, args: Mapping[str, Any]) -> CommandResult:
        """Send a command to RING, FE or RS and return its result; CommandRefused or ChannelError otherwise."""
        result = await self._callers[group].call(verb, args, self.limits.command_s)
        if result.status in (Status.REFUSED, Status.FAILED):
            raise CommandRefused(result.code, result.words or result.status.value, f"{group} {verb}")
        return result

    async def open_field(self, args: Mapping[str, Any]) -> CommandResult:
        """As `command`; asked again while the front end has not heard yet that the safety controller has opened the
        field: its word takes another way than its answer to the operator, and may come later."""
        until_s = self._loop.time() + self.limits.field_told_s
        while True:
            try:
                return await self.command("FE", "open_field", args)
            except CommandRefused as refusal:
                if refusal.code != OTHER_FIELD or self._loop.time() >= until_s:
                    raise
            await asyncio.sleep(self.limits.field_asked_s)

    async def write_table(self, table: FloatArray) -> None:
        """Write a layer's table; the front end takes it over with load_layer, by its CRC."""
        await self._channels["FE:Spots-SP"].put(table.ravel(), self.limits.read_s)

    async def read_register(self, *, ended: bool = False) -> FloatArray:
        """The register, flat float64: with `ended` as the front end published it when the layer ended, which is then
        at least as new as its status; otherwise, and where it is not, it is asked to publish it now."""
        async with self._register:
            sample = await self._published_register() if ended and not self._dose_asked else None
            if sample is None or self.fe is None or sample.t_ns < self.fe.t_ns:
                await self.command("FE", "read_register", {})
                sample = await self._published_register()
                self._dose_asked = False
        value = sample.value
        if not isinstance(value, np.ndarray):
            raise ChannelError("channel.bad-value", "the register is no array", f"{self._prefix}:FE:Register-RB")
        return value.astype(np.float64, copy=False)

    async def read_dose(self, back: int) -> Dose | None:
        """What the dose register says of the present load (`back` 0) or the one before (1); None if nothing."""
        async with self._register:
            self._dose_asked = True
            data = (await self.command("FE", "read_dose", {"back": back})).data
            if not data:
                return None
            sample = await self._published_register()
        rows = np.asarray(sample.value, dtype=np.float64).reshape(-1, len(REGISTER_COLUMNS))
        try:
            found = Dose(int(data["token"]), int(data["field"]), str(data["plan_hash"]), int(data["table_crc32"]),
                         int(data["spot"]), float(data["uncertain_ions"]), rows, int(data["seq"]),
                         data.get("power_lost") is True)  # fmt: skip
        except (KeyError, TypeError, ValueError) as problem:
            raise ChannelError("channel.bad-value", f"the dose register says {problem}", "FE read_dose") from problem
        if len(rows) != int(data["n"]):
            raise ChannelError("channel.bad-value", f"{len(rows)} rows, the register has {data['n']}", "FE read_dose")
        return found

    async def read_doses(self) -> list[Dose]:
        """Both loads that the dose register holds, the present one first; as `read_dose`."""
        return [dose for back in (0, 1) if (dose := await self.read_dose(back)) is not None]

    async def write_lines(self, frame: bytes) -> None:
        """Tell the safety controller what control vouches for."""
        await self._channels["SAFE:TcsKeepAlive"].put(frame, self.limits.command_s)

    async def read_latched(self) -> list[dict[str, Any]]:
        """Latched rules as the safety controller lists them; empty where it says nothing sensible."""
        sample = await self._channels["SAFE:Latched-RB"].get(self.limits.read_s)
        try:
            data = json.loads(sample.value) if isinstance(sample.value, bytes | str) else []
        except ValueError:
            return []
        return [row for row in data if isinstance(row, dict)] if isinstance(data, list) else []

    # inside

    async def _published_register(self) -> Sample:
        return await self._channels["FE:Register-RB"].get(self.limits.read_s)

    def _latest(self, name: str) -> Any:
        sample = self._channels[name].latest()
        return None if sample is None else sample.value

    def _listen(self, name: str) -> None:
        channel = self._channels[name]
        self._unsubscribe.append(channel.subscribe(self._handler(name)))
        self._unsubscribe.append(channel.on_state(lambda _channel, _state: self.wake.set()))

    def _handler(self, name: str) -> Callable[[Channel, Sample], None]:
        if name in HEARTBEATS:
            return lambda _channel, sample: self._on_beat(name, sample.value)
        if name == "FE:Status-RB":
            return self._on_fe
        if name == "RING:Status-RB":
            return self._on_ring
        if name == "SAFE:Action-Sts":
            return self._on_action
        if name == "SAFE:FirstFault-RB":
            return self._on_first_fault
        return lambda _channel, _sample: self.wake.set()

    def _on_beat(self, name: str, value: object) -> None:
        if value != self._beats[name][0]:
            self._beats[name] = (value, self._loop.time())

    def _on_action(self, _channel: Channel, _sample: Sample) -> None:
        self._worst = self.worst_action
        self.wake.set()

    def _on_first_fault(self, _channel: Channel, sample: Sample) -> None:
        self._tripped = str(sample.value or "") or self._tripped
        self.wake.set()

    def _on_fe(self, _channel: Channel, sample: Sample) -> None:
        if isinstance(sample.value, np.ndarray) and sample.value.size >= len(FE_STATUS):
            self.fe = FeStatus.of(sample.value, sample.t_ns)
            if self.fe.permit:
                self._permitted.set()
            else:
                self._permitted.clear()
            self.wake.set()

    def _on_ring(self, _channel: Channel, sample: Sample) -> None:
        if isinstance(sample.value, np.ndarray) and sample.value.size >= len(RING_STATUS):
            before, self.ring = self.ring, RingStatus.of(sample.value)
            if before is None or before.decisive != self.ring.decisive:
                self.wake.set()
