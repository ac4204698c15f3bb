"""Fit a Monte Carlo simulator that draws new random numbers at every call.

A stock that is pulled back to a level: every run simulates 500 paths, and means and spreads
at eight times come out a little different each time. The search ends when that noise hides what
is left, and ``x_half_width`` goes on from its runs until the parameters are known well enough.

Run ``python docs/examples/fit_monte_carlo.py``; it prints both fits and draws
``fit_monte_carlo.png``.
"""

import numpy as np

from gradiator_np import least_squares

PATHS = 500
TIMES = np.arange(1, 9) * 0.5
NAMES = ("pull", "level", "volatility")
TRUTH = np.array([0.8, 2.0, 0.6])
START = np.array([0.4, 1.0, 1.0])
WANTED = np.array([0.03, 0.03, 0.02])


def moments(x, generator):
    """Means and standard deviations of the paths, for a pull, a level and a volatility."""
    pull, level, volatility = x
    y = np.zeros(PATHS)
    out = []
    for _ in TIMES:
        for _ in range(10):
            noise = generator.normal(size=PATHS) * np.sqrt(0.05)
            y = y + pull * (level - y) * 0.05 + volatility * noise
        out.append((y.mean(), y.std()))
    return np.array(out).T.ravel()


def fits(seed=11):
    """What is fitted, the fit at its first stop, and the one that goes on with its runs."""
    generator = np.random.default_rng(seed)
    target = np.mean([moments(TRUTH, generator) for _ in range(200)], axis=0)

    def residuals(x):
        return moments(x, generator) - target

    short = least_squares(residuals, START, bounds=(0.01, 10))
    long = least_squares(residuals, START, bounds=(0.01, 10), x_half_width=WANTED,
                         samples=short.samples, max_nfev=400)  # fmt: skip
    return target, short, long


def draw(target, short, long, path):
    """Runs at the start and at the fit; the parameters with their intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    generator = np.random.default_rng(0)
    fig, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    for _ in range(12):
        for x, color in ((START, "0.8"), (long.x, "C0")):
            mean, spread = np.split(moments(x, generator), 2)
            axes[0].plot(TIMES, mean, color=color, lw=1, alpha=0.6)
            axes[0].plot(TIMES, spread, "--", color=color, lw=1, alpha=0.6)
    axes[0].plot(TIMES, target[:8], "k.", label="target mean")
    axes[0].plot(TIMES, target[8:], "kx", label="target spread")
    axes[0].plot([], [], color="0.8", label="twelve runs at the start")
    axes[0].plot([], [], color="C0", label="twelve runs at the fit")
    axes[0].set(xlabel="time")
    axes[0].legend(fontsize=8)
    for shift, (name, fit) in enumerate((("first stop", short), ("with x_half_width", long))):
        err = np.where(np.isfinite(fit.run_stderr), 1.96 * fit.run_stderr, 0)
        label = f"{name}: {fit.nfev} {'more ' if shift else ''}runs"
        at = np.arange(3) + 0.15 * shift
        axes[1].errorbar(at, fit.x / TRUTH, err / TRUTH, fmt="o", capsize=4, label=label)
    axes[1].axhline(1, color="0.7", lw=1)
    axes[1].set_xticks(range(3), NAMES)
    axes[1].set(ylabel="parameter / truth", title="95 % intervals (none: not determined)")
    axes[1].legend()
    fig.tight_layout()
    fig.savefig(path, dpi=110)


def main():
    """Print and draw."""
    target, short, long = fits()
    for name, fit in (("first stop", short), ("with x_half_width", long)):
        print(f"{name}: {fit.nfev} runs, noise of one value {fit.run_noise:.3f}, {fit.reason}")
        print("  " + ", ".join(f"{v:.3f} +- {e:.3f}" for v, e in zip(fit.x, fit.run_stderr)))
    draw(target, short, long, __file__.replace(".py", ".png"))


if __name__ == "__main__":
    main()
