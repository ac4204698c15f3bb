"""Do the 95 % intervals of fitted parameters hold the noise-free minimiser?

    python -m benchmarks.lsq_intervals [--quick] [--seeds=3]

``held`` counts parameters that the driver calls determined, over problems and seeds; ``given`` is
their share. ``width`` is the half width over the error, as the median. ``x_rel_half_width`` goes
on until half widths are 5 % of |x|, within 50 (m + 1) runs.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
from scipy.optimize import least_squares as polish

from benchmarks._common import quick, table, write
from benchmarks.lsq_held_out import held_out
from benchmarks.lsq_problems import problems
from benchmarks.lsq_runs import BUDGET, Recorder
from gradiator_np._calibration import least_squares

#: Largest problems take a minute a fit.
LARGEST = 12


def minimiser(problem, x):
    """The noise-free minimiser near x, or None where there is none nearby."""
    try:
        return polish(problem.fun, x, jac="3-point", x_scale="jac", xtol=1e-14, ftol=1e-15,
                      gtol=1e-15, max_nfev=500).x  # fmt: skip
    except ValueError:  # the model overflows beside x
        return None


def entries(problem, level, seed, half_width):
    """Held, half width over error, and whether the interval is finite, of every parameter."""
    fun = Recorder(problem, level, seed)
    runs = BUDGET * (problem.x0.size + 1)
    r = least_squares(fun, problem.x0, max_nfev=runs, x_rel_half_width=half_width)
    best = minimiser(problem, r.x)
    if best is None:
        return np.zeros((0, 3))
    low, high = r.confidence_interval(0.95, "runs")
    half, error = 0.5 * (high - low), np.abs(r.x - best)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([error <= half, half / error, np.isfinite(half)], 1)


def main():
    given = dict(arg[2:].split("=", 1) for arg in sys.argv[1:] if "=" in arg)
    seeds = 1 if quick() else int(given.get("seeds", 3))
    groups = {"made on": problems(), "held out": held_out()}
    if quick():
        groups = {name: group[:3] for name, group in groups.items()}
    rows, results = [], {}
    warnings.simplefilter("ignore")
    for half_width in (None, 0.05):
        for level in ("1e-4", "1e-2", "multiplicative 1e-3"):
            for name, group in groups.items():
                chosen = [p for p in group if p.x0.size <= LARGEST]
                each = {p.name: np.vstack([entries(p, level, s, half_width) for s in range(seeds)])
                        for p in chosen}  # fmt: skip
                found = np.vstack(list(each.values()))
                sure = found[:, 2] > 0
                row = {
                    "held": float(found[sure, 0].mean()),
                    "given": float(sure.mean()),
                    "width": float(np.median(found[sure, 1])),
                }
                results[f"{name}, {level}, x_rel_half_width {half_width}"] = row
                rows.append([name, level, half_width or "-", *row.values()])
                print(rows[-1], flush=True)
    print(
        table(
            ["problems", "noise", "x_rel_half_width", "held", "given", "half width / error"], rows
        )
    )
    print(write("lsq_intervals", results))


if __name__ == "__main__":
    main()
