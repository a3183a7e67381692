"""Causes in treatment control and in the safety controller themselves: one dies, its memory changes, it reads a wrong
value, its record is gone; the other's copy of the image has a wrong bit."""

from __future__ import annotations

from dataclasses import replace

from channels.publish import publish
from control.session import LayerBook
from facility.errors import InternalError
from rig.trials.causes import Act
from rig.virtual_world import World, WorldParts

CONTROL_ACTS = frozenset(
    {Act.COPY_FLIPPED, Act.CONTROL_SILENT, Act.PLAN_ALTERED, Act.READBACK_WRONG, Act.AUTHORITY_LOST}
)
_ALTERED = 1.5
_READBACK = "RS:Code-RB"


class ControlActs:
    """What can happen to control in a facility in virtual time."""

    def __init__(self, world: World, parts: WorldParts) -> None:
        self._world = world
        self._control = parts.control
        self._book: LayerBook | None = None
        self._before: object = None

    def begin(self, act: Act) -> None:
        """Let it come about now."""
        if act is Act.COPY_FLIPPED:
            self._world.safety.flip_copy(1)
        elif act is Act.CONTROL_SILENT:
            self._control.lines.silent = True
        elif act is Act.PLAN_ALTERED:
            book = self._present()
            self._before = book.layer
            book.layer = replace(book.layer, target_ions=book.layer.target_ions * _ALTERED)  # type: ignore[type-var]
        elif act is Act.READBACK_WRONG:
            channel = self._world.iocs.pvdb[f"{self._world.facility.pv_prefix}:{_READBACK}"]
            self._before = channel.value
            publish(channel, int(channel.value) ^ 1, self._world.loop.now_ns())
        elif act is Act.AUTHORITY_LOST:
            session = self._control.sequencer.session
            if session is not None:
                self._before, session.authorised_by = session.authorised_by, ""

    def end(self, act: Act) -> None:
        """Undo it."""
        if act is Act.COPY_FLIPPED:
            self._world.safety.flip_copy(0)
        elif act is Act.CONTROL_SILENT:
            self._control.lines.silent = False
        elif act is Act.PLAN_ALTERED and self._book is not None:
            self._book.layer = self._before  # type: ignore[assignment]
        elif act is Act.READBACK_WRONG:
            channel = self._world.iocs.pvdb[f"{self._world.facility.pv_prefix}:{_READBACK}"]
            publish(channel, self._before, self._world.loop.now_ns())  # type: ignore[arg-type]

    def _present(self) -> LayerBook:
        session = self._control.sequencer.session
        if session is None or session.finished:
            raise InternalError("trials.no-layer", "control has no layer to change", "rig.trials.control_acts")
        self._book = session.book
        return session.book
