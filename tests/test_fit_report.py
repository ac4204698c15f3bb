"""The report of a fit: its numbers against NIST's, lmfit's and closed forms, its words by cases."""

import sys

import numpy as np
import pytest
from scipy import optimize, stats

from gradiator_np import least_squares

T = np.linspace(0, 4, 30)

# NIST Statistical Reference Datasets, nonlinear regression, Misra1a: pressure and volume.
PRESSURE = np.array([77.6, 114.9, 141.1, 190.8, 239.9, 289.0, 332.8, 378.4, 434.8, 477.3, 536.8,
                     593.1, 689.1, 760.0])  # fmt: skip
VOLUME = np.array([10.07, 14.73, 17.94, 23.93, 29.61, 35.18, 40.02, 44.82, 50.76, 55.05, 61.01,
                   66.40, 75.47, 81.78])  # fmt: skip


def misra(x):
    return x[0] * (1 - np.exp(-x[1] * PRESSURE))


def misra_fit(**options):
    return least_squares(lambda x: misra(x) - VOLUME, [250.0, 5e-4], **options)


def product_fit(noise=0.0, seed=0, **options):
    """Two parameters of which the data know the product."""
    rng = np.random.default_rng(seed)
    data = 2 * np.exp(-0.7 * T) + 0.02 * rng.normal(size=T.size)

    def residuals(p):
        model = p["a"] * np.exp(-p["k"][0] * p["k"][1] * T)
        return model - data + noise * rng.normal(size=T.size)

    return least_squares(residuals, {"a": 1.0, "k": [1.0, 0.5]}, **options)


def section(report, title):
    """The text of one section."""
    return next(part for part in str(report).split("\n\n") if part.startswith(title))


# -- numbers -----------------------------------------------------------------------------------


def test_certified_values_of_nist():
    report = misra_fit().report(data=VOLUME)
    # Certified standard deviations are by J'J as here; the search ends within 1e-8 of the sum of
    # squares, that is 1e-4 of a standard error, and knows J by differences to about 1e-4.
    np.testing.assert_allclose(report.stderr, [2.7070075241, 7.2668688436e-6], rtol=1e-3)
    statistics = report.statistics
    assert statistics.degrees_of_freedom == 12
    assert statistics.chi_squared == pytest.approx(1.2455138894e-1, rel=1e-7)
    assert statistics.residual_sd == pytest.approx(1.0187876330e-1, rel=1e-7)
    want = 1 - 1.2455138894e-1 / np.sum((VOLUME - VOLUME.mean()) ** 2)
    assert statistics.r_squared == pytest.approx(want, rel=1e-9)
    # 95 % intervals by Student's t with 12 degrees of freedom.
    half = stats.t.ppf(0.975, 12) * report.stderr
    np.testing.assert_allclose(report.high - report.value, half, rtol=1e-12)


def curve_fit(sigma, absolute):
    def model(p, a, b):
        return a * (1 - np.exp(-b * p))

    return optimize.curve_fit(
        model, PRESSURE, VOLUME, [250, 5e-4], sigma=sigma, absolute_sigma=absolute
    )


@pytest.mark.parametrize("absolute", [False, True])
def test_covariance_is_that_of_curve_fit(absolute):
    sigma = np.linspace(0.05, 0.2, 14)
    report = misra_fit(sigma=sigma, absolute_sigma=absolute).report()
    _, cov = curve_fit(sigma, absolute)
    np.testing.assert_allclose(report.stderr, np.sqrt(np.diagonal(cov)), rtol=2e-3)
    # 1 - r^2 is 2e-3 here, and errors of J of 1e-4 move it by as much as r.
    want = cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1])
    assert report.correlations[0].value == pytest.approx(want, abs=2e-4)


@pytest.mark.parametrize("sigma", [None, np.linspace(0.05, 0.2, 14)])
def test_criteria_are_those_of_lmfit(sigma):
    """Formulas of lmfit 1.3, `ModelResult` and `MinimizerResult`; lmfit itself where it is."""
    s = misra_fit(sigma=sigma).report(data=VOLUME).statistics
    weighted = (misra(misra_fit(sigma=sigma).x) - VOLUME) / (1 if sigma is None else sigma)
    chi2 = weighted @ weighted
    # the minimum is flat: 1e-8 of the sum of squares at most
    assert s.chi_squared == pytest.approx(chi2, rel=1e-7)
    assert s.aic == pytest.approx(14 * np.log(chi2 / 14) + 2 * 2, abs=1e-5)
    assert s.bic == pytest.approx(14 * np.log(chi2 / 14) + np.log(14) * 2, abs=1e-5)
    lmfit = pytest.importorskip("lmfit")
    model = lmfit.Model(lambda p, a, b: a * (1 - np.exp(-b * p)))
    weights = None if sigma is None else 1 / sigma
    peer = model.fit(VOLUME, p=PRESSURE, a=250.0, b=5e-4, weights=weights)
    assert s.chi_squared == pytest.approx(peer.chisqr, rel=1e-7)
    assert s.reduced_chi_squared == pytest.approx(peer.redchi, rel=1e-7)
    assert (s.aic, s.bic) == pytest.approx((peer.aic, peer.bic), abs=1e-5)
    if sigma is None:  # lmfit's takes weights for the residuals only
        assert s.r_squared == pytest.approx(peer.rsquared, abs=1e-9)
    found = misra_fit(sigma=sigma).report()
    assert found.correlations[0].value == pytest.approx(peer.params["a"].correl["b"], abs=2e-4)


def test_criteria_of_known_errors():
    s = misra_fit(sigma=0.1, absolute_sigma=True).report().statistics
    # NIST's residual sum of squares over sigma squared
    assert s.chi_squared == pytest.approx(12.455138894, rel=1e-7)
    assert s.aic == pytest.approx(12.455138894 + 2 * 2, rel=1e-7)
    assert s.bic == pytest.approx(12.455138894 + 2 * np.log(14), rel=1e-7)
    assert s.probability == pytest.approx(stats.chi2.sf(12.455138894, 12), rel=1e-6)


def test_r_squared_weighs_the_data_as_the_fit_does():
    sigma = np.linspace(0.05, 0.2, 14)
    s = misra_fit(sigma=sigma).report(data=VOLUME).statistics
    mean = np.average(VOLUME, weights=sigma**-2)
    want = 1 - s.chi_squared / np.sum(((VOLUME - mean) / sigma) ** 2)
    assert s.r_squared == pytest.approx(want, rel=1e-12)
    assert np.isnan(misra_fit().report().statistics.r_squared)


def test_shares_of_a_prior_are_those_of_information():
    """One parameter, 16 data of sigma 1 and a prior of 0.5: information 16 and 4."""
    data = np.random.default_rng(0).normal(size=16)
    fit = least_squares(lambda x: x[0] - data, [0.0], sigma=1.0, prior_mean=0.0, prior_std=0.5)
    report = fit.report()
    # J is 1 in a linear problem, to the errors of differences
    assert report.prior_share[0] == pytest.approx(4 / 20, rel=1e-6)
    assert report.stderr[0] == pytest.approx(20**-0.5, rel=1e-6)
    assert report.statistics.degrees_of_freedom == 16
    assert "The data determine 0.80 of 1 parameters" in section(report, "Prior")
    assert "20 %" in section(report, "Parameters")
    assert not misra_fit().report().prior_share.any()


def test_combinations_are_singular_vectors_with_their_errors():
    fit = misra_fit()
    report = fit.report()
    jac = np.array([1 - np.exp(-fit.x[1] * PRESSURE),
                    fit.x[0] * PRESSURE * np.exp(-fit.x[1] * PRESSURE)]).T  # fmt: skip
    _, s, vectors = np.linalg.svd(jac * fit.x)
    for found, size, vector in zip(report.combinations, s, vectors):
        assert abs(found.weights @ vector) == pytest.approx(1, abs=1e-6)
        want = report.statistics.residual_sd / size
        assert found.stderr == pytest.approx(want, rel=2e-3)
    # in units that are given: of one unit each the second parameter moves 1e6 times as much
    best = fit.report(x_scale=1.0).combinations[0]
    assert abs(best.weights[1]) == pytest.approx(1, abs=1e-6)


def test_what_the_data_do_not_determine_is_a_combination():
    for seed in range(3):
        report = product_fit(0.001, seed).report()  # all of 60 are so; 9 of 10 at 0.003
        assert report.state == ("", "undetermined", "undetermined")
        *known, lost = report.combinations
        assert np.isfinite([c.stderr for c in known]).all()
        assert np.isinf(lost.stderr)
        # ln k_0 - ln k_1, as far as noise of 0.001 in slopes of 0.5 lets it be known
        np.testing.assert_allclose(np.abs(lost.weights), [0, 0.5**0.5, 0.5**0.5], atol=0.15)
        assert lost.weights[1] * lost.weights[2] < 0
        assert all(abs(c.weights @ lost.weights) < 1e-9 for c in known)
        assert "Not determined: 1 of 3" in section(report, "Combinations")


def test_a_prior_tells_what_noise_of_the_runs_hides():
    """Of 30 fits 1 leaves a parameter undetermined at a noise of 1e-3, 30 without the prior.

    Three of ten and more do by chance with 4e-3.
    """
    prior = {"prior_mean": {"a": 0.0, "k": [0.0, 0.5]},
             "prior_std": {"a": np.inf, "k": [np.inf, 0.1]}}  # fmt: skip
    hidden = 0
    for seed in range(10):
        fit = product_fit(1e-3, seed, sigma=0.02, **prior)
        if fit.undetermined["k"].any():
            hidden += 1
            continue
        # the prior's error at least, and what noise in J adds: of 29 fits a factor of 2.4 at most
        assert 0.1 * (1 - 1e-6) <= fit.stderr["k"][1] < 1.0
        report = fit.report()
        assert report.prior_share[2] > 0.1
        assert np.all(report.prior_share <= 1)
        assert ".k[1]" in section(report, "Prior")
    assert hidden <= 2


def test_the_share_of_the_runs_and_what_it_means():
    """Runs of 1e-4 beside errors of data of 0.02, runs of 0.02 beside errors of 0.001."""
    quiet = fit_decay(1e-4, 0.02).report()
    # 2.5e-5 of the variance by one run; six fits had 4e-4 at most
    assert np.all(quiet.run_share < 0.01)
    text = " ".join(section(quiet, "What more runs are worth").split())
    assert "more runs will not help" in text
    for seed in range(6):
        fit = fit_decay(0.02, 0.001, seed)
        loud = fit.report()
        # all but 1 / 400 of the variance by one run; noise of 12 runs is known to a third
        assert np.all(loud.run_share > 0.6)
        text = " ".join(section(loud, "What more runs are worth").split())
        assert "average runs, or set x_half_width" in text
        assert "of chi-squared is noise of the runs" in " ".join(str(loud).split())
    # With known errors of data nothing but the covariance of the runs is theirs.
    fit = fit_decay(0.02, 0.001, sigma=0.02, absolute_sigma=True)
    total, runs = (np.diagonal(fit.covariance(k)) for k in ("gauss-newton", "runs"))
    np.testing.assert_allclose(fit.report().run_share, runs / total, rtol=1e-12)


def fit_decay(noise, data_noise, seed=1, **options):
    rng = np.random.default_rng(seed)
    data = 2 * np.exp(-0.7 * T) + data_noise * rng.normal(size=T.size)
    return least_squares(
        lambda x: x[0] * np.exp(-x[1] * T) - data + noise * rng.normal(size=T.size),
        [1.5, 1.0],
        **options,
    )


def test_the_next_run_is_worth_what_is_said():
    """The variance by k runs falls as 1 / k or faster.

    Of 12 such fits none had an exponent above -1.09 from 14 to 84 runs; four parameters that
    vary by a fifth of a decade each over ten times the runs stay below -0.8.
    """
    rng = np.random.default_rng(3)
    data = 2 * np.exp(-0.7 * T)

    def residuals(x):
        return x[0] * np.exp(-x[1] * T) - data + 0.01 * rng.normal(size=T.size)

    short = least_squares(residuals, [1.0, 1.0])
    long = least_squares(residuals, short.x, samples=short.samples, x_half_width=1e-6, max_nfev=90)
    runs = np.log([f._record.facts.runs for f in (short, long)])
    fell = np.log(long.run_stderr / short.run_stderr) * 2 / (runs[1] - runs[0])
    assert np.all(fell < -0.8)


def test_wrong_data_are_counted():
    data = 1.0 + 0.5 * T + 0.1 * np.random.default_rng(0).normal(size=30)
    data[[2, 9]] += 3.0
    fit = least_squares(
        lambda x: x[0] + x[1] * T - data, [0.8, 0.8], loss="huber", f_scale=3.0, sigma=0.1
    )
    report = fit.report(data=data)
    # Two residuals of 30 sigma; 6 sigma among 28 others once in 2e7 tests.
    assert report.statistics.down_weighted == 2
    assert "2 of 30 residuals count less than half" in section(report, "Goodness")
    assert "R-squared" in section(report, "Goodness")
    assert np.isnan([report.statistics.aic, report.statistics.reduced_chi_squared]).all()


# -- words -------------------------------------------------------------------------------------


def test_what_is_printed():
    fit = least_squares(
        lambda p: p["a"] + p["b"] * T - 3 + 0 * p["c"],
        {"a": 1.0, "b": 1.0, "c": 2.5},
        bounds=({"a": -9.0, "b": 0.5, "c": -9.0}, 9.0),
        fixed={"a": False, "b": False, "c": True},
    )
    report = fit.report(names={"a": "offset", "b": "slope", "c": "spare"},
                        units={"a": "m", "b": "m/s", "c": ""})  # fmt: skip
    assert report.state == ("", "at lower bound", "fixed")
    lines = section(report, "Parameters").splitlines()
    row = next(line for line in lines if "slope" in line)
    assert "slope [m/s]" in row
    assert row.endswith("at lower bound")
    assert "0.5 to 9" in row
    assert next(line for line in lines if "spare" in line).split()[:2] == ["spare", "2.5"]
    assert ".b at the lower bound" in " ".join(str(report).split())
    assert str(fit.report()).count(".a") >= 2  # names of their own
    assert str(report) == repr(report)


def test_html_escapes_names_and_shows_the_same():
    report = misra_fit().report(names=["<b>1</b>", "b & 2"])
    html = report._repr_html_()
    assert "&lt;b&gt;1&lt;/b&gt;" in html
    assert "b &amp; 2" in html
    assert "<b>1" not in html
    assert html.count("<table>") == html.count("</table>") >= 3
    assert "238.9" in html
    assert misra_fit()._repr_html_().count("<table>") >= 3
    assert type(misra_fit())()._repr_html_() == ""


def test_a_data_frame_has_a_row_for_each_parameter(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'gradiator-np\[pandas\]'"):
        misra_fit().to_dataframe()
    monkeypatch.undo()
    pytest.importorskip("pandas")
    frame = misra_fit().report(names=["b1", "b2"]).to_dataframe()
    assert list(frame.name) == ["b1", "b2"]
    np.testing.assert_array_equal(frame.value, misra_fit().x)
    assert set(frame) >= {"stderr", "low", "high", "start", "state", "run_share", "unit"}


def test_large_and_small_fits_are_reported():
    rng = np.random.default_rng(0)
    a, y = rng.normal(size=(40, 25)), rng.normal(size=40)
    report = least_squares(lambda x: a @ x - y, np.ones(25)).report()
    assert "... 5 more: to_dataframe()" in str(report)
    assert "more: .combinations" in str(report)
    assert len(str(report).splitlines()) < 100
    alone = least_squares(lambda x: [x[0] - 3.0], [1.0]).report()  # no degree of freedom
    assert "nothing tells the errors of the data" in " ".join(str(alone).split())
    assert np.isnan(alone.statistics.reduced_chi_squared)


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_units_of_the_residuals_change_no_share(unit):
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        report = least_squares(
            lambda x: unit * (misra(x) - VOLUME), [250.0, 5e-4], x_scale=[100.0, 1e-4]
        ).report()
        str(report)
    np.testing.assert_allclose(report.stderr, [2.7070075241, 7.2668688436e-6], rtol=1e-3)
