"""Do intervals of fitted parameters hold the truth that the data were made with?

    python -m benchmarks.lsq_coverage [--quick] [--fits=50] [--sets=40] [--seed=0] [--only=word]

Fits of random models (families below, random parameters, times and numbers of data) to data sets
with Gaussian errors: the share of parameters whose 95 % interval holds the truth, ours and that of
curve_fit with exact runs, runs a fit, the median share of the noise of the runs in a bar, and fits
without success. Sigma known; sigma found from the residuals;
sigma wrong by 2 with HC3; errors that differ between data tenfold with HC3; runs that are noisy at
1e-4 of the data; 5 % of the data off by 20 sigma with a robust loss. Then forecasts at three
times, of the model and of new observations, whose runs have the noise of those of the fit; with the
median of their standard errors over those of exact slopes. Then profile intervals beside Gaussian
ones where the model is strongly bent. Last, in closed form, two parameters of a linear model next
to a limit that holds them: intervals by the law within the limit, with the limit as an equality,
and without it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import curve_fit
from scipy.optimize._numdiff import approx_derivative
from scipy.special import stdtrit

from benchmarks._common import quick, table, write
from gradiator_np import least_squares
from gradiator_np._calibration.held import slack_square

FAMILIES: dict[str, tuple[Callable[..., Any], list[tuple[float, float]], float]] = {
    "decay": (lambda t, a, b: a * np.exp(-b * t), [(1, 5), (0.3, 2)], 3.0),
    "decay and offset": (
        lambda t, a, b, c: a * np.exp(-b * t) + c, [(1, 5), (0.5, 2), (0.2, 1)], 5.0),
    "saturation": (lambda t, a, b: a * t / (b + t), [(1, 5), (0.5, 2)], 6.0),
    "logistic": (
        lambda t, a, b, c: a / (1 + np.exp(-b * (t - c))), [(1, 5), (1, 3), (1.5, 3)], 5.0),
    "peak": (
        lambda t, a, b, c: a * np.exp(-0.5 * np.square((t - b) / c)),
        [(1, 5), (1.5, 3), (0.5, 1)], 5.0),
    "oscillation": (
        lambda t, a, b, c: a * np.exp(-b * t) * np.cos(c * t), [(1, 5), (0.1, 0.4), (1, 2)], 8.0),
    "power": (lambda t, a, b: a * (t + 0.1) ** b, [(1, 5), (0.3, 1.5)], 5.0),
    "rational": (
        lambda t, a, b, c: (a + b * t) / (1 + c * t), [(1, 3), (2, 6), (0.3, 1)], 5.0),
}  # fmt: skip
#: Strongly bent: few data, a first parameter whose Gaussian interval holds less than 0.9.
BENT: dict[str, tuple[Callable[..., Any], np.ndarray, np.ndarray, float]] = {
    "a t^b": (lambda t, a, b: a * t**b, np.array([0.2, 1.6]), np.geomspace(0.1, 4, 7), 0.4),
    "a exp(b t)": (
        lambda t, a, b: a * np.exp(b * t), np.array([0.2, 1.0]), np.linspace(0, 3, 6), 1.0),
    "a (1 - exp(-b t))": (
        lambda t, a, b: a * (1 - np.exp(-b * t)), np.array([2.0, 0.35]), np.linspace(0.3, 4, 8),
        0.2),
    "a t / (b + t)": (
        lambda t, a, b: a * t / (b + t), np.array([3.0, 2.5]), np.linspace(0.3, 3, 8), 0.3),
    "a exp(-b / t)": (
        lambda t, a, b: a * np.exp(-b / t), np.array([2.0, 2.0]), np.linspace(0.5, 2, 7), 0.2),
}  # fmt: skip


class Problem(NamedTuple):
    model: Callable[..., Any]
    t: np.ndarray
    truth: np.ndarray
    start: np.ndarray
    sigma: float


def drawn(rng: np.random.Generator) -> Problem:
    """A random problem, its parameters known to some percent."""
    model, ranges, end = list(FAMILIES.values())[rng.integers(len(FAMILIES))]
    truth = np.array([rng.uniform(*r) for r in ranges])
    t = np.sort(rng.uniform(0, end, rng.integers(20, 61)))
    sigma = float(np.ptp(model(t, *truth))) * 10 ** rng.uniform(-2.5, -1.3)
    return Problem(model, t, truth, truth * rng.uniform(0.75, 1.3, truth.size), sigma)


class Row(NamedTuple):
    options: dict[str, Any]  # "sigma" as a multiple of the true one
    kind: str = "gauss-newton"
    errors: str = "alike"
    run_noise: float = 0.0


ROWS = {
    "sigma known": Row({"sigma": 1.0, "absolute_sigma": True}),
    "sigma unknown": Row({}),
    "sigma wrong by 2, HC3": Row({"sigma": 0.5, "absolute_sigma": True}, "HC3"),
    "errors differ tenfold, HC3": Row({}, "HC3", "differ"),
    "runs noisy at 1e-4": Row({"sigma": 1.0, "absolute_sigma": True}, run_noise=1e-4),
    "runs noisy at sigma / 2": Row({"sigma": 1.0, "absolute_sigma": True}, run_noise=np.nan),
    "5 % of the data off, soft_l1": Row(
        {"sigma": 1.0, "loss": "soft_l1", "f_scale": 1.5}, errors="outliers"),
}  # fmt: skip


def data_of(p: Problem, row: Row, rng: np.random.Generator) -> np.ndarray:
    e = rng.standard_normal(p.t.size)
    if row.errors == "differ":
        e *= 10 ** rng.uniform(-0.5, 0.5, e.size)
    elif row.errors == "outliers":
        e[rng.random(e.size) < 0.05] += 20
    return p.model(p.t, *p.truth) + p.sigma * e


def fitted(p: Problem, row: Row, y: np.ndarray, rng: np.random.Generator) -> Any:
    noise = row.run_noise * np.ptp(p.model(p.t, *p.truth))
    if np.isnan(noise):
        noise = 0.5 * p.sigma

    def residuals(x: np.ndarray) -> np.ndarray:
        return p.model(p.t, *x) + noise * rng.standard_normal(p.t.size) - y

    options = dict(row.options)
    if "sigma" in options:
        options["sigma"] *= p.sigma
    return least_squares(residuals, p.start, **options)


def peer(p: Problem, row: Row, y: np.ndarray) -> np.ndarray:
    """curve_fit's interval of exact runs, Student's t where sigma is found."""
    sigma = row.options.get("sigma")
    best, cov = curve_fit(
        p.model, p.t, y, p.start, maxfev=5000,
        sigma=None if sigma is None else np.full(y.shape, sigma * p.sigma),
        absolute_sigma=sigma is not None,
    )  # fmt: skip
    z = 1.959964 if sigma is not None else stdtrit(y.size - best.size, 0.975)
    return np.abs(best - p.truth) <= z * np.sqrt(np.diag(cov))


def coverage(row: Row, fits: int, sets: int, seed: int) -> list[Any]:
    held, theirs, runs, width, failed = [], [], [], [], 0
    for k in range(fits):
        rng = np.random.default_rng([seed, k])
        p = drawn(rng)
        for _ in range(sets):
            y = data_of(p, row, rng)
            r = fitted(p, row, y, rng)
            low, high = r.confidence_interval(0.95, row.kind)
            held += ((low <= p.truth) & (p.truth <= high)).tolist()
            failed += not r.success
            runs.append(r.nfev)
            width += (r.run_stderr / r.stderr).tolist()
            try:
                theirs += peer(p, row, y).tolist()
            except RuntimeError:
                theirs += [False] * p.truth.size
    return [np.mean(held), np.mean(theirs), np.mean(runs), np.nanmedian(width), int(failed)]


#: Forecasts: errors of the data known or found, and the noise of a run as a share of them.
FORECASTS = {
    "forecasts, sigma known": (True, 0.0),
    "forecasts, sigma unknown": (False, 0.0),
    "forecasts, runs noisy at sigma / 20": (False, 0.05),
    "forecasts, runs noisy at sigma / 5": (False, 0.2),
}


def noisy(
    model: Callable[[np.ndarray], np.ndarray], noise: float, rng: np.random.Generator
) -> Callable[[np.ndarray], np.ndarray]:
    def run(x: np.ndarray) -> np.ndarray:
        value = model(x)
        return value + noise * rng.standard_normal(value.shape)

    return run


def forecasts(known: bool, share: float, fits: int, sets: int, seed: int) -> list[Any]:
    """Bands of the model at a tenth, the middle and 1.3 times the end of its times."""
    held, new, runs, wide = [], [], [], []
    for k in range(fits):
        rng = np.random.default_rng([seed, k])
        p = drawn(rng)
        at, noise = np.array([0.1, 0.5, 1.3]) * p.t[-1], share * p.sigma
        options = {"sigma": p.sigma, "absolute_sigma": True} if known else {}
        sigma = p.sigma if known else "residuals"
        later = partial(on_vector, p.model, at)
        exact = later(p.truth)
        for _ in range(sets):
            misfit = partial(on_vector, p.model, p.t, less=data_of(p, Row({}), rng))
            r = least_squares(noisy(misfit, noise, rng), p.start, **options)
            found = r.predict(noisy(later, noise, rng), sigma=sigma)
            low, high = found.confidence_interval()
            held += ((low <= exact) & (exact <= high)).tolist()
            low, high = found.prediction_interval()
            value = exact + p.sigma * rng.standard_normal(at.size)
            new += ((low <= value) & (value <= high)).tolist()
            runs.append(found.nfev)
            jac = approx_derivative(later, r.x, method="3-point")
            bar = np.sqrt(np.einsum("ij,jk,ik->i", jac, r.cov, jac) + noise**2)
            wide += (found.stderr / bar).tolist()
    endless = int(np.isinf(wide).sum())
    return [np.mean(held), np.mean(new), np.mean(runs), *np.quantile(wide, [0.5, 0.9]), endless]


def on_vector(
    model: Callable[..., Any], t: np.ndarray, x: np.ndarray, less: Any = 0.0
) -> np.ndarray:
    return np.asarray(model(t, *x) - less)


def profiles(name: str, sets: int, seed: int) -> list[Any]:
    """Of the first parameter."""
    model, truth, t, sigma = BENT[name]
    rng = np.random.default_rng([seed, list(BENT).index(name)])
    gauss, profile, runs, unknown = [], [], [], 0
    for _ in range(sets):
        y = model(t, *truth) + sigma * rng.standard_normal(t.size)

        def residuals(x: np.ndarray, y: np.ndarray = y) -> np.ndarray:
            return model(t, *x) - y

        r = least_squares(residuals, truth, sigma=sigma, absolute_sigma=True)
        low, high = r.confidence_interval(0.95)
        gauss.append(low[0] <= truth[0] <= high[0])
        if r.undetermined[0]:
            unknown += 1
            continue
        p = r.profile(0)
        unknown += np.isnan(p.low) or np.isnan(p.high)
        profile.append(not (truth[0] < p.low or truth[0] > p.high))
        runs.append(p.nfev)
    return [np.mean(gauss), np.mean(profile), np.mean(runs), int(unknown)]


def next_to_a_limit(inside: float, sets: int, seed: int) -> list[Any]:
    """Least and largest share of 95 % intervals that hold, and the widest over the narrowest bars.

    Over correlations of 0, 0.7 and 0.95 and limits of one parameter, of the sum and the difference;
    the truth so many standard errors of the limit inside. Bars: medians where the limit holds.
    """
    rng = np.random.default_rng([seed, int(10 * inside)])
    held: dict[str, list[float]] = {}
    bars: dict[str, list[float]] = {}
    for rho in (0.0, 0.7, 0.95):
        cov = np.array([[1.0, rho], [rho, 1.0]])
        for row in np.array([[1.0, 0.0], [1.0, 1.0], [1.0, -1.0]]):
            along = cov @ row / np.sqrt(row @ cov @ row)
            error = rng.standard_normal((sets, 2)) @ np.linalg.cholesky(cov).T
            z = error @ row / np.sqrt(row @ cov @ row) - inside
            x = error - np.maximum(z, 0.0)[:, None] * along  # less the truth
            for name, kept in (
                ("within", slack_square(np.maximum(z, 0.0))), ("equality", 0.0 * z),
                ("without", 0.0 * z + 1.0),
            ):  # fmt: skip
                kept = np.where(z > 0, kept, 1.0)
                sd = np.sqrt(np.diag(cov) - (1.0 - kept)[:, None] * along**2)
                held.setdefault(name, []).extend((np.abs(x) <= 1.959964 * sd).mean(0))
                bars.setdefault(name, []).extend(np.median(sd[z > 0], axis=0))
    too_wide = np.array(bars["without"]) / np.maximum(np.array(bars["equality"]), 1e-9)
    some = [f"{min(v):.3f} to {max(v):.3f}" for v in held.values()]
    return [inside, *some, float(too_wide[too_wide < 1e6].max())]


def main() -> None:
    given = dict(a[2:].split("=", 1) for a in sys.argv[1:] if "=" in a)
    fits = int(given.get("fits", 2 if quick() else 50))
    sets = int(given.get("sets", 3 if quick() else 40))
    seed, only = int(given.get("seed", 0)), given.get("only", "")
    warnings.simplefilter("ignore")
    results: dict[str, Any] = {}
    rows = []
    for name, row in ROWS.items():
        if only in name:
            rows.append([name, *coverage(row, fits, sets, seed)])
            print(*rows[-1], flush=True, file=sys.stderr)
    results["coverage"] = rows
    print(table(["95 % intervals", "held", "curve_fit", "runs a fit", "runs' share", "no success"],
                rows))  # fmt: skip
    bands = []
    for name, (known, share) in FORECASTS.items():
        if only in name:
            bands.append([name, *forecasts(known, share, fits, sets, seed)])
            print(*bands[-1], flush=True, file=sys.stderr)
    results["forecasts"] = bands
    print(table(["95 % bands", "held", "new values", "runs a forecast", "bar / exact slopes",
                 "its 90 % quantile", "endless"], bands))  # fmt: skip
    bent = []
    for name in BENT:
        if only in name:
            bent.append([name, *profiles(name, max(3, fits * sets // 5), seed)])
            print(*bent[-1], flush=True, file=sys.stderr)
    results["profiles"] = bent
    print(table(["strongly bent", "by J'J", "profile", "runs a profile", "no end"], bent))
    if only in "next to a limit":
        count = 2000 if quick() else 200_000
        limits = [next_to_a_limit(inside, count, seed) for inside in (0.0, 0.5, 1.0, 2.0)]
        results["next to a limit"] = limits
        print(table(["sd inside of a limit", "law within it", "as an equality", "without it",
                     "without it, too wide by"], limits))  # fmt: skip
    print(write("lsq_coverage", results))


if __name__ == "__main__":
    main()
