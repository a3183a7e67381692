"""pytest collects scenario files as tests: `pytest --ionctl-target=virtual configs/scenarios`.

Each scenario is one test, named by its id, with a marker for each of its rules (`rule_position_x`), one for the tier of
each (`tier_h`), one for its recovery path (`recovery_hold`) and `smoke`: `-m "tier_h and not smoke"` chooses. Without
`--ionctl-target` nothing is collected, so the plugin is silent in every other run of pytest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from facility.errors import IonctlError

if TYPE_CHECKING:
    from rig.scenario.loader import Loaded

TARGETS = ("virtual", "ca", "hil")


class ScenarioFailure(Exception):  # noqa: N818 - a verdict, no error
    """What was not as expected, a line each."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The three options."""
    group = parser.getgroup("ionctl", "scenarios of ionctl")
    group.addoption("--ionctl-target", choices=TARGETS, help="run scenario files (*.toml) on this target")
    group.addoption("--ionctl-config-dir", type=Path, help="folder searched first for facility files and rules")
    group.addoption("--ionctl-facility", help="run every scenario at this facility: a name or the path of a file")


def pytest_configure(config: pytest.Config) -> None:
    """The folder of `--ionctl-config-dir` comes first for all that is read: facilities, rules, tables, optics."""
    folder = config.getoption("--ionctl-config-dir", default=None)
    if folder is None:
        return
    if not folder.is_dir():
        raise pytest.UsageError(f"--ionctl-config-dir: there is no folder '{folder}'")
    from facility.config.loader import searched_first

    stack = contextlib.ExitStack()
    stack.enter_context(searched_first(folder))
    config.add_cleanup(stack.close)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A scenario file, if a target was named."""
    if parent.config.getoption("--ionctl-target") is None or file_path.suffix != ".toml":
        return None
    with file_path.open("rb") as file:
        if b"ionctl.scenarios/" not in file.read(65536):
            return None
    return ScenarioFile.from_parent(parent, path=file_path)


class ScenarioFile(pytest.File):
    """One file of scenarios."""

    def collect(self) -> Iterator[pytest.Item]:
        """A test for each scenario."""
        from rig.scenario.loader import load_all
        from rig.scenario.sources import rules_of

        option = self.config.getoption
        loaded = load_all([str(self.path)], option("--ionctl-config-dir"), option("--ionctl-facility"))
        for one in loaded:
            item = ScenarioItem.from_parent(self, name=one.scenario.id)
            item.loaded = one
            scenario = one.scenario
            facility = _facility(one)
            rules = rules_of(scenario.facility, scenario.room or next(iter(facility.rooms)),
                             scenario.species or next(iter(facility.species)), one.config_dir)  # fmt: skip
            names = {f"rule_{rule}" for rule in scenario.rules}
            names |= {f"tier_{rules.rule(rule).tier.lower()}" for rule in scenario.rules}
            names |= {f"recovery_{scenario.recovery}"} if scenario.recovery else set()
            names |= {"smoke"} if scenario.tier == "smoke" else set()
            for name in sorted(names):
                _mark(item, name.replace("-", "_"))
            yield item

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:  # type: ignore[override]
        """What is wrong with the file or its facility, in one line."""
        return str(excinfo.value) if isinstance(excinfo.value, IonctlError) else super().repr_failure(excinfo)


def _facility(one: Loaded) -> Any:
    from rig.scenario.sources import facility_of

    return facility_of(one.scenario.facility, one.config_dir)


def _mark(item: pytest.Item, name: str) -> None:
    """Known to `--strict-markers` from now on."""
    item.config.addinivalue_line("markers", f"{name}: scenarios of this rule, tier or recovery path")
    item.add_marker(name)


class ScenarioItem(pytest.Item):
    """One scenario."""

    loaded: Loaded

    def runtest(self) -> None:
        """Run and judge it; what is not for this target is skipped with the scenario's own reason."""
        from rig.scenario.model import Target
        from rig.scenario.run import run_on

        (result,) = run_on(Target(self.config.getoption("--ionctl-target")), [self.loaded])
        self.user_properties += [("rules", ",".join(result.rules)), ("facility_hash", result.facility_hash),
                                 ("seed", result.seed), ("digest", result.digest)]  # fmt: skip
        if result.verdict == "skipped":
            pytest.skip(result.reason)
        if result.failures:
            raise ScenarioFailure("\n".join(result.failures))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The words of the verdict, or of what the facility lacks, without a traceback."""
        if isinstance(excinfo.value, ScenarioFailure | IonctlError):
            return f"{self.loaded.scenario.title}\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """File and id."""
        return self.path, None, f"scenario {self.name}"
