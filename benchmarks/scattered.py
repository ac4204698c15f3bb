"""Jacobians from scattered samples: the Taylor model beside what else there is.

python -m benchmarks.scattered [--quick]
"""

from __future__ import annotations

import itertools
import time
import warnings
from dataclasses import replace

import numpy as np

from benchmarks import lsq_problems, scattered_problems
from benchmarks._common import quick, table, write
from gradiator_np.solvers._taylor.solver import Taylor

MULTIPLES = (1.5, 3, 6, 12)
REACHES = (0.03, 0.3)
NOISES = (0.0, 1e-4)

#: Smooth within 30 % of a point near the solution, and of more than one input that matters.
NAMES = (
    "exp2", "hill", "gompertz", "logistic", "damped", "reversible", "lotka", "van_der_pol", "sir",
    "monod", "beam", "rational", "bateman", "layers", "thermal", "helical_valley", "bard",
    "kowalik_osborne", "brown_dennis", "biggs_exp6", "broyden_tridiagonal", "trigonometric",
)  # fmt: skip


def least_squares(dx, values):
    """Plane through the samples."""
    x = np.hstack([np.ones((len(dx), 1)), dx])
    return np.linalg.lstsq(x, values, rcond=None)[0][1:].T


def least_norm_quadratic(dx, values):
    """Quadratic that interpolates with the Hessian of least Frobenius norm; fitted where many."""
    k, m = dx.shape
    x = np.hstack([np.ones((k, 1)), dx])
    pairs = np.triu_indices(m)
    square = dx[:, pairs[0]] * dx[:, pairs[1]]
    if k >= 1 + m + square.shape[1]:
        return np.linalg.lstsq(np.hstack([x, square]), values, rcond=None)[0][1 : m + 1].T
    top = np.hstack([0.5 * (dx @ dx.T) ** 2, x])
    low = np.hstack([x.T, np.zeros((m + 1, m + 1))])
    right = np.vstack([values, np.zeros((m + 1, values.shape[1]))])
    return np.linalg.lstsq(np.vstack([top, low]), right, rcond=1e-14)[0][k + 1 :].T


def kriging(dx, values):
    """Derivative of SMT's kriging mean, a length for each input, output by output."""
    from smt.surrogate_models import KRG

    jac = np.empty((values.shape[1], dx.shape[1]))
    at = np.zeros((1, dx.shape[1]))
    for i, y in enumerate(values.T):
        model = KRG(print_global=False, poly="linear", corr="squar_exp", n_start=3,
                    eval_noise=True, hyper_opt="Cobyla")  # fmt: skip
        model.set_training_values(dx, y[:, None])
        model.train()
        jac[i] = [model.predict_derivatives(at, j)[0, 0] for j in range(dx.shape[1])]
    return jac


def reference(fun, x):
    """Eighth-order central differences: exact to about 1e-11 here."""
    h = 2e-3 * np.where(x == 0, 1.0, np.abs(x))
    weights = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
    columns = []
    for j, e in enumerate(np.eye(len(x))):
        pairs = [w * (fun(x + (q + 1) * h[j] * e) - fun(x - (q + 1) * h[j] * e))
                 for q, w in enumerate(weights)]  # fmt: skip
        columns.append(sum(pairs) / h[j])
    return np.array(columns).T


def few_outputs(problem, most=2):
    """The problem with ``most`` of its outputs: kriging takes a second for each."""
    fun = problem.fun
    some = np.unique(np.linspace(0, fun(problem.x0).size - 1, most).astype(int))
    return replace(problem, fun=lambda x: fun(x)[some])


def cell(chosen, reach, noise, multiple, seeds, peers):
    """Errors of every method, coverage and width of the model, over problems and seeds."""
    rows = {name: [] for name in ("taylor", *peers)}
    held, width, seconds = [], [], []
    for problem in chosen:
        x = np.where(problem.x0 == 0, 0.5, problem.x0)
        m, jac = len(x), reference(problem.fun, x)
        scale = np.abs(x)
        for seed in range(seeds):
            # A cloud for each problem: with one for all, the directions of its samples decide.
            rng = np.random.default_rng([seed, int(10 * multiple), *problem.name.encode()])
            k = max(int(np.ceil(multiple * m)), m + 2)
            dx = rng.uniform(-reach, reach, (k, m))
            values = np.array([problem.fun(x + scale * d) for d in dx])
            if not np.isfinite(values).all():
                continue
            rms = np.sqrt(np.mean(problem.fun(x) ** 2))
            values = values + noise * rms * rng.normal(size=values.shape)
            truth = jac * scale
            size = np.linalg.norm(truth)
            start = time.perf_counter()
            s = Taylor().solve(dx, values, intercept=True)
            seconds.append(time.perf_counter() - start)
            error = s.coef - truth
            rows["taylor"].append(np.linalg.norm(error) / size)
            half = s.interval(0.95)
            some = np.abs(truth) > 1e-9 * np.abs(truth).max()
            held.append(np.mean(np.abs(error[some]) <= half[some]))
            width.append(np.median(half[some] / 1.96) / np.sqrt(np.mean(error[some] ** 2)))
            for name, peer in peers.items():
                rows[name].append(np.linalg.norm(peer(dx, values) - truth) / size)
    out = {name: float(np.median(v)) for name, v in rows.items()}
    return out | {"held": float(np.mean(held)), "width": float(np.median(width)),
                  "ms": 1e3 * float(np.median(seconds))}  # fmt: skip


#: Samples, and functions that turn within them: inputs, reach, waves in radians an input.
WIDE = ((2, 2.0, 60), (3, 2.0, 90), (6, 0.6, 400), (6, 1.0, 400))
TURNING = {
    "sines": (np.sin, np.cos),
    "saturating": (np.tanh, lambda t: 1 / np.cosh(t) ** 2),
    "bells": (lambda t: np.exp(-t * t), lambda t: -2 * t * np.exp(-t * t)),
}


def wide(seeds):
    """Clouds within which f turns: errors of slopes at the middle, what intervals hold, how often
    the status is ok, and what they hold then."""
    rows = []
    for (name, (fun, slope)), (m, reach, k) in itertools.product(TURNING.items(), WIDE):
        held, ours, plane, ok = [], [], [], []
        for seed in range(seeds):
            rng = np.random.default_rng([seed, m, k])
            w, b = 1.5 * rng.normal(size=(4, m)), rng.uniform(-1, 1, 4)
            dx = rng.uniform(-reach, reach, (k, m))
            values, jac = fun(dx @ w.T + b), slope(b)[:, None] * w
            s = Taylor().solve(dx, values, intercept=True)
            held.append(np.mean(np.abs(s.coef - jac) <= s.interval(0.95)))
            ok.append(not s.status.doubtful)
            size = np.linalg.norm(jac)
            ours.append(np.linalg.norm(s.coef - jac) / size)
            plane.append(np.linalg.norm(least_squares(dx, values) - jac) / size)
        held_ok = float(np.mean(np.array(held)[ok])) if any(ok) else None
        rows.append(
            [
                name,
                m,
                reach,
                k,
                np.median(ours),
                np.median(plane),
                np.mean(held),
                np.mean(ok),
                held_ok,
            ]
        )
    return rows


def speed():
    """Milliseconds at the two sizes that matter, samples with noise."""
    out = {}
    for m, n, k in ((10, 20, 60), (50, 50, 600)):
        rng = np.random.default_rng(0)
        w, v = rng.normal(size=(m, m)) / np.sqrt(m), rng.normal(size=(m, n))
        dx = rng.uniform(-0.3, 0.3, (k, m))
        values = np.tanh(dx @ w + 0.3) @ v + 1e-4 * rng.normal(size=(k, n))
        times = []
        for _ in range(6):
            start = time.perf_counter()
            Taylor().solve(dx, values, intercept=True)
            times.append(time.perf_counter() - start)
        out[f"m={m}, n={n}, k={k}"] = 1e3 * float(np.median(times[1:]))
    return out


def main():
    warnings.simplefilter("ignore")
    own = [p for p in lsq_problems.problems() if p.name in NAMES]
    seeds, multiples = 4, MULTIPLES
    sets = {"fits": own, "others": scattered_problems.problems()}
    if quick():
        sets = {name: chosen[:4] for name, chosen in sets.items()}
        seeds, multiples = 1, (3, 6)
    results = []
    for name, chosen in sets.items():
        few = [few_outputs(p) for p in chosen if p.x0.size <= 5]
        rows, beside = [], []
        for reach, noise, multiple in itertools.product(REACHES, NOISES, multiples):
            at = [reach, noise, multiple]
            peers = {"plane": least_squares, "quadratic": least_norm_quadratic}
            found = cell(chosen, *at[:2], multiple, seeds, peers)
            rows.append(at + _against(found, peers))
            small = {}
            if not quick() and _has_smt():
                peers["kriging"] = kriging
                small = cell(few, *at[:2], multiple, 1, peers)
                beside.append(at + _against(small, peers))
            results.append({"set": name, "reach": reach, "noise": noise, "k/m": multiple, **found,
                            "few": small})  # fmt: skip
        _show(f"{name}: {len(chosen)} problems, {seeds} clouds each", ["plane", "quadratic"], rows)
        if beside:
            title = f"{name}: two outputs of {len(few)} problems of up to 5 inputs, one cloud each"
            _show(title, ["plane", "quadratic", "kriging"], beside)
    turning = wide(2 if quick() else 20)
    print("\nfunctions that turn within the samples\n")
    print(
        table(
            ["function", "m", "reach", "k", "taylor", "plane", "held", "ok", "held if ok"], turning
        ),
        flush=True,
    )
    times = speed()
    print("\n" + "\n".join(f"{name}: {ms:.1f} ms" for name, ms in times.items()))
    print(write("scattered", {"cells": results, "wide": turning, "ms": times}))


def _against(found, peers):
    """Median relative errors, the model's beside the best, its coverage and width."""
    errors = [found[name] for name in peers]
    return [found["taylor"], *errors, found["taylor"] / min(errors), found["held"], found["width"]]


def _show(title, peers, rows):
    print(f"\n{title}; median relative error\n")
    print(table(["reach", "noise", "k/m", "taylor", *peers, "taylor/best", "held", "width/error"],
                rows), flush=True)  # fmt: skip


def _has_smt():
    try:
        import smt  # noqa: F401
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    main()
