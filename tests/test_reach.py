"""No design moves an input further than asked, whatever fails and wherever the bounds are."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradiator_np import EvaluationError, designs, fit_jacobian, fit_points, jacobian
from gradiator_np.designs._finite_difference.stencil import RULES

X = np.array([1.0, -2.0, 0.3])
ROWS = np.array([[1, 1, 0], [1, -1, 0], [0.5, 0, 1], [0, 0.2, -1]])

# Each takes a step of each input, and goes no further than so many of them.
DESIGNS = {
    "hadamard": (lambda s: designs.Hadamard(step=s), 1),
    "hadamard, one way": (lambda s: designs.Hadamard(step=s, fold_over=False), 1),
    "hadamard, extrapolated": (lambda s: designs.Hadamard(step=s, richardson=True), 1),
    "pairs": (lambda s: designs.Pairs(step=s), 1),
    "pairs, straight": (lambda s: designs.Pairs(step=s, rotate=False, spare=0), 1),
    "simplex": (lambda s: designs.Simplex(step=s), 1),
    "directions": (lambda s: designs.Directions(ROWS, step=s), 1),
    "directions, both ways": (lambda s: designs.Directions(ROWS, step=s, fold_over=True), 1),
    "chosen": (lambda s: designs.choose_design(s), 1),
    **{
        name: (lambda s, name=name: designs.Stencil(name, step=s), len(rule.points))
        for name, rule in RULES.items()
    },
}


def reach(options, failing, noise):
    """How far each input was moved; ``failing`` is the side of x[0] that has no values."""
    far, rng = np.zeros(3), np.random.default_rng(0)

    def fun(x):
        np.maximum(far, np.abs(x - X), out=far)
        if failing * (x[0] - X[0]) > 0:
            raise ValueError("outside of the domain")
        return np.array([np.exp(x[0]) * x[1], x @ x]) + noise * rng.standard_normal(2)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            jacobian(fun, X, **options)
        except EvaluationError:
            assert failing
    return far


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from([*DESIGNS, "auto"]),
    step=st.lists(st.floats(1e-6, 10.0), min_size=3, max_size=3),
    room=st.lists(st.just(0.0) | st.floats(1e-6, 2.0), min_size=3, max_size=3),
    side=st.sampled_from(["both", "above", "below", "none"]),
    failing=st.sampled_from([0, 1, -1]),
    noise=st.sampled_from([0.0, 1e-3]),
)
def test_no_input_is_moved_further_than_asked(name, step, room, side, failing, noise):
    step, room = np.array(step), np.array(room)
    low = X - room if side in ("both", "below") else np.full(3, -np.inf)
    high = X + room if side in ("both", "above") else np.full(3, np.inf)
    options = {"bounds": (low, high)}
    if name == "auto":
        options["max_step"], times = step, 1
    else:
        make, times = DESIGNS[name]
        options["method"] = make(step)
    far = reach(options, failing, noise)
    most = np.minimum(times * step, np.maximum(high - X, X - low))
    assert (far <= most * (1 + 1e-12) + 4 * np.spacing(np.abs(X))).all()


def test_directions_that_go_beyond_the_step_are_refused():
    with pytest.raises(ValueError, match=r"50 of them is further.*divide rows by 50"):
        designs.Directions(50 * np.eye(3), step=0.01)
    design = designs.Directions(0.02 * np.eye(3), fold_over=True)
    assert jacobian(lambda x: x**2, X, method=design).step.max() <= 1.0


@pytest.mark.parametrize("what", ["sparsity", "known"])
@pytest.mark.parametrize("fit", [fit_jacobian, fit_points])
def test_structure_of_transposed_shape_is_refused(what, fit):
    from scipy.sparse import csr_array

    rng = np.random.default_rng(0)
    dx = rng.standard_normal((9, 3))
    df = dx @ rng.standard_normal((3, 2))
    right = np.ones((2, 3)) if what == "sparsity" else np.full((2, 3), np.nan)
    assert fit(dx, df, **{what: right}).status == "ok"
    given = [right.T, csr_array(right.T)] if what == "sparsity" else [right.T]
    for wrong in given:
        with pytest.raises(ValueError, match=rf"{what} has shape \(3, 2\).*looks transposed"):
            fit(dx, df, **{what: wrong})
    with pytest.raises(ValueError, match=rf"{what} has shape \(6,\)"):
        fit(dx, df, **{what: right.ravel()})
    with pytest.raises(ValueError, match=rf"{what} has shape \(3, 2, 2\)"):
        fit(
            dx.reshape(9, 1, 3).repeat(2, 1), df, x=np.ones((2, 3)),
            **{what: np.ones((3, 2, 2)) * right[0, 0]},
        )  # fmt: skip
