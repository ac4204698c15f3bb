"""Compositions of functions, differentiated in the cheapest order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Unpack

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._chain.errors import ChainEstimate, Part
from gradiator_np._chain.plan import MULTIPLY_ADD, ChainPlan, plan_chain
from gradiator_np._chain.stages import Stage, StageCosts, as_stage, product_costs
from gradiator_np._differentiable.function import Gradiator
from gradiator_np._differentiable.inputs import name_of, own
from gradiator_np._differentiable.point import DifferentiablePoint
from gradiator_np._operators import PointOperator
from gradiator_np._options import GradiatorOptions, takes
from gradiator_np._structure import Layout, blocks


@takes(GradiatorOptions)
class Chain:
    """A composition ``x -> stage_q(... stage_1(x))``, differentiated in the cheapest order.

    Parameters
    ----------
    *stages
        First applied first. Each is a ``Gradiator``; a plain or jitted function (its derivatives
        are estimated); a matrix (2-D array, sparse matrix) or ``LinearOperator``, applied to the
        flattened input; a pair ``(vjp, jvp)`` of functions of one argument, the products of a
        linear stage; or a ``Chain``, whose stages are taken over. A nonlinear stage with
        derivatives is ``gradiator(fun, vjp, jvp_fun=jvp)``.
    costs : sequence of (StageCosts or None), optional
        What stages cost, where it is not to be measured.
    multiply : float
        Seconds of one multiply-add in a product of matrices.
    **estimation_options
        For the derivatives of plain functions; see ``gradiator``.

    Notes
    -----
    Jacobians of black boxes are formed where that is cheaper than pushing tangents through them:
    m -> w -> n with two black boxes and "2-point" costs m + w + 2 evaluations, not 2 (m + 1).
    Costs are in seconds throughout; see ``plan``.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import Chain
    >>> chain = Chain(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 1.0]]))
    >>> chain.jacobian(np.zeros(2))
    array([[4., 6.]])

    Second derivatives of a chain whose stages all have derivatives are differences of its Jacobian:

    >>> from gradiator_np import gradiator, hessian
    >>> square = gradiator(lambda x: x**2, lambda x, v: 2 * x * v)
    >>> found = hessian(Chain(square, np.array([[1.0, 2.0]])), [1.0, 2.0])
    >>> found.hess.round(6), found.design
    (array([[[2., 0.],
            [0., 4.]]]), 'gradients, auto')
    """

    def __init__(
        self,
        *stages: Any,
        costs: Sequence[StageCosts | None] | None = None,
        multiply: float = MULTIPLY_ADD,
        **estimation_options: Unpack[GradiatorOptions],
    ) -> None:
        if not stages:
            raise ValueError("a chain needs at least one stage")
        flat: list[Stage] = []
        for stage in stages:
            if isinstance(stage, Chain):
                flat.extend(stage._stages)
            else:
                flat.append(as_stage(stage, estimation_options))
        self._stages: tuple[Stage, ...] = tuple(flat)
        given = [None] * len(self._stages) if costs is None else list(costs)
        if len(given) != len(self._stages):
            raise ValueError(
                f"costs has {len(given)} entries for {len(self._stages)} stages; give one each, "
                "None where it is to be measured"
            )
        self.costs = [StageCosts() if c is None else StageCosts(*c) for c in given]
        self.multiply = multiply
        self._latest: LinearizedChain | None = None

    def __repr__(self) -> str:
        names = [
            name_of(stage.function.fun) if stage.matrix is None
            else "{} x {} matrix".format(*stage.matrix.shape)
            for stage in self._stages
        ]  # fmt: skip
        return f"Chain({' -> '.join(names)}: {self.nfev} evaluations so far)"

    @property
    def stages(self) -> tuple[Gradiator, ...]:
        """The stages as differentiable functions, first applied first."""
        return tuple(stage.function for stage in self._stages)

    @property
    def nfev(self) -> int:
        """Evaluations of stages so far, summed over those that are no matrices."""
        return sum(s.function.nfev for s in self._stages if s.matrix is None)

    def __call__(self, x: Any) -> Any:
        self._latest = LinearizedChain(self, own(x))
        return self._latest.value

    def linearize(self, x: Any) -> LinearizedChain:
        """Run the chain at x and keep what belongs to it.

        Returns
        -------
        LinearizedChain
            Unpacks to ``value, pushforward, pullback``.
        """
        latest = self._latest
        if latest is not None and np.array_equal(latest.x, x):
            return latest.again()
        return LinearizedChain(self, own(x))

    def vjp(self, x: Any, v: Any) -> Any:
        """v^T J at x (no conjugate), shape of x, for v of the shape of y."""
        return self.linearize(x).pullback(v)

    def jvp(self, x: Any, u: Any) -> Any:
        """J u at x, shape of y, for u of the shape of x."""
        return self.linearize(x).pushforward(u)

    def jacobian(self, x: Any) -> Any:
        """The Jacobian at x, shape ``y.shape + x.shape``."""
        return self.linearize(x).jacobian()

    def _given_jacobian(self) -> Callable[..., Any] | None:
        """The Jacobian, where the derivatives given determine it."""
        return self.jacobian if all(stage._given() for stage in self.stages) else None

    def estimate(self, x: Any) -> ChainEstimate:
        """The Jacobian at x with its standard errors.

        Returns
        -------
        ChainEstimate
            ``jac`` and ``stderr`` of the shape ``y.shape + x.shape``, and those of products.
        """
        return self.linearize(x).estimate()

    def plan(
        self, x: Any = None, product: Literal["jacobian", "vjp", "jvp"] = "jacobian"
    ) -> ChainPlan:
        """The order chosen at x, with its cost in seconds beside those of the plain orders.

        Parameters
        ----------
        x : array_like, optional
            The point of the latest call by default. The chain is run there where it has not been;
            no derivative is.
        product : {"jacobian", "vjp", "jvp"}

        Returns
        -------
        ChainPlan
            Its text is what to print.
        """
        if x is None:
            if self._latest is None:
                raise ValueError("sizes and costs are not known yet: give x, or call the chain")
            x = self._latest.x
        return self.linearize(x).plan(product)


class LinearizedChain(PointOperator):
    """A chain at one point: ``value, pushforward, pullback``.

    Jacobians of stages that one product had to form serve the next ones. SciPy takes it for a
    linear operator.

    Attributes
    ----------
    chain : Chain
    x : array_like or dict
    points : list of DifferentiablePoint
        Each stage at the value of the one before.
    x_layout, y_layout : Layout
        How the input lies in a flat vector of m numbers, and the output in one of n.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import Chain
    >>> point = Chain(np.array([[1.0, 2.0], [3.0, 4.0]]), np.sum).linearize(np.ones(2))
    >>> point.value, point.pullback(1.0).round(6)
    (np.float64(10.0), array([4., 6.]))
    """

    def __init__(
        self, chain: Chain, x: Any, points: Sequence[DifferentiablePoint] | None = None
    ) -> None:
        self.chain = chain
        self.x = x
        if points is None:
            points = []
            for stage in chain.stages:
                point = DifferentiablePoint(stage, (x,), keep=True)
                points.append(point)
                x = point.value
        self.points = list(points)

    def __repr__(self) -> str:
        return (
            f"LinearizedChain({len(self.points)} stages, x of shape {self.x_layout.shapes}, "
            f"y of shape {self.y_layout.shapes})"
        )

    def again(self) -> LinearizedChain:
        """The same point and values, without the Jacobians made from them."""
        points = [point.again(keep=True) for point in self.points]
        return LinearizedChain(self.chain, self.x, points)

    @property
    def value(self) -> Any:
        """The chain at this point."""
        return self.points[-1].value

    @property
    def x_layout(self) -> Layout:
        """How the input lies in a flat vector of m numbers."""
        return self.points[0].x_layout

    @property
    def y_layout(self) -> Layout:
        """How the output lies in a flat vector of n numbers."""
        return self.points[-1].y_layout

    def pushforward(self, u: Any) -> Any:
        """J u for u of the shape of x, or several on a leading axis."""
        flat, lead = checks.direction(u, self.x_layout, "u")
        columns = flat.reshape(-1, self.x_layout.size).T
        out = self._product("jvp", columns).T
        return self.y_layout.unflatten(out if lead else out[0])

    def pullback(self, v: Any) -> Any:
        """v^T J for v of the shape of y (no conjugate), or several on a leading axis."""
        flat, lead = checks.direction(v, self.y_layout, "v")
        out = self._product("vjp", flat.reshape(-1, self.y_layout.size))
        return self.x_layout.unflatten(out if lead else out[0])

    def _layouts(self) -> tuple[Layout, Layout]:
        return self.y_layout, self.x_layout

    def _is_complex(self) -> bool:
        return any(point._is_complex() for point in self.points)

    def _jvp_rows(self, tangents: NDArray[Any]) -> NDArray[Any]:
        return self._product("jvp", tangents.T).T

    def _vjp_rows(self, cotangents: NDArray[Any]) -> NDArray[Any]:
        return self._product("vjp", cotangents)

    def jacobian(self) -> Any:
        """The Jacobian, shape ``y.shape + x.shape``."""
        return blocks(self.matrix(), self.y_layout, self.x_layout)

    def matrix(self) -> NDArray[Any]:
        """The Jacobian as a flat array, shape (n, m)."""
        return self._product("jacobian", None)

    # -- the order -----------------------------------------------------------------------------

    def plan(
        self, product: Literal["jacobian", "vjp", "jvp"] = "jacobian", several: int = 1
    ) -> ChainPlan:
        """The order chosen for a product, with ``several`` tangents or cotangents."""
        checks.choice(product, ("jacobian", "vjp", "jvp"), "product")
        dims = [point.x_layout.size for point in self.points] + [self.y_layout.size]
        costs = [
            product_costs(*parts, self.chain.multiply)
            for parts in zip(self.chain._stages, self.points, self.chain.costs, strict=True)
        ]
        names = [f"J{j + 1}" for j in range(len(self.points))]
        # A seed is one more factor: a matrix that is at hand.
        if product == "jvp":
            dims, names = [several, *dims], ["u", *names]
            costs = [_at_hand(dims[1], several, self.chain.multiply), *costs]
        elif product == "vjp":
            dims, names = [*dims, several], [*names, "v"]
            costs = [*costs, _at_hand(several, dims[-2], self.chain.multiply)]
        tangent, adjoint, accumulate = zip(*costs, strict=True)
        return plan_chain(
            dims, tangent, adjoint, accumulate, multiply=self.chain.multiply, names=names
        )

    def _product(
        self, product: Literal["jacobian", "vjp", "jvp"], seed: NDArray[Any] | None
    ) -> NDArray[Any]:
        several = 1 if seed is None else seed.shape[product == "jvp"]
        plan = self.plan(product, several)
        factors = [
            _Factor(stage.matrix, point)
            for stage, point in zip(self.chain._stages, self.points, strict=True)
        ]
        if product == "jvp":
            factors.insert(0, _Factor(seed, None))
        elif product == "vjp":
            factors.append(_Factor(seed, None))
        stack: list[Any] = []
        for name, first, last, how in plan.operations:
            if name == "accumulate":
                stack.append(factors[first].formed(how))
            elif name == "product":
                right = stack.pop()
                stack.append(stack.pop() @ right)
            elif name == "tangent":
                for factor in factors[first : last + 1]:
                    stack.append(factor.push(stack.pop()))
            else:
                for factor in factors[first : last + 1][::-1]:
                    stack.append(factor.pull(stack.pop()))
        (out,) = stack
        return _dense(out)

    # -- errors --------------------------------------------------------------------------------

    def estimate(self) -> ChainEstimate:
        """The Jacobian with its standard errors.

        Forms the Jacobian of every stage that is estimated, m evaluations of a stage with m
        inputs, unless a product formed it before.
        """
        own = [
            _dense(_Factor(stage.matrix, point).formed())
            for stage, point in zip(self.chain._stages, self.points, strict=True)
        ]
        right = [np.eye(self.x_layout.size)]
        for a in own:
            right.append(a @ right[-1])
        left = [np.eye(self.y_layout.size)]
        for a in own[::-1]:
            left.append(left[-1] @ a)
        parts = [
            Part(left[-2 - j], point.estimate().covariance, right[j])
            for j, point in enumerate(self.points)
            if self.chain._stages[j].matrix is None and not point.exact
        ]
        return ChainEstimate(right[-1], tuple(parts), self.x_layout, self.y_layout, self.value)


class _Factor(NamedTuple):
    """One Jacobian of the product: a matrix that is at hand, or a stage at its point."""

    matrix: Any
    point: DifferentiablePoint | None

    def formed(self, how: str = "given") -> Any:
        """The matrix itself, by what a plan found cheapest."""
        if self.matrix is not None:
            return self.matrix
        assert self.point is not None
        if how == "tangent":
            return self.push(np.eye(self.point.x_layout.size))
        if how == "adjoint":
            return self.pull(np.eye(self.point.y_layout.size))
        return self.point.matrix()

    def push(self, columns: NDArray[Any]) -> NDArray[Any]:
        """J times a matrix, column by column."""
        if self.matrix is not None:
            return _dense(self.matrix @ columns)
        assert self.point is not None
        several = self.point.x_layout.unflatten(np.ascontiguousarray(_dense(columns).T))
        return self.point.y_layout.flatten(self.point.pushforward(several), 1).T

    def pull(self, rows: NDArray[Any]) -> NDArray[Any]:
        """A matrix times J, row by row."""
        if self.matrix is not None:
            return _dense(rows @ self.matrix)
        assert self.point is not None
        several = self.point.y_layout.unflatten(np.ascontiguousarray(_dense(rows)))
        return self.point.x_layout.flatten(self.point.pullback(several), 1)


def _at_hand(rows: int, columns: int, multiply: float) -> tuple[float, float, float]:
    """Costs of a matrix that is there already."""
    one = multiply * rows * columns
    return one, one, 0.0


def _dense(a: Any) -> NDArray[Any]:
    return np.asarray(a.toarray() if hasattr(a, "toarray") else a)
