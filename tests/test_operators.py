"""Lazy Jacobians where SciPy takes a linear operator: solvers run on them, at counted costs."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse.linalg import LinearOperator, aslinearoperator, gmres, lsmr, svds

from gradiator_np import Chain, Graph, gradiator, jacobian, linearize

RNG = np.random.default_rng(0)
# Well conditioned: singular values of about 2 to 4, and iterations of all solvers within m.
A = 3 * np.eye(6, 5) + 0.3 * RNG.normal(size=(6, 5))
SQUARE = 3 * np.eye(5) + 0.3 * RNG.normal(size=(5, 5))
X = RNG.uniform(0.2, 0.8, size=5)
# Central differences of functions around 1: eps^(2/3) = 4e-11 times a few; solvers divide by 2.
TIGHT = {"rtol": 1e-7, "atol": 1e-8}


def bent(a):
    return lambda x: np.sin(a @ x) + a @ x


def jac_of(a):
    return (np.cos(a @ X) + 1)[:, None] * a


ROUTES = {
    "linearize": lambda a: linearize(bent(a), X, method="3-point")[1],
    "gradiator": lambda a: gradiator(bent(a), method="3-point").linearize(X),
    "gradiator, derivatives given": lambda a: gradiator(
        bent(a),
        lambda x, v: ((np.cos(a @ x) + 1) * v) @ a,
        jvp_fun=lambda x, u: (np.cos(a @ x) + 1) * (a @ u),
    ).linearize(X),
    "chain": lambda a: Chain(a, lambda z: np.sin(z) + z, method="3-point").linearize(X),
    "graph": lambda a: Graph(
        {"z": (lambda x: a @ x, "x"), "s": (np.sin, "z"), "y": (np.add, "s", "z")},
        method="3-point",
    ).linearize(X),
    "estimate": lambda a: jacobian(bent(a), X, method="3-point").as_linear_operator(),
    "as_linear_operator": lambda a: linearize(bent(a), X, method="3-point")[1].as_linear_operator(),
}


@pytest.fixture(params=ROUTES)
def route(request):
    return ROUTES[request.param]


def test_it_is_an_operator(route):
    j, jac = route(A), jac_of(A)
    assert j.shape == (6, 5)
    assert j.dtype == np.float64
    u, v = RNG.normal(size=5), RNG.normal(size=6)
    for value, want in (
        (j.matvec(u), jac @ u),
        (j.matvec(u[:, None]), (jac @ u)[:, None]),
        (j.matvec(u + 2j * u[::-1]), jac @ (u + 2j * u[::-1])),
        (j.rmatvec(v), jac.T @ v),
        (j.rmatvec(v[:, None]), (jac.T @ v)[:, None]),
        (j.rmatvec(v - 1j * v[::-1]), jac.T @ (v - 1j * v[::-1])),
        (j.matmat(np.eye(5)), jac),
        (j.rmatmat(np.eye(6)), jac.T),
    ):
        assert value.shape == want.shape
        assert_allclose(value, want, **TIGHT)
    operator = aslinearoperator(j)
    assert_allclose((operator.H @ operator).matvec(u), jac.T @ jac @ u, **TIGHT)
    assert_allclose(operator.T @ v, jac.T @ v, **TIGHT)


def test_solvers_run_on_it(route):
    b = np.random.default_rng(1).normal(size=6)
    want = np.linalg.lstsq(jac_of(A), b, rcond=None)[0]
    assert_allclose(lsmr(route(A), b, atol=1e-10, btol=1e-10)[0], want, **TIGHT)
    values = svds(route(A), k=2, return_singular_vectors=False, rng=np.random.default_rng(1))
    assert_allclose(np.sort(values)[::-1], np.linalg.svd(jac_of(A))[1][:2], **TIGHT)
    # Of 300 right sides 22 ended at a residual over 1e-10 where central differences of three nodes
    # are put together (each rounds to 4e-11 anew at every product), none at 1e-9.
    solution, info = gmres(route(SQUARE), b[:5], rtol=1e-9)
    assert info == 0
    assert_allclose(solution, np.linalg.solve(jac_of(SQUARE), b[:5]), **TIGHT)


class Counted(LinearOperator):
    """How often a solver asks, and for what."""

    def __init__(self, j):
        super().__init__(j.dtype, j.shape)
        self.j, self.forward, self.adjoint = j, 0, 0

    def _matvec(self, u):
        self.forward += 1
        return self.j.matvec(u)

    def _rmatvec(self, v):
        self.adjoint += 1
        return self.j.rmatvec(v)


def test_evaluations_of_a_solver():
    """Two a JVP by central differences, twice m a VJP: J is never made, nothing runs besides."""
    _, lin = linearize(bent(SQUARE), X, method="3-point")
    counted = Counted(lin)
    gmres(counted, np.ones(5), rtol=1e-6)  # far above the errors of differences
    assert counted.adjoint == 0
    assert 0 < counted.forward <= 8  # m iterations, and residuals at both ends
    assert lin.nfev == 1 + 2 * counted.forward
    _, lin = linearize(bent(A), X, method="3-point")
    counted = Counted(lin)
    lsmr(counted, np.ones(6), atol=1e-10, btol=1e-10)
    assert lin.nfev == 1 + 2 * counted.forward + 2 * 5 * counted.adjoint
    # A point that keeps J pays for it once, at the first adjoint product, and nothing after.
    function = gradiator(bent(A), method="3-point")
    point = function.linearize(X)
    svds(point, k=2, rng=np.random.default_rng(1))
    lsmr(point, np.ones(6))
    assert function.nfev <= 1 + 2 * 5 + 2 * 3  # beside J products before the first adjoint one


def test_complex_outputs():
    def f(x):
        return (1 + 2j) * np.exp(1j * x)

    jac = np.diag(1j * f(X))
    for j in (
        linearize(f, X, method="3-point")[1],
        gradiator(f, method="3-point").linearize(X),
        jacobian(f, X, method="3-point").as_linear_operator(),
    ):
        assert j.dtype == np.complex128
        v = X + 1j * X[::-1]
        assert_allclose(j.matvec(v), jac @ v, **TIGHT)
        assert_allclose(j.rmatvec(v), jac.conj().T @ v, **TIGHT)
        assert_allclose(j.rmatvec(X), jac.conj().T @ X, **TIGHT)
        assert_allclose(aslinearoperator(j).T.matvec(v), jac.T @ v, **TIGHT)
        assert_allclose(gmres(j, v, rtol=1e-10)[0], np.linalg.solve(jac, v), **TIGHT)


def test_the_complex_step_takes_complex_vectors():
    _, lin = linearize(lambda x: np.sin(x), X, method="cs")
    v = X + 1j * X[::-1]
    assert_allclose(lin.matvec(v), np.cos(X) * v, rtol=1e-14)  # a few roundings
    assert_allclose(lin.rmatvec(v), np.cos(X) * v, rtol=1e-14)


def test_flat_vectors_of_dicts_tuples_and_shapes():
    def f(p):
        return {"s": (p["a"] ** 2).sum(), "t": p["a"] * p["b"]}

    x = {"a": np.arange(1.0, 5.0).reshape(2, 2), "b": 3.0}
    _, lin = linearize(f, x, method="3-point")
    a = x["a"].ravel()
    jac = np.vstack([np.append(2 * a, 0), np.column_stack([3 * np.eye(4), a])])
    assert lin.shape == (5, 5)
    assert_allclose(lin.matmat(np.eye(5)), jac, **TIGHT)
    assert_allclose(lin.rmatmat(np.eye(5)), jac.T, **TIGHT)
    g = gradiator(lambda a, b: (np.sum(a**2), a * b), method="3-point").linearize(x["a"], x["b"])
    assert_allclose(g.matmat(np.eye(5)), jac, **TIGHT)
    assert_allclose(g.rmatmat(np.eye(5)), jac.T, **TIGHT)
    assert lin.matmat(np.zeros((5, 0))).shape == (5, 0)


def test_a_graph_is_one_over_all_its_inputs():
    """Its columns are those of the inputs in their order, a dict and a scalar among them."""
    graph = Graph(
        {
            "h": (lambda x, k: k * x["a"] * x["b"].sum(), "x", "k"),
            "y": (lambda h, w: w @ h, "h", "w"),
        },
        method="3-point",
    )
    values = {"x": {"a": X[:3], "b": X[3:]}, "k": 2.0, "w": A[:2, :3]}
    j = graph.linearize(**values)
    assert j.shape == (2, 5 + 1 + 6)
    a, b, (k, w) = X[:3], X[3:], (2.0, A[:2, :3])
    h = k * a * b.sum()
    want = np.hstack([
        w * k * b.sum(), np.outer(w @ (k * a), np.ones(2)), (w @ h / k)[:, None],
        np.kron(np.eye(2), h),
    ])  # fmt: skip
    assert_allclose(j.matmat(np.eye(12)), want, **TIGHT)
    runs = graph.nfev
    assert_allclose(j.rmatmat(np.eye(2)), want.T, **TIGHT)
    # both nodes by all of their arguments, twice as many runs; kept for what follows
    assert graph.nfev == runs + 2 * (5 + 1) + 2 * (3 + 6)
    assert_allclose(j.rmatvec([1.0, 2.0]), [1.0, 2.0] @ want, **TIGHT)
    assert graph.nfev == runs + 30
    assert "LinearOperator" in type(j.as_linear_operator()).__name__


def test_bad_vectors_and_batches():
    lin = linearize(np.sin, X, method="3-point")[1]
    with pytest.raises(ValueError, match=r"u has shape \(4, 1\), but J has shape \(5, 5\)"):
        lin.matvec(np.ones(4))
    with pytest.raises(ValueError, match="v has shape"):
        lin.rmatmat(np.ones((5, 1, 1)))
    for j in (
        linearize(np.sin, np.ones((2, 3)), method="3-point", batch_dims=1)[1],
        gradiator(np.sin, method="3-point", batch_dims=1).linearize(np.ones((2, 3))),
    ):
        with pytest.raises(ValueError, match="no single operator"):
            lsmr(j, np.ones(3))
