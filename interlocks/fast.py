"""The fast evaluator (tier H): what the rack compiles into its 10 us tick, beside the delivery front end.

Rules are rows of ``RULE_DTYPE``; ``interlocks.rules`` makes them from ``configs/interlocks.toml``.  Everything a rule
needs and everything it remembers is in its row, so that a snapshot of the rows is a snapshot of the evaluator.

A condition is *bad* at a tick if the signals say so; it is *present* once it has been bad for ``debounce`` ticks in
one piece (0 and 1: at once); a rule with ``latching`` set stays *latched* until ``reset``.  Every comparison is
written so that NaN and infinity are bad.  No allocation, no division, no exception.

Most ticks change nothing that a rule could mind.  Of the signals, the first ``N_FAST`` change from tick to tick and the
others are quiet.  While no rule is bad, a tick is done once the rules that look at a fast signal or at a window stand
within their limits (the *screen*) and no quiet signal has changed since all rules were judged; anything else, a
not-a-number among it, has all rules judged.  What is found and when is the same as if all were judged each tick.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from facility.jit import kernel
from facility.signals import N_FAST

HIST_LEN = 16_384
"""Places of the history ring of a windowed signal, one for each 10 us tick; a power of two."""
MAX_RULES = 60
"""The masks of latched and present rules travel as two words of 30 bits."""
TICK_US = 10.0
TICK_NS = 10_000
NEVER_NS = int(np.iinfo(np.int64).max)
NO_LIMIT = float(np.finfo(np.float64).max)

DIGITAL = 0
"""a == lo"""
LIMIT = 1
"""lo <= a <= hi"""
WINDOW = 2
"""lo <= increment of a over the window <= hi"""
EXCESS = 3
"""a <= rel * b + hi"""
EQUAL = 4
"""a == b"""
MISMATCH = 5
"""|va - vb| <= hi + rel * max(|va|, |vb|); increments over the window where there is one"""
EITHER = 6
"""a == lo or b == lo"""
STALE = 7
"""a has changed within the last ``window`` ticks"""

KINDS = {
    "digital": DIGITAL,
    "limit": LIMIT,
    "window": WINDOW,
    "excess": EXCESS,
    "equal": EQUAL,
    "mismatch": MISMATCH,
    "either": EITHER,
    "stale": STALE,
}

RULE_DTYPE = np.dtype(
    [
        # Read every tick.  The first five kinds ask one question, lo <= va - rel * vb <= hi, so that no branch tells
        # them apart: DIGITAL has hi = lo, EQUAL rel 1 and limits 0; without b, b is a.  A side without a limit has
        # NO_LIMIT, the largest finite number, so that infinity is outside of it.
        ("kind", "i8"),
        ("when", "i8"),  # index of the signal that must not be zero for the rule to apply, -1: always
        ("a", "u8"),  # index of the first signal; unsigned indices need no check for counting from the end
        ("b", "u8"),  # index of the second signal
        ("lo", "f8"),
        ("hi", "f8"),
        ("rel", "f8"),
        ("windowed", "i8"),  # 1: compare increments over the window
        ("hist_a", "u8"),  # column of the history ring
        ("hist_b", "u8"),
        ("window", "i8"),  # ticks, 0: no window
        # the rest of the rule
        ("debounce", "i8"),  # ticks
        ("action", "i8"),  # facility.states.Action
        ("latching", "i8"),  # 0: in force while present and no longer
        # what it remembers
        ("count", "i8"),  # ticks the condition has been bad for
        ("changed_ns", "i8"),  # STALE: when it changed last; NEVER_NS: the rule does not apply
        ("present", "i8"),
        ("latched", "i8"),
        ("value", "f8"),  # value compared when it was last present; STALE: us without a change
        ("limit", "f8"),  # the limit it was compared with then
        ("bad_value", "f8"),  # value at the trip
        ("bad_limit", "f8"),  # limit at the trip
        ("t_condition_ns", "i8"),  # when the condition became present
        ("t_decision_ns", "i8"),  # when the evaluator said so
        ("last", "f8"),  # STALE: last value seen
    ],
    align=True,
)

SCREEN_DTYPE = np.dtype(
    [(name, "u8") for name in ("a", "b")]
    + [(name, "f8") for name in ("lo", "hi", "rel")]
    + [(name, "i8") for name in ("when", "window")]
    + [(name, "u8") for name in ("hist_a", "hist_b")],
    align=True,
)
"""What the screen needs of a rule; the names are those of ``RULE_DTYPE``."""
PLAIN, WINDOWED, BOTH = 0, 1, 2
"""Parts of the screen: limits of a value, limits of an increment, mismatch."""

LATCHED, PRESENT, FIRST, IN_FORCE, BUSY, DUE_NS, JUDGED = 0, 1, 2, 3, 4, 5, 6
"""Places of the latch vector: masks of latched and of present rules, first rule that latched (-1: none), action in
force, mask of rules that were bad at the last tick, when time alone makes a rule bad, how often all were judged."""


def new_latch() -> Any:
    """A latch vector with nothing in it."""
    return np.array([0, 0, -1, 0, 0, 0, 0], dtype=np.int64)


def new_seen(signals: int) -> Any:
    """Quiet signals as they were when all rules were judged last: never yet."""
    return np.full(signals, np.nan)


def new_screen(rows: Any) -> tuple[Any, Any]:
    """The screen of these rules and the lengths of its parts, in the order PLAIN, WINDOWED, BOTH."""
    parts: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for row in rows:
        looks_at = [row["a"], row["b"], *([row["when"]] if row["when"] >= 0 else [])]
        if row["windowed"] == 0 and min(looks_at) >= N_FAST:
            continue  # at quiet signals only
        entry = np.zeros(1, SCREEN_DTYPE)[0]
        for name in SCREEN_DTYPE.names or ():
            entry[name] = row[name]
        if row["kind"] > MISMATCH:
            entry["lo"], entry["hi"] = 1.0, 0.0  # not for a screen: never passes
        parts[BOTH if row["kind"] == MISMATCH else WINDOWED if row["windowed"] else PLAIN].append(entry)
    return np.array([*parts[0], *parts[1], *parts[2]], SCREEN_DTYPE), np.array([len(part) for part in parts], np.int64)


def new_history(signals: int) -> tuple[Any, Any]:
    """An empty history ring for that many windowed signals, and its state (position, valid length)."""
    return np.zeros((HIST_LEN, max(signals, 1))), np.zeros(2, dtype=np.int64)


@kernel
def _inside(rule: Any, va: Any, vb: Any) -> bool:
    """Compare ``va - rel * vb`` with the limits: DIGITAL, LIMIT, WINDOW, EXCESS, EQUAL."""
    return bool(rule["lo"] <= va - rule["rel"] * vb <= rule["hi"])


@kernel
def _agrees(rule: Any, va: Any, vb: Any) -> bool:
    """Compare two values that should be the same: MISMATCH."""
    return bool(abs(va - vb) - (rule["hi"] + rule["rel"] * max(abs(va), abs(vb))) <= 0.0)  # inf - inf is bad too


@kernel
def _either(rule: Any, va: Any, vb: Any) -> bool:
    """One of two values is as it should be, and both are finite: EITHER."""
    return bool((va == rule["lo"] or vb == rule["lo"]) and va - va == 0.0 and vb - vb == 0.0)


@kernel
def _alive(rule: Any, va: Any, t_ns: int, dt_ticks: int) -> bool:
    """A value that must keep changing: false if it has not for more than ``window`` ticks, or is NaN."""
    if rule["changed_ns"] == NEVER_NS:  # the rule did not apply until now
        rule["changed_ns"] = t_ns - dt_ticks * TICK_NS
    if va != rule["last"]:
        rule["changed_ns"] = t_ns
        rule["last"] = va
    return bool(va == va and t_ns - rule["changed_ns"] <= rule["window"] * TICK_NS)


@kernel
def _describe(rule: Any, va: Any, vb: Any, t_ns: int) -> None:
    """Write down what a bad rule compared with what."""
    kind = rule["kind"]
    rule["value"] = va
    if kind == STALE:
        rule["value"] = (t_ns - rule["changed_ns"]) * 1e-3
        rule["limit"] = rule["window"] * TICK_US
    elif kind == MISMATCH:
        rule["value"] = abs(va - vb)
        rule["limit"] = rule["hi"] + rule["rel"] * max(abs(va), abs(vb))
    else:
        offset = rule["rel"] * vb if rule["rel"] != 0.0 else 0.0  # without b, b is a, which may be NaN
        rule["limit"] = (rule["lo"] if va - offset < rule["lo"] else rule["hi"]) + offset


@kernel
def _bad(rule: Any, va: Any, vb: Any, t_ns: int, dt_ticks: int) -> int:
    """The condition is bad at this tick: count, become present, latch.  0 not present, 1 present, 2 latched now."""
    rule["count"] += dt_ticks
    if rule["count"] < rule["debounce"]:
        return 0
    _describe(rule, va, vb, t_ns)
    rule["present"] = 1
    if rule["latching"] == 0 or rule["latched"] != 0:
        return 1
    rule["latched"] = 1
    rule["bad_value"] = rule["value"]
    rule["bad_limit"] = rule["limit"]
    rule["t_condition_ns"] = t_ns
    rule["t_decision_ns"] = t_ns
    return 2


@kernel
def _stronger(rule: Any, action: int) -> int:
    """``action``, or that of a rule that is latched or present if it is stronger."""
    if (rule["latched"] != 0 or rule["present"] != 0) and rule["action"] > action:
        return int(rule["action"])
    return action


@kernel
def evaluate(
    rules: Any, screen: Any, parts: Any, seen: Any, sig: Any, hist: Any, hist_state: Any, hist_index: Any, latch: Any,
    t_ns: int, dt_ticks: int, published: bool,
) -> int:  # fmt: skip
    """Judge the signals of the tick that ends at ``t_ns`` and return the action in force.

    ``published`` says that quiet signals may have been written since the last tick; it is so once a millisecond.

    On a fine tick (``dt_ticks`` 1) the windowed signals go into the history ring first; on a coarse one (100, no beam
    possible) increments count as zero, or NaN where a signal is not finite.  While the ring is filling, a window
    reaches back to its first value.  A rule whose ``when`` is zero forgets count and presence, never a latch.

    One long function on purpose: an array handed to another function costs two atomic operations a call.
    """
    fine = dt_ticks == 1
    pos = hist_state[0]
    reach = hist_state[1] - 1
    if fine:
        pos = (pos + 1) & (HIST_LEN - 1)
        reach = min(reach + 1, HIST_LEN - 1)
        for k in range(hist_index.shape[0]):
            hist[pos, k] = sig[hist_index[k]]
        hist_state[0] = pos
        hist_state[1] = reach + 1
        if latch[BUSY] == 0 and t_ns < latch[DUE_NS]:
            quiet = True
            if published:
                for i in range(N_FAST, sig.shape[0]):
                    if sig[i] != seen[i]:
                        quiet = False
                        break
            first = parts[PLAIN]
            last = first + parts[WINDOWED]
            if quiet:
                for i in range(first):
                    row = screen[i]
                    value = sig[row["a"]] - row["rel"] * sig[row["b"]]
                    if not (row["lo"] <= value <= row["hi"]) and (row["when"] < 0 or sig[row["when"]] != 0.0):
                        quiet = False
                        break
            if quiet:
                for i in range(first, last):
                    row = screen[i]
                    place = (pos - min(row["window"], reach)) & (HIST_LEN - 1)
                    va = sig[row["a"]] - hist[place, row["hist_a"]]
                    vb = sig[row["b"]] - hist[place, row["hist_b"]]
                    value = va - row["rel"] * vb
                    if not (row["lo"] <= value <= row["hi"]) and (row["when"] < 0 or sig[row["when"]] != 0.0):
                        quiet = False
                        break
            if quiet:
                for i in range(last, last + parts[BOTH]):
                    row = screen[i]
                    va = sig[row["a"]]
                    vb = sig[row["b"]]
                    if row["window"] > 0:
                        place = (pos - min(row["window"], reach)) & (HIST_LEN - 1)
                        va -= hist[place, row["hist_a"]]
                        vb -= hist[place, row["hist_b"]]
                    value = abs(va - vb) - (row["hi"] + row["rel"] * max(abs(va), abs(vb)))
                    if not (value <= 0.0) and (row["when"] < 0 or sig[row["when"]] != 0.0):
                        quiet = False
                        break
            if quiet:
                return int(latch[IN_FORCE])
    for i in range(N_FAST, sig.shape[0]):
        seen[i] = sig[i]
    latch[JUDGED] += 1
    before = latch[BUSY]
    busy = 0
    present = 0
    bit = 1
    due_ns = NEVER_NS
    for i in range(rules.shape[0]):
        rule = rules[i]
        kind = rule["kind"]
        when = rule["when"]
        va = sig[rule["a"]]
        vb = sig[rule["b"]]
        if rule["windowed"] != 0:
            if fine:
                place = (pos - min(rule["window"], reach)) & (HIST_LEN - 1)
                va -= hist[place, rule["hist_a"]]
                vb -= hist[place, rule["hist_b"]]
            else:
                va -= va
                vb -= vb
        if when >= 0 and sig[when] == 0.0:
            good = True
            rule["changed_ns"] = NEVER_NS
        elif kind < MISMATCH:
            good = _inside(rule, va, vb)
        elif kind == MISMATCH:
            good = _agrees(rule, va, vb)
        elif kind == STALE:
            good = _alive(rule, va, t_ns, dt_ticks)
            due_ns = min(due_ns, rule["changed_ns"] + (rule["window"] + 1) * TICK_NS)
        else:
            good = _either(rule, va, vb)
        if not good:
            busy |= bit
            outcome = _bad(rule, va, vb, t_ns, dt_ticks)
            if outcome > 0:
                present |= bit
            if outcome == 2:
                latch[LATCHED] |= bit
                if latch[FIRST] < 0:
                    latch[FIRST] = i
        elif before & bit != 0:
            rule["count"] = 0
            rule["present"] = 0
        bit <<= 1
    latch[BUSY] = busy
    latch[PRESENT] = present
    latch[DUE_NS] = due_ns
    action = 0
    if present != 0 or latch[LATCHED] != 0:
        for i in range(rules.shape[0]):
            action = _stronger(rules[i], action)
    latch[IN_FORCE] = action
    return action


@kernel
def reset(rules: Any, latch: Any, mask: int) -> int:
    """Let go of the latches in ``mask`` whose condition is not present; returns the mask of those that stay latched.

    The first fault is kept until nothing is latched.
    """
    latched = 0
    action = 0
    bit = 1
    for i in range(rules.shape[0]):
        rule = rules[i]
        if mask & bit != 0 and rule["present"] == 0:
            rule["latched"] = 0
        if rule["latched"] != 0:
            latched |= bit
        action = _stronger(rule, action)
        bit <<= 1
    latch[LATCHED] = latched
    if latched == 0:
        latch[FIRST] = -1
    latch[IN_FORCE] = action
    return latched
