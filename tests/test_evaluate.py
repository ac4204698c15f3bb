"""Who runs the points: workers of every kind give the same bits."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gradiator_np import EvaluationError, GradiatorWarning, Run, jacobian, prepare, vjp

X = np.linspace(0.5, 2.0, 6)


def model(x, power=2.0, *, scale=1.0):
    return scale * np.array([np.sum(x**power), np.prod(np.cos(x)), x[0] / x[-1]])


def dies(x):
    import os

    if x[2] > X[2]:
        os._exit(3)
    return model(x)


REFERENCE = jacobian(model, X, args=(1.5,), kwargs={"scale": 3.0}, method="3-point")


def maplike(f, rows):
    return [f(row) for row in rows]


@pytest.mark.parametrize("workers", [2, maplike, map, "threads", "processes"])
def test_results_do_not_depend_on_the_workers(workers):
    options = {"args": (1.5,), "kwargs": {"scale": 3.0}, "method": "3-point"}
    if workers == "threads":
        with ThreadPoolExecutor(3) as pool:
            estimate = jacobian(model, X, workers=pool, **options)
    elif workers == "processes":
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            estimate = jacobian(model, X, workers=pool, **options)
    else:
        estimate = jacobian(model, X, workers=workers, **options)
    assert_array_equal(estimate.jac, REFERENCE.jac)
    assert estimate.nfev == REFERENCE.nfev == 13


def test_vectorized_equals_the_loop():
    def rows(p):
        return np.stack([model(row, 1.5, scale=3.0) for row in p])

    assert_array_equal(jacobian(rows, X, vectorized=True, method="3-point").jac, REFERENCE.jac)


def test_jitted_equals_the_loop():
    numba = pytest.importorskip("numba")

    @numba.njit
    def fun(x, a):
        out = np.empty((2, 2))
        out[0, 0] = a * x[0] * x[1]
        out[0, 1] = x[1]
        out[1, 0] = x[0] / x[1]
        out[1, 1] = 1.0
        return out

    x = np.array([1.3, 0.7])
    for method in ("2-point", "9-point"):
        compiled = jacobian(fun, x, args=(2.0,), method=method)
        plain = jacobian(lambda z: fun.py_func(z, 2.0), x, method=method)
        assert compiled.jac.shape == (2, 2, 2)
        # The compiler may contract a * b + c: one rounding of values, over the step.
        np.testing.assert_allclose(compiled.jac, plain.jac, atol=1e-7)

    @numba.njit
    def scalar(x):
        return x * x

    assert jacobian(scalar, 3.0).jac == pytest.approx(6.0, abs=1e-8)
    v = vjp(fun, x, np.ones((2, 2)), args=(2.0,), method="5-point")
    np.testing.assert_allclose(v.value, [2 * 0.7 + 1 / 0.7, 2 * 1.3 + 1 - 1.3 / 0.49], atol=1e-9)


def test_what_numba_cannot_call_python_may():
    numba = pytest.importorskip("numba")

    @numba.njit
    def fun(x, table):
        return x * table[0]

    class Strange:
        def __getitem__(self, i):
            return 2.0

    with pytest.raises(EvaluationError):  # numba itself refuses the argument, at x already
        jacobian(fun, X, args=(Strange(),))
    estimate = jacobian(fun, X, kwargs={"table": np.array([2.0])})
    np.testing.assert_allclose(estimate.jac, 2 * np.eye(6), atol=1e-9)


def test_a_dead_worker_process_costs_only_its_run():
    with pytest.warns(GradiatorWarning):
        estimate = jacobian(dies, X, workers=2, method="2-point")
    assert estimate.n_failed == 1
    assert "worker process died" in " ".join(estimate.samples.errors.values())
    plain = jacobian(model, X, method="2-point")
    keep = np.arange(6) != 2
    assert_array_equal(estimate.jac[:, keep], plain.jac[:, keep])
    np.testing.assert_allclose(estimate.jac, plain.jac, atol=1e-6)


def test_unpicklable_functions_get_a_clear_error():
    with pytest.raises(TypeError, match="top level of a module, or pass workers=Thread"):
        jacobian(lambda x: x, X, workers=2)
    with pytest.raises(TypeError, match="map-like"):
        jacobian(model, X, workers="many")
    with pytest.raises(EvaluationError, match="gave 1 results"):
        jacobian(model, X, workers=lambda f, rows: [f(rows[0])])


def test_one_worker_is_a_plain_loop_of_whatever_type_the_one_is():
    local = lambda x: model(x, 1.5, scale=3.0)  # noqa: E731  (no process could take it)
    for one in (1, np.int64(1), np.uint8(1)):
        estimate = jacobian(local, X, workers=one, method="3-point")
        assert_array_equal(estimate.jac, REFERENCE.jac)
    with pytest.raises(TypeError, match="workers must be an int"):
        jacobian(local, X, workers=True)


def test_prepared_keeps_its_workers():
    with prepare(model, X, workers=2, method="3-point") as prepared:
        first, second = prepared(X), prepared(X + 0.25)
    assert_array_equal(first.jac, jacobian(model, X, method="3-point").jac)
    assert_array_equal(second.jac, jacobian(model, X + 0.25, method="3-point").jac)
    assert prepared.nfev == 26


def test_progress_reports_and_shows(capsys):
    seen = []
    jacobian(model, X, method="2-point", run=Run(progress=lambda k, n: seen.append((k, n))))
    assert seen == [(i + 1, 6) for i in range(6)]
    pytest.importorskip("tqdm")
    jacobian(model, X, method="2-point", run=Run(progress=True))
    assert "6/6" in capsys.readouterr().err


def test_f0_saves_its_evaluation():
    calls = []

    def spy(x):
        calls.append(1)
        return model(x)

    estimate = jacobian(spy, X, f0=model(X), method="2-point")
    assert len(calls) == estimate.nfev == 6
    assert_array_equal(estimate.jac, jacobian(model, X, method="2-point").jac)


def test_fun_must_be_callable():
    with pytest.raises(TypeError, match="callable"):
        jacobian(3.0, X)


def test_a_vectorized_buffer_that_is_used_again_is_copied():
    buffer = np.empty((40, 6))

    def reuses(p):
        buffer[: len(p)] = p**2
        return buffer[: len(p)]

    kept = []

    def keeps(p):
        out = p**2
        kept.append(out)
        for old in kept[:-1]:
            old[:] = 7.0
        return out

    for fun in (reuses, keeps):
        estimate = jacobian(fun, X, method="3-point", vectorized=True)
        np.testing.assert_allclose(estimate.jac, np.diag(2 * X), atol=1e-9)
        buffer[:] = np.nan
        for old in kept:
            old[:] = np.nan
        assert np.isfinite(estimate.samples.outputs).all()
        np.testing.assert_allclose(estimate.jac, np.diag(2 * X), atol=1e-9)
