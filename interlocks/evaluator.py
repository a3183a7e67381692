"""The evaluator of tier P: interprets typed rules over a process image.  Pure; nothing here remembers anything.

Inputs are one list of floats: the image in the order of IMAGE, then what the controller knows by itself (OWN_INPUTS).
Every comparison is written so that NaN is bad.  `quiet_box` says within which values of the image a rule does not
change its mind, so that scans in between can be left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from interlocks.model import BEAT_MODULUS, BEAT_MS, Rule
from interlocks.own_inputs import OWN_INPUTS
from interlocks.process_image import INVALID, MAX_CODE, N_IMAGE, PLACE, STEPS, value_of

NS_PER_MS = 1_000_000
_KEPT_BOXES = 4096
"""Boxes whose codes are remembered: limits and masks are the same again and again."""
_GIVEN_UP = 0.9
"""Share of its slack that an excess lets its second input have while no layer is active."""
INPUT_PLACE: dict[str, int] = {**PLACE, **{name: N_IMAGE + k for k, name in enumerate(OWN_INPUTS)}}
"""Place of an input of tier P, by name."""
_FE_ACTIVE = INPUT_PLACE["fe.active"]
OWN_UNITS: tuple[str, ...] = tuple(OWN_INPUTS.values())
Inputs: TypeAlias = Sequence[float]
Box: TypeAlias = tuple[int, float, float]
"""Place of an input, lowest and highest of its values, or codes, within which nobody changes his mind."""


class Probe(NamedTuple):
    """A rule with the places of its inputs looked up."""

    rule: Rule
    places: tuple[int, ...]
    when: int
    """-1: always."""
    low: float
    """Lowest value that is good; -inf where the rule has no such limit."""
    high: float
    expected: float


class Judgement(NamedTuple):
    """One comparison: what was compared with what."""

    good: bool
    value: float
    limit: float


class BeatState(NamedTuple):
    """What is known of a heartbeat."""

    beats: int
    """Last count."""
    t_ns: int
    """When it was looked at."""
    alive_ns: int
    """Time up to which life is proven."""


def own_values(codes: Sequence[int]) -> list[float]:
    """The controller's own inputs as values: integers, ages in ns; what is not known is infinitely old."""
    return [
        (math.inf if code == INVALID else code / NS_PER_MS) if unit == "ms" else float(code)
        for code, unit in zip(codes, OWN_UNITS, strict=True)
    ]


def probe(rule: Rule) -> Probe:
    """Look the inputs of a rule of tier P up."""
    when = -1 if rule.when is None else INPUT_PLACE[rule.when]
    return probe_at(rule, tuple(INPUT_PLACE[name] for name in rule.inputs), when)


def probe_at(rule: Rule, places: tuple[int, ...], when: int = -1) -> Probe:
    """The rule on inputs that stand in these places."""
    low = -math.inf if rule.low is None else rule.low
    return Probe(rule, places, when, low, math.inf if rule.high is None else rule.high, rule.expected)


def beat(state: BeatState | None, value: float, t_ns: int) -> BeatState | None:
    """Follow a heartbeat that rises by one each BEAT_MS; None while there is none that is a number.

    The count itself says how long its source has lived, so its age hardly depends on how often one looks: beats that
    cover the time since the last look prove life up to now, fewer prove as many BEAT_MS as they are.
    """
    if not math.isfinite(value):
        return state
    count = int(value)
    if state is None:
        return BeatState(count, t_ns, t_ns)
    risen = (count - state.beats) % BEAT_MODULUS
    if risen >= BEAT_MODULUS // 2:  # fell: it proves nothing
        risen = 0
    lived_ns = round(risen * BEAT_MS * NS_PER_MS)
    covers = risen > 0 and lived_ns + round(BEAT_MS * NS_PER_MS) >= t_ns - state.t_ns + 1
    return BeatState(count, t_ns, t_ns if covers else min(t_ns, state.alive_ns + lived_ns))


def beat_age_ms(state: BeatState | None, value: float, t_ns: int) -> float:
    """How long the source has shown no life, ms; NaN if its count is none."""
    if state is None or not math.isfinite(value):
        return math.nan
    return (t_ns - state.alive_ns) / NS_PER_MS


def applies(it: Probe, inputs: Inputs) -> bool:
    """The rule's `when` does not say otherwise; NaN does not switch a rule off."""
    return it.when < 0 or inputs[it.when] != 0.0


def judge(it: Probe, inputs: Inputs, beat_age: float = math.nan) -> Judgement:
    """Compare, whether or not the rule applies; `beat_age` (ms) is what a rule of kind beat compares."""
    rule = it.rule
    a = inputs[it.places[0]]
    match rule.kind:
        case "digital":
            return _all_equal(it.expected, [inputs[place] for place in it.places])
        case "limit":
            return _within(it, a)
        case "beat":
            return _within(it, beat_age)
        case "either":
            b = inputs[it.places[1]]
            sound = math.isfinite(a) and math.isfinite(b)
            return Judgement(sound and it.expected in (a, b), a, it.expected)
        case _:
            return _pair(rule, a, inputs[it.places[1]])


def _all_equal(expected: float, values: list[float]) -> Judgement:
    """Several contacts that contradict each other have at least one that is not as it should be."""
    for value in values:
        if value != expected:
            return Judgement(False, value, expected)
    return Judgement(True, values[0], expected)


def _within(it: Probe, value: float) -> Judgement:
    low, high = it.low, it.high
    limit = low if value < low or high == math.inf else high
    return Judgement(low <= value <= high and math.isfinite(value), value, limit)


def _pair(rule: Rule, a: float, b: float) -> Judgement:
    if rule.kind == "equal":
        return Judgement(a == b, a, b)
    high, relative = rule.high or 0.0, rule.relative or 0.0
    value = a if rule.kind == "excess" else abs(a - b)
    limit = high + relative * (b if rule.kind == "excess" else max(abs(a), abs(b)))
    return Judgement(-math.inf < value <= limit < math.inf, value, limit)


def quiet_box(it: Probe, inputs: Inputs, good: bool) -> Iterator[Box]:
    """Places of inputs with the values, both ends included, within which the judgement stays what it is.

    A bad comparison pins everything it looked at, but for a limit: beyond it any value is as bad, and a noisy one would
    have to be looked at each millisecond; what it is, is shown at the next look.  A heartbeat that lives pins
    nothing: time alone makes it bad, and its count says when it stopped.  A rule that does not apply minds either that
    it may apply again or, as if it did, what it compares, where that stands still for longer (`_as_if_it_applied`).
    """
    rule = it.rule
    if rule.kind == "beat" and good:
        return
    if it.when >= 0 and inputs[it.when] == 0.0 and not (good and _as_if_it_applied(rule, inputs)):
        yield it.when, 0.0, 0.0
    elif not good and rule.kind == "limit" and math.isfinite(inputs[it.places[0]]):
        yield _beyond(it, inputs[it.places[0]])
        if it.when >= 0:
            yield it.when, inputs[it.when], inputs[it.when]
    elif not good:
        for place in (*it.places, *((it.when,) if it.when >= 0 else ())):
            yield place, inputs[place], inputs[place]
    elif rule.kind == "limit":
        yield it.places[0], it.low, it.high
    elif rule.kind == "excess":
        first, second = it.places
        a, b = inputs[first], inputs[second]
        least = _least(rule, a, b, _step(second), _layer_active(inputs))
        yield first, -MAX_CODE * _step(first), _pair(rule, a, least).limit
        yield second, least, MAX_CODE * _step(second)
    elif rule.kind == "mismatch":
        a, b = (inputs[place] for place in it.places)
        slack = _slack(rule, a, b)
        yield it.places[0], a - slack, a + slack
        yield it.places[1], b - slack, b + slack
    else:
        for place in it.places:
            yield place, inputs[place], inputs[place]


def _beyond(it: Probe, value: float) -> Box:
    """Where the first input is beyond the limit that `value` is beyond."""
    place, rule = it.places[0], it.rule
    if rule.high is not None and value > rule.high:
        return place, math.nextafter(rule.high, math.inf), MAX_CODE * _step(place)
    low = value if rule.low is None else math.nextafter(rule.low, -math.inf)
    return place, -MAX_CODE * _step(place), low


def _layer_active(inputs: Inputs) -> bool:
    """A layer is armed, irradiating, held or paused: what is set for a layer stands, what it is given grows."""
    return inputs[_FE_ACTIVE] != 0.0


def _as_if_it_applied(rule: Rule, inputs: Inputs) -> bool:
    """Whether what a rule compares is likely to stand still for longer than the rule does not apply.

    Limits and contacts as a rule do; tokens do within a layer, and are given anew between two.
    """
    return rule.kind in ("limit", "digital") or (rule.kind == "equal" and _layer_active(inputs))


def _least(rule: Rule, a: float, b: float, step: float, active: bool) -> float:
    """The lowest second input of an excess that its box allows, of all those for which ``a`` is good.

    Within a layer the first grows and the second stands: a step below ``b``, since what rounds to it may lie below.
    Between two layers the first stands and the second is given anew: most of the way to where ``a`` would be bad.
    """
    relative = rule.relative or 0.0
    if not active and relative > 0.0:
        least = b - _GIVEN_UP * (_pair(rule, a, b).limit - a) / relative
        if least < b - step and _pair(rule, a, least).good:
            return least
    return b - step if _pair(rule, a, b - step).good else b


def _step(place: int) -> float:
    """Resolution of an input; of what the safety controller knows by itself, any."""
    return STEPS[place] if place < N_IMAGE else 1.0


def _slack(rule: Rule, a: float, b: float) -> float:
    """How far both inputs may move without the comparison turning bad."""
    result = _pair(rule, a, b)
    return 0.99 * (result.limit - result.value) / (2.0 + (rule.relative or 0.0))


@lru_cache(maxsize=_KEPT_BOXES)
def code_box(box: Box) -> Box:
    """A box of values as one of codes: place, lowest and highest code, both ends included.

    A signal that is NaN has no inside: low above high.
    """
    place, lowest, highest = box
    low = _first_inside(lowest, place) if lowest == lowest else math.inf
    high = -_first_inside(-highest, place) if highest == highest else -math.inf
    return place, low, high


def code_limits(boxes: Iterable[Box]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intersection of boxes of codes as lowest and highest value of each image signal, in units of its resolution.

    The ends are half a unit less a hundredth outside the last code that is inside, so that a value that rounds to a
    code inside does not wake anybody.  Both are NaN for a signal that was NaN: it wakes by becoming a number.
    """
    low, high = [-math.inf] * N_IMAGE, [math.inf] * N_IMAGE
    never = set()
    for place, lowest, highest in boxes:
        if lowest > low[place]:
            low[place] = lowest
        if highest < high[place]:
            high[place] = highest
        if lowest == math.inf and highest == -math.inf:
            never.add(place)
    for place in never:
        low[place] = high[place] = math.nan
    return np.array(low) - 0.49, np.array(high) + 0.49


def _first_inside(lowest: float, place: int) -> float:
    """Smallest code whose value is at least `lowest`."""
    if math.isinf(lowest):
        return lowest
    code = math.floor(lowest / STEPS[place])
    while value_of(code, place) < lowest:
        code += 1
    return float(code)
