"""Records, and plans, to another DICOM node by C-STORE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from control.plan.dicom_bytes import EXPLICIT_LE, IMPLICIT_LE, load_dataset
from control.plan.dicom_reader import RT_ION_PLAN
from facility.config.dicom import Destination
from facility.errors import ChannelError, PlanError
from records.dicom_record import RT_ION_RECORD
from rig.dicom_receive import entity

TIMEOUT_S = 30.0
WARNINGS = range(0xB000, 0xC000)
"""Stored, and something to say about it."""


@dataclass(frozen=True)
class Sent:
    """What became of one file."""

    file: str
    uid: str
    status: int
    """Of the C-STORE; 0x0000 is stored."""
    words: str

    @property
    def stored(self) -> bool:
        """The other side has it."""
        return self.status == 0 or self.status in WARNINGS


def send_files(files: Sequence[Path], to: Destination, ae_title: str) -> list[Sent]:
    """Send plans and records. PlanError for a file that is neither, before anything is sent; ChannelError where the
    other side does not answer, refuses us or hangs up."""
    objects = [(path, _dataset(path)) for path in files]
    ae, _ = entity(ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = TIMEOUT_S
    for name in sorted({str(dataset.SOPClassUID) for _, dataset in objects}):
        ae.add_requested_context(name, [EXPLICIT_LE, IMPLICIT_LE])
    where = f"{to.ae_title}@{to.host}:{to.port}"
    association = ae.associate(to.host, to.port, ae_title=to.ae_title)
    if not association.is_established:
        what = "nobody answers there as a DICOM node, or it hangs up on us"
        if association.is_rejected:
            what = "it refuses us"
        elif association.rejected_contexts:
            what = "it takes no objects of this class"
        raise ChannelError("dicom.no-association", f"{what} (we are {ae_title})", where,
                           "see that it runs, and that it knows our AE title")  # fmt: skip
    sent = []
    try:
        for path, dataset in objects:
            sent.append(_one(association, path, dataset, where))
    finally:
        association.release()
    return sent


def _one(association: Any, path: Path, dataset: Dataset, where: str) -> Sent:
    uid = str(dataset.SOPInstanceUID)
    try:
        answer = association.send_c_store(dataset)
    except (RuntimeError, ValueError) as problem:
        raise ChannelError("dicom.not-sent", f"{path.name}: {problem}", where, "see what it takes") from problem
    if "Status" not in answer:
        raise ChannelError("dicom.hung-up", f"{path.name}: no answer, it has hung up", where, "see its log")
    return Sent(str(path), uid, int(answer.Status), str(answer.get("ErrorComment", "")))


def _dataset(path: Path) -> Dataset:
    try:
        data = path.read_bytes()
    except OSError as error:
        what = f"cannot be opened: {error.strerror or error}"
        raise PlanError("dicom.unreadable", what, str(path), "check the path and its permissions") from error
    dataset = load_dataset(data, path.name)
    if str(dataset.get("SOPClassUID", "")) not in (RT_ION_PLAN, RT_ION_RECORD):
        raise PlanError("dicom.class", "neither an RT Ion Plan nor an RT Ion Beams Treatment Record", path.name,
                        "only these are sent")  # fmt: skip
    return dataset
