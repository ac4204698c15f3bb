"""Second derivatives from gradients: differentiated once, and made symmetric."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._compressed import PatternCheck, SparseJacobianEstimate, symmetric_jacobian
from gradiator_np._estimate import jacobian
from gradiator_np._linearize import jvp
from gradiator_np._options import Options
from gradiator_np._second_derivatives.estimate import CurvatureEstimate, HessianEstimate
from gradiator_np._second_derivatives.verdict import of_gradients
from gradiator_np._settings import scale_of
from gradiator_np._signatures import complete
from gradiator_np._status import GradiatorWarning, Status, warn
from gradiator_np._structure import Layout, enumerated
from gradiator_np._typing import Array
from gradiator_np.sparsity import SparsityPattern, StarColoring, color, color_symmetric

T = TypeVar("T")
#: Two halves of a Hessian that differ by more standard errors are no second derivatives of one
#: function: 1 in 10^6 by chance.
APART = 5.0
#: Beside rounding: this share of the largest entry.
ROUNDING = 1e-6
#: Evaluations that a product J u takes, and so many colours are spared before it is worth them.
PRODUCT, SPARED = 11, 5
#: What columns take beyond two evaluations for each colour.
MORE = 15
#: Options that the Jacobian of the gradient has too.
SHARED = (
    "x_scale", "bounds", "noise", "max_nfev", "on_error", "rng", "args", "kwargs", "workers",
    "vectorized", "run",
)  # fmt: skip


def gradient_of(fun: Callable[..., Any], jac: Any) -> Callable[..., Any] | None:
    """The gradient (Jacobian) of ``fun``, where it is given, or where ``fun`` has one of its own.

    A ``Gradiator``, a ``Chain`` and a ``Graph`` have a ``_given_jacobian``, which is None unless
    derivatives were given for every part: differences of estimates would be differences twice.
    """
    if jac is not None:
        if not callable(jac):
            raise TypeError(f"jac must be the gradient of fun, callable, got {jac!r:.60}")
        return jac  # type: ignore[no-any-return]
    own = getattr(fun, "_given_jacobian", None)
    return None if own is None else own()


def unwarned(estimate: Callable[[], T]) -> T:
    """What ``estimate`` returns, without its own warning: slopes of a gradient are judged anew.

    Warnings of the gradient itself, whose estimates are others, are given on.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", GradiatorWarning)
        out = estimate()
    own = getattr(out, "estimate", out)
    for each in told:
        if getattr(each.message, "estimate", None) is not own:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return out


def along(product: Callable[..., Any], x: Any, u: Any, **options: Any) -> Any:
    """The derivative along u of a product with first derivatives, in the structure of it.

    Parameters
    ----------
    product : callable
        v^T J or J u as a function of x.
    x, u : array_like or dict
    **options
        As ``jvp`` takes them.

    Warns
    -----
    GradiatorWarning
        Where it may be wrong; not for the 0 that a linear function has.
    """
    found = unwarned(lambda: jvp(product, x, u, **options))
    estimate = found.estimate
    status, message = estimate.solution.status, estimate.message
    if status in (Status.NO_SIGNAL, Status.NO_RESPONSE):
        y, layout = estimate.frame.y_layout, Layout.of(x, options.get("batch_dims", 0))
        flat = layout.flatten(x).astype(np.float64)
        size = (np.abs(layout.flatten(u)) / scale_of(flat, options.get("x_scale"), layout)).max()
        bar, value = (np.abs(y.flatten(part)).ravel() for part in (found.stderr, estimate.y))
        status, message = of_gradients(status, message, bar / size, value)
    if status.doubtful or (estimate.n_failed and status is not Status.OK):
        warn(f"{status}: {message}", estimate)
    return found.value


class _Arranged:
    """A gradient as a dict with the keys of x in their order."""

    def __init__(self, gradient: Callable[..., Any], layout: Layout) -> None:
        self.gradient, self.layout = gradient, layout

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        value = self.gradient(x, *args, **kwargs)
        if not self.layout.same(value):
            raise ValueError(
                f"jac(x) must be a dict like x, shapes {self.layout.shapes}: derivatives of a "
                "scalar function; of others give an array x"
            )
        return self.layout.arrange(value)


def by_gradients(
    gradient: Callable[..., Any],
    x: Any,
    kind: str,
    u: Any,
    options: Mapping[str, Any],
    pattern: SparsityPattern | None = None,
) -> Any:
    """Second derivatives, as ``hessian`` and its kin return them, from runs of the gradient."""
    for name in ("samples", "f0"):
        if options.get(name) is not None:
            raise ValueError(f"{name} is of fun, but with jac its gradient is run; leave it out")
    point = checks.point(x)
    layout = point.layout
    shared: Any = {name: value for name, value in options.items() if name in SHARED}
    fun = gradient if layout.fields is None else _Arranged(gradient, layout)
    found: Any
    if u is not None:
        product = unwarned(lambda: jvp(fun, x, layout.unflatten(u), **shared))
        found = product.estimate
        of_gradient = found.frame.y_layout
        coef, error = (of_gradient.flatten(part) for part in (product.value, product.stderr))
    else:
        found, coef, error = _jacobian(fun, x, pattern, shared)
    y = _outputs(found.frame.y_layout, layout)
    n, m = y.size, layout.size
    solution = getattr(found, "compressed", found).solution
    coef = coef.reshape(n, m, -1)
    error = np.broadcast_to(error.reshape(-1, coef.shape[2]), (n * m, coef.shape[2]))
    error = error.reshape(coef.shape)
    scale = scale_of(point.flat.astype(np.float64), options.get("x_scale"), layout)
    units = scale if u is None else 1 / (np.abs(u) / scale).max(keepdims=True)
    status, message = of_gradients(
        found.status, found.message,
        np.linalg.norm(error * scale[:, None] * units, axis=(1, 2)),
        np.linalg.norm(found.frame.y_layout.flatten(found.y).reshape(n, m) * scale, axis=1),
    )  # fmt: skip
    if status is Status.PATTERN:
        pairs = [f"x{layout.names[i]} by x{layout.names[j]}" for i, j in zip(*found.check.missing)]
        message = (
            "the gradient answers to inputs that sparsity says it does not: add what is missing "
            f"({enumerated(pairs) or 'not told by these runs'}), or leave sparsity out"
        )
    if u is None:
        other = coef.swapaxes(1, 2)
        both = np.hypot(error, error.swapaxes(1, 2))
        apart = np.abs(coef - other) > APART * both + ROUNDING * np.abs(coef).max(initial=0.0)
        coef, error = (coef + other) / 2, both / 2
        # The two halves of an entry on the diagonal are one.
        error = np.where(np.eye(m, dtype=bool), both / np.sqrt(2), error)
        if apart.any() and status.success:
            i, j = np.argwhere(apart)[0, 1:]
            status = Status.LACK_OF_FIT
            message = (
                f"jac is no gradient of one function: its derivatives x{layout.names[i]} by "
                f"x{layout.names[j]} and the other way round differ beyond their errors"
            )
        if kind == "diagonal":
            coef, error = np.einsum("nii->ni", coef), np.einsum("nii->ni", error)
    else:
        coef, error = coef[..., 0], error[..., 0]
        if kind == "quadratic":
            coef, error = coef @ u, np.sqrt(error**2 @ u**2)
    each = (n, m)
    noise = np.broadcast_to(solution.cov.scale, solution.coef.shape[:1]).reshape(each).max(1)
    dof = np.broadcast_to(solution.dof, solution.coef.shape[:1]).reshape(each).min(1)
    kind_of = HessianEstimate if kind == "hessian" else CurvatureEstimate
    return kind_of(
        coef, error, layout, y, noise, dof, found.step if u is None else None,
        f"gradients, {found.design}", found.nfev, found.n_failed, status, message, found.samples,
    )  # fmt: skip


def _jacobian(
    fun: Callable[..., Any], x: Any, pattern: SparsityPattern | None, options: Any
) -> tuple[Any, NDArray[Any], Array]:
    """The Jacobian of a gradient: what was run, J and its errors as arrays."""
    if pattern is None:
        plain = unwarned(lambda: jacobian(fun, x, **options))
        return plain, plain.solution.coef, plain.solution.cov.stderr()
    star = color_symmetric(pattern)
    columns, spent = color(star.pattern), 0
    if columns.n_colors > star.n_colors + SPARED:
        found, coef, error = _by_stars(fun, x, star, options)
        spent, most = found.nfev, options.get("max_nfev")
        if most is not None:
            options = {**options, "max_nfev": most - spent}
        dear = most is not None and most - spent < 2 * columns.n_colors + MORE
        if found.status is not Status.PATTERN or dear:
            return found, coef, error
    sparse = unwarned(lambda: jacobian(fun, x, sparsity=columns, **options))
    sparse = replace(sparse, nfev=sparse.nfev + spent)
    return sparse, sparse.toarray(), sparse.stderr.toarray()


def _by_stars(
    fun: Callable[..., Any], x: Any, star: StarColoring, options: Any
) -> tuple[SparseJacobianEstimate, NDArray[Any], Array]:
    """The same from fewer colours; a product J u takes the place of probes. Where it disagrees,
    which is the status then, colours of columns tell why."""
    known, most = complete(options, Options), options.get("max_nfev")
    if most is not None:
        known = {**known, "max_nfev": max(most - PRODUCT, min(most, 2))}
        options = {**options, "max_nfev": PRODUCT}
    coef, error, found = unwarned(lambda: symmetric_jacobian(fun, x, star, known))
    if found.check is None or len(found.check.outputs):
        return found, coef, error
    layout = checks.point(x).layout
    scale = scale_of(checks.point(x).flat.astype(np.float64), options.get("x_scale"), layout)
    u = checks.random_direction(checks.generator(0), len(scale)) * scale
    product = unwarned(lambda: jvp(fun, x, layout.unflatten(u), **options))
    own = product.estimate.frame.y_layout
    value, bar = own.flatten(product.value).ravel(), own.flatten(product.stderr).ravel()
    terms = coef * u
    bar = np.hypot(bar, np.sqrt(np.square(error * u).sum(1)))
    off = np.abs(value - terms.sum(1))
    excess = np.where(off > APART * bar + ROUNDING * np.abs(terms).sum(1), off, 0.0)
    return found.held_against(PatternCheck.of(excess, product.nfev)), coef, error


def _outputs(of_gradient: Layout, x: Layout) -> Layout:
    """The layout of fun(x), from that of its gradient, y.shape + x.shape."""
    if x.fields is not None:
        return Layout(())
    shape, tail = of_gradient.shape, x.shape or ()
    if shape is None or shape[len(shape) - len(tail) :] != tail:
        raise ValueError(
            f"jac(x) has shape {of_gradient.shapes}, expected y.shape + x.shape, which ends with "
            f"{tail}"
        )
    return Layout(shape[: len(shape) - len(tail)])
