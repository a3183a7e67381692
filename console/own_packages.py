"""Refuse to start among strangers: other distributions ship packages called `control` or `console` too."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from facility.errors import ConfigError

OWN_PACKAGES = (
    "facility",
    "dose",
    "channels",
    "journal",
    "interlocks",
    "ioc_sim",
    "control",
    "records",
    "rig",
    "console",
    "configs",
)


def refuse_foreign_packages(names: Iterable[str] = OWN_PACKAGES) -> None:
    """ConfigError if one of our packages would be imported from elsewhere, or was overwritten by another one.

    Ours live side by side, and their `__init__.py` hold a docstring at most: another distribution's of the same name
    has code in it.
    """
    home = Path(__file__).resolve().parent.parent
    for name in names:
        spec = importlib.util.find_spec(name)
        origin = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if origin is None or origin.parent.parent != home or _has_code(origin):
            raise ConfigError(
                "install.foreign-package",
                f"the package '{name}' is not ionctl's: it is {origin or 'missing'}",
                str(home),
                "install ionctl in an environment of its own",
            )


def _has_code(init_file: Path) -> bool:
    text = init_file.read_text(encoding="utf-8", errors="replace")
    return any(line.startswith(("import ", "from ", "def ", "class ", "try:")) for line in text.splitlines())
