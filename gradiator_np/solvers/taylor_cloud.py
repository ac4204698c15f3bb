"""A cloud of samples for the random-Taylor model: which rows and outputs are fitted together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradiator_np.solvers.taylor_model import (
    N_S,
    NU,
    RHO,
    Group,
    Moments,
    Rows,
    bends,
    linear_part,
    shared_prior,
)

Array = NDArray[np.float64]
Index = NDArray[np.intp]
#: Outputs that share their rows, and the model of those rows.
Groups = list[tuple[Index, Group]]

#: Outputs handled at a time, and outputs that teach the shared prior: bounds the memory.
CHUNK = 64
#: Samples that suffice to learn how much each input bends f, and at which distance.
SUBSET = 150


def nearest(u: Array, limit: int, p: int) -> Index:
    """Indices of the samples that can matter, nearest first.

    The nearest max(20, 4 p) that span what all samples span, and what lies within 8 times their
    radius: beyond that, Taylor terms of order two alone are 64 times larger.
    """
    size = np.linalg.norm(u, axis=1)
    order = np.argsort(size, kind="stable")[:limit]
    size = size[order]
    core = max(20, 4 * p)
    full = linear_part(u[order]).rank if core < len(order) else 0
    while core < len(order) and linear_part(u[order[:core]], 1e-3).rank < full:
        core *= 2
    if core >= len(order):
        return np.asarray(order)
    return np.asarray(order[size <= 8.0 * size[core - 1]])


class Cloud:
    """Scaled samples and the outputs' masks: what is fitted, and fitted again without outliers."""

    def __init__(
        self,
        u: Array,
        y: Array,
        w: Array,
        mask: NDArray[np.bool_],
        intercept: bool,
        noise: Index | None,
    ) -> None:
        self.u, self.y, self.w, self.mask, self.intercept = u, y, w, mask, intercept
        n = y.shape[1]
        self.first = np.zeros(n, np.intp) if noise is None else noise
        self.last = np.full(n, N_S, np.intp) if noise is None else noise + 1
        # A noise that is known fixes the amplitude within the cell as well.
        self.nu = np.full(n, NU) if noise is None else np.where(noise > 0, 1e12, NU)
        size = np.linalg.norm(u, axis=1)
        moved = size[size > 0]
        self.radius = float(np.median(moved)) if moved.size else 1.0
        # exp(25) at the farthest sample: a smaller rho would leave it without weight anyway.
        self.rho = np.maximum(self.radius * RHO, moved.max(initial=0.0) / 5.0)
        self.rho = np.unique(self.rho)
        self.bend = np.ones(u.shape[1])
        self.cache: dict[bytes, Group] = {}
        self._learn_kernel()

    def _group(self, rows: Index, out: Index) -> Group:
        u = self.u[rows]
        shared = Rows(u, u * self.bend, self.w[rows, out[0]], self.intercept)
        y = self.y[np.ix_(rows, out)]
        noise = self.first[out], self.last[out], self.nu[out]
        return Group(shared, y, self.rho, self.radius, *noise)

    def _learn_kernel(self) -> None:
        """Relative bends of the inputs, and the rho that come into question, from a subset."""
        out = np.flatnonzero((self.mask == self.mask[:, :1]).all(0))[: 4 * CHUNK]
        rows = np.flatnonzero(self.mask[:, 0])
        p = self.u.shape[1] + self.intercept
        few = max(SUBSET, 4 * p)
        rows = rows[:: max(1, len(rows) // few)]
        if len(rows) < 2:
            return
        u = self.u[rows]
        part = Rows(u, u, self.w[rows, 0], self.intercept)
        self.bend = bends(part, self.y[np.ix_(rows, out)], 3.0 * self.radius)
        if len(self.u) > 2 * len(rows) or len(self.u) > 2 * SUBSET:
            like = self._group(rows, out).likelihood(slice(0, CHUNK))
            post = like * shared_prior(like)
            post /= post.sum((1, 2, 3), keepdims=True)
            self.rho = self.rho[post.sum((2, 3)).max(0) > 1e-2]

    def fit(self) -> tuple[Moments, Groups]:
        """Group outputs that share rows and weights, learn the prior, average over the states."""
        n = self.y.shape[1]
        _, member = np.unique(np.where(self.mask, self.w, 0.0), axis=1, return_inverse=True)
        groups = []
        for g in range(int(member.max()) + 1):
            out = np.flatnonzero(member == g)
            key = self.mask[:, out[0]].tobytes() + out.tobytes()
            if key not in self.cache:
                self.cache[key] = self._group(np.flatnonzero(self.mask[:, out[0]]), out)
            groups.append((out, self.cache[key]))
        step = -(-n // CHUNK)
        teach = [g.likelihood(np.flatnonzero(out % step == 0)) for out, g in groups]
        prior = shared_prior(np.concatenate(teach))
        p = self.u.shape[1] + self.intercept
        shapes = (n, p), (n, p, p), (n, p), (n,), (n,), self.mask.shape
        moments = Moments(*(np.zeros(shape) for shape in shapes))
        for (out, group), like in zip(groups, teach):
            for start in range(0, len(out), CHUNK):
                part = slice(start, start + CHUNK)
                found = group.moments(part, prior, like if step == 1 else None)
                for name in ("beta", "cov", "half", "noise", "log_rho"):
                    getattr(moments, name)[out[part]] = getattr(found, name)
                moments.loo[np.ix_(self.mask[:, out[0]], out[part])] = found.loo
        return moments, groups

    def drop_outliers(self, loo: Array, groups: Groups) -> bool:
        """Mask entries whose externally studentised residual is too rare to be noise."""
        from scipy.special import stdtrit

        dropped = False
        for out, group in groups:
            d = group.dof
            if d < 4:
                continue
            z2 = np.minimum(np.square(loo[:, out]), d - 1e-6)
            t = np.sqrt(z2 * (d - 1) / (d - z2))
            # One false alarm in 1000 outputs; the worst first, since outliers hide each other.
            far = t > np.maximum(stdtrit(d - 1, 1.0 - 5e-4 / len(loo)), 0.5 * t.max(0))
            self.mask[:, out] &= ~far
            dropped |= bool(far.any())
        return dropped
