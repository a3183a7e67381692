"""Several energies a flat top: the reference plan at levels where the ring's cycles matter."""

from __future__ import annotations

from control.plan.maker import make_plan
from control.plan.program import compile_program
from facility.config import change_facility, load_facility
from tests.acceptance.deliveries import deliver


def test_forty_percent_of_the_facility_time_and_every_spot_within_its_tolerance() -> None:
    """The whole comparison is `benchmarks.several_energies`; here one energy a cycle is the least it can take."""
    usual = load_facility("himm-mee")
    several = change_facility(usual, {"front_end.min_percent_share": 0.55})
    plan = make_plan("sphere", 60.0, 150.0, 2.0, "carbon", usual)
    single = change_facility(several, {"ring.energies_per_flat_top": 1})
    programs = [compile_program(plan, facility, "1") for facility in (several, single)]
    levels = [[layer.level_index for layer in program.layers] for program in programs]
    assert levels[0] == levels[1]
    assert any(a > b.level_index for a, b in zip(levels[0], compile_program(plan, usual, "1").layers, strict=True))
    delivery = deliver(programs[0], several)
    assert (delivery.summary.status, delivery.summary.interlocks) == ("completed", ())
    assert delivery.judged.missed == ()
    assert delivery.judged.p99_position_mm < 0.3  # 0.11 at usual levels: more of a spot's ions come in moves
    assert delivery.summary.facility_s < 0.6 * programs[1].expected_s
