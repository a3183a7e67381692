"""Writes the second evaluator of the safety controller: plain Python out of the canonical configuration.

What it reads is the canonical JSON of the resolved rules and the layout of the process image, nothing else: no typed
rule, no helper of the evaluator that interprets (`interlocks.evaluator`, `interlocks.scanner`, `interlocks.latch`).  It
works in integers throughout.  A limit becomes a code by exact rational arithmetic and is rounded to the safe side: a
low limit up, a high limit down, so that what lies between two codes is outside.

The same configuration gives the same text, byte for byte; its head carries the hash of what it was made from.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from facility.events import canonical_json
from facility.signals import IMAGE, SIGNALS

SCHEMA = "ionctl.second-evaluator/1"
_ACTIONS = {"INHIBIT": 1, "HOLD": 2, "PAUSE": 3, "ABORT": 4}
_ROLES = {"none": 0, "operator": 1, "physicist": 2}
_NS_PER_MS = Fraction(1_000_000)
_OWN_STEP = {"bool": Fraction(1), "code": Fraction(1), "count": Fraction(1), "ms": 1 / _NS_PER_MS}
"""Value of one unit of the integers in which the controller hands over what it knows by itself: ages are in ns."""


class Layout:
    """Where an input stands, and what one unit of its integer is worth.

    Args:
        own: names of the controller's own inputs with their units, in the order in which they follow the image.
    """

    def __init__(self, own: Mapping[str, str]) -> None:
        image = [SIGNALS[i] for i in IMAGE]
        self.image = len(image)
        self.place = {name: k for k, name in enumerate((*(signal.name for signal in image), *own))}
        steps = [*(Fraction(str(signal.resolution)) for signal in image), *(_OWN_STEP[unit] for unit in own.values())]
        self.step = dict(zip(self.place, steps, strict=True))
        table = [[name, str(self.step[name])] for name in self.place]
        self.sha256 = hashlib.sha256(canonical_json(table)).hexdigest()


def generate(canonical: bytes, own: Mapping[str, str], left_out: str = "") -> str:
    """The source for a rule set (`RuleSet.canonical`); `own` are the controller's own inputs with their units.

    Rules on the input `left_out` are judged by neither evaluator: it is what their comparison gives.
    """
    facility, _, _, rules = json.loads(canonical, parse_float=Fraction, parse_int=Fraction)
    layout = Layout(own)
    chosen = [rule for rule in rules if rule["tier"] != "H" and left_out not in rule["inputs"]]
    parts = [_head(facility, canonical, layout), _table(chosen, layout, own)]
    parts += [_judge(number, rule, layout) for number, rule in enumerate(chosen)]
    names = "".join(f"    judge_{number:03d},\n" for number in range(len(chosen)))
    parts += [f"JUDGES = (\n{names})", _limits(chosen, layout), _RUNTIME]
    return "\n\n".join(parts)


def _head(facility: str, canonical: bytes, layout: Layout) -> str:
    return f'''"""Interlocks of the safety controller of {facility}: generated, do not edit.

rules   sha256 {hashlib.sha256(canonical).hexdigest()}
layout  sha256 {layout.sha256}

Everything is an integer: codes of the process image, 0 and 1 for lines, ns for ages.  INVALID is no number and
satisfies nothing.  A judgement is True (good), False (bad), or None: exactly at a limit that is computed from two
values, where rounding decides and either is right.
"""

SCHEMA = "{SCHEMA}"
RULES_SHA256 = "{hashlib.sha256(canonical).hexdigest()}"
INVALID = -2147483648
IMAGE = {layout.image}
INPUTS = {len(layout.place)}'''


def _table(rules: Sequence[Any], layout: Layout, own: Mapping[str, str]) -> str:
    lines = []
    for rule in rules:
        latching = rule["latching"] and _ACTIONS[rule["action"]] >= _ACTIONS["PAUSE"]
        needs_image = not all(name in own for name in rule["inputs"])
        beat = layout.place[rule["inputs"][0]] if rule["kind"] == "beat" else None
        row = (
            rule["id"], -1 if rule["when"] is None else layout.place[rule["when"]], needs_image, latching,
            _ROLES[rule["reset"]], round(rule["debounce_us"] * 1000), beat,
            rule["standing"],
        )  # fmt: skip
        lines.append(f"    {row!r},\n")
    head = (
        "# id, place of `when` (-1: always), needs the image, latches, who resets, debounce ns, place of a heartbeat,\n"
        "# latches under a permit alone"
    )
    return f"{head}\nRULES = (\n{''.join(lines)})"


def _limits(rules: Sequence[Any], layout: Layout) -> str:
    lines = []
    for number, rule in enumerate(rules):
        place = layout.place[rule["inputs"][0]]
        if rule["kind"] == "limit" and place < layout.image:
            low, high = _ends(layout.step[rule["inputs"][0]], rule)
            lines.append(f"    ({number}, {place}, {low}, {high}),\n")
    return f"# number of a rule with limits of its own, place, lowest and highest code\nLIMITS = (\n{''.join(lines)})\n"


def _judge(number: int, rule: Any, layout: Layout) -> str:
    body = "".join(f"    {line}\n" for line in _lines(rule, layout))
    return f"def judge_{number:03d}(c, age):\n    # {rule['id']}: {rule['kind']} of {', '.join(rule['inputs'])}\n{body}"


def _lines(rule: Any, layout: Layout) -> Iterator[str]:
    names = rule["inputs"]
    codes = [f"c[{layout.place[name]}]" for name in names]
    steps = [layout.step[name] for name in names]
    kind = rule["kind"]
    if kind in ("digital", "either"):
        word = " and " if kind == "digital" else " or "
        yield f"return {_all_valid(codes)} and ({word.join(map(_equals, codes, steps, [rule['equals']] * len(codes)))})"
    elif kind == "beat":
        yield f"return age is not None and age <= {math.floor(rule['high'] * _NS_PER_MS)}"
    elif kind == "limit":
        yield f"return {_all_valid(codes)} and {_between(codes[0], steps[0], rule)}"
    elif kind == "equal":
        scale = math.lcm(*(step.denominator for step in steps))
        a, b = (_times(code, step * scale) for code, step in zip(codes, steps, strict=True))
        yield f"return {_all_valid(codes)} and {a} == {b}"
    else:
        yield from _pair(rule, codes, steps)


def _all_valid(codes: Sequence[str]) -> str:
    return " and ".join(f"{code} != INVALID" for code in codes)


def _equals(code: str, step: Fraction, wanted: Fraction) -> str:
    """A value between two codes is equalled by none."""
    exact = wanted / step
    return f"{code} == {exact.numerator}" if exact.denominator == 1 else "False"


def _between(code: str, step: Fraction, rule: Any) -> str:
    low, high = _ends(step, rule)
    return f"{'' if low is None else f'{low} <= '}{code}{'' if high is None else f' <= {high}'}"


def _ends(step: Fraction, rule: Any) -> tuple[int | None, int | None]:
    """Lowest and highest code inside the limits."""
    low = None if rule["low"] is None else math.ceil(rule["low"] / step)
    high = None if rule["high"] is None else math.floor(rule["high"] / step)
    return low, high


def _pair(rule: Any, codes: Sequence[str], steps: Sequence[Fraction]) -> Iterator[str]:
    """a <= relative x b + high, or |a - b| <= high + relative x the larger, in a unit that makes all integers."""
    relative = Fraction(rule["relative"] or 0)
    scale = math.lcm(*(value.denominator for value in (*steps, rule["high"])))
    a, b = (_times(code, step * scale) for code, step in zip(codes, steps, strict=True))
    high = _whole(rule["high"] * scale * relative.denominator)
    yield f"if not ({_all_valid(codes)}):"
    yield "    return False"
    yield f"a, b = {a}, {b}"
    left, larger = ("a", "b") if rule["kind"] == "excess" else ("abs(a - b)", "max(abs(a), abs(b))")
    yield f"left, right = {_times(left, relative.denominator)}, {high} + {_times(larger, relative.numerator)}"
    yield "return None if left == right else left < right"


def _times(code: str, factor: Fraction | int) -> str:
    return code if factor == 1 else f"{_whole(Fraction(factor))} * {code}"


def _whole(value: Fraction) -> int:
    return math.floor(value)


_RUNTIME = '''class Memory:
    """What is remembered: of the inputs, of every rule, of every heartbeat."""

    def __init__(self):
        count = len(RULES)
        self.codes = [INVALID] * INPUTS
        self.t_image = 0
        self.seen = False
        self.good = [False] * count
        self.armed = [False] * count
        self.present = [False] * count
        self.latched = [False] * count
        self.since = [None] * count
        self.masked = frozenset()
        self.beats = {}


def take(m, codes, t_ns):
    """A fresh image, taken at t_ns."""
    m.codes[:IMAGE] = codes
    m.t_image = t_ns
    m.seen = True
    for i, rule in enumerate(RULES):
        if rule[6] is not None and codes[rule[6]] != INVALID:
            m.beats[i] = beat(m.beats.get(i), codes[rule[6]], t_ns)


def beat(before, count, t_ns):
    """A heartbeat counts milliseconds of life, modulo 2^20: (count, looked at, alive until)."""
    if before is None:
        return count, t_ns, t_ns
    last, looked, alive = before
    lived = (count - last) & 0xFFFFF
    if lived >= 0x80000:
        lived = 0
    if lived and (lived + 1) * 1000000 > t_ns - looked:
        return count, t_ns, t_ns
    return count, t_ns, min(t_ns, alive + lived * 1000000)


def judge(m, own, fresh, now, first, permitted):
    """All rules over the last image and the controller's own inputs; `first` is asked where rounding decides."""
    m.codes[IMAGE:] = own
    c = m.codes
    for i, (_, when, needs_image, latches, _, debounce, heart, stands) in enumerate(RULES):
        if needs_image and m.seen and not fresh:
            continue
        age = None
        if heart is not None and i in m.beats and c[heart] != INVALID:
            age = m.t_image - m.beats[i][2]
        verdict = JUDGES[i](c, age)
        m.good[i] = first[i] if verdict is None else verdict
        if m.good[i] or (when >= 0 and c[when] == 0):
            m.armed[i], m.present[i], m.since[i] = True, False, None
            continue
        if m.since[i] is None:
            m.since[i] = now
        if now - m.since[i] >= debounce:
            m.present[i] = True
            trips = latches and m.armed[i] and i not in m.masked and (permitted or not stands)
            m.latched[i] = m.latched[i] or trips


def bypass(m, ids):
    """These rules latch no more, all others do."""
    m.masked = frozenset(i for i, rule in enumerate(RULES) if rule[0] in ids)


def boxes(m):
    """Lowest and highest code (None: no end) within which rules with limits that are good stay so."""
    return [(place, low, high) for i, place, low, high in LIMITS if m.good[i]]


def reset(m, rank):
    """Let go of what this rank may reset and what is not present."""
    for i, rule in enumerate(RULES):
        if rank >= rule[4] and not m.present[i]:
            m.latched[i] = False
'''
