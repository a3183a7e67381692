"""Real associations on loopback: whole plans come in, records go out, and nothing else harms anything."""

from __future__ import annotations

import io
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
import structlog
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from control.plan.dicom_reader import RT_ION_PLAN
from control.plan.dicom_writer import dicom_bytes, write_dicom_plan
from control.plan.load import load_plan
from control.plan.model import plan_hash
from facility.config.dicom import Destination, Receiving, load_dicom_config
from facility.errors import ChannelError, ConfigError, PlanError
from records.dicom_record import RT_ION_RECORD, record_bytes
from rig.dicom_receive import Receiver
from rig.dicom_send import send_files
from tests.records.delivered import plan, whole

pynetdicom = pytest.importorskip("pynetdicom", reason="pynetdicom not installed")
CONFIG = Receiving(
    ae_title="IONCTL", host="127.0.0.1", port=0, callers=("PLANNING",), max_mb=0.2, max_associations=4, timeout_s=5.0
)


class Heard:
    """What was logged, and whoever waits for it."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()

    def __call__(self, _logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        with self._changed:
            self.events.append(dict(event))
            self._changed.notify_all()
        raise structlog.DropEvent

    def until(self, words: str) -> dict[str, Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: any(one["event"] == words for one in self.events), 10.0), self.events
            return next(one for one in self.events if one["event"] == words)


@pytest.fixture
def heard() -> Iterator[Heard]:
    kept = Heard()
    before = structlog.get_config()
    structlog.configure(
        processors=[kept], wrapper_class=structlog.make_filtering_bound_logger(0), cache_logger_on_first_use=False
    )
    yield kept
    structlog.configure(**before)


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Receiver, Path]]:
    """One for all: it takes half a second to stop."""
    folder = tmp_path_factory.mktemp("received")
    with Receiver(CONFIG, folder) as found:
        yield found, folder


@pytest.fixture
def receiver(listening: tuple[Receiver, Path], heard: Heard) -> Receiver:
    for path in listening[1].iterdir():
        path.unlink()
    return listening[0]


@pytest.fixture
def folder(receiver: Receiver, listening: tuple[Receiver, Path]) -> Path:
    return listening[1]


def at(receiver: Receiver, ae_title: str = "IONCTL") -> Destination:
    return Destination(ae_title=ae_title, host="127.0.0.1", port=receiver.port)


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def plan_file(folder: Path) -> Path:
    write_dicom_plan(plan(), folder / "plan.dcm")
    return folder / "plan.dcm"


def test_a_plan_comes_in_whole(receiver: Receiver, folder: Path, tmp_path: Path, heard: Heard) -> None:
    for _ in range(2):  # once more is the same
        (sent,) = send_files([plan_file(tmp_path)], at(receiver), "PLANNING")
        assert (sent.stored, sent.status) == (True, 0)
    assert kept(folder) == [f"{plan().plan_uid}.dcm"]
    found = load_plan(folder / f"{plan().plan_uid}.dcm")
    assert plan_hash(found) == plan_hash(plan())
    told = heard.until("plan received")
    assert (told["caller"], told["plan_hash"]) == ("PLANNING", plan_hash(plan()))


@pytest.mark.parametrize(("us", "them"), [("STRANGER", "IONCTL"), ("PLANNING", "OTHER")])
def test_who_is_not_on_the_list_is_refused_and_logged(
    receiver: Receiver, folder: Path, tmp_path: Path, heard: Heard, us: str, them: str
) -> None:
    with pytest.raises(
        ChannelError, match=r"it refuses us|hangs up on us"
    ):  # a refusal can be lost with its connection
        send_files([plan_file(tmp_path)], at(receiver, them), us)
    told = heard.until("association refused")
    assert (told["caller"], told["called"], told["address"]) == (us, them, "127.0.0.1")
    assert kept(folder) == []


def associate(receiver: Receiver, sop_class: str = RT_ION_PLAN) -> Any:
    ae = pynetdicom.AE(ae_title="PLANNING")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5.0
    ae.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    return ae.associate("127.0.0.1", receiver.port, ae_title="IONCTL")


def store(receiver: Receiver, dataset: pydicom.Dataset) -> int | None:
    association = associate(receiver)
    assert association.is_established
    answer = association.send_c_store(dataset)
    if association.is_established:
        association.release()
    return int(answer.Status) if "Status" in answer else None


def whole_plan() -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(dicom_bytes(plan())))


def without_energy() -> pydicom.Dataset:
    dataset = whole_plan()
    del dataset.IonBeamSequence[0].IonControlPointSequence[0].NominalBeamEnergy
    return dataset


def without_beams() -> pydicom.Dataset:
    dataset = whole_plan()
    del dataset.IonBeamSequence
    return dataset


@pytest.mark.parametrize("made", [without_energy, without_beams])
def test_what_is_no_whole_plan_is_not_kept(
    receiver: Receiver, folder: Path, tmp_path: Path, heard: Heard, made: Any
) -> None:
    assert store(receiver, made()) == 0xC000
    assert heard.until("plan refused")["words"]
    assert kept(folder) == []
    assert store(receiver, whole_plan()) == 0  # and the next one is taken


def test_another_plan_under_the_same_uid_is_refused_and_the_first_one_stays(
    receiver: Receiver, folder: Path, tmp_path: Path
) -> None:
    assert store(receiver, whole_plan()) == 0
    assert store(receiver, whole_plan()) == 0
    energy, intent, fractions = (whole_plan() for _ in range(3))
    for point in energy.IonBeamSequence[0].IonControlPointSequence[:2]:
        point.NominalBeamEnergy = 200.0
    intent.PlanIntent = "CURATIVE"
    fractions.FractionGroupSequence[0].NumberOfFractionsPlanned = 7
    for other in (energy, intent, fractions):  # of which the plan's hash covers only the first
        assert store(receiver, other) == 0x0111
    assert plan_hash(load_plan(folder / kept(folder)[0])) == plan_hash(plan())


def test_a_huge_object_is_cut_off_as_it_comes(receiver: Receiver, folder: Path, tmp_path: Path, heard: Heard) -> None:
    huge = whole_plan()
    huge.add_new(0x300A0004, "ST", "x" * 2_000_000)
    assert store(receiver, huge) is None
    assert heard.until("association cut off")["caller"] == "PLANNING"
    assert kept(folder) == []
    assert store(receiver, whole_plan()) == 0


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n", struct.pack(">BBL", 0x01, 0, 0xFFFFFFFF),
        struct.pack(">BBL", 0x04, 0, 12) + b"x" * 12,
        struct.pack(">BBL", 0x01, 0, 68) + b"\xff" * 68, b"\x01",
    ],
    ids=["http", "endless", "data-first", "nonsense", "one-byte"],
)  # fmt: skip
def test_what_is_no_dicom_harms_nothing(receiver: Receiver, tmp_path: Path, said: bytes) -> None:
    for _ in range(CONFIG.max_associations + 2):
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=10.0) as caller:
            caller.sendall(said)
            caller.shutdown(socket.SHUT_WR)
            while caller.recv(4096):  # until the other end hangs up
                pass
    assert store(receiver, whole_plan()) == 0


def test_a_record_is_no_plan_and_is_not_taken(receiver: Receiver, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "record.dcm"
    path.write_bytes(record_bytes(whole()[1]))
    with pytest.raises(ChannelError, match="takes no objects of this class"):
        send_files([path], at(receiver), "PLANNING")
    assert kept(folder) == []


def test_records_go_out(tmp_path: Path) -> None:
    got: list[bytes] = []
    ae = pynetdicom.AE(ae_title="ARCHIVE")
    ae.add_supported_context(RT_ION_RECORD, [ImplicitVRLittleEndian])

    def store(event: Any) -> int:
        got.append(event.encoded_dataset(include_meta=False))
        return 0 if len(got) == 1 else 0xA700

    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(pynetdicom.evt.EVT_C_STORE, store)])
    path = tmp_path / "record.dcm"
    path.write_bytes(record_bytes(whole()[1]))
    to = Destination(ae_title="ARCHIVE", host="127.0.0.1", port=server.server_address[1])
    try:
        first, second = send_files([path, path], to, "IONCTL")
    finally:
        server.shutdown()
    assert (first.stored, second.stored, second.status) == (True, False, 0xA700)
    sent = pydicom.dcmread(io.BytesIO(got[0]), force=True)
    kept_of = pydicom.dcmread(path)
    assert sent.SOPInstanceUID == kept_of.SOPInstanceUID
    assert sent == kept_of
    with pytest.raises(ChannelError, match="nobody answers"):
        send_files([path], to, "IONCTL")


def test_only_plans_and_records_are_sent(tmp_path: Path) -> None:
    dataset = whole_plan()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.save_as(tmp_path / "ct.dcm")
    with pytest.raises(PlanError, match="neither an RT Ion Plan nor"):
        send_files([tmp_path / "ct.dcm"], Destination(ae_title="X", host="127.0.0.1", port=1), "IONCTL")


def test_the_packaged_configuration_listens_on_loopback_to_named_callers() -> None:
    config = load_dicom_config()
    assert config.receive.host == "127.0.0.1"
    assert config.receive.callers


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('callers = ["PLANNING"]', "callers = []", "receive.callers = ()"),
        ("max_mb = 64.0", "max_mb = 0.0", "receive.max_mb = 0.0"),
        ('ae_title = "IONCTL"', 'ae_title = "A NAME THAT IS TOO LONG"', "receive.ae_title"),
        ("timeout_s = 30.0", "time_out = 30.0", "receive.time_out"),
        ("port = 11112", 'port = "dicom"', "receive.port = 'dicom'"),
        ("[receive]", "[receive", "not valid TOML"),
    ],
)
def test_a_bad_configuration_is_named_by_key_and_value(tmp_path: Path, old: str, new: str, words: str) -> None:
    from importlib import resources

    text = resources.files("configs").joinpath("dicom.toml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "dicom.toml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError) as refusal:
        load_dicom_config(tmp_path)
    assert words in str(refusal.value)
