"""Trips of a home's runs, read from what the runs left: event logs, and post-mortems beside them.

Virtual deliveries leave both in their session's folder, processes in the run's folder; `up` puts those of an earlier
run aside.  Over Channel Access the safety controller's log names the rule and the plant's log the file; both carry the
nominal time, by which they are joined.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from facility.errors import ConfigError, UsageError
from rig.facility_time import NOMINAL, FacilityTime
from rig.home import EARLIER, PARTS, Home
from rig.run_dir import POST_MORTEM, SAFETY_SCANS, is_alive

if TYPE_CHECKING:
    from rig.post_mortem_file import Recording

KEEP_RUNS = 20
"""Runs of a facility whose trips are kept; older ones are deleted when a new one starts."""
PLANT_LOG = "plant.events.jsonl"
_RUN_LOGS = (PLANT_LOG, "safety.events.jsonl")
_JOIN_NS = 2_000_000_000
"""Farthest apart, in nominal time, that a trip and its file may be logged."""
_ID_DIGITS = 8
_ALWAYS = frozenset({"seq", "t_ns", "kind", "cause_seq", "data"})
"""What each event has, of `facility.events`, that is read here."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Trip:
    """One trip."""

    id: str
    facility: str
    target: str
    """'virtual' or 'ca'."""
    run: str
    """Session (virtual) or run of the processes."""
    order: tuple[float, int]
    t_ns: int
    """When the rule tripped, facility time: its condition held, with its debounce. Of a fast rule that is the rack's
    decision in the tick; the safety controller hears of it a little later."""
    rule: str
    data: Mapping[str, Any]
    """What the event says: tier, action, value, limit, unit, words, mode."""
    said: Mapping[str, Any] | None
    """What the log says of the post-mortem: file, sha256, samples, t_off_ns, identical."""
    scans: Mapping[str, Any] | None
    """What the log says of the safety controller's scans: file, sha256, scans."""
    ahead_ns: int
    """How far the safety controller's time was ahead of the plant's."""
    folder: Path

    @property
    def file(self) -> Path | None:
        """The post-mortem, where there is one."""
        return None if self.said is None else self.folder / POST_MORTEM / str(self.said["file"])

    def recording(self) -> Recording:
        """The post-mortem, checked against the hash in the log; ConfigError if there is none or it was changed."""
        if self.file is None or self.said is None:
            raise ConfigError("history.no-file", f"{self.id} has no post-mortem", self.run,
                              "trips of runs without one, or that ended at once, are listed only")  # fmt: skip
        from rig.post_mortem_file import read_recording  # Arrow, which starting and stopping a facility has no need of

        return read_recording(self.file, str(self.said["sha256"]))

    @property
    def scans_file(self) -> Path | None:
        """The safety controller's scans, where they were kept."""
        return None if self.scans is None else self.folder / POST_MORTEM / str(self.scans["file"])

    def scanned(self) -> Recording | None:
        """The same, checked against the hash in the log; None if there are none, ConfigError if they were changed."""
        if self.scans is None or self.scans_file is None:
            return None
        from rig.safety_scans_file import read_scans  # as above

        return read_scans(self.scans_file, str(self.scans["sha256"]))

    def to_data(self) -> dict[str, Any]:
        """JSON values."""
        said = self.said or {}
        return {
            "id": self.id,
            "facility": self.facility,
            "target": self.target,
            "run": self.run,
            "t_ns": self.t_ns,
            "rule": self.rule,
            **{key: self.data.get(key) for key in ("tier", "action", "value", "limit", "unit", "words", "mode")},
            "t_off_ns": said.get("t_off_ns"),
            "identical": said.get("identical"),
            "file": None if self.file is None else str(self.file),
            "sha256": said.get("sha256"),
            "scans_file": None if self.scans_file is None else str(self.scans_file),
            "scans_sha256": None if self.scans is None else self.scans["sha256"],
        }


def put_aside(folder: Path) -> None:
    """Keep what the last run of the processes left of its trips; forget the oldest."""
    logs = [folder / name for name in _RUN_LOGS if (folder / name).exists()]
    if logs:
        below = folder / EARLIER
        numbers = [int(path.name) for path in below.glob("[0-9]*")] if below.exists() else []
        there = below / f"{max(numbers, default=0) + 1:04d}"
        there.mkdir(parents=True, mode=0o700)
        for path in (*logs, folder / POST_MORTEM):
            if path.exists():
                path.rename(there / path.name)
        for number in sorted(numbers)[: -KEEP_RUNS + 1]:
            shutil.rmtree(below / f"{number:04d}", ignore_errors=True)


def trips(home: Home, facility: str | None = None) -> list[Trip]:
    """All trips, the latest run first, within a run in order of time."""
    found = [*_virtual(home), *_runs(home)]
    return _told_apart(sorted((trip for trip in found if facility in (None, trip.facility)), key=lambda t: t.order))


def _told_apart(found: list[Trip]) -> list[Trip]:
    """The same with a number behind the ids of the older ones, where deliveries of one name tripped alike."""
    times = Counter[str]()
    apart = []
    for trip in found:
        times[trip.id] += 1
        apart.append(trip if times[trip.id] == 1 else replace(trip, id=f"{trip.id}-{times[trip.id]}"))
    return apart


def trip_named(home: Home, trip_id: str) -> Trip:
    """The trip whose id is, or alone begins with, `trip_id`; UsageError otherwise."""
    known = trips(home)
    found = [trip for trip in known if trip.id == trip_id] or [trip for trip in known if trip.id.startswith(trip_id)]
    if len(found) == 1:
        return found[0]
    what = f"no trip '{trip_id}'" if not found else f"the ids of {len(found)} trips begin with '{trip_id}'"
    raise UsageError("history.id", what, str(home.root), "list them: ionctl interlocks history")


def _virtual(home: Home) -> Iterator[Trip]:
    """Of sessions, of their earlier parts, whose files are kept when a session is gone on with, and of earlier
    deliveries of the same name."""
    folders = ("*", f"*/{EARLIER}/*")
    for log in sorted(log for one in folders for below in ("", f"{PARTS}/*/")
                      for log in home.sessions.glob(f"{one}/{below}events.jsonl")):  # fmt: skip
        events = _events_or_none(log)
        said = {
            seq: event["data"] for event in events if event["kind"] == POST_MORTEM for seq in event["data"]["trips"]
        }
        scans = _scans_of(events)
        facility = _facility_of(log.parent)
        age = -log.stat().st_mtime
        named = {id(said[e["seq"]]) for e in events if e["kind"] == "interlock.trip" and e["seq"] in said}
        for event in events:
            mine = said.get(event["seq"])
            alone = event["kind"] == "trip" and mine is not None and id(mine) not in named
            if event["kind"] == "interlock.trip" or alone:
                kept = scans.get(event["seq"]) or _of_window(scans, mine)
                yield _trip(event, facility, "virtual", _run_of(home, log), age, mine, log.parent,
                            int(event["data"].get("t_ns", event["t_ns"])), kept)  # fmt: skip


def _run_of(home: Home, log: Path) -> str:
    """The session, which earlier delivery of that name, and which part of it where it was gone on with: S-0123,
    part 1."""
    session, *below = log.parent.relative_to(home.sessions).parts
    names = {EARLIER: "earlier delivery", PARTS: "part"}
    more = (f"{names[kind]} {number}" for kind, number in zip(below[::2], below[1::2], strict=True))
    return ", ".join((session, *more))


def _runs(home: Home) -> Iterator[Trip]:
    for folder in sorted((home.root / "run").glob("*")):
        parts = [folder, *sorted((folder / EARLIER).glob("[0-9]*"))]
        for part in parts:
            up = is_alive(folder, "plant")
            yield from _run(part, folder.name, part.name if part != folder else "now up" if up else "latest")


def _run(folder: Path, facility: str, name: str) -> Iterator[Trip]:
    plant, safety = (_events_or_none(folder / name) for name in _RUN_LOGS)
    if not plant:
        return
    by_seq = {event["seq"]: event for event in plant}
    files = [(by_seq[event["cause_seq"]], event["data"]) for event in plant if event["kind"] == POST_MORTEM]
    age = -(folder / _RUN_LOGS[0]).stat().st_mtime
    claimed: set[int] = set()
    told, scans = FacilityTime(plant), _scans_of(safety)
    for event in safety:
        if event["kind"] == "interlock.trip":
            heard_ns = event["t_ns"]
            at_ns, by_plant = event["data"].get("t_ns", heard_ns), event["data"].get("tier") == "H"
            near = _nearest(files, at_ns)
            claimed.update(() if near is None else (near[0]["seq"],))
            said = None if near is None else near[1]
            yield _trip(event, facility, "ca", name, age, said, folder, told.of(at_ns, heard_ns if by_plant else None),
                        scans.get(event["seq"]), 0 if near is None else _ahead_ns(near[0]))  # fmt: skip
    for cause, said in files:
        if cause["seq"] not in claimed:
            yield _trip(cause, facility, "ca", name, age, said, folder)


def _scans_of(events: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """What the log says of the safety controller's scans, by the events of the trips in them."""
    return {seq: event["data"] for event in events if event["kind"] == SAFETY_SCANS for seq in event["data"]["trips"]}


def _of_window(scans: Mapping[int, dict[str, Any]], said: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Scans of a trip that is in the same post-mortem."""
    return next((scans[seq] for seq in (said or {}).get("trips", ()) if seq in scans), None)


def _ahead_ns(cause: Mapping[str, Any]) -> int:
    """Nominal time over the plant's at an event of the plant."""
    return int(cause["data"].get(NOMINAL, cause["t_ns"]) - cause["t_ns"])


def _nearest(files: list[tuple[dict[str, Any], dict[str, Any]]], t_ns: int) -> Any:
    near = [(abs(cause["data"].get(NOMINAL, cause["t_ns"]) - t_ns), i) for i, (cause, _) in enumerate(files)]
    distance, i = min(near, default=(_JOIN_NS + 1, -1))
    return files[i] if distance <= _JOIN_NS else None


def _trip(
    event: Mapping[str, Any], facility: str, target: str, run: str, age: float, said: Mapping[str, Any] | None,
    folder: Path, t_ns: int | None = None, scans: Mapping[str, Any] | None = None, ahead_ns: int = 0,
) -> Trip:  # fmt: skip
    """`t_ns` is when it was decided in facility time, where the event is dated by another clock, `ahead_ns` ahead."""
    data = event["data"]
    rule = str(data.get("id") or data.get("first") or next(iter((said or {}).get("rules", [])), "")) or event["kind"]
    known = json.dumps([facility, target, event], sort_keys=True)  # not where it lies: `up` puts it aside
    digest = hashlib.sha256(known.encode()).hexdigest()[:_ID_DIGITS]
    at_ns = event["t_ns"] if t_ns is None else t_ns
    return Trip(f"T-{digest}", facility, target, run, (age, at_ns), at_ns, rule, data, said, scans,
                ahead_ns, folder)  # fmt: skip


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a log; a last line that is still being written is left out."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    events = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            continue
        try:
            event = json.loads(line)
        except ValueError as problem:
            raise _damaged(path, number, str(problem)) from problem
        if not (isinstance(event, dict) and event.keys() >= _ALWAYS and isinstance(event["data"], dict)):
            raise _damaged(path, number, f"not an object with {', '.join(sorted(_ALWAYS))}")
        events.append(event)
    return events


def _damaged(path: Path, line: int, what: str) -> ConfigError:
    return ConfigError("history.unreadable", f"line {line}: {what}", str(path), "the event log is damaged")


def _events_or_none(path: Path) -> list[dict[str, Any]]:
    """The events of a log; none of a damaged one, which is told and hides no other."""
    try:
        return read_events(path)
    except ConfigError as problem:
        _log.warning("an event log is left out", problem=str(problem))
        return []


def _facility_of(session: Path) -> str:
    try:
        return str(json.loads((session / "summary.json").read_text(encoding="utf-8"))["facility"])
    except (OSError, ValueError, KeyError):
        return ""
