"""Smooth deterministic functions: error and evaluations beside numdifftools and SciPy.

``python -m benchmarks.smooth``: relative Frobenius error of J against the complex step, over
classical problems, at their starting points and at points moved by a fixed random 10 %.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.optimize._numdiff import approx_derivative

from benchmarks._common import quick, table, write
from benchmarks.problems import PROBLEMS
from gradiator_np import jacobian

METHODS = ("2-point", "3-point", "5-point", "7-point", "9-point", "cs", "auto")


class Counted:
    """A function that counts its runs."""

    def __init__(self, fun: Any) -> None:
        self.fun, self.count = fun, 0

    def __call__(self, x: Any) -> Any:
        self.count += 1
        return self.fun(np.asarray(x))


def contenders() -> dict[str, Any]:
    """Name to a function (fun, x) -> J."""
    import numdifftools

    ours = {m: (lambda f, x, m=m: jacobian(f, x, method=m).jac) for m in METHODS}
    ours["auto, max_nfev=10 m"] = lambda f, x: jacobian(f, x, max_nfev=10 * len(x)).jac
    peers = {
        "SciPy 2-point": lambda f, x: approx_derivative(f, x, method="2-point"),
        "SciPy 3-point": lambda f, x: approx_derivative(f, x, method="3-point"),
        "numdifftools": lambda f, x: numdifftools.Jacobian(f)(x),
    }
    return {f"ours {k}": v for k, v in ours.items()} | peers


def points(problem: Any) -> list[Any]:
    """The usual start, and a point 10 % away."""
    rng = np.random.default_rng(len(problem.name) * 1000 + problem.m)
    return [problem.x0, problem.x0 * (1 + 0.1 * rng.uniform(-1, 1, problem.m))]


def main() -> None:
    """Measure, print, write."""
    warnings.simplefilter("ignore")
    problems = PROBLEMS[:4] if quick() else PROBLEMS
    errors: dict[str, list[float]] = {name: [] for name in contenders()}
    runs: dict[str, list[float]] = {name: [] for name in errors}
    extra = 0
    for problem in problems:
        for x in points(problem):
            exact = problem.jac(x)
            for name, estimate in contenders().items():
                fun = Counted(problem.fun)
                try:
                    jac = np.asarray(estimate(fun, x)).reshape(exact.shape)
                    error = np.linalg.norm(jac - exact) / np.linalg.norm(exact)
                except Exception:
                    error = np.inf
                errors[name].append(float(error))
                runs[name].append(fun.count / problem.m)
                if name == "ours auto":
                    extra = max(extra, fun.count - 2 * problem.m)
    rows = [
        (name, float(np.median(errors[name])), float(np.max(errors[name])),
         float(np.median(runs[name])))
        for name in errors
    ]  # fmt: skip
    print(table(("method", "median error", "worst", "evaluations per input"), rows))
    print(f"auto: at most 2 m + {extra} evaluations; {len(errors['ours auto'])} cases")
    print(write("smooth", {"errors": errors, "runs": runs, "auto_extra": extra}))


if __name__ == "__main__":
    main()
