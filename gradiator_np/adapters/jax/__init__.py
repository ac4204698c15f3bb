"""Simulators inside JAX: grad, jvp, jit, vmap, and all that is built of them."""

try:
    import jax  # noqa: F401
except ImportError as exc:
    raise ImportError(
        "gradiator_np.adapters.jax needs JAX: pip install 'gradiator-np[jax]'"
    ) from exc

from gradiator_np.adapters.jax._function import JaxFunction, gradiator

__all__ = ["JaxFunction", "gradiator"]
