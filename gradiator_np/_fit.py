"""Jacobians from samples that were taken elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np import _checks as checks
from gradiator_np import _fit_doubts as doubts
from gradiator_np._covariance import Covariance
from gradiator_np._results import FittedRows, Frame, JacobianEstimate
from gradiator_np._sample_set import SampleSet
from gradiator_np._samples import Samples
from gradiator_np._signatures import complete, shows
from gradiator_np._solve import Base, solve_samples, with_zero_row
from gradiator_np._status import warn
from gradiator_np._structure import Layout, matrix_of
from gradiator_np._typing import Array, NanPolicy
from gradiator_np.solvers._groups import by_output
from gradiator_np.solvers._solution import Constraints, Solution, Solver


class SampleOptions(TypedDict, total=False):
    """What every fit takes beside its samples.

    weights : array_like, shape (k,) or (k, n), optional
        Inverse variances of the samples, relative to each other; 0 leaves one out.
    solver : str or Solver, optional
        A name (`gradiator_np.solvers` lists all), or an object with options such as
        ``Pinv(ridge=1e-6)``. By default "pinv", least squares; in `fit_points` "taylor", whose
        error bars hold curvature and noise, where there are more than m points and no structure
        is given.
    noise : float or array_like, shape (n,), optional
        Standard deviation of one evaluation, in units of y; 0 for none. By default from the
        residuals.
    nan_policy : {"omit", "raise"}
        "omit" drops failed outputs one by one, and samples whose input is nan.
    """

    weights: Annotated[ArrayLike | None, None]
    solver: Annotated[str | Solver | None, None]
    noise: Annotated[ArrayLike | None, None]
    nan_policy: Annotated[NanPolicy, "omit"]


class StructureOptions(TypedDict, total=False):
    """What may be known of J in advance.

    jac0 : like jac, or array_like, shape (n, m), optional
        Prior Jacobian, in y per x: its misfit is fitted, and where samples say nothing it stays.
    sparsity : array_like or scipy.sparse array, shape (n, m), optional
        Zero where an entry of J is known to be zero.
    known : array_like, shape (n, m), optional
        Entries that are known, nan elsewhere.
    symmetric : bool
        J = J^T, the Hessian of a function whose gradient was sampled.
    """

    jac0: Annotated[Any, None]
    sparsity: Annotated[Any, None]
    known: Annotated[Any, None]
    symmetric: Annotated[bool, False]


class JacobianFitOptions(SampleOptions, StructureOptions, total=False):
    """What fits of a whole Jacobian take."""


PIECES = (SampleOptions, StructureOptions)


@shows(JacobianFitOptions, *PIECES)
def fit_jacobian(
    dx: Any,
    df: Any,
    *,
    base: Base = "own",
    x: Any = None,
    f0: Any = None,
    **options: Unpack[JacobianFitOptions],
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
    x, f0 : array_like or dict, optional
        The point, and the value there as in ``jacobian``; they tell the shapes of one sample.
    **options : Options

    Returns
    -------
    JacobianEstimate
        ``jac`` and ``stderr`` in y per x. ``stderr`` covers noise of the outputs, not curvature;
        nan where there are no more samples than unknowns and no ``noise`` is given, inf for
        inputs that the samples do not determine (``jac`` is the least-norm choice there). Copies of
        rows count in ``jac``, and not in ``stderr``.

    Raises
    ------
    ValueError
        If shapes disagree, there is no sample, a displacement is not finite, or it is zero though
        the base is the row's own (such a row repeats its base and tells nothing).
    TypeError
        For complex displacements, or what is no number.

    Warns
    -----
    GradiatorWarning
        Where samples speak against the way they were given (status lack_of_fit): a constant in all
        differences (values in place of differences), outputs that change one at a time while all
        inputs move (dx and df exchanged), a jac0 whose transpose they agree with. Not in batches;
        exchanged dx and df of a general kind look like samples of the inverse.

    Notes
    -----
    Right and left Moore-Penrose inverse, J = df^T (dx^T)^+, by a QR of the scaled samples.
    Differences from one noisy base share its error: a fit through the origin (base="own") of
    such rows held 65 % of the entries in its 95 % intervals.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import fit_jacobian
    >>> dx = np.array([[0.1, 0.0], [0.0, 0.2], [0.1, 0.1], [-0.2, 0.1]])
    >>> df = dx @ np.array([[1.0, 3.0], [2.0, -1.0]])
    >>> fit_jacobian(dx, df).jac.round(6)
    array([[ 1.,  2.],
           [ 3., -1.]])
    """
    checks.choice(base, ("own", "shared", "exact"), "base")
    given = complete(options, JacobianFitOptions)
    samples = _samples(dx, df, given, x, f0)
    if base == "own":
        _refuse_zero_rows(samples.dx)
    solution = _solution(samples, base, given)
    value = None if f0 is None else _broadcast(Layout.of(f0).flatten(f0), samples.y)
    if value is not None and base == "shared" and solution.value is not None:
        value = value + solution.value
    return _estimate(samples, solution, _centre(x, samples), value, base)


@shows(JacobianFitOptions, *PIECES)
def fit_points(
    points: Any,
    values: Any,
    *,
    x: Any = None,
    x_scale: Any = None,
    y_like: Any = None,
    **options: Unpack[JacobianFitOptions],
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
    x_scale : scalar or like x, optional
        Displacements over which f bends alike, for "taylor"; by default the median of the
        samples'.
    y_like : array_like or dict, optional
        Of the shape of one output; its numbers do not matter.
    **options : Options

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

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import fit_points
    >>> points = np.random.default_rng(0).uniform(0.9, 1.1, (30, 2))
    >>> values = np.exp(points[:, :1] * points[:, 1:])
    >>> estimate = fit_points(points, values, x=[1.0, 1.0])
    >>> bool(abs(estimate.y[0] - np.e) < 1e-4), bool(abs(estimate.jac - np.e).max() < 1e-3)
    (True, True)
    """
    given = complete(options, JacobianFitOptions)
    absolute = _samples(points, values, given, x, y_like, ("points", "values", "y_like"))
    centre = absolute.dx.mean(-2) if x is None else _broadcast(checks.point(x)[0], absolute.x)
    if given["solver"] is None:
        k, m = absolute.dx.shape[-2:]
        structure = (
            given["symmetric"] or given["sparsity"] is not None or given["known"] is not None
        )
        given["solver"] = "pinv" if k <= m or structure else "taylor"
    if x_scale is not None:
        given["solver"] = _scaled(given["solver"], x_scale, absolute.x)
    samples = replace(absolute, dx=absolute.dx - centre[..., None, :])
    solution = _solution(samples, "points", given)
    record = None if samples.batch else Samples(absolute.dx, absolute.df)
    return _estimate(samples, solution, centre, solution.value, "points", record)


@shows(SampleOptions)
def fit_vjp(
    dx: Any,
    df: Any,
    v: ArrayLike,
    *,
    base: Base = "own",
    x: Any = None,
    y_like: Any = None,
    **options: Unpack[SampleOptions],
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
    y_like : array_like or dict, optional
        Of the shape of one output; its numbers do not matter.
    base, x
        As in `fit_jacobian`.
    **options : Options
        ``weights`` are per sample; ``noise`` is that of one output, or of one product where only
        products are known.

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

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import fit_vjp
    >>> dx = np.array([[0.1, 0.0], [0.0, 0.2], [0.1, 0.1], [-0.2, 0.1]])
    >>> df = dx @ np.array([[1.0, 3.0], [2.0, -1.0]])
    >>> fit_vjp(dx, df, [1.0, 0.0]).grad.round(6)
    array([1., 2.])
    """
    checks.choice(base, ("own", "shared", "exact"), "base")
    given = complete(options, SampleOptions)
    cotangent = checks.numeric(v, "v")
    if np.ndim(df) == 1 and cotangent.ndim == 2:
        return _from_products(dx, df, cotangent, base, x, given)
    samples = _samples(dx, df, given, x, y_like, ("dx", "df", "y_like"))
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
    if given["noise"] is not None:
        sigma = checks.noise(given["noise"], samples.y)
        given["noise"] = np.sqrt(np.square(np.abs(flat_v) * sigma).sum(-1))
    samples = replace(samples, df=product, y=Layout((), samples.batch))
    if base == "own":
        _refuse_zero_rows(samples.dx)
    return _estimate(samples, _solution(samples, base, given), _centre(x, samples), None, base)


def _from_products(
    dx: Any, df: Any, v: NDArray[Any], base: Base, x: Any, given: Mapping[str, Any]
) -> JacobianEstimate:
    """J from scalars v_k^T df_k: linear in the entries of v_k dx_k^T."""
    if base == "shared":
        raise ValueError(
            "base='shared' is not possible from products alone: the base's error enters as "
            "v_k^T e, another number in every row; give base='own' or 'exact'"
        )
    samples = _samples(dx, df, given, x)
    k, m = samples.dx.shape
    if v.shape[0] != k or v.dtype.kind == "c" or not np.isfinite(v).all():
        raise ValueError(
            f"v has shape {v.shape}; give one real, finite cotangent for each of the {k} samples"
        )
    if base == "own":
        _refuse_zero_rows(samples.dx)
    n = v.shape[1]
    products = (v[:, :, None] * samples.dx[:, None, :]).reshape(k, n * m)
    whole = _solution(replace(samples, dx=products), base, given)
    cov = by_output(whole.cov)

    def by_row(a: NDArray[Any] | None) -> Any:
        return None if a is None else a.reshape((n, m, *a.shape[2:]))

    solution = replace(
        whole,
        coef=by_row(whole.coef),
        cov=Covariance(
            np.repeat(cov.scale, n), diag=by_row(cov.diag), factor=by_row(cov.factor),
            null=by_row(cov.null), per_output=True, lost=by_row(cov.lost),
        ),
        dof=np.repeat(whole.dof, n),
        residual=np.repeat(whole.residual, n),
        interval_factor=by_row(whole.interval_factor),
    )  # fmt: skip
    return replace(
        _estimate(replace(samples, y=Layout((n,))), solution, _centre(x, samples), None, base),
        _rows=None,  # they are rows of another problem
    )


def _samples(
    dx: Any,
    df: Any,
    given: Mapping[str, Any],
    x: Any = None,
    y: Any = None,
    names: tuple[str, str, str] = ("dx", "df", "f0"),
) -> SampleSet:
    """Samples as flat arrays, by complete options."""
    return SampleSet.of(
        dx, df, weights=given["weights"], x=x, y=y, nan_policy=given["nan_policy"], names=names
    )


def _solution(
    samples: SampleSet, base: Base | Literal["points"], given: Mapping[str, Any]
) -> Solution:
    """The fit of samples, by complete options; what is known of J as (n, m) arrays."""
    y, x, noise = samples.y, samples.x, given["noise"]
    jac0, sparsity, known = (
        None if given.get(name) is None else matrix_of(given[name], y, x, name, one_for_all=True)
        for name in ("jac0", "sparsity", "known")
    )
    solution = solve_samples(
        samples,
        given["solver"] or "pinv",
        base,
        None if noise is None else _positive(checks.noise(noise, y)),
        jac0,
        Constraints(sparsity, known, bool(given.get("symmetric"))) or None,
    )
    return doubts.examined(samples, base, jac0, solution)


def _positive(noise: Array) -> Array:
    if not noise.all():
        raise ValueError(
            "noise must be positive: what samples say of J is weighed by it; leave it out (None) "
            "to find it from their residuals"
        )
    return noise


def _scaled(solver: str | Solver, x_scale: Any, layout: Layout) -> Solver:
    """The Taylor model in units of the caller's."""
    if solver != "taylor":
        raise ValueError(
            f"x_scale is a unit of solver='taylor', but the solver is {solver!r:.60} (the default "
            "for m points and fewer, and with structure, is 'pinv')"
        )
    from gradiator_np.solvers._taylor.solver import Taylor

    return Taylor(x_scale=checks.positive(x_scale, layout.single, "x_scale"))


def _broadcast(flat: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """One point, or one for each problem of the batch, as batch + (size,)."""
    kind: Any = np.complex128 if flat.dtype.kind == "c" else np.float64
    each = flat.reshape(*(layout.batch if flat.size != layout.size else ()), layout.size)
    return np.array(np.broadcast_to(each, (*layout.batch, layout.size)), dtype=kind)


def _centre(x: Any, samples: SampleSet) -> NDArray[Any] | None:
    return None if x is None else _broadcast(checks.point(x)[0], samples.x)


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


def _rows(samples: SampleSet, base: str) -> FittedRows:
    """What was fitted, for guaranteed bounds."""
    if base == "shared":
        return FittedRows(with_zero_row(samples.dx), with_zero_row(samples.df), True)
    return FittedRows(samples.dx, samples.df, base == "points", base == "own")


def _estimate(
    samples: SampleSet,
    solution: Solution,
    x: NDArray[Any] | None,
    y: NDArray[Any] | None,
    base: str,
    record: Samples | None = None,
) -> JacobianEstimate:
    """Wrap the answer, with a warning where it may be wrong."""
    failed = 0 if checks.isfinite(samples.df) else int((~np.isfinite(samples.df)).any(-1).sum())
    estimate = JacobianEstimate(
        solution,
        Frame(samples.x, samples.y, x, y),
        "given samples",
        n_failed=failed,
        n_samples=math.prod(samples.dx.shape[:-1]),
        _record=record,
        _rows=None if samples.batch else _rows(samples, base),
    )
    if solution.status.doubtful:
        warn(f"{solution.status}: {solution.message}", estimate)
    return estimate
