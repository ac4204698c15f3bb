"""Streams whose outputs read few inputs each."""

import pickle

import numpy as np
import pytest

from gradiator_np import StreamingJacobian
from gradiator_np.sparsity import banded_pattern, color

M = 30
BAND = banded_pattern(M, lower=1, upper=1)
MASK = BAND.toarray()


def samples(seed, k, noise=1e-3, mask=MASK):
    rng = np.random.default_rng(seed)
    jac = mask * rng.normal(size=mask.shape)
    dx = rng.normal(size=(k, mask.shape[1]))
    return jac, dx, dx @ jac.T + noise * rng.normal(size=(k, len(mask)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"noise": np.linspace(1e-3, 2e-3, M)},
        {"prior_scale": np.linspace(0.1, 1, M), "jac0": np.eye(M), "noise": 1e-3},
        {"forgetting": 0.9},
    ],
)
def test_each_output_is_a_stream_of_its_own_inputs(options):
    """The twin is one dense stream for each output."""
    _, dx, df = samples(0, 100)
    thin = StreamingJacobian(M, M, sparsity=BAND, **options)
    for start in (0, 1, 2, 70):  # single rows, and more than a buffer holds
        stop = {0: 1, 1: 2, 2: 70, 70: 100}[start]
        thin.partial_fit(dx[start:stop].squeeze(), df[start:stop].squeeze())
    assert thin.n_samples == 100
    jac, stderr, noise, dof = thin.jac, thin.stderr, thin.noise, thin.solution.dof
    for i in range(M):
        own = np.flatnonzero(MASK[i])
        part = {
            name: value[[i]] if name == "noise" and np.ndim(value) else value[own]
            if name == "prior_scale" else value[[i]][:, own] if name == "jac0" else value
            for name, value in options.items()
        }  # fmt: skip
        twin = StreamingJacobian(len(own), 1, **part).partial_fit(dx[:, own], df[:, [i]])
        # the same factorisations, cut into other blocks
        np.testing.assert_allclose(jac[i, own], twin.jac[0], rtol=1e-9)
        np.testing.assert_allclose(stderr[i, own], twin.stderr[0], rtol=1e-9)
        np.testing.assert_allclose(noise[i], twin.noise[0], rtol=1e-9)
        assert dof[i] == pytest.approx(twin.solution.dof[0])
    assert (jac[~MASK] == 0).all()
    assert (stderr[~MASK] == 0).all()


def test_with_a_full_pattern_it_is_the_dense_stream():
    full = np.ones((4, 3), bool)
    _, dx, df = samples(1, 9, mask=full)
    thin = StreamingJacobian(3, 4, sparsity=full).partial_fit(dx, df).estimate()
    dense = StreamingJacobian(3, 4).partial_fit(dx, df).estimate()
    u, v = np.array([1.0, -2.0, 0.5]), np.array([1.0, 0.0, -1.0, 3.0])
    np.testing.assert_allclose(thin.jac, dense.jac, rtol=1e-12)
    np.testing.assert_allclose(thin.jvp_stderr(u), dense.jvp_stderr(u), rtol=1e-12)
    np.testing.assert_allclose(thin.vjp_stderr(v), dense.vjp_stderr(v), rtol=1e-12)
    low, high = thin.confidence_interval()
    np.testing.assert_allclose(low, dense.confidence_interval().low, rtol=1e-12)
    assert (low < high).all()


def test_few_samples_do():
    """Three entries a row: six samples determine them, where the dense stream takes 30; 95 %
    intervals hold 0.95 of the entries."""
    held = []
    for seed in range(40):
        jac, dx, df = samples(seed, 6)
        found = StreamingJacobian(M, M, sparsity=BAND).partial_fit(dx, df).estimate()
        assert found.success
        low, high = found.confidence_interval()
        held.append(np.mean(((low <= jac) & (jac <= high))[MASK]))
    # 40 x 88 entries; those of a row share a sample: a third as many are independent
    assert abs(np.mean(held) - 0.95) <= 4 * np.sqrt(0.95 * 0.05 / (40 * 88 / 3))


def test_what_no_sample_tells():
    _, dx, df = samples(2, 20)
    dx[:, 4] = 0
    thin = StreamingJacobian(M, M, sparsity=BAND, noise=1e-3).partial_fit(dx, df)
    assert thin.solution.status == "undetermined"
    lost = MASK.copy()
    lost[:, :4] = lost[:, 5:] = False
    np.testing.assert_array_equal(np.isinf(thin.stderr), lost)
    assert thin.unknown(np.eye(M)[4]) == 1
    assert thin.unknown(np.eye(M)[8]) < 1e-6
    along = thin.estimate().jvp_stderr(np.eye(M)[4])
    np.testing.assert_array_equal(np.isinf(along), lost[:, 4])


def test_states_are_copied_merged_saved_and_pickled(tmp_path):
    _, dx, df = samples(3, 40)
    whole = StreamingJacobian(M, M, sparsity=BAND, prior_scale=0.1, noise=1e-3)
    first, second = whole.copy(), whole.copy()
    whole.partial_fit(dx, df)
    first.partial_fit(dx[:25], df[:25])
    second.partial_fit(dx[25:], df[25:])
    first.merge(second)
    np.testing.assert_allclose(first.jac, whole.jac, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(first.stderr, whole.stderr, rtol=1e-9)
    whole.save(tmp_path / "stream.npz")
    for other in (
        StreamingJacobian.load(tmp_path / "stream.npz"),
        pickle.loads(pickle.dumps(whole)),
    ):
        np.testing.assert_array_equal(other.jac, whole.jac)
        other.partial_fit(dx[0], df[0])
        assert other.n_samples == whole.n_samples + 1
    assert whole.reset().n_samples == 0
    assert not whole.jac.any()
    with pytest.raises(ValueError, match="their sparsity differs"):
        first.merge(StreamingJacobian(M, M, prior_scale=0.1, noise=1e-3))


def test_an_output_that_reads_nothing():
    mask = np.array([[True, True], [False, False]])
    _, dx, df = samples(4, 9, mask=mask)
    found = StreamingJacobian(2, 2, sparsity=mask).partial_fit(dx, df).estimate()
    assert found.success
    np.testing.assert_array_equal(found.stderr[1], 0)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"sparsity": np.ones((3, M))}, r"shape \(3, 30\)"),
        ({"sparsity": "detect"}, "looks for none"),
        ({"sparsity": BAND, "mode": "kaczmarz"}, "no sparsity"),
        ({"sparsity": BAND, "jac0": np.ones((M, M))}, r"entry at \(0, 2\) that sparsity has not"),
    ],
)
def test_what_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        StreamingJacobian(M, M, **options)


@pytest.mark.parametrize("noise", [None, 1e-3])
def test_with_a_full_pattern_a_trail_is_that_of_the_dense_stream(noise):
    full = np.ones((4, 3), bool)
    rng = np.random.default_rng(5)
    points = np.cumsum(rng.normal(size=(40, 3)), axis=0)
    values = np.sin(points @ rng.normal(size=(3, 4)))
    thin, dense = (
        StreamingJacobian(3, 4, noise=noise, prior_scale=0.1, sparsity=pattern)
        for pattern in (full, None)
    )
    for stream in (thin, dense):
        stream.partial_fit(x=points, f=values)
    # the same factorisations of the same rows
    np.testing.assert_allclose(thin.jac, dense.jac, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(thin.stderr, dense.stderr, rtol=1e-9)


def test_along_a_trail(tmp_path):
    """A band along a walk of 30 steps, where the dense stream has 30 unknowns of each output; 95 %
    intervals hold 0.9 of the entries at least (rough, as the docstring of trails says)."""
    rates, errors = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        jac = MASK * rng.normal(size=MASK.shape)
        stream = StreamingJacobian(M, M, noise=1e-4, sparsity=color(BAND))
        x = np.ones(M)
        for _ in range(31):
            f = jac @ (x + 0.005 * x**2) + 1e-4 * rng.normal(size=M)
            stream.partial_fit(x=x, f=f)
            there, x = x, x + 0.1 * rng.normal(size=M)
        low, high = stream.estimate().confidence_interval()
        exact = jac * (1 + 0.01 * there)
        rates.append(np.mean(((low <= exact) & (exact <= high))[MASK]))
        errors.append(np.median(np.abs(stream.jac - exact)[MASK]))
    assert np.mean(rates) >= 0.9
    assert np.median(errors) < 2e-3  # 3 unknowns, noise 1.4e-4 over steps of 0.1, bends of 1e-3
    stream.save(tmp_path / "trail.npz")
    other = StreamingJacobian.load(tmp_path / "trail.npz")
    for each in (stream, other):
        each.partial_fit(x=x, f=jac @ (x + 0.005 * x**2))
    np.testing.assert_array_equal(other.jac, stream.jac)
