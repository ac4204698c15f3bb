"""Options live in one table, are shown where they are taken, and are told when misspelt."""

import inspect

import numpy as np
import pytest

import gradiator_np as gr
from gradiator_np import _checks as checks
from gradiator_np import _options as options
from gradiator_np import _signatures as signatures
from gradiator_np._fast_path import KNOWN, fast_path

TAKES = {
    options.Options: [gr.jacobian, gr.gradient, gr.jvp, gr.vjp, gr.linearize, gr.prepare,
                      gr.check_jacobian],
    options.EstimatorOptions: [gr.JacobianEstimator],
    options.ProbeOptions: [gr.estimate_noise, gr.optimal_step],
    options.HessianOptions: [gr.hessian, gr.hvp, gr.hessian_diagonal],
    options.GradiatorOptions: [gr.gradiator, gr.Chain, gr.Recurrence],
}  # fmt: skip
EACH = [(function, kind) for kind, functions in TAKES.items() for function in functions]
X = np.array([1.0, 2.0])

#: Calls with an option that none has.
MISSPELT = {
    "jacobian": lambda **o: gr.jacobian(np.sin, X, **o),
    "jacobian, fast": lambda **o: gr.jacobian(np.sin, X, method="2-point", **o),
    "gradient": lambda **o: gr.gradient(np.sum, X, **o),
    "jvp": lambda **o: gr.jvp(np.sin, X, X, **o),
    "vjp": lambda **o: gr.vjp(np.sin, X, X, **o),
    "linearize": lambda **o: gr.linearize(np.sin, X, **o),
    "prepare": lambda **o: gr.prepare(np.sin, X, **o),
    "check_jacobian": lambda **o: gr.check_jacobian(np.sin, np.eye(2), X, **o),
    "estimate_noise": lambda **o: gr.estimate_noise(np.sin, X, **o),
    "optimal_step": lambda **o: gr.optimal_step(np.sin, X, **o),
    "hessian": lambda **o: gr.hessian(np.sum, X, **o),
    "hvp": lambda **o: gr.hvp(np.sum, X, X, **o),
    "JacobianEstimator": lambda **o: gr.JacobianEstimator(X, **o),
    "gradiator": lambda **o: gr.gradiator(np.sin, **o),
    "Chain": lambda **o: gr.Chain(np.sin, **o),
    "Recurrence": lambda **o: gr.Recurrence(lambda x, theta, i: x, 2, **o),
}


@pytest.mark.parametrize("function, kind", EACH, ids=lambda v: getattr(v, "__name__", ""))
def test_signatures_show_every_option_with_its_default(function, kind):
    shown = inspect.signature(function).parameters
    assert not any(p.kind is p.VAR_KEYWORD for p in shown.values())
    for name, default in signatures.defaults(kind).items():
        assert shown[name].default is default
        assert shown[name].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("function", [gr.jacobian, gr.JacobianEstimator])
def test_docstrings_say_what_every_option_means(function):
    section = function.__doc__.partition("----------\n")[2]
    entries = [line.split(" : ")[0].split(", ") for line in section.splitlines() if " : " in line]
    named = {name.strip() for entry in entries for name in entry}
    kind = options.Options if function is gr.jacobian else options.EstimatorOptions
    assert signatures.defaults(kind).keys() <= named
    assert signatures.PLACE not in function.__doc__


@pytest.mark.parametrize("call", MISSPELT.values(), ids=MISSPELT.keys())
def test_a_misspelt_option_is_told_in_one_way(call):
    with pytest.raises(TypeError, match=r"unknown option 'boundz': did you mean bounds=\? The opt"):
        call(boundz=(0, 1))
    runs = call is not MISSPELT["JacobianEstimator"]
    likely = r": did you mean run=Run\(progress=True\)\?" if runs else r"\."
    with pytest.raises(TypeError, match=f"unknown option 'progress'{likely} The options"):
        call(progress=True)
    with pytest.raises(TypeError, match=r"unknown option 'quux'\. The options are "):
        call(quux=1)


def test_the_fast_path_takes_what_it_knows_and_nothing_else():
    point, method = checks.point(X), {"method": "2-point"}
    assert fast_path(np.sin, point, method) is not None
    for name, default in signatures.defaults(options.Options).items():
        if name != "method":
            assert fast_path(np.sin, point, method | {name: default}) is not None, name
        strange = fast_path(np.sin, point, method | {name: object()})
        assert (strange is not None) == (name == "f0"), name
    assert fast_path(np.sin, point, method | {"new_option": None}) is None
    assert KNOWN.keys() <= signatures.defaults(options.Options).keys()
    assert fast_path(np.sin, point, {"method": "auto"}) is None


def test_the_same_call_gives_the_same_answer():
    """``rng=None`` stands for seed 0, wherever something is drawn."""

    def noisy(x, seed):
        return np.sin(x) + 1e-3 * np.random.default_rng(seed).standard_normal(2)

    def rough(x):
        return np.sin(x) + 1e-7 * np.sin(1e12 * x)

    design = gr.designs.Pairs(step=0.1)
    for call in (
        lambda **o: gr.jacobian(noisy, X, seed_arg="seed", **o).jac,
        lambda **o: gr.jacobian(np.sin, X, method=design, **o).jac,
        lambda **o: gr.estimate_noise(rough, X, **o).noise,
        lambda **o: gr.optimal_step(rough, X, **o).step,
        lambda **o: gr.check_jacobian(np.sin, np.diag(np.cos(X)), X, method=design, **o).p_values,
    ):
        first = call()
        np.testing.assert_array_equal(first, call())
        np.testing.assert_array_equal(first, call(rng=0))
    with pytest.raises(TypeError, match="rng must be None, an int of 0 or more, or a numpy"):
        gr.jacobian(np.sin, X, rng="a", method="2-point")
    with pytest.raises(TypeError, match="rng must be None"):
        gr.estimate_noise(np.sin, X, rng=-1)
