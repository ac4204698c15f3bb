"""Does a Jacobian written by hand agree with its function, given the function's noise?"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Unpack, cast

import numpy as np
from numpy.typing import NDArray

from gradiator_np import checks
from gradiator_np.designs.auto import Auto
from gradiator_np.designs.directional import Directional
from gradiator_np.designs.stencil import ORDERS
from gradiator_np.estimate import Options, jacobian
from gradiator_np.results import JacobianEstimate
from gradiator_np.status import GradiatorWarning
from gradiator_np.structure import Layout, blocks

Array = NDArray[np.float64]

# Entries named in a message.
NAMED = 5
# An accusation is looked at again at steps smaller by this: the truncation of a second-order rule
# falls to 1/16, and that of the fourth-order rule which stands in for the noise-aware design still
# further; a mistake stays. Without it error bars that miss truncation, which happens in one problem
# of a hundred, would be called mistakes of the Jacobian.
CLOSER = 4.0
# What steers the noise-aware design, and has no meaning for a rule of given steps.
STEERING = ("max_evals", "tol", "rtol", "max_step")
# Nobody's mistake: differences of this share of the entry, and of y / x. Rounding inside of fun
# may exceed what its values show (seen: 15 standard errors, at 7e-12 of the largest entry).
ROUNDING = 1e-10


@dataclass(frozen=True, eq=False)
class JacobianCheck:
    """The verdict on a Jacobian, entry by entry.

    Attributes
    ----------
    ok : bool
        No tested entry disagrees, and at least one could be tested.
    p_value : float
        The least of ``p_values``: how often noise alone would make a right Jacobian look at
        least this wrong. nan where nothing could be tested.
    p_values : like jac
        Per entry, adjusted for their number by Holm's method; nan where not tested, at least
        ``alpha`` where a second look at smaller steps acquitted the entry.
    wrong : like jac, of bool
        Entries with ``p_values < alpha``.
    tested : like jac, of bool
        Entries whose estimate has an error bar.
    alpha : float
    estimate : JacobianEstimate
        What was compared with.
    message : str
        Names the entries that disagree, with both values, and what they look like.
    """

    ok: bool
    p_value: float
    p_values: Any
    wrong: Any
    tested: Any
    alpha: float
    estimate: JacobianEstimate
    message: str


def check_jacobian(
    fun: Callable[..., Any],
    jac: Any,
    x: Any,
    *,
    alpha: float = 1e-3,
    **options: Unpack[Options],
) -> JacobianCheck:
    """Test a hand-written Jacobian against its function.

    Parameters
    ----------
    fun : callable
        As in ``jacobian``.
    jac : array_like, sparse matrix, dict of such, or callable
        The Jacobian at x, of shape ``y.shape + x.shape`` (nested dicts where x or y is a dict),
        or ``jac(x, *args, **kwargs)`` that returns it.
    x : array_like or dict of array_like
        A point where the function is not special: at an optimum or at 0 many mistakes are
        invisible. Random points are best.
    alpha : float
        How often a right Jacobian may be called wrong, over all its entries together.
    **options
        As in ``jacobian``, which makes the estimate. ``noise=0`` for a deterministic function
        saves evaluations; for a stochastic one more ``max_evals`` finds smaller mistakes.

    Returns
    -------
    JacobianCheck

    Raises
    ------
    ValueError
        For a Jacobian of another shape, or one with entries that are not finite.

    Warns
    -----
    GradiatorWarning
        Where entries could not be tested.

    Notes
    -----
    Each entry is compared with the estimate by Student's t with the degrees of freedom of the
    noise (its own 95 % interval sets the width), and the p-values are adjusted by Holm's method
    (Scand. J. Statist. 6, 1979, 65): whatever the dependence of the entries, a right Jacobian is
    called wrong with probability alpha at most, as far as the error bars hold. Entries that fail
    are estimated again at a quarter of the steps, and acquitted where the difference shrinks (to
    less than half, or into its noise): then truncation was to blame, not the Jacobian.

    Examples
    --------
    >>> from gradiator_np import check_jacobian
    >>> check = check_jacobian(lambda x: x**2, lambda x: np.diag(2 * x), np.array([1.0, 3.0]))
    >>> assert check.ok, check.message
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    if callable(jac):
        copy = {k: np.array(v) for k, v in x.items()} if isinstance(x, Mapping) else np.array(x)
        args = options.get("args", ())
        jac = jac(
            copy, *(args if isinstance(args, tuple) else (args,)), **(options.get("kwargs") or {})
        )
    estimate = jacobian(fun, x, **options)
    y, x_layout = estimate.y_layout, estimate.x_layout
    given = _matrix(jac, y, x_layout)
    if not np.isfinite(given).all():
        i, j = np.argwhere(~np.isfinite(given))[0][-2:]
        raise ValueError(
            f"d y{y.names[i]} / d x{x_layout.names[j]} of the Jacobian to check is not finite"
        )
    p, tested = _p_values(given, estimate)
    adjusted = _holm(p, tested)
    wrong = tested & (adjusted < alpha)
    if wrong.any() and (closer := _closer(options, estimate)) is not None:
        acquitted = wrong & ~_confirmed(given, estimate, jacobian(fun, x, **closer))
        adjusted[acquitted] = np.maximum(adjusted[acquitted], alpha)
        wrong &= ~acquitted
    message = _words(given, estimate, wrong, tested, alpha)
    if not tested.all():
        warnings.warn(message, GradiatorWarning, stacklevel=2)
    return JacobianCheck(
        bool(tested.any() and not wrong.any()),
        float(np.nanmin(adjusted)) if tested.any() else float("nan"),
        blocks(adjusted, y, x_layout),
        blocks(wrong, y, x_layout),
        blocks(tested, y, x_layout),
        alpha,
        estimate,
        message,
    )


def _matrix(jac: Any, y: Layout, x: Layout) -> NDArray[Any]:
    """The user's Jacobian as (..., n, m)."""
    for layout, axis in ((y, -2), (x, -1)):
        if layout.fields is not None:
            if not isinstance(jac, Mapping) or set(jac) != set(layout.fields):
                seen = sorted(jac) if isinstance(jac, Mapping) else type(jac).__name__
                raise ValueError(
                    f"the Jacobian must be a dict with the keys {list(layout.fields)}, got {seen}"
                )
            parts = [
                _matrix(jac[name], *((inner, x) if axis == -2 else (y, inner)))
                for name, (inner, _) in layout.fields.items()
            ]
            return np.concatenate(parts, axis)
    a = checks.numeric(jac.toarray() if hasattr(jac, "toarray") else jac, "jac")
    batch, want = y.batch, (*(y.shape or ()), *(x.shape or ()))
    flat = (*batch, y.size, x.size)
    if a.shape not in ((*batch, *want), flat):
        hint = "; it looks transposed" if a.shape == (*batch, x.size, y.size) else ""
        raise ValueError(f"the Jacobian has shape {a.shape}, expected {(*batch, *want)}{hint}")
    return a.reshape(flat)


def _p_values(given: NDArray[Any], estimate: JacobianEstimate) -> tuple[Array, NDArray[np.bool_]]:
    """Two-sided p-value of every entry, and which have one."""
    from scipy.special import stdtr

    solution = estimate.solution
    stderr = solution.cov.stderr()
    half = solution.interval(0.95)
    dof = np.broadcast_to(solution.dof[..., None], stderr.shape)
    tested = np.isfinite(half) & (dof > 0)
    dof = np.where(tested, np.minimum(dof, 1e8), 1.0)
    # One standard error, by the interval: a mixture's is not its standard deviation.
    unit = np.where(tested, half, 1.0) / _t95(dof)
    share = max(ROUNDING, float(np.finfo(given.dtype).eps))
    unit = np.hypot(unit, share * (np.abs(given) + _natural(estimate)))
    gap = np.abs(given - solution.coef)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(gap > 0, gap / unit, 0.0)
    return np.asarray(2 * stdtr(dof, -t)), tested


def _natural(estimate: JacobianEstimate) -> Array:
    """|y / x|, 0 where x is: what an entry is measured against, (..., n, m)."""
    assert estimate.x_flat is not None
    assert estimate.y_flat is not None
    x = np.abs(estimate.x_flat)[..., None, :]
    with np.errstate(divide="ignore"):
        return np.asarray(np.abs(estimate.y_flat)[..., :, None] * np.where(x > 0, 1 / x, 0))


def _t95(dof: Array) -> Array:
    from scipy.special import stdtrit

    return np.asarray(stdtrit(dof, 0.975))


def _holm(p: Array, tested: NDArray[np.bool_]) -> Array:
    """Adjusted p-values; nan where not tested."""
    q = p[tested]
    order = np.argsort(q)
    adjusted = np.empty_like(q)
    adjusted[order] = np.maximum.accumulate(q[order] * (q.size - np.arange(q.size)))
    out = np.full(p.shape, np.nan)
    out[tested] = np.minimum(adjusted, 1.0)
    return out


def _closer(options: Options, first: JacobianEstimate) -> Options | None:
    """Options for the same estimate at smaller steps; None where there is no such thing."""
    method = options.get("method", "auto")
    assert first.step_flat is not None
    # Inputs that were not moved have no step: any will do.
    step = np.where(np.isfinite(first.step_flat), np.abs(first.step_flat), 1.0) / CLOSER
    again = cast(Options, {k: v for k, v in options.items() if k not in STEERING})
    rough = method.min_step if isinstance(method, Auto) else options.get("min_step")
    if rough is not None:
        return None
    named = isinstance(method, str)
    given = {k for k in ("abs_step", "rel_step") if options.get(k) is not None}
    if named and (method in ORDERS or (method == "auto" and given)):
        again["abs_step"] = step
    elif method == "auto" or isinstance(method, Auto):
        noise = first.solution.cov.scale.reshape(-1, first.y_layout.size).max(axis=0)
        again["method"], again["abs_step"], again["noise"] = "5-point", step, noise
    elif isinstance(method, Directional):
        again["method"] = replace(method, step=step)
    else:
        return None
    return again


def _confirmed(
    given: NDArray[Any], first: JacobianEstimate, second: JacobianEstimate
) -> NDArray[np.bool_]:
    """Entries that are as wrong at smaller steps as they were.

    Truncation would have shrunk, a wiggle of f would have changed.
    """
    before, after = given - first.solution.coef, given - second.solution.coef
    p, _ = _p_values(given, second)
    noise = np.where(np.isfinite(after_err := second.solution.cov.stderr()), after_err, 0.0)
    same = np.abs(after - before) <= 0.5 * np.abs(before) + 2 * noise
    same &= (before.conj() * after).real > 0.5 * np.abs(before) ** 2
    return np.asarray(same & (p < 0.05))


def _words(
    given: NDArray[Any],
    estimate: JacobianEstimate,
    wrong: NDArray[np.bool_],
    tested: NDArray[np.bool_],
    alpha: float,
) -> str:
    """Which entries disagree, and what the mistake looks like."""
    y, x = estimate.y_layout, estimate.x_layout
    coef, err = estimate.solution.coef, estimate.solution.cov.stderr()
    parts: list[str] = []
    if wrong.any():
        where = np.argwhere(wrong)
        # The largest mistakes first, in units of their error.
        size = np.abs(given - coef)[wrong] / np.maximum(err[wrong], np.finfo(float).tiny)
        named = where[np.argsort(-size)][:NAMED]
        lines = [
            f"d y{y.names[i[-2]]} / d x{x.names[i[-1]]} is {given[tuple(i)]:.6g}, estimated "
            f"{coef[tuple(i)]:.6g} +- {err[tuple(i)]:.2g}"
            for i in named
        ]
        more = f", and {len(where) - NAMED} more" if len(where) > NAMED else ""
        parts.append(
            f"{len(where)} of {wrong.size} entries disagree with the function (a right Jacobian "
            f"is called wrong at a rate of {alpha:g}): " + "; ".join(lines) + more
        )
        parts.extend(_looks_like(given, coef, err, wrong))
    if not tested.all():
        parts.append(
            f"{int((~tested).sum())} of {tested.size} entries could not be tested: "
            + (estimate.message or "their estimates have no error bar; give noise=")
        )
    return ". ".join(parts)


def _looks_like(
    given: NDArray[Any], coef: NDArray[Any], err: Array, wrong: NDArray[np.bool_]
) -> list[str]:
    """Common mistakes that would explain all of what disagrees."""

    def explains(candidate: NDArray[Any]) -> bool:
        close = np.abs(candidate - coef) <= 5 * err + 1e-6 * np.abs(coef)
        return bool(close[wrong].all())

    if explains(-given):
        return ["They have the wrong sign"]
    n, m = given.shape[-2:]
    if n == m and explains(np.swapaxes(given, -1, -2)):
        return ["The Jacobian looks transposed"]
    if (given[wrong] == 0).all():
        return ["They are 0 where the function depends on x: a term is missing"]
    g, c, w = given[wrong], coef[wrong], 1 / np.maximum(err[wrong], np.finfo(float).tiny) ** 2
    power = float(np.sum(w * np.abs(g) ** 2))
    if np.isfinite(power) and power > 0 and wrong.sum() > 1:
        factor = float(np.sum(w * (g.conj() * c).real)) / power
        if factor and explains(given * factor):
            return [f"They are off by one factor: times {factor:.6g} they would agree"]
    return []
