"""Plans by DICOM C-STORE: a receiver that keeps whole RT Ion Plans and lets nothing else in.

What comes is believed in nothing. A caller's AE title has to be on the list (a label, no proof: who must be kept out is
kept out by the network), its bytes are counted as they arrive, before anybody puts them together, and a file appears in
the folder only when the plan reader has read it to its end. The facility is not touched: a plan that was received is a
file, to be checked and loaded like any other.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

from control.plan.dicom_bytes import EXPLICIT_LE, IMPLICIT_LE
from control.plan.dicom_reader import RT_ION_PLAN, read_dicom_plan
from control.plan.model import Plan, plan_hash
from facility.config.dicom import Receiving
from facility.errors import ChannelError, PlanError, UsageError

_log = structlog.get_logger(__name__)

VERIFICATION = "1.2.840.10008.1.1"
STORED, OUT_OF_RESOURCES, OTHER_CLASS, NOT_UNDERSTOOD, DUPLICATE = 0x0000, 0xA700, 0xA900, 0xC000, 0x0111
"""Status of a C-STORE (PS3.4 B.2.3, PS3.7 C)."""
ASSOCIATE_S = 5.0
"""A caller that has connected must have asked for an association by then."""
_OVERHEAD = 65_536
"""Bytes of an association beyond the object itself."""
_UID = re.compile(r"[0-9.]{1,64}")


class Receiver:
    """Listens while its block is entered.

    Args:
        config: who may send, and how much.
        folder: where plans go, by SOP Instance UID.
        port: instead of the configured one; None: that.
    """

    def __init__(self, config: Receiving, folder: Path, port: int | None = None) -> None:
        self._config = config
        self._folder = folder
        self._port = config.port if port is None else port
        self._server: Any = None
        self.port = 0
        """Where it listens."""

    def __enter__(self) -> Receiver:
        ae, evt = entity(self._config.ae_title)
        config = self._config
        for name in (RT_ION_PLAN, VERIFICATION):
            ae.add_supported_context(name, [EXPLICIT_LE, IMPLICIT_LE])
        ae.require_calling_aet, ae.require_called_aet = list(config.callers), True
        ae.maximum_associations = config.max_associations
        ae.acse_timeout = min(ASSOCIATE_S, config.timeout_s)
        ae.dimse_timeout = ae.network_timeout = config.timeout_s
        handlers = [
            (evt.EVT_CONN_OPEN, self._opened), (evt.EVT_DIMSE_RECV, self._whole), (evt.EVT_REJECTED, self._refused),
            (evt.EVT_ABORTED, self._aborted), (evt.EVT_C_STORE, self._store),
        ]  # fmt: skip
        try:
            self._server = ae.start_server((config.host, self._port), block=False, evt_handlers=handlers)
        except OSError as problem:
            raise ChannelError("dicom.listen", f"cannot listen: {problem.strerror or problem}",
                               f"{config.host}:{self._port}", "choose another port") from problem  # fmt: skip
        self.port = int(self._server.server_address[1])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()

    # --- what happens on an association ---------------------------------------------------------------------
    def _opened(self, event: Any) -> None:
        """Count the bytes of this association as they come in."""
        BoundedSocket(event.assoc, self._config)

    def _whole(self, event: Any) -> None:
        """A message is whole: the next one may be as large again."""
        counter: BoundedSocket | None = getattr(event.assoc.dul.socket, "ionctl", None)
        if counter is not None:
            counter.count = 0

    def _refused(self, event: Any) -> None:
        _log.warning("association refused", **caller(event.assoc))

    def _aborted(self, event: Any) -> None:
        _log.warning("association aborted", **caller(event.assoc))

    def _store(self, event: Any) -> Any:
        request = event.request
        uid = str(request.AffectedSOPInstanceUID or "")
        if _UID.fullmatch(uid) is None:
            return self._answer(event, OTHER_CLASS, "the SOP Instance UID is none", uid[:64])
        data = event.encoded_dataset()
        if len(data) > self._config.max_bytes:
            return self._answer(event, OUT_OF_RESOURCES, f"more than {self._config.max_mb:g} MB", uid)
        try:
            plan = read_dicom_plan(data, f"{uid}.dcm")
        except PlanError as problem:
            return self._answer(event, NOT_UNDERSTOOD, str(problem), uid)
        if plan.plan_uid != uid:
            return self._answer(event, OTHER_CLASS, f"the object calls itself {plan.plan_uid}", uid)
        return self._keep(event, data, uid, plan)

    def _keep(self, event: Any, data: bytes, uid: str, plan: Plan) -> Any:
        path = self._folder / f"{uid}.dcm"
        try:
            if path.exists():
                if _says(read_dicom_plan(path.read_bytes(), path.name)) != _says(plan):
                    return self._answer(event, DUPLICATE, "another plan has this UID already", uid)
                return self._answer(event, STORED, "this plan is here already", uid)
            new = path.with_suffix(".new")
            with new.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except (OSError, PlanError) as problem:
            return self._answer(event, OUT_OF_RESOURCES, f"it cannot be kept: {problem}", uid)
        return self._answer(event, STORED, str(path), uid, plan_hash=plan_hash(plan))

    @staticmethod
    def _answer(event: Any, status: int, words: str, uid: str, **more: str) -> Any:
        from pydicom.dataset import Dataset

        tell = _log.info if status == STORED else _log.warning
        tell("plan received" if status == STORED else "plan refused", status=f"0x{status:04X}", words=words, uid=uid,
             **more, **caller(event.assoc))  # fmt: skip
        answer = Dataset()
        answer.Status = status
        if status != STORED:
            answer.ErrorComment = words[:64]
        return answer


def _says(plan: Plan) -> tuple[str, str, int]:
    """What makes two plans the same: what the machine would do, what for, and how often."""
    return plan_hash(plan), plan.intent, plan.fractions


class BoundedSocket:
    """Lets a message of so many bytes in, and cuts the connection at one more: nobody has put them together yet.

    pynetdicom reads a PDU whole, whatever length it announces, before it tells anybody.
    """

    def __init__(self, association: Any, config: Receiving) -> None:
        socket = association.dul.socket
        self._association = association
        self._recv = socket.recv
        self._most = config.max_bytes + _OVERHEAD
        self.count = 0
        socket.socket.settimeout(config.timeout_s)  # one byte and then silence must not hold an association
        socket.recv, socket.ionctl = self.recv, self

    def recv(self, wanted: int) -> Any:
        """As the socket's; OSError beyond the limit, which ends the association."""
        if self.count + wanted > self._most:
            words = f"an object of more than {self._most} bytes"
            _log.warning("association cut off", words=words, **caller(self._association))
            self._gone()
            raise OSError("the object is larger than allowed")
        try:
            data = self._recv(wanted)
        except OSError:
            self._gone()
            raise
        self.count += len(data)
        if len(data) < wanted:
            self._gone()
        return data

    def _gone(self) -> None:
        """The caller has hung up. Where it had not asked for an association yet, pynetdicom would go on waiting for it
        and count it among those that are on: tell it that nothing comes."""
        if not self._association.is_established:
            self._association.dul.to_user_queue.put(None)


def caller(association: Any) -> dict[str, str]:
    """Who is at the other end, and whom it wanted, for the log; empty until it has said so."""
    requestor = association.requestor
    said = requestor.primitive
    return {"caller": str(requestor.ae_title)[:16], "called": str(said.called_ae_title if said else "")[:16],
            "address": str(requestor.address)}  # fmt: skip


def entity(ae_title: str) -> tuple[Any, Any]:
    """(application entity, events) of pynetdicom; UsageError where it is not installed."""
    try:
        from pynetdicom import AE, evt
    except ImportError as problem:
        raise UsageError("dicom.not-installed", "the DICOM network is not installed", "ionctl dicom",
                         "pip install 'ionctl[dicom]'") from problem  # fmt: skip
    return AE(ae_title=ae_title), evt
