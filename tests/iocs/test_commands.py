"""Commands of the plant: who may, what is checked, what is answered; whatever comes, a refusal changes nothing."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.command import CommandResult, Status
from channels.publish import stamp_ns
from facility.errors import CommandRefused, InternalError
from facility.events import canonical_json
from facility.pv_catalogue import REGISTER_COLUMNS, SPOT_COLUMNS
from tests.iocs.fakes import Bench, load_args, set_number, spot_table

ARM = {"token": 7, "permit_epoch": 1}


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    ("group", "verb", "args", "done"),
    [
        ("RING", "request_cycle", {"token": 7, "energy_code": 100, "transport_set": 9}, ("request_cycle", 7, 100, 9)),
        ("RING", "end_cycle", {}, ("end_cycle",)),
        (
            "FE",
            "open_field",
            {"field": 9, "preset_ions": 1e9, "expected_ms": 5e3, "plan_hash": "ab" * 32},
            ("open_field", 9, 1e9, 5e3, "ab" * 32),
        ),
        ("FE", "arm", {"token": 7, "permit_epoch": 3}, ("arm", 7, 3)),
        ("FE", "disarm", {}, ("disarm",)),
        ("FE", "pause", {}, ("pause",)),
        ("FE", "resume", {"permit_epoch": 3}, ("resume", 3)),
        ("RS", "insert", {"code": 1}, ("insert", 1)),
    ],
)
async def test_control_is_obeyed_others_are_not(
    bench: Bench, group: str, verb: str, args: dict[str, Any], done: tuple[Any, ...]
) -> None:
    refused = await bench.command(group, verb, args, issuer="ann")
    assert (refused.status, refused.code) == (Status.REFUSED, "command.not-allowed")
    assert "is for control, not operator" in refused.words
    assert bench.plant.done == []
    bench.clock.advance_ns(123)
    result = await bench.command(group, verb, args)
    assert result.status is Status.DONE
    assert bench.plant.done == [done]
    assert stamp_ns(bench.pv(f"{group}:Cmd-Result")) == 123


async def test_a_repeat_is_answered_and_not_done_twice(bench: Bench) -> None:
    frame = bench.frame("arm", ARM)
    await bench.put("FE:Cmd", frame)
    first = bench.result("FE")
    await bench.command("FE", "disarm")
    await bench.put("FE:Cmd", frame)
    assert bench.result("FE") == first
    assert bench.plant.done == [("arm", 7, 1), ("disarm",)]


async def test_an_old_nonce_is_refused(bench: Bench) -> None:
    early = bench.frame("arm", ARM)
    await bench.command("FE", "disarm")
    await bench.put("FE:Cmd", early)
    assert bench.result("FE").code == "command.replayed"


async def test_nonces_can_be_stored() -> None:
    stored: dict[str, dict[str, int]] = {"FE": {}, "RING": {}, "RS": {}}
    bench = Bench(nonces=stored)
    frame = bench.frame("arm", ARM)
    await bench.put("FE:Cmd", frame)
    assert stored == {"FE": {"tcs": 1}, "RING": {}, "RS": {}}
    restarted = Bench(nonces=stored)
    await restarted.put("FE:Cmd", frame)
    assert restarted.result("FE").code == "command.replayed"
    assert restarted.plant.done == []


async def test_groups_do_not_share_their_nonces(bench: Bench) -> None:
    """Commands to two groups may overtake each other."""
    ring, front_end = bench.frame("end_cycle"), bench.frame("disarm")
    await bench.put("FE:Cmd", front_end)
    await bench.put("RING:Cmd", ring)
    assert [what[0] for what in bench.plant.done] == ["disarm", "end_cycle"]


async def test_a_refusal_of_the_plant_comes_back_in_words(bench: Bench) -> None:
    bench.plant.refuse = CommandRefused("fe.permit", "no beam permit", "resume", "reset the interlock first")
    result = await bench.command("FE", "resume", {"permit_epoch": 1})
    assert (result.status, result.code) == (Status.REFUSED, "fe.permit")
    assert result.words == "no beam permit (resume): reset the interlock first"


async def test_a_defect_of_the_plant_is_a_failure(bench: Bench) -> None:
    def broken() -> None:
        raise InternalError("plant.time", "going back")

    bench.plant.end_cycle = broken  # type: ignore[method-assign]
    result = await bench.command("RING", "end_cycle")
    assert (result.status, result.code) == (Status.FAILED, "plant.time")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "argument token is missing"),
        ({"token": 7}, "argument energy_code is missing"),
        ({"token": 7, "energy_code": 3, "speed": 9}, "unknown argument 'speed'"),
        ({"token": 7.0, "energy_code": 3, "transport_set": 9}, "token is float 7.0"),
        ({"token": True, "energy_code": 3, "transport_set": 9}, "token is bool True"),
        ({"token": "7", "energy_code": 3, "transport_set": 9}, "token is str '7'"),
        ({"token": None, "energy_code": 3, "transport_set": 9}, "token is NoneType None"),
        ({"token": [7], "energy_code": 3, "transport_set": 9}, "token is list"),
        ({"token": 10**400, "energy_code": 3, "transport_set": 9}, "token is int 1000"),
    ],
)
async def test_arguments_are_checked(bench: Bench, args: dict[str, Any], words: str) -> None:
    result = await bench.command("RING", "request_cycle", args)
    assert (result.status, result.code) == (Status.REFUSED, "command.args")
    assert words in result.words
    assert (
        "request_cycle takes token, energy_code, transport_set" in result.words or "give a whole number" in result.words
    )
    assert bench.plant.done == []


@pytest.mark.parametrize("level", [10**400, True, "1e8", None])
async def test_a_level_must_be_a_number(bench: Bench, level: Any) -> None:
    table = spot_table()
    await bench.put("FE:Spots-SP", table.ravel())
    result = await bench.command("FE", "load_layer", load_args(table) | {"level_ions_per_s": level})
    assert result.code == "command.args"
    assert bench.plant.done == []


@pytest.mark.parametrize("group", ["RING", "FE", "RS"])
async def test_unknown_verbs_are_named(bench: Bench, group: str) -> None:
    result = await bench.command(group, "open_the_door")
    assert result.code == "command.unknown-verb"


@pytest.mark.parametrize(
    "frame", [b"", b"{}", b"null", b"\x00\xff\xfe", b"[" * 4000, b'{"id":NaN}', b"x" * 4096], ids=lambda f: f[:8].hex()
)
async def test_rubbish_is_answered(bench: Bench, frame: bytes) -> None:
    await bench.put("FE:Cmd", frame or b"\0")
    result = bench.result("FE")
    assert (result.id, result.status, result.code) == ("", Status.REFUSED, "command.malformed")
    assert bench.plant.done == []


@given(place=st.integers(0, 10_000), octet=st.integers(0, 255))
async def test_no_flipped_byte_gets_through(place: int, octet: int) -> None:
    bench = Bench()
    frame = bytearray(bench.frame("arm", ARM))
    k = place % len(frame)
    if frame[k] == octet:
        return
    frame[k] = octet
    await bench.put("FE:Cmd", bytes(frame))
    assert bench.result("FE").status is Status.REFUSED
    assert bench.plant.done == []


async def test_a_stranger_is_refused(bench: Bench) -> None:
    stranger = Bench()
    from channels.command import Signer
    from channels.keys import derived_private_key

    signer = Signer("tcs", "control", derived_private_key(2, "tcs"))
    await bench.put("FE:Cmd", signer.sign(signer.command("arm", ARM, stranger.clock)))
    assert bench.result("FE").code == "command.not-genuine"


async def test_a_forged_role_is_refused(bench: Bench) -> None:
    data = json.loads(bench.frame("arm", ARM, issuer="ann"))
    await bench.put("FE:Cmd", canonical_json(data | {"role": "control"}))
    assert bench.result("FE").code == "command.not-genuine"


async def test_an_id_that_no_result_can_hold(bench: Bench) -> None:
    from dataclasses import replace

    signer = bench.signers["tcs"]
    command = replace(signer.command("arm", ARM, bench.clock), id="\x01" * 600)
    frame = signer.sign(command)
    assert len(frame) <= 4096
    await bench.put("FE:Cmd", frame)
    assert bench.result("FE").words == "the result is too long to be shown" or bench.result("FE").id == command.id


async def test_the_command_pv_stays_empty(bench: Bench) -> None:
    await bench.command("FE", "disarm")
    assert bench.value("FE:Cmd") == b""
    assert bench.severity("FE:Cmd") == 0


# --- the layer table


async def test_a_layer_is_staged_then_loaded(bench: Bench) -> None:
    table = spot_table(500)
    await bench.put("FE:Spots-SP", table.ravel())
    assert bench.plant.done == [], "staging does nothing"
    result = await bench.command("FE", "load_layer", load_args(table))
    assert result.status is Status.DONE
    assert result.data == {"token": 7, "n": 500}
    assert bench.plant.done == [("load_layer", 7, 100, 1e8, 500, 0, set_number(100))]
    assert bench.plant.table_loaded.dtype == np.float64
    assert np.array_equal(bench.plant.table_loaded, table)


async def test_the_byte_order_of_the_wire_does_not_matter(bench: Bench) -> None:
    table = spot_table(4)
    await bench.put("FE:Spots-SP", table.ravel().astype(">f8"))
    assert (await bench.command("FE", "load_layer", load_args(table))).status is Status.DONE
    assert np.array_equal(bench.plant.table_loaded, table)
    assert bench.plant.table_loaded.dtype.isnative


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"n": 2}, "fe.size", "24 numbers are staged in FE:Spots-SP, 2 spots have 16"),
        ({"n": 4}, "fe.size", "4 spots have 32"),
        ({"n": 0}, "fe.size", "0 spots"),
        ({"n": -3}, "fe.size", "-3 spots"),
        ({"n": 20_001}, "fe.size", "20001 spots"),
        ({"crc32": 1}, "fe.crc", "the command says 0x00000001"),
        ({"crc32": -1}, "fe.crc", "has CRC 0x"),
    ],
)
async def test_a_table_that_is_not_the_one_meant(bench: Bench, change: dict[str, Any], code: str, words: str) -> None:
    table = spot_table()
    await bench.put("FE:Spots-SP", table.ravel())
    result = await bench.command("FE", "load_layer", load_args(table) | change)
    assert (result.status, result.code) == (Status.REFUSED, code)
    assert words in result.words
    assert bench.plant.done == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", SPOT_COLUMNS)
async def test_what_is_no_number_is_refused_by_spot_and_column(bench: Bench, value: float, column: str) -> None:
    table = spot_table()
    table[1, SPOT_COLUMNS.index(column)] = value
    await bench.put("FE:Spots-SP", table.ravel())
    result = await bench.command("FE", "load_layer", load_args(table))
    assert (result.status, result.code) == (Status.REFUSED, "fe.value")
    assert f"{value} in {column} (spot 1)" in result.words
    assert bench.plant.done == []


async def test_one_changed_bit_is_found(bench: Bench) -> None:
    table = spot_table()
    wrong = table.copy()
    wrong.view(np.uint64)[2, 4] ^= 1
    await bench.put("FE:Spots-SP", wrong.ravel())
    assert (await bench.command("FE", "load_layer", load_args(table))).code == "fe.crc"


async def test_nothing_staged(bench: Bench) -> None:
    args = load_args(spot_table()) | {"crc32": zlib.crc32(b"")}
    assert (await bench.command("FE", "load_layer", args)).code == "fe.size"


async def test_a_table_that_is_too_long_leaves_the_staged_one(bench: Bench) -> None:
    table = spot_table()
    await bench.put("FE:Spots-SP", table.ravel())
    with pytest.raises(Exception, match="too large"):
        await bench.put("FE:Spots-SP", np.zeros(160_001))
    assert (await bench.command("FE", "load_layer", load_args(table))).status is Status.DONE


async def test_the_register_is_read_on_demand(bench: Bench) -> None:
    bench.plant.rows = np.arange(3.0 * len(REGISTER_COLUMNS)).reshape(3, -1)
    bench.plant.set(token=9)
    bench.clock.advance_ns(55)
    result = await bench.command("FE", "read_register")
    assert result.data == {"token": 9, "n": 3}
    assert np.array_equal(bench.value("FE:Register-RB").reshape(3, -1), bench.plant.rows)
    assert stamp_ns(bench.pv("FE:Register-RB")) == 55


async def test_results_are_canonical_and_decode(bench: Bench) -> None:
    await bench.command("FE", "disarm")
    raw = bench.value("FE:Cmd-Result")
    assert raw == CommandResult.decode(raw).encode()


@pytest.mark.parametrize("name", ["SCAN:X:Current-SP", "RING:Energy-RB", "FE:State-Sts", "FE:Cmd-Result"])
async def test_raw_set_points_and_readbacks_take_no_writes(bench: Bench, name: str) -> None:
    from caproto import Forbidden

    before = bench.value(name)
    with pytest.raises(Forbidden):
        await bench.put(name, b"1" if "Cmd" in name else np.array([1]))
    assert bench.value(name) == before
