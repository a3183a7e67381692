"""What the documents say is there: links, make targets, commands, pages in the index."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from console.main import cli

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
DECISION_SECTIONS = ("**Context.**", "**Decision.**", "**Consequence.**")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(path: Path) -> set[str]:
    """Headings as links to them are written."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def code_lines(path: Path) -> list[str]:
    """Lines of the fenced blocks, and everything between backticks; continued lines are joined."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()] + inline


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{name(page)} links to {target}"
        assert ROOT in path.parents or path == ROOT, f"{name(page)} links out of the repository: {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{name(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for line in code_lines(page):
        found = re.match(r"make ([a-z]+)$|make ([a-z]+) +#", line)
        if found:
            assert (found[1] or found[2]) in targets, f"{name(page)}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_options_exist(page: Path) -> None:
    """Every `ionctl ...` in code is a command of the command line, and its options are known to it."""
    for line in code_lines(page):
        if not line.startswith(("ionctl ", "$ ionctl ", ".venv/bin/ionctl ")):
            continue
        words = re.sub(r"[\[\]|]", " ", line.split("#")[0].removeprefix("$ "))
        check_command_line(shlex.split(words)[1:], f"{name(page)}: {line}")


def check_command_line(words: list[str], where: str) -> None:
    command: click.Command = cli
    context = click.Context(cli)
    options = {option for parameter in cli.params for option in parameter.opts}
    for word in words:
        if word.startswith("--"):
            assert word.split("=")[0] in options | {"--help", "--version"}, f"{where}: no option {word}"
        elif isinstance(command, click.Group) and re.fullmatch(r"[a-z][a-z-]*", word):
            inner = command.get_command(context, word)
            assert inner is not None, f"{where}: no command {word}"
            command = inner
            options |= {option for parameter in command.params for option in parameter.opts}


def test_every_page_is_in_the_index() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / target.split("#")[0]).resolve() for target in LINK.findall(index.read_text(encoding="utf-8"))}
    missing = [name(page) for page in DOCS.rglob("*.md") if page != index and page.resolve() not in linked]
    assert not missing, "pages that docs/README.md does not name"


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").glob("*.md")), ids=name)
def test_a_decision_says_context_decision_consequence(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.fullmatch(r"\d{4}-[a-z0-9-]+", page.stem)
    assert text.startswith(f"# {page.stem[:4]} ")
    places = [text.find(section) for section in DECISION_SECTIONS]
    assert -1 not in places
    assert places == sorted(places)
    assert text.count("\n") <= 60, "one page"


def test_decisions_are_numbered_in_a_row() -> None:
    numbers = sorted(int(page.stem[:4]) for page in (DOCS / "decisions").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


def test_no_page_names_a_machine_path() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w./])/(work|root|home)/", page.read_text(encoding="utf-8")), name(page)
