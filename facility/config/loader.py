"""Find, read and validate facility files; say in one message all that is wrong with a bad one."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from facility.config.base import tuples
from facility.config.checks import CrossCheckError
from facility.config.models import Facility
from facility.constants import FACILITY_SCHEMA
from facility.errors import ConfigError, names_meant

CONFIG_ENV = "IONCTL_CONFIG"


def config_roots(config_dir: Path | None = None, env: Mapping[str, str] | None = None) -> list[Traversable]:
    """Folders that are searched for configuration, first one wins: argument, `$IONCTL_CONFIG`, packaged copy.

    Raises ConfigError 'config.folder' for one that is not there: packaged limits would be in force, and nobody told.
    """
    environment = os.environ if env is None else env
    named = [] if config_dir is None else [(Path(config_dir), "--config-dir")]
    named += [(Path(folder), CONFIG_ENV) for folder in environment.get(CONFIG_ENV, "").split(os.pathsep) if folder]
    for folder, by in named:
        if not folder.is_dir():
            raise ConfigError(
                "config.folder", f"{by} names no folder", str(folder), "name one that exists, or leave it out"
            )
    return [*(folder for folder, _ in named), resources.files("configs")]


@contextmanager
def searched_first(folder: Path) -> Iterator[None]:
    """Whatever this process and those that it starts read comes from `folder` first, while this lasts."""
    before = os.environ.get(CONFIG_ENV)
    os.environ[CONFIG_ENV] = os.pathsep.join([str(folder.resolve()), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ[CONFIG_ENV]
        else:
            os.environ[CONFIG_ENV] = before


def find_config(
    relative: str, config_dir: Path | None = None, env: Mapping[str, str] | None = None
) -> Traversable | None:
    """First configuration file of this relative path (`tables/wuwei-carbon.csv`), or None."""
    for root in config_roots(config_dir, env):
        found = root.joinpath(*relative.split("/"))
        if found.is_file():
            return found
    return None


def list_facilities(config_dir: Path | None = None, env: Mapping[str, str] | None = None) -> list[str]:
    """Names of all facilities that `load_facility` would find, sorted."""
    names: set[str] = set()
    for root in config_roots(config_dir, env):
        if not root.is_dir():
            continue
        for entry in root.iterdir():
            if entry.name.endswith(".toml") and _declares_facility(entry):
                names.add(entry.name.removesuffix(".toml"))
    return sorted(names)


def _declares_facility(entry: Traversable) -> bool:
    try:
        schema = tomllib.loads(entry.read_text(encoding="utf-8")).get("schema")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False
    return schema == FACILITY_SCHEMA


def load_facility(name_or_path: str, config_dir: Path | None = None, env: Mapping[str, str] | None = None) -> Facility:
    """Load a facility by name (`wuwei`) or by path (ends in `.toml` or holds a path separator).

    Raises ConfigError that names file, key, value and what is allowed, for every problem found.
    """
    by_path = name_or_path.endswith(".toml") or "/" in name_or_path or os.sep in name_or_path
    source: Traversable | None
    if by_path:
        source = Path(name_or_path)
        if not source.is_file():
            raise ConfigError("config.no-file", f"no facility file '{name_or_path}'", "", "give an existing path")
    else:
        source = find_config(f"{name_or_path}.toml", config_dir, env)
    if source is None:
        meant = names_meant(name_or_path, list_facilities(config_dir, env))
        fix = f"{meant}; a folder with a file of yours is named by --config-dir or {CONFIG_ENV}"
        raise ConfigError("config.no-facility", f"no facility '{name_or_path}'", "", fix)
    where = str(source)
    try:
        data = tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("config.unreadable", f"cannot read the file: {error}", where) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("config.not-toml", f"not valid TOML: {error}", where) from error
    facility = facility_from_dict(data, where)
    if not by_path and facility.id != name_or_path:
        raise ConfigError(
            "config.id", f"facility.id = '{facility.id}'", where, f"must be '{name_or_path}', the name of the file"
        )
    return facility


def facility_from_json(text: str, where: str = "facility") -> Facility:
    """The inverse of `Facility.canonical_json()`."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError("config.not-json", f"not valid JSON: {error}", where) from error
    return facility_from_dict(data, where)


def facility_from_dict(data: Any, where: str = "facility") -> Facility:
    """Validate plain data (from TOML or JSON) as a facility; `where` opens the error message."""
    if not isinstance(data, dict):
        raise ConfigError("config.invalid", "not a table of keys", where)
    try:
        return Facility.model_validate(tuples(data))
    except ValidationError as error:
        raise _explain(error, where) from None


def change_facility(facility: Facility, changes: Mapping[str, Any]) -> Facility:
    """A copy with other values at dotted keys (`{"chambers.ic1.voltage_v": 400.0}`), validated as a file is."""
    data = json.loads(facility.canonical_json())
    for key, value in changes.items():
        *path, last = key.split(".")
        node = data
        for part in path:
            if not isinstance(node, dict) or part not in node:
                raise ConfigError("config.unknown-key", f"no section '{part}' in '{key}'", f"facility {facility.id}")
            node = node[part]
        if not isinstance(node, dict):
            raise ConfigError("config.unknown-key", f"'{key}' leads into a value", f"facility {facility.id}")
        node[last] = value
    return facility_from_dict(data, f"facility {facility.id} with changes")


def _explain(error: ValidationError, where: str) -> ConfigError:
    problems: list[str] = []
    codes: list[str] = []
    # an unknown key is usually a misspelt one, and explains a missing one: it comes first
    for item in sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden"):
        original = item.get("ctx", {}).get("error")
        if isinstance(original, CrossCheckError):
            codes.append("config.contradiction")
            problems += [f"{p.key} = {_short(p.value)}: {p.allowed}" for p in original.problems]
            continue
        key = ".".join(str(part) for part in item["loc"] if part != "[key]")
        if item["type"] == "extra_forbidden":
            codes.append("config.unknown-key")
            allowed = _allowed_keys(item["loc"][:-1])
            close = difflib.get_close_matches(str(item["loc"][-1]), allowed, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            problems.append(f"{key} = {_short(item['input'])}: unknown key; {hint}allowed: {', '.join(allowed)}")
        elif item["type"] == "missing":
            codes.append("config.missing-key")
            problems.append(f"{key}: missing")
        else:
            codes.append("config.bad-value")
            message = item["msg"]
            problems.append(f"{key} = {_short(item['input'])}: {message[0].lower()}{message[1:]}")
    count = len(problems)
    what = problems[0] if count == 1 else f"{count} problems: " + "; ".join(problems)
    return ConfigError(codes[0], what, where)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _allowed_keys(loc: tuple[int | str, ...]) -> list[str]:
    """Keys that the model at this location takes, sorted."""
    model: Any = Facility
    for part in loc:
        if isinstance(model, type) and issubclass(model, BaseModel):
            fields = {(f.alias or name): f for name, f in model.model_fields.items()}
            if part not in fields:
                return []
            model = fields[str(part)].annotation
        else:  # dict[str, Section] or tuple[Section, ...]: the section is one of the arguments
            model = next((a for a in get_args(model) if isinstance(a, type) and issubclass(a, BaseModel)), None)
    if isinstance(model, type) and issubclass(model, BaseModel):
        return sorted((f.alias or name) for name, f in model.model_fields.items())
    return []
