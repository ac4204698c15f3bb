"""StreamingJacobian: one sample at a time, whole states, files, moving points."""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from scipy.stats import binom

from gradiator_np import fit_jacobian
from gradiator_np._streaming import StreamingJacobian, archive

EPS = np.finfo(float).eps
MODES = [
    {},
    {"prior_scale": 0.5, "noise": 0.1},
    {"forgetting": 0.9},
    {"mode": "kaczmarz"},
]


def samples(m, n, k, seed, noise=0.1):
    rng = np.random.default_rng(seed)
    jac, dx = rng.standard_normal((n, m)), rng.standard_normal((k, m))
    return jac, dx, dx @ jac.T + noise * rng.standard_normal((k, n))


def ridge(dx, df, p, jac0):
    m, n = dx.shape[1], df.shape[1]
    rows = np.vstack([dx, p * np.eye(m)])
    right = np.vstack([df - dx @ jac0.T, np.zeros((m, n))])
    return np.linalg.lstsq(rows, right, rcond=None)[0].T + jac0


def tolerance(dx, df, p):
    """Backward stable QR of [dx; p I], rows k: k eps cond^2, in units of the answer."""
    cond = np.linalg.norm(dx) / p + 1
    return 100 * (len(dx) + 1) * EPS * cond**2 * (1 + np.abs(df).max(initial=0) / p)


shapes = st.tuples(
    st.integers(1, 9), st.integers(1, 5), st.integers(1, 150), st.integers(0, 2**32 - 1)
)


@settings(max_examples=30, deadline=None)
@given(shapes, st.floats(0.05, 5))
def test_equals_the_batch_fit_in_any_order(shape, p):
    m, n, k, seed = shape
    jac, dx, df = samples(m, n, k, seed)
    order = np.random.default_rng(seed).permutation(k)
    want = ridge(dx, df, p, jac + 1)
    for rows in (np.arange(k), order):
        stream = StreamingJacobian(m, n, prior_scale=p, jac0=jac + 1)
        stream.partial_fit(dx[rows], df[rows])
        np.testing.assert_allclose(stream.jac, want, atol=tolerance(dx, df, p))
    assert stream.n_samples == k


@settings(max_examples=30, deadline=None)
@given(shapes, st.sampled_from(MODES), st.lists(st.integers(1, 80), max_size=6))
def test_blocks_equal_single_updates(shape, options, cuts):
    m, n, k, seed = shape
    _, dx, df = samples(m, n, k, seed)
    single, blocks = (StreamingJacobian(m, n, **options) for _ in range(2))
    for d, f in zip(dx, df):
        single.partial_fit(d, f)
    for rows in np.split(np.arange(k), np.minimum(np.cumsum(cuts, dtype=int), k)):
        blocks.partial_fit(dx[rows], df[rows])
    # Flush boundaries differ: rounding, blown up by the condition of dx where k is near m.
    s = np.linalg.svd(dx, compute_uv=False)
    atol = 1e5 * EPS * (s[0] / s[-1]) ** 2 * (np.abs(df).max() / s[-1] + 1)
    np.testing.assert_allclose(blocks.jac, single.jac, atol=atol)
    assert blocks.n_samples == single.n_samples == k


@settings(max_examples=30, deadline=None)
@given(shapes, st.floats(0, 1), st.sampled_from([None, 0.3]))
def test_merge_equals_one_stream_that_saw_all(shape, part, p):
    m, n, k, seed = shape
    _, dx, df = samples(m, n, k, seed)
    cut = int(part * k)
    one, left, right = (StreamingJacobian(m, n, prior_scale=p, jac0=np.ones((n, m))) for _ in "abc")
    one.partial_fit(dx, df)
    left.partial_fit(dx[:cut], df[:cut])
    right.partial_fit(dx[cut:], df[cut:])
    right_before = right.jac
    assert left.merge(right) is left
    s = np.linalg.svd(dx, compute_uv=False)
    atol = 1e5 * EPS * (s[0] / s[-1]) ** 2 * (np.abs(df).max() / s[-1] + 1)
    np.testing.assert_allclose(left.jac, one.jac, atol=atol)
    np.testing.assert_allclose(left.noise, one.noise, rtol=1e-6, atol=atol)
    assert left.n_samples == k
    np.testing.assert_array_equal(right.jac, right_before)


def test_merge_refuses_what_would_not_be_the_same():
    base = StreamingJacobian(2, 2)
    moving = StreamingJacobian(2, 2).partial_fit(x=[0.0, 1.0], f=[1.0, 2.0])
    for other, match in [
        (StreamingJacobian(3, 2), "sizes"),
        (StreamingJacobian(2, 2, mode="kaczmarz"), "modes"),
        (StreamingJacobian(2, 2, forgetting=0.9), "forgets"),
        (StreamingJacobian(2, 2, jac0=np.eye(2)), "jac0"),
        (StreamingJacobian(2, 2, prior_scale=1.0), "prior_scale"),
        (StreamingJacobian(2, 2, noise=1.0), "noise"),
        (moving, "moving"),
    ]:
        with pytest.raises(ValueError, match=match):
            base.merge(other)


@settings(max_examples=30, deadline=None)
@given(shapes, st.sampled_from(MODES))
def test_products_are_adjoint(shape, options):
    """<v, J u> = <v J, u>: the dot test; sums of m n terms, each within a few eps."""
    m, n, k, seed = shape
    _, dx, df = samples(m, n, k, seed)
    stream = StreamingJacobian(m, n, **options).partial_fit(dx, df)
    rng = np.random.default_rng(seed)
    u, v = rng.standard_normal((3, m)), rng.standard_normal((3, n))
    left, right = np.sum(v * stream.jvp(u), -1), np.sum(stream.vjp(v) * u, -1)
    size = np.abs(v) @ np.abs(stream.jac) @ np.abs(u).T
    np.testing.assert_allclose(left, right, atol=8 * (m + n) * EPS * size.max())


@pytest.mark.parametrize("noise", [None, 0.3])
def test_error_bars_cover_the_truth(noise):
    """95 % intervals of J u, v J and entries over 400 seeds each; false alarm 1e-6 a figure."""
    from scipy.stats import t

    m, n, k, seeds = 3, 2, 12, 400
    inside = np.zeros(3, int)
    rng = np.random.default_rng(0)
    for _ in range(seeds):
        jac, dx = rng.standard_normal((n, m)), rng.standard_normal((k, m))
        df = dx @ jac.T + 0.3 * rng.standard_normal((k, n))
        stream = StreamingJacobian(m, n, noise=noise).partial_fit(dx, df)
        factor = t.ppf(0.975, k - m) if noise is None else 1.959964
        u, v = rng.standard_normal(m), np.array([1.0, 0.0])
        inside += [
            abs(stream.jvp(u) - jac @ u)[0] < factor * stream.estimate().jvp_stderr(u)[0],
            abs(stream.vjp(v) - v @ jac)[1] < factor * stream.estimate().vjp_stderr(v)[1],
            abs(stream.jac - jac)[1, 2] < factor * stream.stderr[1, 2],
        ]
    low, high = binom.ppf([5e-7, 1 - 5e-7], seeds, 0.95)
    assert (low <= inside).all()
    assert (inside <= high).all()


def test_noise_is_learned_also_with_forgetting():
    """Effective samples (1 + l)/(1 - l) = 199: relative sd of a variance sqrt(2/199) = 0.1."""
    rng = np.random.default_rng(1)
    stream = StreamingJacobian(2, 3, forgetting=0.99)
    for level in (5.0, 0.1):  # the early, noisy time is forgotten
        dx = rng.standard_normal((4000, 2))
        stream.partial_fit(dx, level * rng.standard_normal((4000, 3)))
    assert stream.estimate().dof[0] == pytest.approx(199, rel=1e-3)
    # 6 sd of the sd: 6 * 0.1 / 2.
    np.testing.assert_allclose(stream.noise, 0.1, rtol=0.3)


def test_unknown_tells_what_no_sample_has_shown():
    stream = StreamingJacobian(3, 1, prior_scale=0.1)
    stream.partial_fit([1.0, 0, 0], [2.0])
    got = stream.unknown(np.array([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]]))
    # One row of length 1 on a prior of 0.1 along e1: Lambda_11 = 1.01.
    known = 0.01 / 1.01
    np.testing.assert_allclose(got, np.sqrt([known, 1, (known + 1) / 2]), rtol=1e-12)
    assert np.isinf(stream.stderr).tolist() == [[False, True, True]]
    assert isinstance(stream.unknown([1.0, 0, 0]), float)
    flat = StreamingJacobian(3, 1)
    assert flat.unknown([1.0, 2, 3]) == 1.0
    flat.partial_fit([1e8, 0, 0], [2.0])
    assert flat.unknown([1.0, 0, 0]) < 1e-9
    assert flat.unknown([1.0, 1, 0]) > 0.5
    with pytest.raises(ValueError, match="no direction"):
        flat.unknown([0.0, 0, 0])
    with pytest.raises(ValueError, match="no record"):
        StreamingJacobian(3, 1, mode="kaczmarz").unknown([1.0, 0, 0])


def test_directions_that_are_no_longer_visited_are_kept():
    rng = np.random.default_rng(2)
    jac = rng.standard_normal((2, 3))
    stream = StreamingJacobian(3, 2, forgetting=0.9)
    dx = rng.standard_normal((50, 3))
    stream.partial_fit(dx, dx @ jac.T)
    dx = rng.standard_normal((20_000, 3)) * [1, 1, 0]
    stream.partial_fit(dx, dx @ jac.T)
    # Orthogonal transformations only: errors of sqrt(k) eps |df| / diagonal ~ 1, margin 1e3.
    np.testing.assert_allclose(stream.jac, jac, atol=1e3 * np.sqrt(2e4) * EPS)


def test_forgetting_follows_a_changing_jacobian():
    rng = np.random.default_rng(3)
    stream = StreamingJacobian(2, 1, forgetting=0.9)
    for jac in ([[1.0, 2.0]], [[-3.0, 0.5]]):
        dx = rng.standard_normal((600, 2))
        stream.partial_fit(dx, dx @ np.transpose(jac))
    # Each direction keeps 0.9 a visit, some 300 visits each: 0.9^300 = 2e-14, and the mix of
    # directions slows the worst one down: 1e-6 is reached with a wide margin.
    np.testing.assert_allclose(stream.jac, jac, atol=1e-6)


def test_zero_displacements_are_replicates_and_refused_by_kaczmarz_updates():
    stream = StreamingJacobian(2, 1).partial_fit(
        [[1.0, 0], [0, 1], [0, 0], [0, 0]], [[1], [2], [3], [4]]
    )
    np.testing.assert_allclose(stream.jac, [[1, 2]], rtol=1e-12)
    np.testing.assert_allclose(stream.noise, np.sqrt((9 + 16) / 2), rtol=1e-12)
    projected = StreamingJacobian(2, 1, mode="kaczmarz", nan_policy="omit")
    with pytest.raises(ValueError, match=r"dx\[2\] did not move"):
        projected.partial_fit([[1.0, 0], [np.nan, 1], [0, 0]], [[1.0], [2], [3]])
    assert projected.n_samples == projected.n_dropped == 0
    with pytest.raises(ValueError, match=r"x\[2\] did not move"):
        projected.partial_fit(x=[[1.0, 0], [0, 1], [0, 1]], f=[[1.0], [2], [3]])
    assert not projected.jac.any()


@pytest.mark.parametrize("options", MODES)
def test_rows_that_are_not_finite_never_spread(options):
    _, dx, df = samples(3, 2, 70, 4)
    df[5, 1], dx[69, 0], df[8, 0] = np.nan, np.inf, -np.inf
    good = np.isfinite(dx).all(1) & np.isfinite(df).all(1)
    want = StreamingJacobian(3, 2, **options).partial_fit(dx[good], df[good])
    got = StreamingJacobian(3, 2, nan_policy="omit", **options).partial_fit(dx, df)
    np.testing.assert_allclose(got.jac, want.jac, rtol=1e-9)
    assert (got.n_samples, got.n_dropped) == (67, 3)
    before = want.jac
    with pytest.raises(ValueError, match="row 5 of dx and df is not finite"):
        want.partial_fit(dx, df)
    with pytest.raises(ValueError, match="row 0"):
        want.partial_fit(dx[69], df[69])
    np.testing.assert_array_equal(want.jac, before)


def test_values_whose_squares_overflow_are_refused():
    stream = StreamingJacobian(1, 1).partial_fit([1e150], [2e150])
    np.testing.assert_allclose(stream.jac, 2.0)
    with pytest.raises(ValueError, match="1e150"):
        stream.partial_fit([1e200], [2.0])


def test_bad_arguments():
    stream = StreamingJacobian(3, 2)
    with pytest.raises(ValueError, match=r"\(3,\) or \(k, 3\)"):
        stream.partial_fit(np.ones((4, 3)), np.ones((3, 2)))
    with pytest.raises(TypeError, match="either dx and df"):
        stream.partial_fit(np.ones(3), f=np.ones(2))
    with pytest.raises(TypeError, match="complex"):
        stream.partial_fit(np.ones(3), 1j * np.ones(2))
    with pytest.raises(ValueError, match="u must have shape"):
        stream.jvp(np.ones(2))
    for options, match in [
        ({"jac0": np.ones((3, 2))}, "jac0"),
        ({"noise": -1.0}, "noise"),
        ({"prior_scale": 0}, "prior_scale"),
        ({"nan_policy": "drop"}, "nan_policy"),
        ({"mode": "pinned"}, "'least-squares' or 'kaczmarz'"),
        ({"mode": "kaczmarz", "noise": 0.1}, "neither prior_scale nor noise"),
    ]:
        with pytest.raises(ValueError, match=match):
            StreamingJacobian(3, 2, **options)
    with pytest.raises(ValueError, match="n_inputs"):
        StreamingJacobian(0, 2)
    stream.partial_fit(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="reset"):
        stream.partial_fit(x=np.ones(3), f=np.ones(2))
    moving = stream.reset().partial_fit(x=np.ones(3), f=np.ones(2))
    with pytest.raises(ValueError, match="reset"):
        moving.partial_fit(np.ones(3), np.ones(2))


def test_a_stream_prints_what_it_is():
    stream = StreamingJacobian(3, 2, forgetting=0.9, nan_policy="omit", noise=[0.1, 0.2])
    stream.partial_fit(np.ones((2, 3)), [[1.0, 2.0], [np.nan, 1.0]])
    assert repr(stream) == (
        "StreamingJacobian: 2 outputs x 3 inputs, 1 samples, 1 dropped "
        "(least-squares, forgetting=0.9, noise=[0.1 0.2])"
    )
    assert "kaczmarz" in repr(StreamingJacobian(3, 2, mode="kaczmarz"))


def test_copy_and_reset_are_independent():
    for options in MODES:
        _, dx, df = samples(3, 2, 10, 5)
        first = StreamingJacobian(3, 2, **options).partial_fit(dx[:7], df[:7])
        second = first.copy()
        before = first.jac
        second.partial_fit(dx[7:], df[7:])
        np.testing.assert_array_equal(first.jac, before)
        np.testing.assert_allclose(
            second.jac, StreamingJacobian(3, 2, **options).partial_fit(dx, df).jac, rtol=1e-8
        )
        assert second.reset().n_samples == 0
        assert not second.jac.any()


def test_estimate_is_the_common_result():
    _, dx, df = samples(3, 2, 20, 6)
    stream = StreamingJacobian(3, 2).partial_fit(dx, df)
    estimate = stream.estimate()
    np.testing.assert_array_equal(estimate.jac, stream.jac)
    np.testing.assert_array_equal(estimate.stderr, stream.stderr)
    variance = stream.solution.cov.jvp_variance(dx[0])
    np.testing.assert_allclose(np.square(estimate.jvp_stderr(dx[0])), variance)
    assert (estimate.n_samples, estimate.rank, str(estimate.status)) == (20, 3, "ok")
    assert str(StreamingJacobian(3, 2).estimate().status) == "undetermined"


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [*MODES, {"jac0": np.ones((2, 3))}])
@pytest.mark.parametrize("moving", [False, True])
def test_a_loaded_stream_goes_on_as_the_saved_one(tmp_path, options, moving):
    _, dx, df = samples(3, 2, 90, 7)
    names = ("x", "f") if moving else ("dx", "df")

    def feed(stream, rows):
        return stream.partial_fit(**dict(zip(names, (dx[rows], df[rows]))))

    stream = feed(StreamingJacobian(3, 2, **options), slice(0, 70))
    stream.save(tmp_path / "state")
    loaded = StreamingJacobian.load(tmp_path / "state")
    for s in (stream, loaded):
        feed(s, slice(70, 90))
    np.testing.assert_array_equal(loaded.jac, stream.jac)
    np.testing.assert_array_equal(loaded.stderr, stream.stderr)
    assert loaded.n_samples == stream.n_samples
    assert os.listdir(tmp_path) == ["state"]


def test_any_cut_and_any_flipped_byte_is_found(tmp_path):
    _, dx, df = samples(2, 1, 5, 8)
    path = tmp_path / "state.npz"
    StreamingJacobian(2, 1).partial_fit(dx, df).save(path)
    data = path.read_bytes()
    np.load(path, allow_pickle=False).close()  # a plain npz
    for length in [0, 1, 63, 64, 65, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="cut short or altered"):
            StreamingJacobian.load(path)
    for at in range(0, len(data), 37):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ValueError, match="cut short or altered"):
            StreamingJacobian.load(path)
    path.write_bytes(data + b"x")
    with pytest.raises(ValueError, match="cut short or altered"):
        StreamingJacobian.load(path)


def test_other_kinds_and_versions_are_refused(tmp_path):
    path = tmp_path / "other"
    archive.write_archive(path, "Journal", 1, {"a": np.ones(2)})
    with pytest.raises(ValueError, match="holds a Journal"):
        StreamingJacobian.load(path)
    archive.write_archive(path, "StreamingJacobian", 99, {"a": np.ones(2)})
    with pytest.raises(ValueError, match="version 99"):
        StreamingJacobian.load(path)
    with pytest.raises(FileNotFoundError):
        StreamingJacobian.load(tmp_path / "nothing")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "state"
    _, dx, df = samples(2, 1, 5, 9)
    stream = StreamingJacobian(2, 1).partial_fit(dx, df)
    stream.save(path)
    old = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(archive.os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        stream.partial_fit(dx, df).save(path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["state"]


# -- moving points -------------------------------------------------------------------------------


def curved(x):
    return np.array([x[0] ** 2 + x[1], np.sin(x[1]) * x[0], x[0] * x[1] ** 2])


def curved_jac(x):
    return np.array(
        [[2 * x[0], 1], [np.sin(x[1]), x[0] * np.cos(x[1])], [x[1] ** 2, 2 * x[0] * x[1]]]
    )


def walk(seed, step, noise):
    """150 points of a random walk about (1, 2), and the values of ``curved`` with noise."""
    rng = np.random.default_rng(seed)
    x = np.cumsum(step * rng.standard_normal((150, 2)), axis=0) + np.array([1.0, 2.0])
    return x, np.array([curved(p) for p in x]) + noise * rng.standard_normal((150, 3))


@pytest.mark.parametrize("noise", [None, 1e-3])
def test_it_follows_a_moving_point(noise):
    """A walk with steps of 0.05: J at the end is far nearer than the least-squares fit of all.

    Steps of length d leave an error of some L d = 0.3 (L about 4); all points together one of
    L times the width of the walk, 1 to 2. Medians over 20 walks, by a factor of 2 apart.
    """
    errors, plain = [], []
    for seed in range(20):
        x, f = walk(seed, 0.05, noise or 0.0)
        truth = curved_jac(x[-1])
        stream = StreamingJacobian(2, 3, noise=noise).partial_fit(x=x, f=f)
        errors.append(np.abs(stream.jac - truth).max())
        rows = np.linalg.lstsq(np.hstack([np.ones((150, 1)), x]), f, rcond=None)[0]
        plain.append(np.abs(rows[1:].T - truth).max())
    assert np.median(errors) < np.median(plain) / 2


@pytest.mark.parametrize("noise, step", [(None, 0.05), (None, 0.2), (1e-3, 0.05), (0.1, 0.2)])
def test_error_bars_along_a_trail(noise, step):
    """95 % intervals of all entries at the end of 40 walks hold 0.85 of them or more.

    Their variances are a model of curvature, the same in all directions, so the coverage is no
    more exact than that: 0.93 to 0.985 over 400 walks of each kind, with standard deviations of
    0.12 to 0.05 between walks: of 40 walks less than 0.85 is 4 of them below the least. Bars that
    were far too wide would hold everything, as 1 in 10 groups of 40 walks does, and their errors
    would be tiny beside them: the median of |error| / stderr is 0.67 for exact bars, 0.31 to 0.50
    here, with a standard deviation of 0.03 to 0.06 between groups.
    """
    ratios = []
    for seed in range(40):
        x, f = walk(seed, step, noise or 0.0)
        stream = StreamingJacobian(2, 3, noise=noise).partial_fit(x=x, f=f)
        ratios.append(np.abs(stream.jac - curved_jac(x[-1])) / stream.stderr)
    assert (np.array(ratios) < 1.96).mean() > 0.85
    assert 0.2 < np.median(ratios) < 0.8


def test_a_linear_function_is_exact_along_any_trail():
    """Every difference is exact: only rounding, for inputs in units of 1e-8 beside 1e8."""
    rng = np.random.default_rng(10)
    units = np.array([1e-8, 1.0, 1e8])
    jac = rng.standard_normal((2, 3)) / units
    x = np.cumsum(rng.standard_normal((40, 3)) * 0.7 ** np.arange(40)[:, None], axis=0) * units
    stream = StreamingJacobian(3, 2).partial_fit(x=x, f=x @ jac.T)
    # Steps shrink to 0.7^40 = 6e-7 of the values, whose rounding they then show: eps / 6e-7.
    np.testing.assert_allclose(stream.jac * units, jac * units, atol=1e4 * EPS / 6e-7)


def test_a_tried_point_does_not_move_the_stream():
    stream = StreamingJacobian(2, 3).partial_fit(x=[1.0, 2.0], f=curved([1.0, 2.0]))
    for step in np.eye(2) * 1e-6:
        point = np.array([1.0, 2.0]) + step
        stream.partial_fit(x=point, f=curved(point), move=False)
    np.testing.assert_array_equal(stream.estimate().x, [1.0, 2.0])
    # Forward differences: h L / 2 + eps |f| / h.
    np.testing.assert_allclose(stream.jac, curved_jac([1.0, 2.0]), atol=1e-5)


def test_kaczmarz_updates_along_a_trail_are_broydens():
    rng = np.random.default_rng(11)
    x = rng.standard_normal((6, 2))
    f = np.array([curved(p) for p in x])
    jac0 = rng.standard_normal((3, 2))
    stream = StreamingJacobian(2, 3, mode="kaczmarz", jac0=jac0).partial_fit(x=x, f=f)
    want = jac0.copy()
    for d, y in zip(np.diff(x, axis=0), np.diff(f, axis=0)):
        want += np.outer(y - want @ d, d) / (d @ d)
    np.testing.assert_allclose(stream.jac, want, rtol=1e-10)


def test_the_example_solves_what_it_claims():
    """Whoever solves a problem finds the same solution, and the stream solves as the text says.

    Over 30 starts and four draws of the noise in the data the stream failed 0 times on the fit of
    four rates (of 6, three failures at 0.025 have a probability of 3e-4), up to 3 times on the
    square system, where it alone was cheaper than differences in 22 to 24. Of 20 starts there, 8
    failures at 0.1 have a probability of 4e-4, and fewer than 8 gains at 0.73 of 3e-4. The fit of
    ten rates may have no solution at all within the rates that are allowed (seen in 1 of 4 draws
    of its noise): every contender fails then, and there is none to compare.
    """
    path = Path(__file__).parents[1] / "docs" / "examples" / "stream_in_optimiser.py"
    spec = importlib.util.spec_from_file_location("stream_in_optimiser", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = example  # its dataclass looks its module up
    spec.loader.exec_module(example)
    ways = ("LM, stream alone", "LM, stream refreshed", "LM, forward differences")
    spent = {}
    for title, problem in example.problems().items():
        solvers = example.solvers(problem.square)
        runs = [
            [example.evaluations(problem, solvers[name], start) for name in ways]
            for start in problem.starts(20 if problem.square else 3)
        ]
        spent[title] = np.array([[nfev for nfev, _ in run] for run in runs])
        for *streams, (nfev, want) in runs:
            if np.isinf(nfev):
                continue
            weakest = np.linalg.svd(approx_fprime(want, problem.fun), compute_uv=False)[-1]
            # A fit ends up to 1e-6 above the least norm F, so J dx is up to sqrt(2e-6) F; a root
            # at |f| = F. Both answers may be off, along the weakest direction.
            off = problem.target * (1 if problem.square else np.sqrt(2e-6)) / weakest
            for evaluations, x in streams:
                if np.isfinite(evaluations):
                    np.testing.assert_allclose(x, want, rtol=0, atol=2 * off)
    rates, _, square = spent.values()
    assert np.isinf(rates[:, :2]).sum() < 3
    assert (np.isinf(square[:, :2]).sum(0) < 8).all()
    assert (square[:, 0] < square[:, 2]).sum() >= 8


# -- what strangers bring ------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"prior_scale": 1e-3}, {"mode": "kaczmarz"}])
def test_threads_that_feed_one_stream_lose_nothing(options):
    jac, dx, df = samples(5, 3, 8 * 400, 7, noise=0)
    stream = StreamingJacobian(5, 3, **options)
    start = threading.Barrier(8)

    def feed(part):
        start.wait()
        for i in range(part, len(dx), 8):
            stream.partial_fit(dx[i], df[i])
            if i % 97 == 0:
                assert np.isfinite(stream.jac).all()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=feed, args=(part,)) for part in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert stream.n_samples == len(dx)
    if options.get("mode") != "kaczmarz":
        # every sample once: the squares that the triangle holds are those of all of them
        root = stream._state._root
        stream._state.posterior()
        np.testing.assert_allclose(root.r.T @ root.r, dx.T @ dx, rtol=1e-9, atol=1e-9)
    # the prior's pull is 1e-6 / 3200
    np.testing.assert_allclose(stream.jac, jac, atol=1e-8)


def test_a_stream_can_be_pickled():
    _, dx, df = samples(3, 2, 70, 1)
    stream = StreamingJacobian(3, 2).partial_fit(dx, df)
    again = pickle.loads(pickle.dumps(stream))
    np.testing.assert_array_equal(again.partial_fit(dx[0], df[0]).jac,
                                  stream.partial_fit(dx[0], df[0]).jac)  # fmt: skip


@pytest.mark.parametrize("cond", [1e6, 1e10])
def test_without_noise_it_is_as_exact_as_the_batch(cond):
    """Median over seeds of either's error: the same backward error, another order of the rows."""
    errors = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        q, _ = np.linalg.qr(rng.standard_normal((4, 4)))
        dx = (rng.standard_normal((40, 4)) @ q) * np.logspace(0, -np.log10(cond), 4) @ q.T
        jac = rng.standard_normal((2, 4))
        df = dx @ jac.T
        stream = StreamingJacobian(4, 2)
        for d, f in zip(dx, df):
            stream.partial_fit(d, f)
        assert stream.estimate().status == "ok"
        errors.append([np.abs(a - jac).max() for a in (stream.jac, fit_jacobian(dx, df).jac)])
    ours, batch = np.median(errors, axis=0)
    assert ours < 5 * batch


@pytest.mark.parametrize("length", [1e8, 1e10, 1e12])
def test_one_long_sample_spoils_nothing(length):
    """t of 8 entries beyond 6 with 36 degrees of freedom: 6e-6 a seed, 1e-4 a test."""
    for seed in range(20):
        jac, dx, df = samples(4, 2, 40, seed, noise=1e-6)
        noise = df - dx @ jac.T
        dx[20] *= length
        stream = StreamingJacobian(4, 2)
        for d, f in zip(dx, dx @ jac.T + noise):
            stream.partial_fit(d, f)
        error = np.abs(stream.jac - jac)
        assert (error < 6 * stream.stderr).all() or stream.estimate().status != "ok"


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e140])
@pytest.mark.parametrize("options", [{}, {"forgetting": 0.9}, {"prior_scale": 0.5}])
def test_sizes_of_outputs_scale_through(options, size):
    """One output of any size beside one of size 1; the second half of samples merged in."""
    _, dx, df = samples(3, 2, 60, 3)
    want = StreamingJacobian(3, 2, **options).partial_fit(dx, df).estimate()
    stream = StreamingJacobian(3, 2, **options).partial_fit(dx[:30], df[:30] * [size, 1])
    if "forgetting" in options:
        stream.partial_fit(dx[30:], df[30:] * [size, 1])
    else:
        stream.merge(StreamingJacobian(3, 2, **options).partial_fit(dx[30:], df[30:] * [size, 1]))
    got = stream.estimate()
    for name in ("jac", "stderr"):
        np.testing.assert_allclose(
            getattr(got, name) / [[size], [1]], getattr(want, name), rtol=1e-9, err_msg=name
        )
    np.testing.assert_allclose(got.noise / [size, 1], want.noise, rtol=1e-9)
    np.testing.assert_allclose(got.rmse / [size, 1], want.rmse, rtol=1e-9)
