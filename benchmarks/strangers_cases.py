"""Random functions with exact Jacobians, under random conditions: what strangers bring.

Nothing here is a list of problems: functions are random compositions, and a *cell* names what is
done to them. Every random decision is taken by a ``Draw``, so that Hypothesis can take them
instead of a generator and shrink a draw that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

EPS = np.finfo(float).eps


class Draw:
    """Random decisions from a NumPy generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return int(self.rng.integers(low, high + 1))

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def decade(self, low: float, high: float) -> float:
        """A number between two powers of ten, uniform in its logarithm."""
        return float(10 ** self.uniform(np.log10(low), np.log10(high)))

    def choice(self, options: Sequence[Any]) -> Any:
        return options[self.integer(0, len(options) - 1)]

    def sign(self) -> float:
        return float(self.choice((1.0, -1.0)))

    def seed(self) -> int:
        return self.integer(0, 2**31 - 1)


# -- smooth functions ----------------------------------------------------------------------------

# Name, value and derivative of one-dimensional functions of an argument of order one.
SHAPES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "linear": (lambda z: z, lambda z: np.ones_like(z)),
    "square": (lambda z: z * z, lambda z: 2 * z),
    "cube": (lambda z: z**3, lambda z: 3 * z * z),
    "exp": (np.exp, np.exp),
    "sin": (np.sin, np.cos),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "log": (lambda z: np.log1p(z * z), lambda z: 2 * z / (1 + z * z)),
    "rational": (lambda z: z / (2 + z * z), lambda z: (2 - z * z) / (2 + z * z) ** 2),
    "root": (lambda z: np.sqrt(1 + z * z), lambda z: z / np.sqrt(1 + z * z)),
    "gauss": (lambda z: np.exp(-z * z / 2), lambda z: -z * np.exp(-z * z / 2)),
}
# Shapes that change by order one within |z| < 1 and stay bounded, and those that grow.
BOUNDED = ("sin", "tanh", "rational", "gauss")
GROWING = ("square", "cube", "exp", "root", "log")


@dataclass(frozen=True)
class Term:
    """amp * shape(slope . (x - origin) / unit), one output of a layer, or a product of two."""

    shape: str
    weight: np.ndarray
    amp: float
    shift: float = 0.0

    def value(self, z: np.ndarray) -> float:
        return self.amp * SHAPES[self.shape][0](z @ self.weight + self.shift)

    def gradient(self, z: np.ndarray) -> np.ndarray:
        return self.amp * SHAPES[self.shape][1](z @ self.weight + self.shift) * self.weight


@dataclass(frozen=True)
class Smooth:
    """y_i = size_i (sum of terms + product of two terms) of z = (x - origin) / unit."""

    origin: np.ndarray
    unit: np.ndarray
    terms: tuple[tuple[Term, ...], ...]
    products: tuple[tuple[Term, Term] | None, ...]
    size: np.ndarray

    def value(self, x: np.ndarray) -> np.ndarray:
        z = (x - self.origin) / self.unit
        out = [sum(t.value(z) for t in ts) for ts in self.terms]
        for i, pair in enumerate(self.products):
            if pair is not None:
                out[i] += pair[0].value(z) * pair[1].value(z)
        return self.size * np.array(out)

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        z = (x - self.origin) / self.unit
        rows = []
        for ts, pair in zip(self.terms, self.products):
            row = np.sum([t.gradient(z) for t in ts], axis=0)
            if pair is not None:
                a, b = pair
                row = row + a.value(z) * b.gradient(z) + b.value(z) * a.gradient(z)
            rows.append(row)
        return self.size[:, None] * np.array(rows) / self.unit

    def plus(self, term: Term, outputs: Sequence[int]) -> Smooth:
        terms = tuple((*ts, term) if i in outputs else ts for i, ts in enumerate(self.terms))
        return replace(self, terms=terms)


@dataclass(frozen=True)
class Case:
    """One call: a function, where, and what is right.

    Attributes
    ----------
    fun, x : callable, array
    truths : list of array, shape (n, m)
        Jacobians that count as right: one, or slope and trend.
    options : dict
        Of ``jacobian``.
    best : array, shape (n, m), or None
        Standard error that the best steps known in hindsight leave, where there is noise.
    noisy : bool
        Whether intervals should hold 95 %.
    """

    fun: Callable[[np.ndarray], Any]
    x: np.ndarray
    truths: list[np.ndarray]
    options: dict[str, Any] = field(default_factory=dict)
    best: np.ndarray | None = None
    noisy: bool = False
    label: str = ""


def smooth(draw: Draw, m: int | None = None, n: int | None = None) -> tuple[Smooth, np.ndarray]:
    """A random smooth function that bends on the scale of x, and a point."""
    m = draw.integer(1, 8) if m is None else m
    n = draw.integer(1, 10) if n is None else n
    unit = np.array([draw.decade(1e-3, 1e3) for _ in range(m)])
    z = np.array([draw.uniform(0.4, 2.0) * draw.sign() for _ in range(m)])

    def term() -> Term:
        weight = np.array([draw.uniform(-1, 1) if draw.integer(0, 2) else 0.0 for _ in range(m)])
        if not weight.any():
            weight[draw.integer(0, m - 1)] = 1.0
        return Term(draw.choice(tuple(SHAPES)), weight, draw.uniform(0.3, 2), draw.uniform(-1, 1))

    terms = tuple(tuple(term() for _ in range(draw.integer(1, 3))) for _ in range(n))
    products = tuple((term(), term()) if draw.integer(0, 2) == 0 else None for _ in range(n))
    size = np.array([draw.decade(1e-3, 1e3) for _ in range(n)])
    return Smooth(np.zeros(m), unit, terms, products, size), z * unit


# -- conditions ----------------------------------------------------------------------------------


def plain(f: Smooth, x: np.ndarray, **fields: Any) -> Case:
    return Case(f.value, x, [f.jacobian(x)], **fields)


def cancelling(draw: Draw) -> Case:
    """Outputs of few inputs each, of many, that are differences of terms far larger than they."""
    inputs = draw.integer(4, 16)
    f, x = smooth(draw, inputs, draw.integer(8, 24))

    def few(term: Term) -> Term:
        keep = {draw.integer(0, inputs - 1) for _ in range(2)}
        weight = np.array([draw.uniform(0.3, 1) if j in keep else 0.0 for j in range(inputs)])
        return replace(term, weight=weight)

    sparse = replace(
        f,
        terms=tuple((few(ts[0]),) for ts in f.terms),
        products=tuple(None for _ in f.products),
    )
    large = sparse.size * draw.decade(1e1, 1e6)
    return Case(lambda z: (large + sparse.value(z)) - large, x, [sparse.jacobian(x)])


def narrow(draw: Draw, f: Smooth, x: np.ndarray, width: float, inputs: Sequence[int],
           shapes: Sequence[str]) -> Smooth:  # fmt: skip
    """Add features of that width, relative to x, along some inputs."""
    z = x / f.unit
    n = len(f.terms)
    for j in inputs:
        shape, size = draw.choice(tuple(shapes)), abs(z[j]) * width
        weight = np.zeros(len(x))
        weight[j] = 1 / size
        which = [i for i in range(n) if draw.integer(0, 1)] or [draw.integer(0, n - 1)]
        shift = draw.uniform(-1, 1) - z[j] / size
        f = f.plus(Term(shape, weight, draw.uniform(0.3, 2), shift), which)
    return f


def noise_limit(f: Smooth, x: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Error (n, m) that two central pairs at the best step known in hindsight leave."""
    exact, best = f.jacobian(x), np.full((len(sigma), len(x)), np.inf)
    for j in range(len(x)):
        for t in 10.0 ** np.arange(-8, 0.01, 0.25) * 0.5:
            h = np.zeros(len(x))
            h[j] = t * (abs(x[j]) if x[j] else f.unit[j])
            with np.errstate(all="ignore"):
                d = (f.value(x + h) - f.value(x - h)) / (2 * h[j])
            error = np.hypot(d - exact[:, j], sigma / (2 * h[j]))
            best[:, j] = np.fmin(best[:, j], np.where(np.isfinite(error), error, np.inf))
    return best


def gaussian(draw: Draw, f: Smooth, x: np.ndarray, level: float, relative: bool = False) -> Case:
    rng = np.random.default_rng(draw.seed())
    size = np.sqrt(np.mean(np.square(f.value(x) / f.size))) * f.size
    sigma = level * (np.abs(f.value(x)) if relative else size)

    def run(p: np.ndarray) -> np.ndarray:
        y = f.value(p)
        e = level * rng.standard_normal(len(y))
        return y * (1 + e) if relative else y + size * e

    return Case(run, x, [f.jacobian(x)], best=noise_limit(f, x, sigma), noisy=True)


def printed(draw: Draw, f: Smooth, x: np.ndarray, how: str, digits: int) -> Case:
    y0 = np.abs(f.value(x))
    top = 10.0 ** np.floor(np.log10(np.maximum(y0, 1e-300)))
    # fixed decimals are chosen so that the largest output has that many digits
    decimals = digits - 1 - int(np.floor(np.log10(max(y0.max(), 1e-300))))

    def run(p: np.ndarray) -> np.ndarray:
        y = f.value(p)
        if how == "round":
            return np.round(y, decimals)
        if how == "f":
            return np.array([float(f"{v:.{max(decimals, 0)}f}") for v in y])
        return np.array([float(f"{v:.{digits - (how == 'e')}{how}}") for v in y])

    spacing = top * 10.0 ** (1 - digits)
    if how in ("round", "f"):
        spacing = np.full(len(y0), 10.0 ** -(decimals if how == "round" else max(decimals, 0)))
    return Case(run, x, [f.jacobian(x)], best=noise_limit(f, x, spacing / np.sqrt(12)))


def converted(draw: Draw, f: Smooth, x: np.ndarray, level: float) -> Case:
    """Outputs that are multiples of a spacing which is no power of ten, as a converter's are."""
    y0 = np.abs(f.value(x))
    size = y0.max() if draw.integer(0, 1) else np.maximum(y0, 0.01 * f.size)
    spacing = np.broadcast_to(level * draw.uniform(1, 2) * size, y0.shape)
    return Case(
        lambda p: np.rint(f.value(p) / spacing) * spacing, x, [f.jacobian(x)],
        best=noise_limit(f, x, spacing / np.sqrt(12)),
    )  # fmt: skip


def rounded_inputs(draw: Draw, f: Smooth, x: np.ndarray, digits: int) -> Case:
    x = np.array([float(f"{v:.{digits}g}") for v in x])
    place = 10.0 ** (np.floor(np.log10(np.abs(x))) - digits + 1)
    exact = f.jacobian(x)
    sigma = np.sqrt((np.square(exact) * np.square(place)).sum(axis=1) / 12)
    return Case(
        lambda p: f.value(np.rint(p / place) * place), x, [exact], best=noise_limit(f, x, sigma)
    )


def decimals(draw: Draw) -> Case:
    """Inputs rounded to decimals, and arithmetic whose outputs are decimals for that."""
    m, n, place = draw.integer(1, 5), draw.integer(1, 6), 10.0 ** -draw.integer(0, 2)
    x = np.array([round(draw.uniform(1, 30), 3) for _ in range(m)])
    linear = np.array([[round(draw.uniform(-2, 2), 1) for _ in range(m)] for _ in range(n)])
    square = np.array([[round(draw.uniform(-2, 2), 2) for _ in range(m)] for _ in range(n)])

    def run(p: np.ndarray) -> np.ndarray:
        rounded = np.rint(p / place) * place
        return linear @ rounded + square @ rounded**2

    exact = linear + 2 * square * x
    sigma = place * np.sqrt(np.square(exact).sum(axis=1) / 12)
    # x itself is rounded
    best = sigma[:, None] / x + place * np.abs(square)
    return Case(run, x, [exact], best=best)


def wiggle(draw: Draw, f: Smooth, x: np.ndarray, level: float) -> Case:
    """Deterministic noise: a sum of waves, whose own slope counts as right as well."""
    m, n = len(x), len(f.size)
    waves = draw.integer(1, 3)
    freq = np.array([[[draw.decade(30, 1e5) * draw.sign() / abs(x[j]) for j in range(m)]
                      for _ in range(waves)] for _ in range(n)])  # fmt: skip
    phase = np.array([[draw.uniform(0, 6.28) for _ in range(waves)] for _ in range(n)])
    size = level * np.abs(f.value(x)) + 0.1 * level * f.size

    def wave(p: np.ndarray) -> np.ndarray:
        return size * np.sin(freq @ p + phase).sum(axis=1)

    own = (size[:, None] * np.cos(freq @ x + phase))[..., None] * freq
    trend = f.jacobian(x)
    return Case(lambda p: f.value(p) + wave(p), x, [trend + own.sum(axis=1), trend])


def failing(case: Case, draw: Draw, distance: float) -> Case:
    """No value beyond one input's threshold, that far from x."""
    j, side = draw.integer(0, len(case.x) - 1), draw.sign()
    limit = case.x[j] + side * distance * abs(case.x[j])
    how = draw.choice(("raise", "nan"))

    def run(p: np.ndarray) -> Any:
        if (p[j] - limit) * side > 0:
            if how == "raise":
                raise ValueError("outside of the domain")
            return np.full(len(case.truths[0]), np.nan)
        return case.fun(p)

    return replace(case, fun=run, best=None if case.best is None else case.best * 3)


def failing_at_random(case: Case, draw: Draw, share: float) -> Case:
    rng = np.random.default_rng(draw.seed())

    def run(p: np.ndarray) -> Any:
        if rng.random() < share:
            raise RuntimeError("by chance")
        return case.fun(p)

    return replace(case, fun=run)


def kink(draw: Draw, f: Smooth, x: np.ndarray, distance: float, jump: bool) -> Case:
    """A kink or a jump beside x (or at x), along one input."""
    j, side = draw.integer(0, len(x) - 1), draw.sign()
    at = x[j] + side * distance * abs(x[j])
    strength = f.size * draw.uniform(0.3, 2) * draw.sign()
    per = 1.0 if jump else 1 / abs(x[j])

    def run(p: np.ndarray) -> np.ndarray:
        over = (p[j] - at) * side
        return f.value(p) + strength * per * (float(over > 0) if jump else max(over, 0.0))

    truths, gap = [f.jacobian(x)], None
    if distance == 0 and not jump:
        other = truths[0].copy()
        other[:, j] += side * strength * per
        truths = [truths[0], other, (truths[0] + other) / 2]
        # bars that reach both slopes are as good as can be
        gap = np.abs(other - truths[0])
    return Case(run, x, truths, best=gap)


def clipped(draw: Draw, f: Smooth, x: np.ndarray, distance: float) -> Case:
    """An input that saturates beside x."""
    j, side = draw.integer(0, len(x) - 1), draw.sign()
    limit = x[j] + side * distance * abs(x[j])

    def run(p: np.ndarray) -> np.ndarray:
        p = p.copy()
        p[j] = min(p[j], limit) if side > 0 else max(p[j], limit)
        return f.value(p)

    return Case(run, x, [f.jacobian(x)])


def at_pole(draw: Draw, f: Smooth, x: np.ndarray, distance: float) -> Case:
    """A bound, and a logarithm that has its pole there; x at that distance, or on a bound."""
    j, side = draw.integer(0, len(x) - 1), draw.sign()
    pole = x[j] - side * distance * abs(x[j])
    lower, upper = np.full(len(x), -np.inf), np.full(len(x), np.inf)
    (lower if side > 0 else upper)[j] = pole
    amp = f.size * draw.uniform(0.3, 2)
    unit = abs(x[j])

    def run(p: np.ndarray) -> np.ndarray:
        gap = (p[j] - pole) * side / unit
        if gap < 0:
            raise ValueError("out of bounds")
        with np.errstate(divide="ignore"):
            return f.value(p) + amp * np.log(gap)

    exact = f.jacobian(x)
    exact[:, j] += amp / (x[j] - pole)
    return Case(run, x, [exact], {"bounds": (lower, upper)})


def on_bound(draw: Draw, f: Smooth, x: np.ndarray) -> Case:
    low, high = np.full(len(x), -np.inf), np.full(len(x), np.inf)
    for j in range(len(x)):
        if draw.integer(0, 1):
            (low if draw.integer(0, 1) else high)[j] = x[j]
    return plain(f, x, options={"bounds": (low, high)})


def minimum(draw: Draw, distance: float, constant: bool) -> Case:
    """Near the minimum of a sum of squares of smooth functions, one output."""
    m = draw.integer(1, 6)
    f, x = smooth(draw, m, max(m, 2))
    rng = np.random.default_rng(draw.seed())
    at = f.value(x)
    z = distance * rng.uniform(0.3, 1.0, m) * np.sign(rng.standard_normal(m))
    there = x + z * np.abs(x)
    c = draw.uniform(1, 10) if constant else 0.0

    def residual(p: np.ndarray) -> np.ndarray:
        # differences from the values at the minimum, scaled; exact zero there
        return (f.value(p) - at) / f.size

    def run(p: np.ndarray) -> np.ndarray:
        return np.array([c + 0.5 * np.sum(residual(p) ** 2)])

    exact = (residual(there) / f.size) @ f.jacobian(there)
    # what rounding leaves of a residual is eps of its parts
    return Case(run, there, [exact[None]])


def mixed_kinds(draw: Draw, level: float) -> Case:
    """One bent output beside linear ones, with noise."""
    m, n = draw.integer(1, 6), draw.integer(1, 20)
    f, x = smooth(draw, m, 1 + n)
    linear = tuple((replace(ts[0], shape="linear"),) for ts in f.terms[1:])
    f = replace(f, terms=(f.terms[0], *linear), products=(f.products[0], *[None] * n))
    if level == 0:
        return plain(f, x)
    return gaussian(draw, f, x, level)


def strengths(draw: Draw, level: float) -> Case:
    """Inputs of very different strength."""
    f, x = smooth(draw, draw.integer(2, 8))
    gain = np.array([draw.decade(1e-8, 1.0) for _ in x])

    def weaker(t: Term) -> Term:
        return replace(t, weight=t.weight * gain)

    f = replace(
        f,
        terms=tuple(tuple(weaker(t) for t in ts) for ts in f.terms),
        products=tuple(None if p is None else (weaker(p[0]), weaker(p[1])) for p in f.products),
    )
    return gaussian(draw, f, x, level) if level else plain(f, x)


def single_precision(draw: Draw, f: Smooth, x: np.ndarray, inputs: bool) -> Case:
    """Computed in float32, or given and returned in float32."""
    exact = f.jacobian(x)
    sigma = 2.0**-24 * np.abs(f.value(x)) + 2.0**-24 * np.abs(exact * x).sum(axis=1)
    if not inputs:
        return Case(
            lambda p: f.value(p.astype(np.float32).astype(float)).astype(np.float32).astype(float),
            x, [exact], best=noise_limit(f, x, sigma),
        )  # fmt: skip
    x32 = x.astype(np.float32)
    exact = f.jacobian(x32.astype(float))
    return Case(
        lambda p: f.value(p.astype(float)).astype(np.float32), x32, [exact],
        best=noise_limit(f, x32.astype(float), sigma),
    )  # fmt: skip


def outliers(draw: Draw, f: Smooth, x: np.ndarray, level: float, how: str) -> Case:
    case = gaussian(draw, f, x, level)
    rng = np.random.default_rng(draw.seed())
    first = [True]

    def run(p: np.ndarray) -> np.ndarray:
        y = case.fun(p)
        hit = rng.random() < 0.05 and not first[0]
        first[0] = False
        if not hit:
            return y
        return np.full(len(y), 1e3) if how == "garbage" else y * 1.5

    return replace(case, fun=run)


def drawn(draw: Draw, **kind: Any) -> tuple[Smooth, np.ndarray]:
    return smooth(draw, **kind)


def bends(draw: Draw, low: float, high: float, every: bool, shapes: Sequence[str]) -> Case:
    f, x = smooth(draw)
    inputs = range(len(x)) if every else [draw.integer(0, len(x) - 1)]
    width = draw.decade(low, high)
    return plain(narrow(draw, f, x, width, inputs, shapes), x)


def far(draw: Draw, every: bool) -> Case:
    """Inputs far from their origin, with features of 0.1 (in units of the caller's)."""
    f, x = smooth(draw)
    z = x / f.unit
    which = range(len(x)) if every else [draw.integer(0, len(x) - 1)]
    origin, unit = f.origin.copy(), f.unit.copy()
    for j in which:
        origin[j], unit[j] = draw.decade(1e3, 1e7) * draw.sign(), 0.1
    f = replace(f, origin=origin, unit=unit)
    x = origin + z * unit
    return plain(f, x)


def zeros(draw: Draw) -> Case:
    """Some inputs are 0, where the function has features of the size of the others."""
    f, x = smooth(draw, draw.integer(1, 6))
    unit = np.full(len(x), draw.decade(1e-3, 1e3))
    z = x / f.unit
    z[draw.integer(0, len(x) - 1)] = 0.0
    f = replace(f, unit=unit)
    return plain(f, z * unit)


def growth(draw: Draw) -> Case:
    """exp(w z) along one input."""
    f, x = smooth(draw)
    z, j = x / f.unit, draw.integer(0, len(x) - 1)
    weight = np.zeros(len(x))
    w = draw.decade(10, 2000) * draw.sign()
    weight[j] = w / abs(z[j])
    term = Term("exp", weight, draw.uniform(0.3, 2), -weight[j] * z[j] + draw.uniform(-1, 1))
    return plain(f.plus(term, range(len(f.terms))), x)


def with_failing(make: Callable[[Draw], Case]) -> Callable[[Draw], Case]:
    def made(draw: Draw) -> Case:
        case = make(draw)
        return failing(case, draw, draw.decade(1e-4, 1e-1))

    return made


def any_format(draw: Draw, low: int, high: int) -> Case:
    f, x = smooth(draw)
    return printed(draw, f, x, draw.choice(("g", "e", "f", "round")), draw.integer(low, high))


#: What is done to the functions: deterministic cells first.
CELLS: dict[str, Callable[[Draw], Case]] = {
    "smooth": lambda d: plain(*smooth(d)),
    "smooth, a hundred outputs": lambda d: plain(*smooth(d, n=100)),
    "smooth, one input": lambda d: plain(*smooth(d, m=1)),
    "outputs of different kind": lambda d: mixed_kinds(d, 0.0),
    "inputs of different strength": lambda d: strengths(d, 0.0),
    "one input bends at 1e-2 .. 1e-1": lambda d: bends(d, 1e-2, 1e-1, False, BOUNDED),
    "one input bends at 1e-3 .. 1e-2": lambda d: bends(d, 1e-3, 1e-2, False, BOUNDED),
    "one input bends at 1e-4 .. 1e-3": lambda d: bends(d, 1e-4, 1e-3, False, BOUNDED),
    "one input bends at 1e-6 .. 1e-4": lambda d: bends(d, 1e-6, 1e-4, False, BOUNDED),
    "one input grows at 1e-4 .. 1e-1": lambda d: bends(d, 1e-4, 1e-1, False, GROWING),
    "all inputs bend at 1e-4 .. 1e-1": lambda d: bends(d, 1e-4, 1e-1, True, BOUNDED),
    "exp(w x), w 10 .. 2000": growth,
    "far origin, one input": lambda d: far(d, False),
    "far origin, all inputs": lambda d: far(d, True),
    "inputs at 0": zeros,
    "differences of large terms": cancelling,
    "minimum, 1e-4 .. 1e-1 away": lambda d: minimum(d, d.decade(1e-4, 1e-1), False),
    "minimum, 1e-8 .. 1e-4 away": lambda d: minimum(d, d.decade(1e-8, 1e-4), False),
    "minimum and a constant": lambda d: minimum(d, d.decade(1e-4, 1e-1), True),
    "kink beside x": lambda d: kink(d, *smooth(d), d.decade(1e-6, 1e-1), False),
    "kink at x": lambda d: kink(d, *smooth(d), 0.0, False),
    "jump beside x": lambda d: kink(d, *smooth(d), d.decade(1e-6, 1e-1), True),
    "saturation beside x": lambda d: clipped(d, *smooth(d), d.decade(1e-4, 1e-1)),
    "failing side": with_failing(lambda d: plain(*smooth(d))),
    "failing side, bends": with_failing(lambda d: bends(d, 1e-4, 1e-1, False, BOUNDED)),
    "fails at random, 5 %": lambda d: failing_at_random(plain(*smooth(d)), d, 0.05),
    "fails at random, 30 %": lambda d: failing_at_random(plain(*smooth(d)), d, 0.3),
    "bound and pole, 1e-4 .. 1e-1 away": lambda d: at_pole(d, *smooth(d), d.decade(1e-4, 1e-1)),
    "on bounds": lambda d: on_bound(d, *smooth(d)),
    "wiggle 1e-6 .. 1e-2": lambda d: wiggle(d, *smooth(d), d.decade(1e-6, 1e-2)),
    "printed, 4 .. 7 digits": lambda d: any_format(d, 4, 7),
    "printed, 8 .. 12 digits": lambda d: any_format(d, 8, 12),
    "printed, 13 .. 15 digits": lambda d: any_format(d, 13, 15),
    "failing side, printed": with_failing(lambda d: any_format(d, 4, 10)),
    "multiples of 1e-9 .. 1e-5": lambda d: converted(d, *smooth(d), d.decade(1e-9, 1e-5)),
    "multiples of 1e-5 .. 1e-1": lambda d: converted(d, *smooth(d), d.decade(1e-5, 1e-1)),
    "rounded inputs": lambda d: rounded_inputs(d, *smooth(d), d.integer(3, 7)),
    "float32 inside": lambda d: single_precision(d, *smooth(d), False),
    "float32 x and y": lambda d: single_precision(d, *smooth(d), True),
    "noise 1e-10 .. 1e-7": lambda d: gaussian(d, *smooth(d), d.decade(1e-10, 1e-7)),
    "noise 1e-7 .. 1e-4": lambda d: gaussian(d, *smooth(d), d.decade(1e-7, 1e-4)),
    "noise 1e-4 .. 1e-2": lambda d: gaussian(d, *smooth(d), d.decade(1e-4, 1e-2)),
    "multiplicative noise": lambda d: gaussian(d, *smooth(d), d.decade(1e-7, 1e-2), True),
    "noise, outputs of different kind": lambda d: mixed_kinds(d, d.decade(1e-8, 1e-2)),
    "noise, different strength": lambda d: strengths(d, d.decade(1e-8, 1e-2)),
    "noise, failing side": with_failing(lambda d: gaussian(d, *smooth(d), d.decade(1e-7, 1e-3))),
    "noise, fails at random, 30 %": lambda d: failing_at_random(
        gaussian(d, *smooth(d), d.decade(1e-7, 1e-3)), d, 0.3
    ),
    "noise, 5 % outliers": lambda d: outliers(d, *smooth(d), d.decade(1e-6, 1e-3), "half"),
    "noise, 5 % garbage": lambda d: outliers(d, *smooth(d), d.decade(1e-6, 1e-3), "garbage"),
    "decimals in and out": decimals,
}
NOISE = tuple(name for name in CELLS if name.startswith(("noise", "multiplicative")))
