"""The permit as the safety controller keeps it: steps in, events and answers to resets out; `permit` has the step."""

from __future__ import annotations

from collections.abc import Callable

from channels.command import CommandResult, Status
from interlocks import permit
from interlocks.first_fault import FirstFault
from interlocks.permit import Effect, Event, Lines, PermitState
from interlocks.reset_answer import ResetAnswer
from interlocks.rule_views import RuleViews
from interlocks.standing import words_of_inhibits

Emit = Callable[..., None]


class PermitDesk:
    """The permit, what tripped first while it was there, and the reset that waits for it.

    Args:
        first: the first fault, forgotten when the permit is released.
        views: all rules.
        emit: takes kind and data of an event.
        answer: takes the final answer to a reset that had to wait.
    """

    def __init__(
        self, first: FirstFault, views: RuleViews, emit: Emit, answer: Callable[[CommandResult], None]
    ) -> None:
        self.state = PermitState()
        self.handed_back = False
        """The permit went with its field, and not by a trip."""
        self.drops = 0
        """How often the permit has gone, that of a trial of the loop too."""
        self._raised = False
        self.reset = ResetAnswer()
        self._first = first
        self._views = views
        self._emit = emit
        self._answer = answer

    def step(self, event: Event, now_ns: int) -> tuple[Effect, ...]:
        """Take an event; what it led to has been told."""
        had = self.released
        self.state, effects = permit.step(self.state, event, now_ns)
        self.drops += had and not self.released
        for effect in effects:
            self._tell(effect)
        return effects

    def tells(self, raised: bool) -> None:
        """The rack is being told how the lines stand; `raised`: for a trial of the loop alone."""
        self.drops += self._raised and not raised
        self._raised = raised

    def _tell(self, effect: Effect) -> None:
        if effect is Effect.RELEASED:
            self._first.forget()
            self.handed_back = False
            self._emit("permit.released")
            self._end_reset(Status.DONE, "", "the permit is given")
        elif effect is Effect.DROPPED:
            self._emit("permit.dropped", first=self._first.id, action=self.state.action.name)
        elif effect is Effect.HANDED_BACK:
            self.handed_back = True
            self._emit("permit.handed-back")
        elif effect is Effect.INHIBITED:
            self._end_reset(Status.DONE, "", words_of_inhibits(self._views.all()))
        elif effect is Effect.RESET_INCOMPLETE:
            self._emit("reset.incomplete", latched=list(self._views.latched_ids()))
            self._end_reset(Status.FAILED, "safety.reset-incomplete", "the fast tier did not let go, or tripped")

    def _end_reset(self, status: Status, code: str, words: str) -> None:
        answer = self.reset.end(status, code, words, self._views.all(), self.released)
        if answer is not None:
            self._answer(answer)

    @property
    def released(self) -> bool:
        """A person has let the beam, and nothing has objected since."""
        return self.state.released

    @property
    def lines(self) -> Lines:
        """What the rack is told."""
        return permit.lines(self.state)
