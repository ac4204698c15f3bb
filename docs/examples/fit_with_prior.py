"""A fit whose data leave a combination open, before and after a prior closes it.

A reactor was run at 350 K only: of the two parameters of its rate, k = exp(ln_A - E / R T), the
data know one combination. They fit well, and forecasts at 350 K are fine; a forecast for 370 K
depends on what nobody measured, and says so. The activation energy in the literature, 80 +- 8
kJ/mol, is all that is missing.

Run ``python docs/examples/fit_with_prior.py``; it prints both reports and draws
``fit_with_prior.png``.
"""

import numpy as np
from scipy.integrate import solve_ivp

from gradiator_np import least_squares

HOURS = np.linspace(0.25, 6, 16)
SIGMA = 0.01  # of one concentration, mol/l
TRUTH = {"ln_A": 26.6, "E": 78.0, "c_0": 1.0}
START = {"ln_A": 25.0, "E": 75.0, "c_0": 0.8}
UNITS = {"ln_A": "", "E": "kJ/mol", "c_0": "mol/l"}
LITERATURE = {"prior_mean": {"ln_A": 0.0, "E": 80.0, "c_0": 0.0},
              "prior_std": {"ln_A": np.inf, "E": 8.0, "c_0": np.inf}}  # fmt: skip


def concentrations(p, kelvin=350.0, hours=HOURS):
    """What is left of the reactant, in mol/l."""
    k = np.exp(p["ln_A"] - p["E"] / (8.314e-3 * kelvin))
    return solve_ivp(
        lambda t, c: -k * c, (0, hours[-1]), [p["c_0"]], method="LSODA", t_eval=hours,
        rtol=1e-8, atol=1e-10,
    ).y[0]  # fmt: skip


def measured(seed=1):
    rng = np.random.default_rng(seed)
    return concentrations(TRUTH) + SIGMA * rng.normal(size=HOURS.size)


def fits(data):
    """Without the literature, and with it."""

    def residuals(p):
        return concentrations(p) - data

    known = {"sigma": SIGMA, "absolute_sigma": True}
    alone = least_squares(residuals, START, **known)
    return alone, least_squares(residuals, START, **known, **LITERATURE)


def draw(data, alone, informed, path):
    """Forecasts at 350 K and at 370 K, by both fits."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    times = np.linspace(0.02, 4, 60)
    fig, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for ax, fit, title in zip(axes, (alone, informed), ("data alone", "with a prior of E")):
        for kelvin, color in ((350.0, "C0"), (370.0, "C3")):
            found = fit.predict(concentrations, args=(kelvin, times))
            low, high = np.clip(found.confidence_interval(), -1, 2)
            ax.fill_between(times, low, high, color=color, alpha=0.25, lw=0)
            ax.plot(times, found.value, color=color, label=f"{kelvin:.0f} K, forecast")
            truth = concentrations(TRUTH, kelvin, times)
            ax.plot(times, truth, "--", color="0.3", lw=1, label="truth" if kelvin > 360 else None)
        ax.plot(HOURS, data, "o", color="C0", ms=4, label="350 K, measured")
        ax.set(xlabel="hours", title=f"{title}: 95 % bands", ylim=(-0.1, 1.1), xlim=(0, 4))
    axes[0].text(1.6, 0.85, "370 K: not determined,\nthe band has no end", color="C3")
    axes[0].set(ylabel="concentration in mol/l")
    axes[1].legend(fontsize=9)
    fig.tight_layout()
    fig.savefig(path, dpi=110)


def main():
    """Print and draw."""
    data = measured()
    alone, informed = fits(data)
    for title, fit in (("data alone", alone), ("with the literature", informed)):
        print(f"==== {title}\n\n{fit.report(units=UNITS, data=data)}\n")
        print(fit.predict(lambda p: concentrations(p, 370.0, np.array([0.5, 1.0]))), "\n")
    draw(data, alone, informed, __file__.replace(".py", ".png"))


if __name__ == "__main__":
    main()
