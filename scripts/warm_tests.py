"""A process with all tests collected that forks for each mutant: what a mutant costs is its tests, not the imports.

Mutants of a function are put in place as code of the function objects that live already.  What runs when a module is
imported (constants, defaults, decorators, and functions that collecting the tests calls) cannot be tried so: `Warm`
says so, and the caller writes the file and imports anew.

Which tests execute which line is measured once and kept for as long as the sources stay (build/mutants/lines.json).
"""

from __future__ import annotations

import functools
import gc
import hashlib
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

ARGUMENTS = ["-q", "-x", "--assert=plain", "--tb=no", "-p", "no:cacheprovider", "-m", "not ca"]
SLOW_S = 0.4
"""A test that takes longer is not asked first, whatever it has noticed before."""
MEMORY_MOST = 3_000_000_000
Tell = Callable[[str], None]
Place = tuple[str, int]
"""Module and line."""


class Plugin:
    """Collects, then does `work` instead of running the tests; it gets the code that collecting has called."""

    def __init__(self, work: Callable[[pytest.Session, set[CodeType]], None], folder: str) -> None:
        self._work = work
        self._folder = folder
        self._called: set[CodeType] = set()

    def pytest_collection(self, session: pytest.Session) -> None:
        sys.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and self._folder in frame.f_code.co_filename:
            self._called.add(frame.f_code)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        sys.setprofile(None)
        if session.testsfailed:
            sys.exit("the tests cannot be collected")
        self._work(session, self._called)
        return True


class Only:
    """Keeps the tests that are wanted, in this order; all if there is none of them.  Tells which one failed."""

    def __init__(self, tests: list[str], tell: Tell) -> None:
        self._place = {test: k for k, test in enumerate(tests)}
        self._tell = tell

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        kept = [item for item in items if item.nodeid in self._place]
        if kept:
            items[:] = sorted(kept, key=lambda item: self._place[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._tell(report.nodeid)


class Living:
    """Functions of interlocks/ and caches that are alive, looked up once: a fork that searched would copy the heap."""

    def __init__(self) -> None:
        self._caches: list[Any] = []
        self._functions: dict[CodeType, list[FunctionType]] = {}
        for thing in gc.get_objects():
            if isinstance(thing, FunctionType) and "interlocks/" in thing.__code__.co_filename:
                self._functions.setdefault(thing.__code__, []).append(thing)
            elif isinstance(thing, functools._lru_cache_wrapper) and ours(thing):
                self._caches.append(thing)
        gc.freeze()

    def forget(self) -> None:
        """Whatever was computed before a mutant came must not hide it."""
        for cache in self._caches:
            cache.cache_clear()

    def replace(self, changed: list[tuple[CodeType, CodeType]]) -> bool:
        """Give the functions that live their new code; False if nobody holds the code that has changed."""
        found = [(thing, new) for old, new in changed for thing in self._functions.get(old, ())]
        for thing, new in found:
            thing.__code__ = new
        return bool(found)


def ours(thing: Any) -> bool:
    """A function of interlocks/ or its tests."""
    return str(thing.__module__).startswith(("interlocks", "tests"))


def run_items(session: pytest.Session, items: list[pytest.Item], note: Callable[[str, float], None]) -> bool:
    """Run tests up to the first that fails; `note` hears of each with its seconds.  True if none failed."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        begin = time.process_time()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        note(item.nodeid, time.process_time() - begin)
        if session.testsfailed:
            return False
    return True


def in_child(job: Callable[[Tell], int], cpu_s: float, wall_s: float) -> tuple[bool, str]:
    """Fork, do the job there with its time bounded; whether it ended with 0, and what it told its parent."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s) + 1, int(cpu_s) + 3))
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MOST, MEMORY_MOST))
            gc.disable()
            silence()
            code = job(lambda text: none(os.write(write_end, text.encode())))
        finally:
            os._exit(code)
    os.close(write_end)
    handle = os.pidfd_open(child)
    if not select.select([handle], [], [], wall_s)[0]:
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.set_blocking(read_end, False)
    try:
        text = os.read(read_end, 65536)
    except BlockingIOError:
        text = b""
    os.close(handle)
    os.close(read_end)
    return status == 0, text.decode(errors="replace")


def silence() -> None:
    """What tests print is of no interest."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)


def none(_: object) -> None:
    """Nothing."""


class Lines:
    """Which tests execute which lines of interlocks/, with their seconds, as `measure_all` has written it."""

    def __init__(self, path: Path) -> None:
        self.seconds: dict[str, float] = {}
        self.tests: dict[str, dict[int, list[str]]] = {}
        for found in json.loads(path.read_text()).values():
            self.seconds.update(found["seconds"])
            for module, lines in found["lines"].items():
                for line, tests in lines.items():
                    self.tests.setdefault(module, {}).setdefault(int(line), []).extend(tests)

    def of(self, places: Iterable[Place]) -> list[str]:
        """Tests that execute one of these lines, the fastest first."""
        found = {test for module, line in places for test in self.tests.get(module, {}).get(line, ())}
        return sorted(found, key=lambda test: (self.seconds[test], test))

    def within(self, tests: list[str], seconds: float) -> list[str]:
        """The first tests, one at least, that together take no longer."""
        spent, kept = 0.0, []
        for test in tests:
            spent += self.seconds[test]
            if kept and spent > seconds:
                break
            kept.append(test)
        return kept


def measure_all(path: Path, session: pytest.Session, living: Living) -> None:
    """Measure the files of tests that have changed since the last time, or all when interlocks/ has."""
    known = json.loads(path.read_text()) if path.exists() else {}
    files: dict[str, list[pytest.Item]] = {}
    for item in session.items:
        files.setdefault(item.nodeid.split("::")[0], []).append(item)
    helpers = [path for path in Path("tests/interlocks").glob("*.py") if not path.name.startswith("test_")]
    shared = digest_of(sorted([*Path("interlocks").rglob("*.py"), *helpers]))
    kept = {}
    for name, items in files.items():
        mark = shared + digest_of([Path(name)])
        found = known.get(name)
        if found is None or found["mark"] != mark:
            print(f"lines of {name}", flush=True)
            found = {"mark": mark, **measure(session, items, living)}
        kept[name] = found
        path.write_text(json.dumps({**known, **kept}))
    path.write_text(json.dumps(kept))


def digest_of(paths: list[Path]) -> str:
    """Of the contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def measure(session: pytest.Session, items: list[pytest.Item], living: Living) -> dict[str, Any]:
    """Run the tests of a file in a child that notes what each executes."""
    scratch = Path("lines.part")

    def job(_: Tell) -> int:
        from coverage import Coverage

        cover = Coverage(data_file=None, include=["interlocks/*"], config_file=False)
        seconds: dict[str, float] = {}
        cover.start()
        good = True
        for item in items:
            living.forget()
            cover.switch_context(item.nodeid)
            good = good and run_items(session, [item], seconds.__setitem__)
        cover.stop()
        data = cover.get_data()
        lines = {}
        for file in data.measured_files():
            found = data.contexts_by_lineno(file)
            lines[f"interlocks/{Path(file).name}"] = {str(n): [c for c in row if c] for n, row in found.items()}
        scratch.write_text(json.dumps({"seconds": seconds, "lines": lines}))
        return 0 if good else 1

    good, _ = in_child(job, 900.0, 1800.0)
    if not good:
        sys.exit(f"{items[0].nodeid.split('::')[0]}: its tests fail without a mutant")
    found: dict[str, Any] = json.loads(scratch.read_text())
    return found


class Warm:
    """Tries mutants of functions."""

    def __init__(
        self, session: pytest.Session, called: set[CodeType], lines: Lines, living: Living, seconds: float
    ) -> None:
        self._session = session
        self._called = called
        self._items = {item.nodeid: item for item in session.items}
        self._lines = lines
        self._living = living
        self._budget_s = seconds
        self._killers: dict[str, list[str]] = {}

    def _chosen(self, places: Iterable[Place], where: str) -> list[str]:
        """The tests for a mutant: what noticed its neighbours, then the fastest, as many as the budget holds."""
        tests = self._lines.of(places)
        first = [test for test in self._killers.get(where, ()) if test in tests]
        return self._lines.within(first + [test for test in tests if test not in first], self._budget_s)

    def _noticed(self, where: str, test: str) -> None:
        """Ask this test first about the next mutant there."""
        if self._lines.seconds.get(test, SLOW_S) < SLOW_S:
            row = self._killers.setdefault(where, [])
            if test in row:
                row.remove(test)
            row.insert(0, test)
            del row[6:]

    def run(self, source: str, mutated: str, module: str, places: list[Place], where: str) -> tuple[bool, str] | None:
        """(killed, by what) of a mutant; None if it cannot be tried here.

        Args:
            places: the lines that a test has to execute to be asked.
            where: the function, for remembering which tests notice most there.
        """
        try:
            old, new = (compile(text, module, "exec", dont_inherit=True) for text in (source, mutated))
        except SyntaxError:
            return None
        changed: list[tuple[CodeType, CodeType]] = []
        if not pair(old, new, changed) or not changed or any(one is old for one, _ in changed):
            return None
        early = any(one in self._called for one, _ in changed)
        tests = self._chosen(places, where)
        if not tests:
            return None if early else (False, "no test comes here")
        cost = sum(self._lines.seconds[test] for test in tests)

        def job(tell: Tell) -> int:
            if not self._living.replace(changed):
                tell("nobody")
                return 1
            self._living.forget()
            last = [""]
            items = [self._items[test] for test in tests]
            good = run_items(self._session, items, lambda test, _: last.__setitem__(0, test))
            if not good:
                tell(last[0])
            return 0 if good else 1

        good, test = in_child(job, 4.0 + 6.0 * cost, 60.0 + 20.0 * cost)
        if test == "nobody" or (good and early):  # what was made while collecting may yet show it
            return None
        if test:
            self._noticed(where, test)
        return not good, test or ("" if good else "it ends by itself or not at all")


def pair(old: CodeType, new: CodeType, changed: list[tuple[CodeType, CodeType]]) -> bool:
    """Find the code that differs, with all that holds it; False if the two do not match part by part."""
    olds, news = (
        [one for one in whole.co_consts if isinstance(one, CodeType)] for whole in (old, new)
    )  # functions, comprehensions, classes
    if [one.co_name for one in olds] != [one.co_name for one in news] or old.co_freevars != new.co_freevars:
        return False
    if not all(pair(one, other, changed) for one, other in zip(olds, news, strict=True)):
        return False
    holds = any(one in olds for one, _ in changed)
    if shape(old) != shape(new) or (holds and old.co_name != "<module>" and "__qualname__" not in old.co_names):
        changed.append((old, new))  # bodies of modules and classes have run; the functions in them live on
    return True


def shape(code: CodeType) -> tuple[object, ...]:
    """What a code does by itself."""
    plain = [one for one in code.co_consts if not isinstance(one, CodeType)]
    return code.co_code, code.co_names, code.co_varnames, repr(plain)
