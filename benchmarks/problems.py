"""Classical test problems, plain NumPy, every one analytic so that a complex step is exact.

The formulas and starting points are those of J. J. Moré, B. S. Garbow and K. E. Hillstrom,
"Testing unconstrained optimization software", ACM TOMS 7 (1981) 17-41 (numbers below are the
paper's), and of J. J. Moré and S. M. Wild, "Benchmarking derivative-free optimization
algorithms", SIAM J. Optim. 20 (2009) 172-191 (Mancino, bdqrtic, cube, heart).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# The derivative is Im f(x + i h) / h with an error of h^2: nothing is subtracted.
COMPLEX_STEP = 1e-40


@dataclass(frozen=True)
class Problem:
    """A vector function with its usual starting point."""

    name: str
    fun: Callable[[np.ndarray], np.ndarray]
    x0: np.ndarray
    n: int

    @property
    def m(self) -> int:
        """Number of inputs."""
        return self.x0.size

    def jac(self, x: np.ndarray) -> np.ndarray:
        """The Jacobian (n, m), exact to rounding."""
        shifted = np.asarray(x, float) + 1j * COMPLEX_STEP * np.eye(x.size)
        return np.stack([np.imag(self.fun(z)) / COMPLEX_STEP for z in shifted], axis=1)


def rosenbrock(x):
    return np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def freudenstein_roth(x):
    a, b = x
    return np.array([-13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b])


def powell_badly_scaled(x):
    return np.array([1e4 * x[0] * x[1] - 1, np.exp(-x[0]) + np.exp(-x[1]) - 1.0001])


def brown_badly_scaled(x):
    return np.array([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])


def beale(x):
    y = np.array([1.5, 2.25, 2.625])
    return y - x[0] * (1 - x[1] ** np.arange(1, 4))


def jennrich_sampson(x):
    i = np.arange(1, 11)
    return 2 + 2 * i - np.exp(i * x[0]) - np.exp(i * x[1])


def helical_valley(x):
    # The branch of the paper: theta = atan(x2/x1)/(2 pi), + 1/2 where x1 < 0.
    theta = np.arctan(x[1] / x[0]) / (2 * np.pi) + 0.5 * (np.real(x[0]) < 0)
    return np.array([10 * (x[2] - 10 * theta), 10 * (np.sqrt(x[0] ** 2 + x[1] ** 2) - 1), x[2]])


BARD = np.array(
    [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39]
)


def bard(x):
    u = np.arange(1.0, 16)
    v = 16 - u
    return BARD - (x[0] + u / (v * x[1] + np.minimum(u, v) * x[2]))


GAUSSIAN = np.array([0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521, 0.3989])


def gaussian(x):
    t = (8 - np.arange(1, 16)) / 2
    y = np.concatenate([GAUSSIAN, GAUSSIAN[-2::-1]])
    return x[0] * np.exp(-x[1] * (t - x[2]) ** 2 / 2) - y


# fmt: off
MEYER = np.array([
    34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147,
    4427, 3820, 3307, 2872.0,
])
# fmt: on


def meyer(x):
    t = 45 + 5 * np.arange(1, 17)
    return x[0] * np.exp(x[1] / (t + x[2])) - MEYER


def box_three_dimensional(x):
    t = 0.1 * np.arange(1, 11)
    return np.exp(-t * x[0]) - np.exp(-t * x[1]) - x[2] * (np.exp(-t) - np.exp(-10 * t))


def powell_singular(x):
    a, b, c, d = x
    r5, r10 = np.sqrt(5), np.sqrt(10)
    return np.array([a + 10 * b, r5 * (c - d), (b - 2 * c) ** 2, r10 * (a - d) ** 2])


def wood(x):
    a, b, c, d = x
    s, r = np.sqrt(90), np.sqrt(10)
    return np.array([10 * (b - a**2), 1 - a, s * (d - c**2), 1 - c, r * (b + d - 2), (b - d) / r])


KOWALIK_Y = np.array(
    [0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246]
)
KOWALIK_U = np.array([4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625])


def kowalik_osborne(x):
    u = KOWALIK_U
    return KOWALIK_Y - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def brown_dennis(x):
    t = np.arange(1, 21) / 5
    return (x[0] + t * x[1] - np.exp(t)) ** 2 + (x[2] + x[3] * np.sin(t) - np.cos(t)) ** 2


# fmt: off
OSBORNE1 = np.array([
    0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751, 0.718,
    0.685, 0.658, 0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490, 0.478, 0.467,
    0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411, 0.406,
])
# fmt: on


def osborne1(x):
    t = 10.0 * np.arange(33)
    return OSBORNE1 - (x[0] + x[1] * np.exp(-t * x[3]) + x[2] * np.exp(-t * x[4]))


def biggs_exp6(x):
    t = 0.1 * np.arange(1, 14)
    y = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)
    return x[2] * np.exp(-t * x[0]) - x[3] * np.exp(-t * x[1]) + x[5] * np.exp(-t * x[4]) - y


# fmt: off
OSBORNE2 = np.array([
    1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746, 0.679,
    0.608, 0.655, 0.616, 0.606, 0.602, 0.626, 0.651, 0.724, 0.649, 0.649, 0.694, 0.644,
    0.624, 0.661, 0.612, 0.558, 0.533, 0.495, 0.500, 0.423, 0.395, 0.375, 0.372, 0.391,
    0.396, 0.405, 0.428, 0.429, 0.523, 0.562, 0.607, 0.653, 0.672, 0.708, 0.633, 0.668,
    0.645, 0.632, 0.591, 0.559, 0.597, 0.625, 0.739, 0.710, 0.729, 0.720, 0.636, 0.581,
    0.428, 0.292, 0.162, 0.098, 0.054,
])
# fmt: on


def osborne2(x):
    t = np.arange(65) / 10
    return OSBORNE2 - (
        x[0] * np.exp(-t * x[4])
        + x[1] * np.exp(-((t - x[8]) ** 2) * x[5])
        + x[2] * np.exp(-((t - x[9]) ** 2) * x[6])
        + x[3] * np.exp(-((t - x[10]) ** 2) * x[7])
    )


def watson(x):
    t = np.arange(1, 30) / 29
    j = np.arange(x.size)
    powers = t[:, None] ** j
    slope = powers[:, :-1] @ (j[1:] * x[1:])
    head = slope - (powers @ x) ** 2 - 1
    return np.concatenate([head, [x[0], x[1] - x[0] ** 2 - 1]])


def extended_rosenbrock(x):
    return np.stack([10 * (x[1::2] - x[::2] ** 2), 1 - x[::2]], axis=1).ravel()


def extended_powell(x):
    return np.concatenate([powell_singular(x[i : i + 4]) for i in range(0, x.size, 4)])


def penalty1(x):
    return np.concatenate([np.sqrt(1e-5) * (x - 1), [x @ x - 0.25]])


def penalty2(x):
    n = x.size
    i = np.arange(2, n + 1)
    y = np.exp(i / 10) + np.exp((i - 1) / 10)
    a = np.sqrt(1e-5)
    middle = a * (np.exp(x[1:] / 10) + np.exp(x[:-1] / 10) - y)
    tail = a * (np.exp(x[1:] / 10) - np.exp(-1 / 10))
    weights = np.arange(n, 0, -1)
    return np.concatenate([[x[0] - 0.2], middle, tail, [weights @ x**2 - 1]])


def variably_dimensioned(x):
    s = np.arange(1, x.size + 1) @ (x - 1)
    return np.concatenate([x - 1, [s, s**2]])


def trigonometric(x):
    n = x.size
    return n - np.cos(x).sum() + np.arange(1, n + 1) * (1 - np.cos(x)) - np.sin(x)


def brown_almost_linear(x):
    n = x.size
    head = x[:-1] + x.sum() - (n + 1)
    return np.concatenate([head, [np.prod(x) - 1]])


def discrete_boundary_value(x):
    n = x.size
    h = 1 / (n + 1)
    t = np.arange(1, n + 1) * h
    z = np.concatenate([[0], x, [0]])
    return 2 * x - z[:-2] - z[2:] + h**2 * (x + t + 1) ** 3 / 2


def discrete_integral(x):
    n = x.size
    h = 1 / (n + 1)
    t = np.arange(1, n + 1) * h
    c = (x + t + 1) ** 3
    low = np.cumsum(t * c)
    high = np.sum((1 - t) * c) - np.cumsum((1 - t) * c)
    return x + h * ((1 - t) * low + t * high) / 2


def broyden_tridiagonal(x):
    z = np.concatenate([[0], x, [0]])
    return (3 - 2 * x) * x - z[:-2] - 2 * z[2:] + 1


def broyden_banded(x):
    n = x.size
    g = x * (1 + x)
    near = np.array([g[max(0, i - 5) : min(n, i + 2)].sum() - g[i] for i in range(n)])
    return x * (2 + 5 * x**2) + 1 - near


def linear_full_rank(x):
    n = 2 * x.size
    s = 2 * x.sum() / n
    return np.concatenate([x - s - 1, np.full(n - x.size, 1.0) * (-s - 1)])


def chebyquad(x):
    n = x.size
    z = 2 * x - 1
    t0, t1 = np.ones_like(z), z
    out = []
    for i in range(1, n + 1):
        out.append(t1.mean() - (0 if i % 2 else -1 / (i**2 - 1)))
        t0, t1 = t1, 2 * z * t1 - t0
    return np.array(out)


def mancino(x):
    n = x.size
    i = np.arange(1, n + 1)
    v = np.sqrt(x[:, None] ** 2 + i[:, None] / i)
    log = np.log(v)
    return 1400 * x + (i - 50) ** 3 + (v * (np.sin(log) ** 5 + np.cos(log) ** 5)).sum(1)


def bdqrtic(x):
    n = x.size
    k = n - 4
    quartic = sum((j + 1) * x[j : j + k] ** 2 for j in range(4)) + 5 * x[-1] ** 2
    return np.concatenate([-4 * x[:k] + 3, quartic])


def cube(x):
    return np.concatenate([[x[0] - 1], 10 * (x[1:] - x[:-1] ** 3)])


HEART8 = np.array([-0.69, -0.044, -1.57, -1.31, -2.65, 2.0, -12.6, 9.48])


def heart8(x):
    a, b, c, d, t, u, v, w = x
    return (
        np.array(
            [
                a + b,
                c + d,
                t * a + u * b - v * c - w * d,
                v * a + w * b + t * c + u * d,
                a * (t**2 - v**2) - 2 * c * t * v + b * (u**2 - w**2) - 2 * d * u * w,
                c * (t**2 - v**2) + 2 * a * t * v + d * (u**2 - w**2) + 2 * b * u * w,
                a * t * (t**2 - 3 * v**2)
                + c * v * (v**2 - 3 * t**2)
                + b * u * (u**2 - 3 * w**2)
                + d * w * (w**2 - 3 * u**2),
                c * t * (t**2 - 3 * v**2)
                - a * v * (v**2 - 3 * t**2)
                + d * u * (u**2 - 3 * w**2)
                - b * w * (w**2 - 3 * u**2),
            ]
        )
        - HEART8
    )


def _grid(m: int) -> np.ndarray:
    return np.arange(1, m + 1) / (m + 1)


def _mancino_start(m: int) -> np.ndarray:
    i = np.arange(1, m + 1)
    v = np.sqrt(i[:, None] / i)
    log = np.log(v)
    b = (v * (np.sin(log) ** 5 + np.cos(log) ** 5)).sum(1)
    return -8.710996e-4 * ((i - 50) ** 3 + b)


_START = {
    rosenbrock: [-1.2, 1],
    freudenstein_roth: [0.5, -2],
    powell_badly_scaled: [0, 1],
    brown_badly_scaled: [1, 1],
    beale: [1, 1],
    jennrich_sampson: [0.3, 0.4],
    helical_valley: [-1, 0, 0],
    bard: [1, 1, 1],
    gaussian: [0.4, 1, 0],
    meyer: [0.02, 4000, 250],
    box_three_dimensional: [0, 10, 20],
    powell_singular: [3, -1, 0, 1],
    wood: [-3, -1, -3, -1],
    kowalik_osborne: [0.25, 0.39, 0.415, 0.39],
    brown_dennis: [25, 5, -5, -1],
    osborne1: [0.5, 1.5, -1, 0.01, 0.02],
    biggs_exp6: [1, 2, 1, 1, 1, 1],
    osborne2: [1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5],
    watson: np.full(6, 0.5),  # the paper starts at 0, where every second-order term vanishes
    extended_rosenbrock: np.tile([-1.2, 1], 5),
    extended_powell: np.tile([3.0, -1, 0, 1], 3),
    penalty1: np.arange(1, 11),
    penalty2: np.full(10, 0.5),
    variably_dimensioned: 1 - np.arange(1, 11) / 10,
    trigonometric: np.full(10, 0.1),
    brown_almost_linear: np.full(10, 0.5),
    discrete_boundary_value: _grid(10) * (_grid(10) - 1),
    discrete_integral: _grid(10) * (_grid(10) - 1),
    broyden_tridiagonal: -np.ones(10),
    broyden_banded: -np.ones(10),
    linear_full_rank: np.ones(8),
    chebyquad: _grid(9),
    mancino: _mancino_start(8),
    bdqrtic: np.ones(8),
    cube: np.full(6, 0.5),
    heart8: [-0.3, -0.39, 0.3, -0.344, -1.2, 2.69, 1.59, -1.5],
}


def _problem(fun: Callable[[np.ndarray], np.ndarray], start: object) -> Problem:
    x0 = np.array(start, float)
    return Problem(fun.__name__, fun, x0, fun(x0).size)


PROBLEMS = [_problem(fun, start) for fun, start in _START.items()]


def by_name(name: str) -> Problem:
    """The problem of that name."""
    return next(p for p in PROBLEMS if p.name == name)
