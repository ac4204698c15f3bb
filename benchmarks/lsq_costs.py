"""What bounds, priors, constraints and losses cost a fit in runs, and what a loss is worth.

    python -m benchmarks.lsq_costs [--quick] [--fits=120] [--seed=0]

Random fits (those of ``benchmarks.lsq_coverage``) without noise of the runs, each also within a box
of 0.5 to 2 times its parameters, with a prior of 30 % of each, below a plane that the truth holds
with a tenth of room, on a plane through the truth (an equality), and with a robust loss that no
residual needs: runs over those of the plain fit, the geometric mean and the 90 % quantile, and fits
that end as no success. Then one datum in fifty off by 20 times the root mean square of the errors,
with squares and with the losses: the share of fits that end with all parameters within one standard
error of the fit to the same data without what is wrong, and their runs.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import LinearConstraint

from benchmarks._common import quick, table, write
from benchmarks.lsq_coverage import Problem, Row, data_of, drawn, on_vector
from gradiator_np import least_squares

LOSSES = ("soft_l1", "huber", "cauchy")
#: Residuals, in standard deviations, from which on a loss counts them less.
F_SCALE = 1.5


def plane(p: Problem, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A random plane through the truth, in parameters relative to it."""
    row = rng.standard_normal(p.truth.size) / p.truth
    return row, float(row @ p.truth)


def variants(p: Problem, rng: np.random.Generator) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """Starts and options by name, the plain fit first."""
    row, at = plane(p, rng)
    length = float(np.linalg.norm(row * p.truth))
    below = row if row @ (p.start - p.truth) <= 0.1 * length else -row
    on = p.start - row * p.truth**2 * (row @ p.start - at) / length**2
    plain = {"sigma": p.sigma, "absolute_sigma": True}
    return {
        "plain": (p.start, plain),
        "bounds": (p.start, plain | {"bounds": (0.5 * p.truth, 2.0 * p.truth)}),
        "prior": (p.start, plain | {"prior_mean": p.start, "prior_std": 0.3 * p.truth}),
        "inequality": (p.start, plain | {"constraints": LinearConstraint(
            below, -np.inf, below @ p.truth + 0.1 * length)}),
        "equality": (on, plain | {"constraints": LinearConstraint(row, at, at)}),
        **{loss: (p.start, plain | {"loss": loss, "f_scale": F_SCALE}) for loss in LOSSES},
    }  # fmt: skip


def costs(fits: int, seed: int) -> list[list[Any]]:
    runs: dict[str, list[int]] = {}
    failed: dict[str, int] = {}
    for k in range(fits):
        rng = np.random.default_rng([seed, k])
        p = drawn(rng)
        residuals = partial(on_vector, p.model, p.t, less=data_of(p, Row({}), rng))
        for name, (start, options) in variants(p, rng).items():
            r = least_squares(residuals, start, **options)
            runs.setdefault(name, []).append(r.nfev)
            failed[name] = failed.get(name, 0) + (not r.success)
    rows = []
    for name, counts in runs.items():
        ratio = np.array(counts) / np.array(runs["plain"])
        rows.append(
            [
                name,
                float(np.exp(np.log(ratio).mean())),
                float(np.mean(counts) / np.mean(runs["plain"])),
                float(np.quantile(ratio, 0.9)),
                failed[name],
            ]
        )
    return rows  # fmt: skip


def robust(fits: int, seed: int) -> list[list[Any]]:
    near: dict[str, list[bool]] = {}
    runs: dict[str, list[int]] = {}
    for k in range(fits):
        rng = np.random.default_rng([seed, k, 1])
        p = drawn(rng)
        y = data_of(p, Row({}), rng)
        off = np.where(rng.permutation(y.size) < max(1, round(y.size / 50)), 20.0 * p.sigma, 0.0)
        plain = {"sigma": p.sigma, "absolute_sigma": True}
        exact = least_squares(partial(on_vector, p.model, p.t, less=y), p.start, **plain)
        wrong = partial(on_vector, p.model, p.t, less=y + off * rng.choice([-1, 1], y.size))
        for loss in ("linear", *LOSSES):
            r = least_squares(wrong, p.start, **plain, loss=loss, f_scale=F_SCALE)
            reach = np.abs(r.x - exact.x) <= exact.stderr
            near.setdefault(loss, []).append(bool(reach.all()))
            runs.setdefault(loss, []).append(r.nfev)
    return [[name, float(np.mean(near[name])), float(np.mean(runs[name]))] for name in near]


def main() -> None:
    given = dict(a[2:].split("=", 1) for a in sys.argv[1:] if "=" in a)
    fits, seed = int(given.get("fits", 3 if quick() else 120)), int(given.get("seed", 0))
    rows = costs(fits, seed)
    print(f"{fits} random fits, runs over those of the plain fit\n")
    print(table(["", "geometric mean", "of all runs", "90 % quantile", "no success"], rows))
    spoilt = robust(fits, seed)
    print("\none datum in fifty off by 20 sigma: all parameters within a standard error of the fit "
          "without\n")  # fmt: skip
    print(table(["loss", "share", "runs a fit"], spoilt))
    print(write("lsq_costs", {"costs": rows, "robust": spoilt}))


if __name__ == "__main__":
    main()
