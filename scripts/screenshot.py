"""Run the demo and write what it prints to docs/images/demo.svg: ``.venv/bin/python scripts/screenshot.py``."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 104
TARGET = ROOT / "docs/images/demo.svg"


def main() -> int:
    """Exit code of the demo; the picture is only written when it delivered."""
    ionctl = str(Path(sys.executable).parent / "ionctl")
    with tempfile.TemporaryDirectory(prefix="ionctl-") as home:
        env = os.environ | {"IONCTL_HOME": home, "COLUMNS": str(WIDTH)}
        done = subprocess.run([ionctl, "demo"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = done.stdout.replace(home, "~/.local/share/ionctl")
    if done.returncode != 0:
        sys.stderr.write(said)
        return done.returncode
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("\n".join(["$ make demo", *lines])), no_wrap=True, overflow="crop")
    svg = console.export_svg(title="make demo")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # no fonts from elsewhere
    TARGET.write_text(svg, encoding="utf-8")
    print(f"written to {TARGET.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
