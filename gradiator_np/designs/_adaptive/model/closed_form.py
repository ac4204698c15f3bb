"""The line model with up to three pairs, in closed form.

Pairs y_i = g 1_i + sum_q a_q p_iq + e_i, with Var a_q = T_q and Var e_i = 1 / (w omega_i), leave
for g a mean and a variance that are ratios of determinants, and so is their likelihood. By the
formula of Cauchy and Binet each is a polynomial in w whose coefficients are sums over the minors of
[1 | p], rows scaled by sqrt(omega_i), times products of the T_q: positive terms only (but for the
mean), which lose nothing where covariances would lose everything. The coefficients hold neither y
nor w, so that all outputs of a line share them.

Shapes: L lines, N outputs, P pairs (rows of zeros where there is none), Q terms, S states.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, combinations
from math import comb
from operator import mul
from typing import NamedTuple

import numpy as np

from gradiator_np._typing import Array, Index

#: Pairs that minors are used for; beyond there are too many of them.
MOST = 3
# NoiseEstimator below 1e-20 of the slope changes nothing, and cubes of 1 / noise^2 would overflow.
SHARPEST = 1e40
# Terms whose deviation at the widest pair is beyond this say no more of it, and their products
# would overflow. (As a limit at t = 1 it made functions that bend at 1e-7 polynomials.)
LARGEST = 1e34


class Expansion(NamedTuple):
    """Minors of order k by those of order k - 1, along the first column.

    Attributes
    ----------
    rows, columns : array of int, shape (A, k), (k, K)
        All sets of k rows and of k columns, in lexicographic order.
    without : array of int, shape (A, k)
        Which set of k - 1 rows is left where one is taken out.
    rest : array of int, shape (K,)
        Which set of k - 1 columns is left without the first.
    signs : array, shape (k, 1)
    """

    rows: Index
    columns: Index
    without: Index
    rest: Index
    signs: Array


@lru_cache(maxsize=64)
def _expansion(rows: int, columns: int, k: int) -> Expansion:
    def place(n: int, sets: list[tuple[int, ...]]) -> list[int]:
        smaller = {s: i for i, s in enumerate(combinations(range(n), k - 1))}
        return [smaller[s] for s in sets]

    of_rows, of_columns = (list(combinations(range(n), k)) for n in (rows, columns))
    left = [a[:r] + a[r + 1 :] for a in of_rows for r in range(k)]
    return Expansion(
        np.array(of_rows, np.intp),
        np.array(of_columns, np.intp).T,
        np.array(place(rows, left), np.intp).reshape(-1, k),
        np.array(place(columns, [b[1:] for b in of_columns]), np.intp),
        np.array([1.0, -1.0] * k)[:k, None],
    )


def _minors(x: Array) -> list[Array]:
    """Minors (.., A, K) of x (.., P, C), by their order 0 .. P."""
    p, c = x.shape[-2:]
    out = [np.ones((*x.shape[:-2], 1, 1)), x]
    for k in range(2, p + 1):
        e = _expansion(p, c, k)
        parts = (
            x[..., e.rows[:, :, None], e.columns[0]] * out[-1][..., e.without[:, :, None], e.rest]
        )
        out.append((parts * e.signs).sum(axis=-2))
    return out


def _products(terms: Array) -> list[Array]:
    """Products (.., K, S) of 0, 1, .. of the terms (.., Q, S), up to as many as minors need."""
    q = terms.shape[-2]
    out = [np.ones((*terms.shape[:-2], 1, terms.shape[-1]))]
    for k in range(1, min(MOST, q) + 1):
        sets = _expansion(k, q, k).columns
        out.append(terms[..., sets[0], :])
        for at in sets[1:]:
            out[-1] = out[-1] * terms[..., at, :]
    return out


def _squares(minors: list[Array], q: int, held: int, spare: int = 0) -> list[Array]:
    """What stands before the products of 0, 1, .. of q terms in one determinant, (.., K) each.

    They are the sums over all sets of rows of squared minors that have the first ``held`` columns
    and none of the ``spare`` ones after them; the k-th belongs to w^(held + k).
    """
    out = []
    for k, each in enumerate(minors[held : held + q + 1]):
        # in lexicographic order those with the first columns come first
        end, count = comb(spare + q, k), comb(q, k)
        out.append(np.square(each[..., end - count : end]).sum(axis=-2))
    return out


def _polynomial(left: list[Array], right: list[Array], w: Array) -> Array:
    """sum_k w^k left_k @ right_k: (L, N or 1, K) @ (L, K, S), with w (L, N, S) or (L, N, 1)."""
    if w.shape[-1] == 1:
        # one product in all
        powers = list(accumulate([w] * (len(left) - 1), mul, initial=np.ones_like(w)))
        rows = np.concatenate([a * power for a, power in zip(left, powers)], axis=-1)
        columns = np.concatenate(right[: len(left)], axis=-2)
        return rows @ columns
    return _horner([a @ b for a, b in zip(left, right)], w)


def _horner(parts: list[Array], w: Array) -> Array:
    """c_0 + c_1 w + .."""
    out = parts[-1]
    for c in parts[-2::-1]:
        out = out * w + c
    return out


@dataclass(frozen=True, slots=True)
class ClosedFormGLS:
    """At most ``MOST`` pairs of every line and output.

    Attributes
    ----------
    y : array, shape (L, N, P)
        Values, 0 where there is none.
    root : array, shape (L, N or 1, P, 1)
        sqrt(omega), 0 where there is none; one for all outputs of a line where they share it.
    p : array, shape (L, N or 1, P, Q)
        What the terms add (t^2, t^4, ..), as a share of ``unit``, scaled by root.
    unit : array, shape (L, Q)
        What the terms add to the widest pair.
    count : array of int, shape (L, N, 1)
    """

    y: Array
    root: Array
    p: Array
    unit: Array
    count: Index

    @classmethod
    def of(cls, values: Array, basis: Array, root: Array) -> ClosedFormGLS:
        """From values (L, N, P), nan for none, terms (L, P, Q) and sqrt(omega) (L, N, P)."""
        seen = np.isfinite(values)
        unit = np.nan_to_num(np.abs(basis)).max(axis=1)
        unit = np.where(unit > 0, unit, 1.0)
        basis = basis / unit[:, None]
        basis = np.broadcast_to(basis[:, None], (*values.shape, basis.shape[-1]))
        if values.shape[-1] > MOST:
            first = np.argsort(~seen, axis=-1, kind="stable")[..., :MOST]
            seen, values, root = (
                np.take_along_axis(a, first, axis=-1) for a in (seen, values, root)
            )
            basis = np.take_along_axis(basis, first[..., None], axis=-2)
        y, root = np.where(seen, values, 0.0), np.where(seen, root, 0.0)
        some = seen
        if (root == root[:, :1]).all():
            root, basis, some = root[:, :1], basis[:, :1], seen[:, :1]
        root = root[..., None]
        p = np.where(some[..., None], basis, 0.0) * root
        return cls(y, root, p, unit, seen.sum(axis=-1, keepdims=True))

    def slope(self, terms: Array, w: Array) -> tuple[Array, Array]:
        """Mean and variance (L, N, S) of g; terms (L, Q, S) and w (L, N, S) or (L, N, 1)."""
        q, products = terms.shape[-2], _products(self._in_units(terms))
        minors = _minors(np.concatenate([self.root, self.p], axis=-1))
        below = self._some(_polynomial(_squares(minors, q, 1), products, w))
        variance = _polynomial(_squares(minors, q, 0, 1), products, w) / (w * below)
        shares = self._shares(minors, [a[:, None] for a in products])
        if self.root.shape[1] == 1:
            return _polynomial(
                [self.y] * len(shares), [h[:, 0] for h in shares], w
            ) / below, variance
        mean = [(self.y[..., None, :] @ h)[..., 0, :] for h in shares]
        return _horner(mean, w) / below, variance

    def shares(self, terms: Array, w: Array) -> Array:
        """What g takes of each pair, (L, N, P), under one state: terms (L, Q, 1), w (L, N, 1)."""
        products = _products(self._in_units(terms))
        minors = _minors(np.concatenate([self.root, self.p], axis=-1))
        below = self._some(_polynomial(_squares(minors, terms.shape[-2], 1), products, w))
        shares = self._shares(minors, [a[:, None] for a in products])
        return _horner([h[..., 0] for h in shares], w) / below

    def _shares(self, minors: list[Array], products: list[Array]) -> list[Array]:
        """Coefficients (L, N or 1, P, S) of w, w^2, .. of the numerators of ``shares``."""
        pairs, q, out = self.root.shape[-2], products[1].shape[-2], []
        for k in range(1, min(pairs, q + 1) + 1):
            e, count = _expansion(pairs, 1 + q, k), comb(q, k - 1)
            rest = minors[k - 1][..., e.without, -count:]
            parts = self.root[..., e.rows, :] * rest * e.signs * minors[k][..., None, :count]
            flat = parts.reshape(*parts.shape[:-3], -1, count)
            each = (np.arange(pairs)[:, None] == e.rows.ravel()).astype(float) @ flat
            out.append(each @ products[k - 1])
        return out

    def _in_units(self, terms: Array) -> Array:
        """Variances (L, Q, S) of what the terms, of variances (L, Q, S) or (Q, S), add to the
        widest pair."""
        return np.minimum(terms * np.square(self.unit)[..., None], LARGEST**2)

    def _some(self, below: Array) -> Array:
        """1 in place of the 0 that no pair at all leaves."""
        return np.where(self.count > 0, below, 1.0)

    def likelihood_of_slopes(self, terms: Array, w: Array) -> Array:
        """Log-likelihood (L, N, S) of the states, g being unknown, up to a constant."""
        if self.y.shape[-1] == 1:
            return np.zeros((*self.count.shape[:-1], terms.shape[-1]))
        q, products = terms.shape[-2], _products(self._in_units(terms))
        minors = self._with_values(self.root, self.p)
        below = self._some(_polynomial(_squares(minors, q, 1, 1), products, w))
        square = w * _polynomial(_squares(minors, q, 2), products, w) / below
        return np.asarray(
            -0.5 * (np.log(below) - np.maximum(self.count - 1, 0) * np.log(w) + square)
        )

    def likelihood_of_bends(self, terms: Array, w: Array, shared: Array) -> Array:
        """The same of values without g, of which an error of deviation ``shared`` (L, N) is
        common."""
        minors = self._with_values(self.root * shared[..., None, None], 2 * self.p, first=True)
        terms = self._in_units(terms)
        terms = np.concatenate([np.ones((len(terms), 1, terms.shape[2])), terms], axis=1)
        q, products = terms.shape[-2], _products(terms)
        below = _polynomial(_squares(minors, q, 0, 1), products, w)
        square = w * _polynomial(_squares(minors, q, 1), products, w) / below
        return np.asarray(-0.5 * (np.log(below) - self.count * np.log(w) + square))

    def _with_values(self, column: Array, p: Array, first: bool = False) -> list[Array]:
        """Minors of a column, the values and the terms."""
        values = self.root * self.y[..., None]
        both = [values, column] if first else [column, values]
        parts = [np.broadcast_to(a, (*values.shape[:-1], a.shape[-1])) for a in (*both, p)]
        return _minors(np.concatenate(parts, axis=-1))
