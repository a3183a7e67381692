"""How far a session is, as the operator sees it."""

from __future__ import annotations

from control.machine_status import FeStatus
from control.session import Session
from facility.pv_catalogue import PROGRESS
from facility.timebase import NS_PER_S


def progress_of(session: Session | None, fe: FeStatus | None, end_ns: int) -> dict[str, float]:
    """Elements of TCS:Progress-RB by name; those that do not come from the session are 0. `end_ns`: now, or the end."""
    values = dict.fromkeys(PROGRESS, 0.0)
    if session is None:
        return values
    spots, ions, beam_s = session.done()
    if fe is not None and session.unaccounted and not session.finished and fe.token == session.book.layer.token:
        spots, ions, beam_s = spots + fe.done_spots, ions + fe.ic1_ions, beam_s + fe.beam_us * 1e-6
    started = session.t_started_ns
    return values | {
        "layer": session.index,
        "layers": len(session.books),
        "spots_done": spots,
        "spots": session.spots,
        "ions_done": ions,
        "ions": session.prescribed_ions,
        "beam_on_s": beam_s,
        "facility_s": 0.0 if started is None else (end_ns - started) / NS_PER_S,
    }
