"""check_jacobian over random functions: mistakes are found, or it says that it cannot tell."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.strangers_cases import CELLS, Draw
from gradiator_np import check_jacobian

KINDS = [
    "smooth",
    "one input bends at 1e-4 .. 1e-3",
    "printed, 4 .. 7 digits",
    "printed, 8 .. 12 digits",
    "noise 1e-7 .. 1e-4",
    "noise 1e-4 .. 1e-2",
]
MISTAKES = {"none": 1.0, "sign": -1.0, "factor 2": 2.0, "factor 1.01": 1.01}


def verdicts(kind, draws, seed=0, **options):
    """How often each verdict is given, by mistake of one random entry (or two exchanged rows)."""
    out = {name: Counter() for name in (*MISTAKES, "rows")}
    for k in range(draws):

        def case(k=k):
            return CELLS[kind](Draw(np.random.default_rng([seed, list(CELLS).index(kind), k])))

        right, rng = case().truths[0], np.random.default_rng([seed, k])
        at = np.unravel_index(np.argmax(rng.random(right.shape) * (right != 0)), right.shape)
        for name in out:
            jac = right.copy()
            if name == "rows":
                if len(jac) == 1:
                    continue
                jac[:2] = jac[1::-1]
            else:
                jac[at] *= MISTAKES[name]
            one = case()
            out[name][check_jacobian(one.fun, jac, one.x, rng=k, **options).verdict] += 1
    return out


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"method": "5-point"}], ids=["auto", "5-point"])
def test_mistakes_are_found_or_it_cannot_tell(kind, options):
    """Alarms at the stated rate of 1e-3: two in eight have a probability of 3e-5. "ok" excludes a
    factor of 1.01 with probability 0.95, and larger mistakes altogether: three of eight at 0.05
    have a probability of 6e-3, and mostly bars are far below."""
    found = verdicts(kind, 8, **options)
    assert found["none"]["wrong"] < 2
    assert found["sign"]["ok"] == found["factor 2"]["ok"] == 0
    assert found["factor 1.01"]["ok"] < 3
    if kind == "smooth":
        assert found["factor 1.01"]["wrong"] == 8
        # bars of a stencil hold its highest difference, and are wide where a function bends
        assert found["none"]["ok"] >= (5 if options else 8)
    if not options:
        # measured: at least 0.75 of 40 in every kind; 2 of 8 at 0.75 have a probability of 4e-4
        assert found["sign"]["wrong"] > 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
def test_false_alarms_over_random_functions():
    """180 right Jacobians at 1e-3 each: more alarms than this have a probability below 1e-4."""
    alarms = 0
    for kind in KINDS:
        for k in range(30):
            case = CELLS[kind](Draw(np.random.default_rng([77, list(CELLS).index(kind), k])))
            alarms += check_jacobian(case.fun, case.truths[0], case.x, rng=k).verdict == "wrong"
    assert alarms <= binom.isf(1e-4, 180, 1e-3)
