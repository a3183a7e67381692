"""`dicom.toml`: who may send plans here, how much, and where records go."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from facility.config.base import Name, Section, tuples
from facility.config.loader import find_config
from facility.errors import ConfigError

DICOM_SCHEMA = "ionctl.dicom/1"
DICOM_FILE = "dicom.toml"
AeTitle = Annotated[str, Field(pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$")]
"""Up to 16 printable characters without backslash and outer blanks (PS3.5, VR AE)."""
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9:._-]{1,253}$")]


class Receiving(Section):
    """How plans come in."""

    ae_title: AeTitle
    host: Host = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)]
    """0: any free one."""
    callers: Annotated[tuple[AeTitle, ...], Field(min_length=1, max_length=64)]
    """AE titles that may send."""
    max_mb: Annotated[float, Field(gt=0.0, le=512.0)]
    """Of one object, 1e6 bytes."""
    max_associations: Annotated[int, Field(ge=1, le=64)]
    timeout_s: Annotated[float, Field(ge=0.1, le=600.0)]

    @property
    def max_bytes(self) -> int:
        """Of one object."""
        return round(self.max_mb * 1e6)


class Destination(Section):
    """Who takes what we send."""

    ae_title: AeTitle
    host: Host
    port: Annotated[int, Field(ge=1, le=65535)]


class DicomConfig(Section):
    """The whole file."""

    schema_: Annotated[Literal["ionctl.dicom/1"], Field(alias="schema")]
    receive: Receiving
    send: dict[Name, Destination] = Field(default_factory=dict)


def load_dicom_config(config_dir: Path | None = None, env: Mapping[str, str] | None = None) -> DicomConfig:
    """The first `dicom.toml` of the configuration folders. ConfigError names file, key and value of what is wrong."""
    source = find_config(DICOM_FILE, config_dir, env)
    if source is None:
        raise ConfigError("config.no-file", f"no file {DICOM_FILE}", "", "copy the packaged one")
    where = str(source)
    try:
        data = tomllib.loads(source.read_text(encoding="utf-8"))
        return DicomConfig.model_validate(tuples(data))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("config.unreadable", f"cannot read the file: {error}", where) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("config.not-toml", f"not valid TOML: {error}", where) from error
    except ValidationError as error:
        problems = [_words(".".join(str(part) for part in one["loc"] if part != "[key]"), one["input"], one["msg"])
                    for one in error.errors(include_url=False)]  # fmt: skip
        raise ConfigError("config.bad-value", "; ".join(problems), where, "see configs/dicom.toml") from None


def _words(key: str, value: object, message: str) -> str:
    text = repr(value)
    return f"{key} = {text if len(text) <= 80 else text[:77] + '...'}: {message[0].lower()}{message[1:]}"
