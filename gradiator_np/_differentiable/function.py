"""A function that has derivatives: its own where they are given, estimated where they are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, Unpack

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._diagnose.check import JacobianCheck, check_jacobian
from gradiator_np._differentiable.batch import Each
from gradiator_np._differentiable.inputs import name_of, own, same_inputs
from gradiator_np._differentiable.owner import Argnums, Counts
from gradiator_np._differentiable.point import DifferentiablePoint
from gradiator_np._differentiable.reuse import Memory, PreparedFunctions, Reuse
from gradiator_np._differentiable.second import curvature
from gradiator_np._options import GradiatorOptions, takes
from gradiator_np._samples import Samples
from gradiator_np._signatures import complete
from gradiator_np._structure import blocks


@takes(GradiatorOptions)
def gradiator(
    fun: Callable[..., Any],
    grad_fun: Callable[..., Any] | None = None,
    *,
    jvp_fun: Callable[..., Any] | None = None,
    jac_fun: Callable[..., Any] | None = None,
    argnums: Argnums = None,
    context: bool = False,
    reuse: Reuse | bool = False,
    **estimation_options: Unpack[GradiatorOptions],
) -> Gradiator:
    """Give a function a backward pass, and a forward one.

    Parameters
    ----------
    fun : callable
        ``fun(x) -> y``, or ``fun(x1, x2, ...)``; x and y are arrays of any shape, y may be a
        tuple of arrays. A ``Gradiator`` is taken apart: its derivatives and options are kept where
        none are given here, and its evaluations are counted anew.
    grad_fun : callable, optional
        ``grad_fun(x, v) -> v^T J``, shape of x, for v of the shape of y (no conjugate). For
        several inputs ``grad_fun((x1, x2), v) -> (g1, g2)``. Where it has a parameter
        ``needs_input_grad``, that is a tuple of bool, one for each input to differentiate by: None
        may stand for an input that is not needed. It may be a ``Gradiator`` of its own
        over ``(x, v)``: its backward pass is the second derivative that ``nested_vjp`` uses.
    jvp_fun : callable, optional
        ``jvp_fun(x, u) -> J u``, shape of y, for u of the shape of x.
    jac_fun : callable, optional
        ``jac_fun(x)``, shape ``y.shape + x.shape`` (a sparse matrix or a LinearOperator passes
        through ``jacobian`` untouched).
    argnums : int or tuple of int, optional
        Which positional inputs to differentiate by; all of them by default. Gradients come as one
        array for an int, as a tuple for a tuple.
    context : bool
        ``fun`` returns ``(y, context)``, and the derivatives receive what the forward run
        computed as their last argument: ``grad_fun(x, v, context)``.
    reuse : Reuse or bool
        Estimate VJPs and Jacobians from all samples so far, with new evaluations only where those
        do not suffice; see ``Reuse``. ``estimate(x).stderr`` says what is left.
    **estimation_options
        For what is estimated: ``method``, ``rel_step``, ``bounds``, ``batch_dims``, ``workers``
        and others, as in ``jacobian``.

    Returns
    -------
    Gradiator

    Raises
    ------
    TypeError
        For a function that is none, or an unknown option.
    ValueError
        For ``argnums`` other than those that the derivatives of a ``Gradiator`` go by.

    Notes
    -----
    A missing JVP costs one or two evaluations, a missing VJP of m inputs m + 1 or more, as much
    as the Jacobian. Derivatives given are used wherever they determine what is asked for: a
    ``jvp_fun`` alone gives an exact VJP at m calls.

    Sums over outputs and means over a batch need nothing special: the gradient of ``y.sum()`` is
    ``f.vjp(x, np.ones_like(y))``, of a mean over a batch of b ``f.vjp(x, np.full_like(y, 1 / b))``.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import gradiator
    >>> f = gradiator(lambda x: x**2, lambda x, v: 2 * x * v)
    >>> f.vjp(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    array([2., 4.])
    """
    return Gradiator(
        fun,
        grad_fun,
        jvp_fun=jvp_fun,
        jac_fun=jac_fun,
        argnums=argnums,
        context=context,
        reuse=reuse,
        options=estimation_options,
    )


class Gradiator:
    """A differentiable function; made by ``gradiator``.

    Calls with the x of the latest call share its value: ``f(x)`` followed by ``f.jacobian(x)``
    evaluates the base once. ``linearize`` keeps everything that belongs to one point.

    Attributes
    ----------
    counts : Counts
        Calls of each function, and their times.
    fun, grad_fun, jvp_fun, jac_fun, argnums, context, reuse
        As given to ``gradiator``, or taken from a ``Gradiator`` that was given.
    options : dict
        Those of estimates, as given.

    Examples
    --------
    >>> from gradiator_np import gradiator
    >>> f = gradiator(lambda a, b: a * b, argnums=0, method="3-point")
    >>> value, pushforward, pullback = f.linearize([1.0, 2.0], [3.0, 4.0])
    >>> value.tolist(), pullback([1.0, 1.0]).round(6)
    ([3.0, 8.0], array([3., 4.]))
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        grad_fun: Callable[..., Any] | None = None,
        *,
        jvp_fun: Callable[..., Any] | None = None,
        jac_fun: Callable[..., Any] | None = None,
        argnums: Argnums = None,
        context: bool = False,
        reuse: Reuse | bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        given = {"grad_fun": grad_fun, "jvp_fun": jvp_fun, "jac_fun": jac_fun}
        all_options = dict(options or {})
        if isinstance(fun, Gradiator):
            kept = {name: getattr(fun, name) for name in fun._given() if given[name] is None}
            if kept and fun.argnums is not None and argnums not in (None, fun.argnums):
                raise ValueError(
                    f"argnums={argnums}, but {' and '.join(kept)} of the Gradiator given as fun "
                    f"differentiate by argnums={fun.argnums}; give fun alone, or leave argnums out"
                )
            given |= kept
            argnums = fun.argnums if argnums is None else argnums
            context, reuse = context or fun.context, reuse or fun.reuse
            all_options = fun.options | all_options
            fun = fun.fun
        for name, function in {"fun": fun, **given}.items():
            if not callable(function) and (function is not None or name == "fun"):
                kind = type(function).__name__
                raise TypeError(f"{name} must be callable, got {kind} {function!r}")
        if not isinstance(reuse, Reuse | bool):
            raise TypeError(f"reuse must be True or Reuse(tolerance=...), got {reuse!r:.60}")
        self.fun: Callable[..., Any] = fun
        self.grad_fun, self.jvp_fun, self.jac_fun = given.values()
        self.argnums: Argnums = _inputs(argnums)
        self.context: bool = context
        self.options: dict[str, Any] = all_options
        complete(self.options, GradiatorOptions)  # names that are none are told at once
        if reuse and self.options.get("sparsity") is not None:
            raise ValueError(
                "reuse fits whole rows to samples, and with sparsity a Jacobian takes few runs: "
                "leave one of the two out"
            )
        self.selective = _takes(self.grad_fun, "needs_input_grad")
        self.batch_dims = int(self.options.get("batch_dims", 0))
        self.counts = Counts()
        self.reuse: Reuse | bool = Reuse() if reuse is True else reuse
        self._memory = Memory(self.reuse, self.options) if self.reuse else None
        self._latest: DifferentiablePoint | None = None
        self._prepared = PreparedFunctions()
        self._single: tuple[Gradiator, tuple[int, ...]] | None = None

    def __repr__(self) -> str:
        options = [f"{name}={value!r:.40}" for name, value in self.options.items()]
        parts = ", ".join([name_of(self.fun), *self._given(), *options])
        return f"Gradiator({parts}: {self.nfev} evaluations so far)"

    def _given(self) -> list[str]:
        """Names of the derivatives that were given."""
        names = ("grad_fun", "jvp_fun", "jac_fun")
        return [name for name in names if getattr(self, name) is not None]

    def _given_jacobian(self) -> Callable[..., Any] | None:
        """The Jacobian, where the derivatives given determine it."""
        return self.jacobian if self._given() else None

    def replace(self, **changes: Any) -> Gradiator:
        """The same function with other ``argnums``, ``options`` or derivatives, counting anew."""
        names = ("fun", "grad_fun", "jvp_fun", "jac_fun", "argnums", "context", "reuse", "options")
        return Gradiator(**{name: getattr(self, name) for name in names} | changes)

    def with_argnums(self, argnums: Argnums) -> Gradiator:
        """The same function, differentiated by other inputs; counts and samples are shared."""
        out = self.replace(argnums=argnums)
        out.counts, out._memory = self.counts, self._memory
        return out

    def batched(self, moved: tuple[int, ...]) -> Gradiator:
        """The same function over a leading axis of independent points, counted as one call.

        Parameters
        ----------
        moved : tuple of int
            The positional inputs that have the axis; the others serve all points.
        """
        options = self.options | {"batch_dims": self.batch_dims + 1, "vectorized": False}
        each = Each(moved, self.context)
        grad_fun: Any = each.products(self.grad_fun)
        if _has_nested(self):
            grad_fun = Gradiator(grad_fun, each.nested(self.grad_fun.grad_fun))  # type: ignore[union-attr]
        vectorized = self.options.get("vectorized", False)
        out = self.replace(
            fun=self.fun if vectorized else each.values(self.fun),
            grad_fun=grad_fun,
            jvp_fun=each.products(self.jvp_fun),
            jac_fun=each.products(self.jac_fun),
            reuse=False,
            options=options,
        )
        out.counts, out.selective = self.counts, self.selective
        out._single = self, moved
        return out

    @property
    def single(self) -> tuple[Gradiator, tuple[int, ...]] | None:
        """Of a ``batched`` one: the function of one point, and the inputs that have the axis."""
        return self._single

    @property
    def nfev(self) -> int:
        """Evaluations of ``fun`` so far, those spent on estimates included."""
        return self.counts.fun

    @property
    def samples(self) -> Samples | None:
        """The samples kept for ``reuse``; None where nothing is to be used again."""
        return None if self._memory is None else self._memory.samples

    def __call__(self, *x: Any) -> Any:
        return self._at(x, fresh=True).value

    def linearize(self, *x: Any) -> DifferentiablePoint:
        """Run ``fun`` at x and keep what belongs to it.

        Returns
        -------
        DifferentiablePoint
            Unpacks to ``value, pushforward, pullback``.
        """
        point = self._at(x, keep=True)
        point._run()
        return point

    def vjp(self, x: Any, v: Any) -> Any:
        """v^T J at x (no conjugate), shape of x, for v of the shape of y."""
        return self._at((x,)).pullback(v)

    def jvp(self, x: Any, u: Any) -> Any:
        """J u at x, shape of y, for u of the shape of x."""
        return self._at((x,)).pushforward(u)

    def jacobian(self, *x: Any) -> Any:
        """The Jacobian at x, an array of shape ``y.shape + x.shape``.

        Inputs may be given as one tuple or one by one, as SciPy's solvers do: ``least_squares``,
        ``root`` and ``solve_ivp`` take this method as their ``jac``.
        """
        return self._at(x).jacobian()

    def gradient(self, *x: Any) -> Any:
        """The gradient of a single output, shape of x: what ``minimize`` takes as its ``jac``.

        Raises
        ------
        ValueError
            If y holds more than one number (per point of a batch).
        """
        point = self._at(x)
        return point.pullback(self._one(point, "gradient", "vjp"))

    @staticmethod
    def _one(point: DifferentiablePoint, who: str, instead: str) -> Any:
        """The cotangent 1 of a single output."""
        value, size = point.value, point.y_layout.size
        if size != 1:
            raise ValueError(
                f"{who} needs a single output, but fun returned {size} numbers "
                f"(shape {np.shape(value)}); use {instead} with a cotangent or jacobian"
            )
        return np.ones_like(value, dtype=np.float64)[()]

    def estimate(self, *x: Any) -> Any:
        """The Jacobian estimated at x, with its error bars, whatever derivatives are given.

        Returns
        -------
        JacobianEstimate, or SparseJacobianEstimate with ``sparsity``
        """
        return self._at(x).estimate()

    def check(
        self, *x: Any, alpha: float = 1e-3, resolution: float = 1e-2
    ) -> dict[str, JacobianCheck]:
        """Compare the derivatives given with estimated ones, noise taken into account.

        Parameters
        ----------
        *x : array_like
            A point where the function is not special; random ones are best.
        alpha, resolution : float
            How often a right derivative may be called wrong, over all its entries together, and
            the relative mistake that "ok" excludes; see `check_jacobian`.

        Returns
        -------
        dict of str to JacobianCheck
            One for each of ``grad_fun``, ``jvp_fun`` and ``jac_fun`` that was given.

        Raises
        ------
        ValueError
            If none was given.
        """
        point = self._at(x)
        names = self._given()
        if not names:
            raise ValueError("there is nothing to check: no derivative was given")
        fun, z, options = point._problem()
        out = {}
        for name in names:
            others: dict[str, Any] = dict.fromkeys(("grad_fun", "jvp_fun", "jac_fun"))
            alone = self.replace(**others | {name: getattr(self, name)})
            given = alone.linearize(point.args)
            jac = blocks(given.matrix(), point.y_layout, point.x_layout)
            out[name] = check_jacobian(fun, jac, z, alpha=alpha, resolution=resolution, **options)
        return out

    def _at(
        self, x: tuple[Any, ...], *, fresh: bool = False, keep: bool = False
    ) -> DifferentiablePoint:
        """The point of the positional inputs x; one tuple stands for all of them."""
        if len(x) == 1 and isinstance(x[0], tuple):
            (args,) = x
        else:
            args = x
        latest = self._latest
        if not fresh and latest is not None and same_inputs(latest.args, args):
            return latest.again(keep=keep)
        point = DifferentiablePoint(self, tuple(own(a) for a in args), keep=keep)
        if fresh:
            self._latest = point
        return point

    # -- second order --------------------------------------------------------------------------

    def nested_vjp(self, x: Any, v: Any, w: Any) -> tuple[Any, Any]:
        r"""Pull w, of the shape of x, back through the pullback ``g(x, v) = v^T J(x)``.

        Returns
        -------
        hessian_product : shape of x
            :math:`\nabla^2 (v \cdot f)(x)\, w`.
        jvp : shape of y
            J w: the cotangent of v. Exact where ``grad_fun`` is a ``Gradiator`` with a
            ``grad_fun`` of its own; else the first part is a directional derivative of what
            was given that is estimated, and the second one ``jvp(x, w)``.

        Raises
        ------
        SampleError
            Where no run tells of an entry: failed runs, or no room within bounds.
        NotImplementedError
            For ``batch_dims`` without derivatives given.

        Warns
        -----
        GradiatorWarning
            Where an estimate may be wrong; its ``estimate`` has the error bars.

        Notes
        -----
        Without derivatives given the first part is ``hvp`` of v . f, from second differences of
        values: 16 m + 7 evaluations of a smooth function of m inputs, or 4 m (m + 1) + 7 up to
        m = 3; about 5 m + 20 where there is noise. Of the options ``x_scale``, ``bounds``,
        ``noise``, ``on_error``, ``rng`` and those of workers hold for it; steps, ``method``,
        ``max_nfev`` and ``reuse`` are those of first derivatives. All runs are in ``counts``.

        Examples
        --------
        >>> import numpy as np
        >>> from gradiator_np import gradiator
        >>> f = gradiator(lambda x: np.array([x[0] ** 2 * x[1], np.sin(x[1])]))
        >>> bent, jw = f.nested_vjp([1.0, 2.0], [1.0, 0.0], [1.0, 1.0])
        >>> bent.round(6), jw.round(6)
        (array([6., 2.]), array([ 5.      , -0.416147]))
        """
        if _has_nested(self):
            return exact_nested_vjp(self, x, v, w)
        point = self._at((x,))
        return curvature(point, v, w), point.pushforward(w)

    def hvp(self, x: Any, w: Any) -> Any:
        """The first part of ``nested_vjp`` alone, for a single output and v = 1; shape of x."""
        if _has_nested(self):
            return exact_nested_vjp(self, x, 1.0, w)[0]
        point = self._at((x,))
        v = 1.0 if point.exact else self._one(point, "hvp", "nested_vjp")
        return curvature(point, v, w)


def _inputs(argnums: Any) -> Argnums:
    """Which inputs to differentiate by; None for all."""
    if argnums is None:
        return None
    if isinstance(argnums, tuple | list):
        return tuple(checks.integer(i, "an input of argnums", 0) for i in argnums)
    return checks.integer(argnums, "argnums", 0)


def _takes(function: Any, name: str) -> bool:
    """Whether a function has a parameter of this name."""
    if function is None or isinstance(function, Gradiator):
        return False
    try:
        return name in signature(function).parameters
    except (TypeError, ValueError):  # some builtins have none
        return False


def _has_nested(function: Gradiator) -> bool:
    """Whether ``grad_fun`` has a backward pass of its own."""
    return isinstance(function.grad_fun, Gradiator) and function.grad_fun.grad_fun is not None


def exact_nested_vjp(function: Gradiator, x: Any, v: Any, w: Any) -> tuple[Any, Any]:
    """``Gradiator.nested_vjp`` by the backward pass of ``grad_fun``, or an error."""
    if not _has_nested(function):
        raise ValueError(
            "a nested VJP needs the backward pass of grad_fun: give "
            "gradiator(fun, gradiator(grad_fun, its_vjp)) with "
            "its_vjp((x, v), w) -> (Hessian product, J w)"
        )
    hessian, jw = function.grad_fun.grad_fun((x, v), w)  # type: ignore[union-attr]
    return hessian, jw
