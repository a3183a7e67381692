"""What the options before the command's name say, handed to every command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facility.config.models import Facility
    from rig.home import Home


@dataclass(frozen=True)
class Settings:
    """Options of `ionctl` itself."""

    config_dir: Path | None = None
    home_dir: Path | None = None
    log_json: bool = False
    log_level: str = "warning"
    debug: bool = False

    def home(self) -> Home:
        """The folder of runs, sessions and keys."""
        from rig.home import find_home

        return find_home(self.home_dir)

    def facility(self, name: str) -> Facility:
        """Load and validate a facility file."""
        from facility.config.loader import load_facility

        return load_facility(name, self.config_dir)
