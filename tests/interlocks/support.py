"""A rack and a console as the interlocks see them: signals that are as they should be, and signed frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from channels.command import Command
from channels.keepalive import KeepAliveMaker
from channels.keys import derived_private_key
from facility.config import Facility, load_facility
from facility.ids import field_number
from facility.signals import INDEX, N_FAST, N_SIGNALS
from interlocks import fast, process_image
from interlocks.controller import Console, SafetyController
from interlocks.link import PermitCommand
from interlocks.process_image import NO_FAULT, FastFault
from interlocks.rules import FastRules, RuleSet, load_rules, rules_from_toml
from interlocks.second import complement_of
from interlocks.snapshot import Mode

MS = 1_000_000
TICK = 10_000
FILE = Path(__file__).parents[2] / "configs" / "interlocks.toml"
TEXT = FILE.read_text(encoding="utf-8")

GOOD: dict[str, float] = {
    "fe.state": 3.0, "fe.token": 7.0, "fe.demand": 1.0, "fe.active": 1.0, "fe.spot": 0.0, "fe.level": 1e8,
    "fe.spot_target_ions": 1e6, "fe.spot_ic1_ions": 5e5, "fe.spot_ic2_ions": 5e5,
    "fe.spot_beam_us": 5e3, "fe.spot_limit_us": 5e4,
    "ic1.hv_rel": 1.0, "ic2.hv_rel": 1.0, "ic1.ok": 1.0, "ic2.ok": 1.0, "ic1.layer_ions": 1e8, "ic2.layer_ions": 1e8,
    "strip.valid": 1.0, "strip.ok": 1.0, "scan.due": 1.0, "scan.ok": 1.0, "external.ok": 1.0,
    "ring.phase": 6.0, "ring.flat_top": 1.0, "ring.token": 7.0, "hebt.token": 7.0, "ring.brho_rel": 1.0,
    "ring.ions": 1e9, "spill.cmd": 1.0, "rfko.on": 1.0,
    "door.a_closed": 1.0, "door.b_closed": 1.0, "search.a_done": 1.0, "search.b_done": 1.0, "room.tokens": 1.0,
    "estop.a_ok": 1.0, "estop.b_ok": 1.0, "gate.open": 1.0,
    "key.a": 1.0, "key.b": 1.0, "link.p_ok": 1.0, "p.permit": 1.0, "h.permit": 1.0, "h.first": -1.0,
    "rf.frequency_rel": 1.0, "hebt.dipole_rel": 1.0, "hebt.quad_rel": 1.0, "septum.hv_rel": 1.0,
    "bump.current_rel": 1.0, "ic1.ktp": 1.0, "ic2.ktp": 1.0, "gas.flow_rel": 1.0, "cooling.flow_rel": 1.0,
    "cooling.temperature_c": 25.0, "vacuum.ring_mbar": 1e-9, "vacuum.hebt_mbar": 1e-7, "loss.hebt_usv_h": 1.0,
    "stray.room_usv_h": 50.0, "area.dose_usv_h": 0.1, "ups.ok": 1.0, "intercom.ok": 1.0, "guard.a_clear": 1.0,
    "guard.b_clear": 1.0, "gate.source_ok": 1.0, "ripple.code": 1.0, "ripple.plan_code": 1.0, "timing.token": 7.0,
    "backup.layer_ions": 1e8, "backup.ok": 1.0, "backup.rel": 1.0, "layer.preset_ions": 2e8, "timer.layer_ms": 1000.0,
    "backup.field_ions": 1e9, "ic2.field_ions": 1e9, "field.preset_ions": 2e9, "timer.field_ms": 1e4,
    "field.expected_ms": 2e4,
    "timer.expected_ms": 2000.0, "rate.rel": 1.0, "strip.width_x_rel": 1.0, "strip.width_y_rel": 1.0,
    "strip.sum_rel": 1.0, "off.confirmed": 1.0, "quad.obeys": 1.0, "chopper.obeys": 1.0, "rfko.obeys": 1.0,
    "dump.obeys": 1.0,
}  # fmt: skip


OWN = [1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 0]
"""The controller's own inputs when all is well, in the order of OWN_INPUTS."""


def good_signals() -> NDArray[np.float64]:
    """A rack that delivers without anything wrong, in room 0."""
    signals = np.zeros(N_SIGNALS)
    for name, value in GOOD.items():
        signals[INDEX[name]] = value
    return signals


def wuwei() -> Facility:
    return load_facility("wuwei")


def rule_set(facility: str = "wuwei", species: str = "carbon") -> RuleSet:
    loaded = load_facility(facility)
    return load_rules(loaded, next(iter(loaded.rooms)), species)


def one_rule(body: str, link: str = "") -> RuleSet:
    """The rule set of a file with a single rule; `body` are TOML lines."""
    link = link or "period_ms = 1.0\nscan_ms = 1.0\nlatency_ms = 0.5\nwatchdog_ms = 10.0\nmax_age_ms = 5.0"
    return rules_from_toml(f'schema = "ionctl.interlocks/1"\n[link]\n{link}\n[[rule]]\n{body}', "wuwei", "carbon", 0)


def several(*bodies: str) -> RuleSet:
    """The rule set of a file with these rules, else as the real one."""
    rules = "".join(f"[[rule]]\n{text}\n" for text in bodies)
    return rules_from_toml(TEXT.split("[[rule]]")[0] + rules, "wuwei", "carbon", 0)


def body(**changes: object) -> str:
    """TOML lines of a sound rule with keys changed; None leaves a key out."""
    keys: dict[str, object] = {
        "id": "some-rule", "title": "Some rule", "hazard": "some hazard", "inputs": ["ring.brho_rel"], "kind": "limit",
        "low": 0.9, "high": 1.1, "unit": "1", "tier": "H", "action": "ABORT", "reset": "physicist", "bypass": "never",
        "citation": "default", "sigma": "none",
    }  # fmt: skip
    keys.update(changes)
    return "\n".join(f"{key} = {toml(value)}" for key, value in keys.items() if value is not None)


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(item) for item in value)}]"
    return repr(value) if not isinstance(value, str) else f'"{value}"'


class Rack:
    """The fast tier over a signal vector, tick by tick."""

    def __init__(self, rules: FastRules, evaluate: Any = fast.evaluate) -> None:
        self.rules = rules
        self.rows = rules.rows.copy()
        self.hist, self.hist_state = fast.new_history(len(rules.hist_index))
        self.latch = fast.new_latch()
        self.screen, self.parts = fast.new_screen(self.rows)
        self.seen = fast.new_seen(N_SIGNALS)
        self.signals = good_signals()
        self.t_ns = 0
        self.action = 0
        self.beating = True
        self._evaluate = evaluate

    def tick(self, count: int = 1, **changes: float) -> int:
        """Fine ticks with signals set first (dots written as double underscores)."""
        self.set(**changes)
        for _ in range(count):
            self._run(1)
        return self.action

    def coarse(self, count: int = 1) -> int:
        for _ in range(count):
            self._run(100)
        return self.action

    def _run(self, dt: int) -> None:
        if self.beating and (self.t_ns + dt * TICK) // MS > self.t_ns // MS:
            self.signals[INDEX["fe.heartbeat"]] += 1.0
        self.t_ns += dt * TICK
        with np.errstate(invalid="ignore", over="ignore"):
            self.action = int(
                self._evaluate(
                    self.rows,
                    self.screen,
                    self.parts,
                    self.seen,
                    self.signals,
                    self.hist,
                    self.hist_state,
                    self.rules.hist_index,
                    self.latch,
                    self.t_ns,
                    dt,
                    # a rack publishes what has changed, and each millisecond
                    self.t_ns % MS == 0 or not np.array_equal(self.signals[N_FAST:], self.seen[N_FAST:]),
                )
            )

    def set(self, **changes: float) -> None:
        for name, value in changes.items():
            self.signals[INDEX[name.replace("__", ".")]] = value

    def latched(self) -> list[str]:
        return [rule_id for rule_id, row in zip(self.rules.ids, self.rows, strict=True) if row["latched"]]

    def present(self) -> list[str]:
        return [rule_id for rule_id, row in zip(self.rules.ids, self.rows, strict=True) if row["present"]]

    def row(self, rule_id: str) -> Any:
        return self.rows[self.rules.ids.index(rule_id)]


KEY = derived_private_key(1, "console")
CONTROL_KEY = derived_private_key(1, "control")
CONTROL = Console("control", CONTROL_KEY.public_key())


class Safety:
    """A safety controller with a live console and a rack that obeys."""

    def __init__(self, rules: RuleSet | None = None, mode: Mode = Mode.CLINICAL) -> None:
        self.rules = rules or rule_set()
        self.t_ns = 0
        self.maker = KeepAliveMaker("console", 1, KEY, self)
        self.control = KeepAliveMaker("control", 1, CONTROL_KEY, self)
        self.console = Console("console", KEY.public_key())
        self.controller = SafetyController(self.rules, mode, self.console, 0, control=CONTROL)
        self.signals = good_signals()
        self.fault: FastFault = NO_FAULT
        self.link_ok = True
        self.rack_boot: int | None = None
        """Which start of the rack is heard."""
        self.beats = True
        self.speaks = True
        self.vouches: int | None = 0b1111
        """Lines that control sends; None: it is silent."""
        self.out = PermitCommand(False, False, 0, 0)
        self._nonce = 0
        self._said_ns = self._vouched_ns = -(10**12)

    def now_ns(self) -> int:
        return self.t_ns

    def set(self, **changes: float) -> None:
        for name, value in changes.items():
            self.signals[INDEX[name.replace("__", ".")]] = value

    def advance(self) -> None:
        """A millisecond of the rack and the console."""
        self.t_ns += MS
        if self.beats:
            for name in ("fe.heartbeat", "h.heartbeat"):
                self.signals[INDEX[name]] = (self.signals[INDEX[name]] + 1) % (1 << 20)
        if self.speaks and self.t_ns - self._said_ns >= 500 * MS:
            self._said_ns = self.t_ns
            self.controller.keep_alive(self.maker.make(), self.t_ns)
        if self.vouches is not None and self.t_ns - self._vouched_ns >= 500 * MS:
            self._vouched_ns = self.t_ns
            self.controller.lines(self.control.make(self.vouches), self.t_ns)

    def scan(self) -> PermitCommand:
        with np.errstate(invalid="ignore"):
            image = process_image.image_of(self.signals)
        copy = complement_of(process_image.pack(image), process_image.N_IMAGE)
        self.out = self.controller.scan(image, self.t_ns, self.t_ns, self.link_ok, self.fault, copy, self.rack_boot)
        return self.out

    def run(self, count: int = 1, **changes: float) -> PermitCommand:
        """Milliseconds with a scan each, signals set first."""
        self.set(**changes)
        for _ in range(count):
            self.advance()
            self.scan()
        return self.out

    def say(self, verb: str, role: str, **arguments: object) -> Any:
        self._nonce += 1
        command = Command(f"C-{self._nonce}", "somebody", role, self.t_ns, self._nonce, verb, arguments)
        result = self.controller.command(command, self.t_ns)
        if verb in ("open_field", "close_field") and result.status.value == "done":
            self.set(fe__field=float(field_number(self.controller.snapshot().session)))
        return result

    def resolve(self) -> None:
        """Account for a termination, if there was one, as a physicist must before the permit comes again."""
        if not self.controller.snapshot().unresolved:
            return
        result = self.say("resolve", "physicist", session=self.controller.snapshot().session, words="a test")
        if result.status.value != "done":
            raise AssertionError(result)
        self.run()

    def close(self) -> None:
        """The layer is over, and so is the field."""
        self.run(1, fe__active=0.0)
        result = self.say("close_field", "operator", session=self.controller.snapshot().session)
        if result.status.value != "done":
            raise AssertionError(result)

    def release(self) -> None:
        """Run until everything is good, and reset."""
        self.run(3)
        result = self.say("reset", "physicist")
        if result.status.value != "done":
            raise AssertionError(result)
        self.run(2)
        if not self.out.permit:
            raise AssertionError(self.controller.snapshot())

    def latched(self) -> list[str]:
        return [view.rule.id for view in self.controller.snapshot().latched]

    def view(self, rule_id: str) -> Any:
        return next(view for view in self.controller.snapshot().rules if view.rule.id == rule_id)
