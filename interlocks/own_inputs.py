"""What the safety controller knows by itself: inputs of rules that are no signals, with their words.

One home for what a person reads of them: what each is, what is the matter where it is not as it should be, and what
to do about it.
"""

from __future__ import annotations

from typing import NamedTuple


class OwnInput(NamedTuple):
    """An input of tiers P and T that is not in the process image."""

    unit: str
    what: str
    """What it is, or, of one that is true or false, what it says."""
    wrong: str
    """What is the matter."""
    remedy: str
    """What a person does about it, where the rule says nothing of its own."""


LINK_INPUT = "link.plant_ok"
CONSOLE_INPUT = "console.age_ms"
"""Infinite before the first sign of life."""
HOLD_INPUT = "field.hold_ok"
PAUSE_INPUT = "field.pause_ok"
RESOLVED_INPUT = "field.resolved"
FIELD_INPUT = "field.number"
"""`facility.ids.field_number` of the session; 0 for none."""
MODE_INPUT = "mode.code"
AGREE_INPUT = "evaluators.agree"
"""Judged by the evaluators' comparison alone."""
CONTROL_INPUT = "control.age_ms"
"""Infinite before the first sign of life."""
LINE_INPUTS: tuple[str, ...] = ("t.plan_ok", "t.setpoints_ok", "t.session_ok", "t.authorised")
"""What treatment control vouches for in its keep-alives, 0 when there are none; bit 0 first."""
PROOF_INPUT = "proof.missing"

OWN: dict[str, OwnInput] = {
    LINK_INPUT: OwnInput(
        "bool",
        "frames of the rack arrive in order and in time",
        "frames of the rack are missing, late, damaged or out of order",
        "see that the plant runs, look at the gaps of the safety link, and at what else this machine does: ionctl "
        "status",
    ),
    CONSOLE_INPUT: OwnInput(
        "ms",
        "silence of the operator's console",
        "no sign of life of an operator's console",
        "see that the console that delivers lives and reaches the safety controller; a signed reset counts as a sign "
        "of life, once",
    ),
    HOLD_INPUT: OwnInput(
        "bool",
        "no HOLD is present that has gone on by itself as often as it may in this field",
        "a HOLD is present that has gone on by itself as often as it may in this field",
        "find out what holds the beam so often; the rule can be reset when that HOLD has gone",
    ),
    PAUSE_INPUT: OwnInput(
        "bool",
        "this field has not been interrupted more often than it may be",
        "this field has been interrupted more often than it may be",
        "find the fault that comes again and again; the count stands until a physicist has accounted for the field: "
        "ionctl interlocks resolve",
    ),
    RESOLVED_INPUT: OwnInput(
        "bool",
        "no field has been terminated without an account of it",
        "a field has been terminated, and nobody has said what became of it",
        "a physicist says what became of the field: ionctl interlocks resolve",
    ),
    FIELD_INPUT: OwnInput(
        "code",
        "the number of the field that a person has opened",
        "the front end counts for a field that no person has opened",
        "stop the delivery and load its plan anew, which opens its field",
    ),
    MODE_INPUT: OwnInput(
        "code",
        "the mode that has been set",
        "the key switch does not stand where the mode says",
        "turn the key, or set the mode that it stands at: ionctl interlocks mode",
    ),
    AGREE_INPUT: OwnInput(
        "bool",
        "both evaluators of the safety controller decide the same over the same image",
        "the two evaluators of the safety controller decide differently, or have seen different images",
        "see the event evaluators.disagree; do not deliver with this safety controller before its fault is found",
    ),
    CONTROL_INPUT: OwnInput(
        "ms",
        "silence of treatment control",
        "no sign of life of treatment control",
        "see that treatment control runs: ionctl status",
    ),
    LINE_INPUTS[0]: OwnInput(
        "bool",
        "control vouches that the plan is the approved one and the layer in its memory unchanged",
        "control does not vouch for the plan: it is not the approved one, has changed in memory, or control is silent",
        "stop the delivery and load the approved plan anew",
    ),
    LINE_INPUTS[1]: OwnInput(
        "bool",
        "control vouches that table, range shifters, energy and room read back as the layer wants",
        "control does not vouch for the set points: something reads back otherwise than the layer wants, or control "
        "is silent",
        "find the device that reads back otherwise, then prepare and start anew",
    ),
    LINE_INPUTS[2]: OwnInput(
        "bool",
        "control vouches that the layer at the front end belongs to the open session",
        "control does not vouch for the layer at the front end: it belongs to no open session, or control is silent",
        "stop the delivery and load its plan anew",
    ),
    LINE_INPUTS[3]: OwnInput(
        "bool",
        "control vouches that a person's signed command started or resumed the delivery",
        "control has no record of a person who started or resumed the delivery, or is silent",
        "an operator starts the delivery anew",
    ),
    PROOF_INPUT: OwnInput(
        "count",
        "number of proof tests that are missing, failed or expired",
        "proof tests are missing, have failed or have expired",
        "run them: ionctl interlocks prove",
    ),
}  # fmt: skip
"""In the order in which they follow the image."""
OWN_INPUTS: dict[str, str] = {name: own.unit for name, own in OWN.items()}
"""Their units."""
