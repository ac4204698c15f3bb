"""Levenberg-Marquardt on ODE models, with a Jacobian that costs no evaluations of its own.

Every point that the optimiser tries is a sample of the function. ``StreamingJacobian`` turns that
trail into a Jacobian at the present point, so after one starting round an iteration costs one run
of the model, where finite differences cost one run for each parameter more.

Two problems on the predator-prey equations of Lotka and Volterra, solved by ``solve_ivp``:

* fit: four rates from 40 noisy observations (the classical least-squares problem);
* shooting: four rates so that two populations hit given values at two times (a square system,
  which SciPy's quasi-Newton root finders can take as well).

Run ``python docs/examples/stream_in_optimiser.py``; it prints a table of evaluations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.optimize import NoConvergence, least_squares, root

from gradiator_np.streaming import StreamingJacobian

Array = NDArray[np.float64]
TRUE = np.array([1.0, 0.4, 1.2, 0.3])
START = np.array([0.9, 0.45, 1.1, 0.35])


class Lost(Exception):
    """A solver left the range in which the model makes sense."""


class Counted:
    """A function that counts its evaluations, and ends a solver that went astray."""

    def __init__(self, fun: Callable[[Array], Array], limit: int = 200) -> None:
        self.fun, self.nfev, self.limit = fun, 0, limit

    def __call__(self, x: Array) -> Array:
        if self.nfev == self.limit or not (np.abs(x) < 3).all():
            raise Lost
        self.nfev += 1
        return self.fun(x)


def populations(rates: Array, times: Array) -> Array:
    """Prey and predators at ``times``, shape (2, len(times))."""
    a, b, c, d = rates

    def slope(_: float, y: Array) -> list[float]:
        prey, predators = y
        return [a * prey - b * prey * predators, d * prey * predators - c * predators]

    span = (0.0, float(times[-1]))
    solution = solve_ivp(slope, span, [4.0, 2.0], t_eval=times, rtol=1e-9, atol=1e-10)
    if not solution.success:
        raise Lost
    return np.asarray(solution.y)


def fit_problem() -> Callable[[Array], Array]:
    """Residuals of 40 observations with noise of 0.05."""
    times = np.linspace(0.25, 5.0, 20)
    noise = 0.05 * np.random.default_rng(1).standard_normal((2, 20))
    seen = populations(TRUE, times) + noise
    return lambda rates: (populations(rates, times) - seen).ravel()


def shooting_problem() -> Callable[[Array], Array]:
    """Misses of four targets."""
    times = np.array([1.5, 4.0])
    target = populations(TRUE, times)
    return lambda rates: (populations(rates, times) - target).ravel()


def levenberg_marquardt(
    fun: Callable[[Array], Array],
    x: Array,
    *,
    stream: bool,
    tol: float = 1e-4,
    max_nfev: int = 200,
) -> Array:
    """Least squares with J from the trail of points (``stream``) or from forward differences."""
    m, f = x.size, fun(x)
    follower = StreamingJacobian(m, f.size).partial_fit(x=x, f=f)
    nfev, damping, settled = 1, 1e-3, 0

    def differences(point: Array) -> Array:
        """Evaluations around ``point``, told to the stream; their Jacobian."""
        nonlocal nfev
        columns = []
        for j in range(m):
            moved = point.copy()
            moved[j] += 1e-6 * abs(point[j])
            value = fun(moved)
            columns.append((value - f) / (moved[j] - point[j]))
            follower.partial_fit(x=moved, f=value, move=False)
        nfev += m
        return np.stack(columns, axis=1)

    jac = differences(x)
    while nfev < max_nfev:
        gram, slope = jac.T @ jac, jac.T @ f
        step = -np.linalg.solve(gram + damping * np.diag(np.diag(gram)), slope)
        trial = x + step
        value = fun(trial)
        nfev += 1
        before, after = np.linalg.norm(f), np.linalg.norm(value)
        better = bool(after < before)
        # A rejected point is a sample as well: it corrects J along the step that failed.
        follower.partial_fit(x=trial, f=value, move=better)
        if better:
            x, f = trial, value
        damping = damping / 5 if better else damping * 4
        if stream:
            jac = follower.jac
        elif better:
            jac = differences(x)
        small = abs(before - after) <= 1e-4 * before or (
            np.linalg.norm(step) <= tol * np.linalg.norm(x)
        )
        settled = settled + 1 if small else 0
        if settled == 1 + stream:  # two small steps in a row with an approximate J
            break
    return x


def compare(fun: Callable[[Array], Array], square: bool) -> dict[str, tuple[int, Array]]:
    """Evaluations and answer of each way to solve ``fun``."""
    ways: dict[str, Callable[[Counted], Array]] = {
        "LM, J from the stream": lambda f: levenberg_marquardt(f, START, stream=True),
        "LM, forward differences": lambda f: levenberg_marquardt(f, START, stream=False),
        "SciPy least_squares, 2-point": lambda f: (
            least_squares(f, START, xtol=1e-4, ftol=1e-4, gtol=None).x
        ),
    }
    if square:
        ways["SciPy root hybr"] = lambda f: root(f, START, method="hybr").x
        ways["SciPy root broyden1"] = lambda f: broyden(f, "broyden1")
        ways["SciPy root broyden2"] = lambda f: broyden(f, "broyden2")
    answers = {}
    for name, way in ways.items():
        counted = Counted(fun)
        answers[name] = (way(counted), counted)
    return {name: (counted.nfev, x) for name, (x, counted) in answers.items()}


def broyden(fun: Callable[[Array], Array], method: str) -> Array:
    """SciPy's quasi-Newton root finder; nan where it fails."""
    try:
        with np.errstate(all="ignore"):
            return np.asarray(root(fun, START, method=method, options={"fatol": 1e-8}).x)
    except (NoConvergence, Lost):
        return np.full(START.size, np.nan)


def main() -> dict[str, dict[str, tuple[int, Array]]]:
    """Solve both problems in every way and print the table."""
    table = {}
    for title, fun, square in (
        ("fit, 40 residuals", fit_problem(), False),
        ("shooting, 4 equations", shooting_problem(), True),
    ):
        table[title] = compare(fun, square)
        print(f"\n{title:36s} evaluations   |residual|")
        for name, (nfev, x) in table[title].items():
            left = np.linalg.norm(fun(x)) if np.isfinite(x).all() else np.nan
            print(f"  {name:34s} {nfev:11d}   {left:.6g}")
    return table


if __name__ == "__main__":
    main()
