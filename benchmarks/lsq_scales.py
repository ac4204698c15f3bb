"""Fits whose units nobody gave: features far narrower than |x|, starts at 0, targets far away.

Random models with parameters in random units of 1e-12 to 1e9. In "far offset" one or two of them
are counted from far away (a date, a frequency), so that a share of \\|x\\| leaps over all that the
model does; in "start at 0" one or two start at 0, and nothing tells their unit; in "tiny start"
they start at 1e-8 to 1e-2 of it. Solved: the sum of squares at the point returned fell by 1 - 1e-3;
silent: not solved, called a success, and no parameter is named as undetermined. "told" are fits
that are given the units as ``x_scale``.

    python -m benchmarks.lsq_scales [--quick]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks._common import quick, table, write
from gradiator_np._calibration import least_squares

T = np.linspace(0.0, 1.0, 30)

#: Models of parameters of size 1, and which of these are shifts, rates or widths: what is bent.
MODELS: dict[str, tuple[Callable, np.ndarray, tuple[int, ...]]] = {
    "exponential": (
        lambda q: q[0] * np.exp(-3.0 * q[1] * T) + q[2],
        np.array([1.0, 1.0, 0.5]), (1,),
    ),
    "peak": (
        lambda q: q[0] * np.exp(-0.5 * ((T - q[1]) / (0.2 * q[2])) ** 2) + q[3],
        np.array([1.0, 0.5, 1.0, 0.3]), (1, 2),
    ),
    "logistic": (
        lambda q: q[0] / (1.0 + np.exp(np.clip((q[1] - T) / (0.1 * q[2]), -700, 700))),
        np.array([1.0, 0.5, 1.0]), (1, 2),
    ),
    "sine": (
        lambda q: q[0] * np.sin(2 * np.pi * (q[1] * T + 0.2 * q[2])) + q[3],
        np.array([1.0, 1.0, 1.0, 0.5]), (1, 2),
    ),
    "rational": (
        lambda q: (q[0] + q[1] * T) / (1.0 + 2.0 * q[2] * T + q[3] * T * T),
        np.array([1.0, 1.0, 1.0, 1.0]), (2, 3),
    ),
}  # fmt: skip
KINDS = ("far offset", "start at 0", "tiny start")
LEVELS = (0.0, 1e-4)


@dataclass(frozen=True)
class ScaledProblem:
    """Residuals of a model in parameters x = shift + unit q.

    Attributes
    ----------
    x0, unit, shift : array, shape (m,)
    """

    model: Callable
    data: np.ndarray
    x0: np.ndarray
    unit: np.ndarray
    shift: np.ndarray

    def __call__(self, x):
        with np.errstate(all="ignore"):
            return self.model((np.asarray(x) - self.shift) / self.unit) - self.data


def draw(kind, seed):
    """A random problem."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    model, typical, bent = list(MODELS.values())[rng.integers(len(MODELS))]
    m = len(typical)
    truth = typical * rng.uniform(0.7, 1.4, m)
    start = truth * (1.0 + 0.25 * rng.uniform(-1, 1, m))
    unit = 10.0 ** rng.uniform(-12, 9, m)
    among = bent if kind == "far offset" else range(m)
    odd = rng.choice(among, min(len(among), rng.integers(1, 3)), replace=False)
    shift = np.zeros(m)
    if kind == "far offset":
        far = rng.choice((-1, 1), len(odd)) * 10.0 ** rng.uniform(1, 8, len(odd))
        shift[odd] = unit[odd] * far
        x0 = shift + unit * start
    else:
        x0 = unit * start
        tiny = 0.0 if kind == "start at 0" else 10.0 ** rng.uniform(-8, -2, len(odd))
        x0[odd] = tiny * unit[odd]
        shift[odd] = x0[odd] - unit[odd] * start[odd]
    return ScaledProblem(model, model(truth), x0, unit, shift)


def solve(problem, level, seed, **options):
    """Whether it is solved, whether that is silent where it is not, and runs."""
    rng = np.random.default_rng([seed, 7])
    start = problem(problem.x0)
    sigma = level * np.sqrt(np.mean(start**2))

    def fun(x):
        return problem(x) + sigma * rng.normal(size=len(start))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = least_squares(fun, problem.x0, **options)
    end = problem(fit.x)
    solved = bool(end @ end <= 1e-3 * (start @ start))
    silent = not solved and fit.success and not np.any(fit.undetermined)
    return solved, silent, fit.nfev


def main():
    seeds = range(3 if quick() else 24)
    rows, results = [], {}
    for kind in KINDS:
        problems = [draw(kind, seed) for seed in seeds]
        for level in LEVELS:
            for told in (False, True):
                options = [{"x_scale": p.unit} if told else {} for p in problems]
                made = np.array([
                    solve(p, level, s, **o) for s, p, o in zip(seeds, problems, options)
                ], float)  # fmt: skip
                solved, silent, runs = made.mean(0)[0], made.sum(0)[1], np.median(made[:, 2])
                rows.append([kind, level, "told" if told else "-", solved, int(silent), runs])
                results[f"{kind}, {level}, {told}"] = made.tolist()
    print(f"{len(seeds)} fits each\n")
    print(table(["kind", "noise", "units", "solved", "silent", "runs"], rows))
    print(write("lsq_scales", results))


if __name__ == "__main__":
    main()
