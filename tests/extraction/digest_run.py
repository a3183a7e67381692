"""Track two small beams and print a digest of all that came of it: compiled and plain runs have to agree."""

from __future__ import annotations

import hashlib
import warnings

from facility.jit import COMPILED
from ioc_sim.extraction.spill import run_spill
from ioc_sim.extraction.tracking import Line, Programme
from tests.extraction.settings import setting


def main() -> None:
    """One line: COMPILED or PLAIN, particles that left, digest."""
    if not COMPILED:
        warnings.simplefilter("ignore", RuntimeWarning)  # 64-bit products wrap round on purpose
    digest = hashlib.sha256()
    left = 0
    for name, drive in (("wuwei", 30.0), ("pimms", 300.0)):
        programme = Programme(drive_on=5, ramp_turns=20, ripple=(Line(1e-5, 1e-3, 0.3),))
        spill = run_spill(setting(name, particles=300, turns=220, drive=drive), programme)
        beam = spill.beam
        for array in (beam.x, beam.p, beam.delta, beam.status, beam.end_turn, beam.inside_turn, beam.end):
            digest.update(array.tobytes())
        left += 300 - spill.counts["stored"]
    print("COMPILED" if COMPILED else "PLAIN", left, digest.hexdigest())


if __name__ == "__main__":
    main()
