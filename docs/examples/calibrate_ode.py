"""Calibrate an ODE model to noisy data through an adaptive solver at rtol 1e-4.

The solver's step control makes the residuals jump by about 1e-4, more than SciPy's differences of
1e-8 can see through everywhere; here SciPy finds the same fit with more runs. Draws
``calibrate_ode.png``.
"""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares as scipy_least_squares

from gradiator_np import least_squares

TIMES = np.linspace(0.5, 12, 24)
TRUTH = np.array([1.1, 0.5, 0.9, 0.35])  # growth, predation, death, conversion
START = np.array([0.8, 0.8, 0.6, 0.5])


def populations(x, times=TIMES, rtol=1e-4):
    """Prey and predators of Lotka and Volterra, (2, len(times))."""

    def rate(t, y):
        return [x[0] * y[0] - x[1] * y[0] * y[1], x[3] * y[0] * y[1] - x[2] * y[1]]

    return solve_ivp(
        rate, (0, times[-1]), [2.0, 1.0], method="LSODA", t_eval=times, rtol=rtol, atol=1e-7
    ).y


rng = np.random.default_rng(3)
data = populations(TRUTH, rtol=1e-10) + 0.15 * rng.normal(size=(2, TIMES.size))
runs = {"gradiator": 0, "scipy": 0}


def residuals(x, who="gradiator"):
    runs[who] += 1
    return populations(x) - data


fit = least_squares(residuals, START, bounds=(0, np.inf))
peer = scipy_least_squares(lambda x: residuals(x, "scipy").ravel(), START, bounds=(0, np.inf))

print(f"gradiator: {fit.nfev} runs, sum of squares {2 * fit.cost:.4f}, {fit.status}")
print(f"scipy:     {runs['scipy']} runs, sum of squares {2 * peer.cost:.4f}")
for name, truth, x, err in zip("abcd", TRUTH, fit.x, fit.x_stderr):
    print(f"  {name} = {x:.4f} +- {err:.1e} (made with {truth})")

fine = np.linspace(0, 12, 400)[1:]
fig, axes = plt.subplots(1, 2, figsize=(10, 3.8))
axes[0].plot(fine, populations(START, fine).T, "--", color="0.7")
for k, (color, name) in enumerate((("C0", "prey"), ("C3", "predators"))):
    axes[0].plot(TIMES, data[k], "o", color=color, ms=4, label=f"{name}, measured")
    axes[0].plot(fine, populations(fit.x, fine)[k], color=color, label=f"{name}, fitted")
axes[0].set(xlabel="time", ylabel="population", title="dashed: where the search started",
            ylim=(0, 1.6 * data.max()))  # fmt: skip
axes[0].legend(fontsize=8, loc="upper right", ncol=2)
sizes = np.array([np.sum((populations(x, rtol=1e-10) - data) ** 2) for x in fit.samples.points])
axes[1].semilogy(np.arange(1, len(sizes) + 1), sizes, "o-", ms=4)
axes[1].axhline(sizes.min(), color="0.7", lw=1)
axes[1].set(xlabel="run", ylabel="sum of squares", title=f"{fit.nfev} runs for 4 parameters")
fig.tight_layout()
fig.savefig(__file__.replace(".py", ".png"), dpi=110)
