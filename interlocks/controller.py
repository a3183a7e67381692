"""The safety controller (tier P): scans the process image, remembers what tripped, holds the permit.

Synchronous and without I/O: whoever owns it brings images, keep-alives and verified commands, and carries the permit.
The permit begins away.  It comes by a person's reset when the link is good, the operator's console lives and no rule
stands against it; it comes again after every PAUSE and ABORT only the same way.  Fast rules latch in the rack; what is
latched there is mirrored here and let go through `reset_mask` and `reset_seq`.

`next_deadline_ns` and `thresholds` say how long scans may be left out: until that instant, and while the image stays
within those values, a scan would change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from channels.command import Command, CommandResult, Status
from facility.states import Action
from interlocks import latch, reset_answer
from interlocks.answers import refused
from interlocks.bypass import NO_MODE
from interlocks.bypass_desk import BypassDesk
from interlocks.console_watch import Console, ConsoleWatch
from interlocks.evaluator import code_box, code_limits
from interlocks.fast_mirror import FastMirror
from interlocks.field_book import FieldBook, FieldStore, MemoryStore, aborted
from interlocks.first_fault import FirstFault
from interlocks.link import PermitCommand
from interlocks.mode_key import ModeKey
from interlocks.model import MODE_CODES
from interlocks.outbox import Outbox
from interlocks.own_inputs import CONSOLE_INPUT
from interlocks.pair import EvaluatorPair
from interlocks.permit import Effect, Granted, HandedBack, Lines, Observed
from interlocks.permit_desk import PermitDesk
from interlocks.procedure_lines import LineWatch
from interlocks.process_image import NO_FAULT, PLACE, FastFault
from interlocks.proof import Proof
from interlocks.proof_book import ProofBook
from interlocks.rule_views import RuleViews
from interlocks.rules import RuleSet
from interlocks.snapshot import Mode, RuleView, SafetyEvent, SafetySnapshot
from interlocks.standing import acts, objection, proofs_objection, words_of_inhibits
from interlocks.verbs import VERBS

__all__ = ["Console", "SafetyController"]

NS_PER_MS = 1_000_000


class SafetyController:
    """Tier P.

    Args:
        rules: rules of facility, room and species.
        mode: operating mode.
        console: the operator's console.
        now_ns: facility time of the start.
        store: where the record of the field lives; None for memory.
        control: treatment control, which vouches for the lines of tier T; without one they stay down.
        proofs: pre-beam proof tests; none: none is missing.
    """

    def __init__(
        self,
        rules: RuleSet,
        mode: Mode,
        console: Console,
        now_ns: int,
        store: FieldStore | None = None,
        *,
        control: Console | None = None,
        proofs: tuple[Proof, ...] = (),
    ) -> None:
        self.rules = rules
        self._pair = EvaluatorPair(rules)
        self._scanner = self._pair.first
        self._key = ModeKey(mode, self._scanner.value)
        self._fast = FastMirror(rules.h)
        self._max_age_ms = rules.link.watchdog_ms
        self._console = ConsoleWatch(console, rules, now_ns)
        self._lines = LineWatch(control, rules, now_ns)
        self._link_ok = False
        self._first = FirstFault(rules.rules)
        self.revision = 0
        """Rises whenever something may have changed that a snapshot shows."""
        self._now_ns = now_ns
        self._due = True
        self._outbox = Outbox()
        self.take_events, self.take_results = self._outbox.take_events, self._outbox.take_results
        self._bypasses = BypassDesk(rules.rules, rules.policy, self._emit)
        self._views = RuleViews(rules, self._fast, self._pair, self._bypasses)
        self._permit = PermitDesk(self._first, self._views, self._emit, self._outbox.results.append)
        self._proofs = ProofBook(proofs, rules.link.watchdog_ms, self._emit)
        self._field = FieldBook(rules.rules, rules.policy, store or MemoryStore(), self._emit)
        self._verbs = {
            "reset": self._reset,
            "set_mode": self._set_mode,
            "bypass": self._bypass,
            "unbypass": self._unbypass,
            "open_field": self._open_field,
            "close_field": self._close_field,
            "resolve": self._resolve,
            "prove": self._prove,
        }

    @property
    def mode(self) -> Mode:
        """Operating mode that was set."""
        return self._key.mode

    # --- scan --------------------------------------------------------------------------------------------------
    def scan(
        self,
        image: NDArray[np.int32] | None,
        image_t_ns: int,
        now_ns: int,
        link_ok: bool,
        fault: FastFault = NO_FAULT,
        complement: Sequence[int] | None = None,
        rack_boot: int | None = None,
    ) -> PermitCommand:
        """Judge all rules on an image (codes, `interlocks.process_image`) and say what the rack must do.

        Without a link, or with an image older than the watchdog, the link rules trip and the others keep what they last
        saw; before the first image everything is unknown, and unknown is a trip.  `complement` is the own copy
        of the second evaluator, bitwise inverted (`second.complement_of`); without one the evaluators disagree.
        `rack_boot` says which start of the rack is heard: another one has passed no proof test.
        """
        self.revision += 1
        self._now_ns = now_ns
        fresh = link_ok and image is not None and self._is_fresh(image_t_ns, now_ns)
        self._link_ok = fresh
        if fresh and image is not None:
            self._pair.take(image, complement or (), image_t_ns)
            self._note_fast(image, fault)
        if self._bypasses.pass_time(self._key.in_force, now_ns):
            self._mask()
        self._proofs.measured_by(rack_boot)
        self._step_proofs(image_t_ns, now_ns)
        self._judge(now_ns)
        self._step_permit(now_ns)
        self._due = self._step_field() or (self._proofs.raises and self._tripped)
        self._lines.scanned(now_ns)
        return self.command_to_rack()

    def _is_fresh(self, image_t_ns: int, now_ns: int) -> bool:
        age_ms = (now_ns - image_t_ns) / NS_PER_MS
        return -self._max_age_ms <= age_ms <= self._max_age_ms

    def _note_fast(self, image: NDArray[np.int32], fault: FastFault) -> None:
        before = self._fast.present_mask
        for rule_id in self._fast.take(image, fault, self._now_ns):
            self._trip(self._fast.view(rule_id))
        appeared = self._fast.present_mask & ~before & self._fast.bypassed_mask
        for rule_id in self._fast.ids(appeared) if appeared else ():
            self._emit("bypass.masked", id=rule_id)

    def _judge(self, now_ns: int) -> None:
        own = (
            int(self._link_ok), self._console.age_ns(now_ns), *self._field.inputs,
            MODE_CODES[self.mode.value], int(self._pair.agreement.good), *self._lines.codes(now_ns),
            int(self._proofs.missing(now_ns)),
        )  # fmt: skip
        bypassed = self._bypasses.rules
        permitted = self._permitted()
        for rule_id, effect in self._pair.judge(own, self._link_ok, now_ns, permitted):
            view = self._scanner.view(rule_id)
            if effect is latch.Effect.TRIPPED:
                self._trip(view)
            elif effect is latch.Effect.APPEARED and rule_id in bypassed:
                self._emit("bypass.masked", id=rule_id, value=view.value, limit=view.limit)
        self._compare(own, permitted, now_ns)

    def _permitted(self) -> bool:
        """There is a permit, or a field has begun that is neither closed nor terminated."""
        field = self._field.state
        return self._permit.released or (field.begun and not field.unresolved)

    def _compare(self, own: Sequence[int], permitted: bool, now_ns: int) -> None:
        """Let the second evaluator judge the same; what they differ in is a trip of its own."""
        tripped, agreement = self._pair.compare(own, self._link_ok, now_ns, permitted), self._pair.agreement
        if tripped:
            self._emit("evaluators.disagree", rules=list(agreement.differing), same_image=self._pair.same_image)
        if tripped and self.rules.comparison is not None:
            self._trip(agreement.view(self.rules.comparison))

    # --- mode, bypasses, field ----------------------------------------------------------------------------------
    def _mask(self) -> None:
        """Let both tiers know which rules act."""
        self._pair.bypass(self._bypasses.rules)
        self._fast.bypassed_mask = self._bypasses.fast_mask
        self._due = True

    def _layer_active(self) -> bool:
        """A layer is armed, irradiating, held or paused; so is one of which nothing is known."""
        return self._scanner.value("fe.active") != 0.0

    def _step_field(self) -> bool:
        """Count HOLDs and interruptions; True if that is a reason to judge again."""
        present = frozenset(chain(self._scanner.present_ids(), self._fast.present_ids()))
        released, dropped = self._permit.lines.permit, self._permit.state.dropped
        return self._field.observe(self._layer_active(), present, released, aborted(released, dropped))

    def _step_proofs(self, image_t_ns: int, now_ns: int) -> None:
        """Follow the proof tests; what is asked of the rack goes out with this very scan."""
        answer = self._proofs.observe(self._scanner.value, image_t_ns, self._link_ok, now_ns, tripped=self._tripped)
        if answer is not None:
            self._outbox.results.append(answer)

    def _prove(self, command: Command) -> CommandResult:
        """Run proof tests: without a permit, with the ring empty, no layer active and nothing tripped."""
        self._due = True
        busy = self._layer_active() or self._scanner.value("ring.flat_top") != 0.0
        against = proofs_objection(self._permit.released, busy, self._views.all(live=False))
        return self._proofs.begin(command, against, self._now_ns)

    @property
    def _tripped(self) -> bool:
        """A PAUSE or an ABORT is in force."""
        return self._permit.state.action >= Action.PAUSE

    def _trip(self, view: RuleView) -> None:
        earlier = self._first.note(view)
        self._emit("interlock.trip", **view.to_data(), words=view.words())
        if earlier:
            self._emit("first-fault", id=view.rule.id, instead_of=earlier, t_condition_ns=view.since_ns)

    def _step_permit(self, now_ns: int) -> None:
        seen = Observed(self._pair.action, self._scanner.inhibited, self._fast.acting_mask, self._fast.acting)
        self._permit.step(seen, now_ns)

    def command_to_rack(self) -> PermitCommand:
        """What the rack is told as things stand."""
        lines, state = self._permit.lines, self._permit.state
        raised = self._proofs.raises and not state.released and not self._tripped
        self._permit.tells(raised)
        if raised:
            lines = Lines(True, True)  # the loop is tried: permit and hold, which lets no beam
        return PermitCommand(
            lines.permit, lines.hold, state.reset_mask, state.reset_seq, self._fast.bypassed_mask,
            self._link_ok and self._scanner.personnel_ok, *self._proofs.request, self._permit.handed_back,
            self._field.number, self._permit.drops,
        )  # fmt: skip

    @property
    def first_fault(self) -> str:
        """Rule whose condition held first, of those that have latched since the last release; empty if none has."""
        return self._first.id

    # --- keep-alives and commands -------------------------------------------------------------------------------
    def keep_alive(self, frame: bytes, now_ns: int) -> bool:
        """A keep-alive frame of the console has come; True if it was a sign of life."""
        heard = self._console.heard(frame, now_ns)
        self._due = self._due or (heard and self._scanner.is_present_on(CONSOLE_INPUT))
        return heard

    def lines(self, frame: bytes, now_ns: int) -> bool:
        """A keep-alive frame of control has come, with the lines of tier T; True if the rules see something new."""
        changed = self._lines.heard(frame, now_ns)
        self._due = self._due or changed
        return changed

    def command(self, command: Command, now_ns: int) -> CommandResult:
        """Carry out a verified command; control has no role that may."""
        allowed = VERBS.get(command.verb)
        if allowed is None:
            return refused(command, "safety.verb", f"no verb {command.verb!r}; there are {', '.join(sorted(VERBS))}")
        if command.role not in allowed:
            return refused(
                command, "safety.role", f"{command.verb} is for {', '.join(sorted(allowed))}, not {command.role}"
            )
        self.revision += 1
        self._now_ns = now_ns
        return self._verbs[command.verb](command)

    def _bypass(self, command: Command) -> CommandResult:
        result = self._bypasses.bypass(command, self._key.in_force, self._now_ns)
        self._mask()
        return result

    def _unbypass(self, command: Command) -> CommandResult:
        result = self._bypasses.unbypass(command, self._now_ns)
        self._mask()
        return result

    def _open_field(self, command: Command) -> CommandResult:
        self._due = True
        return self._field.open(command, self._layer_active())

    def _close_field(self, command: Command) -> CommandResult:
        """Close the field; the permit that was given for it goes back, so that a room can be opened without a trip."""
        self._due = True
        result = self._field.close(command, self._layer_active())
        if result.status is Status.DONE:
            self._permit.step(HandedBack(), self._now_ns)
        return result

    def _resolve(self, command: Command) -> CommandResult:
        self._due = True
        return self._field.resolve(command)

    def _set_mode(self, command: Command) -> CommandResult:
        result = self._key.set(command, self._permit.released, self._field.state)
        if result.status is Status.DONE:
            self._bypasses.end_all(self._now_ns)
            self._mask()
            self._emit("mode", by=command.issuer)
        return result

    def _reset(self, command: Command) -> CommandResult:
        """Let go of all latches at once, and release the permit; or say which rule stands against it and why.

        A person's signed reset is a sign of life of the console, and admits one that has restarted.
        """
        self._console.admit(self._now_ns)
        self._judge(self._now_ns)
        refusal = objection(command, self._views.all())
        self._step_permit(self._now_ns)
        if refusal is not None:
            return refusal
        latched = self._views.latched_ids()
        self._pair.reset(command.role, self._now_ns)
        still = self._views.latched_ids()
        self._step_permit(self._now_ns)
        fast_mask = self._fast.resettable_mask
        goes = self._fast.ids(fast_mask)
        cleared = [rule_id for rule_id in latched if rule_id in goes or rule_id not in still]
        for rule_id in cleared:
            self._emit("interlock.cleared", id=rule_id, by=command.issuer, role=command.role)
        effects = self._permit.step(Granted(fast_mask), self._now_ns)
        self._due = True
        views, released = self._views.all(), self._permit.released
        if Effect.RESET_FAST in effects:
            return self._permit.reset.wait(command, cleared, views, released)
        words = words_of_inhibits(views) if Effect.INHIBITED in effects else ""
        return reset_answer.done(command, words, cleared, views, released)

    # --- leaving scans out --------------------------------------------------------------------------------------
    def next_deadline_ns(self, now_ns: int, *, beats_watched: bool = False) -> int | None:
        """When time alone can change the outcome; `now_ns` if a scan is due already, None if never.

        `beats_watched`: the heartbeats live, and somebody watches them who brings an image as soon as one does not.
        The link's own watchdog is with the link's end: its owner scans with `link_ok` False when it runs out.
        """
        if self._due:
            return now_ns
        heard = self._console.alive and not self._scanner.is_present_on(CONSOLE_INPUT)
        times = (
            *self._scanner.deadlines(beats=not beats_watched),
            self._proofs.deadline_ns(now_ns),
            self._bypasses.deadline_ns(),
            self._permit.state.waits_until_ns,
            self._console.deadline_ns() if heard else None,
            self._lines.deadline_ns(now_ns),
        )
        known = [t_ns for t_ns in times if t_ns is not None]
        return max(now_ns, min(known)) if known else None

    def thresholds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest value of each image signal, in units of its resolution, within which no rule changes its
        mind: the arguments of `Plant.watch_image`."""
        active = self._scanner.value("fe.active")
        pinned = (*self._fast.boxes(), (PLACE["fe.active"], active, active), *self._proofs.boxes(self._scanner.value))
        return code_limits(chain(self._scanner.boxes(), map(code_box, pinned), self._pair.second.boxes()))

    # --- what there is to see -----------------------------------------------------------------------------------
    def snapshot(self, *, live: bool = True) -> SafetySnapshot:
        """Everything as it stands; not `live`: without the values of fast rules now, which cost as much as all else."""
        lines = self._permit.lines
        views = self._views.all(live=live)
        in_force = [view.rule.strength for view in views if (view.present or view.latched) and acts(view)]
        field = self._field.state
        return SafetySnapshot(
            self._now_ns,
            lines.permit,
            lines.hold,
            self._permit.released,
            max(in_force, default=Action.NONE),
            self.first_fault,
            self.mode,
            self._link_ok,
            views,
            self._key.in_force != NO_MODE,
            field.session,
            dict(zip(self._field.spec.rules, field.holds, strict=True)),
            field.pauses,
            field.begun,
            field.unresolved,
            self._proofs.rows(self._now_ns),
            self._proofs.running,
        )

    def _emit(self, kind: str, **data: object) -> None:
        self._outbox.events.append(SafetyEvent(self._now_ns, kind, {**data, "mode": self.mode.value}))
