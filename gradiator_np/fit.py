"""Jacobians from samples that were taken elsewhere."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np import checks
from gradiator_np.covariance import Covariance
from gradiator_np.given import Given, NanPolicy, given, matrix, structure
from gradiator_np.results import FittedRows, JacobianEstimate
from gradiator_np.samples import Samples
from gradiator_np.solvers.registry import find_solver
from gradiator_np.solvers.solution import Constraints, Solution, Solver
from gradiator_np.status import warn
from gradiator_np.structure import Layout

Array = NDArray[np.float64]
Base = Literal["own", "shared", "exact"]


def fit_jacobian(
    dx: Any,
    df: Any,
    *,
    base: Base = "own",
    weights: ArrayLike | None = None,
    solver: str | Solver = "pinv",
    jac0: ArrayLike | None = None,
    sparsity: Any = None,
    known: ArrayLike | None = None,
    symmetric: bool = False,
    noise: ArrayLike | None = None,
    x: Any = None,
    y: Any = None,
    nan_policy: NanPolicy = "omit",
) -> JacobianEstimate:
    """Fit a Jacobian to displacement samples.

    Parameters
    ----------
    dx : array_like, shape (k, m) or batch + (k, m)
        Input displacements ``x_k - x``, in units of x, one sample a row. With ``x`` given, shape
        (k,) + x.shape; a dict of such arrays where inputs have names.
    df : array_like, shape (k, n) or batch + (k, n)
        Output displacements ``f(x_k) - f(x)``, in units of y; shape (k,) for a scalar function.
        nan or inf where an output failed.
    base : {"own", "shared", "exact"}
        What the differences share. "own": every row is a difference of two evaluations of its
        own. "shared": all rows were taken from one noisy evaluation of f(x), whose error is in
        every row; the value at x is then fitted as well. "exact": f(x) has no noise.
    weights : array_like, shape (k,) or (k, n), optional
        Inverse variances of the samples, relative to each other; 0 leaves one out.
    solver : str or Solver
        "pinv", "huber", "spectral", "rank-one", "taylor", or an object with options such as
        ``Pinv(ridge=1e-6)``.
    jac0 : array_like, shape (n, m), optional
        Prior Jacobian, in y per x: its misfit is fitted, and where samples say nothing it stays.
    sparsity : array_like or scipy.sparse array, shape (n, m), optional
        Zero where an entry of J is known to be zero.
    known : array_like, shape (n, m), optional
        Entries that are known, nan elsewhere.
    symmetric : bool
        J = J^T, the Hessian of a function whose gradient was sampled.
    noise : float or array_like, shape (n,), optional
        Standard deviation of one evaluation, in units of y. By default from the residuals.
    x, y : optional
        The point and the value there; they tell the shapes of one sample.
    nan_policy : {"omit", "raise"}
        "omit" drops failed outputs one by one, and samples whose input is nan.

    Returns
    -------
    JacobianEstimate
        ``jac`` and ``stderr`` in y per x. ``stderr`` covers noise of the outputs, not curvature;
        nan where there are no more samples than unknowns and no ``noise`` is given, inf for
        inputs that the samples do not determine (``jac`` is the least-norm choice there).

    Raises
    ------
    ValueError
        If shapes disagree, there is no sample, a displacement is not finite, or it is zero though
        the base is the row's own (such a row repeats its base and tells nothing).
    TypeError
        For complex displacements, or what is no number.

    Notes
    -----
    Right and left Moore-Penrose inverse, J = df^T (dx^T)^+, by a QR of the scaled samples.
    Differences from one noisy base share its error: a fit through the origin (base="own") of
    such rows held 65 % of the entries in its 95 % intervals.
    """
    checks.choice(base, ("own", "shared", "exact"), "base")
    samples = given(dx, df, weights=weights, x=x, y=y, nan_policy=nan_policy)
    if base == "own":
        _refuse_zero_rows(samples.dx)
    sigma = _noise(noise, samples.y)
    prior = _prior(jac0, samples)
    constraints = structure(sparsity, known, symmetric, samples.y.size, samples.x.size)
    solution = solve_samples(samples, solver, base, sigma, prior, constraints)
    y_flat = None if y is None else _broadcast(Layout.of(y).flatten(y), samples.y)
    if y_flat is not None and base == "shared" and solution.value is not None:
        y_flat = y_flat + solution.value
    return _estimate(samples, solution, _centre(x, samples), y_flat, base)


def fit_points(
    points: Any,
    values: Any,
    *,
    x: Any = None,
    weights: ArrayLike | None = None,
    solver: str | Solver | None = None,
    jac0: ArrayLike | None = None,
    sparsity: Any = None,
    known: ArrayLike | None = None,
    symmetric: bool = False,
    noise: ArrayLike | None = None,
    x_scale: Any = None,
    y: Any = None,
    nan_policy: NanPolicy = "omit",
) -> JacobianEstimate:
    """Fit value and Jacobian at x to points that were run, wherever they lie.

    Parameters
    ----------
    points : array_like, shape (k, m) or batch + (k, m)
        Inputs, in units of x, one run a row; (k,) + x.shape with ``x`` given, or a dict.
    values : array_like, shape (k, n) or batch + (k, n)
        Outputs there; nan or inf where one failed.
    x : optional
        Where the Jacobian is wanted; the mean of the points by default. For a batch one point,
        or batch + (m,), one each.
    y : optional
        Shows the shape of one output.
    solver : str or Solver, optional
        By default "taylor", whose error bars hold curvature and noise, where there are more than
        m points and no structure is given; "pinv" elsewhere.
    x_scale : scalar or like x, optional
        Displacements over which f bends alike, for "taylor"; by default the median of the
        samples'.
    weights, jac0, sparsity, known, symmetric, noise, nan_policy
        As in `fit_jacobian`.

    Returns
    -------
    JacobianEstimate
        ``y`` is the fitted value at x, ``solution.value_stderr`` its standard error (inf where x
        lies outside of what the points span). Of "taylor", ``solution.info["rho"]`` (n, m) tells
        how far each input goes before f bends.

    Raises
    ------
    ValueError, TypeError
        As `fit_jacobian`.
    """
    absolute = given(
        points, values, weights=weights, x=x, y=y, nan_policy=nan_policy,
        names=("points", "values"),
    )  # fmt: skip
    centre = absolute.dx.mean(-2) if x is None else _broadcast(checks.point(x)[0], absolute.x)
    if solver is None:
        k, m = absolute.dx.shape[-2:]
        plain = k <= m or symmetric or sparsity is not None or known is not None
        solver = "pinv" if plain else "taylor"
    if x_scale is not None:
        solver = _scaled(solver, x_scale, absolute.x)
    samples = replace(absolute, dx=absolute.dx - centre[..., None, :])
    solution = solve_samples(
        samples,
        solver,
        "points",
        _noise(noise, samples.y),
        _prior(jac0, samples),
        structure(sparsity, known, symmetric, samples.y.size, samples.x.size),
    )
    record = None if samples.batch else Samples(absolute.dx, absolute.df)
    return _estimate(samples, solution, centre, solution.value, "points", record)


def fit_vjp(
    dx: Any,
    df: Any,
    v: ArrayLike,
    *,
    base: Base = "own",
    weights: ArrayLike | None = None,
    solver: str | Solver = "pinv",
    noise: ArrayLike | None = None,
    x: Any = None,
    y: Any = None,
    nan_policy: NanPolicy = "omit",
) -> JacobianEstimate:
    """Fit v^T J for one cotangent, or J from logs that hold only v_k^T df_k.

    Parameters
    ----------
    dx : array_like, shape (k, m)
        Input displacements, as in `fit_jacobian`.
    df : array_like, shape (k, n), or (k,)
        Output displacements; or, with a cotangent for every sample, only the products
        ``v_k^T df_k``.
    v : array_like, shape (n,) (or that of y), or (k, n)
        The cotangent, in 1/y; with ``df`` of shape (k,), the cotangent of every sample.
    base, weights, solver, noise, x, y, nan_policy
        As in `fit_jacobian`; ``noise`` is that of one output, or of one product where only
        products are known. ``weights`` are per sample.

    Returns
    -------
    JacobianEstimate
        Of the scalar function v^T f: ``jac`` has the shape of x and is v^T df dx^+. From products
        alone: of f, fitted to ``v_k^T J dx_k``; the rows of J are correlated there, which
        ``vjp_stderr`` neglects, and ``base="shared"`` is not possible.

    Raises
    ------
    ValueError, TypeError
        As `fit_jacobian`.
    """
    checks.choice(base, ("own", "shared", "exact"), "base")
    cotangent = checks.numeric(v, "v")
    if np.ndim(df) == 1 and cotangent.ndim == 2:
        return _from_products(
            dx, df, cotangent, base=base, weights=weights, solver=solver, noise=noise, x=x,
            nan_policy=nan_policy,
        )  # fmt: skip
    samples = given(dx, df, weights=weights, x=x, y=y, nan_policy=nan_policy)
    flat_v, lead = checks.direction(cotangent, Layout(samples.y.shape), "v")
    if lead:
        raise ValueError(
            f"v has shape {cotangent.shape}; give one cotangent of shape {samples.y.shape}, "
            "or use fit_jacobian(dx, df).vjp(v) for several"
        )
    if not np.isfinite(flat_v).all():
        raise ValueError("v must be finite")
    if samples.weights is not None and samples.weights.ndim == samples.df.ndim:
        raise ValueError("fit_vjp takes one weight per sample: v mixes the outputs")
    used = flat_v != 0
    product = (samples.df[..., used] @ flat_v[used])[..., None]
    sigma = None
    if noise is not None:
        given_noise = _noise(noise, samples.y)
        sigma = np.sqrt(np.square(np.abs(flat_v) * given_noise).sum(-1, keepdims=True))
    samples = replace(samples, df=product, y=Layout((), samples.batch))
    if base == "own":
        _refuse_zero_rows(samples.dx)
    return _estimate(
        samples,
        solve_samples(samples, solver, base, sigma, None, None),
        _centre(x, samples),
        None,
        base,
    )


def _from_products(dx: Any, df: Any, v: NDArray[Any], **options: Any) -> JacobianEstimate:
    """J from scalars v_k^T df_k: linear in the entries of v_k dx_k^T."""
    base, solver, x = options["base"], options["solver"], options["x"]
    if base == "shared":
        raise ValueError(
            "base='shared' is not possible from products alone: the base's error enters as "
            "v_k^T e, another number in every row; give base='own' or 'exact'"
        )
    samples = given(
        dx, df, weights=options["weights"], x=x, nan_policy="raise"
        if options["nan_policy"] == "raise" or v.shape[0] != np.shape(df)[0] else "omit",
    )  # fmt: skip
    k, m = samples.dx.shape
    if v.shape[0] != k or v.dtype.kind == "c" or not np.isfinite(v).all():
        raise ValueError(
            f"v has shape {v.shape}; give one real, finite cotangent for each of the {k} samples"
        )
    if base == "own":
        _refuse_zero_rows(samples.dx)
    n = v.shape[1]
    products = (v[:, :, None] * samples.dx[:, None, :]).reshape(k, n * m)
    whole = solve_samples(
        replace(samples, dx=products),
        solver,
        base,
        _noise(options["noise"], Layout(())),
        None,
        None,
    )
    cov = whole.cov

    def by_row(a: Array | None) -> Array | None:
        return None if a is None else a.reshape((n, m, *a.shape[1:]))

    solution = replace(
        whole,
        coef=whole.coef.reshape(n, m),
        cov=Covariance(
            np.repeat(cov.scale, n), diag=by_row(cov.diag), factor=by_row(cov.factor),
            null=by_row(cov.null), per_output=True,
            lost=None if cov.span is None else np.isinf(cov.variance()).reshape(n, m),
        ),
        dof=np.repeat(whole.dof, n),
        residual=np.repeat(whole.residual, n),
    )  # fmt: skip
    return replace(
        _estimate(replace(samples, y=Layout((n,))), solution, _centre(x, samples), None, base),
        rows=None,  # they are rows of another problem
    )


def solve_samples(
    samples: Given,
    solver: str | Solver,
    base: str,
    noise: Array | None,
    jac0: NDArray[Any] | None,
    constraints: Constraints | None,
) -> Solution:
    """Solve for displacements whose bases are as said, with the noise of one evaluation."""
    found = find_solver(solver)
    dx, df, weights = samples.dx, samples.df, samples.weights
    if base == "shared":
        # The base is a sample like the others, at displacement 0.
        dx, df = _with_zero_row(dx), _with_zero_row(df)
        if weights is not None:
            axis = len(samples.batch)
            weights = np.insert(weights, 0, 1.0, axis=axis)
    # A difference of two evaluations has twice the variance of one.
    times = math.sqrt(2) if base == "own" else 1.0
    taught = _taught(found, noise, times)
    solution = (taught or found).solve(
        dx, df, weights=weights, intercept=base in ("shared", "points"),
        constraints=constraints, jac0=jac0,
    )  # fmt: skip
    if base == "own":
        solution = replace(solution, cov=_per_evaluation(solution.cov, times))
    if noise is not None and taught is None:
        scale = np.broadcast_to(noise, solution.cov.scale.shape).copy()
        solution = replace(
            solution,
            cov=replace(solution.cov, scale=scale),
            dof=np.full(scale.shape, np.inf),
            value_stderr=_rescaled(solution.value_stderr, scale, solution.cov.scale),
        )
    return solution


def _taught(solver: Solver, noise: Array | None, times: float) -> Solver | None:
    """The solver with the noise of a row, where that is an option of its own."""
    if noise is None or not is_dataclass(solver) or isinstance(solver, type):
        return None
    if not any(f.name == "noise" for f in fields(solver)) or solver.noise is not None:
        return None
    taught: Solver = replace(solver, noise=times * noise)
    return taught


def _per_evaluation(cov: Covariance, times: float) -> Covariance:
    """The same covariance, its scale told as that of one evaluation instead of one row."""
    factor = cov.factor
    if factor is not None:
        # In place: nobody else holds what a solver has just returned.
        factor = np.multiply(factor, times, out=factor if factor.flags.writeable else None)
    return replace(
        cov,
        scale=cov.scale / times,
        diag=None if cov.diag is None else cov.diag * times**2,
        factor=factor,
    )


def _rescaled(error: Array | None, scale: Array, learned: Array) -> Array | None:
    """A value's error with the given noise in place of the learned one."""
    if error is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(np.isinf(error), np.inf, error / learned * scale))


def _scaled(solver: str | Solver, x_scale: Any, layout: Layout) -> Solver:
    """The Taylor model in units of the caller's."""
    if solver != "taylor":
        raise ValueError(
            f"x_scale is a unit of solver='taylor', but the solver is {solver!r:.60} (the default "
            "for m points and fewer, and with structure, is 'pinv')"
        )
    from gradiator_np.solvers.taylor import Taylor

    one = Layout(layout.shape, (), layout.fields)
    return Taylor(x_scale=checks.positive(x_scale, one, "x_scale"))


def _broadcast(flat: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """One point, or one for each problem of the batch, as batch + (size,)."""
    kind: Any = np.complex128 if flat.dtype.kind == "c" else np.float64
    each = flat.reshape(*(layout.batch if flat.size != layout.size else ()), layout.size)
    return np.array(np.broadcast_to(each, (*layout.batch, layout.size)), dtype=kind)


def _centre(x: Any, samples: Given) -> NDArray[Any] | None:
    return None if x is None else _broadcast(checks.point(x)[0], samples.x)


def _with_zero_row(a: NDArray[Any]) -> NDArray[Any]:
    first = np.zeros((*a.shape[:-2], 1, a.shape[-1]), dtype=a.dtype)
    return np.concatenate([first, a], axis=-2)


def _refuse_zero_rows(dx: Array) -> None:
    if np.count_nonzero(dx) == dx.size:
        return
    zero = np.argwhere(~dx.any(-1))
    if len(zero):
        i = zero[0][0] if dx.ndim == 2 else tuple(int(j) for j in zero[0])
        raise ValueError(
            f"dx is zero in sample {i}, which repeats its own base and tells nothing of J; "
            "remove it, or say base='shared' or 'exact' where it is a replicate of the base"
        )


def _noise(value: ArrayLike | None, y: Layout) -> Array | None:
    if value is None:
        return None
    a = checks.numeric(value, "noise")
    if a.ndim and a.size != y.size:
        raise ValueError(
            f"noise has shape {a.shape}; give one standard deviation, or one for each of the "
            f"{y.size} outputs"
        )
    if a.dtype.kind == "c" or not (np.isfinite(a).all() and (a > 0).all()):
        raise ValueError(f"noise must be positive and finite, got {a}; None learns it")
    return np.array(np.broadcast_to(a.reshape(-1), (y.size,)), dtype=np.float64)


def _prior(jac0: ArrayLike | None, samples: Given) -> NDArray[Any] | None:
    if jac0 is None:
        return None
    prior = matrix(checks.numeric(jac0, "jac0"), samples.y.size, samples.x.size, "jac0")
    if not np.isfinite(prior).all():
        raise ValueError("jac0 must be finite; give 0 where nothing is known of an entry")
    return prior


def _rows(samples: Given, base: str) -> FittedRows:
    """What was fitted, for guaranteed bounds."""
    if base == "shared":
        return FittedRows(_with_zero_row(samples.dx), _with_zero_row(samples.df), True)
    return FittedRows(samples.dx, samples.df, base == "points", base == "own")


def _estimate(
    samples: Given,
    solution: Solution,
    x: Any,
    y_flat: NDArray[Any] | None,
    base: str,
    record: Samples | None = None,
) -> JacobianEstimate:
    """Wrap the answer, with a warning where it may be wrong."""
    if solution.status not in ("ok", "undetermined"):
        warn(f"{solution.status}: {solution.message}")
    failed = 0 if checks.isfinite(samples.df) else int((~np.isfinite(samples.df)).any(-1).sum())
    return JacobianEstimate.from_solution(
        solution,
        x_layout=samples.x,
        y_layout=samples.y,
        x_flat=x,
        y_flat=y_flat,
        design="given samples",
        record=record,
        rows=None if samples.batch else _rows(samples, base),
        n_samples=math.prod(samples.dx.shape[:-1]),
        n_failed=failed,
    )
