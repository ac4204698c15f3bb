"""The fuzzer's rates, on a seed of its own: random functions under random conditions."""

import numpy as np
import pytest

from benchmarks.strangers import CELLS, NOISE, Draw, ours

DRAWS = 6
# Where bars cannot hold, or the right answer is open: said in docs/noise.md.
HARD = ("wiggle", "float32")
DETERMINISTIC = [n for n in CELLS if n not in NOISE and not any(word in n for word in HARD)]


def judged(names):
    return [
        ours(CELLS[name](Draw(np.random.default_rng([2026, i, k]))), k)
        for i, name in enumerate(names)
        for k in range(DRAWS)
    ]


@pytest.mark.slow
def test_deterministic_functions_are_hardly_ever_wrong_and_silent():
    """A rate of 1 % of silently wrong columns, of 5 % of useless bars: 5 and 17 of some 160 are
    exceeded in one seed of 1000."""
    found = judged(DETERMINISTIC)
    assert len(found) > 140
    assert sum(f["silent"] for f in found) <= 6
    assert sum(f["useless"] for f in found) <= 18


@pytest.mark.slow
def test_noise_is_hardly_ever_wrong_and_silent():
    """A rate of 5 %: 9 of 54 are exceeded in one seed of 1000."""
    names = [n for n in NOISE if not any(word in n for word in HARD)]
    found = judged(names)
    assert sum(f["silent"] for f in found) <= 9
    held = np.nanmean([f.get("held", np.nan) for f in found])
    # 54 Jacobians whose entries hold together, at 0.93: three deviations of 0.25 / sqrt(54)
    assert held > 0.83


#: Cells with what was wrong in them and is mended: draws of each, and silent and useless calls
#: that rates of 0.5 % and 5 % exceed in one seed of 1000; with noise 2 % are silent.
MENDED = {
    # terms of the line model were limited at t = 1, and curvature passed for rounding: 4 and 16 %
    "far origin": (40, 3, 11),
    # slopes that vanish were the unit of the terms, and the pilot's step that of one input: 1.5 %
    "minimum": (30, 4, 12),
    "one input bends at 1e-6": (40, 2, 7),
    # outputs that never moved had the noise of their value, 0: 4 %
    "multiples of 1e-5": (40, 2, 7),
    # curvature hid that an event lies on one side of x: 9 and 6 % useless, none of 500 now; 3 are
    # exceeded at a rate of 0.5 % in one seed of 1000
    "saturation": (80, 3, 3),
    "kink beside": (80, 3, 3),
    # inputs without a wide pair of their own had bars of four times the gap: 19 %
    "wiggle": (80, 3, 11),
    # repetitions were taken from the pairs that make bars of use: 17 % useless
    "noise, fails at random": (40, 5, 7),
    # steps led to the side that had failed: 7 % useless; silent at 1 %, as outputs that digits
    # hide share the bends of those that they do not
    "failing side, printed": (40, 3, 7),
    # all inputs kept to where the pilot's direction had failed; silent at 2 %
    "noise, failing side": (40, 5, 7),
}


@pytest.mark.slow
@pytest.mark.parametrize("word", MENDED)
def test_kinds_that_were_wrong(word):
    draws, silent, useless = MENDED[word]
    found = [
        ours(CELLS[name](Draw(np.random.default_rng([2027, i, k]))), k)
        for i, name in enumerate(n for n in CELLS if n.startswith(word))
        for k in range(draws)
    ]
    assert sum(f["silent"] for f in found) <= silent
    assert sum(f["useless"] for f in found) <= useless


@pytest.mark.slow
def test_decimals_of_decimals_have_an_answer():
    """9 % said no_signal where only the widest steps are answered; of 60 none in 400 does: two
    are exceeded at a rate of 0.5 % in one seed of 300."""
    cell = CELLS["decimals in and out"]
    found = [ours(cell(Draw(np.random.default_rng([2027, 99, k]))), k) for k in range(60)]
    assert sum(f["status"] == "no_signal" for f in found) <= 2
    assert sum(f["silent"] for f in found) <= 2
