"""Second derivatives of a function that can only be run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._evaluate import Evaluator
from gradiator_np._options import HessianOptions, RunOptions, takes
from gradiator_np._samples import attach
from gradiator_np._second_derivatives.estimate import (
    CurvatureEstimate,
    HessianEstimate,
    SecondDerivatives,
)
from gradiator_np._second_derivatives.forms import Form
from gradiator_np._second_derivatives.found import Found
from gradiator_np._second_derivatives.gradients import by_gradients, gradient_of
from gradiator_np._second_derivatives.plan import Plan
from gradiator_np._second_derivatives.runs import Runs
from gradiator_np._second_derivatives.sparse import ALONG, checked, symmetric_pattern
from gradiator_np._second_derivatives.verdict import judge
from gradiator_np._settings import scale_of
from gradiator_np._signatures import complete, defaults
from gradiator_np._status import Status, warn
from gradiator_np._structure import Layout
from gradiator_np._typing import Array, Mask
from gradiator_np.sparsity import SparsityPattern


@takes(HessianOptions)
def hessian(
    fun: Callable[..., Any],
    x: Any,
    *,
    sparsity: Any = None,
    **options: Unpack[HessianOptions],
) -> HessianEstimate:
    """Estimate the second derivatives of ``fun`` at x.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args, **kwargs)`` with x of any shape, or a dict of arrays; returns an array of
        any shape, a scalar, or a dict of arrays. A ``Gradiator``, ``Chain`` or ``Graph`` all of
        whose parts have derivatives of their own is differentiated once.
    x : array_like or dict of array_like
        The point.
    sparsity : pattern, optional
        Which pairs of the m inputs have mixed second derivatives, in any output: symmetric, (m, m),
        in any form that ``jacobian`` takes. The others are 0 with a ``stderr`` of 0, and are not
        looked at. The second derivative along a random direction, 6 evaluations more, tells where
        that does not hold: status ``pattern``.
    **options : Options

    Returns
    -------
    HessianEstimate
        ``hess`` and ``stderr`` of shape ``y.shape + x.shape + x.shape``, in y per x^2. Takes
        4 m (m + 1) + 7 evaluations of a smooth function of m inputs, and more where steps have to
        be sought; 1.2 (m + 1) (m + 2) / 2 + 10 where there is noise. With ``sparsity`` of p pairs
        8 (m + p) + 13, and of gradients as many as the pattern has colours.

    Raises
    ------
    EvaluationError
        Where ``fun`` fails at x, or anywhere with ``on_error="raise"``; ``samples`` hold the runs.
    TypeError, ValueError
        For arguments that make no sense, before ``fun`` is called.

    Warns
    -----
    GradiatorWarning
        Where the estimate may be wrong; ``status`` and ``message`` say why.

    Notes
    -----
    Every entry is the limit of a second difference whose step goes to 0. Without noise it is taken
    from four sizes, with noise from one or two. The error bar holds noise and truncation: the
    terms of the Taylor series beyond the second are Gaussian, of a size and a growth that the
    second differences of several sizes tell [1]_.

    References
    ----------
    .. [1] J. N. Lyness, Differentiation formulas for analytic functions, Math. Comp. 22 (1968)
       352-362, for limits of differences of several sizes; C. E. Rasmussen, C. K. I. Williams,
       Gaussian processes for machine learning (2006), section 2.7, for the linear model with a
       Gaussian prior.

    Examples
    --------
    >>> from gradiator_np import hessian
    >>> estimate = hessian(lambda x: x[0] ** 2 * x[1], [1.0, 2.0])
    >>> estimate.hess.round(6)
    array([[4., 2.],
           [2., 0.]])

    Of what has derivatives of its own gradients are run:

    >>> from gradiator_np import gradiator
    >>> f = gradiator(lambda x: x[0] ** 2 * x[1], lambda x, v: [2 * x[0] * x[1] * v, x[0] ** 2 * v])
    >>> estimate = hessian(f, [1.0, 2.0])
    >>> estimate.hess.round(6), estimate.design
    (array([[4., 2.],
           [2., 0.]]), 'gradients, auto')
    """
    found: HessianEstimate = _estimate(fun, x, "hessian", None, options, sparsity)
    return found


@takes(HessianOptions)
def hessian_diagonal(
    fun: Callable[..., Any], x: Any, **options: Unpack[HessianOptions]
) -> CurvatureEstimate:
    """Estimate the second derivative of ``fun`` by each input alone: the diagonal of the Hessian.

    Parameters
    ----------
    fun, x, **options
        As in ``hessian``.

    Returns
    -------
    CurvatureEstimate
        ``value`` and ``stderr`` of shape ``y.shape + x.shape``: 8 m + 7 evaluations of a smooth
        function of m inputs, 3 m + 20 where there is noise.

    Examples
    --------
    >>> from gradiator_np import hessian_diagonal
    >>> hessian_diagonal(lambda x: x[0] ** 2 * x[1], [1.0, 2.0]).value.round(6)
    array([4., 0.])
    """
    found: CurvatureEstimate = _estimate(fun, x, "diagonal", None, options)
    return found


@takes(HessianOptions)
def hvp(
    fun: Callable[..., Any],
    x: Any,
    u: Any,
    *,
    quadratic: bool = False,
    **options: Unpack[HessianOptions],
) -> CurvatureEstimate:
    """Estimate the product of the Hessian with a tangent, H u, or u' H u.

    Parameters
    ----------
    fun, x, **options
        As in ``hessian``.
    u : like x
        The tangent.
    quadratic : bool
        u' H u alone, the second derivative along u: 7 evaluations, whatever the number of inputs,
        or as many as ``max_nfev`` allows (15 and more sharpen it).

    Returns
    -------
    CurvatureEstimate
        ``value`` and ``stderr`` of shape ``y.shape + x.shape``, or ``y.shape``. H u takes
        16 m + 7 evaluations of a smooth function of m inputs, 5 m + 20 where there is noise; from
        gradients as few as ``jvp``.

    Raises
    ------
    ValueError
        Where u is 0 or not finite.

    Examples
    --------
    >>> from gradiator_np import hvp
    >>> f = lambda x: x[0] ** 2 * x[1]
    >>> hvp(f, [1.0, 2.0], [1.0, 1.0]).value.round(6)
    array([6., 2.])
    >>> along = hvp(f, [1.0, 2.0], [1.0, 1.0], quadratic=True)
    >>> along.value.round(6), along.nfev
    (np.float64(8.0), 7)
    """
    layout = checks.point(x).layout
    flat, lead = checks.direction(u, layout, "u", finite=True)
    if lead or flat.dtype.kind == "c":
        raise ValueError(f"u must be one real tangent of the shape of x, got {np.shape(u)}")
    if not flat.any():
        raise ValueError("u is 0: H u is 0, and there is nothing to run")
    kind = "quadratic" if quadratic else "product"
    found: CurvatureEstimate = _estimate(fun, x, kind, flat, options)
    return found


def _estimate(
    fun: Callable[..., Any],
    x: Any,
    kind: str,
    u: Array | None,
    options: HessianOptions,
    sparsity: Any = None,
) -> Any:
    """What is asked for, with a warning where it may be wrong."""
    known = complete(options, HessianOptions)
    pattern = None if sparsity is None else symmetric_pattern(sparsity, checks.point(x).layout)
    gradient = gradient_of(fun, known["jac"])
    estimate = (
        _by_values(fun, x, kind, u, known, pattern)
        if gradient is None
        else by_gradients(gradient, x, kind, u, options, pattern)
    )
    if estimate.status.doubtful:
        warn(f"{estimate.status}: {estimate.message}", estimate)
    return estimate


def _by_values(
    fun: Callable[..., Any],
    x: Any,
    kind: str,
    u: Array | None,
    known: Mapping[str, Any],
    pattern: SparsityPattern | None,
) -> SecondDerivatives:
    point = checks.point(x)
    checks.choice(known["on_error"], ("adapt", "drop", "raise"), "on_error")
    scale = scale_of(point.flat.astype(np.float64), known["x_scale"], point.layout)
    own = {name: known[name] for name in defaults(RunOptions)}
    with Evaluator(fun, point.layout, **own) as evaluate:
        runs = Runs(evaluate, point, known)
        try:
            eps = max(evaluate.precision, float(np.finfo(point.flat.dtype).eps))
            options = _with_noise(known, runs)
            pairs = None if pattern is None else pattern.to_csr().toarray()
            plan = Plan(runs, kind, u, scale, options, eps, pairs, 0 if pattern is None else ALONG)
            with checks.underflow_is_zero(), np.errstate(over="ignore"):
                found = plan.run()
                estimate = _assembled(found, runs, kind, scale, u, pairs)
                if pairs is None:
                    return estimate
                return checked(estimate, runs, scale, options, eps)
        except BaseException as exc:
            attach(exc, runs.samples)
            raise


def _with_noise(known: Mapping[str, Any], runs: Runs) -> dict[str, Any]:
    """Options with the noise of each output, where it is known."""
    noise = known["noise"]
    if noise is not None:
        noise = checks.noise(noise, runs.y_layout)
        if runs.y.dtype.kind == "c":  # of the complex number; half of its variance in each part
            noise = np.tile(noise / np.sqrt(2), 2)
        noise = noise / runs.unit
    return {**known, "noise": noise}


def _assembled(
    found: Found, runs: Runs, kind: str, scale: Array, u: Array | None, pairs: Mask | None
) -> SecondDerivatives:
    """The result in the user's shapes; 0, for sure, where a Hessian has no ``pairs``."""
    layout, m = runs.layout, len(scale)
    n = len(found.level.noise)
    shape: tuple[int, ...] = {"hessian": (m, m), "quadratic": ()}.get(kind, (m,))
    coef, error = np.zeros((n, *shape)), np.full((n, *shape), np.inf)
    if pairs is not None:
        error[:, ~pairs & ~np.eye(m, dtype=bool)] = 0.0
    names, weights = [], []
    x_names = layout.names
    for e, form in enumerate(found.forms):
        places, inputs = _places(kind, form)
        for place in places:
            at: tuple[Any, ...] = (slice(None), *place)
            coef[at], error[at] = found.value[e], found.stderr[e]
        weights.append(float(np.prod([scale[i] for i in inputs])))
        names.append(" ".join(f"x{x_names[i]}" for i in inputs) or "along u")
    error[found.level.broken] = np.inf
    coef[~np.isfinite(coef)] = 0.0
    missing = len(found.forms) == 0 or np.isinf(error).any()
    axes = np.diag(1 / scale) if kind != "quadratic" else (u / (u @ u))[:, None]  # type: ignore[operator]
    status, message = judge(found, runs, weights.__getitem__, names, axes)
    if missing and status.success:
        status, message = _lost(error, layout)
    step = found.step[:m] if kind != "quadratic" else np.abs(u) * found.step[0]  # type: ignore[arg-type]
    with np.errstate(over="ignore"):
        coef, error = (part * runs.unit.reshape(-1, *[1] * len(shape)) for part in (coef, error))
        noise, dof = found.level.noise * runs.unit, found.level.dof
    kept: NDArray[Any] = coef
    if runs.y.dtype.kind == "c":
        half = n // 2
        kept = coef[:half] + 1j * coef[half:]
        error = np.hypot(error[:half], error[half:])
        noise, dof = np.hypot(noise[:half], noise[half:]), np.minimum(dof[:half], dof[half:])
    design = f"{'pairs with noise' if found.noisy else 'pairs of several sizes'}"
    kind_of = HessianEstimate if kind == "hessian" else CurvatureEstimate
    return kind_of(
        kept, error, layout, runs.y_layout, noise, dof, layout.unflatten(step), design,
        runs.nfev, runs.n_failed, status, message, runs.samples,
    )  # fmt: skip


def _places(kind: str, form: Form) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """Where a form's value goes, and the inputs that it is a derivative by."""
    if kind == "hessian":
        return [(form.a, form.b), (form.b, form.a)], (form.a, form.b)
    if kind == "quadratic":
        return [()], ()
    return [(form.a,)], (form.a, form.a)


def _lost(error: Array, layout: Layout) -> tuple[Status, str]:
    """What to say of entries that no form told of."""
    per_input = np.isinf(error).reshape(len(error), -1, layout.size).all((0, 1))
    return Status.UNDETERMINED, (
        f"{layout.listed('x', np.flatnonzero(per_input))} cannot be moved within the bounds: "
        "second derivatives by it are undetermined"
    )
