"""A whole facility in virtual time: plant, soft IOCs, safety controller, control and an operator, in one loop.

The plant is what moves time: the loop advances it to the next timer and no further. Everything runs in this process and
thread, without sockets; a run is a function of its inputs and the seed.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from channels.command import Signer
from channels.command_server import CommandVerifier
from channels.keepalive import KeepAliveMaker
from channels.keys import KeyRing, derived_private_key
from channels.memory import Latency, MemoryProvider
from channels.publish import stamp_with
from control.ioc import ControlIoc
from control.machine_link import LinkLimits
from facility.config import Facility
from facility.errors import InternalError
from facility.events import Event, EventLog
from facility.ids import IdSource, run_id
from facility.timebase import NS_PER_MS, Rank, ranked
from interlocks.controller import Console, SafetyController
from interlocks.model import MODE_CODES
from interlocks.proof_file import load_proofs
from interlocks.rules import RuleSet, load_rules
from interlocks.snapshot import Mode
from interlocks.verbs import VERBS
from ioc_sim.iocs.plant_iocs import PlantIocs
from ioc_sim.plant import TRACE_RECORDS, Plant, PlantEvent
from ioc_sim.register_store import RegisterStore
from journal.store import Journal
from journal.writer import InlineWriter, NullWriter
from rig.branch import Emit, Snapshot, take_snapshot
from rig.control_stack import CommandGate, ControlParts, ControlStack, LoadProgram, control_stack, file_loader
from rig.keys import CONTROL, ISSUERS, OPERATOR, PHYSICIST, ROOM
from rig.operator_client import OperatorClient, OperatorLimits
from rig.register_sync import RegisterSync
from rig.room_panel import RoomPanel, room_panel
from rig.safety_side import HookedSafetyIoc, link_name
from rig.virtual_safety import BOOT, FAR_NS, VirtualSafety
from rig.virtual_time import VirtualLoop, run_virtual

if TYPE_CHECKING:
    from control.sample_log import SampleLog
    from rig.post_mortem import PostMortem
    from rig.virtual_post_mortem import VirtualPostMortems

T = TypeVar("T")
RestoredWork = Callable[..., Awaitable[None]]
"""What is done in a world that was restored, given the world, its parts, whatever else was kept, and `Emit`: a function
of a module, or a `functools.partial` of one."""
BEAT_NS = 1_900 * NS_PER_MS
"""Between two signs of life of console, plant and safety controller, and between two looks at what has no event: an
update costs as much as 1,000 ticks, a signature and its check 3,000.  Every watchdog that waits for one allows 2 s, and
in virtual time nothing is late.  Events are shown at once; the lines of tier T keep their own, shorter period."""
VALUES_NS = 19_000 * NS_PER_MS
"""Between two looks at values that no rule minds: a third of all PVs, and nobody watches facility time pass."""
BEAT_S = BEAT_NS * 1e-9
BEATS_A_VALUE = 3
"""Signs of life of the plant between two looks at what its devices read back: nobody waits for that."""
LINES_S = 1.5
"""Between two frames of control's lines: a multiple of the 0.5 s between two looks at them."""
KEEPING_ALIVE = OperatorLimits(keep_alive_s=BEAT_S)
LINK_LIMITS = LinkLimits(heartbeat_s=2.0)
REGISTER_NS = 20 * NS_PER_MS
"""Between two looks at a dose register that has to be synchronised."""
SHOWN_NS = 2 * NS_PER_MS
"""When the plant's first state is shown: after its first tick, in which the room gets the beam."""
_TRACED = frozenset({"PHASE", "SPILL_END", "BEAM_ON", "HELD", "PAUSED", "ABORTED", "LAYER_DONE", "TRIP", "ROOM"})
_OPERATOR_STREAM = 1
_ROOM_STREAM = 2
"""Jitter of the operator's and of the room's channels, apart from control's."""


@dataclass(frozen=True)
class WorldOptions:
    """What a run may differ in beside facility, room, species and seed."""

    mode: Mode = Mode.CLINICAL
    allow_faults: bool = False
    exchange_always: bool = False
    """Exchange safety frames every millisecond instead of when it matters."""
    slice_ns: int | None = None
    """Longest stretch the plant runs in one call; a run must not depend on it."""
    latency: Latency = Latency()  # noqa: RUF009 - frozen
    load_program: LoadProgram | None = None
    bring_up: bool = True
    """Search the room and run the proof tests before anything else."""
    post_mortem: bool = False
    """Freeze what every signal did around each trip; the files are in `World.post_mortems`."""
    trace_records: int = TRACE_RECORDS
    """Length of the truth ring, ticks."""
    register_store: RegisterStore | None = None
    """Where the dose register lies; None: memory that dies with the world."""
    journal: Journal | None = None
    """Where control writes its journal; None: nowhere. Whoever opened it closes it."""
    samples: SampleLog | None = None
    """Where control's samples go; None: nowhere."""


@dataclass(frozen=True)
class WorldParts:
    """What is alive while a world runs."""

    control: ControlStack
    operator: OperatorClient
    room: RoomPanel
    """Whoever stands in the treatment room."""


class World:
    """One facility in virtual time."""

    def __init__(
        self, facility: Facility, room: str, species: str, seed: int, options: WorldOptions = WorldOptions(),
        rules: RuleSet | None = None,
    ) -> None:  # fmt: skip
        self.facility = facility
        self.options = options
        self.seed = seed
        self.interrupted = False
        """Set from a signal handler: the operator pauses the delivery."""
        self._keys = {i.name: derived_private_key(seed, i.name) for i in ISSUERS}
        self.rules = rules or load_rules(facility, room, species)
        self.plant = Plant(
            facility,
            room,
            species,
            seed=seed,
            rules=self.rules.fast(),
            allow_faults=options.allow_faults,
            trace_records=options.trace_records,
            register_store=options.register_store,
        )
        self.loop = VirtualLoop(self._advance)
        self.events = EventLog(run_id(seed, facility.hash), self.loop)
        prefix = facility.pv_prefix
        with stamp_with(self.loop):
            self.iocs = PlantIocs(self.plant, prefix, self.loop, self._ring(CONTROL.name, ROOM.name))
            self.controller = SafetyController(
                self.rules,
                options.mode,
                self._console(OPERATOR.name),
                0,
                control=self._console(CONTROL.name),
                proofs=load_proofs(facility, self.rules.link.watchdog_ms),
            )
            self._post_mortems = self._freeze_trips(room, species) if options.post_mortem else None
            self.safety = VirtualSafety(
                self.loop, self.plant, self.controller, link_name(facility, self.rules), self._safety_scanned,
                always=options.exchange_always, ring=None if self._post_mortems is None else self._post_mortems.ring,
            )  # fmt: skip
            verifier = CommandVerifier(self._ring(OPERATOR.name, PHYSICIST.name, CONTROL.name), VERBS, self.loop)
            self.safety_ioc = HookedSafetyIoc(
                prefix,
                self.controller,
                verifier,
                self.loop,
                self._safety_touched,
                BEAT_NS,
                VALUES_NS,
                None if self._post_mortems is None else self._post_mortems.ring.heard,
            )
            self._gate = CommandGate()
            self.control_ioc = ControlIoc(prefix, self.loop, self._gate)
        self._pause: Callable[[], Coroutine[Any, Any, None]] | None = None
        self.providers: dict[str, MemoryProvider] = {}
        """Channels of the clients while they live: control, console, room."""
        self._parts: WorldParts | None = None
        self.plant.set_room_beam(True)
        self.plant.set_door(False, False)  # people are in the room until it has been searched
        self.plant.turn_key(MODE_CODES[options.mode.value])
        self._refresh_ns = FAR_NS
        self._beats = 0
        self.loop.call_at_rank(SHOWN_NS, Rank.IOC, self.iocs.refresh)
        self.loop.call_at_rank(BEAT_NS, Rank.IOC, self._update)
        self._refresh_at(0)
        if options.register_store is not None and options.register_store.durable:
            self._keep_synchronised(RegisterSync(self.plant, options.register_store))

    def _keep_synchronised(self, sync: RegisterSync) -> None:
        """Look after the register as the plant's process does, by facility time."""
        sync.look()
        self.loop.call_at_rank(self.loop.now_ns() + REGISTER_NS, Rank.IOC, self._keep_synchronised, sync)

    def rules_that_are(self, state: str) -> set[str]:
        """Rules of both tiers that are 'latched' or 'present', bypassed or not, by their ids."""
        plant = self.plant
        fast = {rule_id for rule_id, row in zip(plant.rule_ids, plant.rule_rows, strict=True) if row[state]}
        return fast | {view.rule.id for view in self.controller.snapshot(live=False).rules if getattr(view, state)}

    def _console(self, name: str) -> Console:
        return Console(name, self._keys[name].public_key())

    def _ring(self, *names: str) -> KeyRing:
        ring = KeyRing()
        for issuer in ISSUERS:
            if issuer.name in names:
                ring.add(issuer.name, self._keys[issuer.name].public_key(), issuer.roles)
        return ring

    def _freeze_trips(self, room: str, species: str) -> VirtualPostMortems:
        from rig.post_mortem import about_run  # Arrow, which a run without post-mortems needs no memory for
        from rig.virtual_post_mortem import VirtualPostMortems

        facility, seed = self.facility, self.seed
        about = about_run(facility, room, species, seed, self.options.mode)
        return VirtualPostMortems(
            self.loop, self.plant, self.events,
            lambda records: Plant(facility, room, species, seed=seed, rules=self.rules.fast(), allow_faults=True,
                                  trace_records=records),
            about, self.rules, self.controller,
        )  # fmt: skip

    @property
    def post_mortems(self) -> tuple[PostMortem, ...]:
        """One for each trip so far, or each group of trips within one window."""
        return () if self._post_mortems is None else tuple(self._post_mortems.files)

    @property
    def safety_scans(self) -> tuple[PostMortem, ...]:
        """What the safety controller has kept of its scans, in the same way."""
        return () if self._post_mortems is None else tuple(self._post_mortems.scans)

    # --- running --------------------------------------------------------------------------------------------
    def run(self, work: Callable[[WorldParts], Coroutine[Any, Any, T]]) -> T:
        """Run `work` with everything alive, to its end."""
        return run_virtual(self._run(work), self.loop)

    async def snapshot(self, *more: object) -> Snapshot:
        """Keep this world as it stands, from inside a run, once nothing is left to do at this instant. Work in it is
        given the world, its parts and `more`.

        What it costs and what it cannot do is told in `rig.branch`. InternalError outside of a run.
        """
        if self._parts is None:
            raise InternalError("world.asleep", "a snapshot is taken while a world runs", "rig.virtual_world")
        await self.loop.quiet()
        return await take_snapshot(self.loop.now_ns(), self, self._parts, *more)

    @staticmethod
    def restore(snapshot: Snapshot, work: RestoredWork, emit: Emit) -> None:
        """Run `work` on a world as it was kept, as often as wanted; see `Snapshot.run`."""
        snapshot.run(work, emit)

    async def _run(self, work: Callable[[WorldParts], Coroutine[Any, Any, T]]) -> T:
        with stamp_with(self.loop), ranked(Rank.CONTROL):
            async with self._alive() as parts:
                self._parts = parts
                result = await work(parts)
                if self._post_mortems is not None:
                    await self._post_mortems.settled()
                return result

    @contextlib.asynccontextmanager
    async def _alive(self) -> AsyncIterator[WorldParts]:
        options, prefix = self.options, self.facility.pv_prefix
        machine = {**self.iocs.pvdb, **self.safety_ioc.pvdb}
        desk = {**self.control_ioc.pvdb, **self.safety_ioc.pvdb}
        room_provider = MemoryProvider(
            self.iocs.pvdb, self.loop, seed=self.seed, stream=_ROOM_STREAM, latency=options.latency, user="room"
        )
        control_provider = MemoryProvider(machine, self.loop, seed=self.seed, latency=options.latency)
        operator_provider = MemoryProvider(
            desk, self.loop, seed=self.seed, stream=_OPERATOR_STREAM, latency=options.latency, user="operator"
        )
        self.providers = {"control": control_provider, "console": operator_provider, "room": room_provider}
        parts = ControlParts(
            self.facility, self.loop, IdSource(self.seed), self.events, self._signer(CONTROL.name, "control"),
            self._ring(OPERATOR.name, PHYSICIST.name), options.load_program or file_loader(self.facility),
            KeepAliveMaker(CONTROL.name, BOOT, self._keys[CONTROL.name], self.loop),
            link_limits=LINK_LIMITS, publish_s=BEAT_S, check_s=BEAT_S, lines_s=LINES_S, journal=options.journal,
            writer=NullWriter() if options.journal is None else InlineWriter(options.journal, self.loop),
            energy_table=self.plant.table.hash, rules_hash=self.rules.hash, samples=options.samples,
            fast_rules=tuple(self.plant.rule_ids),
        )  # fmt: skip
        keep_alive = KeepAliveMaker(OPERATOR.name, BOOT, self._keys[OPERATOR.name], self.loop)
        try:
            async with (
                control_stack(control_provider, self.control_ioc, self._gate, parts) as control,
                OperatorClient(
                    operator_provider, prefix, self.loop, self._signer(OPERATOR.name, "operator"),
                    self._signer(PHYSICIST.name, "physicist"), keep_alive, KEEPING_ALIVE,
                ) as operator,
                room_panel(
                    room_provider, prefix, self.loop, self._signer(ROOM.name, "room"), self.facility.room_search.delay_s
                ) as room,
            ):  # fmt: skip
                self._pause = self._pauser(operator)
                if options.bring_up:
                    await room.search()
                    await operator.prove()
                yield WorldParts(control, operator, room)
        finally:
            self._pause = self._parts = None
            parts.writer.settle()
            await room_provider.close()
            await operator_provider.close()
            await control_provider.close()

    def _signer(self, name: str, role: str) -> Signer:
        return Signer(name, role, self._keys[name])

    @staticmethod
    def _pauser(operator: OperatorClient) -> Callable[[], Coroutine[Any, Any, None]]:
        async def pause() -> None:
            await operator.ask("TCS", "pause")

        return pause

    # --- time -----------------------------------------------------------------------------------------------
    def _advance(self, until_ns: int) -> int:
        if self.options.slice_ns is not None:
            until_ns = min(until_ns, self.plant_now_ns + self.options.slice_ns)
        reached_ns = self.plant.advance(until_ns)
        events = self.plant.take_events()
        if events:
            self.loop.call_at_rank(reached_ns, Rank.IOC, self._on_plant, events)
            if any(event.kind == "IMAGE" for event in events):
                self.safety.on_image(reached_ns)
        if self.interrupted and self._pause is not None:
            pause, self._pause = self._pause, None
            self.loop.call_soon(lambda: self.loop.create_task(pause()))
        return reached_ns

    @property
    def plant_now_ns(self) -> int:
        """Facility time, ns."""
        return self.loop.now_ns()

    def _on_plant(self, events: list[PlantEvent]) -> None:
        for event in events:
            if event.kind in _TRACED:
                logged = self.events.emit("plant", event.kind.lower().replace("_", "-"), event.data, t_ns=event.t_ns)
                self._note_trip(logged)
        self.iocs.on_events(events)

    def _update(self) -> None:
        now_ns = self.loop.now_ns()
        self._beats += 1
        (self.iocs.beat if self._beats % BEATS_A_VALUE else self.iocs.update)(now_ns)
        self.loop.call_at_rank(now_ns + BEAT_NS, Rank.IOC, self._update)

    # --- safety ---------------------------------------------------------------------------------------------
    def _safety_touched(self) -> None:
        """A client has written to the safety controller."""
        self.safety.touched()
        self._safety_scanned()

    def _safety_scanned(self) -> None:
        """Log what the safety controller found; what it found is shown at once."""
        found = self.controller.take_events()
        for event in found:
            self._note_trip(self.events.emit("safety", event.kind, event.data, t_ns=event.t_ns))
        if found:
            self._refresh_at(self.loop.now_ns())

    def _note_trip(self, event: Event) -> None:
        if self._post_mortems is not None:
            self._post_mortems.trip(event)

    def _refresh_at(self, t_ns: int) -> None:
        if t_ns < self._refresh_ns:
            self._refresh_ns = t_ns
            self.loop.call_at_rank(t_ns, Rank.IOC, self._refresh_safety, t_ns)

    def _refresh_safety(self, planned_ns: int) -> None:
        """Publish the safety controller's state, and come again when its IOC wants to."""
        if planned_ns != self._refresh_ns:
            return  # an earlier one came in between
        self._refresh_ns = FAR_NS
        self._refresh_at(self.safety_ioc.refresh())
