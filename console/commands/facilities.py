"""`ionctl facility`: which machines there are, and what one is like."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from console.options import JSON
from console.settings import Settings

if TYPE_CHECKING:
    from facility.config.models import Facility


@click.group()
def facility() -> None:
    """List and show facilities; begin one of your own."""


@facility.command("list")
@JSON
@click.pass_obj
def list_(settings: Settings, as_json: bool) -> None:
    """List the facilities that can be loaded."""
    from console.tables import print_json, print_table
    from facility.config.loader import list_facilities

    found = [settings.facility(name) for name in list_facilities(settings.config_dir)]
    if as_json:
        print_json([_short(f) for f in found])
        return
    rows = [(s["id"], s["name"], ", ".join(s["species"]), ", ".join(s["rooms"]), s["extraction"], s["description"])
            for s in map(_short, found)]  # fmt: skip
    print_table("Facilities", ("id", "name", "species", "rooms", "extraction", "description"), rows,
                spare=("description",))  # fmt: skip


@facility.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="The whole resolved configuration.")
@click.pass_obj
def show(settings: Settings, name: str, as_json: bool) -> None:
    """Show one facility: species, rooms, ring, monitors."""
    import json

    from console.tables import print_json, print_table

    found = settings.facility(name)
    if as_json:
        print_json(json.loads(found.canonical_json()))
        return
    for title, columns, rows in _sections(found):
        print_table(title, columns, rows)
    print(f"configuration hash {found.hash}")


@facility.command("copy")
@click.argument("like")
@click.argument("name")
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path, file_okay=False),
              help="Configuration folder; made if it is not there.")  # fmt: skip
@click.pass_obj
def copy_(settings: Settings, like: str, name: str, folder: Path) -> None:
    """Begin a facility NAME with the file of LIKE and the optics of its ring; what is there is not written over."""
    from console.facility_copy import copy_facility

    for path in copy_facility(like, name, folder, settings.config_dir):
        print(f"wrote {path}")
    if like == name:
        print(f"change it; where it is read first: export IONCTL_CONFIG={folder.resolve()}")
        return
    made = settings.facility(str(folder / f"{name}.toml"))
    print("put the figures of your machine into them, then:")
    print(f"  export IONCTL_CONFIG={folder.resolve()}")
    for species in made.species:
        print(f"  ionctl table make --facility {name} --species {species}")
        print(f"  ionctl table approve --facility {name} --species {species} --by WHO --reason WHY")
    print(
        f"  ionctl machine calibrate --facility {name}    # some minutes; --like {like} while the optics are the same"
    )
    print(f"  ionctl table approve --facility {name} --species spill --by WHO --reason WHY")


def _short(found: Facility) -> dict[str, Any]:
    return {
        "id": found.id,
        "name": found.facility.name,
        "description": found.facility.description,
        "pv_prefix": found.pv_prefix,
        "species": list(found.species),
        "rooms": list(found.rooms),
        "extraction": found.ring.extraction,
        "hash": found.hash,
    }


def _sections(found: Facility) -> list[tuple[str, tuple[str, ...], list[tuple[Any, ...]]]]:
    species = [
        (name, s.energy_min_mev_u, s.energy_max_mev_u, s.fill_ions,
         " ".join(f"{level:.2g}" for level in s.intensity_levels_ions_per_s))
        for name, s in found.species.items()
    ]  # fmt: skip
    rooms = [
        (key, r.name, " ".join(f"{angle:g}" for angle in r.beam_angle_deg),
         "x".join(f"{2 * v:g}" for v in r.field_half_mm), r.sad_x_mm, r.sad_y_mm, r.x_polarity, r.y_polarity, r.swap_xy)
        for key, r in found.rooms.items()
    ]  # fmt: skip
    ring = [
        ("circumference", f"{found.ring.circumference_m:g} m"),
        ("extraction", found.ring.extraction),
        ("energies per flat top", found.ring.energies_per_flat_top),
        ("longest flat top", f"{found.ring.phases.flat_top_max_ms / 1000:g} s"),
        ("spill gate", found.beam_off.spill_gate),
        ("range shifters", " ".join(f"{r.id} ({r.water_equivalent_mm:g} mm)" for r in found.range_shifters) or "none"),
        ("ripple filter sigma", f"{found.ripple_filter.sigma_mm:g} mm"),
        ("gate", "on" if found.gate.enabled else "off"),
    ]
    title = f"{found.facility.name}: {found.facility.description}"
    return [
        (title, ("machine", ""), ring),
        ("Species", ("species", "from MeV/u", "to MeV/u", "ions per fill", "intensity levels, ions/s"), species),
        ("Rooms", ("room", "name", "angles", "field mm", "SAD x mm", "SAD y mm", "x wired", "y wired", "swap"), rooms),
    ]  # fmt: skip
