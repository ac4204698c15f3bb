"""Calibrate an ODE model to noisy data through an adaptive solver at rtol 1e-4, and forecast.

The solver's step control makes the residuals jump by up to 1e-4. SciPy's differences of 1e-8 would
see a jump, not the slope, where the sequence of steps changes between two runs. With this model it
seldom does: SciPy reaches the same fit in 45 runs, ours takes 35. Standard errors are those that
the errors of the data make; the report says what the noise of the runs adds, here next to nothing.
They do not hold that rtol 1e-4 moves the minimum itself, here by 2e-4 (a tenth of a standard
error), which nobody sees who only runs the program at 1e-4.

Run ``python docs/examples/calibrate_ode.py``; it prints the report and draws ``calibrate_ode.png``.
"""

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares as scipy_least_squares

from gradiator_np import least_squares

TIMES = np.linspace(0.5, 12, 24)
LATER = np.linspace(0.1, 24, 120)  # forecasts
TRUTH = np.array([1.1, 0.5, 0.9, 0.35])
NAMES = ("growth", "predation", "death", "conversion")
START = np.array([0.8, 0.8, 0.6, 0.5])


def populations(x, times=TIMES, rtol=1e-4):
    """Prey and predators of Lotka and Volterra, (2, len(times))."""

    def rate(t, y):
        return [x[0] * y[0] - x[1] * y[0] * y[1], x[3] * y[0] * y[1] - x[2] * y[1]]

    return solve_ivp(
        rate, (0, times[-1]), [2.0, 1.0], method="LSODA", t_eval=times, rtol=rtol, atol=1e-7
    ).y


def measured():
    """What was counted: the truth and an error of 0.15."""
    rng = np.random.default_rng(3)
    return populations(TRUTH, rtol=1e-10) + 0.15 * rng.normal(size=(2, TIMES.size))


def fits(data):
    """Our fit, SciPy's, and the number of SciPy's runs."""
    runs = []

    def counted(x):
        runs.append(x)
        return (populations(x) - data).ravel()

    ours = least_squares(lambda x: populations(x) - data, START, bounds=(0, np.inf))
    peer = scipy_least_squares(counted, START, bounds=(0, np.inf))
    return ours, peer, len(runs)


def forecast(fit):
    """Both populations up to twice the time that was measured, with their errors."""
    return fit.predict(populations, args=(LATER,), sigma="residuals")


def draw(data, fit, path):
    """Data, fit and forecast with their bands; parameters with their intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = forecast(fit)
    mean, new = found.confidence_interval(), found.prediction_interval()
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=(2.4, 1))
    left.axvspan(TIMES[-1], LATER[-1], color="0.95", lw=0)
    left.text(TIMES[-1] + 0.2, 0.06, "forecast", color="0.4", fontsize=9)
    for k, (color, name) in enumerate((("C0", "prey"), ("C3", "predators"))):
        left.fill_between(LATER, new.low[k], new.high[k], color=color, alpha=0.12, lw=0)
        left.fill_between(LATER, mean.low[k], mean.high[k], color=color, alpha=0.4, lw=0)
        left.plot(LATER, found.value[k], color=color, lw=1.2, label=f"{name}, fitted")
        left.plot(TIMES, data[k], "o", color=color, ms=4, label=f"{name}, measured")
    left.set(xlabel="time in years", ylabel="population", xlim=(0, LATER[-1]),
             ylim=(0, 1.5 * data.max()),
             title="95 % bands: of the model (dark), of one new count (light)")  # fmt: skip
    left.legend(fontsize=8, loc="upper left", ncol=2)
    low, high = fit.confidence_interval()
    at = np.arange(4)
    right.errorbar(at, fit.x / TRUTH, (high - low) / 2 / TRUTH, fmt="o", capsize=4)
    right.axhline(1, color="0.7", lw=1)
    right.set_xticks(at, NAMES, rotation=20)
    right.set(xlim=(-0.5, 3.5), ylabel="parameter / truth",
              title=f"95 % intervals, {fit.nfev} runs")  # fmt: skip
    fig.tight_layout()
    fig.savefig(path, dpi=110)


def main():
    """Print and draw."""
    data = measured()
    ours, peer, runs = fits(data)
    print(f"gradiator: {ours.nfev} runs, sum of squares {2 * ours.cost:.4f}, {ours.reason}")
    print(f"scipy:     {runs} runs, sum of squares {2 * peer.cost:.4f}\n")
    print(ours.report(names=NAMES, units=["1/yr"] * 4, data=data))
    draw(data, ours, __file__.replace(".py", ".png"))


if __name__ == "__main__":
    main()
