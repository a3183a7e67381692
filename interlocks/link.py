"""Both ends of the safety link: what travels in its frames, and when a peer may be believed again.

`channels.frames` judges frames; here is what they mean.  The rack sends its process image, the safety controller the
permit.  A link that has tripped listens anew by itself, which is safe because of three rules:

- the safety controller takes its permit away when the link trips, and gives it again only after a person's reset;
- a permit that went and came again is counted (`drops`), so that the rack takes the beam away for it even if the
  frame that said so was lost, or was one of several that waited for a rack that had stalled;
- the rack believes a peer only after it has seen it *without* a permit: at the start, after every trip, after a restart
  of either side.  A controller that never noticed the trip cannot close the permit again.

A safety controller is started for a rack that runs already, whose time it takes over.  What one has said that began
before the rack is a recording, and refused as of an older boot, although the rack has never heard of a newer one.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from channels import frames
from channels.frames import Accepted, Kind, Reason
from facility.states import ProofAction
from interlocks import process_image
from interlocks.model import LinkSettings
from interlocks.process_image import NO_FAULT, FastFault
from interlocks.second import complement_of

RACK = "rack"
SAFETY = "safety"
NS_PER_MS = 1_000_000
_PERMIT = struct.Struct(">BBQIQBBIBII")
_COUNT = 1 << 32
_FLAGS = {0: False, 1: True}
_FOR_THE_RACK = frozenset(int(action) for action in ProofAction if action is not ProofAction.PERMIT_LOOP)


class PermitCommand(NamedTuple):
    """What the safety controller tells the rack.  Permit 0 hold 0 is ABORT, 0/1 PAUSE, 1/1 HOLD, 1/0 beam."""

    permit: bool
    hold: bool
    reset_mask: int
    """Fast latches to let go when `reset_seq` rises."""
    reset_seq: int
    bypass_mask: int = 0
    """Fast rules that neither act nor latch as long as this frame is the last."""
    personnel: bool = False
    """The personnel chain is good: the stopper may be out, the source may inject."""
    proof_action: int = 0
    """Action of the proof tests that the rack carries out when `proof_seq` rises; 0 is none."""
    proof_seq: int = 0
    handed_back: bool = False
    """The permit is away because a field is over: nothing has tripped.  For the rack's log, nothing acts on it."""
    field: int = 0
    """Number of the field that a person has opened (`facility.ids.field_number`), 0 for none: the front end begins no
    other."""
    drops: int = 0
    """How often the permit has gone since the start, modulo 2^32: what a frame that was lost or came late has said."""


class RackLines(NamedTuple):
    """What the rack makes of it: the arguments of `Plant.set_safety_lines`."""

    permit: bool
    hold: bool
    link_ok: bool
    bypass_mask: int = 0
    personnel: bool = False
    field: int = 0


DEAD_LINES = RackLines(False, False, False)


def pack_permit(command: PermitCommand) -> bytes:
    """Payload of a frame to the rack."""
    return _PERMIT.pack(*command._replace(drops=command.drops % _COUNT))


def unpack_permit(payload: bytes) -> PermitCommand | None:
    """The command of a payload; None for anything that is not exactly one."""
    if len(payload) != _PERMIT.size:
        return None
    permit, hold, mask, seq, bypassed, personnel, action, proof_seq, back, field, drops = _PERMIT.unpack(payload)
    if any(flag not in _FLAGS for flag in (permit, hold, personnel, back)):
        return None
    return PermitCommand(
        _FLAGS[permit], _FLAGS[hold], mask, seq, bypassed, _FLAGS[personnel], action, proof_seq, _FLAGS[back], field,
        drops,
    )  # fmt: skip


class _End:
    """One end: a sender, a receiver, and the trip that nobody must overlook."""

    def __init__(
        self, facility: str, source: str, peer: str, receives: Kind, boot: int, settings: LinkSettings, now_ns: int
    ) -> None:
        watchdog_ns = round(settings.watchdog_ms * NS_PER_MS)
        max_age_ns = round(settings.max_age_ms * NS_PER_MS)
        outward = frames.make_link(facility, source, peer, watchdog_ns=watchdog_ns, max_age_ns=max_age_ns)
        inward = frames.make_link(
            facility, peer, source, watchdog_ns=watchdog_ns, max_age_ns=max_age_ns, kinds=frozenset({receives})
        )
        self._sender = frames.SendState(outward, boot)
        self._state = frames.listening(inward, now_ns)
        self._lost = False
        self.trips = 0
        """How often the link has tripped."""
        self.last_reason: Reason | None = None
        """Why the last bad frame was refused."""
        self.trip_cause = ""
        """Why the link tripped last: `frames.trip_cause`."""

    def _accept(self, frame: bytes, now_ns: int) -> Accepted | None:
        self._state, outcome = frames.receive(self._state, frame, now_ns, sent_seq=self._sender.seq)
        if isinstance(outcome, Accepted):
            return outcome
        self.last_reason = outcome.reason
        return None

    def _send(self, kind: Kind, payload: bytes, now_ns: int) -> bytes:
        self._sender, frame = frames.send(self._sender, kind, payload, self._state.seq, now_ns)
        return frame

    def _listens(self, now_ns: int) -> bool:
        """Whether the peer can be heard; a trip is seen here once at least, and listening begins anew."""
        state = frames.watch(self._state, now_ns)
        if not state.tripped:
            return state.boot is not None
        if state.boot is not None or self._state.tripped:
            self.trips += 1
            self.trip_cause = frames.trip_cause(state, now_ns)
            self._lost = True
        self._state = frames.resync(state, now_ns)
        return False

    @property
    def bad_frames(self) -> int:
        """Frames refused since the start."""
        return self._state.bad_total

    @property
    def peer_boot(self) -> int | None:
        """Boot identity of the peer that is listened to."""
        return self._state.boot

    def deadline_ns(self) -> int:
        """When the watchdog runs out unless a frame comes, ns."""
        return frames.deadline_ns(self._state)


class SafetyEnd(_End):
    """The safety controller's end.

    Args:
        facility: what both ends must have in common: the configuration hash.
        boot: boot identity, higher with every start.
        settings: `[link]` of the rule file.
        now_ns: facility time at which listening begins.
    """

    def __init__(self, facility: str, boot: int, settings: LinkSettings, now_ns: int) -> None:
        super().__init__(facility, SAFETY, RACK, Kind.PROCESS_IMAGE, boot, settings, now_ns)
        self.image: NDArray[np.int32] | None = None
        """The last process image; None before the first and after one of the wrong length."""
        self.complement: tuple[int, ...] = ()
        """The same, inverted bit by bit, straight from the frame's bytes: the second evaluator's own copy."""
        self.image_t_ns = 0
        self.fault: FastFault = NO_FAULT

    def receive(self, frame: bytes, now_ns: int) -> bool:
        """Take a frame; True if it brought an image."""
        accepted = self._accept(frame, now_ns)
        if accepted is None:
            return False
        found = process_image.unpack(accepted.payload)
        if found is None:
            self.image = None
            return False
        self.image, self.fault = found
        self.complement = complement_of(accepted.payload, process_image.N_IMAGE)
        self.image_t_ns = accepted.t_ns
        return True

    def link_ok(self, now_ns: int) -> bool:
        """Whether the image may be believed.  A trip shows here as False once at least."""
        return self._listens(now_ns) and self.image is not None

    def send(self, command: PermitCommand, now_ns: int) -> bytes:
        """The next frame to the rack."""
        return self._send(Kind.PERMIT, pack_permit(command), now_ns)


class RackEnd(_End):
    """The rack's end; arguments as `SafetyEnd`."""

    def __init__(self, facility: str, boot: int, settings: LinkSettings, now_ns: int) -> None:
        super().__init__(facility, RACK, SAFETY, Kind.PERMIT, boot, settings, now_ns)
        self._state = self._state._replace(boot_floor=boot - 1)  # a safety controller begins after its rack
        self._command: PermitCommand | None = None
        self._believed = False
        self._reset_of: tuple[int, int] | None = None
        self._reset_mask = 0
        self._proof_of: tuple[int, int] | None = None
        self._proof: tuple[int, int] | None = None
        self._drops_of: tuple[int, int] | None = None
        self._dropped = self._drop_told = False

    def receive(self, frame: bytes, now_ns: int) -> bool:
        """Take a frame; True if it brought a command.  A sound frame that brings none ends the one before it: whoever
        sent it does not say what this end takes it for."""
        accepted = self._accept(frame, now_ns)
        if accepted is None or self._state.boot is None:
            return False
        command = unpack_permit(accepted.payload)
        if command is None:
            self._command, self._believed = None, False
            return False
        if not command.permit:
            self._believed = True
        self._note_reset(command, self._state.boot)
        self._note_proof(command, self._state.boot)
        self._note_drops(command, self._state.boot)
        self._command = command
        return True

    def _note_reset(self, command: PermitCommand, boot: int) -> None:
        """A reset is carried out once, and only if its number was seen to rise."""
        known, self._reset_of = self._reset_of, (boot, command.reset_seq)
        if known is not None and known[0] == boot and command.reset_seq > known[1]:
            self._reset_mask |= command.reset_mask

    def _note_proof(self, command: PermitCommand, boot: int) -> None:
        """A proof action is carried out once, and only if its number was seen to rise."""
        known, self._proof_of = self._proof_of, (boot, command.proof_seq)
        if known is not None and known[0] == boot and command.proof_seq > known[1]:
            self._proof = (command.proof_action, command.proof_seq) if command.proof_action in _FOR_THE_RACK else None

    def _note_drops(self, command: PermitCommand, boot: int) -> None:
        """A permit that went and came back between two frames that were heard goes here, too, until the lines have said
        so and another frame has come."""
        known, self._drops_of = self._drops_of, (boot, command.drops)
        if known is not None and known[0] == boot and command.drops != known[1]:
            self._dropped, self._drop_told = True, False
        elif self._drop_told:
            self._dropped = self._drop_told = False

    def take_proof(self) -> tuple[int, int] | None:
        """Action and number of a proof that was asked for since the last call; None if none was."""
        asked, self._proof = self._proof, None
        return asked

    @property
    def lost_by_trip(self) -> bool:
        """A permit that has gone was taken by a trip: it was not that of a proof of the loop, and not handed back."""
        command = self._command
        return command is None or not (command.handed_back or command.proof_action == ProofAction.PERMIT_LOOP)

    def lines(self, now_ns: int) -> RackLines:
        """The lines as they must stand now; all of them off unless the peer is heard and believed."""
        heard = self._listens(now_ns)
        if self._lost:
            self._lost = self._believed = False
            self._command = None
        if not heard or not self._believed or self._command is None:
            return DEAD_LINES
        command = self._command
        self._drop_told = self._dropped
        if self._dropped and command.permit:
            command = command._replace(permit=False, hold=True)
        return RackLines(command.permit, command.hold, True, command.bypass_mask, command.personnel, command.field)

    def take_reset(self) -> int:
        """Fast latches that a reset has asked to let go since the last call, mask; 0 if none."""
        mask, self._reset_mask = self._reset_mask, 0
        return mask

    def send(self, image: NDArray[np.int32], fault: FastFault, now_ns: int) -> bytes:
        """The next frame to the safety controller."""
        return self._send(Kind.PROCESS_IMAGE, process_image.pack(image, fault), now_ns)
