"""SciPy's solvers with derivatives of a function that has none.

``f = gradiator(fun)`` goes in as it is, ``f.jacobian`` (or ``f.gradient``) as its ``jac``. The
value of a point that the solver has just tried is the base of the differences there, so that it
is not run twice; ``f.nfev`` counts every run.

Run ``python docs/examples/scipy_solvers.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares, minimize, root

from gradiator_np import gradiator

Array = NDArray[np.float64]
TIMES = np.linspace(0.5, 10, 20)


def cooling(rates: Array) -> Array:
    """Temperatures of two bodies that exchange heat and lose it, by an ODE."""
    out = solve_ivp(
        lambda _, y: [-rates[0] * (y[0] - y[1]), rates[0] * (y[0] - y[1]) - rates[1] * y[1]],
        (0, 10),
        [1.0, 0.0],
        t_eval=TIMES,
        rtol=1e-9,
        atol=1e-9,
    )
    return np.asarray(out.y).ravel()


def fit() -> None:
    """Two rates from forty temperatures."""
    data = cooling(np.array([0.7, 0.3]))
    f = gradiator(lambda rates: cooling(rates) - data, method="3-point")
    out = least_squares(f, [1.0, 1.0], jac=f.jacobian)
    print(f"least_squares  rates {out.x.round(6)}, {f.nfev} runs")


def design() -> None:
    """Small rates at which the second body is at 0.2 at the end; no run leaves the bounds."""
    f = gradiator(
        lambda rates: 100 * (cooling(rates)[-1] - 0.2) ** 2 + 1e-2 * rates @ rates,
        method="3-point",
        bounds=(0, 2),
    )
    out = minimize(f, [0.7, 0.3], jac=f.gradient, method="L-BFGS-B", bounds=[(0, 2)] * 2)
    print(f"minimize       rates {out.x.round(4)}, {f.nfev} runs")


def shooting() -> None:
    """Rates that give both temperatures at the end."""
    wanted = cooling(np.array([0.7, 0.3]))[[19, 39]]
    f = gradiator(lambda rates: cooling(rates)[[19, 39]] - wanted, method="3-point")
    out = root(f, [0.6, 0.4], jac=f.jacobian)
    print(f"root           rates {out.x.round(6)}, {f.nfev} runs")


def stiff() -> None:
    """Robertson's reaction: the Jacobian by the state alone, ``argnums=1`` of (t, y)."""
    f = gradiator(
        lambda t, y: np.array(
            [
                -0.04 * y[0] + 1e4 * y[1] * y[2],
                0.04 * y[0] - 1e4 * y[1] * y[2] - 3e7 * y[1] ** 2,
                3e7 * y[1] ** 2,
            ]
        ),
        argnums=1,
        method="2-point",
        x_scale=[1.0, 1e-4, 1.0],
    )
    out = solve_ivp(f, (0, 1e4), [1.0, 0.0, 0.0], method="BDF", jac=f.jacobian, rtol=1e-6)
    print(f"solve_ivp      y(1e4) = {out.y[:, -1].round(6)}, {f.nfev} runs")


if __name__ == "__main__":
    fit()
    design()
    shooting()
    stiff()
