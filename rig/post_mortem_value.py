"""What a rule compared, over the samples of a post-mortem: from the recorded inputs, or the scans, for a picture.

The judgement is the evaluator's and stands in the file; this shows how the quantity came to its limit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from interlocks.model import Rule
from rig.post_mortem_file import Recording
from rig.safety_scans_file import held


class Compared(NamedTuple):
    """A quantity with its limits, each float64 (n,); a side without a limit is None."""

    what: str
    value: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None


def compared(rule: Rule, found: Recording) -> Compared | None:
    """The quantity of a rule; None where its inputs are not in the file (what only the safety controller knows)."""
    names = set(found.table.schema.names)
    if not set(rule.inputs) <= names:
        return None
    a, b = found.column(rule.inputs[0]), found.column(rule.inputs[-1])
    if rule.window_us > 0.0 and rule.kind in ("window", "mismatch"):
        t_ns = found.column("t_ns")
        earlier = np.searchsorted(t_ns, t_ns - rule.window_us * 1000.0).clip(0)
        a, b = a - a[earlier], b - b[earlier]
    return _of_kind(rule, a, b)


def compared_in_scans(rule: Rule, scans: Recording, t_ns: np.ndarray) -> Compared | None:
    """The same of a rule of the safety controller, from its scans, at instants of its time (ns); None of another."""
    if f"{rule.id}.value" not in scans.table.schema.names:
        return None
    if rule.kind == "limit":
        return _of_kind(rule, held(scans, rule.inputs[0], t_ns), t_ns)
    return Compared(rule.inputs[0], held(scans, f"{rule.id}.value", t_ns), held(scans, f"{rule.id}.limit", t_ns), None)


def _of_kind(rule: Rule, a: np.ndarray, b: np.ndarray) -> Compared | None:
    first, last, flat = rule.inputs[0], rule.inputs[-1], np.ones(len(a))
    match rule.kind:
        case "limit" | "window":
            what = first if rule.kind == "limit" else f"{first}, increment over {rule.window_us / 1000.0:g} ms"
            return Compared(what, a, _level(rule.low, flat), _level(rule.high, flat))
        case "digital" | "either":
            return Compared(first, a, rule.expected * flat, None)
        case "equal":
            return Compared(f"{first} against {last}", a, b, None)
        case "excess":
            return Compared(first, a, None, (rule.relative or 0.0) * b + (rule.high or 0.0))
        case "mismatch":
            limit = (rule.high or 0.0) + (rule.relative or 0.0) * np.maximum(np.abs(a), np.abs(b))
            span = f" over {rule.window_us / 1000.0:g} ms" if rule.window_us > 0.0 else ""
            return Compared(f"|{first} - {last}|{span}", np.abs(a - b), None, limit)
        case _:
            return Compared(first, a, None, None)


def _level(value: float | None, flat: np.ndarray) -> np.ndarray | None:
    return None if value is None else value * flat
