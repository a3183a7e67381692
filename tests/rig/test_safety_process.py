"""What the safety controller's process does with the scans of a trip."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from facility.config import load_facility
from interlocks.snapshot import SafetyEvent
from rig.home import Home
from rig.keys import KeyStore
from rig.post_mortem import AFTER_NS
from rig.processes.common import Launch
from rig.processes.safety import SafetyProcess
from rig.safety_scans_file import read_scans


def launch(folder: Path) -> Launch:
    options = argparse.Namespace(epoch_ns=0, mode="qa", link_port=0, plant_link="127.0.0.1:9")
    return Launch("safety", folder, load_facility("wuwei"), "1", "carbon", 1, 1.0, options)


async def trip(folder: Path) -> None:
    """Two scans without a rack, a trip between them, and the end of the process."""
    process = SafetyProcess(launch(folder))
    process.scans.start()
    try:
        process.scanner._judge()
        at_ns = process.clock.now_ns()
        process._log(SafetyEvent(at_ns, "interlock.trip", {"id": "door", "words": "opened"}))
        process.scanner._judge()
        assert process.freezer.cut(at_ns + AFTER_NS - 1) is None
        process.end_scans()
        await asyncio.sleep(0)
    finally:
        process.link.close()


def test_a_trip_leaves_its_scans_and_an_event_of_them(tmp_path: Path) -> None:
    KeyStore(Home(tmp_path / "home")).write_rings(tmp_path)
    asyncio.run(trip(tmp_path))
    lines = (tmp_path / "safety.events.jsonl").read_text(encoding="utf-8").splitlines()
    cause, said = (json.loads(line) for line in lines)
    assert (said["kind"], said["cause_seq"], said["data"]["trips"]) == ("post-mortem.safety", 0, [0])
    found = read_scans(tmp_path / "post-mortem" / said["data"]["file"], said["data"]["sha256"])
    about = found.about
    assert (about["scans"], about["clock"], about["mode"], about["facility"]) == (2, "nominal", "qa", "wuwei")
    assert about["event"]["t_ns"] == cause["t_ns"]
    assert not found.column("link.plant_ok").any()
    assert not found.column("permit").any()
