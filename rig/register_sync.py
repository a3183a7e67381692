"""Keeps a dose register that lies in a file synchronised with its disk, and the front end supplied with leases.

Nothing waits for the disk but this thread: a disk that hangs lets the lease run out, the front end holds the beam
(`HoldReason.REGISTER`), and nothing is delivered that a loss of power could make forgotten.

A disk that fails says so once, be it that the system had tried on its own long before; after that it takes the pages
that it has not written for written, and the next synchronisation would be told that all is well. So it is always the
whole image that is written after a failure, before anything is leased.
"""

from __future__ import annotations

import threading

import structlog

from facility.states import FrontEndState
from ioc_sim.plant import Plant
from ioc_sim.register_store import RegisterStore, SyncPoint

_log = structlog.get_logger(__name__)

PERIOD_S = 0.02
"""Between two looks, wall time; a lease covers 0.25 s of beam."""
_POINTS = {
    FrontEndState.LOADED: SyncPoint.LOADED,
    FrontEndState.ARMED: SyncPoint.ARMED,
    FrontEndState.IRRADIATING: SyncPoint.LEASE,
}


class RegisterSync:
    """Looks whether something has to be synchronised, and does it.

    Args:
        plant: whose register it is.
        store: where the register lies.
    """

    def __init__(self, plant: Plant, store: RegisterStore) -> None:
        self._plant = plant
        self._store = store
        self._last: tuple[FrontEndState, int, tuple[int, float] | None] | None = None
        self.syncs = 0
        self.failures = 0
        self._failing = False

    def look(self) -> None:
        """Ask for a lease; synchronise where it is a new one, or the state or a field has changed; grant it."""
        lease = self._plant.ask_lease()
        state, fields = self._plant.status.state, self._plant.dose.fields.writes
        if (state, fields, lease) == self._last:
            return
        if self._failing:
            self._plant.touch_register()
        try:
            self._store.sync(_POINTS.get(state, SyncPoint.STOPPED))
        except OSError as problem:
            if not self._failing:
                _log.error("the dose register cannot be synchronised: no beam", problem=str(problem))
            self.failures += 1
            self._failing = True
            return
        if self._failing:
            self._failing = False
            _log.warning("the dose register is synchronised again, written anew", failures=self.failures)
        self.syncs += 1
        self._last = (state, fields, lease)
        if lease is not None:
            self._plant.grant_lease(*lease)


class RegisterSyncThread(threading.Thread):
    """Looks every `PERIOD_S` until `stopping` is set, or something fails that no disk is blamed for.

    With this thread the leases end, and with them the beam; `failure` is for whoever has to say why.
    """

    def __init__(self, sync: RegisterSync) -> None:
        super().__init__(name="register", daemon=True)
        self.failure: BaseException | None = None
        self.stopping = threading.Event()
        self._sync = sync

    def run(self) -> None:
        """The thread's work."""
        try:
            while not self.stopping.wait(PERIOD_S):
                self._sync.look()
        except BaseException as failure:
            self.failure = failure
            raise
