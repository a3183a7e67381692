"""The catalogue of faults: everything that can go wrong in a facility, by name, typed, with what its value means.

Device faults are made of the fault points of the plant (`ioc_sim.faults`): every signal of every device can fail in
every way of `MODES`. All others are of the machine, the rack's two tiers, the safety link, processes, the operator, or
a rogue client. A fault acts in the device it names, never in a rule's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np

from channels.wire_faults import LinkFault
from facility.errors import UsageError, no_such
from facility.signals import FIRST_SLOW, LAST_SLOW, SIGNALS
from ioc_sim.faults import ABOUT, FAULT_POINTS, FOREVER_NS, Fault, FaultKind
from ioc_sim.physics.utilities import DEVICES
from rig.scenario.model import Target

VIRTUAL, CA, HIL = Target.VIRTUAL, Target.CA, Target.HIL
ALL = (VIRTUAL, CA, HIL)
NO_PROCESS = "in virtual time there are no processes and no sockets"
NO_HOOK = "the process offers nobody a way into its memory, which is what this fault changes"


class Family(StrEnum):
    """What kind of thing fails."""

    DEVICE = "device"
    MACHINE = "machine"
    TIER = "tier"
    LINK = "link"
    PROCESS = "process"
    OPERATOR = "operator"
    ROGUE = "rogue"
    EXTERNAL = "external"


@dataclass(frozen=True)
class FaultType:
    """One entry of the catalogue."""

    name: str
    family: Family
    about: str
    unit: str = ""
    """Of the value; empty: it takes none."""
    typical: float = 0.0
    """Value where none is given: one that a rule has to notice, where one watches this at all."""
    low: float = 0.0
    high: float = 0.0
    """Range of random draws."""
    targets: tuple[Target, ...] = ALL
    why_not: str = ""
    """Why it is not on the other targets."""
    parts: tuple[tuple[str, FaultKind, float | None], ...] = ()
    """Fault points, kinds and values it is made of in the plant; value None is the entry's own."""

    @property
    def takes_value(self) -> bool:
        """Whether a value means something."""
        return bool(self.unit)

    def draw(self, random: np.random.Generator) -> float:
        """A value within the range."""
        return float(random.uniform(self.low, self.high)) if self.high > self.low else self.typical


@dataclass(frozen=True)
class Mode:
    """One way in which any device's signal fails."""

    kind: FaultKind
    about: str
    unit: str = ""
    """{} stands for the unit of the point."""
    typical: float = 0.0
    """In `scale`s of the point where the unit is that of the point."""
    own: bool = False
    """The value is a plain number and no multiple of the point's scale."""


MODES: dict[str, Mode] = {
    "stuck": Mode(FaultKind.STUCK, "keeps the value it had"),
    "drift": Mode(FaultKind.DRIFT, "runs away", "{}/s", 5.0),
    "step": Mode(FaultKind.OFFSET, "jumps", "{}", 1.0),
    "noise": Mode(FaultKind.NOISE, "is noisy, rms", "{}", 0.5),
    "dead": Mode(FaultKind.DEAD, "is zero"),
    "nan": Mode(FaultKind.NAN, "is not a number"),
    "late": Mode(FaultKind.LATE, "arrives late", "ms", 50.0, own=True),
    "wrong-polarity": Mode(FaultKind.INVERT, "is the opposite of what it should be"),
    "slow": Mode(FaultKind.SLOW, "follows with a time constant", "ms", 50.0, own=True),
    "saturated": Mode(FaultKind.SATURATED, "does not get beyond a value either way", "{}", 0.5),
    "set": Mode(FaultKind.SET, "is a value", "{}", 0.0),
    "scale": Mode(FaultKind.SCALE, "is multiplied", "1", 0.8, own=True),
}
"""The ten of a signal, and two for exact causes."""
LINES = ("0 is", "1 is")
"""What the words of a fault point of a line say: 'status line ..., 1 is good'."""
SCALES = {
    "V": 240.0, "mm at isocentre": 5.0, "mm": 5.0, "A": 25.0, "T m": 0.006, "counts": 20_000.0, "pA": 1e5, "ms": 250.0,
    "ions": 1e8, "ms a ms": 1.0, "uSv/h": 200.0, "deg": 3.0, "degC": 40.0, "mbar": 1e-4, "us": 50.0, "mm/s": 5.0,
}  # fmt: skip
"""What is a large change, by unit; 1 where nothing stands here, 0.2 of what is relative to its nominal value."""


def _unit_of(point: str) -> str:
    about = ABOUT[point]
    slow = {signal.name: signal.unit for signal in SIGNALS[FIRST_SLOW : LAST_SLOW + 1]}
    if point in slow:
        return slow[point]
    last = about.rsplit(", ", 1)[-1].split(":")[0]
    return next((unit for unit in SCALES if last == unit), "1")


def is_line(point: str) -> bool:
    """Whether the point is a line, good or bad, and no quantity."""
    return any(words in ABOUT[point] for words in LINES) or _unit_of(point) == "bool"


def _scale_of(point: str, unit: str) -> float:
    if unit in SCALES or is_line(point):
        return SCALES.get(unit, 1.0)
    relative = any(device.noise > 0.0 and SIGNALS[device.signal].name == point for device in DEVICES)
    return 0.2 if relative or ", 1" in ABOUT[point] else 1.0


def _device(point: str, way: str, mode: Mode) -> FaultType:
    unit = _unit_of(point)
    scale = _scale_of(point, unit)
    typical = mode.typical * (1.0 if mode.own else scale)
    if mode.kind is FaultKind.INVERT:
        typical = 1.0 if is_line(point) else 0.0
    shown = mode.unit.format("1" if unit == "bool" else unit)
    value = None if mode.unit else typical
    low, high = (0.2 * typical, 2.0 * typical) if mode.unit else (typical, typical)
    about = f"{ABOUT[point].split(';')[0].split(':')[0]}: {mode.about}"
    return FaultType(f"{point}/{way}", Family.DEVICE, about, shown, typical, low, high,
                     parts=((point, mode.kind, value),))  # fmt: skip


def _devices() -> list[FaultType]:
    tiers = {"fe.freeze", "h.freeze"}
    return [_device(point, way, mode) for point in FAULT_POINTS if point not in tiers for way, mode in MODES.items()]


def _made(name: str, family: Family, about: str, *parts: tuple[str, FaultKind, float | None], unit: str = "",
          typical: float = 0.0, low: float = 0.0, high: float = 0.0) -> FaultType:  # fmt: skip
    return FaultType(name, family, about, unit, typical, low, high, parts=parts)


def _machine() -> list[FaultType]:
    family, kind = Family.MACHINE, FaultKind
    return [
        _made("machine/spill-overshoot", family, "the spill comes with a multiple of its rate",
              ("spill.rate", kind.SCALE, None), unit="1", typical=12.0, low=2.0, high=30.0),
        _made("machine/no-beam", family, "nothing is extracted although the ring is full",
              ("spill.rate", kind.DEAD, 0.0)),
        _made("machine/ripple", family, "the supplies of the ring put 50 Hz on the spill",
              ("spill.rate", kind.RIPPLE, None), unit="1", typical=0.5, low=0.1, high=0.9),
        _made("machine/short-spill", family, "the ring is filled with a fraction of the ions",
              ("ring.fill", kind.SCALE, None), unit="1", typical=0.05, low=0.02, high=0.5),
        _made("machine/wrong-energy", family, "the ring runs the cycle of another layer",
              ("ring.token", kind.OFFSET, 1.0)),
        _made("machine/wrong-rigidity", family, "the ring holds another energy than its token says",
              ("ring.brho", kind.SCALE, None), unit="1", typical=1.01, low=1.002, high=1.02),
        _made("machine/septum-trip", family, "the electrostatic septum loses its voltage",
              ("septum.hv_rel", kind.DEAD, 0.0)),
        _made("machine/uncontrolled-beam", family, "extraction stuck on and chopper failed open",
              ("rfko.on", kind.SET, 1.0), ("chopper.open", kind.SET, 1.0)),
    ]  # fmt: skip


def _tiers() -> list[FaultType]:
    return [
        _made("tier/front-end-frozen", Family.TIER, "the front end hangs: its outputs freeze, physics runs on",
              ("fe.freeze", FaultKind.SET, 1.0)),
        _made("tier/h-frozen", Family.TIER, "the fast interlock tier hangs: its outputs freeze, physics runs on",
              ("h.freeze", FaultKind.SET, 1.0)),
    ]  # fmt: skip


_LINK_WORDS = {
    LinkFault.DROP: "frames are lost", LinkFault.DUPLICATE: "frames arrive twice",
    LinkFault.REORDER: "frames change order",
    LinkFault.DELAY: "frames arrive too late", LinkFault.CORRUPT: "a bit of each frame is flipped",
    LinkFault.INSERT: "frames of a stranger come in between",
    LinkFault.MASQUERADE: "frames made without the link's key",
    LinkFault.MISADDRESS: "frames for another destination", LinkFault.FOREIGN: "frames of another facility",
    LinkFault.OLDER_BOOT: "frames of the boot before", LinkFault.REPLAY: "old frames are sent again",
}  # fmt: skip
WAYS = {"to-rack": "permits, from the safety controller to the rack", "from-rack": "images, from the rack"}


def _links() -> list[FaultType]:
    keyed = (VIRTUAL,), "the relay between real processes has no key to forge a boot with"
    found = []
    for way, direction in WAYS.items():
        for fault, words in _LINK_WORDS.items():
            targets, why_not = keyed if fault is LinkFault.OLDER_BOOT else (ALL, "")
            found.append(FaultType(f"link/{way}/{fault.value}", Family.LINK, f"safety link, {direction}: {words}",
                                   targets=targets, why_not=why_not))  # fmt: skip
    found.append(FaultType("link/partition", Family.LINK, "safety link: no frame arrives either way"))
    virtual = {"targets": (VIRTUAL,), "why_not": NO_HOOK}
    for name, words in (
        ("pause", "permit away, hold on: PAUSE"),
        ("abort", "both fall: ABORT"),
        ("hold", "both on: HOLD"),
    ):
        found.append(
            FaultType(f"link/relays/{name}", Family.LINK, f"relays of the rack's lines: {words}", **virtual)  # type: ignore[arg-type]
        )
    return found


def _processes() -> list[FaultType]:
    family = Family.PROCESS
    only_ca: tuple[Target, ...] = (CA, HIL)
    inside = (VIRTUAL,)
    return [
        FaultType("process/safety/crash", family, "the safety controller's process dies; a new one takes its place"),
        FaultType("process/safety/hang", family, "the safety controller's process stands still and runs on later"),
        FaultType("process/safety/restart", family, "the safety controller's end of the link is a new boot",
                  targets=inside, why_not="real processes are started by a person: see process/safety/crash"),
        FaultType("process/safety/memory", family, "a bit of the second evaluator's image flips", targets=inside,
                  why_not=NO_HOOK),
        FaultType("process/control/crash", family, "treatment control's process dies", targets=only_ca,
                  why_not=NO_PROCESS),
        FaultType("process/control/hang", family, "treatment control's process stands still", targets=only_ca,
                  why_not=NO_PROCESS),
        FaultType("process/control/silent", family, "treatment control vouches for nothing any more", targets=inside,
                  why_not=NO_HOOK),
        FaultType("process/control/memory", family, "the program in control's memory is changed", targets=inside,
                  why_not=NO_HOOK),
        FaultType("process/control/readback", family, "control reads back range shifters that are not the plan's",
                  targets=inside, why_not=NO_HOOK),
        FaultType("process/control/authority", family, "control has lost who started the delivery", targets=inside,
                  why_not=NO_HOOK),
        FaultType("process/plant/slow", family, "the plant falls behind its pace", "ms", 600.0, 100.0, 2000.0,
                  targets=inside, why_not="a real plant measures how late it is; stop it: process/plant/hang"),
        FaultType("process/plant/crash", family, "the plant's process dies, and the beam with it", targets=only_ca,
                  why_not=NO_PROCESS),
        FaultType("process/plant/hang", family, "the plant's process stands still", targets=only_ca,
                  why_not=NO_PROCESS),
    ]  # fmt: skip


def _operators() -> list[FaultType]:
    family = Family.OPERATOR
    return [
        FaultType("operator/console-silent", family, "the console sends no keep-alives any more"),
        FaultType("operator/early-start", family, "START before control is READY"),
        FaultType("operator/double-start", family, "START once more while the field is on"),
        FaultType("operator/pause-storm", family, "pauses and resumes, one after the other", "times", 5.0, 2.0, 20.0),
        FaultType("operator/reset-storm", family, "resets, one after the other, whatever stands", "times", 20.0, 2.0,
                  100.0),
        FaultType("operator/wrong-plan", family, "another plan is loaded while a field is on"),
        FaultType("operator/wrong-room", family, "the plan is loaded for a room that has no beam"),
    ]  # fmt: skip


def _rogues() -> list[FaultType]:
    ca = {"targets": (CA, HIL), "why_not": NO_PROCESS}
    rows = (
        ("rogue/writes", "a client writes what it likes into every PV", "", 0.0),
        ("rogue/signed-writes", "the same with stolen keys: signed commands in every role", "", 0.0),
        ("rogue/deaf", "a client subscribes to everything and stops reading", "times", 1.0),
        ("rogue/thousands-of-channels", "a client subscribes to everything many times over", "times", 20.0),
    )
    return [FaultType(name, Family.ROGUE, about, unit, typical, **ca) for name, about, unit, typical in rows]  # type: ignore[arg-type]


def _external() -> list[FaultType]:
    """What `rig.external.soft_devices` can do to the soft IOCs that stand for hardware."""
    ways = {"killed": "its IOC is killed; mended: started again",
            "stopped": "its IOC stands still; mended: it runs on",
            "stale": "its readback is not updated any more",
            "wrong": "it is off its set point, and says so"}  # fmt: skip
    devices = {
        "scan_x": ("scanning supply x", ways | {"alarm": "it is in alarm"}),
        "ic1_hv": ("voltage of chamber 1", ways),
    }
    why_not = "no device here is somebody else's"
    return [
        FaultType(f"external/{device}/{way}", Family.EXTERNAL, f"{title}: {words}", targets=(HIL,), why_not=why_not)
        for device, (title, named) in devices.items()
        for way, words in named.items()
    ]


CATALOGUE: MappingProxyType[str, FaultType] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            *_devices(), *_machine(), *_tiers(), *_links(), *_processes(), *_operators(), *_rogues(),
            *_external(),
        )
    }
)  # fmt: skip
"""Every fault by name, in the order of `ionctl fault list`."""


def fault_type(name: str, where: str = "") -> FaultType:
    """The entry of a name; UsageError with the names that are meant."""
    found = CATALOGUE.get(name)
    if found is None:
        raise no_such("fault.unknown", "fault", name, CATALOGUE, where, "ionctl fault list")
    return found


def plant_faults(entry: FaultType, value: float | None, at_ns: int, until_ns: int = FOREVER_NS) -> tuple[Fault, ...]:
    """What has to be injected into the plant for an entry of family device, machine or tier."""
    if not entry.parts:
        raise UsageError("fault.family", f"{entry.name} is no fault of the plant", "fault", f"it is a {entry.family}")
    chosen = entry.typical if value is None else value
    return tuple(
        Fault(point, kind, chosen if fixed is None else fixed, at_ns, until_ns) for point, kind, fixed in entry.parts
    )
