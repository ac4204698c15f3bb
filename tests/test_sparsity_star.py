"""Star colouring of symmetric patterns."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from gradiator_np.sparsity import banded_pattern, color, color_symmetric, grid_pattern


def drawn(seed):
    """A random symmetric matrix, some with a dense row."""
    rng = np.random.default_rng(seed)
    m = int(rng.integers(1, 40))
    upper = np.triu(rng.random((m, m)) < rng.uniform(0, 0.3))
    if rng.random() < 0.3:
        upper[rng.integers(m)] = True
        upper = np.triu(upper)
    a = upper * rng.normal(size=(m, m))
    return a + np.triu(a, 1).T


def has_bicoloured_path(a, colors):
    """By the definition: four in a row of two colours, or two neighbours of one."""
    near = [np.flatnonzero((a[:, i] != 0) & (np.arange(len(a)) != i)) for i in range(len(a))]
    for i, own in enumerate(near):
        for j in own:
            if colors[i] == colors[j]:
                return True
            before = [k for k in own if k != j and colors[k] == colors[j]]
            after = [k for k in near[j] if k != i and colors[k] == colors[i]]
            if before and after:
                return True
    return False


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_products_give_every_entry_back(seed):
    a = drawn(seed)
    found = color_symmetric(a != 0)
    assert found.conflict is None
    assert not has_bicoloured_path(a, found.colors)
    assert found.n_colors <= color((a != 0) | np.eye(len(a), dtype=bool)).n_colors
    assert set(found.colors.tolist()) == set(range(found.n_colors))
    back = found.decompress((a @ found.seeds.T).T)
    np.testing.assert_array_equal(back.toarray(), back.toarray().T)
    # an entry that stands alone is a sum with zeros
    np.testing.assert_array_equal(back.toarray(), a)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_conflicts_are_those_of_the_definition(seed):
    a = drawn(seed)
    found = color_symmetric(a != 0)
    colors = np.random.default_rng(seed + 1).integers(0, 4, len(a)).astype(np.int32)
    wrong = replace(found, colors=colors, n_colors=4)
    assert (wrong.conflict is not None) == has_bicoloured_path(a, colors)
    if wrong.conflict is not None:
        i, j, k, l = wrong.conflict
        assert colors[j] == colors[k]
        assert colors[i] == colors[l]
        assert a[i, k] != 0 or i == k
        assert a[j, l] != 0 or j == l


def test_known_numbers():
    """An arrow and a star take 2, a band of three 3, a full matrix m."""
    arrow = np.eye(60)
    arrow[0] = arrow[:, 0] = 1
    assert color_symmetric(arrow).n_colors == 2
    assert color_symmetric(arrow[::-1, ::-1]).n_colors == 2
    assert color_symmetric(banded_pattern(50, lower=1, upper=1)).n_colors == 3
    assert color_symmetric(np.ones((7, 7))).n_colors == 7
    assert color_symmetric(np.eye(9)).n_colors == 1
    assert color_symmetric(grid_pattern((20, 20), 5)).n_colors <= 5


def test_complex_products_and_forms():
    a = drawn(3) * (1 + 2j)
    for form in (a != 0, sparse.coo_matrix(a != 0), np.nonzero(a)):
        found = color_symmetric(form, shape=a.shape)
        np.testing.assert_array_equal(found.decompress((a @ found.seeds.T).T).toarray(), a)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"it has \(0, 1\), but not \(1, 0\)"):
        color_symmetric(np.triu(np.ones((3, 3))))
    with pytest.raises(ValueError, match="is square"):
        color_symmetric(np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"of shape \(3, 5\), one row"):
        color_symmetric(banded_pattern(5, lower=1, upper=1)).decompress(np.ones((5, 3)))
