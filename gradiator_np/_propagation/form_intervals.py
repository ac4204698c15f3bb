"""Intervals of the variances of many outputs, g^T R g with an estimated g, all at once.

A test inverted. Of the true g that give one value that is tried which is nearest to what was
estimated, in its errors: g(z) = (1 - z S R)^-1 g, as in hybrid resampling (Chuang and Lai,
Statist. Sinica 10, 2000, 1). There g^T R g is a sum of noncentral chi-squared variables, which
Pearson's three-moment approximation describes (Imhof, Biometrika 48, 1961, 419, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize.elementwise import find_root
from scipy.special import chdtri, ndtri

from gradiator_np._checks import EPS
from gradiator_np._propagation.quadratic_form import QuadraticForm
from gradiator_np._typing import Array, Index, Mask

#: Degrees of freedom from which a chi-squared is normal to rounding of its quantiles.
NORMAL = 1e8
#: How far g is moved for an end of an interval, as a logarithm; down to this share of that way.
LOG_RANGE = 40.0
ENOUGH = 1e-10
#: What is taken as seen along the noisiest direction at least, in its errors.
UNSEEN = 1e-9


class FormMoments(NamedTuple):
    """What intervals of quadratic forms are made of, (n,) each; see `QuadraticForm`."""

    plug_in: Array
    bias: Array
    variance: Array
    at_zero: Array
    cube: Array

    @classmethod
    def of(cls, forms: Sequence[QuadraticForm]) -> FormMoments:
        each = [(f.plug_in, f.bias, f.variance, f.at_zero, f.moments.cube) for f in forms]
        return cls(*np.array(each, float).reshape(-1, 5).T)

    def take(self, which: Index) -> FormMoments:
        """Those of some outputs."""
        return FormMoments(*(a[which] for a in self))

    def quantile(self, h: Array, s: Array, p: Array) -> Array:
        """Quantiles (n,) of the estimates where g is ``h`` (n, m) in the basis of eigenvalues s."""
        squares = np.square(h)
        mean = squares.sum(-1) + self.bias
        sd = np.sqrt(4 * (squares * s).sum(-1) + self.at_zero)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            skew = (8 * self.cube + 24 * (squares * np.square(s)).sum(-1)) / sd**3
            dof = np.where(skew > 0, 8 / np.square(skew), np.inf)
            bent = (chdtri(dof, 1 - p) - dof) / np.sqrt(2 * dof)
        spread = np.where(dof > NORMAL, ndtri(p), bent)
        return np.asarray(np.where(sd == 0, mean, mean + sd * np.where(sd == 0, 0.0, spread)))

    def hidden(self, tail: Array) -> Mask:
        """Whether errors of g alone reach what was seen with probability ``tail`` or more."""
        none = np.zeros((len(tail), 1))
        return np.asarray(self.quantile(none, none, 1 - tail) >= self.plug_in)


def hidden(forms: Sequence[QuadraticForm], tail: Array) -> Mask:
    """Whether errors of J would explain the whole of the variance of each output."""
    return FormMoments.of(forms).hidden(tail)


def intervals(forms: Sequence[QuadraticForm], tail: Array) -> tuple[Array, Array]:
    """Ends (n,) between which the true g^T R g lie, each missed with probability ``tail`` (n,).

    What is seen below its mean at g = 0 counts as that mean: a short interval at 0 would be luck.
    """
    every = FormMoments.of(forms)
    low, high = every.plug_in.copy(), every.plug_in.copy()
    spectra = {i: f.spectrum for i, f in enumerate(forms) if f.bias != 0}
    for size in {len(s) for _, s in spectra.values()}:
        which = np.array([i for i, (_, s) in spectra.items() if len(s) == size])
        h, s = map(np.array, zip(*(spectra[i] for i in which.tolist())))
        moments, p = every.take(which), tail[which]
        top = s.max(1, keepdims=True)
        # Along the noisiest direction any value can be reached, unless nothing was seen there.
        least = np.where(s == top, UNSEEN * np.sqrt(top), 0.0)
        family = Family(moments, np.copysign(np.maximum(np.abs(h), least), h), s, top)
        seen = np.flatnonzero(~moments.hidden(p))
        low[which] = 0.0
        low[which[seen]] = family.take(seen).ends(1 - p[seen], upper=False)
        high[which] = family.ends(p, upper=True)
    return low, high


class Family(NamedTuple):
    """Quadratic forms along the g that may be true: h and s (n, m), top (n, 1)."""

    moments: FormMoments
    h: Array
    s: Array
    top: Array

    def take(self, which: Index) -> Family:
        """Those of some outputs."""
        moments = self.moments.take(which)
        return Family(moments, self.h[which], self.s[which], self.top[which])

    def moved(self, log: Array) -> Array:
        """(1 - z s)^-1 h, with 1 - z top = e^log: z runs from 1 / top to -inf."""
        share = self.s / self.top
        return np.asarray(self.h / (1 - share + share * np.exp(log)[:, None]))

    def ends(self, p: Array, upper: bool) -> Array:
        """The true values at which what was seen are the quantiles p of what is estimated."""
        n = len(p)
        rest = np.square(self.moved(np.full(n, LOG_RANGE))).sum(1)
        seen, bias = self.moments.plug_in, self.moments.bias
        if upper:
            seen = np.maximum(seen, rest + bias)

        def excess(log: Array, which: Index) -> Array:
            some = self.take(which)
            return some.moments.quantile(some.moved(log), some.s, p[which]) - seen[which]

        every = np.arange(n)
        side = np.where(excess(np.zeros(n), every) > 0, 1.0, -1.0)
        first = np.sqrt(self.moments.variance) / (2 * seen)
        inner, outer = np.zeros(n), side * np.clip(first, EPS, 1.0)
        open_ = every
        while open_.size:
            open_ = open_[side[open_] * excess(outer[open_], open_) > 0]
            inner[open_] = outer[open_]
            open_ = open_[np.abs(outer[open_]) < LOG_RANGE]
            outer[open_] = side[open_] * np.minimum(2 * np.abs(outer[open_]), LOG_RANGE)
        out = np.where(side > 0, rest, np.inf)
        which = np.flatnonzero(inner != outer)

        def inside(t: Array, *which: Any) -> Array:
            return excess(t * outer[which[0]], which[0])

        between = inner[which] / outer[which], np.ones(which.size)
        found = find_root(
            inside, between, args=(which,),
            tolerances={"xatol": ENOUGH, "xrtol": 4 * EPS, "fatol": 0.0, "frtol": 0.0},
        )  # fmt: skip
        out[which] = np.square(self.take(which).moved(found.x * outer[which])).sum(1)
        return out
