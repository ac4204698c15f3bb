"""v^T J of a sparse Jacobian."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._compressed.estimate import SparseJacobianEstimate
from gradiator_np._covariance import Covariance
from gradiator_np._products import ProductEstimate, ProductView
from gradiator_np._results import Frame, JacobianEstimate
from gradiator_np._structure import Layout


def sparse_vjp(found: SparseJacobianEstimate, v: Any) -> ProductEstimate:
    """v^T J of a sparse Jacobian, in the form of one that was contracted on arrival."""
    x, y = found.frame.x_layout, found.frame.y_layout
    flat, lead = checks.direction(v, y, "v", finite=True)
    cotangents = flat if lead else flat[None]

    def rows(product: Any) -> NDArray[Any]:
        return np.moveaxis(x.flatten(product, 1), 0, -2)  # (*batch, p, m)

    own = found.compressed.solution
    several = y.unflatten(cotangents)
    coef, error = rows(found.vjp(several)), rows(found.vjp_stderr(several))
    dof = np.broadcast_to(own.dof.min(-1, keepdims=True), coef.shape[:-1])
    unknown = np.zeros(coef.shape[:-1])
    solution = replace(
        own,
        coef=coef,
        cov=Covariance(unknown, extra=np.square(error)),
        dof=dof,
        residual=unknown,
        status=found.status,
        message=found.message,
        info={},
        interval_factor=None,
    )
    frame = Frame(x, Layout((len(cotangents),), y.batch))
    estimate = JacobianEstimate(
        solution, frame, found.design, found.nfev, found.n_failed, found.compressed.n_samples
    )
    return ProductEstimate(estimate, ProductView(x, -2, 1.0, several=bool(lead)), found.y)
