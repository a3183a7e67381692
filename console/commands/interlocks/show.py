"""`ionctl interlocks show RULE`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from console.commands.interlocks.common import at_s, bound_words, ms, open_desk
from console.options import FACILITY, JSON, ROOM, SPECIES
from console.settings import Settings

if TYPE_CHECKING:
    from console.commands.interlocks.common import Desk
    from interlocks.model import Rule
    from rig.interlock_desk import LiveRule

_BYPASS = {
    "never": "never",
    "qa": "in mode qa or service, by a physicist, for a limited time",
    "service": "in mode service, by a physicist, for a limited time",
}


@click.command()
@click.argument("rule_id", metavar="RULE")
@FACILITY
@ROOM
@SPECIES
@JSON
@click.pass_obj
def show(
    settings: Settings, rule_id: str, facility_name: str, room: str | None, species: str | None, as_json: bool
) -> None:
    """Explain one rule: what it protects from, why it is tripped now, what must happen before it is reset."""
    from console.tables import print_json, print_wrapped

    desk = open_desk(settings, facility_name, room, species)
    rule = desk.rules.rule(rule_id)
    now = None if desk.live is None else desk.live.rules[rule.id]
    if as_json:
        print_json(_data(desk, rule, now))
        return
    print_wrapped("", f"{rule.title} ({rule.id}), tier {rule.tier}, {rule.action}: {desk.title}")
    before = ""
    for title, words in _lines(desk, rule, now):
        print_wrapped(f"  {'' if title == before else title:<14} ", words)
        before = title


def _lines(desk: Desk, rule: Rule, now: LiveRule | None) -> Iterator[tuple[str, str]]:
    from interlocks.explain import before_reset, bound, condition, consequence, looks_at

    promised = bound(rule, desk.rules, desk.facility)
    degraded_us = promised.observation_us + promised.decision_us + promised.degraded_us
    yield "protects from", rule.hazard
    yield "must hold", condition(rule)
    for name, words in looks_at(rule):
        yield "looks at", f"{name}: {words}"
    yield "otherwise", consequence(rule)
    pace = "" if desk.speed is None else f", of facility time at speed {desk.speed:g}"
    if rule.action == "INHIBIT":
        late_us = promised.observation_us + promised.decision_us
        yield "beam off in", f"it takes no beam off; a permit is withheld {ms(late_us)} ms after the cause{pace}"
    else:
        yield "beam off in", f"{bound_words(rule, desk.rules, desk.facility)}{pace}; {_degraded(degraded_us)}"
    if desk.speed is None and (slower := _over_ca(desk, rule)):
        yield "over CA", slower
    yield "now", desk.absent if now is None else _now(rule, now)
    yield "reset", before_reset(rule, now is not None and now.present)
    yield "bypass", _bypass(rule, now, 0 if desk.live is None else desk.live.t_ns)
    yield "limit from", f"{rule.citation} ({rule.sigma})"


def _over_ca(desk: Desk, rule: Rule) -> str:
    """What is different where real processes are watched; empty where nothing is."""
    from interlocks.explain import bound, condition
    from rig.paced_rules import paced_rules

    paced = paced_rules(desk.rules, 1.0)
    same = paced.rule(rule.id)
    if bound(same, paced, desk.facility).total_us == bound(rule, desk.rules, desk.facility).total_us:
        return ""
    return f"{condition(same)}; beam off in {bound_words(same, paced, desk.facility)}, at speed 1"


def _degraded(us: float) -> str:
    return f"{ms(us)} ms with one device failed" if math.isfinite(us) else "no second device does it"


def _now(rule: Rule, now: LiveRule) -> str:
    """Why it is tripped: value, limit, since when; or how it stands."""
    from interlocks.explain import why

    here = _value(rule, now)
    if now.latched:
        value, limit = (math.nan if now.trip.get(key) is None else float(now.trip[key]) for key in ("value", "limit"))
        cause = "its cause is still there" if now.present else "its cause is gone"
        return f"TRIPPED. {why(rule, value, limit)}, since {at_s(int(now.trip.get('t_ns') or 0))}; {cause}{here}"
    if now.present:
        return f"PRESENT{here}" + ("" if rule.latches else ", acts as long as it is")
    return f"good{here}"


def _value(rule: Rule, now: LiveRule) -> str:
    """Value and limit now, or why there are none."""
    from interlocks.explain import measured

    if not now.live:
        told = (
            "" if math.isnan(now.value) or now.latched else f", at its last trip {measured(rule, now.value, now.limit)}"
        )
        return f"; judged in each 10 us tick of the rack, told at a trip alone{told}"
    if math.isnan(now.value):
        return ", no value has come yet"
    return f", now {measured(rule, now.value, now.limit)}"


def _bypass(rule: Rule, now: LiveRule | None, t_ns: int) -> str:
    if now is None or not now.bypassed:
        return f"not bypassed; possible: {_BYPASS[rule.bypass]}" if now is not None else _BYPASS[rule.bypass]
    until_ns = int(now.bypass.get("until_ns") or 0)
    return (f"BYPASSED by {now.bypass.get('by', '?')}: {now.bypass.get('reason', '?')}; ends by itself at "
            f"{at_s(until_ns)}, in {max(0.0, (until_ns - t_ns) * 1e-9):.0f} s")  # fmt: skip


def _data(desk: Desk, rule: Rule, now: LiveRule | None) -> dict[str, object]:
    from interlocks.explain import before_reset, bound, condition, consequence

    promised = bound(rule, desk.rules, desk.facility)
    return {
        "facility": desk.facility.id,
        "room": desk.room,
        "species": desk.species,
        "rule": rule.model_dump(),
        "condition": condition(rule),
        "consequence": consequence(rule),
        "before_reset": before_reset(rule, now is not None and now.present),
        "bound_us": {
            "observation": promised.observation_us,
            "decision": promised.decision_us,
            "actuator": promised.actuator_us,
            "total": promised.total_us,
            "degraded_actuator": promised.degraded_us if math.isfinite(promised.degraded_us) else None,
        },
        "now": None if now is None else now.to_data(),
        "words": None if now is None else _now(rule, now),
    }
