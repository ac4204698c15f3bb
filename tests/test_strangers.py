"""The fuzzer's rates, on a seed of its own: random functions under random conditions."""

import numpy as np
import pytest

from benchmarks.strangers import CELLS, NOISE, Draw, ours

DRAWS = 6
# Where bars cannot hold, or the right answer is open: said in docs/noise.md.
HARD = ("fails at random", "far origin", "wiggle", "float32", "failing side, printed")
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
