"""What results print: the digits that hold, tables, overviews; no addresses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradiator_np as gr
from gradiator_np._text import DIGITS, number


@pytest.mark.parametrize(
    "value, stderr, text",
    [
        (1.23456789, 0.0123, "1.235"),
        (123456.0, 3000.0, "123500"),
        (-1.2e-7, 3e-10, "-1.2000e-07"),
        (3e-6, 2e-3, "0"),
        (-1e-9, 1.0, "0"),
        (1 / 3, 0.0, "0.333333333333"),
        (2.0, np.nan, "2"),
        (0.0, np.inf, "0"),
        (1 + 2j, 0.01, "1.000+2.000j"),
        (2.5e17, 1e3, "2.50000000000e+17"),
    ],
)
def test_numbers_have_the_digits_that_hold(value, stderr, text):
    assert number(value, stderr) == text


@given(st.floats(-1e9, 1e9), st.floats(1e-12, 1e6))
def test_what_is_cut_off_is_below_the_error(value, stderr):
    """A unit of the second digit of the error, or of the last of the most digits shown."""
    unit = max(10 ** (np.floor(np.log10(stderr)) - 1), 10.0 ** (1 - DIGITS) * abs(value))
    assert abs(float(number(value, stderr)) - value) <= 0.51 * unit


def test_a_large_jacobian_is_told_in_an_overview():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((30, 40))
    estimate = gr.jacobian(lambda x: a @ x, np.ones(40), method="2-point", noise=1e-6, abs_step=0.1)
    text = str(estimate)
    assert f"|J| = {np.linalg.norm(estimate.jac):.6g}" in text
    assert "median 1.4e-05, largest 1.4e-05" in text  # sqrt(2) 1e-6 / 0.1
    assert "y[0]" in text
    assert f"{estimate.jac[29, 39]:.6f}" in text  # a corner, up to the second digit of its error
    assert "all entries: .jac, .stderr" in text
    # a head, a summary, 1 + 6 of the worst, 2 + 7 of the corners, where all are, the status
    lines = text.splitlines()
    assert len(lines) == 20
    assert lines[10].split() == ["x[0]", "x[1]", "x[2]", "...", "x[37]", "x[38]", "x[39]"]
    assert [line.split()[0] for line in lines[11:18]] == (
        ["y[0]", "y[1]", "y[2]", "...", "y[27]", "y[28]", "y[29]"]
    )


def test_a_large_batch_is_told_by_its_members():
    """|J| of diag(2 x) at x = 1 and 2, of 4 inputs each: 4 and 8."""
    x = np.repeat([[1.0], [2.0]], 4, axis=1)
    text = str(gr.jacobian(np.square, x, method="3-point", batch_dims=1))
    assert "|J| = 4 to 8 in each of 2, largest entry 4" in text


def test_a_large_interval_is_told_by_its_widths():
    estimate = gr.jacobian(lambda x: x, np.ones(5), method="3-point", noise=1e-3, abs_step=0.5)
    # 2 * 1.96 * sqrt(2) * 1e-3 / (2 * 0.5)
    assert "25 entries; width: median 0.0055, largest 0.0055" in repr(
        estimate.confidence_interval()
    )
    assert "low=array" in repr(gr.jacobian(np.square, [1.0]).confidence_interval())


def objects():
    rng = np.random.default_rng(0)
    x = np.array([1.0, 2.0])
    estimator = gr.JacobianEstimator(x)
    f = gr.gradiator(np.sin, np.multiply, method="3-point")
    chain = gr.Chain(np.eye(2), np.sin)
    product = gr.vjp(np.sin, x, np.ones(2))
    return {
        "estimate": product.estimate,
        "batch": gr.jacobian(np.sin, np.ones((3, 2)), batch_dims=1),
        "named": gr.jacobian(lambda p: {"s": p["a"] * 2}, {"a": 1.0}),
        "product": product,
        "several products": gr.jvp(np.sin, x, np.eye(2)),
        "samples": product.estimate.samples,
        "fit": gr.fit_jacobian(rng.standard_normal((5, 2)), rng.standard_normal((5, 3))),
        "estimator": estimator,
        "prepared": gr.prepare(np.sin, x),
        "linearization": gr.linearize(np.sin, x)[1],
        "gradiator": f,
        "point": f.linearize(x),
        "counts": f.counts,
        "chain": chain,
        "chain at a point": chain.linearize(x),
        "chain estimate": gr.Chain(np.sin, np.cos).estimate(x),
        "plan": chain.plan(x),
        "recurrence": gr.Recurrence(lambda x, theta, i: x * theta, 3),
        "noise": gr.estimate_noise(np.sin, x),
        "step": gr.optimal_step(np.sin, x, noise=1e-6),
        "check": gr.check_jacobian(np.sin, np.diag(np.cos(x)), x),
        "run": gr.Run(),
        "reuse": gr.Reuse(),
        "interval": product.confidence_interval(),
        "covariance": product.estimate.covariance,
        "solution": gr.fit_jacobian(np.eye(2), np.ones((2, 3)), solver="spectral").solution,
        "linear fit": gr.solvers.lstsq(np.ones((4, 3, 2)), np.ones((4, 3, 1))),
        "operator": product.estimate.as_linear_operator(),
        "design": gr.designs.Hadamard(step=0.1),
    }


def test_nothing_prints_an_address():
    for name, thing in objects().items():
        assert " at 0x" not in repr(thing), name
        assert len(repr(thing)) > 5, name


def test_flat_results_print_sizes_and_no_arrays():
    found = objects()
    for name in ("covariance", "solution", "linear fit", "operator"):
        assert "array(" not in repr(found[name]), name
        assert "None" not in repr(found[name]), name
    assert "3 outputs x 2 inputs" in repr(found["solution"])
    assert "stderr of 6 of 6 entries unknown" in repr(found["solution"])
    assert "batch (4,), rank 1" in repr(found["linear fit"])
