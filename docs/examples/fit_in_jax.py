"""A simulator inside a JAX model: jit, vmap and grad around a function that JAX cannot see into.

A spectrometer's line shape is simulated by a quadrature of SciPy; a model in JAX around it (a
baseline, a gain) is fitted by gradient descent. The gradient of the simulator's part is
estimated; the rest is JAX's own.

Run ``python docs/examples/fit_in_jax.py``; it needs JAX.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad

from gradiator_np.adapters.jax import gradiator

jax.config.update("jax_enable_x64", True)

FREQUENCIES = np.linspace(-3, 3, 25)


def line(shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian of width shape[0] broadened by a Lorentzian of width shape[1], by quadrature."""
    gauss, lorentz = shape

    def at(frequency: float) -> float:
        def integrand(t: float) -> float:
            return float(np.exp(-((gauss * t) ** 2) / 2 - lorentz * t) * np.cos(frequency * t))

        return quad(integrand, 0, 40 / (gauss + lorentz), limit=200)[0] / np.pi

    return np.array([at(f) for f in FREQUENCIES])


simulator = gradiator(
    line, method="3-point", out=jax.ShapeDtypeStruct(FREQUENCIES.shape, np.float64)
)


def model(p: Any) -> Any:
    """Gain times line plus baseline; logarithms of the widths keep them positive."""
    return p["gain"] * simulator(jnp.exp(p["widths"])) + p["base"]


def main() -> None:
    truth = {"gain": 2.0, "base": 0.1, "widths": jnp.log(jnp.array([0.5, 0.2]))}
    data = model(truth)
    p = {"gain": jnp.array(1.0), "base": jnp.array(0.0), "widths": jnp.log(jnp.array([1.0, 1.0]))}
    loss = jax.jit(jax.value_and_grad(lambda p: jnp.sum((model(p) - data) ** 2)))
    momentum = jax.tree.map(jnp.zeros_like, p)
    start = simulator.function.nfev
    for step in range(150):
        value, slope = loss(p)
        if step % 30 == 0:
            print(f"step {step:3d}  loss {value:.2e}")
        momentum = jax.tree.map(lambda m, g: 0.8 * m - 0.03 * g, momentum, slope)
        p = jax.tree.map(jnp.add, p, momentum)
    print(f"widths {np.exp(p['widths']).round(3)} (0.5, 0.2), gain {p['gain']:.3f} (2)")
    print(f"{simulator.function.nfev - start} runs: one and four for the gradient, a step")


if __name__ == "__main__":
    main()
