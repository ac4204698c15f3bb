"""A differentiable function at one point: its value and the products with its Jacobian."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._differentiable.batch import scale_in_batch
from gradiator_np._differentiable.inputs import (
    PartialFunction,
    expect,
    has_tuples,
    join,
    name_of,
    own,
    own_output,
    rows_of,
    shaped_like,
    stacked,
    tree,
    untree,
    zeros_like,
)
from gradiator_np._differentiable.owner import Argnums, ForwardRun, Owner
from gradiator_np._differentiable.reuse import Memory
from gradiator_np._estimate import jacobian
from gradiator_np._linearize import CornerError, jvp, vjp
from gradiator_np._operators import PointOperator
from gradiator_np._results import JacobianEstimate
from gradiator_np._samples import SampleError
from gradiator_np._status import Status
from gradiator_np._structure import Layout, blocks
from gradiator_np._typing import Array

if TYPE_CHECKING:
    from gradiator_np._compressed import SparseJacobianEstimate

# Entries of a Jacobian that is stored for a single VJP: at 10 x 10 and "2-point" that took 108
# microseconds, its contraction on arrival 148. The noise-aware default stores larger ones too:
# only whole Jacobians pass on what was learned of the noise, a third of the evaluations.
SMALL, SMALL_AUTO = 1024, 2**20


class DifferentiablePoint(PointOperator):
    """A differentiable function at one point: ``value, pushforward, pullback``.

    SciPy takes it for a linear operator, by ``pushforward`` and ``pullback``.

    What the forward run computed (the value, the context) serves the products, and a Jacobian
    that one product had to estimate serves the next ones where ``keep`` is set.

    Attributes
    ----------
    args : tuple
        The positional inputs.
    where : int or tuple of int
        Those to differentiate by; products take and give one array for an int.
    x_layout, y_layout : Layout
        How the inputs to differentiate by lie in a flat vector of m numbers, and the outputs in
        one of n.
    keep : bool
        Keep an estimated Jacobian, n times m numbers, for further products.

    Examples
    --------
    >>> from gradiator_np import gradiator
    >>> point = gradiator(lambda x: x**2, method="3-point").linearize([2.0, 3.0])
    >>> point.value, point.pushforward([1.0, 0.0]).round(6)
    (array([4., 9.]), array([4., 0.]))
    """

    def __init__(
        self,
        owner: Owner,
        args: tuple[Any, ...],
        argnums: Argnums = None,
        *,
        keep: bool = False,
        forward: ForwardRun | None = None,
    ) -> None:
        self.owner = owner
        self.args = args
        self.keep = keep
        if argnums is None:
            argnums = owner.argnums
        if argnums is None:
            argnums = 0 if len(args) == 1 else tuple(range(len(args)))
        self.where = argnums
        try:
            z = self._moved()
        except IndexError:
            raise ValueError(f"argnums={argnums}, but only {len(args)} inputs were given") from None
        self.x_layout = Layout.of(tree(z), owner.batch_dims)
        self._forward = forward
        self._estimate: Any = None
        self._matrix: NDArray[Any] | None = None
        self._hessian: NDArray[Any] | None = None  # (n, m, m), once it was estimated
        self._spent = 0  # runs of second derivatives before that
        self._rows: list[DifferentiablePoint] = []  # those of a batch, once they were needed

    def __repr__(self) -> str:
        y = f"y of shape {self.y_layout.shapes}" if self._forward else "not run yet"
        name, x = name_of(self.owner.fun), self.x_layout.shapes
        return f"DifferentiablePoint({name}, x of shape {x}, {y})"

    # -- the forward run -----------------------------------------------------------------------

    @property
    def value(self) -> Any:
        """``fun`` at this point; runs it where it has not run yet."""
        return self._run().value

    @property
    def y_layout(self) -> Layout:
        """How the outputs lie in a flat vector of n numbers."""
        return self._run().y_layout

    def _run(self) -> ForwardRun:
        """Run ``fun`` here, once."""
        if self._forward is not None:
            return self._forward
        owner = self.owner
        started = time.perf_counter()
        out = owner.fun(*(self._lifted() if owner.options.get("vectorized") else self.args))
        owner.counts.add("fun", started)
        context = None
        if owner.context:
            if not (isinstance(out, tuple) and len(out) == 2):
                raise ValueError(
                    f"with context=True fun must return (y, context), got {type(out).__name__}"
                )
            out, context = out
        out = own_output(out)
        if owner.options.get("vectorized"):
            out = tuple(part[0] for part in out) if isinstance(out, tuple) else out[0]
        self._forward = forward = ForwardRun.of(out, owner.batch_dims, context)
        if owner._memory is not None:
            owner._memory.add(self._flat_x()[None], self._flat_y()[None])
        return forward

    # -- products ------------------------------------------------------------------------------

    def pushforward(self, u: Any) -> Any:
        """J u for u of the shape of x, or several on a leading axis."""
        owner = self.owner
        if owner.jvp_fun is not None:
            return self._several(self._jvp, u, self.x_layout, "u")
        estimated = self._matrix is None and owner.jac_fun is None and not self._one_row()
        if estimated and not self._empty:
            try:
                return self._estimated_jvp(u)
            except CornerError:  # inputs one by one still have a way to go
                pass
        flat, _ = checks.direction(tree(u), self.x_layout, "u")
        out = (self.matrix() @ flat[..., None])[..., 0]
        return shaped_like(self.y_layout.unflatten(out), self.value)

    def pullback(self, v: Any, wanted: tuple[bool, ...] | None = None) -> Any:
        """v^T J for v of the shape of y (no conjugate), or several on a leading axis.

        ``wanted`` tells, for each input to differentiate by, whether its part is of interest; one
        that is not may be 0.
        """
        owner = self.owner
        if owner.grad_fun is not None:
            grad = functools.partial(self._grad, wanted=wanted)
            return self._several(grad, v, self._known_y_layout(), "v")
        if self._sparse is not None and not self._empty:
            return self._as_x(self._sparse_estimate().vjp(tree(v)))
        estimated = self._matrix is None and not self.exact and not self.keep
        if estimated and self._large() and not self._empty:
            return self._estimated_vjp(v)
        flat, lead = checks.direction(tree(v), self.y_layout, "v")
        if owner._memory is None or self.keep or lead or self.exact or self._empty:
            matrix = self.matrix()
        else:
            matrix = self._trusted(self._remembered(owner._memory, np.square(np.abs(flat))))
        out = (flat[..., None, :] @ matrix)[..., 0, :]
        return self._as_x(self.x_layout.unflatten(out))

    def _layouts(self) -> tuple[Layout, Layout]:
        return self.y_layout, self.x_layout

    def _is_complex(self) -> bool:
        return "c" in (
            self._flat_y().dtype.kind,
            self.x_layout.flatten(tree(self._moved())).dtype.kind,
        )

    def _jvp_rows(self, tangents: NDArray[Any]) -> NDArray[Any]:
        out = self.pushforward(self._as_x(self.x_layout.unflatten(tangents)))
        return self.y_layout.flatten(tree(out), 1)

    def _vjp_rows(self, cotangents: NDArray[Any]) -> NDArray[Any]:
        v = untree(self.y_layout.unflatten(cotangents), isinstance(self.value, tuple))
        return self.x_layout.flatten(tree(self.pullback(v)), 1)

    def jacobian(self) -> Any:
        """The Jacobian, shape ``y.shape + x.shape``; tuples where there are several."""
        owner = self.owner
        if owner.jac_fun is not None:
            return self._given("jac")
        out = blocks(self.matrix(), self.y_layout, self.x_layout)
        if self.y_layout.fields is not None and isinstance(self.value, tuple):
            return tuple(self._as_x(block) for block in out.values())
        return self._as_x(out)

    @property
    def formed(self) -> bool:
        """Whether the Jacobian is at hand."""
        return self._matrix is not None

    @property
    def exact(self) -> bool:
        """Whether derivatives given determine the Jacobian."""
        owner = self.owner
        given = (owner.grad_fun, owner.jvp_fun, owner.jac_fun)
        return any(function is not None for function in given)

    def matrix(self) -> NDArray[Any]:
        """The Jacobian as flat arrays, shape batch + (n, m)."""
        if self._empty:
            return np.zeros((*self.x_layout.batch, self.y_layout.size, self.x_layout.size))
        if self._matrix is None:
            out = self._own_matrix() if self.exact else self._estimated_matrix()
            if not self.keep:
                return out
            self._matrix = out
        return self._matrix

    def _own_matrix(self) -> NDArray[Any]:
        """The Jacobian from the derivatives given, with the fewest calls."""
        owner, x, y = self.owner, self.x_layout, self.y_layout
        if owner.jac_fun is not None:
            return join(tree(self._given("jac")), y, x)
        adjoints = owner.grad_fun is not None
        if adjoints and owner.jvp_fun is not None:
            adjoints = y.size <= x.size
        source = y if adjoints else x
        parts = []
        for e in np.eye(source.size):
            e = np.broadcast_to(e, (*source.batch, source.size)).copy()
            if adjoints:
                v = shaped_like(y.unflatten(e), self.value)
                parts.append(x.flatten(tree(self._grad(v))))
            else:
                parts.append(y.flatten(tree(self._jvp(self._as_x(x.unflatten(e))))))
        return np.stack(parts, axis=-2 if adjoints else -1)

    @property
    def _empty(self) -> bool:
        """Whether the Jacobian has no entries: products with it are sums of nothing."""
        return 0 in (self.x_layout.size, self.y_layout.size, *self.x_layout.batch)

    def _large(self) -> bool:
        """Whether the Jacobian is worth contracting on arrival rather than storing."""
        auto = self.owner.options.get("method", "auto") == "auto"
        most = SMALL_AUTO if auto else SMALL
        return self.owner._memory is None and self.x_layout.size * self.y_layout.size > most

    def _one_row(self) -> bool:
        """Whether a single VJP that is given is the whole Jacobian."""
        return self.owner.grad_fun is not None and self.y_layout.size == 1

    # -- derivatives given ---------------------------------------------------------------------

    def _point(self) -> Any:
        return self.args[0] if len(self.args) == 1 else self.args

    def _known_y_layout(self) -> Layout | None:
        return None if self._forward is None else self._forward.y_layout

    def _given(self, name: str, *direction: Any, **told: Any) -> Any:
        """What a derivative that was given returns here, counted."""
        owner = self.owner
        extra = (self._run().context,) if owner.context else ()
        started = time.perf_counter()
        out = getattr(owner, f"{name}_fun")(self._point(), *direction, *extra, **told)
        owner.counts.add(name, started)
        return out

    def _grad(self, v: Any, wanted: tuple[bool, ...] | None = None) -> Any:
        if not self.owner.selective:
            return expect(own(self._given("grad", v)), self.x_layout, "grad_fun", "x")
        several, moved = not isinstance(self.where, int), self._moved()
        wanted = wanted or (True,) * (len(moved) if several else 1)
        out = self._given("grad", v, needs_input_grad=wanted)
        if several and isinstance(out, tuple) and len(out) == len(wanted):  # None: not computed
            out = tuple(
                zeros_like(x) if g is None and not want else g
                for g, x, want in zip(out, moved, wanted, strict=True)
            )
        return expect(own(out), self.x_layout, "grad_fun", "x")

    def _jvp(self, u: Any) -> Any:
        out, y_layout = own(self._given("jvp", u)), self._known_y_layout()
        return out if y_layout is None else expect(out, y_layout, "jvp_fun", "y")

    def _several(
        self, call: Callable[[Any], Any], value: Any, layout: Layout | None, what: str
    ) -> Any:
        """Apply ``call`` to ``value``, or to each of several on a leading axis."""
        if layout is None or layout.lead_axes(tree(value), what) == 0:
            return call(value)
        return stacked([call(item) for item in rows_of(value)])

    def _as_x(self, tree: Any) -> Any:
        return untree(tree, not isinstance(self.where, int))

    # -- estimates -----------------------------------------------------------------------------

    @property
    def _sparse(self) -> Any:
        """The pattern of a Jacobian that has to be estimated; None where there is none."""
        return None if self.exact else self.owner.options.get("sparsity")

    def _sparse_estimate(self) -> SparseJacobianEstimate:
        """The sparse Jacobian, or an error where something of it is unknown."""
        found: SparseJacobianEstimate = self.estimate()
        if found.status in (Status.UNDETERMINED, Status.FAILED_RUNS):
            lost = np.isinf(found.data_stderr)
            columns = found.coloring.pattern.indices
            free = self._free()
            if free is not None:
                lost = lost & free[..., columns]
            if lost.any():
                raise self._unknown(columns[lost.reshape(-1, len(columns)).any(0)], found)
        return found

    def _estimated_matrix(self) -> NDArray[Any]:
        if self._sparse is None:
            return self._trusted(self.estimate())
        return self._sparse_estimate().toarray()

    def estimate(self) -> Any:
        """The Jacobian estimated here, with its error bars; kept where ``keep`` is set.

        Returns
        -------
        JacobianEstimate, or SparseJacobianEstimate with ``sparsity``
        """
        if self._estimate is not None:
            return self._estimate
        if self.owner._memory is not None:
            out = self._remembered(self.owner._memory, None)
        else:
            fun, z, options = self._problem()
            if "workers" in options:  # nobody would end the processes that a prepared one keeps
                out = jacobian(fun, z, sparsity=self._sparse, **options)
            else:
                out = self.owner._prepared.jacobian(fun, z, self.x_layout, options, self._sparse)
            self.owner.counts.fun += out.nfev
        if self.keep:
            self._estimate = out
        return out

    def _remembered(self, memory: Memory, weights: Array | None) -> JacobianEstimate:
        """The Jacobian from earlier samples, with new ones where they do not suffice."""
        fun, z, _ = self._problem()
        layouts = self.x_layout, self.y_layout
        out = memory.estimate(fun, z, self._flat_x(), self._flat_y(), layouts, weights)
        self.owner.counts.fun += out.nfev
        return out

    def _flat_x(self) -> Array:
        return np.asarray(self.x_layout.flatten(tree(self._moved())), dtype=np.float64)

    def _flat_y(self) -> NDArray[Any]:
        return self.y_layout.flatten(tree(self.value))

    def _estimated_jvp(self, u: Any) -> Any:
        fun, z, options = self._problem()
        out = jvp(fun, z, tree(u), **options)
        self.owner.counts.fun += out.nfev
        self._trusted(out.estimate, along=True)
        return shaped_like(out.value, self.value)

    def _estimated_vjp(self, v: Any) -> Any:
        fun, z, options = self._problem()
        out = vjp(fun, z, tree(v), **options)
        self.owner.counts.fun += out.nfev
        self._trusted(out.estimate)
        return self._as_x(out.value)

    def _trusted(self, found: JacobianEstimate, *, along: bool = False) -> NDArray[Any]:
        """The flat Jacobian, or an error: optimisers and training must not take 0 for unknown.

        Inputs with equal bounds are meant to stay where they are: their columns are 0. ``along``:
        the columns are tangents, not inputs.
        """
        # Asking for the status solves for the errors too, which is most of the time of an estimate
        # of a fast function: only failures, bounds and old samples can leave something unknown.
        suspect = found.n_failed or "bounds" in self.owner.options or self.owner._memory is not None
        if suspect and found.solution.status in (Status.UNDETERMINED, Status.FAILED_RUNS):
            lost = np.isinf(found.solution.cov.stderr())
            free = None if along else self._free()
            if free is not None:
                lost = lost & free[..., None, :]
            if lost.any():
                raise self._unknown(np.argwhere(lost)[:, -1], found, found.frame.x_layout)
        return found.solution.coef

    def _free(self) -> NDArray[np.bool_] | None:
        """Inputs that bounds leave room to move; None without bounds."""
        if "bounds" not in self.owner.options:
            return None
        flat = self.x_layout.flatten(tree(self._moved()))
        low, high = checks.bounds(self.owner.options["bounds"], flat, self.x_layout)
        return np.asarray(low != high)

    def _unknown(
        self, inputs: NDArray[Any], found: Any, layout: Layout | None = None
    ) -> SampleError:
        """The error for derivatives by some inputs, or tangents, that no run determines."""
        names = (layout or self.x_layout).listed("x", np.unique(inputs))
        return SampleError(
            f"no run determines the derivative by {names}: {found.message}. estimate(x).jac has "
            "the least-norm value there",
            found.samples,
        )

    def _problem(self) -> tuple[Callable[..., Any], Any, dict[str, Any]]:
        """What the estimators take: a function of the inputs to move, those, and the options."""
        owner, value = self.owner, self.value
        options = {**owner.options, "f0": tree(value)}
        options.pop("sparsity", None)
        if owner.batch_dims and options.get("x_scale") is None:
            options["x_scale"] = scale_in_batch(self._flat_x(), self.x_layout)
        whole = self.where == 0 and len(self.args) == 1
        if whole and not owner.context and not (has_tuples(value) or has_tuples(self.args[0])):
            return owner.fun, self.args[0], options
        partial = PartialFunction(owner.fun, self.args, self.where, owner.context)
        return partial, tree(self._moved()), options

    def _lifted(self) -> tuple[Any, ...]:
        """The inputs with a leading axis of one point, for functions of many points at once."""
        where = (self.where,) if isinstance(self.where, int) else self.where
        return tuple(np.asarray(a)[None] if i in where else a for i, a in enumerate(self.args))

    def _moved(self) -> Any:
        if isinstance(self.where, int):
            return self.args[self.where]
        return tuple(self.args[i] for i in self.where)

    def again(self, argnums: Argnums = None, *, keep: bool = False) -> DifferentiablePoint:
        """The same point and value, by other inputs if asked, without the estimates made here."""
        argnums = self.where if argnums is None else argnums
        return DifferentiablePoint(self.owner, self.args, argnums, keep=keep, forward=self._forward)

    def elsewhere(self, args: tuple[Any, ...], value: Any) -> DifferentiablePoint:
        """Another point, where the value is known too, of the same structure and shapes."""
        out = object.__new__(type(self))
        known = ForwardRun(value, self.y_layout, None)
        out.__dict__ = self.__dict__ | {"args": args, "_forward": known, "_estimate": None,
                                        "_matrix": None, "_hessian": None, "_spent": 0,
                                        "_rows": []}  # fmt: skip
        return out
