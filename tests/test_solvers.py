"""The registry of solvers: every row is exported, documented, and does what it claims."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import gradiator_np
from gradiator_np import fit_jacobian, solvers
from gradiator_np.solvers import (
    Constraints,
    Huber,
    Pinv,
    RankOne,
    Spectral,
    Taylor,
    leave_one_out,
    leverage,
    lstsq,
)
from gradiator_np.solvers._registry import ROWS, Capability, find_solver

JAC = np.array([[2.0, 0.5, 0.0], [0.5, -1.0, 3.0], [0.0, 3.0, 1.0]])
DX = np.random.default_rng(0).standard_normal((14, 3))
DF = DX @ JAC.T

every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def able(*wanted: Capability) -> list:
    """Parameters: the rows of solvers that can do all that is wanted."""
    return [pytest.param(row, id=row.name) for row in ROWS if row.capabilities.issuperset(wanted)]


# -- names, documents, examples ------------------------------------------------------------------


def test_every_name_is_exported_and_known_to_static_checkers():
    source = Path(solvers.__file__).read_text()
    static = set(re.findall(r"import (\w+) as \1\b", source))
    assert static == set(solvers.__all__), "bring the TYPE_CHECKING imports up to date"
    assert {row.cls for row in ROWS} <= set(solvers.__all__)
    for name in solvers.__all__:
        assert getattr(solvers, name).__name__ == name
    with pytest.raises(AttributeError, match="Newton"):
        solvers.Newton  # noqa: B018


@every_row
def test_a_row_is_found_by_its_name_and_told_by_help(row):
    found = find_solver(row.name)
    assert type(found) is getattr(solvers, row.cls)
    assert find_solver(found) is found
    assert f"``{row.cls}``" in solvers.__doc__


def test_an_unknown_name_lists_all_others():
    with pytest.raises(ValueError, match=", ".join(repr(row.name) for row in ROWS)):
        find_solver("svd")


def tables() -> str:
    """What ``docs/solvers.md`` says of the rows."""
    lines = ["| solver | name | minimises | errors it suits | costs |", "|" + "---|" * 5]
    lines += [
        f'| `{row.cls}` | `"{row.name}"` | {row.minimises} | {row.suits} | {row.costs} |'
        for row in ROWS
    ]
    lines += ["", "| | " + " | ".join(Capability) + " |", "|---|" + "---|" * len(Capability)]
    lines += [
        f"| `{row.cls}` | "
        + " | ".join("yes" if c in row.capabilities else "-" for c in Capability)
        + " |"
        for row in ROWS
    ]
    return "\n".join(lines)


def test_the_documents_tables_are_the_registrys():
    text = (Path(__file__).parents[1] / "docs" / "solvers.md").read_text()
    assert tables() in text, f"docs/solvers.md should hold\n\n{tables()}"


# -- what a row claims ---------------------------------------------------------------------------


def asking(capability: Capability) -> dict:
    """A problem, its samples exact, that asks for one thing."""
    known = np.full((3, 3), np.nan)
    known[0, 1] = JAC[0, 1]
    return {
        Capability.OUTPUT_WEIGHTS: {"weights": np.linspace(0.5, 2, 42).reshape(14, 3)},
        Capability.BATCHES: {"dx": np.stack([DX, 2 * DX]), "df": np.stack([DF, 2 * DF])},
        Capability.SPARSITY: {"constraints": Constraints(sparsity=JAC != 0)},
        Capability.KNOWN: {"constraints": Constraints(known=known)},
        Capability.SYMMETRY: {"constraints": Constraints(symmetric=True)},
        Capability.PRIOR: {"jac0": JAC + 1},
        Capability.COMPLEX: {"df": (1 + 2j) * DF},
        Capability.INTERCEPT: {"df": DF + 5.0, "intercept": True},
        Capability.ERROR_BARS: {},
    }[capability]


@every_row
@pytest.mark.parametrize("capability", Capability)
def test_a_solver_can_what_its_row_says_and_refuses_the_rest(row, capability):
    asked = {"dx": DX, "df": DF} | asking(capability)
    solver = find_solver(row.name)
    if capability not in row.capabilities:
        with pytest.raises(ValueError, match=rf"{row.cls} cannot take {capability}.* use Pinv"):
            solver.solve(**asked)
        return
    solution = solver.solve(**asked)
    want = JAC * (1 + 2j) if capability == Capability.COMPLEX else JAC
    # The loosest of them carries a flat prior of 1e-8 relative weight, or stops at such a gap.
    np.testing.assert_allclose(solution.coef, np.broadcast_to(want, solution.coef.shape), atol=1e-6)
    assert solution.coef.shape == (*np.shape(asked["df"])[:-2], 3, 3)
    if capability == Capability.INTERCEPT:
        np.testing.assert_allclose(solution.value, 5.0, atol=1e-6)
    if capability == Capability.ERROR_BARS:
        noisy = DF + 0.1 * np.random.default_rng(1).standard_normal(DF.shape)
        stderr = solver.solve(DX, noisy).cov.stderr()
        # 14 samples of variance 1 tell an entry to 0.1 / sqrt(14); a factor of 4 each way.
        assert (stderr > 0.025 / np.sqrt(14)).all()
        assert (stderr < 0.4 / np.sqrt(14)).all()


@every_row
def test_a_noise_that_is_known_is_taken_by_all(row):
    """Error bars have no degrees of freedom to lose, and those of noise alone are proportional."""
    ratios = []
    for seed in range(20 if row.name == "taylor" else 1):
        rng = np.random.default_rng(seed)
        dx = rng.standard_normal((14, 3))
        noisy = dx @ JAC.T + 0.1 * rng.standard_normal((14, 3))
        solver = find_solver(row.name)
        one, two = (solver.solve(dx, noisy, noise=s) for s in (0.1, [0.1, 0.1, 0.2]))
        assert np.isinf(one.dof).all()
        assert not one.classical
        # Generalised least squares has at least the variance of uncorrelated noise.
        least = np.sqrt(np.diag(np.linalg.inv(dx.T @ dx))) * np.array([[0.1], [0.1], [0.2]])
        assert (two.cov.stderr() > 0.999 * least).all()
        ratios.append(two.cov.stderr() / one.cov.stderr())
    # The outputs of a Taylor model share what they learn of curvature, and learn the less of it the
    # more noise there is: over 300 seeds the medians are 1.00 and 1.95, their own error over 20
    # seeds is 0.02.
    rtol = 0.1 if row.name == "taylor" else 1e-9
    want = np.repeat([[1.0], [1.0], [2.0]], 3, 1)
    np.testing.assert_allclose(np.median(ratios, 0), want, rtol=rtol)


# -- arguments -----------------------------------------------------------------------------------


@every_row
def test_lists_vectors_and_float32_are_taken(row):
    solver = find_solver(row.name)
    want = solver.solve(DX, DF[:, :1]).coef
    np.testing.assert_array_equal(solver.solve(DX.tolist(), DF[:, :1].tolist()).coef, want)
    np.testing.assert_array_equal(solver.solve(DX, DF[:, 0]).coef, want)
    coarse = solver.solve(DX.astype(np.float32), DF[:, 0].astype(np.float32))
    assert coarse.coef.dtype == np.float64
    np.testing.assert_allclose(coarse.coef, want, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ({"dx": DX[:, 0]}, ValueError, "one sample a row"),
        ({"dx": DX[:4]}, ValueError, "one sample a row"),
        ({"dx": [DX] * 2, "df": [DF] * 3}, ValueError, "batch axes"),
        ({"dx": DX + 1j}, TypeError, "dx is complex"),
        ({"df": [["a"] * 3] * 14}, TypeError, "df must be numbers"),
        ({"dx": np.where(DX[3, 1] == DX, np.inf, DX)}, ValueError, "sample 3"),
        ({"weights": np.ones(5)}, ValueError, "one per sample"),
        ({"weights": -np.ones(14)}, ValueError, "not negative"),
        ({"jac0": np.ones(3)}, ValueError, "one entry per output and input"),
        ({"jac0": np.full((3, 3), np.nan)}, ValueError, "finite"),
        ({"noise": [1.0, 2.0]}, ValueError, "3 outputs"),
        ({"noise": -1.0}, ValueError, "not negative"),
        ({"constraints": Constraints(sparsity=np.ones((2, 3)))}, ValueError, "sparsity has shape"),
    ],
)
def test_what_does_not_fit_is_named(arguments, error, text):
    with pytest.raises(error, match=text):
        Pinv().solve(**({"dx": DX, "df": DF} | arguments))


def test_contradicting_knowledge_is_named_where_it_is_stated():
    with pytest.raises(ValueError, match=r"entry \(0, 1\) is 2.0"):
        Constraints(sparsity=np.eye(2), known=[[np.nan, 2.0], [0.0, np.nan]])
    with pytest.raises(ValueError, match="nan where"):
        Constraints(known=[[np.inf]])


@pytest.mark.parametrize("what", ["sparsity", "known", "jac0"])
def test_a_transposed_pattern_is_refused(what):
    """It has as many entries as the Jacobian, so a reshape would take it silently."""
    with pytest.raises(
        ValueError, match=rf"{what} has shape \(3, 2\), expected \(2, 3\), .*; it looks transposed"
    ):
        fit_jacobian(DX, DF[:, :2], **{what: np.ones((3, 2))})


def test_functions_of_arrays_take_what_solvers_take():
    fit = lstsq(DX.tolist(), DF[:, 0])
    np.testing.assert_allclose(fit.coef, JAC[:1], atol=1e-14)
    assert fit.rank == 3
    stack = lstsq(np.stack([[DX, DX]] * 2), DF)
    assert stack.coef.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(leverage(DX.tolist()).sum(), 3.0)
    assert leave_one_out(DX.tolist(), DF[:, 0].tolist()).shape == (14, 1)
    with pytest.raises(ValueError, match="one sample a row"):
        lstsq(DX[0], DF[0])
    with pytest.raises(ValueError, match="finite"):
        lstsq(DX, DF * np.nan)
    with pytest.raises(TypeError, match="complex"):
        lstsq(DX, DF * 1j)
    with pytest.raises(ValueError, match="finite"):
        leave_one_out(DX, DF * np.nan)
    with pytest.raises(ValueError, match="one weight per sample"):
        leave_one_out(DX, DF, weights=np.linspace(1, 2, 42).reshape(14, 3))


# -- solutions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", able(Capability.BATCHES, Capability.INTERCEPT))
def test_map_reaches_every_array(row):
    """Members taken from a batch by ``map`` are the members solved alone."""
    rng = np.random.default_rng(2)
    dx = rng.standard_normal((2, 14, 3))
    df = dx @ JAC.T + 0.1 * rng.standard_normal((2, 14, 3))
    solver = find_solver(row.name)
    both = solver.solve(dx, df, intercept=True)
    for i in range(2):
        alone = solver.solve(dx[i], df[i], intercept=True)
        member = both.map(lambda a, i=i: a[i, ...])
        for name in ("coef", "dof", "rank", "cond", "residual", "value", "value_stderr"):
            # A batch sums in another order; iterations stop at 1e-6 of that.
            np.testing.assert_allclose(getattr(member, name), getattr(alone, name), rtol=1e-5)
        np.testing.assert_allclose(member.cov.stderr(), alone.cov.stderr(), rtol=1e-5)
        np.testing.assert_allclose(member.interval(0.9), alone.interval(0.9), rtol=1e-5)
        for key, value in alone.info.items():
            assert np.shape(member.info[key]) == np.shape(value)


@pytest.mark.parametrize(
    "solver, classical",
    [
        (Pinv(), True),
        (Pinv(errors="hc3"), False),
        (Huber(), False),
        (Spectral(), True),
        (RankOne(), True),
        (RankOne(forgetting=0.9), False),
        (RankOne(mode="kaczmarz"), False),
        (Taylor(), False),
    ],
)
def test_classical_errors_are_the_residuals_standard_deviation(solver, classical):
    """Where the flag is set: sqrt(rss / dof), that a noise from replicates may stand in for."""
    noisy = DF + 0.1 * np.random.default_rng(1).standard_normal(DF.shape)
    solution = solver.solve(DX, noisy)
    assert solution.classical is classical
    if classical:
        rss = np.square(noisy - DX @ solution.coef.T).sum(0)
        np.testing.assert_allclose(solution.cov.scale, np.sqrt(rss / 11), rtol=1e-9)
        np.testing.assert_array_equal(solution.dof, 11)


def test_products_alone_can_be_fitted_by_every_kind_of_covariance():
    """Shared or by output, by samples (hc3), with few samples: the same J as from whole rows."""
    rng = np.random.default_rng(3)
    v = rng.standard_normal((14, 3))
    dx = rng.standard_normal((14, 2))
    df = dx @ JAC[:, :2].T + 1e-3 * rng.standard_normal((14, 3))
    products = np.einsum("ki,kj->kij", v, dx).reshape(14, 6)
    for solver in (Pinv(), Pinv(errors="hc3"), "huber", "rank-one", "taylor"):
        found = gradiator_np.fit_vjp(dx, (v * df).sum(1), v, base="exact", solver=solver)
        want = find_solver(solver).solve(products, (v * df).sum(1))
        np.testing.assert_allclose(found.jac.ravel(), want.coef.ravel(), rtol=1e-12)
        np.testing.assert_allclose(found.stderr.ravel(), want.cov.stderr().ravel(), rtol=1e-9)
        half = found.solution.interval(0.95)
        np.testing.assert_allclose(half.ravel(), want.interval(0.95).ravel(), rtol=1e-9)
