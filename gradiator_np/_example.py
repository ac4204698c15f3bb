"""The embedded example: an epidemic, simulated with adaptive steps, and its sensitivities.

``simulate`` is a simulator like those that this package is for: an ODE solver that chooses its own
steps, and an output in whole persons. Differences with the steps of a smooth function see the
rounding in place of the trend. The exact Jacobian is known nevertheless, from the variational
equations integrated tightly, so the error bars can be judged.
"""

from __future__ import annotations

import warnings

import numpy as np

from gradiator_np._typing import Array

POPULATION = 1e6
INFECTED_AT_START = 20.0
DAYS = np.array([40.0, 60.0, 80.0, 120.0])

INPUTS = ("contact", "incubation", "recovery")
X = np.array([0.5, 0.25, 0.2])  # rates per day

# A table as it may be in a drawer: runs at rates within one percent of X.
TABLE_RUNS = 40
TABLE_SPREAD = 0.01


def simulate(x: Array) -> Array:
    """People infected on certain days of an epidemic (SEIR model).

    Parameters
    ----------
    x : array, shape (3,)
        Rates of contact, incubation and recovery, per day.

    Returns
    -------
    array, shape (4,)
        Whole persons infected on ``DAYS``.
    """
    from scipy.integrate import solve_ivp

    def rates(_: float, state: Array) -> Array:
        return _rates(state, x)

    run = solve_ivp(rates, (0.0, DAYS[-1]), _start(), t_eval=DAYS, rtol=1e-8, atol=1e-11)
    return np.asarray(np.rint(run.y[2] * POPULATION))


def exact_jacobian() -> Array:
    """The Jacobian of ``simulate`` at ``X``, shape (4, 3), from its variational equations.

    S = d state / d x follows S' = (df/dstate) S + df/dx, S(0) = 0, and is integrated with the
    state to 1e-12 (Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, section
    I.14).
    """
    from scipy.integrate import solve_ivp

    beta, sigma, gamma = X

    def rates(_: float, z: Array) -> Array:
        state, tangent = z[:3], z[3:].reshape(3, 3)
        s, e, i = state
        by_state = np.array(
            [[-beta * i, 0.0, -beta * s], [beta * i, -sigma, beta * s], [0.0, sigma, -gamma]]
        )
        by_x = np.array([[-s * i, 0.0, 0.0], [s * i, -e, 0.0], [0.0, e, -i]])
        return np.concatenate([_rates(state, X), (by_state @ tangent + by_x).ravel()])

    start = np.concatenate([_start(), np.zeros(9)])
    run = solve_ivp(
        rates, (0.0, DAYS[-1]), start, method="DOP853", t_eval=DAYS, rtol=1e-12, atol=1e-16
    )
    return np.asarray(run.y[9:].T * POPULATION)


def sample_table() -> tuple[Array, Array]:
    """Points (k, 3) at random around ``X`` and the outputs (k, 4) there."""
    scatter = np.random.default_rng(1).uniform(-1.0, 1.0, (TABLE_RUNS, len(X)))
    points = X * (1.0 + TABLE_SPREAD * scatter)
    return points, np.array([simulate(point) for point in points])


def report() -> str:
    """The example, estimated in two ways and compared with the exact answer."""
    from gradiator_np._estimate import jacobian
    from gradiator_np._fit import fit_points

    exact = exact_jacobian()
    estimate = jacobian(simulate, X, rng=0)
    fitted = fit_points(*sample_table(), x=X, solver="taylor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is wrong here is what the last lines say
        plain = jacobian(simulate, X, method="3-point")
    miss = 100 * np.abs(plain.jac / exact - 1.0).max()
    return "\n".join(
        [
            "An epidemic (SEIR model, adaptive steps, whole persons): how do the numbers of",
            "infected people answer to the rates of contact, incubation and recovery?",
            "",
            f"jacobian(simulate, x): {estimate.nfev} evaluations, status {estimate.status}",
            *_compared(estimate.jac, estimate.stderr, exact),
            "",
            f"fit_points(points, outputs, x=x, solver='taylor'): a table of {TABLE_RUNS} runs at "
            f"random within {TABLE_SPREAD:.0%},",
            f"status {fitted.status}",
            *_compared(fitted.jac, fitted.stderr, exact),
            "",
            "exact: variational equations, integrated to 1e-12. Two in three of the last column",
            f"should lie within 1. Central differences (method='3-point', {plain.nfev} evaluations)"
            f" are up to {miss:.0f} %",
            "wrong here: their steps are made for smooth functions.",
            "",
            "Your function: python -m gradiator_np jacobian package.module:function --at 1,2,3",
        ]
    )


def _compared(jac: Array, stderr: Array, exact: Array) -> list[str]:
    """A line for each entry: estimate, its standard error, the exact value, and their distance."""
    lines = [f"{'':14}{'d / d rate of':>14}{'estimate':>13}   {'stderr':>8}{'exact':>13}"
             f"{'(estimate - exact) / stderr':>30}"]  # fmt: skip
    for i, day in enumerate(DAYS):
        for j, name in enumerate(INPUTS):
            value, error, truth = jac[i, j], stderr[i, j], exact[i, j]
            lines.append(
                f"infected day {day:<4.0f}{name:>11}{value:>13.0f} ± {error:>8.1f}{truth:>13.0f}"
                f"{(value - truth) / error:>30.1f}"
            )
    return lines


def _start() -> Array:
    """Shares of the population that are susceptible, exposed and infected on day 0."""
    infected = INFECTED_AT_START / POPULATION
    return np.array([1.0 - infected, 0.0, infected])


def _rates(state: Array, x: Array) -> Array:
    """Rates of change of those shares."""
    (s, e, i), (beta, sigma, gamma) = state, x
    infections = beta * s * i
    return np.array([-infections, infections - sigma * e, sigma * e - gamma * i])
