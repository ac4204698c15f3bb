"""Least-squares problems: classical, exponential fits, kinetics, bad scales, curved valleys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.problems import PROBLEMS as CLASSICAL


@dataclass(frozen=True)
class Problem:
    """min |fun(x)|^2 from x0."""

    name: str
    fun: Callable[[np.ndarray], np.ndarray]
    x0: np.ndarray


def rk4(rate, y, times, per=10):
    """Solution of y' = rate(y) at ``times`` by classical Runge-Kutta steps."""
    out, t = [], 0.0
    y = np.asarray(y, float)
    for end in times:
        h = (end - t) / per
        for _ in range(per):
            a = rate(y)
            b = rate(y + h / 2 * a)
            c = rate(y + h / 2 * b)
            d = rate(y + h * c)
            y = y + h / 6 * (a + 2 * b + 2 * c + d)
        t = end
        out.append(y)
    return np.array(out)


def fit(model, truth, rough=0.0, seed=0):
    """Residuals of a model against data of its own, with a misfit ``rough`` of its rms."""
    data = model(np.asarray(truth, float))
    noise = np.random.default_rng(seed).normal(size=data.shape)
    data = data + rough * np.sqrt(np.mean(data**2)) * noise
    return lambda x: (model(np.asarray(x, float)) - data).ravel()


T40 = np.linspace(0, 8, 40)


def _exponentials(terms):
    def model(x):
        a, k = x[:terms], x[terms:]
        return (a * np.exp(-np.outer(T40, k))).sum(1)

    return model


def _michaelis(x):
    s = np.linspace(0.2, 10, 15)
    return x[0] * s / (x[1] + s)


def _hill(x):
    s = np.logspace(-1, 1, 16)
    return x[0] + (x[1] - x[0]) / (1 + (x[2] / s) ** x[3])


def _gompertz(x):
    return x[0] * np.exp(-x[1] * np.exp(-x[2] * T40))


def _logistic(x):
    return x[0] / (1 + np.exp(-x[1] * (T40 - x[2])))


def _peaks(x):
    t = np.linspace(0, 10, 60)
    a, mu, w = x[:3], x[3:6], x[6:9]
    return (a * np.exp(-0.5 * ((t[:, None] - mu) / w) ** 2)).sum(1) + x[9]


def _damped(x):
    return x[0] * np.exp(-x[1] * T40) * np.cos(x[2] * T40 + x[3])


def _series(x):
    k1, k2 = x
    return rk4(lambda y: np.array([-k1 * y[0], k1 * y[0] - k2 * y[1], k2 * y[1]]),
                [1.0, 0, 0], np.linspace(0.5, 6, 8)).ravel()  # fmt: skip


def _reversible(x):
    a, b, c, d = x

    def rate(y):
        f, g = a * y[0] - b * y[1], c * y[1] - d * y[2]
        return np.array([-f, f - g, g])

    return rk4(rate, [1.0, 0.2, 0], np.linspace(0.4, 6, 10)).ravel()


def _lotka(x):
    a, b, c, d = x
    return rk4(lambda y: np.array([a * y[0] - b * y[0] * y[1], d * y[0] * y[1] - c * y[1]]),
                [1.0, 0.5], np.linspace(0.5, 8, 16), 8).ravel()  # fmt: skip


def _van_der_pol(x):
    mu, y0, v0 = x
    return rk4(lambda y: np.array([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]]),
                [y0, v0], np.linspace(0.3, 6, 20), 5)[:, 0]  # fmt: skip


def _sir(x):
    beta, gamma, i0 = x
    return rk4(lambda y: np.array([-beta * y[0] * y[1], beta * y[0] * y[1] - gamma * y[1]]),
                [1 - i0, i0], np.linspace(1, 20, 20), 4)[:, 1]  # fmt: skip


def _monod(x):
    mu, ks, yld, x0 = x

    def rate(y):
        g = mu * y[1] / (ks + y[1]) * y[0]
        return np.array([g, -g / yld])

    return rk4(rate, [x0, 5.0], np.linspace(0.5, 8, 12), 8).ravel()


def _arrhenius(x):
    temperature = np.linspace(300, 400, 12)
    return np.log(x[0]) - x[1] / (8.314 * temperature) + 5.0


def _antoine(x):
    temperature = np.linspace(20, 120, 15)
    return x[0] - x[1] / (x[2] + temperature)


def _beam(x):
    """Deflections and stresses of four beams: inputs from 1e-2 to 1e11."""
    e, b, h, load = x
    length = np.linspace(1, 3, 6)
    inertia = b * h**3 / 12
    return np.concatenate([load * length**3 / (3 * e * inertia) * 1e3,
                           6 * load * length / (b * h**2) * 1e-6])  # fmt: skip


def _diffusion(x):
    """Conductivities of ten layers from temperatures."""
    r = np.cumsum(1.0 / x)
    loads = np.array([0.5, 1.0, 1.5, 2.0])
    return np.outer(loads, r).ravel() + 0.1 * np.outer(loads**2, r**2 / r[-1]).ravel()


def _network(x):
    w = np.random.default_rng(11).normal(size=(30, 30)) / np.sqrt(30)
    return np.concatenate([np.tanh(w @ x) + 0.3 * x, 0.2 * x**2])


def _valley(m, bend):
    def fun(x):
        return np.concatenate([bend * (x[1:] - x[:-1] ** 2), 1 - x[:-1]])

    return fun


def _banana_sum(x):
    return np.array([3 * (x[0] + x[1] ** 3 - 1), x[1] - 0.5 * x[0] ** 2, 0.1 * (x[0] - x[2]),
                     2 * np.sin(x[2]) - 0.5, x[2] * x[1]])  # fmt: skip


def _power_law(x):
    t = np.linspace(1, 10, 25)
    return x[0] * t ** x[1] + x[2]


def _rational(x):
    t = np.linspace(-1, 2, 30)
    return (x[0] + x[1] * t) / (1 + x[2] * t + x[3] * t**2)


def _bateman(x):
    k1, k2, k3, dose = x
    return rk4(lambda y: np.array([-k1 * y[0], k1 * y[0] - (k2 + k3) * y[1], k3 * y[1]]),
                [dose, 0, 0], np.linspace(0.5, 10, 12), 8)[:, 1:].ravel()  # fmt: skip


def _thermal(x):
    """Eight heat-loss factors of a chain of rooms, seen from its temperatures."""
    rate = np.abs(x)
    a = np.diag(rate + 0.5)
    a += np.diag(np.r_[rate[1:], 0]) - np.diag(rate[1:], 1) - np.diag(rate[1:], -1)
    loads = np.eye(8)[[0, 3, 6]].T + 0.2
    return np.linalg.solve(a, loads).ravel()


def _chain20(x):
    return rk4(lambda y: np.concatenate([[-x[0] * y[0]], x[:-1] * y[:-1] - x[1:] * y[1:]]),
                np.r_[1.0, np.zeros(19)], np.linspace(2, 30, 6), 20).ravel()  # fmt: skip


def _own() -> list[Problem]:
    rows = [
        ("exp2", fit(_exponentials(2), [2, 1, 0.4, 2]), [1, 2, 1, 1.5]),
        ("exp2_misfit", fit(_exponentials(2), [2, 1, 0.4, 2], 0.05), [1, 2, 1, 1.5]),
        ("exp3", fit(_exponentials(3), [2, 1, 0.5, 0.3, 1, 3]), [1, 1, 1, 0.2, 1.2, 4]),
        ("michaelis", fit(_michaelis, [5, 2], 0.02), [1, 1]),
        ("hill", fit(_hill, [0.2, 3, 1.5, 2], 0.02), [1, 2, 1, 1]),
        ("gompertz", fit(_gompertz, [4, 3, 0.8], 0.02), [2, 2, 0.5]),
        ("logistic", fit(_logistic, [4, 1.5, 3], 0.02), [2, 1, 2]),
        ("peaks", fit(_peaks, [2, 3, 1, 2, 5, 8, 0.5, 1, 0.7, 0.3], 0.02),
         [1, 2, 2, 2.4, 5.5, 7.5, 0.7, 0.7, 0.7, 0.1]),
        ("damped", fit(_damped, [2, 0.3, 2, 0.5], 0.02), [1, 0.5, 2.2, 0.2]),
        ("series", fit(_series, [1.2, 0.5]), [0.5, 1]),
        ("series_misfit", fit(_series, [1.2, 0.5], 0.05), [0.5, 1]),
        ("reversible", fit(_reversible, [1, 0.4, 0.8, 0.2], 0.01), [0.5, 0.5, 0.5, 0.5]),
        ("lotka", fit(_lotka, [1, 0.6, 0.8, 0.5], 0.02), [0.8, 0.8, 0.6, 0.4]),
        ("van_der_pol", fit(_van_der_pol, [1.5, 1, 0], 0.01), [1, 0.8, 0.2]),
        ("sir", fit(_sir, [0.9, 0.3, 0.01], 0.02), [0.7, 0.2, 0.02]),
        ("monod", fit(_monod, [0.8, 1.5, 0.5, 0.2], 0.01), [0.5, 1, 0.4, 0.3]),
        ("arrhenius", fit(_arrhenius, [1e6, 5e4], 0.01), [1e5, 4e4]),
        ("antoine", fit(_antoine, [8, 1700, 230], 0.001), [7, 1300, 200]),
        ("beam", fit(_beam, [2e11, 0.05, 0.1, 1e3], 0.01), [1e11, 0.08, 0.08, 8e2]),
        ("layers", fit(_diffusion, np.linspace(1, 2, 10), 0.005), np.full(10, 1.2)),
        ("network30", fit(_network, np.sin(np.arange(30.0)), 0.05), np.zeros(30) + 0.1),
        ("valley5", _valley(5, 5.0), np.full(5, -0.5)),
        ("valley2_steep", _valley(2, 30.0), [-1.2, 1]),
        ("banana_sum", _banana_sum, [2, -1, 1]),
        ("power_law", fit(_power_law, [2, 0.7, 1], 0.01), [1, 1, 0.5]),
        ("rational", fit(_rational, [1, 2, 0.5, 0.8], 0.02), [0.5, 1, 0.2, 0.5]),
        ("bateman", fit(_bateman, [1, 0.3, 0.4, 2], 0.01), [0.5, 0.5, 0.2, 1.5]),
        ("thermal", fit(_thermal, np.linspace(0.5, 1.5, 8), 0.01), np.ones(8)),
        ("chain20", fit(_chain20, 0.8 + 0.4 * np.sin(np.arange(20.0)), 0.01), np.ones(20)),
    ]  # fmt: skip
    return [Problem(name, fun, np.array(x0, float)) for name, fun, x0 in rows]


#: Classical problems whose optimum a good solver reaches from the usual start.
SKIPPED = {"brown_badly_scaled", "powell_badly_scaled", "meyer", "osborne2", "penalty1"}


def _classical() -> list[Problem]:
    return [Problem(p.name, p.fun, p.x0) for p in CLASSICAL if p.name not in SKIPPED]


def problems() -> list[Problem]:
    """The problems that the driver was made on, own first."""
    return _own() + _classical()
