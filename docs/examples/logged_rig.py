"""Sensitivities of a rig from its logbook: no simulator, no planned experiment.

For a day an operator turned five knobs as the work asked for. The log holds the settings and three
sensors with their noise, two glitches included. What does each sensor answer to each knob at the
present settings?

Run ``python docs/examples/logged_rig.py``; it prints the answer and draws ``logged_rig.png``.
"""

import numpy as np

from gradiator_np import fit_points

KNOBS = ["flow", "heat", "speed", "valve", "feed"]
SENSORS = ["temperature", "pressure", "yield"]
NOW = np.array([2.0, 50.0, 1200.0, 0.4, 8.0])
SPREAD = np.array([0.4, 12.0, 250.0, 0.12, 1.5])


def rig(x):
    """What the rig does; nobody knows it."""
    flow, heat, speed, valve, feed = np.moveaxis(np.asarray(x), -1, 0)
    temperature = 20 + heat / flow * (1 + 0.3 * np.tanh((feed - 8) / 4))
    pressure = 1e-6 * speed**2 / (0.2 + valve) + 0.3 * flow**2
    product = 90 * np.exp(-(((temperature - 60) / 40) ** 2)) * feed / (feed + 3)
    return np.stack([temperature, pressure, product], -1)


def logbook(seed=4):
    """Settings and readings: a wandering operator, so samples crowd and trail off."""
    rng = np.random.default_rng(seed)
    moves = rng.normal(size=(120, 5))
    for i in range(1, 120):
        moves[i] = 0.9 * moves[i - 1] + 0.4 * moves[i]
    log = NOW + 0.7 * SPREAD * moves
    readings = rig(log) + np.array([0.05, 0.005, 0.1]) * rng.normal(size=(120, 3))
    readings[[30, 77], 0] += [15, -20]
    return log, readings


def truth():
    """The rig's slopes by differences without noise."""
    steps = 1e-4 * SPREAD
    return np.array(
        [(rig(NOW + s * e) - rig(NOW - s * e)) / (2 * s) for s, e in zip(steps, np.eye(5))]
    ).T


def fits(log, readings):
    """Fits at the present settings, and their errors relative to each sensor's slopes."""
    found = {name: fit_points(log, readings, x=NOW, solver=solver)
             for name, solver in (("plane", "pinv"), ("taylor", "taylor"))}  # fmt: skip
    size = np.linalg.norm(truth() * SPREAD, axis=1)
    errors = {name: np.linalg.norm((fit.jac - truth()) * SPREAD, axis=1) / size
              for name, fit in found.items()}  # fmt: skip
    return found, errors


def draw(found, path):
    """Slopes of each sensor, scaled, beside the truth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    model, plane, slopes = found["taylor"], found["plane"], truth()
    low, high = model.confidence_interval(0.95)
    fig, axes = plt.subplots(1, 3, figsize=(12, 3.6))
    for i, ax in enumerate(axes):
        unit = SPREAD / np.abs(slopes[i] * SPREAD).max()
        at = np.arange(5)
        ax.bar(at, slopes[i] * unit, color="0.85", width=0.8, label="truth")
        half = 0.5 * (high - low)[i] * unit
        ax.errorbar(at - 0.12, model.jac[i] * unit, half, fmt="o", capsize=3,
                    label="Taylor model, 95 %")  # fmt: skip
        ax.plot(at + 0.18, plane.jac[i] * unit, "x", color="C3", label="plane")
        ax.axhline(0, color="0.5", lw=0.7)
        ax.set_xticks(at, KNOBS)
        ax.set_title(SENSORS[i])
    axes[0].set_ylabel("response to a typical move, scaled")
    axes[0].legend(fontsize=8)
    fig.tight_layout()
    fig.savefig(path, dpi=110)


def main():
    """Print and draw."""
    found, errors = fits(*logbook())
    print(found["taylor"])
    for name, each in errors.items():
        text = ", ".join(f"{s} {e:.3f}" for s, e in zip(SENSORS, each))
        print(f"{name}: relative error {text}")
    draw(found, __file__.replace(".py", ".png"))


if __name__ == "__main__":
    main()
