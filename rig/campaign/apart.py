"""A process for one block of a campaign: setting and seeds come pickled on standard input, outcomes go out pickled."""

from __future__ import annotations

import pickle
import sys

from rig.campaign.block import run_block


def main() -> None:
    """Run the block."""
    setting, seeds = pickle.load(sys.stdin.buffer)
    outcomes = run_block(setting, seeds)
    sys.stdout.buffer.write(pickle.dumps(outcomes))


if __name__ == "__main__":
    main()
