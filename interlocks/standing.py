"""What rules do as they stand: which of them act, which withhold the permit, which stand against a reset.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from channels.command import Command, CommandResult
from facility.states import Action
from interlocks.answers import refused
from interlocks.explain import and_remedy
from interlocks.latch import RANK
from interlocks.snapshot import RuleView

_NEVER = "never"
"""When a latch that was not shown was seen."""


def acts(view: RuleView) -> bool:
    """In force now; not by the rack's echo of the permit's own lines, which is no finding of its own."""
    return not view.bypassed and (view.latched or (view.present and not view.rule.is_echo))


def inhibits(view: RuleView) -> bool:
    """Withholds the permit; latches may go."""
    return view.present and not view.bypassed and view.rule.strength == Action.INHIBIT


def inhibiting(views: Iterable[RuleView]) -> list[RuleView]:
    """All that withhold the permit, of rules most of which are not present."""
    return [view for view in views if view.present and inhibits(view)]


def words_of_inhibits(views: Sequence[RuleView]) -> str:
    """Why a reset released no permit."""
    return f"the permit stays away: {'; '.join(map(_present, inhibiting(views)))}"[:1000]


def _present(view: RuleView) -> str:
    """A rule that is present, and what to do about it."""
    return f"{view.rule.title}: present{and_remedy(view.rule)}"


def _words(views: Sequence[RuleView]) -> str:
    """What tripped or is present; the first few."""
    return "; ".join(view.words() if view.latched else _present(view) for view in views[:5])


def objection(command: Command, views: Sequence[RuleView]) -> CommandResult | None:
    """What stands against a reset: a latching rule that is present, a latch that the role may not reset, or one that
    whoever asks has not seen.

    A reset that could do nothing but release, and may not, is refused with the reason too.
    """
    standing = [view for view in views if view.present and view.rule.latches and not view.bypassed]
    if not standing and not any(view.latched for view in views):
        standing = inhibiting(views)
    if standing:
        return refused(command, "safety.present", _words(standing), standing)
    beyond = [view for view in views if view.latched and RANK[view.rule.reset] > RANK[command.role]]
    if beyond:
        words = f"{', '.join(view.rule.id for view in beyond)}: a physicist must reset it"
        return refused(command, "safety.role", words, beyond)
    return _unseen(command, [view for view in views if view.latched])


def _unseen(command: Command, latched: Sequence[RuleView]) -> CommandResult | None:
    """A latch that came, or came again, after the console had shown what is latched: `latched` of the command, the time
    of each trip by rule, None where it is not known. A reset without it is of whatever is latched."""
    seen = command.args.get("latched")
    if seen is None:
        return None
    if not isinstance(seen, dict):
        words = f"latched is {str(seen)[:60]!r}: give the t_ns of each rule that was shown, or leave it out"
        return refused(command, "safety.latched", words)
    came = [view for view in latched if seen.get(view.rule.id, _NEVER) not in (view.since_ns, None)]
    return refused(command, "safety.unseen", f"latched since: {_words(came)}", came) if came else None


def proofs_objection(released: bool, busy: bool, views: Sequence[RuleView]) -> str:
    """What stands against proof tests, in words; nothing: empty.

    A permit, a layer or a flat top (`busy`), a PAUSE or an ABORT in force: against one the loop's lines are not raised.
    """
    if released:
        return "the beam is permitted: proof tests run without a permit"
    if busy:
        return "a layer is active, or the ring stands on the flat top"
    against = [view for view in views if acts(view) and view.rule.strength >= Action.PAUSE]
    return f"proof tests run when nothing has tripped: {_words(against)}" if against else ""
