"""What stencils and the complex step say against their own numbers: noise, digits, short steps."""

import warnings

import numpy as np
import pytest

from benchmarks.strangers_cases import CELLS, Draw
from gradiator_np import GradiatorWarning, jacobian, jvp, vjp
from gradiator_np.designs._finite_difference.evidence import evidence
from gradiator_np.designs._finite_difference.weights import highest_difference

STENCILS = ("2-point", "3-point", "5-point", "7-point", "9-point")


def draws(cell, count, seed=0):
    """Cases of a cell of the fuzzer, the same in every run."""
    index = list(CELLS).index(cell)
    return [CELLS[cell](Draw(np.random.default_rng([90, seed, index, k]))) for k in range(count)]


def quietly(case, method):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradiatorWarning)
        return jacobian(case.fun, case.x, method=method, **case.options)


@pytest.mark.parametrize("method", [*STENCILS, "cs"])
@pytest.mark.parametrize(
    "cell", ["smooth", "smooth, a hundred outputs", "outputs of different kind", "on bounds"]
)
def test_smooth_functions_raise_no_alarm(method, cell):
    """None in 150 calls of each kind, where the rate is to be below 1e-3: of 2000 for each method
    there was none. A rate of 1e-3 fails one of these tests in seven."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for case in draws(cell, 150 if cell == "smooth" else 40):
            assert jacobian(case.fun, case.x, method=method, **case.options).status == "ok"


@pytest.mark.parametrize("method", ["5-point", "7-point", "9-point"])
@pytest.mark.parametrize("cell", ["printed, 4 .. 7 digits", "printed, 8 .. 12 digits"])
def test_error_bars_hold_on_printed_output(method, cell):
    """0.98 to 1.0 of the entries within 1.96 stderr in 40 draws, at 5 seeds; 0.19 where bars
    compare orders alone."""
    held, known = 0, 0
    for case in draws(cell, 40):
        e = quietly(case, method)
        error = np.abs(e.jac - case.truths[0])
        rounding = 1e-10 * np.linalg.norm(case.truths[0], axis=1, keepdims=True)
        held += (error <= 1.96 * e.stderr + rounding).sum()
        known += error.size
        assert (error <= 6 * e.stderr + rounding).mean() > 0.95
    assert 0.93 <= held / known <= 1.0


@pytest.mark.parametrize("method", STENCILS[1:])
@pytest.mark.parametrize("level", [1e-3, 1e-5, 1e-8])
def test_noise_is_seen_without_a_run_more(method, level):
    """The noise found is within a factor of 3 of the truth (a median of six lines), and bars are
    as wide as the errors."""
    rng = np.random.default_rng(3)
    a, x = rng.standard_normal((40, 6)), rng.uniform(0.5, 2.0, 6)

    def fun(p):
        return a @ p + level * rng.standard_normal(40)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradiatorWarning)
        e = jacobian(fun, x, method=method)
    assert e.nfev == 1 + 6 * (int(method[0]) - 1)
    # 40 outputs, each outside with probability 0.1: more than 13 with probability 1e-5
    assert np.mean(np.abs(np.log(e.solution.cov.scale / level)) < np.log(3)) > 0.66
    z = np.abs(e.jac - a) / e.stderr
    assert 0.3 < np.median(z) < 1.2
    assert (z < 5).mean() > 0.95
    # slopes of 1 over steps of 6e-6, 1e-3, 8e-3, 2e-2
    hidden = level > {"3-point": 1e-6, "5-point": 3e-4, "7-point": 3e-3, "9-point": 1e-2}[method]
    assert hidden <= (e.status == "no_signal")
    assert (level < 1e-7) <= (e.status == "ok")


@pytest.mark.parametrize("method", STENCILS)
def test_outputs_that_stand_still_are_no_zeros(method):
    steps = {"2-point": 4, "3-point": 4, "5-point": 2, "7-point": 2, "9-point": 2}
    printed = f"%.{steps[method]}g"
    x = np.array([1.37, 0.62])

    def fun(p):
        return np.array([float(printed % (1000 + p[0] * p[1])), float(printed % (500 + p[0]))])

    with pytest.warns(GradiatorWarning, match=r"no output changes at all.*method='auto'"):
        e = jacobian(fun, x, method=method)
    assert e.status == "no_signal"
    e = quietly_auto = jacobian(lambda p: np.array([float(f"{p[0] * p[1]:.8g}")]), x)
    assert quietly_auto.status == "ok"  # the remedy
    assert np.abs(e.jac[0] - x[::-1]).max() < 1e-4


def test_a_stencil_on_printed_output_says_so():
    x = np.array([1.37, 0.62])

    def fun(p):
        return np.array([float(f"{np.exp(p[0]) * p[1]:.7g}"), float(f"{p[0] / p[1]:.7g}")])

    def more(p):
        return np.array([float(f"{np.exp(p[0]) * p[1]:.8g}"), float(f"{p[0] / p[1]:.8g}")])

    with pytest.warns(GradiatorWarning, match="printed or rounded"):
        assert jacobian(more, x, method="2-point").status == "no_signal"
    e = jacobian(fun, x, method="5-point")
    assert e.status == "ok"
    assert "printed or rounded (spacing up to 1e-06)" in e.message
    truth = np.array([[np.exp(x[0]) * x[1], np.exp(x[0])], [1 / x[1], -x[0] / x[1] ** 2]])
    assert (np.abs(e.jac - truth) <= 4 * e.stderr).all()
    assert e.stderr.max() < 1e-2


@pytest.mark.parametrize("method", STENCILS)
def test_single_precision_inside_is_a_grid(method):
    x = np.array([1.37, 0.62, 2.2])

    def fun(p):
        z = p.astype(np.float32)
        return np.array([np.exp(z[0]) * z[1], z[2] / z[1]]).astype(float)

    truth = np.array([[np.exp(1.37) * 0.62, np.exp(1.37), 0], [0, -2.2 / 0.62**2, 1 / 0.62]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradiatorWarning)
        e = jacobian(fun, x, method=method)
    if method == "2-point":
        assert e.status == "no_signal"
    else:
        assert (np.abs(e.jac - truth) <= 5 * e.stderr + 1e-9).all()
    assert jacobian(lambda p: 3 * p, [1.5, 0.25], method=method).message == (
        jacobian(np.sin, [1.5, 0.25], method=method).message
    )


def test_exact_arithmetic_on_short_decimals_is_not_taken_for_printing():
    for method in STENCILS:
        e = jacobian(lambda p: np.array([64 * p[0], 3 * p[1] - p[0]]), [1.5, 0.25], method=method)
        assert e.status == "ok"
        assert "printed" not in e.message
        if method != "2-point":
            assert e.stderr.max() < 1e-6


@pytest.mark.parametrize("tiny", [1e-8, 1e-10, 1e-13])
@pytest.mark.parametrize("method", ["2-point", "3-point"])
def test_steps_too_short_to_show_are_named(method, tiny):
    def fun(p):
        return np.array([np.sin(p[0]) + p[1] * p[2], np.exp(p[1])])

    x = np.array([tiny, 1.1, 0.4])
    truth = np.array([[1.0, 0.4, 1.1], [0.0, np.exp(1.1), 0.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradiatorWarning)
        e = jacobian(fun, x, method=method)
    off = np.abs(e.jac - truth)[0, 0] > 0.01
    covered = (np.isnan(e.stderr[0, 0]) and e.status != "ok") or e.stderr[0, 0] > 0.2 * off
    assert not off or covered
    if tiny == 1e-13:
        assert e.status == "unresolved"
        assert "x_scale" in e.message
        assert np.isinf(e.stderr[0, 0])
    # the remedy
    e = jacobian(fun, x, method=method, x_scale=[1.0, 1.1, 0.4])
    assert e.status == "ok"
    np.testing.assert_allclose(e.jac, truth, atol=1e-6)


def test_an_input_that_does_nothing_is_no_short_step():
    e = jacobian(lambda p: p[:2] ** 2, [1.0, 2.0, 1e-3], method="2-point")
    assert e.status == "ok"


def test_a_product_with_zero_is_no_cause_for_doubt():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert jvp(np.sin, [1.0, 2.0], [0.0, 0.0], method="3-point").status == "ok"
        assert vjp(np.sin, [1.0, 2.0], [0.0, 0.0], method="3-point").status == "ok"


def test_one_input_that_bends_leaves_the_bars_of_the_others_alone():
    x = np.array([1.0, 2.0, 0.5, 3.0, 1.5])

    def fun(p):
        return np.array([np.sum(p * [1, 2, 3, 4, 5]) + np.sin((p[0] - 1.0001) / 1e-4)])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradiatorWarning)
        e = jacobian(fun, x, method="5-point")
    assert e.stderr[0, 0] > 1e2
    assert (e.stderr[0, 1:] < 1e-9).all()


@pytest.mark.parametrize("p", [2, 3, 4, 6, 8])
def test_the_highest_difference_is_free_of_what_the_rule_is_exact_for(p):
    rng = np.random.default_rng(p)
    t = rng.choice(np.arange(1, 3 * p), p, replace=False) * rng.choice([-1.0, 1.0], p) * 1e-3
    c = highest_difference(t)
    for power in range(1, p):
        assert abs(c @ t**power) < 1e-12 * np.abs(t).max() ** power
    assert np.square(c).sum() + c.sum() ** 2 == pytest.approx(1.0)


def test_evidence_of_the_values_alone():
    """Two outputs on a grid of 0.01, one on none."""
    y = np.array([[1.23, 4.56, np.sqrt(2)]])
    k = np.arange(1, 7).reshape(-1, 1, 1)
    values = np.round(y + [0.037, 0.121, 0.0] * k, 2)
    values[..., 2] = np.sqrt(2 + 0.01 * k[..., 0])
    found = evidence(
        None, np.ones((1, 3, 6)), 1.1 + 0.0317 * np.sqrt(k[..., 0]), values, y, 2.2e-16
    )
    np.testing.assert_allclose(found.spacing[0], [0.01, 0.01, 0])
    np.testing.assert_allclose(found.noise[0], [0.01 / 12**0.5, 0.01 / 12**0.5, np.nan])


# -- the complex step ----------------------------------------------------------------------------

X = np.array([0.7, -1.3, 2.1])
LOSES = {
    "real": lambda x: x[1] * x.real * np.exp(x[0]),
    "conj": lambda x: x * np.conj(x),
    "abs": lambda x: np.array([np.abs(x[0]) * x[1], x[2] ** 2]),
    "maximum": lambda x: x[1] * np.maximum(x.real, 0) + x[2],
    "half": lambda x: x * x.real,
}


@pytest.mark.parametrize("name", LOSES)
@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (X, X + 1), (X - 1, X)])
def test_a_lost_imaginary_part_is_told(name, bounds):
    asked = []

    def fun(x):
        asked.append(x.real.copy())
        return LOSES[name](x)

    with pytest.warns(GradiatorWarning, match="loses the imaginary part"):
        e = jacobian(fun, X, method="cs", bounds=bounds)
    assert e.status == "lack_of_fit"
    assert e.nfev <= 3 + 1 + 3
    assert (np.array(asked) >= bounds[0]).all()
    assert (np.array(asked) <= bounds[1]).all()
    with pytest.warns(GradiatorWarning, match="loses the imaginary part"):
        vjp(LOSES[name], X, np.ones(len(LOSES[name](X))), method="cs")


ANALYTIC = {
    "plain": (lambda x: np.sin(x) * x[::-1], 1),
    "bends at 1e-7": (lambda x: np.tanh((x - X) / 1e-7), 3),
    "rounds": (lambda x: (1e9 + x) - 1e9, 3),
    "wiggles": (lambda x: np.sin(1e6 * x), 1),
    "at its minimum": (lambda x: np.array([np.sum((x - X) ** 2)]), 3),
}


@pytest.mark.parametrize("name", ANALYTIC)
def test_an_analytic_function_is_believed_at_one_run_more(name):
    fun, most = ANALYTIC[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        e = jacobian(fun, X, method="cs")
    assert e.status == "ok"
    assert e.nfev <= 1 + 3 + most


def test_a_complex_check_that_has_no_room_is_left_out():
    fixed = jacobian(lambda x: x**2, X, method="cs", bounds=(X, X + np.array([0, 1, 1])))
    assert fixed.status == "undetermined"
    product = jvp(np.sin, X, [1.0, 1.0, -1.0], method="cs", bounds=(X, X + 1))
    assert product.nfev == 2
    assert "not checked" in product.message


WAVES = {
    "tanh": (np.tanh, lambda t: 1 / np.cosh(t) ** 2),
    "sin": (np.sin, np.cos),
    "exp": (np.exp, np.exp),
    "square": (np.square, lambda t: 2 * t),
    "straight": (np.positive, np.ones_like),
}


def known_noise(method, wave, noise, seeds=60, **options):
    """Share of 12 entries each that 95 % intervals hold, and the statuses."""
    fun, slope = WAVES[wave]
    held, said = [], []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 7])
        w, b, x = rng.normal(size=(3, 4)), rng.uniform(-1, 1, 3), rng.uniform(0.5, 2, 4)

        def run(p, w=w, b=b, x=x, rng=rng):
            return fun(w @ (p - x) + b) + noise * rng.normal(size=3)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GradiatorWarning)
            e = jacobian(run, x, method=method, noise=noise, **options)
        low, high = e.confidence_interval()
        truth = slope(b)[:, None] * w
        held.append(np.mean((low <= truth) & (truth <= high)))
        said.append(e.status)
    return np.mean(held), said


@pytest.mark.parametrize("wave", WAVES)
@pytest.mark.parametrize("noise, step", [(1e-6, 0.05), (1e-4, 0.05), (1e-2, 0.05), (1e-4, 0.3)])
def test_a_known_noise_leaves_no_truncation_unseen(wave, noise, step):
    """Of 720 entries "3-point" held 0.87 (sines) to 1.0, with noise alone 0.26 to 0.36 of those
    over long steps. They come in 180 rows, half of which bend alike: 0.87 - 0.78 are 3.6 of their
    standard deviations. "2-point" holds 0.01 to 0.55 over long steps, and says so."""
    held, said = known_noise("3-point", wave, noise, abs_step=step)
    assert held > 0.78
    assert set(said) == {"ok"}
    held, said = known_noise("2-point", wave, noise, abs_step=step)
    assert held > 0.9 or set(said) == {"truncation"}


@pytest.mark.parametrize("method", ["2-point", "3-point"])
@pytest.mark.parametrize("wave", WAVES)
def test_short_steps_beside_a_known_noise_raise_no_alarm(method, wave):
    """Bars are those of the noise: sqrt(2) or 1 / sqrt(2) of it by the step; 720 entries in 180
    rows hold 0.95 +- 0.065 (4 standard deviations)."""
    for options in ({}, {"rel_step": 1e-6}):
        held, said = known_noise(method, wave, 1e-10, **options)
        assert set(said) == {"ok"}
        assert abs(held - 0.95) < 0.065


def test_a_line_that_lost_a_point_has_nothing_to_tell():
    """One point beside x is left of the second input: nothing tells of its bend."""

    def fun(x):
        return np.exp(x[0]) + (np.exp(x[1]) if x[1] < 1.05 else np.nan)

    options = {"method": "3-point", "noise": 1e-6, "abs_step": 0.1, "on_error": "drop"}
    with pytest.warns(GradiatorWarning, match="truncation.*input 1 is moved by 0.1"):
        e = jacobian(fun, np.ones(2), **options)
    assert e.status == "truncation"
    # e h^2 / 6, within the bar of the first
    assert abs(e.jac[0] - np.e) < 1.96 * e.stderr[0] < 0.1
