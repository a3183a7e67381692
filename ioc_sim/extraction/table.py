"""The calibrated rate model as one of a facility's tables: `tables/<facility>-spill.csv`, versioned and hashed.

The header carries the schema, a version, the hash of what was calibrated (optics of the ring, operating points) and the
hash of its own rows: a table that was edited, that belongs to other optics, or whose version nobody has approved with
this hash (`facility.table_approval`) is refused.
Made by `ionctl machine calibrate`, which gives it the next version; used once `ionctl table approve --species spill`
has put it on record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from facility.config import Facility, find_config
from facility.errors import ConfigError
from facility.table_approval import SPILL, read_approvals, require_approved
from ioc_sim.extraction.optics import Optics, load_optics
from ioc_sim.extraction.points import POINTS, RIPPLE_PER_TURN, START_FILL, Point
from ioc_sim.extraction.rate_model import RateModel

SCHEMA = "ionctl.spill-table/3"
METHOD = 4
"""Of the calibration itself: what was found by another one is stale."""
UNITS = {
    "kind": "", "share_per_turn": "1/turn", "mean_turns": "turns", "mean_per_log": "turns", "spread_turns": "turns",
    "momentum_power": "1", "stages": "1", "ripple_gain": "1", "ripple_delay_turns": "turns",
    "ripple_lag_turns": "turns", "drive_delay_turns": "turns", "drive_lag_turns": "turns",
    "drive_edge_turns": "turns", "ripple_per_log": "turns", "stack_step": "1", "restart_rel": "1",
    "rough_short": "1", "rough_long": "1", "fill_share": "1", "edge_share": "1",
}  # fmt: skip
HEADING = "name,value,unit"


@dataclass(frozen=True)
class SpillTable:
    """A table of one ring: `hash` is the SHA-256 of its rows."""

    facility_id: str
    version: int
    hash: str
    model: RateModel

    @property
    def species(self) -> str:
        """What stands on record in the place of the species."""
        return SPILL


def table_name(facility_id: str) -> str:
    """Where the table stands in a folder of configuration."""
    return f"tables/{facility_id}-spill.csv"


def render_spill_table(
    facility: Facility, model: RateModel, optics: Optics, points: Sequence[Point], version: int
) -> str:
    """Text of the table; numbers to five places."""
    values = asdict(model)
    rows = [f"{name},{_cell(values[name])},{unit}" for name, unit in UNITS.items()]
    body = "\n".join([HEADING, *rows]) + "\n"
    header = [
        f"# schema: {SCHEMA}",
        f"# facility: {facility.id}",
        f"# version: {version}",
        f"# inputs_sha256: {inputs_hash(optics, points)}",
        f"# sha256: {hashlib.sha256(body.encode()).hexdigest()}",
    ]
    return "\n".join(header) + "\n" + body


def load_spill_table(
    facility: Facility, config_dir: Path | None = None, env: Mapping[str, str] | None = None
) -> RateModel:
    """The model of the table in use; ConfigError: as `read_spill_table`, or not approved in this version."""
    table, where = read_spill_table(facility, config_dir, env)
    require_approved(table, read_approvals(config_dir, env), where)
    return table.model


def read_spill_table(
    facility: Facility, config_dir: Path | None = None, env: Mapping[str, str] | None = None
) -> tuple[SpillTable, str]:
    """Read and verify the table, approved or not, and where it lies; ConfigError: missing, edited, of another facility,
    or of other optics."""
    relative = table_name(facility.id)
    source = find_config(relative, config_dir, env)
    if source is None:
        raise ConfigError("spill-table.missing", f"no spill table '{relative}'", "", _fix(facility.id))
    optics = load_optics(facility.id, config_dir)
    return parse_spill_table(source.read_text(encoding="utf-8"), facility, optics, str(source)), str(source)


def parse_spill_table(text: str, facility: Facility, optics: Optics, where: str) -> SpillTable:
    """Verify and parse the text of a table; errors as `read_spill_table`."""
    lines = text.splitlines(keepends=True)
    count = next((i for i, line in enumerate(lines) if not line.startswith("# ")), len(lines))
    header = {key.strip(): value.strip() for key, _, value in (line[2:].partition(":") for line in lines[:count])}
    fix = _fix(facility.id)
    for key, value in {"schema": SCHEMA, "facility": facility.id}.items():
        if header.get(key) != value:
            raise ConfigError("spill-table.header", f"{key} = {header.get(key)!r}", where, f"must be '{value}'; {fix}")
    version = header.get("version", "")
    if not version.isdecimal() or int(version) < 1:
        raise ConfigError("spill-table.header", f"version = {version!r}", where, f"must be a number from 1 on; {fix}")
    body = "".join(lines[count:])
    if header.get("sha256") != hashlib.sha256(body.encode()).hexdigest():
        raise ConfigError("spill-table.edited", "the rows do not match the table's own hash", where, fix)
    if header.get("inputs_sha256") != inputs_hash(optics, POINTS[facility.ring.extraction]):
        raise ConfigError("spill-table.stale", "calibrated with other optics or operating points", where, fix)
    return SpillTable(facility.id, int(version), header["sha256"], _model(body, facility, where))


def _model(body: str, facility: Facility, where: str) -> RateModel:
    """The rows as a model; each must be there, and stand for what it names."""
    rows = [line.split(",") for line in body.splitlines()[1:]]
    cells = {row[0]: row[1] for row in rows if len(row) == 3 and UNITS.get(row[0]) == row[2]}
    if len(rows) != len(UNITS) or set(cells) != set(UNITS) or cells["kind"] != facility.ring.extraction:
        allowed = f"the rows {', '.join(UNITS)} of a ring with {facility.ring.extraction} extraction"
        raise ConfigError("spill-table.rows", f"{len(rows)} rows, kind {cells.get('kind')!r}", where, allowed)
    try:
        numbers = {name: float(cell) for name, cell in cells.items() if name not in ("kind", "stages")}
        return RateModel(kind=cells["kind"], stages=int(cells["stages"]), **numbers)
    except ValueError as error:
        raise ConfigError("spill-table.cell", f"not a number: {error}", where, _fix(facility.id)) from None


def _cell(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.5g}"


def inputs_hash(optics: Optics, points: Sequence[Point]) -> str:
    """Hash of what the numbers depend on."""
    data = {
        "version": METHOD,
        "optics": optics.model_dump(mode="json", exclude={"name", "facilities"}),
        "points": [asdict(point) for point in points],
        "per_turn": RIPPLE_PER_TURN,
        "start_fill": START_FILL,
    }
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _fix(facility_id: str) -> str:
    return f"make it with: ionctl machine calibrate --facility {facility_id}"
