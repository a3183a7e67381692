"""docs/reference/pvs.md lists every PV of the catalogue; `python -m tests.iocs.test_pv_reference` writes the table."""

from __future__ import annotations

from pathlib import Path

from facility.pv_catalogue import CATALOGUE, PvEntry

PAGE = Path(__file__).parents[2] / "docs/reference/pvs.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
TITLES = {"plant": "Plant", "safety": "Safety controller", "control": "Treatment control"}


def row(entry: PvEntry) -> str:
    kind = entry.kind if entry.length == 1 else f"{entry.kind}[{entry.length}]"
    notes = [entry.description]
    if entry.states:
        notes.append("; ".join(f"{i} {state}" for i, state in enumerate(entry.states)))
    if entry.fields:
        notes.append(("columns: " if entry.length > len(entry.fields) else "elements: ") + ", ".join(entry.fields))
    if entry.limits:
        notes.append(f"{entry.limits[0]:g} to {entry.limits[1]:g}")
    if entry.alarms:
        notes.append("alarms " + " / ".join(f"{limit:g}" for limit in entry.alarms))
    return f"| `{entry.name}` | {kind} | {entry.unit} | {entry.writer} | {'. '.join(notes)} |\n"


def table() -> str:
    text = ""
    for server, title in TITLES.items():
        text += f"\n### {title}\n\n| name | type | unit | written by | what it is |\n|---|---|---|---|---|\n"
        text += "".join(row(entry) for entry in CATALOGUE if entry.server == server)
    return text + "\n"


def with_table(page: str) -> str:
    head, rest = page.split(BEGIN)
    return head + BEGIN + table() + END + rest.split(END)[1]


def test_the_page_lists_the_catalogue() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run: python -m tests.iocs.test_pv_reference"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
