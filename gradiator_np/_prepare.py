"""Jacobians of one function at many points: what is made once, and learned on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, cast, overload

from gradiator_np import _checks as checks
from gradiator_np._drive import evaluator_options, run, warned
from gradiator_np._engine import Engine
from gradiator_np._evaluate import Evaluator
from gradiator_np._fast_path import fast_path
from gradiator_np._options import Options, takes
from gradiator_np._results import JacobianEstimate
from gradiator_np._settings import Settings
from gradiator_np._signatures import complete

if TYPE_CHECKING:
    from gradiator_np._compressed import SparseJacobianEstimate, SparseRuns

E = TypeVar("E", bound="JacobianEstimate | SparseJacobianEstimate")


class Prepared(Generic[E]):
    """A function prepared for Jacobians at many points; see ``prepare``.

    Attributes
    ----------
    nfev : int
        Evaluations of all calls.
    learned : object or None
        What is known of noise and steps, from earlier points.

    Examples
    --------
    >>> from gradiator_np import prepare
    >>> with prepare(lambda x: x**2, [1.0, 2.0], workers=1) as prepared:
    ...     first, second = prepared([1.0, 2.0]), prepared([1.1, 2.2])
    >>> second.jac.round(6), first.nfev > second.nfev
    (array([[2.2, 0. ],
           [0. , 4.4]]), True)
    """

    def __init__(
        self, fun: Callable[..., Any], x0: Any, options: Options, sparsity: Any = None
    ) -> None:
        self._known = known = complete(options, Options)
        self._point = point = checks.point(x0, known["batch_dims"])
        Settings.of(point, known)  # refuses what makes no sense before workers start
        self._evaluate = Evaluator(fun, point.layout, **evaluator_options(known))
        self.learned: Any = None
        self._sparse: SparseRuns | None = None
        if sparsity is not None:
            from gradiator_np._compressed import SparseRuns

            self._sparse = SparseRuns(self._evaluate, sparsity)
        self._quick = None if self._sparse else fast_path(fun, point, options)
        self.nfev = 0

    def __repr__(self) -> str:
        return (
            f"Prepared(x of shape {self._point.layout.shapes}, {self.nfev} evaluations so far, "
            f"{'nothing' if self.learned is None else 'noise and steps'} learned)"
        )

    def __call__(self, x: Any, f0: Any = None, x_scale: Any = None) -> E:
        """The Jacobian at x; ``f0`` is ``fun(x)`` where it is known.

        ``x_scale`` is one for this point, in place of that of ``prepare``.
        """
        known, layout = self._known, self._point.layout
        if x_scale is not None:
            known = known | {"x_scale": x_scale}
        if layout.fields is not None and layout.same(x):
            x = layout.arrange(x)  # the order of its keys may differ
        point = checks.point(x, known["batch_dims"])
        if point.layout.shapes != layout.shapes:
            raise ValueError(
                f"x has shape {point.layout.shapes}, but this was prepared for {layout.shapes}"
            )
        if self._sparse is None:
            return cast(E, self._dense(point, known, f0))
        try:
            return cast(E, self._sparse.at(point, known, f0))
        finally:
            self.nfev, self.learned = self._sparse.nfev, self._sparse.learned

    def _dense(self, point: checks.Point, known: Mapping[str, Any], f0: Any) -> JacobianEstimate:
        partial = None
        if self._quick is not None and known is self._known:
            found = self._quick.run(point, f0)
            if isinstance(found, JacobianEstimate):
                self.nfev += found.nfev
                return found
            partial = found
        engine = Engine(point, Settings.of(point, known), self.learned)
        try:
            estimate = run(engine, self._evaluate, f0, known["on_error"], partial)
        finally:
            self.nfev += engine.nfev
        self.learned = engine.learned
        return warned(estimate)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._evaluate.__exit__(*exc)


@overload
def prepare(
    fun: Callable[..., Any], x0: Any, *, sparsity: None = None, **options: Unpack[Options]
) -> Prepared[JacobianEstimate]: ...


@overload
def prepare(
    fun: Callable[..., Any], x0: Any, *, sparsity: object, **options: Unpack[Options]
) -> Prepared[SparseJacobianEstimate]: ...


@takes(Options)
def prepare(
    fun: Callable[..., Any], x0: Any, *, sparsity: Any = None, **options: Unpack[Options]
) -> Prepared[Any]:
    """Prepare Jacobians of ``fun`` at many points of the shape of x0.

    Parameters
    ----------
    fun, x0, **options
        As in ``jacobian``.
    sparsity : pattern or sparsity.Coloring, optional
        As in ``jacobian``: it is coloured once, and compared with two runs at the first point.

    Returns
    -------
    Prepared
        Call it with x, as often as needed. Worker processes stay alive between calls (use it as a
        context manager to end them), and what was learned of noise and steps is kept.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import prepare
    >>> prepared = prepare(np.sin, [0.0, 0.5], method="5-point")
    >>> [float(prepared([x, 0.5]).jac[0, 0].round(6)) for x in (0.1, 0.2)]
    [0.995004, 0.980067]
    """
    return Prepared(fun, x0, options, sparsity)
