"""The treatment room as its contacts show it: search, emergency stop, key locks, and what the personnel chain drives.

Search (last man out), in two chains of relays that have nothing in common but the buttons: the button at the far end,
then the one at the exit within a time, the door opened and closed behind within another, a delay with warning.  A door
that opens, a button out of turn or a time that has run out takes a chain back to the beginning.

The personnel line comes from the safety controller over the link and is off with the link: stopper in, source
inhibited.  Judged once a millisecond.
"""

from __future__ import annotations

import math

import numpy as np

from facility import signals as g
from facility.jit import Record, kernel
from ioc_sim import faults as fp
from ioc_sim.codes import LEAVING, NOT_DONE, SEARCHED, SEARCHING, WARNING
from ioc_sim.faults import faulted
from ioc_sim.layout import EV_ROOM

MOST_ROOMS = 16


@kernel
def search_step(
    p: Record, stage: int, held_ns: int, far: bool, leave: bool, door_open: bool, door_opened: bool
) -> int:  # fmt: skip
    """The next stage of a search chain.

    ``held_ns`` is how long the stage has lasted; ``far`` and ``leave`` are buttons that have just gone down, at the far
    end and at the exit; ``door_opened`` is a door that has just opened.  In LEAVING the sign of the stage says whether
    the door has been opened: negative until then.
    """
    if far:
        return SEARCHING if stage != WARNING and stage != SEARCHED else NOT_DONE
    if stage == SEARCHING:
        if door_opened or held_ns > p.search_press_ns:
            return NOT_DONE
        return -LEAVING if leave and not door_open else (LEAVING if leave else SEARCHING)
    if abs(stage) == LEAVING:
        if held_ns > p.search_leave_ns:
            return NOT_DONE
        if door_open:
            return LEAVING
        return WARNING if stage == LEAVING else -LEAVING
    if stage >= WARNING:
        if door_open or leave:
            return NOT_DONE
        return SEARCHED if held_ns >= p.search_delay_ns else stage
    return NOT_DONE


@kernel
def search_ms(p: Record, s: Record, faults: np.ndarray) -> None:
    """Both search chains over a millisecond, each with its own door contact and timer."""
    far = faulted(s, faults, fp.BUTTON_FAR, float(s.press_far), s.t_ns) == 1.0
    leave = faulted(s, faults, fp.BUTTON_EXIT, float(s.press_exit), s.t_ns) == 1.0
    s.press_far = 0
    s.press_exit = 0
    new_far = far and s.was_far == 0
    new_exit = leave and s.was_exit == 0
    s.was_far = 1 if far else 0
    s.was_exit = 1 if leave else 0
    open_a = faulted(s, faults, fp.DOOR_A, float(s.door_a), s.t_ns) != 1.0
    open_b = faulted(s, faults, fp.DOOR_B, float(s.door_b), s.t_ns) != 1.0
    opened_a = open_a and s.was_open_a == 0
    opened_b = open_b and s.was_open_b == 0
    s.was_open_a = 1 if open_a else 0
    s.was_open_b = 1 if open_b else 0
    stage = search_step(p, s.search_a, s.t_ns - s.search_a_ns, new_far, new_exit, open_a, opened_a)
    if stage != s.search_a or new_far:
        if abs(stage) != abs(s.search_a) or new_far:
            s.search_a_ns = s.t_ns
        s.search_a = stage
    stage = search_step(p, s.search_b, s.t_ns - s.search_b_ns, new_far, new_exit, open_b, opened_b)
    if stage != s.search_b or new_far:
        if abs(stage) != abs(s.search_b) or new_far:
            s.search_b_ns = s.t_ns
        s.search_b = stage


@kernel
def search_stage(s: Record) -> int:
    """The stage to show: of the chain that is less far."""
    return min(abs(s.search_a), abs(s.search_b))


@kernel
def key_locks(s: Record, faults: np.ndarray) -> int:
    """Rooms whose key lock holds the beam token, bit mask; there is one token, so one bit, unless something failed."""
    mask = 1 << s.room_token if s.room_token >= 0 else 0
    value = faulted(s, faults, fp.ROOM_TOKENS, float(mask), s.t_ns)
    if not 0.0 <= value < float(1 << MOST_ROOMS):
        return 0
    return int(value)


@kernel
def count_of(mask: int) -> int:
    """Bits that are set."""
    count = 0
    for k in range(MOST_ROOMS):
        count += (mask >> k) & 1
    return count


@kernel
def only_of(mask: int) -> int:
    """The only bit that is set; -1 for none or more than one."""
    found = -1
    for k in range(MOST_ROOMS):
        if (mask >> k) & 1:
            if found >= 0:
                return -1
            found = k
    return found


@kernel
def personnel_ms(p: Record, s: Record, faults: np.ndarray) -> None:
    """The stopper over a millisecond: out only while asked for and let by the chain."""
    wanted = 1 if (s.stopper_asked == 1 or s.personnel == 0 or s.proof_stopper == 1) else 0
    if wanted != s.stopper_cmd:
        s.stopper_cmd = wanted
        s.stopper_done_ns = s.t_ns + p.stopper_ns
    place = s.stopper_in
    if s.t_ns >= s.stopper_done_ns:
        place = s.stopper_cmd
    s.stopper_in = 1 if faulted(s, faults, fp.STOPPER, float(place), s.t_ns) == 1.0 else 0


@kernel
def told(sig: np.ndarray, i: int, value: float) -> bool:
    """Put a value into its place; True if it is another one than before."""
    before = sig[i]
    sig[i] = value
    return value != before and not (math.isnan(value) and math.isnan(before))


@kernel
def publish_room(s: Record, sig: np.ndarray, faults: np.ndarray) -> None:
    """What the contacts of the room say; a change of door, emergency stop or search is an event."""
    t_ns = s.t_ns
    tokens = key_locks(s, faults)
    sig[g.ROOM_TOKENS] = count_of(tokens)
    sig[g.ROOM_TOKEN] = faulted(s, faults, fp.ROOM_TOKEN, float(only_of(tokens)), t_ns)
    sig[g.PERSONNEL] = s.personnel
    news = told(sig, g.DOOR_A, faulted(s, faults, fp.DOOR_A, float(s.door_a), t_ns))
    news |= told(sig, g.DOOR_B, faulted(s, faults, fp.DOOR_B, float(s.door_b), t_ns))
    news |= told(sig, g.ESTOP_A, faulted(s, faults, fp.ESTOP_A, float(s.estop_a), t_ns))
    news |= told(sig, g.ESTOP_B, faulted(s, faults, fp.ESTOP_B, float(s.estop_b), t_ns))
    news |= told(sig, g.SEARCH_A, faulted(s, faults, fp.SEARCH_A, 1.0 if s.search_a == SEARCHED else 0.0, t_ns))
    news |= told(sig, g.SEARCH_B, faulted(s, faults, fp.SEARCH_B, 1.0 if s.search_b == SEARCHED else 0.0, t_ns))
    news |= told(sig, g.SEARCH_STAGE, float(search_stage(s)))
    if news:
        s.events |= EV_ROOM
