"""Derivatives in units that can be compared, and ranks as far as error bars settle them."""

import numpy as np
import pytest
from scipy.stats import binom

from gradiator_np import fit_jacobian, fit_points, jacobian, sensitivities, vjp
from gradiator_np._covariance import Covariance, Row
from gradiator_np._propagation import ranking
from gradiator_np._propagation.ranking import rank_intervals
from tests.test_propagation import ALARM, estimate_of, random_covariance


def power_law(x):
    return [x["a"] ** 2 * x["b"][0] ** -3 * x["b"][1] ** 0.5, 5 * x["b"][1]]


X = {"a": 2.0, "b": [1.5, 3.0]}


def test_elasticities_of_a_power_law_are_its_exponents():
    """d log y / d log x; the noise-free default knows J to 1e-8."""
    found = sensitivities(jacobian(power_law, X))
    np.testing.assert_allclose(found.value["a"], [2, 0], atol=1e-7)
    np.testing.assert_allclose(found.value["b"], [[-3, 0.5], [0, 1]], atol=1e-7)
    np.testing.assert_array_equal(found.rank["a"][0], 2)
    np.testing.assert_array_equal(found.rank["b"][0], [1, 3])
    assert found.kind == "dy/dx * x/y"
    assert found.success


def test_units_of_the_callers_scale_values_and_errors():
    rng = np.random.default_rng(1)
    cov, _ = random_covariance(rng, 2, 3, 0.1, "diag")
    estimate = estimate_of(rng.normal(size=(2, 3)), cov)
    std_x, std_y = np.array([1.0, 0.5, 0.0]), np.array([2.0, 4.0])
    unit = std_x / std_y[:, None]
    found = sensitivities(estimate, std_x=std_x, std_y=std_y)
    np.testing.assert_allclose(found.value, estimate.jac * unit)
    np.testing.assert_allclose(found.stderr, estimate.stderr * unit)
    assert found.kind == "dy/dx * std_x/std_y"
    one = sensitivities(estimate, std_x=std_x)
    np.testing.assert_allclose(one.value, estimate.jac * std_x)
    np.testing.assert_array_equal(one.rank, found.rank)


def test_errors_hold_that_of_y_too():
    """Elasticities of draws of J and y: 95 % within 1.96 standard errors.

    At 3 % of J and of y the ratio is normal to 1 % of its error; tested between 0.93 and 0.97.
    """
    rng = np.random.default_rng(2)
    draws, x = 600, np.array([2.0, 5.0])
    jac, y = np.array([1.0, -0.5]), 3.0
    rows = jac * (1 + 0.03 * rng.normal(size=(draws, 2)))
    seen = y + 0.09 * rng.normal(size=draws)
    cov = Covariance(np.full(draws, 0.09), np.square(0.03 * jac / 0.09))
    found = sensitivities(estimate_of(rows, cov, x=x, y=seen))
    for count in np.sum(np.abs(found.value - jac * x / y) <= 1.96 * found.stderr, 0):
        assert binom.ppf(ALARM, draws, 0.93) <= count <= binom.ppf(1 - ALARM, draws, 0.97)


@pytest.mark.parametrize("kind", ["diag", "factor diag"])
def test_orders_are_settled_wrongly_in_few_draws(kind):
    """Ties of either sign and close values, errors shared or not: at most 5 % of the draws.

    And where all are 12 errors apart the order is settled in nearly all: the largest of ten
    pairs needs 2.8 errors of a difference, 4 of one at most.
    """
    rng = np.random.default_rng(3)
    draws, true = 400, np.array([1.0, -1.0, 1.0, 0.9, 0.1])
    cov, s = random_covariance(rng, 1, 5, 0.2, kind)
    root = np.linalg.cholesky(s[0])
    size = np.abs(true)
    wrong = settled = 0
    low_true = 1 + np.sum(size > size[:, None], 1)
    high_true = 5 - np.sum(size < size[:, None], 1)
    for _ in range(draws):
        found = sensitivities(estimate_of((true + root @ rng.normal(size=5))[None], cov), std_x=1)
        low, high = (ranks[0] for ranks in found.rank_interval)
        # An interval has to hold every place that a tie may take.
        wrong += bool(np.any((low > low_true) | (high < high_true)))
        far = np.array([0.0, -12, 24, -36, 48]) * np.sqrt(np.diag(s[0])).max()
        far = estimate_of((far + root @ rng.normal(size=5))[None], cov)
        settled += sensitivities(far, std_x=1).rank_interval[0].tolist() == [[5, 4, 3, 2, 1]]
    assert wrong <= binom.ppf(1 - ALARM, draws, 0.05)
    assert settled >= 0.99 * draws


def test_intervals_of_ranks_by_hand(monkeypatch):
    """5 and 4.9 differ by less than two errors, -3 from both by more, nan stays open."""
    row = Row(np.full(4, 0.01), np.zeros((1, 0)), np.ones(1))
    value = np.tile([5.0, -3.0, 4.9, np.nan], (7, 1))
    value[1::2] = value[1::2, ::-1]
    monkeypatch.setattr(ranking, "PART", 12)  # three rows at a time
    t, one = np.full(7, 2.0), np.ones((7, 4))
    low, high = rank_intervals(value, iter([row] * 7), one, np.isfinite(value), t)
    for order, which in ((1, slice(0, None, 2)), (-1, slice(1, None, 2))):
        np.testing.assert_array_equal(low[which, ::order], [[1, 3, 1, 1]] * len(low[which]))
        np.testing.assert_array_equal(high[which, ::order], [[3, 4, 3, 4]] * len(low[which]))


def test_shared_errors_settle_an_order_that_own_ones_do_not():
    """Two derivatives with one common error of 1 differ by an error of 0.02 only."""
    shared = Covariance(np.ones(1), np.full(2, 1e-4), np.ones((2, 1)))
    own = Covariance(np.ones(1), np.full(2, 1.0))
    coef = np.array([[10.0, 10.5]])
    assert sensitivities(estimate_of(coef, shared), std_x=1).rank_interval[1].tolist() == [[2, 1]]
    assert sensitivities(estimate_of(coef, own), std_x=1).rank_interval[1].tolist() == [[2, 2]]


def test_what_is_not_defined_is_nan_and_said():
    def fun(x):
        return [x[0] * x[1] + x[2], x[1] - 2.0]

    found = sensitivities(jacobian(fun, [0.0, 2.0, 1.0]))
    np.testing.assert_array_equal(np.isnan(found.value), [[True, False, False], [True] * 3])
    assert "y[1] is 0: its elasticities are not defined" in found.message
    assert "x[0] is 0: a relative change of it is none" in found.message
    assert found.rank_interval[0][0].tolist() == [1, 2, 1]
    assert found.rank_interval[1][0].tolist() == [3, 3, 2]
    assert [ranks[1].tolist() for ranks in found.rank_interval] == [[1, 1, 1], [3, 3, 3]]
    # In units of the caller's nothing is undefined.
    given = sensitivities(jacobian(fun, [0.0, 2.0, 1.0]), std_x=1.0)
    np.testing.assert_allclose(given.value, [[2, 0, 1], [0, 1, 0]], atol=1e-7)


def test_a_value_that_may_be_zero_leaves_no_bar():
    """Fieller: a denominator below 1.96 errors has no bounded interval; 2.1 errors have one."""
    cov, coef = Covariance(np.full(2, 0.1), np.full(1, 1e-4)), np.ones((2, 1))
    found = sensitivities(estimate_of(coef, cov, x=np.ones(1), y=np.array([0.19, 0.21])))
    assert np.isinf(found.stderr[0, 0])
    assert np.isfinite(found.stderr[1, 0])
    assert "y[0] may be 0 within its error" in found.message
    flat = sensitivities(estimate_of(0 * coef, cov, x=np.ones(1), y=np.array([0.19, 0.21])))
    assert np.isinf(flat.stderr[0, 0])


def test_the_error_of_a_fitted_value_counts():
    rng = np.random.default_rng(4)
    points = rng.normal(size=(60, 2))
    values = 3 + points @ [1.0, 2.0] + 0.01 * rng.normal(size=60)
    estimate = fit_points(points, values, x=np.array([0.5, 0.5]))
    found = sensitivities(estimate)
    own = estimate.stderr * 0.5 / estimate.y
    by_y = np.hypot(found.value, own) * estimate.solution.value_stderr / estimate.y
    np.testing.assert_allclose(found.stderr, np.hypot(own, by_y), rtol=1e-12)


def test_lost_derivatives_are_last_and_said():
    estimate = jacobian(
        lambda x: x[0] * x[1] + x[2], [1.0, 2.0, 3.0], bounds=([0, 2, 0], [9, 2, 9])
    )
    found = sensitivities(estimate)
    assert np.isnan(found.value[1])
    assert np.isinf(found.stderr[1])
    assert found.rank[1] == 3
    assert [r[1] for r in found.rank_interval] == [1, 3]
    assert "no sample determines derivatives by x[1]" in found.message
    assert sensitivities(estimate, std_x=[1, 0, 1]).value[1] == 0


def test_errors_that_nothing_tells_settle_no_order():
    found = sensitivities(jacobian(lambda x: x @ [1.0, 9.0], [1.0, 1.0], method="2-point"))
    np.testing.assert_allclose(found.value, [0.1, 0.9], rtol=1e-6)
    assert np.isnan(found.stderr).all()
    assert [r.tolist() for r in found.rank_interval] == [[1, 1], [2, 2]]
    assert "nothing tells the errors of J for y" in found.message


def test_products_samples_and_arrays_will_do():
    product = vjp(lambda x: [x[0] * x[1], x[1]], [2.0, 3.0], [1.0, 0.0])
    np.testing.assert_allclose(np.ravel(sensitivities(product).value), [1, 1], rtol=1e-6)
    exact = sensitivities([[1.0, 2.0, -2.0]], std_x=1.0)
    assert exact.rank_interval[0].tolist() == [[3, 1, 1]]
    assert exact.rank_interval[1].tolist() == [[3, 2, 2]]
    dx = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    fitted = fit_jacobian(dx, dx @ [[1.0], [2.0], [3.0]])
    with pytest.raises(ValueError, match="comes without x"):
        sensitivities(fitted)
    assert sensitivities(fitted, std_x=1.0).rank.tolist() == [[3, 2, 1]]


def test_what_is_printed():
    cov = Covariance(np.array([0.01]), np.ones(3))
    text = repr(sensitivities(estimate_of(np.array([[1.0, -2, 0.99]]), cov), std_x=1.0))
    *lines, status = text.splitlines()
    assert [line.split() for line in lines] == [
        ["Sensitivities:", "1", "outputs", "x", "3", "inputs"],
        ["output", "rank", "input", "dy/dx", "*", "std_x", "stderr"],
        ["y[0]", "1", "x[1]", "-2.000", "0.010"],
        ["y[0]", "2", "to", "3", "x[0]", "1.000", "0.010"],
        ["y[0]", "2", "to", "3", "x[2]", "0.990", "0.010"],
    ]
    assert status == "status: ok. error bars do not settle every rank (0.95) for y[0]"
    assert "... 580 more: .value, .stderr, .rank" in repr(sensitivities(np.eye(30)[:20], std_x=1))


def test_data_frames():
    pytest.importorskip("pandas")
    frame = sensitivities(jacobian(power_law, X)).to_dataframe()
    assert frame["input"].tolist() == ["x.a", "x.b[0]", "x.b[1]"] * 2
    first = frame[frame["output"] == "y[0]"]
    np.testing.assert_allclose(first["sensitivity"], [2, -3, 0.5], atol=1e-7)
    assert first["rank_low"].tolist() == first["rank_high"].tolist() == [2, 1, 3]
