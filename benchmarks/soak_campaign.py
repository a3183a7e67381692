"""Campaigns: one case is a block of 100 runs that share a trunk, the seeds from 100 times its number on."""

from __future__ import annotations

from rig.campaign.block import run_block
from rig.campaign.setting import BLOCK, Setting
from rig.logs import configure_logs


def block(number: int) -> tuple[str, dict[str, float]]:
    """What did not hold in any run of the block; the worst surplus of a spot."""
    configure_logs(json_lines=False, level="error")
    outcomes = run_block(Setting(), range(number * BLOCK, (number + 1) * BLOCK))
    failed = [f"seed {outcome.seed}: {'; '.join(outcome.failures)}" for outcome in outcomes if not outcome.passed]
    worst = max(outcome.surplus_pct for outcome in outcomes)
    return " | ".join(failed), {"surplus of a spot, % of its layer's heaviest": worst}
