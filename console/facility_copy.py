"""Begin a facility of one's own: the file of one that is known under another name, with its optics and own limits."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from facility.config.loader import facility_from_dict, find_config, list_facilities, load_facility
from facility.errors import ConfigError, UsageError, names_meant
from ioc_sim.extraction.optics import find_optics, read_optics

ID = re.compile(r'^id = "[^"\n]*"', re.MULTILINE)
NAME = re.compile(r'^name = "[^"\n]*"', re.MULTILINE)
PREFIX = re.compile(r'^pv_prefix = "[^"\n]*"', re.MULTILINE)
FACILITIES = re.compile(r"^facilities = \[[^\]]*\]", re.MULTILINE)
PREFIX_CHARS = 6
RULES = "interlocks.toml"


def copy_facility(like: str, name: str, folder: Path, config_dir: Path | None = None) -> list[Path]:
    """Write `<folder>/<name>.toml` and `<folder>/optics/<name>.toml`, as those of `like`; what is there stays.

    Where the rules have limits for `like` alone, `<folder>/interlocks.toml` gets the same ones for `name`. Under its
    own name a facility needs neither optics nor limits of its own, so there is one file only.

    Returns what was written.
    Raises ConfigError for a name that no facility may have, or a folder that cannot be written; UsageError for a
    facility that there is not, or where there is nothing left to write.
    """
    source = find_config(f"{like}.toml", config_dir)
    if source is None or like not in list_facilities(config_dir):
        fix = names_meant(like, list_facilities(config_dir))
        raise UsageError("facility.name", f"no facility {like!r}", "facility copy", fix)
    made = {folder / f"{name}.toml": _named(source.read_text(encoding="utf-8"), name, keep_prefix=name == like)}
    if name != like:
        optics = FACILITIES.sub(f'facilities = ["{name}"]', find_optics(like, config_dir)[0].read_text("utf-8"))
        read_optics(optics, f"optics/{name}.toml")
        made[folder / "optics" / f"{name}.toml"] = optics
    missing = {path: text for path, text in made.items() if not path.exists()}
    if not missing:
        there = " and ".join(f"'{path}'" for path in made)
        raise UsageError("facility.exists", f"{there}: there already", "facility copy", "give another name or folder")
    if name != like:
        missing |= _limits(like, name, folder / RULES, config_dir)
    for path, text in missing.items():
        _write(path, text)
    return list(missing)


def _limits(like: str, name: str, path: Path, config_dir: Path | None) -> dict[Path, str]:
    """The rules with the limits of `like` for `name`, too; empty where there is nothing to add."""
    source = path if path.is_file() else find_config(RULES, config_dir)
    if source is None:
        return {}
    text = source.read_text(encoding="utf-8")
    owners: dict[str, dict[str, dict[str, object]]] = tomllib.loads(text).get("override", {})
    added = [f"\n# {name}: as {like}"]
    for owner, rules in owners.items():
        new = name + owner.removeprefix(like)
        if _is_of(owner, like, config_dir) and new not in owners:
            for rule, limits in rules.items():
                added += [f"[override.{new}.{rule}]", *(f"{key} = {json.dumps(limits[key])}" for key in limits)]
    return {path: text + "\n".join(added) + "\n"} if len(added) > 1 else {}


def _is_of(owner: str, like: str, config_dir: Path | None) -> bool:
    """Whether limits are of this facility, or of one of its species."""
    if owner == like:
        return True
    whole, _, species = owner.rpartition("-")
    return whole == like and species in load_facility(like, config_dir).species


def _named(text: str, name: str, *, keep_prefix: bool) -> str:
    """A facility's file with another id, and PV names of its own; ConfigError for an id that it cannot have."""
    text = ID.sub(f'id = "{name}"', text, count=1)
    if not keep_prefix:
        prefix = re.sub(r"[^A-Z0-9]", "", name.upper())[:PREFIX_CHARS]
        text = NAME.sub(f'name = "{name}"', text, count=1)
        text = PREFIX.sub(f'pv_prefix = "{prefix}"', text, count=1)
    facility_from_dict(tomllib.loads(text), f"{name}.toml")
    return text


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise ConfigError("facility.write", f"'{path}' cannot be written: {problem.strerror}", "",
                          "give a folder of your own with --to") from problem  # fmt: skip
