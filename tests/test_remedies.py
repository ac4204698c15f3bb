"""What a message says to do: done, the status goes."""

from __future__ import annotations

import re

import numpy as np
import pytest

import gradiator_np as g

pytestmark = pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
X = [1.0, 2.0]


def smooth(x):
    return np.array([x[0] ** 2, x[0] * x[1]])


def noisy(level, fun=smooth):
    rng = np.random.default_rng(0)

    def run(x):
        y = fun(x)
        return y + level * rng.standard_normal(np.shape(y))

    return run


def kink(x):
    return np.abs(np.asarray(x) - 1.0)


def far(x):
    return np.sin((np.asarray(x) - 1e7) * 1e4)


# Status and words before; the call; the call with what the words say.
REMEDIES = {
    "a kink: move x": (
        "lack_of_fit", "move x",
        lambda: g.jacobian(kink, X), lambda: g.jacobian(kink, [1.9, 2.0]),
    ),
    "a kink: one-sided differences": (
        "lack_of_fit", "one-sided",
        lambda: g.jacobian(kink, X), lambda: g.jacobian(kink, X, method="2-point"),
    ),
    "far from the origin: x_scale": (
        "unresolved", "x_scale",
        lambda: g.jacobian(far, [1e7 + 0.03]), lambda: g.jacobian(far, [1e7 + 0.03], x_scale=1e-4),
    ),
    "far from the origin: move it": (
        "unresolved", "move the origin",
        lambda: g.jacobian(far, [1e7 + 0.03]),
        lambda: g.jacobian(lambda z: np.sin(z * 1e4), [0.03]),
    ),
    "a budget: ask for less": (
        "budget", "raise max_nfev, atol or rtol",
        lambda: g.jacobian(noisy(0.1), X, atol=1e-3, max_nfev=40),
        lambda: g.jacobian(noisy(0.1), X, atol=0.5, max_nfev=40),
    ),
    "a budget: allow more": (
        "budget", "raise max_nfev, atol or rtol",
        lambda: g.jacobian(noisy(1e-2), X, atol=1e-2, max_nfev=8),
        lambda: g.jacobian(noisy(1e-2), X, atol=1e-2, max_nfev=400),
    ),
    "no signal: less noise": (
        "no_signal", "reduce the noise",
        lambda: g.jacobian(noisy(1e3), X), lambda: g.jacobian(noisy(1e-3), X),
    ),
    "undetermined samples: add some": (
        "undetermined", "add samples",
        lambda: g.fit_jacobian([[1.0, 0.0]], [[1.0]]),
        lambda: g.fit_jacobian([[1.0, 0.0], [0.0, 1.0]], [[1.0], [2.0]]),
    ),
    "an undetermined stream: add samples": (
        "undetermined", "add samples",
        lambda: g.StreamingJacobian(2, 1).partial_fit([1.0, 0.0], [1.0]).estimate(),
        lambda: g.StreamingJacobian(2, 1).partial_fit(np.eye(2), [[1.0], [2.0]]).estimate(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REMEDIES)
def test_what_a_message_says_helps(name):
    status, words, before, after = REMEDIES[name]
    ill = before()
    assert (ill.status, words in ill.message) == (status, True), ill.message
    assert after().status == "ok"


def test_what_a_check_that_cannot_tell_says_helps():
    jac = [[2.0, 0.0], [2.0, 1.0]]
    ill = g.check_jacobian(noisy(1e-2), jac, X)
    assert ill.verdict == "cannot tell"
    assert "ask for less (resolution=)" in ill.message
    well = g.check_jacobian(noisy(1e-2), jac, X, resolution=1.0)
    assert well.verdict == "ok", well.message


def test_the_scale_that_a_message_names_is_one_to_begin_with():
    """Two sines of period 2 pi at 1e11: of 17 that are unresolved none was wrong at the scale that
    was named, and none unresolved. Eight of 10 have a false-alarm rate of 2e-3 at 1 %."""
    held, named = [], 0
    for seed in range(12):
        x = np.array([1e11, 2e11]) * (1 + 0.1 * np.random.default_rng(seed).random(2))

        def fun(z):
            return np.array([np.sin(z[0]) + np.cos(z[1]), np.sin(z[0] - z[1] / 2)])

        before = g.jacobian(fun, x, rng=seed)
        scale = re.search(r"\((\S+) \* abs\(x\) to begin with\)", before.message)
        if scale is None:
            continue
        named += 1
        assert before.status == "unresolved"
        found = g.jacobian(fun, x, rng=seed, x_scale=float(scale[1]) * np.abs(x))
        slope = np.cos(x[0] - x[1] / 2)
        exact = np.array([[np.cos(x[0]), -np.sin(x[1])], [slope, -slope / 2]])
        # x itself is rounded to 1e-5, a difference of two steps to 1e-5 of it
        fine = np.abs(found.jac - exact) <= 5 * found.stderr + 1e-4
        held.append(fine.all() and found.status != "unresolved")
    assert named >= 6
    assert sum(held) >= named - 2
