"""A Channel Access client that writes what it likes: `python -m rig.rogue --servers ...`, for tests and soaks.

It finds every PV of a facility, record fields too, and puts random, out-of-range, NaN, wrong-typed, overlong and
valid-looking values into them, in floods and slowly ramped; bytes that are nearly commands; frames it has captured;
and, with the console's and control's keys, signed commands in every role with arguments nobody should give. The raw
caproto client does it: it sends what the server has said it would refuse, too.

With `--listen` it subscribes to everything instead and says READY; whoever started it may then stop it (SIGSTOP).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from channels.command import Signer
from facility.config import load_facility
from facility.pv_catalogue import BY_NAME, CATALOGUE, SPOT_COLUMNS
from interlocks import pvs
from interlocks.rules import load_rules
from rig.clocks import NominalClock
from rig.keys import read_private
from rig.priority import give_way
from rig.rogue_commands import RogueCommands
from rig.wall_clock import RisingNonces, monotonic_s, sleep_s

CONNECT_S = 10.0
FIELDS = (".VAL", ".HIHI", ".LOLO", ".DRVH", ".DISP", ".DESC", ".SCAN", ".PROC")
ROLES = (("operator", "operator"), ("physicist", "physicist"), ("control", "control"), ("control", "operator"))
"""(whose key, as what)."""
_BURST = 40
_SESSION_EACH = 10
"""Commands between two looks at the session that is shown."""
_CONNECT_LOOK_S = 0.5


def names_of(facility_name: str, prefix: str) -> list[str]:
    """Full names of every PV, the ones made of rules included."""
    facility = load_facility(facility_name)
    rules = load_rules(facility, next(iter(facility.rooms)), next(iter(facility.species))).rules
    entries = [*CATALOGUE, *pvs.entries(rules)]
    return [entry.full_name(prefix) for entry in entries]


class Rogue:
    """What it does, by kind; every choice follows from the seed."""

    def __init__(
        self, channels: dict[str, Any], prefix: str, seed: int, signers: list[Signer], clock: NominalClock, plan: str
    ) -> None:
        self.sent: Counter[str] = Counter()
        self._channels = channels
        self._prefix = prefix
        self._rng = np.random.default_rng(seed)
        self._session = ""
        self._commands = RogueCommands(self._rng, signers, clock, lambda: self._session, plan) if signers else None
        self._captured: list[bytes] = []
        self._ramp = 0.0
        self._writable = [
            name for name in channels
            if (entry := BY_NAME.get(name.removeprefix(f"{prefix}:"))) is not None and entry.writer != "nobody"
        ]  # fmt: skip

    def act(self) -> None:
        """One deed."""
        rng = self._rng
        name = str(rng.choice(self._writable if rng.random() < 0.7 else list(self._channels)))
        deed = rng.choice(["number", "text", "bytes", "flood", "slowly", "replay", "command"])
        getattr(self, f"_{deed}")(name)
        self.sent[str(deed)] += 1

    def _put(self, name: str, value: Any, data_type: Any = None) -> None:
        with contextlib.suppress(Exception):  # what the client's own library will not encode
            self._channels[name].write(value, wait=False, data_type=data_type)
            self.sent["writes"] += 1

    def _number(self, name: str) -> None:
        value = self._rng.choice([math.nan, math.inf, -math.inf, 1e308, -1e308, 0.0, 1.0, -1.0, 2.0**31, 1e-300])
        kind = int(self._rng.choice([1, 2, 3, 4, 5, 6]))  # INT, FLOAT, ENUM, CHAR, LONG, DOUBLE
        whole = math.isfinite(value) and abs(value) < 100
        self._put(name, [value] if kind in (2, 6) else [int(value) if whole else 99], kind)

    def _text(self, name: str) -> None:
        self._put(name, [str(self._rng.choice(["rogue", "1", "NaN", "BEAM_PERMITTED", "", "x" * 39])).encode()], 0)

    def _bytes(self, name: str) -> None:
        octets = self._rng.integers(0, 256, int(self._rng.choice([0, 1, 100, 512, 4096, 5000])))
        self._put(name, octets.astype(np.uint8), 4)

    def _flood(self, name: str) -> None:
        for _ in range(_BURST):
            self._number(name)

    def _slowly(self, name: str) -> None:
        """Values that look right: in range, a little more each time."""
        self._ramp = (self._ramp + 0.01) % 10.0
        if name.endswith("FE:Spots-SP"):
            table = np.zeros((50, len(SPOT_COLUMNS)))
            table[:, SPOT_COLUMNS.index("target_ions")] = 1e5 * (1.0 + self._ramp)
            table[:, SPOT_COLUMNS.index("limit_us")] = 1e6
            self._put(name, table.ravel(), 6)
        else:
            self._put(name, [self._ramp], 6)

    def _replay(self, _name: str) -> None:
        """What stands in a PV is put back, as captured: keep-alives above all."""
        for short in ("SAFE:KeepAlive", "SAFE:Cmd-Result", "TCS:Cmd-Result"):
            channel = self._channels.get(f"{self._prefix}:{short}")
            if channel is None:
                continue
            with contextlib.suppress(Exception):
                self._captured.append(bytes(bytearray(channel.read(timeout=0.5).data)))
        for frame in self._captured[-3:] + self._captured[:2]:
            target = str(self._rng.choice(["SAFE:KeepAlive", "SAFE:KeepAlive", "SAFE:Cmd", "TCS:Cmd"]))
            self._put(f"{self._prefix}:{target}", np.frombuffer(frame, np.uint8), 4)

    def _command(self, _name: str) -> None:
        """A signed command in a role, as a person might send it or with something wrong in it."""
        if self._commands is None:
            return
        if self.sent["command"] % _SESSION_EACH == 0:
            self._session = self._read_session()
        server, _verb, frame = self._commands.next()
        if len(self._captured) < 100:
            self._captured.append(frame)
        self._put(f"{self._prefix}:{server}:Cmd", np.frombuffer(frame, np.uint8), 4)

    def _read_session(self) -> str:
        """The session that the safety controller shows; the one known before where it does not say."""
        channel = self._channels.get(f"{self._prefix}:SAFE:Field-RB")
        with contextlib.suppress(Exception):
            said = channel.read(timeout=0.5).data[0] if channel is not None else b""
            return said.decode() if isinstance(said, bytes) else str(said)
        return self._session


def connect(servers: list[str], names: list[str], times: int = 1) -> list[dict[str, Any]]:
    """Channels of all names that answer, by the raw client; of so many clients, which connect side by side."""
    os.environ.update(EPICS_CA_ADDR_LIST=" ".join(servers), EPICS_CA_AUTO_ADDR_LIST="NO")
    from caproto.threading.client import Context

    clients = [{pv.name: pv for pv in Context().get_pvs(*names)} for _ in range(times)]
    ends_s = monotonic_s() + CONNECT_S
    counts = [-1] * times
    while monotonic_s() < ends_s:  # until no more come: some names do not exist
        before, counts = counts, [sum(pv.connected for pv in found.values()) for found in clients]
        if min(counts) and counts == before:
            break
        sleep_s(_CONNECT_LOOK_S)
    return [{name: pv for name, pv in found.items() if pv.connected} for found in clients]


def listen(options: argparse.Namespace) -> None:
    """Subscribe to everything, several times over, and wait until stdin ends."""
    names = names_of(options.facility, options.prefix)
    kept = []
    for client in connect(options.servers.split(), names, options.times):
        for pv in client.values():
            subscription = pv.subscribe()
            subscription.add_callback(_forget)
            kept.append(subscription)
    print("READY", len(kept), flush=True)  # noqa: T201 - the line its starter waits for
    sys.stdin.read()


def _forget(_subscription: Any, _response: Any) -> None:
    return


def rampage(options: argparse.Namespace) -> None:
    """Wait for a line, write until SIGTERM, then say what was sent."""
    names = names_of(options.facility, options.prefix)
    fields = [name + field for name in names[::7] for field in FIELDS]
    (channels,) = connect(options.servers.split(), [*names, *fields])
    clock = NominalClock(options.epoch_ns, options.speed)
    signers = []
    if options.keys is not None:
        for issuer, role in ROLES:
            folder = "control" if issuer == "control" else "console"
            key = read_private(options.keys / folder / f"{issuer}.key")
            signers.append(Signer(issuer, role, key, RisingNonces()))
    rogue = Rogue(channels, options.prefix, options.seed, signers, clock, options.plan)
    print("READY", len(channels), flush=True)  # noqa: T201 - the line its starter waits for
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    sys.stdin.readline()  # until it is let loose
    while not asked:
        rogue.act()
        sleep_s(options.pause_s)
    print(json.dumps({"channels": len(channels), **rogue.sent}), flush=True)  # noqa: T201 - its result


def main(arguments: list[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="rig.rogue")
    parser.add_argument("--servers", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--facility", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause-s", type=float, default=0.0)
    parser.add_argument("--epoch-ns", type=int, default=0)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--keys", type=Path, help="folder of a home's keys: sign commands in every role")
    parser.add_argument("--plan", default="", help="path of the plan that is delivered")
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--times", type=int, default=1)
    options = parser.parse_args(arguments)
    give_way()
    (listen if options.listen else rampage)(options)
    return 0


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)  # the client's threads are not waited for
