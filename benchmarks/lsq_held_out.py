"""Held-out least-squares problems: the driver's constants never saw them.

Other kinetics, dose-response curves, peaks, circuits, implicit models, bad scales, curved valleys,
starts far away, and the classical problems that the first group leaves out.
"""

from __future__ import annotations

import numpy as np

from benchmarks.lsq_problems import SKIPPED, Problem, fit, rk4
from benchmarks.problems import PROBLEMS as CLASSICAL

T30 = np.linspace(0.2, 6, 30)


def _second_order(x):
    """A + B -> C -> D with a loss of B."""
    k1, k2, k3 = x

    def rate(y):
        f, g = k1 * y[0] * y[1], k2 * y[2]
        return np.array([-f, -f - k3 * y[1], f - g, g])

    return rk4(rate, [1.0, 0.7, 0, 0], np.linspace(0.5, 8, 9))[:, [0, 2, 3]].ravel()


def _progress_curves(x):
    """Substrate used up by an enzyme, from three initial concentrations."""
    vmax, km, kp = x

    def rate(y):
        return -vmax * y / (km * (1 + (S0 - y) / kp) + y)

    return rk4(rate, S0, np.linspace(0.5, 10, 10)).ravel()


S0 = np.array([0.5, 2.0, 6.0])


def _inhibition(x):
    s, i = (g.ravel() for g in np.meshgrid(np.logspace(-1, 1, 6), [0, 0.5, 2.0, 5.0]))
    return x[0] * s / (x[1] * (1 + i / x[2]) + s * (1 + i / x[3]))


def _five_logistic(x):
    dose = np.linspace(-3, 3, 18)
    return x[0] + (x[1] - x[0]) / (1 + np.exp(-x[2] * (dose - x[3]))) ** x[4]


def _nanomolar(x):
    """EC50 in mol/l, effect in percent."""
    dose = np.logspace(-11, -6, 16)
    return x[0] + x[1] * dose ** x[3] / (np.abs(x[2]) ** x[3] + dose ** x[3])


def _peaks_on_decay(x):
    t = np.linspace(1, 250, 80)
    return (
        x[0] * np.exp(-x[1] * t)
        + x[2] * np.exp(-(((t - x[3]) / x[4]) ** 2))
        + x[5] * np.exp(-(((t - x[6]) / x[7]) ** 2))
    )


def _lorentz(x):
    t = np.linspace(-4, 4, 50)
    return x[0] / (1 + ((t - x[1]) / x[2]) ** 2) + x[3] / (1 + ((t - x[4]) / x[5]) ** 2) + x[6]


def _two_times(x):
    """Decay times of 1e-3 and 1e2 s, amplitudes in volts."""
    t = np.logspace(-4, 2.5, 40)
    return x[0] * np.exp(-t / x[1]) + x[2] * np.exp(-t / x[3])


def _rlc(x):
    """Current through ohm, millihenry and microfarad, by frequency: size and phase."""
    r, ind, cap = x
    w = np.logspace(2.5, 5.5, 20)
    y = 1 / (r + 1j * w * ind + 1 / (1j * w * cap))
    return np.concatenate([np.log(np.abs(y) + 1e-30), np.angle(y)])


def _ladder(x):
    """Voltages of a resistor ladder with a diode at its end, by Newton."""
    g = np.abs(x[:6]) + 1e-6
    out = []
    for source in (0.5, 1.0, 2.0, 4.0):
        v = np.full(6, 0.3 * source)
        for _ in range(12):
            a = np.diag(g + np.r_[g[1:], 0] + 0.1) - np.diag(g[1:], 1) - np.diag(g[1:], -1)
            bend = np.clip(v[-1] / 0.3, -5, 5)
            res = a @ v
            res[0] -= g[0] * source
            res[-1] += abs(x[6]) * (np.exp(bend) - 1)
            a[-1, -1] += abs(x[6]) * np.exp(bend) / 0.3
            v = v - np.linalg.solve(a, res)
        out.append(v)
    return np.concatenate(out)


def _solar_cell(x):
    """Current of a photovoltaic cell: I = Iph - I0 (exp((V + I Rs)/a) - 1) - (V + I Rs)/Rsh."""
    photo, log_i0, a, rs, rsh = x
    v = np.linspace(0, 0.58, 20)
    low, high = np.full(20, -5.0), np.full(20, 5.0)
    for _ in range(60):  # the right side falls in I
        i = 0.5 * (low + high)
        u = v + i * rs
        over = photo - np.exp(log_i0) * np.expm1(np.clip(u / a, -50, 50)) - u / rsh > i
        low, high = np.where(over, i, low), np.where(over, high, i)
    return i


def _reactor(x):
    """Steady states of a cooled stirred tank by Newton in temperature, at eight flows."""
    k0, act, heat, cool = x
    flow = np.linspace(0.5, 2, 8)
    temp = np.full(8, 1.0)
    for _ in range(40):
        k = k0 * np.exp(act * (1 - 1 / temp))
        used = k / (flow + k)
        slope = flow * k * act / temp**2 / (flow + k) ** 2
        res = flow * (1 - temp) + heat * flow * used - cool * (temp - 0.9)
        temp = np.maximum(temp - res / (-flow + heat * flow * slope - cool), 0.2)
    return np.concatenate([temp, used])


def _pipes(x):
    """Flows in parallel pipes that share a pump, by bisection; roughness within a logarithm."""
    rough, length, pump = np.abs(x[:3]) + 1e-9, np.abs(x[3:6]) + 1e-9, x[6]
    out = []
    for demand in np.linspace(0.5, 3, 6):
        low, high = np.zeros(1), np.full(1, 1e3)
        for _ in range(50):
            head = 0.5 * (low + high)
            flow = np.sqrt(head / length) / (1 + np.log1p(rough))
            over = flow.sum() * (1 + 0.05 * pump * head) > demand
            low, high = np.where(over, low, head), np.where(over, head, high)
        out.append(np.r_[flow, head])
    return np.concatenate(out)


def _thurber(x):
    t = np.linspace(-3, 2, 37)
    top = x[0] + x[1] * t + x[2] * t**2 + x[3] * t**3
    return top / (1 + x[4] * t + x[5] * t**2 + x[6] * t**3)


def _saturation(x):
    t = np.linspace(70, 760, 14)
    return x[0] * (1 - np.exp(-x[1] * t))


def _chwirut(x):
    t = np.linspace(0.5, 6, 30)
    return np.exp(-x[0] * t) / (x[1] + x[2] * t)


def _narrow_peak(x):
    t = np.linspace(400, 500, 35)
    return x[0] / x[1] * np.exp(-0.5 * ((t - x[2]) / x[1]) ** 2)


def _bennett(x):
    t = np.linspace(8, 40, 40)
    return x[0] * (x[1] + t) ** (-1 / x[2])


def _spiral(x):
    """A valley that winds about an axis."""
    a = 2 * np.arctan2(x[1], x[0])
    return np.array([8 * (x[2] - a), 4 * (np.hypot(x[0], x[1]) - 1), x[2], 0.3 * x[0] * x[2]])


def _exponential_valley(x):
    return np.concatenate([4 * (x[1::2] - np.exp(-x[::2])), 0.5 * (x[::2] - 1.5),
                           0.2 * (x[1::2] * x[::2])])  # fmt: skip


def _sine_valley(x):
    return np.array([20 * (x[1] - np.sin(2 * x[0])), 0.5 * (x[0] - 2), 0.1 * x[0] * x[1]])


def _heat_rod(x):
    """Twelve conductivities of a rod from temperatures over time."""
    h = np.abs(x)

    def rate(y):
        flow = h * np.diff(np.concatenate([[1.0], y, [0.0]])[: h.size + 1])
        return 2 * (np.r_[flow[1:], -y[-1]] - flow)

    return rk4(rate, np.zeros(12), np.linspace(0.5, 6, 6), 8).ravel()


def _tomography(x):
    """Attenuations of a 4 x 4 image from 24 rays."""
    rays = np.abs(np.random.default_rng(21).normal(size=(24, 16))) * (
        np.random.default_rng(22).uniform(size=(24, 16)) < 0.4
    )
    return np.exp(-rays @ x) + 0.05 * np.square(rays @ x)


def _springs(x):
    """Thirty stiffnesses of a hardening chain from its shapes under two loads."""
    out = []
    for force in (np.ones(30), np.cos(0.4 * np.arange(30.0))):
        pull = np.cumsum(force[::-1])[::-1] / 10
        stretch = pull / x
        for _ in range(8):
            stretch = stretch - (x * stretch + 0.3 * stretch**3 - pull) / (x + 0.9 * stretch**2)
        out.append(np.cumsum(stretch))
    return np.concatenate(out)


def _species(x):
    """Growth rates and crowding of ten species that compete with their neighbours."""
    grow, crowd = x[:10], x[10:]

    def rate(y):
        return y * (grow - crowd * y - 0.2 * np.roll(y, 1) - 0.1 * np.roll(y, -1))

    return rk4(rate, np.full(10, 0.2), np.linspace(1, 10, 7), 5).ravel()


def _prony(x):
    """Storage and loss modulus of two Maxwell elements and a spring."""
    w = np.logspace(-2, 2, 15)
    e = x[0] + sum(x[i] * 1j * w * x[i + 1] / (1 + 1j * w * x[i + 1]) for i in (1, 3))
    return np.concatenate([e.real, e.imag])


def _infusion(x):
    """Two compartments, an infusion of two hours, in closed form."""
    vol, cl, k12, k21 = x
    k10 = cl / vol
    total = k12 + k21 + k10
    root = np.sqrt(np.maximum(total**2 - 4 * k21 * k10, 1e-12))
    fast, slow = (total + root) / 2, (total - root) / 2
    t = np.linspace(0.25, 12, 18)

    def level(t):
        a = (k21 - fast) / (slow - fast) * (1 - np.exp(-fast * t)) / fast
        b = (k21 - slow) / (fast - slow) * (1 - np.exp(-slow * t)) / slow
        return 5 / vol * (a + b)

    return level(t) - np.where(t > 2, level(np.maximum(t - 2, 0)), 0)


def _pendulum(x):
    freq, drag, angle = x
    return rk4(lambda y: np.array([y[1], -(freq**2) * np.sin(y[0]) - drag * y[1]]),
               [angle, 0.0], np.linspace(0.3, 6, 20), 6)[:, 0]  # fmt: skip


def _spikes(x):
    a, b, c = x
    return rk4(lambda y: np.array([c * (y[0] - y[0] ** 3 / 3 + y[1]), -(y[0] - a + b * y[1]) / c]),
               [-1.0, 1.0], np.linspace(0.5, 10, 20), 10).ravel()  # fmt: skip


def _seir(x):
    beta, onset, gamma, first = x

    def rate(y):
        f = beta * y[0] * y[2]
        return np.array([-f, f - onset * y[1], onset * y[1] - gamma * y[2]])

    return rk4(rate, [1 - first, first, 0.0], np.linspace(2, 60, 15), 6)[:, 1:].ravel()


def _beacons(x):
    """Two positions from distances to five beacons, the start a thousand away."""
    at = np.random.default_rng(23).uniform(-5, 5, (5, 2))
    one, two = x[:2], x[2:]
    return np.concatenate([np.hypot(*(at - one).T), np.hypot(*(at - two).T),
                           [np.hypot(*(one - two))]])  # fmt: skip


def _isotherm(x):
    p = np.logspace(-2, 2, 20)
    return x[0] * (x[1] * p) ** x[2] / (1 + (x[1] * p) ** x[2])


def _two_temperatures(x):
    """Pre-factor 1e10 and activation energy 8e4 from conversions: a valley of bad scale."""
    temperature = np.linspace(350, 450, 12)
    k = np.abs(x[0]) * np.exp(np.clip(-x[1] / (8.314 * temperature), -700, 50))
    return 1 - np.exp(-np.clip(k, 0, 700) * x[2])


def _neurons(x):
    """A small network with three hidden units, fitted to a curve."""
    t = np.linspace(-2, 2, 40)
    return x[:3] @ np.tanh(np.outer(x[3:6], t) + x[6:9, None]) + x[9]


ROWS = [
    ("second_order", fit(_second_order, [0.9, 0.35, 0.1], 0.01), [0.4, 0.8, 0.3]),
    ("progress_curves", fit(_progress_curves, [1.2, 0.8, 2.5], 0.01), [0.6, 2, 1]),
    ("inhibition", fit(_inhibition, [8, 1.5, 0.7, 4], 0.02), [4, 1, 2, 2]),
    ("five_logistic", fit(_five_logistic, [0.1, 2, 2, 0.5, 0.6], 0.01), [0.0, 1.5, 1, 0.2, 1]),
    ("nanomolar", fit(_nanomolar, [5, 90, 3e-9, 1.2], 0.01), [0.0, 60, 2e-8, 0.8]),
    ("peaks_on_decay", fit(_peaks_on_decay, [98, 0.0105, 100, 67, 23, 72, 178, 18], 0.01),
     [90, 0.008, 80, 72, 28, 60, 170, 22]),
    ("lorentz", fit(_lorentz, [2, -0.8, 0.5, 1, 1.2, 0.9, 0.2], 0.01),
     [1.5, -1, 0.8, 1.5, 1, 0.6, 0.0]),
    ("two_times", fit(_two_times, [3, 2e-3, 1, 80], 0.01), [2, 5e-3, 2, 30]),
    ("rlc", fit(_rlc, [150, 4e-3, 2e-6], 0.005), [100, 5e-3, 1.5e-6]),
    ("ladder", fit(_ladder, [1, 0.7, 1.5, 0.5, 1.2, 0.8, 0.05], 0.005), [*[1.0] * 6, 0.2]),
    ("solar_cell", fit(_solar_cell, [0.76, -15, 0.039, 0.036, 53], 0.002),
     [0.6, -13, 0.045, 0.02, 30]),
    ("reactor", fit(_reactor, [0.8, 6, 0.3, 0.4], 0.005), [0.5, 4, 0.2, 0.6]),
    ("pipes", fit(_pipes, [0.5, 2, 4, 1, 0.5, 2, 1], 0.005), [1, 1, 1, 1, 1, 1, 0.5]),
    ("thurber", fit(_thurber, [1288, 1491, 583, 75, 0.97, 0.4, 0.05], 0.002),
     [1000, 1000, 400, 40, 0.7, 0.3, 0.03]),
    ("saturation", fit(_saturation, [239, 5.5e-4], 0.005), [500, 1e-4]),
    ("chwirut", fit(_chwirut, [0.19, 0.006, 0.0105], 0.02), [0.1, 0.01, 0.02]),
    ("narrow_peak", fit(_narrow_peak, [1.55, 4.09, 451.5], 0.01), [1, 10, 465]),
    ("bennett", fit(_bennett, [-2500, 46, 0.93], 1e-4), [-2000, 50, 0.8]),
    ("spiral", _spiral, [-1, 0.4, 1]),
    ("exponential_valley", _exponential_valley, np.tile([-2.0, 1.0], 4)),
    ("sine_valley", _sine_valley, [-1.5, 1]),
    ("heat_rod", fit(_heat_rod, np.linspace(0.7, 1.6, 12), 0.005), np.ones(12)),
    ("tomography", fit(_tomography, 0.3 + 0.2 * np.cos(np.arange(16.0)), 0.005), np.full(16, 0.3)),
    ("springs", fit(_springs, 1.5 + 0.5 * np.sin(np.arange(30.0)), 0.005), np.full(30, 1.2)),
    ("species", fit(_species, np.r_[np.linspace(0.5, 1.2, 10), np.linspace(1.4, 0.7, 10)], 0.01),
     np.ones(20)),
    ("prony", fit(_prony, [0.5, 2, 0.3, 1, 8], 0.01), [1, 1, 1, 0.5, 4]),
    ("infusion", fit(_infusion, [10, 3, 0.6, 0.3], 0.02), [6, 5, 0.3, 0.6]),
    ("pendulum", fit(_pendulum, [2, 0.3, 1.2], 0.01), [1.6, 0.1, 0.8]),
    ("spikes", fit(_spikes, [0.2, 0.2, 3], 0.02), [0.4, 0.4, 2.4]),
    ("seir", fit(_seir, [0.6, 0.25, 0.15, 1e-3], 0.01), [0.8, 0.5, 0.3, 5e-3]),
    ("beacons", fit(_beacons, [1, 2, -2, 1], 0.01), [1000, -500, 300, 800]),
    ("isotherm", fit(_isotherm, [3, 0.5, 0.6], 0.01), [1, 5, 1]),
    ("two_temperatures", fit(_two_temperatures, [1e10, 8e4, 1.5], 0.005), [3e9, 7.3e4, 1]),
    ("neurons", fit(_neurons, [1, -0.7, 0.4, 1, 2, -1.5, 0.2, -0.5, 1, 0.3], 0.01),
     [0.5, -0.5, 0.5, 1, 1.5, -1, 0.1, -0.2, 0.5, 0.0]),
]  # fmt: skip


def held_out() -> list[Problem]:
    """All held-out problems."""
    own = [Problem(name, fun, np.array(x0, float)) for name, fun, x0 in ROWS]
    return own + [Problem(p.name, p.fun, p.x0) for p in CLASSICAL if p.name in SKIPPED]
