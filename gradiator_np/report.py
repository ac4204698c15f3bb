"""An estimate as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gradiator_np.results import JacobianEstimate

MOST_ROWS = 20


def summary(estimate: JacobianEstimate) -> str:
    """A few lines that say what was estimated, how well, and at what cost."""
    s = estimate.solution
    *batch, n, m = s.coef.shape
    head = f"JacobianEstimate: {n} outputs x {m} inputs"
    if batch:
        head += f", batch {tuple(batch)}"
    lines = [
        head + f" ({estimate.design or 'samples'}, {estimate.nfev or estimate.n_samples} "
        f"{'evaluations' if estimate.nfev else 'samples'}, {estimate.n_failed} failed)"
    ]
    if not batch and n * m <= MOST_ROWS:
        lines += table(estimate)
    lines.append(f"status: {estimate.status}" + (f". {s.message}" if s.message else ""))
    return "\n".join(lines)


def table(estimate: JacobianEstimate) -> list[str]:
    """A line for each entry: output, input, value and standard error."""
    jac, err = estimate.solution.coef, estimate.solution.cov.stderr()
    err = np.broadcast_to(err, jac.shape)
    rows = [f"{'output':>12} {'input':>12} {'d output / d input':>22} {'stderr':>10}"]
    for i, out in enumerate(estimate.y_layout.names):
        for j, inp in enumerate(estimate.x_layout.names):
            rows.append(f"{'y' + out:>12} {'x' + inp:>12} {jac[i, j]:>22.12g} {err[i, j]:>10.2g}")
    return rows
