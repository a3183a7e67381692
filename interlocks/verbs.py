"""The verbs of the safety controller, and the roles that may use each; control has none."""

from __future__ import annotations

VERBS: dict[str, frozenset[str]] = {
    "reset": frozenset({"operator", "physicist"}),
    "set_mode": frozenset({"physicist"}),
    "bypass": frozenset({"physicist"}),
    "unbypass": frozenset({"operator", "physicist"}),
    "open_field": frozenset({"operator", "physicist"}),
    "close_field": frozenset({"operator", "physicist"}),
    "resolve": frozenset({"physicist"}),
    "prove": frozenset({"operator", "physicist"}),
}
