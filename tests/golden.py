"""A record of what the library asks and answers, bit for bit, to hold before and after a move.

    python -m tests.golden record FILE
    python -m tests.golden compare FILE [--only=word]

Every point asked for, coefficients, standard errors, status and number of evaluations of some
hundreds of calls: problems times kinds of noise and of trouble, and every door. Bits differ
between machines, BLAS kernels and versions of NumPy, so a record is made before a change and
compared after it, on one machine and one BLAS thread; it is no part of the tests.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402

import gradiator_np as gr  # noqa: E402
from gradiator_np import designs, solvers  # noqa: E402

Facts = dict[str, Any]
INF = np.inf


# -- problems ------------------------------------------------------------------------------------


def smooth(x):
    return np.stack([np.exp(x[0]) * x[1], x[1] ** 2 * x[2], np.sin(x[2]) + x[0] * x[2]])


def mixed(x):
    return np.stack(
        [np.cumsum(x**2)[-1] * np.exp(-x[0] / 3), x[1] * x[2] / x[3], np.log(x[4]) + 3 * x[0],
         1e-6 * np.cos(x).sum()]
    )  # fmt: skip


def banded(x):
    return np.concatenate([x[1:] ** 2 - 2 * x[:-1] * x[1:], np.tanh(x[::2]), [x[0]]])


def scalar(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2 + np.cosh(x[2] - x[3])


def single(x):
    return np.stack([np.sqrt(x[0]), np.exp(-x[0])])


def wide(x):
    return np.sin(np.outer(np.arange(1, 13) / 7, x)).sum(axis=1) * x.mean()


def near_zero(x):
    return np.stack([x[0] * np.expm1(x[1] / 0.03), x[0] + x[1] ** 2, x[2] * x[1]])


def inert(x):
    return np.stack([x[0] ** 2, np.exp(x[2]), x[0] / x[2]])


def steep(x):
    return np.stack([np.tanh((x[0] - 1) / 1e-3), x[0] + x[1], x[1] ** 2])


PROBLEMS: dict[str, tuple[Callable[..., Any], list[float]]] = {
    "smooth": (smooth, [1.0, 2.0, 0.7]),
    "mixed": (mixed, [0.8, -1.3, 2.0, 0.4, 3.0]),
    "banded": (banded, list(np.linspace(-1.5, 2.2, 8))),
    "scalar": (scalar, [-1.2, 1.0, 0.3, 0.25]),
    "single": (single, [1.7]),
    "wide": (wide, list(np.linspace(0.3, 1.9, 14))),
    "near_zero": (near_zero, [1e-9, 0.6, 1.4]),
    "zero": (smooth, [0.0, 2.0, 0.0]),
    "inert": (inert, [1.1, 5.0, 0.6]),
    "steep": (steep, [1.0, 2.0]),
}


# -- what is done to them ------------------------------------------------------------------------

Maker = Callable[[Callable[..., Any], np.ndarray], Callable[..., Any]]


def _noisy(level: float, relative: bool = False) -> Maker:
    def make(fun, x):
        rng = np.random.default_rng(1)
        size = np.sqrt(np.mean(np.square(fun(x))))

        def run(p):
            y = fun(p)
            e = level * rng.standard_normal(np.shape(y))
            return y * (1 + e) if relative else y + size * e

        return run

    return make


def _outliers(fun, x):
    rng, base = np.random.default_rng(2), _noisy(1e-4)(fun, x)
    return lambda p: base(p) * (3.0 if rng.random() < 0.05 else 1.0)


def _printed(digits: int) -> Maker:
    def make(fun, x):
        def run(p):
            y = np.asarray(fun(p))
            return np.array([float(f"{v:.{digits}g}") for v in y.ravel()]).reshape(y.shape)

        return run

    return make


def _failing(fun, x):
    def run(p):
        if p[0] > x[0] + 0.05 * abs(x[0]):
            raise RuntimeError("outside of the domain")
        return fun(p)

    return run


def _failing_at_random(fun, x):
    rng = np.random.default_rng(3)
    first = [True]

    def run(p):
        if not first[0] and rng.random() < 0.15:
            raise RuntimeError("by chance")
        first[0] = False
        return fun(p)

    return run


def _half_failing(fun, x):
    """One output is nan on one side."""

    def run(p):
        y = np.array(fun(p), float)
        if p[-1] < x[-1]:
            y.ravel()[0] = np.nan
        return y

    return run


CONDITIONS: dict[str, tuple[Maker, dict[str, Any]]] = {
    "exact": (lambda f, x: f, {}),
    "noise 1e-8": (_noisy(1e-8), {}),
    "noise 1e-4": (_noisy(1e-4), {}),
    "noise 1e-2": (_noisy(1e-2), {}),
    "relative noise": (_noisy(1e-3, True), {}),
    "known noise": (_noisy(1e-3), {"noise": 1e-3}),
    "outliers": (_outliers, {}),
    "rounded": (lambda f, x: lambda p: np.round(f(p), 4), {}),
    "printed": (_printed(6), {}),
    "gridded": (lambda f, x: lambda p: f(np.round(p, 2)), {}),
    "coarse inputs": (lambda f, x: lambda p: f(np.round(p, 1)), {}),
    "wiggle": (lambda f, x: lambda p: f(p) * (1 + 1e-3 * np.sin(3e3 * p.sum())), {}),
    "kink": (lambda f, x: lambda p: f(p) + 0.3 * np.abs(p[0] - x[0]), {}),
    "jump": (lambda f, x: lambda p: f(p) + 0.1 * (p[0] > x[0]), {}),
    "kink beside": (lambda f, x: lambda p: f(p) + np.maximum(p[0] - 1.06 * x[0], 0), {}),
    "failing side": (_failing, {}),
    "failing at random": (_failing_at_random, {}),
    "one output failing": (_half_failing, {}),
    "failing and printed": (lambda f, x: _failing(_printed(6)(f, x), x), {}),
    "dropped": (_failing_at_random, {"on_error": "drop"}),
    "complex": (lambda f, x: lambda p: f(p) * (1 + 0.5j * p[-1]), {}),
    "constant": (lambda f, x: lambda p: 0.0 * f(p) + 3.0, {}),
    "budget 4": (_noisy(1e-3), {"max_nfev": 4}),
    "budget 8": (lambda f, x: f, {"max_nfev": 8}),
    "budget 20": (_noisy(1e-3), {"max_nfev": 20}),
    "tolerance": (_noisy(1e-3), {"atol": 0.05, "max_nfev": 20}),
    "relative tolerance": (_noisy(1e-3), {"rtol": 0.01, "max_nfev": 30}),
}


def conditioned() -> Iterator[tuple[str, Callable[[], Facts]]]:
    """Every problem under every condition, by the default."""
    for problem, (fun, at) in PROBLEMS.items():
        x = np.array(at)
        for name, (make, options) in CONDITIONS.items():
            options = dict(options)
            for key in ("max_nfev",):
                if key in options:
                    options[key] = options[key] * x.size + 10
            yield f"{problem}, {name}", _jacobian(make, fun, x, options)
        for name, options in _limits(x).items():
            for kind in ("exact", "noise 1e-4"):
                make = CONDITIONS[kind][0]
                yield f"{problem}, {name}, {kind}", _jacobian(make, fun, x, options)


def _limits(x: np.ndarray) -> dict[str, dict[str, Any]]:
    size = np.where(x == 0, 1.0, np.abs(x))
    return {
        "bounded": {"bounds": (x - 0.03 * size, x + 2 * size)},
        "on a bound": {"bounds": (x, np.full(x.shape, INF))},
        "a fixed input": {"bounds": (x - np.eye(x.size)[0], np.where(np.eye(x.size)[0], INF, x))},
        "max_step": {"max_step": 0.05 * size},
        "max_step and tolerance": {"max_step": 0.05 * size, "atol": 0.01, "max_nfev": 200},
        "min_step": {"min_step": 0.01 * size},
        "x_scale": {"x_scale": 3.0},
    }


def _jacobian(make: Maker, fun: Any, x: np.ndarray, options: dict[str, Any]) -> Callable[[], Facts]:
    return lambda: facts(gr.jacobian(make(fun, x), x, **options))


# -- doors ---------------------------------------------------------------------------------------


def doors() -> Iterator[tuple[str, Callable[[], Facts]]]:
    """Every other way in."""
    for problem in ("smooth", "mixed", "zero", "scalar"):
        fun, at = PROBLEMS[problem]
        x = np.array(at)
        u, y = np.linspace(1, -2, x.size), np.asarray(fun(x))
        v = np.linspace(-1, 2, y.size).reshape(y.shape)
        for kind in ("exact", "noise 1e-4", "printed", "failing side"):
            make = CONDITIONS[kind][0]
            label = f"{problem}, {kind}"
            yield f"jvp, {label}", _product(gr.jvp, make, fun, x, u)
            yield f"vjp, {label}", _product(gr.vjp, make, fun, x, v)
            yield f"prepared, {label}", _prepared(make, fun, x)
            yield f"ask and tell, {label}", _ask_tell(make, fun, x)
            for solver in ("pinv", "huber", "spectral", "rank-one", "taylor"):
                options = {"solver": solver, "method": "3-point", "rel_step": 0.01}
                yield f"solver {solver}, {label}", _jacobian(make, fun, x, options)
            for method in ("2-point", "3-point", "5-point", "7-point", "9-point"):
                yield f"{method}, {label}", _jacobian(make, fun, x, {"method": method})
                options = {"method": method, "rel_step": 1e-2, "bounds": (x, INF)}
                yield f"{method}, {label}, bound", _jacobian(make, fun, x, options)
            for name, design in _designs(x).items():
                yield f"{name}, {label}", _jacobian(make, fun, x, {"method": design})
        yield f"cs, {problem}", _jacobian(lambda f, x: f, fun, x, {"method": "cs"})
        yield f"common seeds, {problem}", lambda f=fun, x=x: facts(
            gr.jacobian(
                lambda p, seed: f(p) + 0.1 * np.random.default_rng(seed).standard_normal(),
                x, seed_arg="seed", rng=3,
            )
        )  # fmt: skip
    yield "gradient", lambda: facts(gr.gradient(scalar, PROBLEMS["scalar"][1]))
    yield "float32", lambda: facts(gr.jacobian(smooth, np.float32([1.0, 2.0, 0.7])))
    yield from _batches()
    yield from _diagnose()
    yield from _compositions()


def _designs(x: np.ndarray) -> dict[str, Any]:
    size = np.where(x == 0, 1.0, np.abs(x))
    return {
        "Hadamard": designs.Hadamard(step=0.03 * size),
        "Hadamard twice": designs.Hadamard(step=0.03 * size, replicates=2),
        "Pairs": designs.Pairs(step=0.02 * size),
        "Simplex": designs.Simplex(step=0.02 * size),
        "Stencil": designs.Stencil("5-point", 1e-3 * size[None]),
    }


def _product(door: Any, make: Maker, fun: Any, x: np.ndarray, way: np.ndarray):
    def run() -> Facts:
        product = door(make(fun, x), x, way)
        return facts(product.estimate) | {"value": product.value, "bars": product.stderr}

    return run


def _prepared(make: Maker, fun: Any, x: np.ndarray):
    def run() -> Facts:
        prepared = gr.prepare(make(fun, x), x)
        out: Facts = {}
        for k, shift in enumerate((1.0, 1.02, 0.98)):
            out |= {f"{name} {k}": a for name, a in facts(prepared(x * shift)).items()}
        return out

    return run


def _ask_tell(make: Maker, fun: Any, x: np.ndarray):
    """Told one by one and in another order; estimates in between change nothing."""

    def loop(between: bool) -> Facts:
        rng, est, run = np.random.default_rng(5), gr.JacobianEstimator(x), make(fun, x)
        while True:
            points, ids = est.ask()
            if len(ids) == 0:
                return facts(est.estimate())
            values = []
            for p in points:
                try:
                    values.append(run(p))
                except RuntimeError:
                    values.append(None)
            for k in rng.permutation(len(ids)):
                est.tell([values[k]], ids=[ids[k]])
                if between:
                    est.estimate()

    def both() -> Facts:
        plain, disturbed = loop(False), loop(True)
        assert not differing(plain, disturbed), "estimate() between tells changed the outcome"
        return plain

    return both


def _batches() -> Iterator[tuple[str, Callable[[], Facts]]]:
    rng = np.random.default_rng(7)
    x = np.array([1.0, 2.0, 0.7]) * rng.uniform(0.5, 1.5, (6, 3))

    def each(p):
        return np.stack([smooth(row) for row in p])

    for kind in ("exact", "noise 1e-4", "rounded", "wiggle"):
        make = CONDITIONS[kind][0]
        yield f"batch, {kind}", _jacobian(make, each, x, {"batch_dims": 1})
        yield (
            f"batch jvp, {kind}",
            lambda make=make: facts(
                gr.jvp(make(each, x), x, np.ones(x.shape), batch_dims=1).estimate
            ),
        )
    yield (
        "batch, 3-point",
        _jacobian(lambda f, x: f, each, x, {"batch_dims": 1, "method": "3-point"}),
    )


def samples() -> Iterator[tuple[str, Callable[[], Facts]]]:
    """Fits and streams."""
    for noise in (0.0, 1e-3):
        for k in (2, 4, 20, 60):
            rng = np.random.default_rng(k)
            dx = 0.3 * rng.standard_normal((k, 4))
            jac = rng.standard_normal((3, 4))
            df = dx @ jac.T + noise * rng.standard_normal((k, 3)) + 0.05 * dx[:, :1] ** 2
            label = f"{k} rows, noise {noise}"
            for solver in ("pinv", "huber", "spectral", "rank-one", "taylor"):
                for base in ("own", "shared", "exact"):
                    yield (
                        f"fit {solver}, {base}, {label}",
                        lambda dx=dx, df=df, s=solver, b=base: facts(
                            gr.fit_jacobian(dx, df, solver=s, base=b)
                        ),
                    )
                yield (
                    f"points {solver}, {label}",
                    lambda dx=dx, df=df, s=solver: facts(
                        gr.fit_points(1 + dx, df, x=np.ones(4), solver=s)
                    ),
                )
            yield (
                f"vjp fit, {label}",
                lambda dx=dx, df=df: facts(gr.fit_vjp(dx, df, [1.0, -2.0, 0.5])),
            )
            yield (
                f"ridge, {label}",
                lambda dx=dx, df=df: facts(
                    gr.fit_jacobian(dx, df, solver=solvers.Pinv(ridge=1e-3))
                ),
            )
            known = np.full((3, 4), np.nan)
            known[0, 1], pattern = jac[0, 1], np.abs(jac) > 0.3
            for solver in ("pinv", "spectral"):
                yield (
                    f"structured {solver}, {label}",
                    lambda dx=dx, df=df, kn=known, s=solver: facts(
                        gr.fit_jacobian(dx, df, known=kn, solver=s)
                    ),
                )
                yield (
                    f"sparse {solver}, {label}",
                    lambda dx=dx, df=df, p=pattern, s=solver: facts(
                        gr.fit_jacobian(dx, df, sparsity=p, solver=s)
                    ),
                )
            for name, options in STREAMS.items():
                yield f"stream {name}, {label}", _stream(dx, df, options)
    hess = np.array([[2.0, 0.3], [0.3, 1.0]])
    dx = np.random.default_rng(0).standard_normal((9, 2))
    for solver in ("pinv", "spectral"):
        yield (
            f"symmetric {solver}",
            lambda s=solver: facts(
                gr.fit_jacobian(dx, dx @ hess + 0.1 * np.sin(7 * dx), symmetric=True, solver=s)
            ),
        )
    x = np.cumsum(0.05 * np.random.default_rng(1).standard_normal((80, 3)), axis=0) + np.array(
        [1, 2, 0.7]
    )
    f = np.array([smooth(p) for p in x])
    for name in ("plain", "forgets", "kaczmarz"):
        yield f"trail {name}", _stream(x, f, STREAMS[name], "trail")


STREAMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prior": {"prior_scale": 0.1, "jac0": 1.0},
    "forgets": {"forgetting": 0.9},
    "known noise": {"noise": 1e-3},
    "kaczmarz": {"mode": "kaczmarz"},
}


def _stream(a: np.ndarray, b: np.ndarray, options: dict[str, Any], how: str = "steps"):
    def run() -> Facts:
        given = dict(options)
        if "jac0" in given:
            given["jac0"] = np.full((b.shape[1], a.shape[1]), given["jac0"])
        stream = gr.StreamingJacobian(a.shape[1], b.shape[1], **given)
        first, second = ("x", "f") if how == "trail" else ("dx", "df")
        half = len(a) // 2
        for row, value in zip(a[:half], b[:half]):
            stream.partial_fit(**{first: row, second: value})
        stream.partial_fit(**{first: a[half:], second: b[half:]})
        out = facts(stream.estimate())
        return out | {"vjp": stream.vjp(np.ones(b.shape[1])), "jvp": stream.jvp(np.ones(len(a[0])))}

    return run


def fits() -> Iterator[tuple[str, Callable[[], Facts]]]:
    """Least squares."""
    t = np.linspace(0, 4, 30)

    def decay(p):
        return p[0] * np.exp(-p[1] * t) + p[2]

    def valley(p):
        return np.array([10 * (p[1] - p[0] ** 2), 1 - p[0]])

    data = decay(np.array([2.0, 0.7, 0.3]))
    cases: dict[str, tuple[Any, list[float], dict[str, Any]]] = {
        "decay": (lambda p: decay(p) - data, [1.0, 1.0, 1.0], {}),
        "valley": (valley, [-1.2, 1.0], {}),
        "bounded": (valley, [-1.2, 1.0], {"bounds": ([-2, -1], [0.8, 2])}),
        "widths": (lambda p: decay(p) - data, [1.0, 1.0, 1.0], {"x_half_width": 1e-3}),
        "known": (lambda p: decay(p) - data, [1.0, 1.0, 1.0], {"noise": 1e-2}),
        "inert": (lambda p: p[0] * np.exp(-p[1] * t) - data, [1.0, 1.0, 1.0], {}),
        "few runs": (valley, [-1.2, 1.0], {"max_nfev": 12}),
    }
    for name, (fun, x0, options) in cases.items():
        for level in (0.0, 1e-4, 1e-2):
            for seed in (0, 1):
                yield (
                    f"least squares, {name}, noise {level}, seed {seed}",
                    _fit(fun, x0, level, seed, options),
                )
    yield (
        "least squares, failing",
        _fit(lambda p: valley(p) if p[0] < 0.5 else [np.nan, np.nan], [-1.2, 1.0], 0.0, 0, {}),
    )
    yield "least squares, at once", _fit(valley, [-1.2, 1.0], 1e-3, 0, {"vectorized": True})
    yield "for SciPy", _for_scipy(valley)


def _fit(fun: Any, x0: list[float], level: float, seed: int, options: dict[str, Any]):
    def run() -> Facts:
        rng = np.random.default_rng(seed)

        def noisy(p):
            y = np.array([fun(row) for row in p]) if options.get("vectorized") else fun(p)
            return y + level * rng.standard_normal(np.shape(y))

        r = gr.least_squares(noisy, x0, **options)
        return {
            "points": r.samples.points, "x": r.x, "bars": r.run_stderr, "jac": r.jac,
            "cost": r.cost, "nfev": r.nfev, "success": r.success, "jac bars": r.jac_stderr,
        }  # fmt: skip

    return run


def _for_scipy(fun: Any):
    def run() -> Facts:
        from scipy.optimize import least_squares

        rng = np.random.default_rng(0)
        made = gr.ScipyObjective(lambda p: fun(p) + 1e-5 * rng.standard_normal(2), [-1.2, 1.0])
        r = least_squares(made.fun, [-1.2, 1.0], jac=made.jac)
        return {"x": r.x, "points": made.samples.points}

    return run


def _diagnose() -> Iterator[tuple[str, Callable[[], Facts]]]:
    for kind in ("exact", "noise 1e-4", "printed"):
        for problem in ("smooth", "mixed"):
            fun, at = PROBLEMS[problem]
            x, make = np.array(at), CONDITIONS[kind][0]
            jac = gr.jacobian(fun, x, method="cs").jac

            def noise(make=make, fun=fun, x=x) -> Facts:
                found = gr.estimate_noise(make(fun, x), x, rng=0)
                return {"noise": found.noise, "nfev": found.nfev}

            def step(make=make, fun=fun, x=x) -> Facts:
                found = gr.optimal_step(make(fun, x), x, rng=0)
                return {"step": found.step, "nfev": found.nfev}

            def check(make=make, fun=fun, x=x, jac=jac) -> Facts:
                out: Facts = {}
                for factor in (1.0, 1.01, -1.0):
                    found = gr.check_jacobian(make(fun, x), factor * jac, x)
                    out[f"ok {factor}"], out[f"p {factor}"] = found.ok, found.p_values
                return out

            yield f"noise, {problem}, {kind}", noise
            yield f"step, {problem}, {kind}", step
            yield f"check, {problem}, {kind}", check


def _compositions() -> Iterator[tuple[str, Callable[[], Facts]]]:
    def first(x):
        return np.stack([x[0] * x[1], np.sin(x[1]) + x[2]])

    def second(y):
        return np.stack([y[0] ** 2, y[0] * y[1], np.exp(-y[1])])

    x = np.array([1.0, 2.0, 0.7])

    def chain() -> Facts:
        costs = [gr.StageCosts(1e-3, 1e-2)] * 2  # measured ones would vary, and the order with them
        c = gr.Chain(first, second, costs=costs)
        return {"jac": c.jacobian(x), "vjp": c.vjp(x, np.ones(3)), "jvp": c.jvp(x, np.ones(3))}

    def recurrence() -> Facts:
        r = gr.Recurrence(lambda s, k, i: s + 0.1 * np.stack([s[1], -k[0] * np.sin(s[0])]), 20)
        by_state, by_parameter = r.vjp(np.array([0.5, 0.1]), np.ones(1), np.ones(2))
        return {"state": by_state, "parameter": by_parameter, "nfev": r.nfev}

    def reused() -> Facts:
        f = gr.gradiator(smooth, reuse=gr.Reuse())
        out = [np.asarray(f.vjp(x * (1 + 0.01 * k), np.ones(3))) for k in range(4)]
        return {"vjp": np.array(out), "nfev": f.nfev}

    yield "chain", chain
    yield "recurrence", recurrence
    yield "gradiator, reuse", reused


# -- record and compare --------------------------------------------------------------------------


def facts(estimate: Any) -> Facts:
    """What must not change."""
    s = estimate.solution
    samples = estimate.samples
    return {
        "points": None if samples is None else samples.points,
        "coef": s.coef, "stderr": np.array(s.cov.stderr()), "noise": s.cov.scale, "dof": s.dof,
        "status": str(s.status), "nfev": estimate.nfev, "failed": estimate.n_failed,
        "n": estimate.n_samples, "step": estimate.step,
    }  # fmt: skip


def differing(a: Facts, b: Facts) -> list[str]:
    """Names of the facts that are not the same bit for bit."""
    return [name for name in sorted({*a, *b}) if _bits(a.get(name)) != _bits(b.get(name))]


def _bits(value: Any) -> Any:
    if value is None:
        return None
    a = np.asarray(value)
    if a.dtype.kind in "fc":
        a = np.where(np.isnan(a), np.nan, a) + 0.0  # one nan, one zero
    return a.shape, a.tobytes() if a.dtype.kind != "U" else str(value)


def cases() -> Iterator[tuple[str, Callable[[], Facts]]]:
    for part in (conditioned, doors, samples, fits):
        yield from part()


def collect(only: str) -> dict[str, Facts]:
    out: dict[str, Facts] = {}
    for name, run in cases():
        if only in name:
            try:
                found = run()
            except Exception as exc:  # an error is an outcome, too
                found = {"error": type(exc).__name__}
            assert name not in out, name
            out[name] = found
    return out


def main() -> int:
    warnings.simplefilter("ignore")
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m tests.golden", None, __doc__, formatter_class=text)
    parser.add_argument("verb", choices=("record", "compare"))
    parser.add_argument("path", metavar="FILE")
    parser.add_argument("--only", metavar="word", default="", help="cases with this in their name")
    given = parser.parse_args()
    verb, path, only = given.verb, given.path, given.only
    found = collect(only)
    errors = sorted({f"{facts['error']}: {name}" for name, facts in found.items()
                     if "error" in facts})  # fmt: skip
    if verb == "record":
        flat = {
            f"{name}|{fact}": np.asarray(a)
            for name, facts in found.items()
            for fact, a in facts.items()
            if a is not None
        }
        np.savez_compressed(path, **flat)
        print(f"{len(found)} cases, {len(flat)} facts, {len(errors)} errors", *errors, sep="\n  ")
        return 0
    kept: dict[str, Facts] = {}
    with np.load(path) as file:
        for key in file.files:
            name, _, fact = key.partition("|")
            if only in name:
                kept.setdefault(name, {})[fact] = file[key]
    bad = 0
    for name in sorted({*kept, *found}):
        if name not in kept or name not in found:
            # a case in which nothing was recorded has no facts
            if found.get(name) or kept.get(name):
                print(f"{name}: {'new' if name in found else 'gone'}")
                bad += 1
            continue
        names = differing(kept[name], {k: v for k, v in found[name].items() if v is not None})
        if names:
            bad += 1
            print(f"{name}: {', '.join(names)} {found[name].get('error', '')}")
    print(f"{len(found)} cases, {bad} differ")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
