"""Options that several commands share, and what may stand behind them: refused here, before anything has begun."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import click

from facility.errors import UsageError
from facility.run_values import require_seed, require_speed

FACILITY = click.option("--facility", "facility_name", default="wuwei", show_default=True)
ROOM = click.option("--room", help="Room; default the one that runs, or the first one.")
SPECIES = click.option("--species", help="Species; default the one that runs, or the first one.")
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


def seed_option(default: int | None = 1, more: str = "") -> Callable[[Any], Any]:
    """`--seed`: 0 to MAX_SEED; None for a default that the command finds itself, which `more` tells."""
    return _number("--seed", int, default, f"Seed of all noise{more}.", require_seed)


def speed_option(default: float | None = 1.0, more: str = "") -> Callable[[Any], Any]:
    """`--speed`; None for a default that the command finds itself, which `more` tells."""
    return _number("--speed", float, default, f"Facility seconds per second{more}.", require_speed)


def words_option(name: str, words: str, *, required: bool = True) -> Callable[[Any], Any]:
    """A text that goes on record, and has to say something; empty where it is not `required` and left out."""

    def checked(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str:
        if value is None:
            return ""
        if not value.strip():
            raise UsageError("words.none", f"nothing but '{value}'", name, "say why, in words: they go on record")
        return value

    return click.option(name, required=required, help=words, callback=checked)


def _number(
    name: str, kind: type, default: float | None, words: str, require: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    def checked(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
        return None if value is None else require(value)

    return click.option(name, type=kind, default=default, show_default=default is not None, help=words,
                        callback=checked)  # fmt: skip


class FiniteRange(click.FloatRange):
    """A range of numbers; what is no number lies in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; a usage error for one outside, NaN among them."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


class OutputFile(click.Path):
    """A file to write: its folder is there and may be written, and its name ends as one of `suffixes`, if any."""

    def __init__(self, suffixes: Collection[str] = ()) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)
        self._suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a usage error where nothing could be written."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if self._suffixes and path.suffix.lower() not in self._suffixes:
            self.fail(f"'{path}' does not end in {', '.join(self._suffixes)}", param, ctx)
        folder = path.parent
        if not folder.is_dir():
            self.fail(f"there is no folder '{folder}'", param, ctx)
        if not os.access(folder, os.W_OK | os.X_OK):
            self.fail(f"nothing can be written into '{folder}'", param, ctx)
        return path
