"""A fit of few data whose model bends: the interval by a profile beside the symmetric one.

A reaction was followed for a short time only: concentrations c (1 - exp(-k t)), eight of them, have
hardly begun to level off. The symmetric interval of the level c, by J'J, takes chi-squared for a
parabola; chi-squared itself rises faster on the left and more slowly on the right, since a higher
level goes with a smaller rate k. So does what is forecast for later: first-order bands are
symmetric, the curves at the ends of the profile are not.

Run ``python docs/examples/profile_interval.py``; it prints both intervals and draws
``profile_interval.png``.
"""

import numpy as np

from gradiator_np import least_squares

HOURS = np.linspace(0.3, 4, 8)
LATER = np.linspace(0.05, 12, 50)
SIGMA = 0.1  # of one concentration, mol/l
TRUTH = {"c": 2.0, "k": 0.35}
START = {"c": 1.5, "k": 0.5}


def concentrations(p, hours=HOURS):
    """What has been made, in mol/l."""
    return p["c"] * (1 - np.exp(-p["k"] * hours))


def measured(seed=1):
    rng = np.random.default_rng(seed)
    return concentrations(TRUTH) + SIGMA * rng.normal(size=HOURS.size)


def fitted(data):
    """The fit, and the profile of c as far as chi-squared has risen by 1.96^2."""

    def residuals(p):
        return concentrations(p) - data

    bounds = ({"c": 0.0, "k": 1e-3}, np.inf)
    fit = least_squares(residuals, START, bounds=bounds, sigma=SIGMA, absolute_sigma=True)
    return fit, fit.profile("c")


def at_ends(profile):
    """Forecasts by the conditional fits next to the ends of the profile."""
    rows = [np.argmin(np.abs(profile.value - end)) for end in (profile.low, profile.high)]
    return [concentrations(dict(zip("ck", profile.x[row])), LATER) for row in rows]


def draw(data, fit, profile, path):
    """Chi-squared along c with both intervals; what both say of later times."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6))
    c, rise = profile.curve()
    level, (low, high) = 1.96**2, (end["c"] for end in fit.confidence_interval())
    best, stderr = fit.x["c"], fit.stderr["c"]
    even = np.linspace(best - 2.3 * stderr, best + 2.3 * stderr, 200)
    left.plot(c, rise, color="C0", lw=2, label="profile: k fitted anew")
    left.plot(profile.value, profile.rise, "o", color="C0", ms=5)
    left.plot(even, ((even - best) / stderr) ** 2, "--", color="C1", lw=2, label="parabola by J'J")
    left.axhline(level, color="0.6", lw=1)
    for y, (a, b), color in ((0.75, (profile.low, profile.high), "C0"), (0.3, (low, high), "C1")):
        left.plot([a, b], [y, y], color=color, lw=5, solid_capstyle="butt")
    left.axvline(TRUTH["c"], color="0.3", lw=1.5, ls=":", label="truth")
    left.set(ylim=(0, 7.6))
    left.set_xlabel("level c in mol/l", fontsize=13)
    left.set_ylabel("chi-squared above its minimum", fontsize=13)
    left.set_title("95 % intervals (bars), at a rise of 1.96²", fontsize=13)
    left.legend(fontsize=12, loc="upper right")
    found = fit.predict(concentrations, args=(LATER,))
    right.fill_between(LATER, *found.confidence_interval(), color="C1", alpha=0.3, lw=0,
                       label="95 % by J'J")  # fmt: skip
    for y, name in zip(at_ends(profile), ("fits at the ends of c", None)):
        right.plot(LATER, y, color="C0", lw=2, label=name)
    right.plot(LATER, concentrations(TRUTH, LATER), ":", color="0.3", lw=1.5, label="truth")
    right.plot(HOURS, data, "o", color="k", ms=5, label="measured")
    right.set(xlim=(0, LATER[-1]), ylim=(0, None))
    right.set_xlabel("time in h", fontsize=13)
    right.set_ylabel("concentration in mol/l", fontsize=13)
    right.set_title("What that means for later", fontsize=13)
    right.legend(fontsize=12, loc="upper left")
    for ax in (left, right):
        ax.tick_params(labelsize=12)
    fig.tight_layout()
    fig.savefig(path, dpi=110)


def main():
    """Print and draw."""
    data = measured()
    fit, profile = fitted(data)
    low, high = fit.confidence_interval()
    print(f"by J'J:     c from {low['c']:.2f} to {high['c']:.2f}, {fit.nfev} runs")
    print(f"by profile: c from {profile.low:.2f} to {profile.high:.2f}, {profile.nfev} runs more")
    draw(data, fit, profile, __file__.replace(".py", ".png"))


if __name__ == "__main__":
    main()
