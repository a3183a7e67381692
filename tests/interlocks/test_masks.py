"""More than thirty fast rules: their masks cross the link in two words each and come back whole."""

from __future__ import annotations

import numpy as np
import pytest

from facility.signals import N_SIGNALS
from interlocks import fast
from interlocks.fast_mirror import FastMirror
from interlocks.link import PermitCommand, pack_permit, unpack_permit
from interlocks.process_image import INVALID, NO_FAULT, PLACE, image_of, mask_of
from interlocks.rules import rules_from_toml
from ioc_sim.signals_tick import publish_latch
from tests.interlocks.support import TEXT, body

RULES = 40
MASKS = [0, 1, 1 << 29, 1 << 30, 1 << 39, (1 << 40) - 1, 1 << (fast.MAX_RULES - 1)]


def image_with(latched: int, present: int = 0) -> np.ndarray:
    """The image of a rack whose latch vector holds these masks."""
    signals, latch = np.zeros(N_SIGNALS), fast.new_latch()
    latch[fast.LATCHED], latch[fast.PRESENT] = latched, present
    publish_latch(signals, latch)
    return image_of(signals)


@pytest.mark.parametrize("mask", MASKS)
def test_masks_come_through_the_image(mask: int) -> None:
    image = image_with(mask, mask >> 1)
    assert mask_of(image, "h.latched") == mask
    assert mask_of(image, "h.present") == mask >> 1


@pytest.mark.parametrize("mask", MASKS)
def test_a_reset_reaches_every_rule(mask: int) -> None:
    command = PermitCommand(False, True, mask, 7)
    assert unpack_permit(pack_permit(command)) == command


@pytest.mark.parametrize("word", ["h.latched", "h.latched_high"])
def test_an_invalid_word_is_all_of_its_rules(word: str) -> None:
    image = image_with(0)
    image[PLACE[word]] = INVALID
    whole = (1 << 30) - 1
    assert mask_of(image, "h.latched") == (whole if word == "h.latched" else whole << 30)


def test_a_rule_beyond_the_thirtieth_is_seen() -> None:
    many = "".join(f"[[rule]]\n{body(id=f'rule-{i}')}\n" for i in range(RULES))
    rules = rules_from_toml(TEXT.split("[[rule]]")[0] + many, "wuwei", "carbon", 0)
    mirror = FastMirror(rules.h)
    assert mirror.take(image_with(1 << 35, 1 << 35), NO_FAULT, 5) == [rules.h[35].id]
    assert mirror.view(rules.h[35].id).latched
    assert not mirror.view(rules.h[5].id).latched
