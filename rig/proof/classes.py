"""Rules reduced to one for each class, and the proof that this loses nothing.

What a rule leads to depends on its class alone once its comparison has been made: `interlocks.latch.step` is given the
class (`LatchSpec`) and never the rule, and `interlocks.fast.evaluate` reads of a row, after the comparison, only
action, latching and debounce.  Two rules of one class are as one whose cause is either's: the strongest action in
force, the inhibition and the masks are a maximum, an OR and a set.
`tests/rig/test_proof.py` checks both on the real rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from facility.states import Action
from interlocks.latch import LatchSpec
from interlocks.model import Role, Rule
from interlocks.own_inputs import OWN_INPUTS

TICK_US = 10.0
DEBOUNCE_TICKS = 2


class Class(NamedTuple):
    """What distinguishes rules once they have been compared."""

    tier: str
    action: Action
    latching: bool
    reset: Role
    debounced: bool
    standing: bool = False


def class_of(rule: Rule) -> Class:
    """The class of a rule."""
    reset: Role = rule.reset if rule.latches else "none"
    return Class(rule.tier, rule.strength, rule.latches, reset, rule.debounce_us > 0.0, rule.standing)


def members(rules: Iterable[Rule]) -> dict[Class, list[Rule]]:
    """Rules by class, in the order of the file; echoes are left out, they are explored as they are."""
    found: dict[Class, list[Rule]] = {}
    for rule in rules:
        if not rule.is_echo:
            found.setdefault(class_of(rule), []).append(rule)
    return found


def spec_of(kind: Class, tick_ns: int) -> LatchSpec:
    """The latch of a class, its debounce as short as one step."""
    return LatchSpec(kind.action, kind.latching, kind.reset, tick_ns if kind.debounced else 0, kind.standing)


def own_only(rule: Rule) -> bool:
    """It looks at nothing but what the safety controller knows by itself."""
    return all(name in OWN_INPUTS for name in rule.inputs)


def fast_stand_ins(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The echoes as they are, and a contact in place of each other class of tier H; made of the real rules.

    Who may reset is no matter of the rack: it lets go of what the link says.
    """
    rules = [rule for rule in rules if rule.tier == "H"]
    kept = [rule for rule in rules if rule.is_echo]
    of_rack: dict[Class, list[Rule]] = {}
    for kind, group in members(rules).items():
        of_rack.setdefault(kind._replace(reset="none"), []).extend(group)
    inputs = iter(("ic1.ok", "ic2.ok", "scan.ok", "strip.ok", "gate.open", "door.a_closed", "door.b_closed"))
    for kind, group in of_rack.items():
        contact = {
            "kind": "digital", "inputs": (next(inputs),), "equals": 1.0, "low": None, "high": None, "relative": None,
            "when": None, "window_us": 0.0, "debounce_us": DEBOUNCE_TICKS * TICK_US if kind.debounced else 0.0,
        }  # fmt: skip
        kept.append(group[0].model_copy(update=contact))
    return tuple(kept)
