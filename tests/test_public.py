"""The public names: all there, imported on use, and nothing heavy before that."""

import subprocess
import sys

import gradiator_np


def test_every_public_name_is_there():
    for name in gradiator_np.__all__:
        assert getattr(gradiator_np, name) is not None, name
    assert set(gradiator_np._ON_USE) <= set(gradiator_np.__all__)
    packages = {"adapters", "designs", "solvers", "sparsity"}
    assert set(dir(gradiator_np)) == {*gradiator_np.__all__, *packages, "__version__"}
    for name in packages:
        assert getattr(gradiator_np, name).__doc__
        assert getattr(gradiator_np, name).__all__


def test_the_import_is_light_and_compiles_nothing():
    """No framework, no plotting, no progress library; no compiled kernel before a call."""
    program = """
import sys, gradiator_np
heavy = {"torch", "jax", "matplotlib", "tqdm", "scipy.stats", "scipy.optimize"} & set(sys.modules)
assert not heavy, heavy
from numba.core.dispatcher import Dispatcher
kernels = [m for n, m in sys.modules.items() if n.startswith("gradiator_np.kernels.")]
compiled = [k for m in kernels for k, v in vars(m).items()
            if isinstance(v, Dispatcher) and v.signatures]
assert not compiled, compiled
"""
    subprocess.run([sys.executable, "-c", program], check=True)
