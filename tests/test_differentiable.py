"""Functions with derivatives given, estimated, or mixed: values, shapes, counts, messages."""

import importlib
import sys

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares, minimize, root
from scipy.sparse import csr_array
from scipy.sparse.linalg import aslinearoperator

from gradiator_np._differentiable.function import Gradiator, gradiator
from gradiator_np._differentiable.second import bend, curvature
from gradiator_np._samples import SampleError

RTOL = 1e-12  # exact derivatives: a few roundings
# Forward differences: steps sqrt(eps) |x|, second derivatives of order 10, eps / step beside it.
FORWARD = 1e-5

A = np.random.default_rng(0).normal(size=(4, 3))
X = np.array([0.3, -1.2, 0.8])
U = np.array([1.0, 0.5, -2.0])
V = np.array([1.0, -2.0, 0.5, 0.25])
J = np.cos(A @ X)[:, None] * A


def f(x):
    return np.sin(A @ x)


def f_vjp(x, v):
    return A.T @ (np.cos(A @ x) * v)


def f_jvp(x, u):
    return np.cos(A @ x) * (A @ u)


def f_jac(x):
    return np.cos(A @ x)[:, None] * A


GIVEN = {
    "grad": {"grad_fun": f_vjp},
    "jvp": {"jvp_fun": f_jvp},
    "jac": {"jac_fun": f_jac},
    "both": {"grad_fun": f_vjp, "jvp_fun": f_jvp},
    "all": {"grad_fun": f_vjp, "jvp_fun": f_jvp, "jac_fun": f_jac},
    "none": {},
}


@pytest.mark.parametrize("given", GIVEN)
def test_every_product_from_whatever_is_given(given):
    """A complex step estimates what is missing: exact to rounding as well."""
    g = gradiator(f, **GIVEN[given], method="cs")
    np.testing.assert_allclose(g(X), f(X))
    np.testing.assert_allclose(g.vjp(X, V), V @ J, rtol=RTOL)
    np.testing.assert_allclose(g.jvp(X, U), J @ U, rtol=RTOL)
    np.testing.assert_allclose(g.jacobian(X), J, rtol=RTOL)
    np.testing.assert_allclose(g.vjp(X, V), V @ J, rtol=RTOL)


@pytest.mark.parametrize("given", GIVEN)
def test_linearize_gives_value_pushforward_pullback(given):
    value, push, pull = gradiator(f, **GIVEN[given], method="cs").linearize(X)
    np.testing.assert_allclose(value, f(X))
    np.testing.assert_allclose(push(U), J @ U, rtol=RTOL)
    np.testing.assert_allclose(pull(V), V @ J, rtol=RTOL)
    np.testing.assert_allclose(push(np.eye(3)), J.T, rtol=RTOL, atol=1e-15)
    np.testing.assert_allclose(pull(np.eye(4)), J, rtol=RTOL, atol=1e-15)


@pytest.mark.parametrize(
    "given, product, calls",
    [
        ("grad", "vjp", (0, 1, 0, 0)),
        ("jvp", "jvp", (0, 0, 1, 0)),
        ("jac", "vjp", (1, 0, 0, 1)),
        ("jvp", "vjp", (1, 0, 3, 0)),
        ("grad", "jvp", (2, 0, 0, 0)),
        ("grad", "jacobian", (1, 4, 0, 0)),
        ("both", "jacobian", (1, 0, 3, 0)),
        ("all", "jacobian", (0, 0, 0, 1)),
        ("none", "vjp", (4, 0, 0, 0)),
        ("none", "jacobian", (4, 0, 0, 0)),
        ("none", "jvp", (2, 0, 0, 0)),
    ],
)
def test_what_is_given_is_used_and_the_rest_counted(given, product, calls):
    """m = 3, n = 4: m + 1 evaluations for a VJP, two for a JVP; the fewer of n VJPs, m JVPs."""
    g = gradiator(f, **GIVEN[given], method="2-point")
    extra = {"vjp": (V,), "jvp": (U,), "jacobian": ()}[product]
    want = {"vjp": V @ J, "jvp": J @ U, "jacobian": J}[product]
    np.testing.assert_allclose(getattr(g, product)(X, *extra), want, atol=FORWARD)
    c = g.counts
    assert (c.fun, c.grad, c.jvp, c.jac) == calls
    assert g.nfev == c.fun


def test_the_value_of_the_latest_call_is_shared():
    g = gradiator(f, method="2-point")
    g(X)
    g.jacobian(X)
    assert g.nfev == 1 + 3
    g.jacobian(X + 1)
    assert g.nfev == 4 + 4
    x = X.copy()
    g(x)
    x += 1  # SciPy's solvers move x in place
    np.testing.assert_allclose(g.jacobian(x), f_jac(X + 1), atol=FORWARD)


def test_linearize_keeps_the_jacobian():
    g = gradiator(f, method="2-point")
    _, push, pull = g.linearize(X)
    np.testing.assert_allclose(pull(V), V @ J, atol=FORWARD)
    pull(2 * V)
    push(U)
    assert g.nfev == 4


def test_what_was_learned_at_one_point_serves_the_next():
    """The noise-aware default looks for the noise level once."""
    rng = np.random.default_rng(0)
    g = gradiator(lambda x: A @ x + 1e-3 * rng.normal(size=4))
    spent = []
    for shift in (0.0, 0.5, 1.0):
        before = g.nfev
        g.jacobian(X + shift)
        spent.append(g.nfev - before)
    assert max(spent[1:]) < spent[0]
    # The same with an input that stays: its value changes between the calls, and counts.
    h = gradiator(lambda t, x: t * (A @ x) + 1e-3 * rng.normal(size=4), argnums=1)
    spent = []
    for t in (1.0, 2.0, 3.0):
        before = h.nfev
        # Far above the noise over the steps that it calls for, far below the next t.
        np.testing.assert_allclose(h.jacobian(t, X), t * A, atol=0.1)
        spent.append(h.nfev - before)
    assert max(spent[1:]) < spent[0]


def test_what_the_forward_run_computed_reaches_the_pullback():
    runs = []

    def inverse(x):
        runs.append(1)
        y = np.linalg.inv(x)
        return y, y

    g = gradiator(inverse, lambda x, v, y: -y.T @ v @ y.T, context=True)
    x = np.array([[2.0, 1.0], [0.5, 3.0]])
    y, _, pull = g.linearize(x)
    np.testing.assert_allclose(y, np.linalg.inv(x))
    v = np.ones((2, 2))
    np.testing.assert_allclose(pull(v), -y.T @ v @ y.T, rtol=RTOL)
    assert len(runs) == 1
    g(x)
    g.vjp(x, v)
    assert len(runs) == 2
    with pytest.raises(ValueError, match=r"must return \(y, context\)"):
        gradiator(f, f_vjp, context=True)(X)


def test_several_inputs_and_outputs():
    def two(a, b):
        return a * b.sum(), np.outer(a, b)

    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0, 5.0])
    v = (np.array([1.0, -1.0]), np.arange(6.0).reshape(2, 3))
    want = (v[0] * b.sum() + v[1] @ b, np.full(3, v[0] @ a) + a @ v[1])
    g = gradiator(two, method="cs")
    for got, right in zip(g.vjp((a, b), v), want, strict=True):
        np.testing.assert_allclose(got, right, rtol=RTOL)
    u = (np.array([0.1, 0.2]), np.array([1.0, 0.0, 1.0]))
    first, second = g.jvp((a, b), u)
    np.testing.assert_allclose(first, u[0] * b.sum() + a * u[1].sum(), rtol=RTOL)
    np.testing.assert_allclose(second, np.outer(u[0], b) + np.outer(a, u[1]), rtol=RTOL)
    jac = g.jacobian(a, b)
    assert [[block.shape for block in row] for row in jac] == [
        [(2, 2), (2, 3)],
        [(2, 3, 2), (2, 3, 3)],
    ]
    np.testing.assert_allclose(jac[0][0], b.sum() * np.eye(2), rtol=RTOL, atol=1e-15)
    given = gradiator(two, lambda x, v: (v[0] * x[1].sum() + v[1] @ x[1],
                                         np.full(3, v[0] @ x[0]) + x[0] @ v[1]))  # fmt: skip
    for got, right in zip(given.vjp((a, b), v), want, strict=True):
        np.testing.assert_allclose(got, right, rtol=RTOL)
    for row, right in zip(given.jacobian((a, b)), jac, strict=True):
        for got, block in zip(row, right, strict=True):
            np.testing.assert_allclose(got, block, rtol=RTOL, atol=1e-14)


def test_argnums_choose_the_inputs():
    calls = []

    def h(a, name, b):
        calls.append(name)
        return a * b

    a, b, v = np.array([1.0, 2.0]), np.array([3.0, 5.0]), np.ones(2)
    g = gradiator(h, argnums=2, method="2-point")
    np.testing.assert_allclose(g.vjp((a, "x", b), v), a, atol=FORWARD)
    assert calls == ["x"] * 3  # m = 2 and the value: nothing is spent on a
    g = gradiator(h, argnums=(2, 0), method="2-point")
    by_b, by_a = g.vjp((a, "x", b), v)
    np.testing.assert_allclose(by_b, a, atol=FORWARD)
    np.testing.assert_allclose(by_a, b, atol=FORWARD)
    np.testing.assert_allclose(g.jvp((a, "x", b), (v, v)), a + b, atol=FORWARD)
    with pytest.raises(ValueError, match="argnums=3, but only 1"):
        gradiator(f, argnums=3)(X)


@pytest.mark.parametrize("given", GIVEN)
def test_a_gradiator_of_a_gradiator_keeps_what_it_was_given(given):
    """Derivatives are known still, options are those of both, and what is given anew wins."""
    inner = gradiator(f, **GIVEN[given], method="2-point", noise=1e-9)
    outer = gradiator(inner, method="cs")
    for name in ("grad_fun", "jvp_fun", "jac_fun"):
        assert getattr(outer, name) is GIVEN[given].get(name)
    assert outer.fun is f
    assert outer.options == {"method": "cs", "noise": 1e-9}
    outer.jacobian(X)
    assert (outer.nfev > 1) is (given == "none")
    assert inner.nfev == 0
    assert gradiator(inner, lambda x, v: 0 * x).vjp(X, np.ones(4)).tolist() == [0, 0, 0]


def test_a_gradiator_of_a_gradiator_keeps_context_reuse_and_argnums():
    inner = gradiator(
        lambda t, x: (t * x, t), lambda x, v, t: t * v, argnums=1, context=True, reuse=True
    )
    outer = gradiator(inner)
    assert outer.context
    assert outer.argnums == 1
    assert outer.reuse == inner.reuse
    outer((2.0, X))
    assert (len(outer.samples), len(inner.samples)) == (1, 0)
    assert outer.vjp((2.0, X), np.ones(3)).tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match=r"grad_fun of the Gradiator .* argnums=1"):
        gradiator(inner, argnums=0)
    with pytest.raises(TypeError, match="unknown option"):
        gradiator(inner, step=1)


def test_a_batch_is_one_call():
    """(b, n) rows move at once: m + 1 calls of fun, whatever b."""
    x = np.random.default_rng(0).normal(size=(5, 3))
    calls = []

    def rows(x):
        calls.append(x.shape)
        return np.sin(x @ A.T)

    g = gradiator(rows, method="2-point", batch_dims=1)
    v = np.random.default_rng(1).normal(size=(5, 4))
    want = (np.cos(x @ A.T) * v) @ A
    np.testing.assert_allclose(g.vjp(x, v), want, atol=FORWARD)
    assert calls == [(5, 3)] * 4
    jac = np.cos(x @ A.T)[..., None] * A
    np.testing.assert_allclose(g.jacobian(x), jac, atol=FORWARD)
    u = np.ones((5, 3))
    np.testing.assert_allclose(g.jvp(x, u), (jac @ u[..., None])[..., 0], atol=FORWARD)
    given = gradiator(rows, lambda x, v: (np.cos(x @ A.T) * v) @ A, batch_dims=1)
    np.testing.assert_allclose(given.vjp(x, v), want, rtol=RTOL)
    np.testing.assert_allclose(given.jacobian(x), jac, rtol=RTOL, atol=1e-15)
    # The documented one-liners: a sum over outputs, a mean over the batch.
    y = given(x)
    np.testing.assert_allclose(given.vjp(x, np.ones_like(y)), np.cos(x @ A.T) @ A, rtol=RTOL)
    np.testing.assert_allclose(
        given.vjp(x, np.full_like(y, 1 / len(y))), np.cos(x @ A.T) @ A / 5, rtol=RTOL
    )


def test_vectorized_functions():
    g = gradiator(lambda x: np.sin(x @ A.T), method="2-point", vectorized=True)
    np.testing.assert_allclose(g(X), f(X))
    np.testing.assert_allclose(g.jacobian(X), J, atol=FORWARD)


def test_any_shapes():
    x = np.arange(1.0, 7.0).reshape(2, 3)
    g = gradiator(lambda x: x.T @ x, method="cs")
    jac = g.jacobian(x)
    assert jac.shape == (3, 3, 2, 3)
    v = np.random.default_rng(0).normal(size=(3, 3))
    np.testing.assert_allclose(g.vjp(x, v), np.tensordot(v, jac, 2), rtol=RTOL)
    np.testing.assert_allclose(g.vjp(x, v), x @ (v + v.T), rtol=RTOL)
    np.testing.assert_allclose(gradiator(lambda x: x**3, method="cs").jacobian(2.0), 12, rtol=RTOL)


def test_dicts_of_inputs_and_outputs():
    x = {"a": np.array([1.0, 2.0]), "b": np.array(3.0)}
    g = gradiator(lambda x: {"y": x["a"] * x["b"]}, method="cs")
    v = {"y": np.array([1.0, -1.0])}
    got = g.vjp(x, v)
    np.testing.assert_allclose(got["a"], [3.0, -3.0], rtol=RTOL)
    np.testing.assert_allclose(got["b"], -1.0, rtol=RTOL)
    g(x)
    runs = g.nfev
    assert g.jacobian(x)["y"]["a"].shape == (2, 2)
    assert g.nfev == runs + 4  # the value of the call is the base; one run checks
    wrong = gradiator(g.fun, lambda x, v: {"a": v["y"]})
    with pytest.raises(ValueError, match=r"'a': \(2,\)"):
        wrong.vjp(x, v)


def test_large_jacobians_are_contracted_on_arrival():
    """2000 x 20 numbers: v meets each value, and no Jacobian is stored."""
    b = np.random.default_rng(0).normal(size=(2000, 20))
    x, v = np.linspace(1, 2, 20), np.ones(2000)
    g = gradiator(lambda x: b @ x**2, method="2-point")
    np.testing.assert_allclose(g.vjp(x, v), 2 * (v @ b) * x, atol=1e-4)  # sqrt(eps) |v . f|
    assert g.nfev == 21


def test_estimates_are_there_whatever_is_given():
    e = gradiator(f, f_vjp, method="3-point", noise=1e-12).estimate(X)
    assert np.all(np.abs(e.jac - J) < 1e-8)
    assert np.isfinite(e.stderr).all()


def test_check_compares_what_is_given_with_what_is_estimated():
    # Order 4 and up carries the error of its embedded lower order.
    right = gradiator(f, f_vjp, jvp_fun=f_jvp, jac_fun=f_jac, method="5-point")
    checks = right.check(X)
    assert list(checks) == ["grad_fun", "jvp_fun", "jac_fun"]
    assert all(check.ok for check in checks.values())
    wrong = gradiator(f, lambda x, v: 1.001 * f_vjp(x, v), jvp_fun=f_jvp, method="5-point")
    checks = wrong.check(X)
    assert not checks["grad_fun"].ok
    assert checks["jvp_fun"].ok
    two = gradiator(lambda a, b: a * b, lambda x, v: (x[1] * v, x[0] * v), method="5-point")
    assert two.check(X, U)["grad_fun"].ok
    with pytest.raises(ValueError, match="nothing to check"):
        gradiator(f).check(X)


def test_check_takes_noise_into_account():
    """An error of 1e-6 in J drowns in noise of 1e-3 at steps of 0.1, one of 1 does not."""
    rng = np.random.default_rng(0)
    large = A + np.sign(A)  # bars are 0.007: an entry next to 0 could not be told from twice itself

    def noisy(x):
        return large @ x + 1e-3 * rng.normal(size=4)

    options = {"method": "3-point", "abs_step": 0.1, "noise": 1e-3}
    near = gradiator(noisy, lambda x, v: large.T @ v + 1e-6, **options)
    assert near.check(X)["grad_fun"].verdict == "cannot tell"
    assert near.check(X, resolution=1.0)["grad_fun"].ok
    far = gradiator(noisy, lambda x, v: large.T @ v + v[0], **options)
    assert far.check(X)["grad_fun"].verdict == "wrong"


# -- SciPy ------------------------------------------------------------------------------------


def test_least_squares_shares_evaluations():
    """The value of each accepted point serves its Jacobian: nfev is all there is."""
    calls = []
    t = np.linspace(0, 2, 20)
    data = 2.5 * np.exp(-1.3 * t)

    def residuals(x):
        calls.append(1)
        return x[0] * np.exp(-x[1] * t) - data

    g = gradiator(residuals, method="2-point")
    out = least_squares(g, [1.0, 1.0], jac=g.jacobian)
    np.testing.assert_allclose(out.x, [2.5, 1.3], atol=1e-6)  # gtol 1e-8
    assert g.nfev == len(calls) == out.nfev + 2 * out.njev


def test_minimize_and_root():
    g = gradiator(lambda x: (x[0] - 1) ** 2 + 10 * (x[1] - x[0] ** 2) ** 2, method="3-point")
    out = minimize(g, [0.5, 2.0], jac=g.gradient, method="BFGS")
    np.testing.assert_allclose(out.x, [1, 1], atol=1e-4)  # gtol 1e-5 over curvature 0.1
    assert g.nfev == out.nfev + 4 * out.njev
    g = gradiator(lambda x: np.array([x[0] + x[1] - 3, x[0] * x[1] - 2]), method="2-point")
    out = root(g, [0.5, 4.0], jac=g.jacobian)
    np.testing.assert_allclose(np.sort(out.x), [1, 2], atol=1e-7)  # xtol 1.5e-8


def test_solve_ivp_differentiates_by_the_state():
    g = gradiator(lambda t, y: np.array([-50 * y[0] + y[1], -y[1]]), argnums=1, method="2-point")
    out = solve_ivp(g, (0, 1), [1.0, 1.0], method="Radau", jac=g.jacobian, rtol=1e-6, atol=1e-9)
    assert out.success
    np.testing.assert_allclose(out.y[1, -1], np.exp(-1), rtol=1e-5)  # ten times rtol


def test_sparse_jacobians_pass_through():
    g = gradiator(lambda x: x**2, jac_fun=lambda x: csr_array(np.diag(2 * x)))
    assert g.jacobian(X).format == "csr"
    np.testing.assert_allclose(g.vjp(X, X), 2 * X**2, rtol=RTOL)
    operator = gradiator(f, jac_fun=lambda x: aslinearoperator(f_jac(x)))
    np.testing.assert_allclose(operator.jvp(X, U), J @ U, rtol=RTOL)


# -- second order ------------------------------------------------------------------------------


def quartic(x):
    return 0.25 * np.sum((A @ x) ** 4)


def quartic_vjp(x, v):
    return v * A.T @ (A @ x) ** 3


def quartic_nested(args, w):
    x, v = args
    return v * A.T @ (3 * (A @ x) ** 2 * (A @ w)), np.sum(A.T @ (A @ x) ** 3 * w)


def test_hessian_products():
    want = A.T @ (3 * (A @ X) ** 2 * (A @ U))
    exact = gradiator(quartic, gradiator(quartic_vjp, quartic_nested))
    np.testing.assert_allclose(exact.hvp(X, U), want, rtol=RTOL)
    estimated = gradiator(quartic, quartic_vjp, method="cs")
    np.testing.assert_allclose(estimated.hvp(X, U), want, rtol=RTOL)
    assert estimated.nfev == 0  # no differences of values
    hessian, jw = estimated.nested_vjp(X, 2.0, U)
    np.testing.assert_allclose(hessian, 2 * want, rtol=RTOL)
    np.testing.assert_allclose(jw, quartic_vjp(X, 1.0) @ U, rtol=RTOL)


# -- messages ----------------------------------------------------------------------------------


def test_a_gradient_of_the_wrong_shape_names_both_shapes():
    g = gradiator(f, lambda x, v: np.ones(4))
    with pytest.raises(ValueError, match=r"grad_fun returned shape \(4,\), expected \(3,\)"):
        g.vjp(X, V)
    g = gradiator(lambda a, b: a + b, lambda x, v: (v, v, v))
    with pytest.raises(
        ValueError, match=r"\(\(3,\), \(3,\), \(3,\)\), expected \(\(3,\), \(3,\)\)"
    ):
        g.vjp((X, X), X)
    g = gradiator(f, jvp_fun=lambda x, u: u)
    with pytest.raises(ValueError, match=r"jvp_fun returned shape \(3,\), expected \(4,\)"):
        g.linearize(X).pushforward(U)
    g = gradiator(f, jac_fun=lambda x: np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"jac_fun returned shape \(3, 4\), expected \(4, 3\)"):
        g.vjp(X, V)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: gradiator(3), TypeError, "fun must be callable, got int"),
        (lambda: gradiator(f, 3), TypeError, "grad_fun must be callable"),
        (lambda: gradiator(f).gradient(X), ValueError, "returned 4 numbers"),
        (lambda: gradiator(f).vjp(X, X), ValueError, r"v has shape \(3,\), expected \(4,\)"),
        (lambda: gradiator(f).jvp(X, V), ValueError, r"u has shape \(4,\), expected \(3,\)"),
        (lambda: gradiator(f, f_vjp).linearize(X).pullback(X), ValueError, "v has shape"),
    ],
)
def test_bad_input_says_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.filterwarnings("ignore::gradiator_np._status.GradiatorWarning")
def test_what_no_run_determines_is_an_error_not_a_zero():
    def broken(x):
        if x[1] != X[1]:
            raise RuntimeError("the simulator stopped")
        return f(x)

    g = gradiator(broken, method="2-point")
    for product in (lambda: g.jacobian(X), lambda: g.vjp(X, V)):
        with pytest.raises(SampleError, match=r"no run determines the derivative by x\[1\]"):
            product()
    with pytest.raises(SampleError, match="all failed alike"):
        g.jvp(X, U)
    assert np.isinf(g.estimate(X).stderr[:, 1]).all()
    fixed = gradiator(broken, method="2-point", bounds=([-9, X[1], -9], [9, X[1], 9]))
    np.testing.assert_allclose(fixed.jacobian(X)[:, [0, 2]], J[:, [0, 2]], atol=FORWARD)
    assert not fixed.jacobian(X)[:, 1].any()


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_missing_framework_names_its_extra(framework, monkeypatch):
    name = f"gradiator_np.adapters.{framework}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, framework, None)
    with pytest.raises(ImportError, match=rf"pip install 'gradiator-np\[{framework}\]'"):
        importlib.import_module(name)


def test_replace_keeps_the_rest():
    g = gradiator(f, f_vjp, method="cs")
    h = g.replace(jvp_fun=f_jvp)
    assert isinstance(h, Gradiator)
    assert (h.fun, h.grad_fun, h.jvp_fun, h.options) == (f, f_vjp, f_jvp, {"method": "cs"})


# -- structures within structures, nothing at all, several kinds of second derivatives ------------


def nested(x):
    return {"a": (np.sin(x), x.sum()), "b": np.outer(x, x)}


def test_outputs_in_nested_structures_keep_them():
    x, u = np.array([1.0, 2.0]), np.array([0.5, -1.0])
    g = gradiator(nested, method="cs")
    out = g.jvp(x, u)
    assert isinstance(out["a"], tuple)
    np.testing.assert_allclose(out["a"][0], np.cos(x) * u, rtol=RTOL)
    np.testing.assert_allclose(out["a"][1], u.sum(), rtol=RTOL)
    np.testing.assert_allclose(out["b"], np.outer(u, x) + np.outer(x, u), rtol=RTOL)
    v = {"a": (np.ones(2), 2.0), "b": np.zeros((2, 2))}
    np.testing.assert_allclose(g.vjp(x, v), np.cos(x) + 2, rtol=RTOL)


@pytest.mark.parametrize("method", ["auto", "2-point", "cs"])
@pytest.mark.parametrize("shape", [(0,), (0, 3)])
def test_products_with_a_jacobian_without_entries(method, shape):
    """A sum of nothing is 0; an empty batch has no points to run at."""
    g = gradiator(lambda x: np.append(x.ravel(), 1.0), method=method)
    x = np.zeros(shape)
    assert g.vjp(x, np.ones(1)).shape == shape
    np.testing.assert_array_equal(g.jvp(x, x), np.zeros(1))
    batch = gradiator(lambda x: np.sin(x), method=method, batch_dims=1)
    assert batch.vjp(np.zeros((0, 3)), np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("by", ["grad_fun", "jvp_fun", "jac_fun"])
@pytest.mark.parametrize("batch", [0, 1])
def test_second_derivatives_along_two_tangents(by, batch):
    """D^2 f[u, w] of f = sin(A x) and its twin v . D^2 f[., w], from whatever is given."""
    x, u, w = (np.random.default_rng(i).normal(size=(5, 3) if batch else 3) for i in range(3))
    v = np.random.default_rng(3).normal(size=(5, 4) if batch else 4)
    given = {
        "grad_fun": lambda x, v: (np.cos(x @ A.T) * v) @ A,
        "jvp_fun": lambda x, u: np.cos(x @ A.T) * (u @ A.T),
        "jac_fun": lambda x: np.cos(x @ A.T)[..., None] * A,
    }
    g = gradiator(lambda x: np.sin(x @ A.T), method="cs", batch_dims=batch, **{by: given[by]})
    point = g.linearize(x)
    along = (u @ A.T) * (w @ A.T)
    np.testing.assert_allclose(bend(point, u, w), -np.sin(x @ A.T) * along, rtol=1e-10)
    want = -(np.sin(x @ A.T) * v * (w @ A.T)) @ A
    np.testing.assert_allclose(curvature(point, v, w), want, rtol=1e-10)


def test_second_derivatives_run_the_context_where_they_are():
    """The derivative along w needs grad_fun elsewhere, with what fun left there."""
    g = gradiator(
        lambda x: (np.sin(x), np.cos(x)), lambda x, v, cos: v * cos, context=True, method="3-point"
    )
    x, w = np.array([0.3, 1.0]), np.array([1.0, -2.0])
    want = -np.sin(x) * w
    np.testing.assert_allclose(g.nested_vjp(x, np.ones(2), w)[0], want, rtol=1e-8)  # eps^(2/3)


@pytest.mark.parametrize(
    "out, message",
    [
        (None, "does fun return its result"),
        ("1.0 2.0", "must be numbers, got str"),
        ([1.0, None], "with None at 1"),
        ([1.0, [2.0, 3.0]], "no array of one shape"),
        ((1.0, None), r"fun\(x\)\[1\] is None"),
        ({"a": 1.0, "b": "2.0"}, r"fun\(x\)\['b'\] must be numbers"),
    ],
)
@pytest.mark.parametrize("grad_fun", [None, f_vjp])
def test_what_fun_returns_is_told_where_it_is_no_number(out, message, grad_fun):
    with pytest.raises((TypeError, ValueError), match=message):
        gradiator(lambda x: out, grad_fun)(X)
    with pytest.raises((TypeError, ValueError), match=message):
        gradiator(lambda x: out, grad_fun).linearize(X)


@pytest.mark.parametrize("batched", [False, True])
def test_masked_outputs_are_nan_and_not_what_lies_behind_the_mask(batched):
    """Fill values of netCDF are 1e20."""
    fun = gradiator(lambda x: np.ma.masked_greater(np.where(x > 0, 1e20, x), 1e10))
    x = np.array([-1.0, 1.0])
    value = fun.batched((0,))(x[None])[0] if batched else fun(x)
    assert type(value) is np.ndarray
    np.testing.assert_array_equal(value, [-1.0, np.nan])


def test_outputs_keep_their_types():
    whole, flag = gradiator(lambda x: (np.arange(3), np.array([True])))(X)
    assert whole.dtype.kind == "i"
    assert flag.dtype == bool
    assert gradiator(lambda x: np.float32(1.5))(X).dtype == np.float32
