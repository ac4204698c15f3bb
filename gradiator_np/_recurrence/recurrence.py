"""Time stepping: tangents forward, adjoints backward, in memory that does not grow with time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._differentiable.function import exact_nested_vjp
from gradiator_np._differentiable.point import DifferentiablePoint
from gradiator_np._options import GradiatorOptions, takes
from gradiator_np._recurrence.parts import array, given_loss, part, with_tangents
from gradiator_np._recurrence.revolve import sweep

Cotangent = Callable[[Any, int], Any]


@dataclass
class StepCounts:
    """What a recurrence has done so far.

    Attributes
    ----------
    forward : int
        Steps run.
    pullback, pushforward, nested : int
        VJPs, JVPs and nested VJPs of a step.

    Examples
    --------
    >>> from gradiator_np import Recurrence
    >>> decay = Recurrence(lambda x, theta, i: x * theta, 10)
    >>> final = decay([2.0], [0.5])
    >>> decay.counts
    StepCounts(forward=10, pullback=0, pushforward=0, nested=0)
    """

    forward: int = 0
    pullback: int = 0
    pushforward: int = 0
    nested: int = 0


@takes(GradiatorOptions)
class Recurrence:
    r"""A differentiable time stepping :math:`x_{i+1} = h(x_i, \theta, i)`, i = 0 ... N - 1.

    As a function it maps ``(x0, theta)`` to the observations :math:`p_i = p(x_i, i)`,
    i = 0 ... N, stacked on a leading axis, or to the final state where nothing is observed.

    Parameters
    ----------
    step : callable or Gradiator
        ``step(x, theta, i)``, the next state, of the shape of x. A ``Gradiator`` brings
        derivatives: ``grad_fun((x, theta, i), v) -> (v^T dh/dx, v^T dh/dtheta)`` and
        ``jvp_fun((x, theta, i), (u, w))``. What is missing is estimated.
    n_steps : int
        N.
    observe : callable or Gradiator, optional
        ``observe(x, i)``, an array of any shape, the same at every step; derivatives by x.
    loss : callable or Gradiator, optional
        ``loss(p, i)``, a number; losses are summed over i. p is the state where nothing is
        observed. Derivatives by p.
    checkpoints : int, optional
        States that are kept on the way to a VJP, the initial one counted; steps are run again
        from them, as few as can be (see Notes). All states by default.
    **estimation_options
        For derivatives that are not given; see ``gradiator``.

    Attributes
    ----------
    counts : StepCounts
        Steps and products so far; ``nfev`` is the number of evaluations of ``step``, those spent
        on estimates included.

    Notes
    -----
    A VJP with exact derivatives costs N pullbacks and, with c checkpoints, r N - C(c + r, c + 1)
    steps, the fewest that there are: r is the least number with C(c + r, c) >= N (binomial
    checkpointing). A loss, or an observation of the final state, costs one step more. One step
    with estimated derivatives costs n + p + 1 evaluations at least for a VJP (n states, p
    parameters), two for a JVP.

    References
    ----------
    Griewank and Walther, *Evaluating Derivatives*, 2nd ed., SIAM 2008, ch. 3 and 12.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import Recurrence
    >>> decay = Recurrence(lambda x, theta, i: x * theta, 10, loss=lambda x, i: float(x[0]))
    >>> by_x0, by_theta = decay.gradient(np.array([2.0]), np.array([0.5]))
    >>> by_x0.round(6), by_theta.round(6)  # the sum of 2 theta^i, i = 0 to 10
    (array([1.999023]), array([7.953125]))
    """

    def __init__(
        self,
        step: Callable[..., Any],
        n_steps: int,
        *,
        observe: Callable[..., Any] | None = None,
        loss: Callable[..., Any] | None = None,
        checkpoints: int | None = None,
        **estimation_options: Unpack[GradiatorOptions],
    ) -> None:
        self.n_steps = checks.integer(n_steps, "n_steps", 0)
        most = max(self.n_steps, 1) if checkpoints is None else checkpoints
        self.checkpoints = checks.integer(most, "checkpoints (the initial state is one)")
        self.step = part(step, (0, 1), estimation_options)
        self.observe = None if observe is None else part(observe, 0, estimation_options)
        self.loss = None if loss is None else part(loss, 0, estimation_options)
        self.counts = StepCounts()

    def __repr__(self) -> str:
        parts = [f"{self.n_steps} steps of {self.step!r}"]
        parts += [f"{n}={getattr(self, n)!r}" for n in ("observe", "loss") if getattr(self, n)]
        return f"Recurrence({', '.join(parts)})"

    @property
    def nfev(self) -> int:
        """Evaluations of ``step`` so far."""
        return self.step.nfev

    # -- the function and its products ---------------------------------------------------------

    def run(self, x0: Any, theta: Any) -> Any:
        """Observations, shape (N + 1, *p.shape), or the final state where nothing is observed."""
        if self.observe is None:
            return self._advance(array(x0), theta, 0, self.n_steps)
        return np.stack([self._observed(x, i) for i, x in self._states(x0, theta)])

    __call__ = run

    def value(self, x0: Any, theta: Any) -> float:
        """The sum of the losses."""
        loss = given_loss(self.loss)
        return float(sum(loss.fun(self._observed(x, i), i) for i, x in self._states(x0, theta)))

    def jvp(self, x0: Any, theta: Any, u: Any = None, w: Any = None) -> Any:
        """J (u, w), of the shape of ``run``: the tangent of ``run`` along u in x0 and w in theta.

        Parameters
        ----------
        u, w : array_like or None
            Tangents of the shapes of x0 and theta; None for zero.
        """
        out = []
        for i, x, xi in self._tangents(x0, theta, u, w):
            if self.observe is not None:
                out.append(DifferentiablePoint(self.observe, (x, i)).pushforward(xi))
        return np.stack(out) if out else xi

    def vjp(self, x0: Any, theta: Any, v: Any, *, states: Any = None) -> tuple[Any, Any]:
        """Cotangents of x0 and theta for a cotangent v of the shape of ``run`` (no conjugate).

        Parameters
        ----------
        states : array_like, shape (N + 1, *x.shape), optional
            The states, where they were recorded: none is run then, and ``x0`` may be None.
        """
        states = self._recorded(states, x0)
        x0, v = array(x0 if states is None else states[0]), array(v)
        if self.observe is None:
            if v.shape != x0.shape:
                raise ValueError(f"v has shape {v.shape}, expected {x0.shape}, that of the state")
            return self._adjoint(x0, theta, None, v, states)
        if v.shape[:1] != (self.n_steps + 1,):
            raise ValueError(
                f"v has shape {v.shape}, expected ({self.n_steps + 1}, ...): a cotangent for the "
                f"observation of each state from 0 to {self.n_steps}"
            )
        return self._adjoint(
            x0, theta, lambda x, i: self._pull_observation(x, i, v[i]), states=states
        )

    def gradient(self, x0: Any, theta: Any, *, states: Any = None) -> tuple[Any, Any]:
        """Gradient of the summed losses by x0 and by theta; ``states`` as in `vjp`."""
        return self.value_and_gradient(x0, theta, states=states)[1]

    def value_and_gradient(
        self, x0: Any, theta: Any, *, states: Any = None
    ) -> tuple[float, tuple[Any, Any]]:
        """The summed losses and their gradient by x0 and by theta, in one sweep back.

        Parameters
        ----------
        states : array_like, shape (N + 1, *x.shape), optional
            The states, where they were recorded: none is run then, and ``x0`` may be None.
        """
        loss = given_loss(self.loss)
        states = self._recorded(states, x0)
        total = 0.0

        def cotangent(x: Any, i: int) -> Any:
            nonlocal total
            at = DifferentiablePoint(loss, (self._observed(x, i), i))
            total += float(at.value)
            return self._pull_observation(x, i, at.pullback(1.0))

        x0 = array(x0 if states is None else states[0])
        gradient = self._adjoint(x0, theta, cotangent, states=states)
        return total, gradient

    def hvp(self, x0: Any, theta: Any, u: Any = None, w: Any = None) -> tuple[Any, Any]:
        """Product of the Hessian of the summed losses with (u, w), by x0 and by theta.

        Steps, observations and losses need a ``grad_fun``; see ``Gradiator.nested_vjp``.
        """
        loss = given_loss(self.loss)
        x0, theta, u, w = with_tangents(x0, theta, u, w)
        lam: Any = None
        mu: Any = None
        g_theta = np.zeros(theta.shape)

        def at_state(x: Any, xi: Any, i: int) -> tuple[Any, Any]:
            """Cotangent of state i by its own loss, and the derivative of that along xi."""
            if self.observe is None:
                beta = loss.vjp((x, i), 1.0)
                return beta, loss.nested_vjp((x, i), 1.0, xi)[0]
            p = self.observe.fun(x, i)
            beta = loss.vjp((p, i), 1.0)
            bent, q = self.observe.nested_vjp((x, i), beta, xi)
            d_beta = loss.nested_vjp((p, i), 1.0, q)[0]
            return self.observe.vjp((x, i), beta), self.observe.vjp((x, i), d_beta) + bent

        def pull(state: tuple[Any, Any], i: int) -> None:
            nonlocal lam, mu, g_theta
            x, xi = state
            if lam is None:
                lam, mu = at_state(*self._push_over(state, theta, w, i, i + 1), i + 1)
            self.counts.nested += 1
            (h_x, h_theta), _ = self.step.nested_vjp((x, theta, i), lam, (xi, w))
            m_x, m_theta = self._pull(x, theta, i, mu)
            l_x, _ = self._pull(x, theta, i, lam)
            g_theta = g_theta + h_theta + m_theta
            own, d_own = at_state(x, xi, i)
            lam, mu = l_x + own, m_x + h_x + d_own

        if self.n_steps == 0:
            return at_state(x0, u, 0)[1], g_theta
        sweep(
            self.n_steps,
            self.checkpoints,
            (x0, u),
            lambda s, i, j: self._push_over(s, theta, w, i, j),
            pull,
        )
        return mu, g_theta

    # -- the adjoint identity ------------------------------------------------------------------

    def functional(self, x0: Any, theta: Any, beta: Callable[..., Any], phi: Any, f: Any) -> Any:
        r""":math:`F = \sum_i f^T (\partial h_i/\partial\theta)^T \lambda_i`, by adjoints.

        The adjoints obey :math:`\lambda_{i-1} = (\partial h_i/\partial x_i)^T \lambda_i +
        (\partial p_i/\partial x_i)^T \beta_i(\phi)`.

        Parameters
        ----------
        beta : callable or Gradiator
            ``beta(phi, i)``, of the shape of the observation of state i (of the state where
            nothing is observed), i = 0 ... N.
        phi : array_like
            What beta depends on.
        f : array_like
            A direction in theta.
        """
        _, g_theta = self._adjoint(
            array(x0), theta, lambda x, i: self._pull_observation(x, i, beta(phi, i))
        )
        return np.sum(g_theta * array(f))

    def functional_gradient(
        self,
        x0: Any,
        theta: Any,
        beta: Callable[..., Any],
        phi: Any,
        f: Any,
        *,
        by: Literal["jvp", "nested"] = "jvp",
    ) -> Any:
        r"""Gradient of ``functional`` by phi: one product a step, whatever the size of the state.

        ``by="jvp"``: F is linear in the adjoints, so that its derivative by :math:`\beta_i` is
        the tangent of observation i along f, :math:`\xi_{i+1} = (\partial h_i/\partial\theta) f +
        (\partial h_i/\partial x_i) \xi_i`. ``by="nested"``: backwards through the adjoint
        recurrence: the VJP of ``(x, v) -> v^T J`` with the cotangent :math:`(\xi, f)` holds the
        same tangent in its slot for v. That slot does not depend on v, so no adjoint is computed.

        Returns
        -------
        array, shape of phi
        """
        b = part(beta, 0, self.step.options)
        checks.choice(by, ("jvp", "nested"), "by")
        total: Any = 0.0
        for i, x, xi in self._tangents(x0, theta, None, f, nested=by == "nested"):
            if self.observe is None:
                q = xi
            elif by == "jvp":
                q = DifferentiablePoint(self.observe, (x, i)).pushforward(xi)
            else:
                zero = np.zeros_like(self.observe.fun(x, i), dtype=np.float64)
                q = exact_nested_vjp(self.observe, (x, i), zero, xi)[1]
            total = total + DifferentiablePoint(b, (phi, i)).pullback(q)
        return total

    # -- sweeps --------------------------------------------------------------------------------

    def _recorded(self, states: Any, x0: Any) -> NDArray[Any] | None:
        """States that were recorded, checked."""
        if states is None:
            return None
        recorded = checks.numeric(states, "states")
        if recorded.shape[:1] != (self.n_steps + 1,):
            raise ValueError(
                f"states has shape {recorded.shape}, expected ({self.n_steps + 1}, ...): the "
                f"states from 0 to {self.n_steps}"
            )
        lost = np.flatnonzero(~np.isfinite(recorded.reshape(len(recorded), -1)).all(1))
        if len(lost):
            raise ValueError(
                f"states has nan or inf in {len(lost)} of {len(recorded)} states, state {lost[0]} "
                "first: no derivative passes there; leave states out to run the steps again"
            )
        if x0 is not None and recorded[0].shape != np.shape(x0):
            raise ValueError(
                f"states has shape {recorded.shape}, expected {(len(recorded), *np.shape(x0))}: "
                "a state of the shape of x0 each"
            )
        if x0 is not None and not np.array_equal(recorded[0], array(x0)):
            raise ValueError("states begins with another state than x0; give x0 = None, or states")
        return recorded

    def _adjoint(
        self,
        x0: Any,
        theta: Any,
        cotangent: Cotangent | None,
        final: Any = None,
        states: NDArray[Any] | None = None,
    ) -> tuple[Any, Any]:
        """Pull back through all steps; ``cotangent(x, i)`` is what state i gets by itself."""
        lam = final
        g_theta: Any = np.zeros(np.shape(theta))

        def pull(x: Any, i: int) -> None:
            nonlocal lam, g_theta
            if lam is None:
                assert cotangent is not None
                lam = cotangent(self._advance(x, theta, i, i + 1), i + 1)
            g_x, g = self._pull(x, theta, i, lam)
            g_theta = g_theta + g
            lam = g_x if cotangent is None else g_x + cotangent(x, i)

        if self.n_steps == 0 and cotangent is not None:
            return cotangent(x0, 0), g_theta
        if states is None:
            sweep(
                self.n_steps, self.checkpoints, x0,
                lambda x, i, j: self._advance(x, theta, i, j), pull,
            )  # fmt: skip
        else:
            if cotangent is not None:
                lam = cotangent(states[-1], self.n_steps)
            for i in reversed(range(self.n_steps)):
                pull(states[i], i)
        return lam, g_theta

    def _states(self, x0: Any, theta: Any) -> Any:
        x = array(x0)
        yield 0, x
        for i in range(self.n_steps):
            x = self._advance(x, theta, i, i + 1)
            yield i + 1, x

    def _tangents(self, x0: Any, theta: Any, u: Any, w: Any, nested: bool = False) -> Any:
        x, theta, xi, w = with_tangents(x0, theta, u, w)
        yield 0, x, xi
        for i in range(self.n_steps):
            if nested:
                self.counts.nested += 1
                zero = np.zeros_like(x)
                _, xi = exact_nested_vjp(self.step, (x, theta, i), zero, (xi, w))
                x = self._advance(x, theta, i, i + 1)
            else:
                x, xi = self._push_over((x, xi), theta, w, i, i + 1)
            yield i + 1, x, xi

    # -- one step ------------------------------------------------------------------------------

    def _advance(self, x: Any, theta: Any, i: int, j: int) -> Any:
        step = self.step
        self.counts.forward += j - i
        step.counts.fun += j - i
        shape = np.shape(x)
        for k in range(i, j):
            x = step.fun(x, theta, k)
            x = checks.numeric(x[0] if step.context else x, "what step returned")
        if np.shape(x) != shape:
            raise ValueError(f"step returned shape {np.shape(x)}, expected {shape}, that of x")
        return x

    def _push_over(
        self, state: tuple[Any, Any], theta: Any, w: Any, i: int, j: int
    ) -> tuple[Any, Any]:
        x, xi = state
        for k in range(i, j):
            at = DifferentiablePoint(self.step, (x, theta, k))
            self.counts.forward += 1
            self.counts.pushforward += 1
            x, xi = at.value, at.pushforward((xi, w))
        return x, xi

    def _pull(self, x: Any, theta: Any, i: int, lam: Any) -> tuple[Any, Any]:
        step = self.step
        self.counts.pullback += 1
        if step.grad_fun is None or step.context:
            g_x, g_theta = DifferentiablePoint(step, (x, theta, i)).pullback(lam)
            return g_x, g_theta
        # The way through DifferentiablePoint costs some 10 microseconds a step.
        step.counts.grad += 1
        g_x, g_theta = step.grad_fun((x, theta, i), lam)
        if np.shape(g_x) != np.shape(x) or np.shape(g_theta) != np.shape(theta):
            raise ValueError(
                f"grad_fun of the step returned shapes {np.shape(g_x)} and {np.shape(g_theta)}, "
                f"expected {np.shape(x)} and {np.shape(theta)}, those of x and theta"
            )
        return g_x, g_theta

    def _observed(self, x: Any, i: int) -> Any:
        return x if self.observe is None else self.observe.fun(x, i)

    def _pull_observation(self, x: Any, i: int, beta: Any) -> Any:
        if self.observe is None:
            return beta
        return DifferentiablePoint(self.observe, (x, i)).pullback(beta)
