"""Spread a campaign over processes or a Dask cluster. Results are kept by seed: who is lost is asked again."""

from __future__ import annotations

import functools
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from facility.errors import InternalError, UsageError
from rig.campaign.block import run_block, shrink
from rig.campaign.outcome import Outcome
from rig.campaign.report import Report
from rig.campaign.setting import Setting, blocks, choice_of
from rig.logs import configure_logs

Seeds = tuple[int, ...]
RunBlock = Callable[[Setting, Seeds], list[Outcome]]
OnDone = Callable[[int], None]
"""Told how many runs are done."""
ATTEMPTS = 3
"""Pools that may be lost before it is the runs that are to blame."""
SHRUNK_MAX = 5
"""So many failing runs are made smaller; the others are of the same kind more often than not."""
QUIET = functools.partial(configure_logs, json_lines=False, level="error")
"""What control warns of in a run that goes wrong on purpose is no news."""
BLOCK_TIMEOUT_S = 3600.0
ANSWER_S = 10.0
"""Longest wait for a Dask scheduler."""


def run_campaign(
    setting: Setting, first_seed: int, runs: int, jobs: int = 1, scheduler: str = "", on_done: OnDone | None = None
) -> Report:
    """All runs of a campaign. UsageError where nothing can be drawn, or Dask is wanted and not there.

    Args:
        setting: what they have in common.
        first_seed: of the first; the others follow.
        runs: how many.
        jobs: processes on this machine.
        scheduler: address of a Dask scheduler; then its workers run them.
        on_done: told as they come in.
    """
    choice_of(setting)
    found: dict[int, Outcome] = {}
    wanted = blocks(first_seed, runs)
    if scheduler:
        arriving = _on_dask(setting, wanted, scheduler)
    elif jobs > 1:
        arriving = _on_processes(setting, wanted, jobs)
    else:
        arriving = (run_block(setting, seeds) for seeds in wanted)
    for outcomes in arriving:
        found.update({outcome.seed: outcome for outcome in outcomes})
        if on_done is not None:
            on_done(len(found))
    ordered = tuple(found[seed] for seed in sorted(found))
    failing = [outcome.seed for outcome in ordered if not outcome.passed][:SHRUNK_MAX]
    left = {seed: tuple(cause.words() for cause in shrink(setting, seed)[0].causes) for seed in failing}
    return Report(setting, ordered, left)


def _on_processes(
    setting: Setting, wanted: list[Seeds], jobs: int, run: RunBlock = run_block
) -> Iterator[list[Outcome]]:
    """A process that dies takes the pool with it: what had not come back is asked of another pool."""
    left, context = set(wanted), multiprocessing.get_context("spawn")
    for _ in range(ATTEMPTS):
        try:
            with ProcessPoolExecutor(jobs, mp_context=context, initializer=QUIET) as pool:
                asked = {pool.submit(run, setting, seeds): seeds for seeds in sorted(left)}
                for done in as_completed(asked):
                    outcomes = done.result()
                    left.discard(asked[done])
                    yield outcomes
            return
        except BrokenProcessPool:
            continue
    raise InternalError("campaign.lost", f"{ATTEMPTS} pools of processes have died", "campaign",
                        f"run the seeds alone: {min(left)[0]} to {max(left)[-1]}")  # fmt: skip


def _on_dask(setting: Setting, wanted: list[Seeds], scheduler: str) -> Iterator[list[Outcome]]:
    """Dask asks another worker where one is lost; each block runs in a process of its own there, since a worker has
    threads and a world that is copied must have none."""
    try:
        from distributed import Client
        from distributed import as_completed as as_they_come
    except ImportError as problem:
        raise UsageError("campaign.no-dask", "Dask is not installed", "--scheduler",
                         "pip install 'ionctl[dask]', here and on the workers") from problem  # fmt: skip
    try:
        connected = Client(scheduler, timeout=ANSWER_S)
    except (OSError, ValueError) as problem:
        raise UsageError("campaign.scheduler", f"no Dask scheduler answers at {scheduler!r}: {problem}", "--scheduler",
                         "start one: dask scheduler; and give the address that it prints") from problem  # fmt: skip
    with connected as client:
        asked = [client.submit(block_apart, setting, seeds, pure=False, retries=ATTEMPTS) for seeds in wanted]
        for done in as_they_come(asked):
            yield done.result()


def block_apart(setting: Setting, seeds: Seeds) -> list[Outcome]:
    """A block in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "rig.campaign.apart"], input=pickle.dumps((setting, seeds)), capture_output=True,
        timeout=BLOCK_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace")[-2000:]
        raise InternalError("campaign.block", f"seeds {seeds[0]} to {seeds[-1]}: {words}", "rig.campaign.apart")
    found: Any = pickle.loads(done.stdout)
    return list(found)
