"""`ionctl interlocks`: what must never happen, what is latched, and letting go of it. One module for each command."""

from __future__ import annotations

import click

from console.lazy import LazyGroup

_HERE = "console.commands.interlocks"
COMMANDS = {
    "list": (f"{_HERE}.list", "list_", "List the rules, with what is tripped where the facility is up."),
    "show": (f"{_HERE}.show", "show", "Explain one rule: what it protects from, why it is tripped, what ends it."),
    "reset": (f"{_HERE}.reset", "reset", "Let go of latched rules whose cause is gone."),
    "resolve": (f"{_HERE}.resolve", "resolve", "Say what became of a field that was terminated."),
    "prove": (f"{_HERE}.prove", "prove", "Run the pre-beam proof tests."),
    "matrix": (f"{_HERE}.matrix", "matrix", "Causes, effects and bounds, as a table, HTML or CSV."),
    "bypass": (f"{_HERE}.bypass", "bypass", "Bypass one rule for a limited time."),
    "unbypass": (f"{_HERE}.bypass", "unbypass", "End the bypass of a rule."),
    "mode": (f"{_HERE}.mode", "mode", "Set the operating mode: clinical, qa or service."),
    "history": (f"{_HERE}.history", "history", "List trips, explain one, draw what happened around it."),
    "test": (f"{_HERE}.test", "test", "Try every rule in every state where it applies, and judge by truth."),
    "verify": (
        f"{_HERE}.verify",
        "verify",
        "Prove the interlocks: explore every state of the production step functions.",
    ),
    "generate": (f"{_HERE}.generate", "generate", "Print the source of the second evaluator of the safety controller."),
}
"""name -> (module, attribute, help); a new command is a module and a line here."""


@click.group(cls=LazyGroup, table=COMMANDS)
def interlocks() -> None:
    """What must never happen: rules, latches, proofs.

    Resets and bypasses go from here straight to the safety controller, signed with the console's own keys; control
    holds none.
    """
