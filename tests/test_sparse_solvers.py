"""Sparse Jacobians in SciPy's solvers."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares, newton_krylov, root
from scipy.sparse.linalg import LinearOperator, splu

from gradiator_np import prepare
from gradiator_np.sparsity import banded_pattern

M = 40
BAND = banded_pattern(M, lower=1, upper=1)


def broyden(x):
    """Broyden's tridiagonal residuals."""
    wide = np.pad(x, 1)
    return (3 - 2 * x) * x - wide[:-2] - 2 * wide[2:] + 1


def exact(x):
    return np.diag(3 - 4 * x) - np.eye(M, k=-1) - 2 * np.eye(M, k=1)


START = -np.ones(M)


@pytest.mark.parametrize("tr_solver", ["lsmr", None])
def test_least_squares_takes_them(tr_solver):
    """As many steps as with the exact Jacobian, which they follow to 1e-7."""
    with prepare(broyden, START, sparsity=BAND, method="2-point") as jacobian:
        found = least_squares(broyden, START, jac=lambda x: jacobian(x).jac, tr_solver=tr_solver)
    known = least_squares(broyden, START, jac=exact)
    assert found.cost < 1e-15
    assert found.nfev <= known.nfev + 2
    np.testing.assert_allclose(found.x, known.x, atol=1e-6)


@pytest.mark.parametrize("method", ["hybr", "lm"])
def test_root_takes_them_as_arrays(method):
    with prepare(broyden, START, sparsity=BAND, method="2-point") as jacobian:
        found = root(broyden, START, jac=lambda x: jacobian(x).toarray(), method=method)
    assert found.success
    assert np.abs(found.fun).max() < 1e-7


def test_a_krylov_method_is_preconditioned_by_one():
    jac = prepare(broyden, START, sparsity=BAND, method="2-point")(START).jac
    inverse = LinearOperator(jac.shape, splu(jac.tocsc()).solve)
    found = newton_krylov(broyden, START, inner_M=inverse, f_tol=1e-9)
    assert np.abs(broyden(found)).max() <= 1e-9


# SciPy's BDF takes a difference from a row of its table that it has not set yet.
@pytest.mark.filterwarnings("ignore:invalid value encountered in subtract:RuntimeWarning")
@pytest.mark.parametrize("method", ["BDF", "Radau"])
def test_stiff_steps_take_them(method):
    """Heat that spreads in a rod, with a source: 3 colours in place of 40 runs."""

    def stiff(t, u):
        wide = np.pad(u, 1)
        return 1e3 * (wide[2:] - 2 * u + wide[:-2]) - u**3

    start = np.sin(np.linspace(0, np.pi, M))
    options = {"method": method, "rtol": 1e-7, "atol": 1e-9}
    jacobian = prepare(lambda u: stiff(0.0, u), start, sparsity=BAND, method="2-point", x_scale=1.0)
    ours = solve_ivp(stiff, (0, 1), start, jac=lambda t, u: jacobian(u).jac.tocsc(), **options)
    theirs = solve_ivp(stiff, (0, 1), start, jac_sparsity=BAND, **options)
    assert ours.success
    # theirs counts the runs for J, too; ours has one at x for each J, and checks the pattern once
    assert ours.nfev + jacobian.nfev <= theirs.nfev + ours.njev + 2
    np.testing.assert_allclose(ours.y[:, -1], theirs.y[:, -1], atol=1e-6)


def test_the_example_of_solvers():
    path = Path(__file__).parents[1] / "docs" / "examples" / "sparse_solvers.py"
    spec = importlib.util.spec_from_file_location("sparse_solvers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    plate, norms, runs = module.newton(12)
    assert norms[-1] <= 1e-9 * norms[0]
    assert runs == len(norms) * (1 + 5) + 2
    np.testing.assert_allclose(plate, plate.T, atol=1e-6)  # the square's own symmetry
    same, counts = module.fitted(12)
    np.testing.assert_allclose(same, plate, atol=1e-5)
    assert counts["ours"] <= counts["SciPy"]
    for method in ("BDF", "Radau"):
        _, counts, apart = module.react(6, until=0.5, method=method)
        assert counts["ours"] <= counts["SciPy"] + 2
        # both step by the same rules; their Jacobians differ by rounding of 1e-8
        assert apart < 1e-5
