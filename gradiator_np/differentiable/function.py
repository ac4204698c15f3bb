"""A function that has derivatives: its own where they are given, estimated where they are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gradiator_np.diagnose.check import JacobianCheck, check_jacobian
from gradiator_np.differentiable.inputs import Moved, own
from gradiator_np.differentiable.linearized import Argnums, Counts, Linearized
from gradiator_np.differentiable.reuse import Memory, Reuse
from gradiator_np.linearize import Prepared
from gradiator_np.results import JacobianEstimate
from gradiator_np.structure import Layout, blocks


def gradiator(
    fun: Callable[..., Any],
    grad_fun: Callable[..., Any] | None = None,
    *,
    jvp_fun: Callable[..., Any] | None = None,
    jac_fun: Callable[..., Any] | None = None,
    argnums: Argnums = None,
    context: bool = False,
    reuse: Reuse | bool = False,
    **estimation_options: Any,
) -> Gradiator:
    """Give a function a backward pass, and a forward one.

    Parameters
    ----------
    fun : callable
        ``fun(x) -> y``, or ``fun(x1, x2, ...)``; x and y are arrays of any shape, y may be a
        tuple of arrays. A ``Gradiator`` is taken apart: what is given here wins.
    grad_fun : callable, optional
        ``grad_fun(x, v) -> v^T J``, shape of x, for v of the shape of y (no conjugate). For
        several inputs ``grad_fun((x1, x2), v) -> (g1, g2)``. It may be a ``Gradiator`` of its own
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
        For what is estimated: the options of ``jacobian`` (``method``, ``rel_step``, ``bounds``,
        ``batch_dims``, ``workers``, ...).

    Returns
    -------
    Gradiator

    Notes
    -----
    A missing JVP costs one or two evaluations, a missing VJP of m inputs m + 1 or more, as much
    as the Jacobian. Derivatives given are used wherever they determine what is asked for: a
    ``jvp_fun`` alone gives an exact VJP at m calls.

    Sums over outputs and means over a batch need nothing special: the gradient of ``y.sum()`` is
    ``f.vjp(x, np.ones_like(y))``, of a mean over a batch of b ``f.vjp(x, np.full_like(y, 1 / b))``.

    Examples
    --------
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
    memory : Memory or None
        The samples kept for ``reuse``.
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
        for name, given in (
            ("fun", fun),
            ("grad_fun", grad_fun),
            ("jvp_fun", jvp_fun),
            ("jac_fun", jac_fun),
        ):
            if not callable(given) and (given is not None or name == "fun"):
                raise TypeError(f"{name} must be callable, got {type(given).__name__} {given!r}")
        self.fun = fun
        self.grad_fun = grad_fun
        self.jvp_fun = jvp_fun
        self.jac_fun = jac_fun
        self.argnums = argnums
        self.context = context
        self.options = dict(options or {})
        self.batch_dims = int(self.options.get("batch_dims", 0))
        self.counts = Counts()
        self.reuse = Reuse() if reuse is True else reuse
        self.memory = Memory(self.reuse, self.options) if self.reuse else None
        self._latest: Linearized | None = None
        self._prepared: dict[Any, tuple[Moved | None, Prepared | None]] = {}

    def replace(self, **changes: Any) -> Gradiator:
        """The same function with other ``argnums``, ``options`` or derivatives, counting anew."""
        names = (
            *("fun", "grad_fun", "jvp_fun", "jac_fun", "argnums", "context", "reuse", "options"),
        )
        return Gradiator(**{name: getattr(self, name) for name in names} | changes)

    def learned_jacobian(
        self, layout: Layout, fun: Callable[..., Any], z: Any, options: dict[str, Any]
    ) -> JacobianEstimate:
        """The Jacobian of ``fun`` at z, with what was learned of noise and steps before.

        ``fun`` is this function, or what is left of it where some inputs stay as they are.
        """
        f0 = options.pop("f0")
        moved = fun if isinstance(fun, Moved) else None
        key = (
            repr(layout.shapes),
            getattr(z, "dtype", None),
            None if moved is None else moved.where,
        )
        # Taken out while in use: another thread makes one of its own.
        kept, prepared = self._prepared.pop(key, (moved, None))
        if prepared is None:
            prepared = Prepared(fun, z, options)  # type: ignore[arg-type]
        elif kept is not None and moved is not None:
            kept.args = moved.args
        try:
            return prepared(z, f0)
        finally:
            self._prepared[key] = kept, prepared

    def by(self, argnums: Argnums) -> Gradiator:
        """The same function, differentiated by other inputs; counts and samples are shared."""
        out = self.replace(argnums=argnums)
        out.counts, out.memory = self.counts, self.memory
        return out

    def batched(self, moved: tuple[int, ...]) -> Gradiator:
        """The same function over a leading axis of independent points, counted as one call.

        Parameters
        ----------
        moved : tuple of int
            The positional inputs that have the axis; the others serve all points.
        """
        options = self.options | {"batch_dims": self.batch_dims + 1, "vectorized": False}
        each = _Each(moved, self.context)
        vectorized = self.options.get("vectorized", False)
        out = self.replace(
            fun=self.fun if vectorized else each.values(self.fun),
            grad_fun=each.products(self.grad_fun),
            jvp_fun=each.products(self.jvp_fun),
            jac_fun=each.products(self.jac_fun),
            reuse=False,
            options=options,
        )
        out.counts = self.counts
        return out

    @property
    def nfev(self) -> int:
        """Evaluations of ``fun`` so far, those spent on estimates included."""
        return self.counts.fun

    def __call__(self, *x: Any) -> Any:
        return self._at(x, fresh=True).value

    def linearize(self, *x: Any) -> Linearized:
        """Run ``fun`` at x and keep what belongs to it.

        Returns
        -------
        Linearized
            Unpacks to ``value, pushforward, pullback``.
        """
        point = self._at(x)
        point.run()
        point.keep = True
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
        value = point.value
        size = point.y_layout.size
        if size != 1:
            raise ValueError(
                f"gradient needs a single output, but fun returned {size} numbers "
                f"(shape {np.shape(value)}); use vjp with a cotangent or jacobian"
            )
        return point.pullback(np.ones_like(value, dtype=np.float64)[()])

    def estimate(self, *x: Any) -> JacobianEstimate:
        """The Jacobian estimated at x, with its error bars, whatever derivatives are given."""
        return self._at(x).estimate()

    def check(self, *x: Any, alpha: float = 1e-3) -> dict[str, JacobianCheck]:
        """Compare the derivatives given with estimated ones, noise taken into account.

        Parameters
        ----------
        *x : array_like
            A point where the function is not special; random ones are best.
        alpha : float
            How often a right derivative may be called wrong, over all its entries together.

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
        names = [n for n in ("grad_fun", "jvp_fun", "jac_fun") if getattr(self, n) is not None]
        if not names:
            raise ValueError("there is nothing to check: no derivative was given")
        fun, z, options = point.problem()
        out = {}
        for name in names:
            others: dict[str, Any] = dict.fromkeys(("grad_fun", "jvp_fun", "jac_fun"))
            alone = self.replace(**others | {name: getattr(self, name)})
            given = alone.linearize(point.args)
            jac = blocks(given.matrix(), point.y_layout, point.x_layout)
            out[name] = check_jacobian(fun, jac, z, alpha=alpha, **options)
        return out

    def _at(self, x: tuple[Any, ...], *, fresh: bool = False) -> Linearized:
        """The point of the positional inputs x; one tuple stands for all of them."""
        if len(x) == 1 and isinstance(x[0], tuple):
            (args,) = x
        else:
            args = x
        latest = self._latest
        if not fresh and latest is not None and latest.is_at(args):
            return latest.again()
        point = Linearized(self, tuple(own(a) for a in args))
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
            ``grad_fun`` of its own; else the first part is a directional derivative of
            ``grad_fun`` that is estimated, and the second one ``jvp(x, w)``.

        Raises
        ------
        ValueError
            If ``grad_fun`` was not given: differences of differences are all noise.
        """
        if self.grad_fun is None:
            raise ValueError(
                "second derivatives need grad_fun: give gradiator(fun, grad_fun), with grad_fun a "
                "gradiator itself for exact ones"
            )
        if self.has_nested:
            return self.exact_nested_vjp(x, v, w)
        point = Linearized(self, x if isinstance(x, tuple) else (x,))
        along = Gradiator(
            lambda *z: point.owner.grad_fun(z[0] if len(z) == 1 else z, v),  # type: ignore[misc]
            argnums=self.argnums,
            options=self.options,
        )
        return along.jvp(x, w), point.pushforward(w)

    @property
    def has_nested(self) -> bool:
        """Whether ``grad_fun`` has a backward pass of its own."""
        return isinstance(self.grad_fun, Gradiator) and self.grad_fun.grad_fun is not None

    def exact_nested_vjp(self, x: Any, v: Any, w: Any) -> tuple[Any, Any]:
        """``nested_vjp`` by the backward pass of ``grad_fun``."""
        if not self.has_nested:
            raise ValueError(
                "a nested VJP needs the backward pass of grad_fun: give "
                "gradiator(fun, gradiator(grad_fun, its_vjp)) with "
                "its_vjp((x, v), w) -> (Hessian product, J w)"
            )
        hessian, jw = self.grad_fun.grad_fun((x, v), w)  # type: ignore[union-attr]
        return hessian, jw

    def hvp(self, x: Any, w: Any) -> Any:
        """Product of the Hessian of a single output with w, shape of x."""
        return self.nested_vjp(x, 1.0, w)[0]


class _Each:
    """Calls a function for each point of a leading axis and stacks what comes back."""

    def __init__(self, moved: tuple[int, ...], context: bool) -> None:
        self.moved = moved
        self.context = context

    def values(self, fun: Callable[..., Any]) -> Callable[..., Any]:
        """``fun(*x)``, with its contexts as a list."""

        def over(*x: Any) -> Any:
            out = [fun(*point) for point in self._points(x)]
            if not self.context:
                return _stacked(out)
            return _stacked([y for y, _ in out]), [context for _, context in out]

        return over

    def products(self, fun: Callable[..., Any] | None) -> Callable[..., Any] | None:
        """``fun(x, *direction, *context)``, a derivative."""
        if fun is None:
            return None

        def over(x: Any, *rest: Any) -> Any:
            several = isinstance(x, tuple)
            points = self._points(x if several else (x,))
            rows = zip(*(zip(*r) if isinstance(r, tuple) else r for r in rest), strict=True)
            directions = rows if rest else ((),) * len(points)
            return _stacked(
                [
                    fun(point if several else point[0], *row)
                    for point, row in zip(points, directions, strict=True)
                ]
            )

        return over

    def _points(self, x: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        count = len(x[self.moved[0]])
        return [
            tuple(a[i] if j in self.moved else a for j, a in enumerate(x)) for i in range(count)
        ]


def _stacked(results: list[Any]) -> Any:
    if isinstance(results[0], tuple):
        return tuple(np.stack(column) for column in zip(*results, strict=True))
    return np.stack(results)
