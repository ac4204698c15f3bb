"""A pattern that nobody knows, by runs around a point."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._site import Site
from gradiator_np.sparsity._detection import Detection, Method, SparsitySearch
from gradiator_np.sparsity._probes import Surroundings


def detect(
    site: Site,
    noise: Any,
    *,
    method: Method = "auto",
    step: float | None = None,
    max_nfev: int | None = None,
    rng: Any = None,
) -> Detection:
    """Run what the search asks for; options as ``detect_sparsity`` has them."""
    known = None if noise is None else checks.noise(noise, site.y_layout)
    y = np.where(np.isfinite(site.y), site.y, np.nan)
    around = Surroundings(y, site.scale, site.up, site.down, checks.generator(rng), known, step)
    search = SparsitySearch(around, method, max_nfev)
    while (offsets := search.ask()) is not None:
        search.tell(site.at(offsets))
    assert search.result is not None
    return search.result
