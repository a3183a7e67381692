"""What a person does against a trip, in a scenario as in a campaign: search again, ask for a reset, account for it."""

from __future__ import annotations

from dataclasses import dataclass

from facility.errors import IonctlError
from rig.operator_client import OperatorClient
from rig.room_panel import RoomPanel

UNRESOLVED = ("termination-unresolved", "ionctl interlocks resolve")
"""How the safety controller says that a termination has to be accounted for: as an inhibit, or against a reset."""


@dataclass(frozen=True)
class Told:
    """What came of asking for a reset."""

    permit: bool
    """Nothing stands against the beam any more."""
    answer: str
    """'done', the code of a refusal, or what still inhibits."""
    words: str
    """All of it; empty with a permit."""

    answered: bool
    """It was not refused."""

    @property
    def unresolved(self) -> bool:
        """A person has to say first what became of a field that was terminated."""
        return any(words in self.words for words in UNRESOLVED)


async def ask_reset(operator: OperatorClient, role: str) -> Told:
    """Ask for a reset in a role."""
    try:
        data = await operator.ask("SAFE", "reset", role=role)
    except IonctlError as problem:
        return Told(False, problem.code, f"{problem.code}: {problem.what} {problem.fix}", answered=False)
    if data.get("permit"):
        return Told(True, "done", "", answered=True)
    inhibited = "inhibited: " + ", ".join(data.get("inhibited", ()))
    return Told(False, inhibited, inhibited, answered=True)


def search_undone(room: RoomPanel) -> bool:
    """The room has to be searched again."""
    return room.stage.name != "DONE"
