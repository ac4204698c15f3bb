"""Functions for scattered samples beside the fits of `lsq_problems`: formulas of engineering,
ridges, rational functions, bumps, products, sums, geometry and small simulations."""

from __future__ import annotations

import numpy as np

from benchmarks.lsq_problems import Problem, rk4


def borehole(x):
    """Flow of water through a borehole (Harper and Gupta 1983)."""
    rw, r, tu, hu, tl, hl, length, kw = x
    log = np.log(r / rw)
    return 2 * np.pi * tu * (hu - hl) / (log * (1 + 2 * length * tu / (log * rw**2 * kw) + tu / tl))


def otl_circuit(x):
    """Midpoint voltage of a push-pull circuit (Ben-Ari and Steinberg 2007)."""
    b1, b2, f, c1, c2, beta = x
    bc = beta * (c2 + 9)
    voltage = 12 * b2 / (b1 + b2)
    return ((voltage + 0.74) * bc + 11.35 * f) / (bc + f) + 0.74 * f * bc / ((bc + f) * c1)


def piston(x):
    """Cycle time of a piston (Kenett and Zacks 1998)."""
    mass, s, v0, k, p0, ta, t0 = x
    a = p0 * s + 19.62 * mass - k * v0 / s
    v = s / (2 * k) * (np.sqrt(a**2 + 4 * k * p0 * v0 * ta / t0) - a)
    return 2 * np.pi * np.sqrt(mass / (k + s**2 * p0 * v0 * ta / (t0 * v**2)))


def wing_weight(x):
    """Weight of a light aircraft's wing (Forrester, Sobester and Keane 2008)."""
    sw, fuel, a, sweep, q, taper, tc, nz, gross, paint = x
    cos = np.cos(sweep)
    lift = (a / cos**2) ** 0.6 * q**0.006 * taper**0.04 * (100 * tc / cos) ** -0.3
    return 0.036 * sw**0.758 * fuel**0.0035 * lift * (nz * gross) ** 0.49 + sw * paint


def robot_arm(x):
    """Where the hand of a plane arm of four links is."""
    angle = np.cumsum(x[:4])
    return np.array([(x[4:] * np.cos(angle)).sum(), (x[4:] * np.sin(angle)).sum()])


def ishigami(x):
    return np.sin(x[0]) + 7 * np.sin(x[1]) ** 2 + 0.1 * x[2] ** 4 * np.sin(x[0])


def friedman(x):
    return 10 * np.sin(np.pi * x[0] * x[1]) + 20 * (x[2] - 0.5) ** 2 + 10 * x[3] + 5 * x[4]


def brusselator(x):
    return rk4(lambda y: np.array([x[0] + y[0] ** 2 * y[1] - (x[1] + 1) * y[0],
                                    x[1] * y[0] - y[0] ** 2 * y[1]]),
                [x[2], x[3]], np.linspace(0.4, 4, 8), 12)  # fmt: skip


def pendulum(x):
    return rk4(lambda y: np.array([y[1], -x[0] * np.sin(y[0]) - x[1] * y[1] + x[2]]),
                [x[3], 0.0], np.linspace(0.3, 3, 8), 12)[:, 0]  # fmt: skip


def fitzhugh_nagumo(x):
    return rk4(lambda y: np.array([x[2] * (y[0] - y[0] ** 3 / 3 + y[1]),
                                    -(y[0] - x[0] + x[1] * y[1]) / x[2]]),
                [-1.0, 1.0], np.linspace(0.5, 5, 10), 12)  # fmt: skip


def resistors(x):
    """Voltages of a network of eight resistors."""
    edges = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4), (1, 3), (0, 2), (2, 4)]
    a = np.zeros((5, 5))
    a[0, 0] = 1.0
    for (i, j), g in zip(edges, x):
        a[[i, j], [i, j]] += g
        a[[i, j], [j, i]] -= g
    return np.linalg.solve(a, [0, 1, 0, 0, -1.0])


def heat(x):
    """Temperatures of a rod whose conductivity is given at six points."""
    n = 20
    d = np.exp(np.interp(np.linspace(0, 1, n + 1), np.linspace(0, 1, 6), x - 1))
    a = np.diag(d[:-1] + d[1:]) - np.diag(d[1:-1], 1) - np.diag(d[1:-1], -1)
    return np.linalg.solve(a, np.full(n, 0.02))[::3]


def ranges(x):
    anchors = np.array([[0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3], [2, 2, 2.0]])
    return np.linalg.norm(anchors - x, axis=1)


def additive(x):
    i = np.arange(1, x.size + 1)
    sums = np.sin(3 * x).sum(), np.exp(x).sum(), (1 / (1 + x**2)).sum(), (x**3 * i).sum()
    return np.array(sums)


def oscillating(x):
    return np.array([np.sin(4 * x[0] + 2 * x[1] * x[2]), np.cos(5 * x[1]) * x[2],
                     np.sin(6 * x[2]) + x[0] * x[1]])  # fmt: skip


def _random():
    """Functions with random constants, the same ones every time."""
    rng = np.random.default_rng(2024)
    w, b, v = rng.normal(size=(5, 7)), rng.normal(size=7), rng.normal(size=(7, 6))
    w2, v2 = rng.normal(size=(8, 4)), rng.normal(size=(4, 3))
    way = rng.normal(size=6)
    way /= np.linalg.norm(way)
    top, low = rng.uniform(0.5, 1.5, (5, 6)), rng.uniform(0, 0.8, (5, 6))
    at, height = rng.normal(size=(10, 4)), rng.normal(size=(10, 3))
    powers = rng.integers(-2, 3, size=(6, 5))
    s = rng.normal(size=(6, 4, 4))
    s = s + s.swapaxes(1, 2)
    w3, v3 = rng.normal(size=(12, 12)) / 3, rng.normal(size=(12, 8))
    h = rng.normal(size=(12, 12)) / 2
    return [
        ("tanh_ridges", lambda x: np.tanh(x @ w + b) @ v, np.full(5, 0.6)),
        ("harsh_ridges", lambda x: np.tanh(1.5 * (x - 1) @ w2 + 0.5) @ v2 + 0.2 * x[:3],
         np.ones(8)),
        ("one_ridge", lambda x: np.exp(0.5 * np.sin(2 * (x @ way))), np.linspace(0.6, 1.6, 6)),
        ("rational5", lambda x: (1 + top @ x) / (1 + low @ x), np.linspace(0.6, 1.4, 6)),
        ("bumps", lambda x: np.exp(-0.5 * ((x - 1 - at) ** 2).sum(1) / 0.64) @ height, np.ones(4)),
        ("monomials", lambda x: np.prod(x**powers, 1), np.array([0.9, 1.2, 1.5, 0.8, 1.1])),
        ("eigenvalues", lambda x: np.linalg.eigvalsh(np.diag([0, 3.0, 6, 9])
                                                     + np.tensordot(0.3 * x, s, 1)),
         np.linspace(0.5, 1, 6)),
        ("two_layers", lambda x: np.tanh(np.tanh(x @ w3) @ w3.T + 0.3) @ v3, np.full(12, 0.7)),
        ("quadratic", lambda x: 0.5 * x @ h @ x + x.sum(), np.ones(12)),
    ]  # fmt: skip


def problems():
    """Problems like those of `lsq_problems`; ``x0`` is where the Jacobian is wanted."""
    rows = [
        (borehole, [0.1, 2500, 89000, 1050, 90, 500, 1400, 11000]),
        (otl_circuit, [100, 45, 1.5, 1.6, 0.7, 150]),
        (piston, [45, 0.0125, 0.006, 3000, 1e5, 293, 350]),
        (wing_weight, [175, 260, 8, 0.1, 30, 0.75, 0.13, 4, 2000, 0.05]),
        (robot_arm, [0.7, 0.5, 0.9, 0.4, 0.5, 0.6, 0.4, 0.7]),
        (ishigami, [1.0, 1.3, 1.5]),
        (friedman, [0.6, 0.4, 0.7, 0.5, 0.5]),
        (brusselator, [1.0, 1.7, 0.8, 1.2]),
        (pendulum, [2.0, 0.3, 0.4, 1.0]),
        (fitzhugh_nagumo, [0.2, 0.3, 1.5]),
        (resistors, np.linspace(0.6, 1.5, 8)),
        (heat, np.linspace(0.7, 1.5, 6)),
        (ranges, [1.0, 1.5, 0.7]),
        (additive, np.linspace(0.4, 1.1, 8)),
        (oscillating, [0.6, 0.9, 0.7]),
    ]
    named = [(fun.__name__, fun, x0) for fun, x0 in rows] + _random()
    return [
        Problem(name, (lambda x, fun=fun: np.atleast_1d(fun(x)).ravel()), np.array(x0, float))
        for name, fun, x0 in named
    ]
