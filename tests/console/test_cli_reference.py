"""docs/reference/cli.md against the parser, both ways: commands, arguments, options, choices; and the exit codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from console.main import cli
from facility.errors import ExitCode

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
Usage = dict[str, tuple[bool, bool, frozenset[str]]]
"""Option -> must be given, may be repeated, choices."""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands(cli))


def synopses() -> dict[str, str]:
    """What follows each command's name in the fenced blocks; continued lines are indented."""
    lines: list[str] = []
    for block in re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("ionctl "):
                lines.append(line.removeprefix("ionctl "))
            else:
                lines[-1] += line
    found = {}
    for line in lines:
        name = max((n for n in COMMANDS if line == n or line.startswith(f"{n} ")), key=len, default="")
        assert name, f"no command: {line}"
        assert name not in found, f"told twice: {line}"
        found[name] = line.removeprefix(name)
    return found


def told(synopsis: str) -> tuple[list[str], Usage]:
    """Arguments (and those that may be left out, in brackets) and options of a synopsis."""
    options: Usage = {}
    pattern = r"(\[?)(--[a-z-]+)(?: ([^\s\]]+))?\]?(\.\.\.)?"
    for bracket, name, value, dots in re.findall(pattern, synopsis):
        choices = frozenset(value.split("|")) if "|" in value else frozenset()
        options[name] = (not bracket, bool(dots), choices)
    return re.sub(pattern, "", synopsis).split(), options


def parsed(command: click.Command) -> tuple[int, Usage]:
    options: Usage = {}
    for one in command.params:
        if isinstance(one, click.Option):
            choices = frozenset(map(str, one.type.choices)) if isinstance(one.type, click.Choice) else frozenset()
            options[one.opts[-1]] = (one.required, one.multiple, choices if len(choices) > 1 else frozenset())
    return sum(isinstance(one, click.Argument) for one in command.params), options


def test_every_command_has_a_synopsis() -> None:
    assert set(synopses()) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_synopsis_says_what_the_parser_takes(name: str) -> None:
    arguments, options = told(synopses()[name])
    count, taken = parsed(COMMANDS[name])
    if name == "interlocks bypass":  # the values of --for are examples of a time
        options["--for"] = (*options["--for"][:2], frozenset())
    assert options == taken
    assert len(arguments) == count
    for text, one in zip(arguments, (p for p in COMMANDS[name].params if isinstance(p, click.Argument)), strict=True):
        assert text.startswith("[") is not one.required
        if isinstance(one.type, click.Choice):
            assert set(text.split("|")) == set(map(str, one.type.choices))


def test_options_before_the_command() -> None:
    (table,) = re.findall(r"^Options before the command:\n\n(.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    named = {word for row in table.splitlines()[2:] for word in re.findall(r"`(-[a-z-]+)", row.split("|")[1])}
    assert named == {name for one in cli.params for name in one.opts} | {"--help", "-h"}


def test_the_exit_codes_are_those_of_the_code() -> None:
    table = PAGE.split("## Exit codes")[1].split("\n## ")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == set(map(int, ExitCode))
