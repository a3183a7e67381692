"""The truth of a session in parts, judged and written down: of all its parts, or of the last one alone and why."""

from __future__ import annotations

from control.plan.program import MachineProgram
from facility.config import Facility
from facility.errors import ConfigError
from rig.parts import Earlier
from rig.truth_check import T_IONS, TruthReport, judge_truth
from rig.truth_file import SpotTruth, added
from rig.truth_log import TRUTH_LOG_FILE, write_truth_log


def judged(
    facility: Facility, session: str, program: MachineProgram, earlier: Earlier, part: int, came: SpotTruth | None
) -> tuple[TruthReport | None, str]:
    """Judge and write down what the session got in all its parts by truth, `came` in the last one; in words, why that
    is not known."""
    path = earlier.folder / TRUTH_LOG_FILE
    try:
        if came is None:
            raise ConfigError("parts.truth", f"the plant has not told the truth of part {part}", session)
        whole = added(earlier.truth(program, session), came)
    except ConfigError as problem:
        path.unlink(missing_ok=True)  # it told of earlier parts alone; theirs is kept
        if came is None:
            return None, f"not known: {problem.what}"
        path = earlier.folder_of(part) / TRUTH_LOG_FILE
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_truth_log(path, session, program, came, facility)
        ions = sum(float(rows[:, T_IONS].sum()) for rows in came.values())
        return None, f"not known of the whole session: {problem.what}; part {part} gave {ions:.6e} ions ({path})"
    write_truth_log(path, session, program, whole, facility)
    return judge_truth(program.layers, whole), ""
