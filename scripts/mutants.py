"""Mutation testing of interlocks/: `make mutants`, or `python scripts/mutants.py [MODULE ...]`.

cosmic-ray finds the mutants and writes each; what is its own here is only how tests are run.  Everything runs
uncompiled.  A mutant is shown to tests that execute its line and to no others.  Mutants of functions are tried in forks
of a process that has the tests collected (`warm_tests`); those of what runs at import are written into a copy of the
tree, where a fork that has the third parties imported and the configuration's TOML parsed begins anew.

A session is a SQLite file in build/mutants/, one for each module.  A stopped run goes on where it was; a session whose
module or settings have changed begins anew; if tests have changed, what had survived and nobody argues is tried again.

mutants.toml says what is left out, and argues survivors; `--write` puts the result into docs/reference/mutants.md.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import functools
import gc
import hashlib
import importlib
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from importlib.util import cache_from_source
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from console.own_packages import OWN_PACKAGES

os.environ["NUMBA_DISABLE_JIT"] = "1"
os.environ["IONCTL_TEST_PROFILE"] = "mutants"
sys.dont_write_bytecode = True

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "mutants"
DOC = ROOT / "docs" / "reference" / "mutants.md"
LINES = OUT / "lines.json"
COPIED = (*OWN_PACKAGES, "tests", "docs")
THIRD_PARTIES = ("numpy", "numba", "pydantic", "pytest", "pytest_asyncio", "hypothesis", "cryptography", "caproto",
                 "structlog", "coverage", "xdist.plugin", "pytest_timeout", "_hypothesis_pytestplugin")  # fmt: skip
FEW = 2
"""Files of tests that a mutant of what runs at import is shown first: each has to be imported."""
DEPTH = 3
"""How often the users of a name of a module are followed to the users of what they define."""


def main() -> int:
    """Run what is asked for; exit code 1 if the score is below what mutants.toml asks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help="modules, like interlocks/latch.py; default all")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this long; run again to go on")
    parser.add_argument("--budget", type=float, help="seconds of tests for a mutant; default as in mutants.toml")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of modules that are not `whole` try a seeded share only"
    )
    parser.add_argument("--fresh", action="store_true", help="begin all over")
    parser.add_argument("--report", action="store_true", help="only report what there is")
    parser.add_argument(
        "--stubs", action="store_true", help="print survivors that nobody argues as tables for mutants.toml"
    )
    parser.add_argument("--write", action="store_true", help="write the report into docs/reference/mutants.md")
    options = parser.parse_args()
    settings = tomllib.loads((ROOT / "mutants.toml").read_text(encoding="utf-8"))
    settings["budget"] = options.budget or settings["budget_s"]
    settings["share"] = options.share
    wanted = options.modules or modules()
    OUT.mkdir(parents=True, exist_ok=True)
    if not (options.report or options.stubs or options.write):
        run(wanted, settings, time.monotonic() + options.seconds, options.fresh)
    return report(wanted, settings, options)


def modules() -> list[str]:
    """All modules of interlocks/ with anything in them, the smallest first."""
    found = [path for path in (ROOT / "interlocks").glob("*.py") if path.stat().st_size]
    return [path.relative_to(ROOT).as_posix() for path in sorted(found, key=lambda path: (path.stat().st_size, path))]


def run(wanted: list[str], settings: dict[str, Any], end: float, fresh: bool) -> None:
    """Try all pending mutants, those of functions first."""
    with tempfile.TemporaryDirectory(prefix="ionctl-mutants-") as scratch:
        tree = Path(scratch).resolve() / "tree"
        copy_tree(tree)
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        for module in wanted:
            prepare(module, settings, fresh)
        for name in THIRD_PARTIES:
            __import__(name)
        keep_tables()
        in_fork(lambda: run_warm(wanted, settings, end))
        run_cold(wanted, settings, end)
        os.chdir(ROOT)


def in_fork(job: Callable[[], None]) -> None:
    """Do it in a child, which may import what it wants."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            job()
            code = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        sys.exit("the tests could not be run")


def copy_tree(tree: Path) -> None:
    """What tests of interlocks/ need, as it stands in the working tree: mutants are written into files."""
    for name in COPIED:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "mutants.toml"):
        shutil.copy2(ROOT / name, tree / name)


def keep_tables() -> None:
    """Parse TOML once for all forks: the parser is not ours, and the same text is the same table."""
    parse = tomllib.loads
    kept: dict[str, bytes] = {}

    def loads(text: str, **options: Any) -> dict[str, Any]:
        if options:
            return parse(text, **options)
        if text not in kept:
            kept[text] = pickle.dumps(parse(text))
        table: dict[str, Any] = pickle.loads(kept[text])
        return table

    tomllib.loads = loads
    for path in sorted(Path("configs").rglob("*.toml")):
        loads(path.read_text(encoding="utf-8"))


def session_path(module: str) -> Path:
    """The session of a module."""
    return OUT / (module.replace("/", ".").removesuffix(".py") + ".sqlite")


def digest_of(paths: list[Path], *more: str) -> str:
    """Of the contents of files and of words."""
    digest = hashlib.sha256(repr(more).encode())
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def prepare(module: str, settings: dict[str, Any], fresh: bool) -> None:
    """A session that fits the sources; survivors are pending again if any test is another."""
    from cosmic_ray.commands.init import init
    from cosmic_ray.work_db import use_db
    from cosmic_ray.work_item import TestOutcome

    path, mark = session_path(module), session_path(module).with_suffix(".sha256")
    here = digest_of([ROOT / module], repr(settings["left_out"]))
    tests = digest_of(sorted((ROOT / "tests" / "interlocks").glob("*.py")), str(settings["budget"]))
    before = mark.read_text().split() if mark.exists() and path.exists() and not fresh else ["", ""]
    if before[0] != here:
        path.unlink(missing_ok=True)
    with use_db(str(path)) as work:
        if before[0] != here:
            init([Path(module)], work, {})
            leave_out(work, Path(module), settings["left_out"])
        elif before[1] != tests:
            where = {item.job_id: item.mutations[0].definition_name or "" for item in work.work_items}
            alive = {job: result for job, result in work.results if result.test_outcome is TestOutcome.SURVIVED}
            said = settings.get("argued", [])
            rows = {job: (where[job], *result.diff.split("\n"), 0) for job, result in alive.items()}
            forget(path, [job for job, row in rows.items() if argument(module, row, said) is None])
    mark.write_text(f"{here} {tests}")


def forget(path: Path, jobs: list[str]) -> None:
    """Take results away: cosmic-ray has no word for that."""
    import sqlite3

    with sqlite3.connect(path) as database:
        database.executemany("delete from work_results where job_id = ?", [(job,) for job in jobs])


class Mutant(NamedTuple):
    """One mutant, and what must be known to try it."""

    job: str
    line: int
    where: str
    source: str
    mutated: str
    was: str
    becomes: str


def drawn(module: str, spec: Any, settings: dict[str, Any]) -> bool:
    """Whether a mutant is in the sample: by a hash of what it is, so that a longer run contains a shorter one."""
    if module in settings["whole"]:
        return True
    name = f"{settings['seed']} {module} {spec.operator_name} {spec.occurrence}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) < settings["share"] * 2**32


def mutants(work: Any, module: str, settings: dict[str, Any]) -> Iterator[Mutant]:
    """All pending ones that are drawn, in the order of the file."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    source = Path(module).read_text(encoding="utf-8")
    items = sorted(
        work.pending_work_items, key=lambda item: (item.mutations[0].start_pos, item.mutations[0].operator_name)
    )
    for item in items:
        spec = item.mutations[0]
        if not drawn(module, spec, settings):
            continue
        operator = get_operator(spec.operator_name)(**spec.operator_args)
        mutated = mutate_code(source, operator, spec.occurrence)
        was, becomes = difference(source, mutated)
        yield Mutant(item.job_id, spec.start_pos[0], spec.definition_name or "", source, mutated, was, becomes)


def difference(source: str, mutated: str) -> tuple[str, str]:
    """The lines that a mutant changes, before and after."""
    old, new = source.splitlines(), mutated.splitlines()
    first = next((k for k, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
    tail = next((k for k, (a, b) in enumerate(zip(old[::-1], new[::-1], strict=False)) if a != b), 0)
    return tuple(  # type: ignore[return-value]
        " ".join(" ".join(text[first : max(first + 1, len(text) - tail)]).split()) for text in (old, new)
    )


def settle(work: Any, mutant: Mutant, killed: bool, by: str) -> None:
    """Write a result down."""
    from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

    outcome = TestOutcome.KILLED if killed else TestOutcome.SURVIVED
    work.set_result(mutant.job, WorkResult(WorkerOutcome.NORMAL, by, outcome, f"{mutant.was}\n{mutant.becomes}"))


def run_warm(wanted: list[str], settings: dict[str, Any], end: float) -> None:
    """Mutants of functions."""
    import pytest
    import warm_tests
    from cosmic_ray.work_db import use_db

    def work_all(session: pytest.Session, called: set[CodeType]) -> None:
        living = warm_tests.Living()
        warm_tests.measure_all(LINES, session, living)
        warm = warm_tests.Warm(session, called, warm_tests.Lines(LINES), living, settings["budget"])
        for module in wanted:
            uses = Uses()
            with use_db(str(session_path(module))) as work:
                count = killed = 0
                begin = time.monotonic()
                for mutant in mutants(work, module, settings):
                    if time.monotonic() > end:
                        return
                    places = [(module, line) for line in uses.statement(module, mutant.line)]
                    found = warm.run(mutant.source, mutant.mutated, module, places, f"{module}:{mutant.where}")
                    if found is not None:
                        settle(work, mutant, *found)
                        count, killed = count + 1, killed + found[0]
            took = time.monotonic() - begin
            print(f"{module}: {killed} of {count} in functions killed, {took:.0f} s", file=sys.stderr, flush=True)

    plugin = warm_tests.Plugin(work_all, "interlocks")
    if pytest.main([*warm_tests.ARGUMENTS, "-s", "tests/interlocks"], plugins=[plugin]):
        sys.exit("the tests could not be run")


def run_cold(wanted: list[str], settings: dict[str, Any], end: float) -> None:
    """All that is pending then: what runs at import."""
    import warm_tests
    from cosmic_ray.work_db import use_db

    lines = warm_tests.Lines(LINES)
    uses = Uses()
    for path in sorted([*Path("facility").rglob("*.py"), *Path("channels").glob("*.py")]):  # they know no interlock
        importlib.import_module(path.as_posix().removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    compileall.compile_dir(".", quiet=2)
    gc.collect()
    gc.freeze()
    for module in wanted:
        Path(cache_from_source(module)).unlink(missing_ok=True)
        count = killed = 0
        begin = time.monotonic()
        with use_db(str(session_path(module))) as work:
            for mutant in mutants(work, module, settings):
                if time.monotonic() > end:
                    return
                tests = lines.of(uses.places(module, mutant.line)) or lines.of(uses.all_of(module))
                tests = list(dict.fromkeys([*uses.named_in(lines.seconds, module, mutant.line), *tests]))
                tests = lines.within(tests, settings["budget"])
                files = list(dict.fromkeys(test.split("::")[0] for test in tests))[:FEW]
                found = judge_cold(module, mutant, lines, [test for test in tests if test.split("::")[0] in files])
                if not found[0] and len(files) == FEW:
                    found = judge_cold(module, mutant, lines, tests)
                settle(work, mutant, *found)
                count, killed = count + 1, killed + found[0]
        took = time.monotonic() - begin
        print(f"{module}: {killed} of {count} at import killed, {took:.0f} s", file=sys.stderr, flush=True)


def judge_cold(module: str, mutant: Mutant, lines: Any, tests: list[str]) -> tuple[bool, str]:
    """Write the mutant, import anew, run the tests that still have their names; all of their files if none has."""
    import warm_tests

    path = Path(module)
    cost = sum(lines.seconds[test] for test in tests)

    def job(tell: Callable[[str], None]) -> int:
        import pytest

        return int(pytest.main([*warm_tests.ARGUMENTS, *files], plugins=[warm_tests.Only(tests, tell)]))

    files = list(dict.fromkeys(test.split("::")[0] for test in tests))
    path.write_text(mutant.mutated, encoding="utf-8")
    try:
        good, by = warm_tests.in_child(job, 10.0 + 6.0 * cost, 90.0 + 20.0 * cost)
    finally:
        path.write_text(mutant.source, encoding="utf-8")
    return not good, by or ("" if good else "at import")


class Uses:
    """Where what a line defines is used, in all of interlocks/."""

    def __init__(self) -> None:
        self._trees = {
            path.as_posix(): ast.parse(path.read_text(encoding="utf-8"))
            for path in sorted(Path("interlocks").glob("*.py"))
        }

    @functools.cached_property
    def _statements(self) -> dict[str, list[range]]:
        found: dict[str, list[range]] = {}
        for name, tree in self._trees.items():
            rows = []
            for node in ast.walk(tree):
                if isinstance(node, ast.stmt | ast.match_case):
                    first = node.pattern.lineno if isinstance(node, ast.match_case) else node.lineno
                    body = getattr(node, "body", None)
                    last = body[0].lineno - 1 if body else getattr(node, "end_lineno", first)
                    rows.append(range(first, max(first, last) + 1))
            found[name] = sorted(rows, key=len)
        return found

    def statement(self, module: str, line: int) -> range:
        """The lines of the smallest statement at a line; of one with a body, its head."""
        return next((lines for lines in self._statements[module] if line in lines), range(line, line + 1))

    def all_of(self, module: str) -> list[tuple[str, int]]:
        """All lines of a module."""
        return [(module, line) for line in range(1, 2000)]

    def places(self, module: str, line: int) -> list[tuple[str, int]]:
        """The lines of functions that use what the line of a module or class defines, directly or over other names."""
        at: set[tuple[str, int]] = {(module, n) for n in self.statement(module, line)}
        wanted, seen = set(self._defined(module, line)), set[str]()
        for _ in range(DEPTH):
            fresh, seen = wanted - seen, seen | wanted
            if not fresh:
                break
            for name, tree in self._trees.items():
                for node, inside in inner(tree, None):
                    if used(node) in fresh:
                        spot = getattr(node, "lineno", 0)
                        at |= {(name, n) for n in self.statement(name, spot)}
                        if inside is None:
                            wanted |= set(self._defined(name, spot))
        return sorted(at)

    def named_in(self, seconds: dict[str, float], module: str, line: int) -> list[str]:
        """The tests that themselves speak of what a line defines, those first that speak of most of it."""
        wanted = set(self._defined(module, line))
        shared = {test: len(wanted & self._words.get(test.split("[")[0], frozenset())) for test in seconds}
        return sorted((test for test in seconds if shared[test]), key=lambda test: (-shared[test], seconds[test], test))

    @functools.cached_property
    def _words(self) -> dict[str, frozenset[str | None]]:
        """The names that each test uses."""
        return {
            f"{path.as_posix()}::{node.name}": frozenset(used(one) for one in ast.walk(node))
            for path in sorted(Path("tests/interlocks").glob("test_*.py"))
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }

    def _defined(self, module: str, line: int) -> Iterator[str]:
        """Names that the statements of the module and of its classes at a line define."""
        for node in ast.walk(self._trees[module]):
            if not isinstance(node, ast.stmt):
                continue
            first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
            if not first <= line <= (node.end_lineno or 0):
                continue
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                yield node.name
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield from (one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name))


def inner(node: ast.AST, function: ast.AST | None) -> Iterator[tuple[ast.AST, ast.AST | None]]:
    """All nodes, each with the function it stands in."""
    for child in ast.iter_child_nodes(node):
        yield child, function
        yield from inner(child, child if isinstance(child, ast.FunctionDef) else function)


def used(node: ast.AST) -> str | None:
    """The name that a node uses."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.arg if isinstance(node, ast.keyword) else None


def leave_out(work: Any, module: Path, wanted: list[dict[str, str]]) -> None:
    """Skip what cannot matter: annotations, which nothing evaluates, and what mutants.toml leaves out."""
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    source = module.read_text(encoding="utf-8")
    spans = list(annotations(ast.parse(source)))
    text = source.splitlines()
    rows = [(re.compile(row.get("operator", "")), re.compile(row.get("line", ""))) for row in wanted]
    skipped = []
    for item in work.pending_work_items:
        spec = item.mutations[0]
        start, line = tuple(spec.start_pos), text[spec.start_pos[0] - 1]
        name = spec.operator_name.removeprefix("core/")
        if any(low <= start < high for low, high in spans) or any(a.search(name) and b.search(line) for a, b in rows):
            skipped.append(item.job_id)
    work.set_multiple_results(skipped, WorkResult(WorkerOutcome.SKIPPED, "left out"))


def annotations(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Places of annotations and of names for types, first and one past the last (line, column)."""
    for node in ast.walk(tree):
        found: list[ast.expr | None] = []
        if isinstance(node, ast.FunctionDef):
            found = [node.returns]
        elif isinstance(node, ast.arg | ast.AnnAssign):
            found = [node.annotation]
            if isinstance(node, ast.AnnAssign) and isinstance(node.annotation, ast.Name):
                found += [node.value] if node.annotation.id == "TypeAlias" else []
        for one in found:
            if one is not None:
                yield (one.lineno, one.col_offset), (one.end_lineno or 0, one.end_col_offset or 0)


class Tally(NamedTuple):
    """What has become of a module's mutants."""

    module: str
    mutants: int
    tried: int
    killed: int
    alive: list[tuple[str, str, str, int]]
    """(function, line before, line after, line number) of each that no test noticed."""


def tally(module: str, settings: dict[str, Any]) -> Tally:
    """Counts of a session; of one that was not tried wholly only what was drawn counts, whatever else was tried."""
    from cosmic_ray.work_db import use_db
    from cosmic_ray.work_item import TestOutcome, WorkerOutcome

    with use_db(str(session_path(module))) as work:
        items = {item.job_id: item.mutations[0] for item in work.work_items}
        results = dict(work.results)
    skipped = {job for job, result in results.items() if result.worker_outcome is WorkerOutcome.SKIPPED}
    tried = {job: result for job, result in results.items() if job not in skipped}
    if len(tried) < len(items) - len(skipped):
        tried = {job: result for job, result in tried.items() if drawn(module, items[job], settings)}
    alive = []
    for job, result in tried.items():
        if result.test_outcome is TestOutcome.SURVIVED:
            was, becomes = result.diff.split("\n")
            alive.append((items[job].definition_name or "", was, becomes, items[job].start_pos[0]))
    alive.sort(key=lambda row: (row[3], row[2]))
    return Tally(module, len(items) - len(skipped), len(tried), len(tried) - len(alive), alive)


def argument(module: str, row: tuple[str, str, str, int], argued: list[dict[str, Any]]) -> str | None:
    """Why this survivor is right to survive; None if nobody says so."""
    where, was, becomes, _ = row
    for one in argued:
        if one["module"] == module and one["where"] == where and one["line"] == was and becomes in one["becomes"]:
            return str(one["why"])
    return None


def report(wanted: list[str], settings: dict[str, Any], options: argparse.Namespace) -> int:
    """Score of each module and all survivors, in words a reader can find again."""
    tallies = [tally(module, settings) for module in wanted if session_path(module).exists()]
    argued = settings.get("argued", [])
    open_rows = [(one.module, row) for one in tallies for row in one.alive if argument(one.module, row, argued) is None]
    if options.stubs:
        print(stubs(open_rows))
        return 0
    table = table_of(tallies, argued)
    print(table)
    for module, (where, was, becomes, line) in open_rows:
        print(f"{module}:{line}: {where}: {was}  ->  {becomes}")
    if options.write:
        write(table, argued, open_rows)
    killed, tried = sum(one.killed for one in tallies), sum(one.tried for one in tallies)
    return 0 if tried and killed >= settings["score"] * tried else 1


def table_of(tallies: list[Tally], argued: list[dict[str, Any]]) -> str:
    """The scores, as a table of a page."""
    rows = [
        "| Module | Mutants | Tried | Killed | Argued | Open | Score | At least |",
        "|---|---|---|---|---|---|---|---|",
    ]
    total = [0, 0, 0, 0]
    for one in tallies:
        said = sum(argument(one.module, row, argued) is not None for row in one.alive)
        counts = (one.mutants, one.tried, one.killed, said)
        total = [a + b for a, b in zip(total, counts, strict=True)]
        rows.append(row_of(f"`{one.module}`", *counts))
    return "\n".join([*rows, row_of("all", *total)])


def row_of(name: str, mutants: int, tried: int, killed: int, said: int) -> str:
    """One line of the table."""
    score = f"{100.0 * killed / tried:.1f} %" if tried else "-"
    least = f"{100.0 * lowest(killed, tried):.1f} %" if 0 < tried < mutants else ""
    return f"| {name} | {mutants} | {tried} | {killed} | {said} | {tried - killed - said} | {score} | {least} |"


def lowest(killed: int, tried: int) -> float:
    """Lower end of Wilson's interval at 95 % on one side: what a sample says of all."""
    z, share = 1.645, killed / tried
    middle = share + z * z / (2 * tried)
    spread = z * ((share * (1.0 - share) + z * z / (4 * tried)) / tried) ** 0.5
    return (middle - spread) / (1.0 + z * z / tried)


def stubs(rows: list[tuple[str, tuple[str, str, str, int]]]) -> str:
    """Tables for mutants.toml to write the reasons into."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for module, (where, was, becomes, _) in rows:
        grouped.setdefault((module, where, was), []).append(becomes)
    text = []
    for (module, where, was), becomes in grouped.items():
        listed = "".join(f"  {literal(one)},\n" for one in dict.fromkeys(becomes))
        text.append(
            f"[[argued]]\nmodule = {literal(module)}\nwhere = {literal(where)}\nline = {literal(was)}\n"
            f'becomes = [\n{listed}]\nwhy = ""\n'
        )
    return "\n".join(text)


def literal(text: str) -> str:
    """A TOML string."""
    return f"'{text}'" if "'" not in text else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def write(table: str, argued: list[dict[str, Any]], open_rows: list[tuple[str, tuple[str, str, str, int]]]) -> None:
    """Put scores, arguments and open survivors between the marks of the page."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    rows = ["| Where | Line | Mutants | Why it changes nothing that matters |", "|---|---|---|---|"]
    for one in argued:
        becomes = "<br>".join(code(text) for text in one["becomes"])
        where = f"`{one['module'].removeprefix('interlocks/')}`, `{one['where'] or 'module'}`"
        rows.append(f"| {where} | {code(one['line'])} | {becomes} | {one['why']} |")
    left = [
        f"- `{module}`, `{where}`: {code(was)} to {code(becomes)}" for module, (where, was, becomes, _) in open_rows
    ]
    parts = {
        "scores": f"Sources and tests of commit `{commit}`.\n\n{table}",
        "argued": "\n".join(rows),
        "open": "\n".join(left) or "None.",
    }
    text = DOC.read_text(encoding="utf-8")
    for name, part in parts.items():
        mark = f"<!-- {name} -->"
        before, _, rest = text.partition(mark)
        _, _, after = rest.partition(mark)
        text = f"{before}{mark}\n{part}\n{mark}{after}"
    DOC.write_text(text, encoding="utf-8")


def code(text: str) -> str:
    """Code in a table of a page."""
    return f"`{text.replace('|', chr(92) + '|')}`"


if __name__ == "__main__":
    raise SystemExit(main())
