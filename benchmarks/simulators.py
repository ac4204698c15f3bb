"""Real simulators that nobody here wrote: error, evaluations and error bars beside other packages.

python -m benchmarks.simulators [--quick]; needs the extra ``simulators`` and, for the peers,
``bench``. Every model is called like a user's function and has a derivative that can be trusted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmarks import _common
from gradiator_np import jacobian

Array = NDArray[np.float64]


class Ignition:
    """Temperature of an igniting hydrogen flame (Cantera), by the rates of five reactions.

    Parameters
    ----------
    rtol : float
        Tolerance of the integrator; 1e-9 is Cantera's default.
    x : array, shape (5,), optional
        Multipliers of the rates.
    """

    REACTIONS = (2, 8, 9, 10, 20)
    TIMES = (6e-5, 8e-5, 1e-4)  # s, while the temperature rises from 1500 K to 2700 K

    def __init__(self, rtol: float = 1e-9, x: Array | None = None) -> None:
        import cantera

        self.name = f"ignition, rtol {rtol:g}"
        self.gas = cantera.Solution("h2o2.yaml")
        self.rtol = rtol
        self.x = np.ones(len(self.REACTIONS)) if x is None else x

    def near(self, rng: np.random.Generator) -> Array:
        """Another point: rates within a fifth or so."""
        return np.exp(0.2 * rng.standard_normal(len(self.REACTIONS)))

    def __call__(self, x: Array) -> Array:
        return self._run(x, self.rtol, sensitivities=False)[0]

    def exact(self) -> Array:
        """CVODES' forward sensitivities; d ln T / d ln rate is what it returns."""
        temperature, relative = self._run(self.x, 1e-9, sensitivities=True)
        return relative * temperature[:, None] / self.x

    def _run(self, x: Array, rtol: float, sensitivities: bool) -> tuple[Array, Array]:
        import cantera

        if (x <= 0).any():
            raise ValueError(f"rates must be positive, got {x}")
        gas = self.gas
        gas.TPX = 1100.0, 2 * cantera.one_atm, "H2:2, O2:1, AR:5"
        for reaction, value in zip(self.REACTIONS, x):
            gas.set_multiplier(value, reaction)
        reactor = cantera.IdealGasConstPressureReactor(gas, clone=False)
        net = cantera.ReactorNet([reactor])
        net.rtol, net.atol = rtol, 1e-15
        if sensitivities:
            for reaction in self.REACTIONS:
                reactor.add_sensitivity_reaction(reaction)
            net.rtol_sensitivity = net.atol_sensitivity = 1e-6
        temperature, relative = [], []
        for time in self.TIMES:
            net.advance(time)
            temperature.append(reactor.T)
            if sensitivities:
                relative.append([net.sensitivity("temperature", i) for i in range(len(x))])
        gas.set_multiplier(1.0)
        return np.array(temperature), np.array(relative)


class Fluid:
    """Density, enthalpy and entropy of a fluid (CoolProp), by pressure and temperature."""

    STATES: ClassVar = {"CO2": (9e6, 320.0), "Water": (1e5, 300.0), "R134a": (2e5, 300.0)}  # Pa, K

    def __init__(self, name: str) -> None:
        import CoolProp

        self.name = name
        self.state = CoolProp.AbstractState("HEOS", name)
        self.x = np.array(self.STATES[name])

    def near(self, rng: np.random.Generator) -> Array:
        """Another state: pressure within 20 %, temperature within 10 K."""
        return np.array(self.STATES[self.name]) + rng.uniform(-1, 1, 2) * [0.2 * self.x[0], 10.0]

    def __call__(self, x: Array) -> Array:
        import CoolProp

        state = self.state
        state.update(CoolProp.PT_INPUTS, *x)
        return np.array([state.rhomass(), state.hmass(), state.smass()])

    def exact(self) -> Array:
        """Analytic derivatives of the equation of state."""
        import CoolProp as cp

        self(self.x)
        p, t = cp.iP, cp.iT
        return np.array(
            [
                [self.state.first_partial_deriv(y, p, t), self.state.first_partial_deriv(y, t, p)]
                for y in (cp.iDmass, cp.iHmass, cp.iSmass)
            ]
        )


class Orbit:
    """Position (km) of a satellite near the Earth after an orbit (sgp4), by its elements.

    Inputs: inclination, node, eccentricity, perigee, anomaly (rad), minutes since the epoch.
    """

    NODE = 1
    name = "orbit"

    def __init__(self) -> None:
        self.x = np.array([0.9013, 1.2, 0.0007, 2.1, 4.0, 90.0])

    def near(self, rng: np.random.Generator) -> Array:
        """Other elements, a fifth higher or lower."""
        return self.x * rng.uniform(0.8, 1.2, self.x.size)

    def __call__(self, x: Array) -> Array:
        from sgp4.api import WGS72, Satrec

        inclination, node, eccentricity, perigee, anomaly, minutes = x
        satellite = Satrec()
        satellite.sgp4init(
            WGS72, "i", 25544, 25945.0, 3.8792e-05, 0.0, 0.0,
            eccentricity, perigee, inclination, anomaly, 0.0676, node,
        )  # fmt: skip
        error, position, _ = satellite.sgp4_tsince(minutes)
        if error:
            raise ValueError(f"sgp4 refuses these elements: error {error}")
        return np.array(position)

    def exact(self) -> Array:
        """The column of the node (the orbit turns about the axis of the Earth); nan elsewhere."""
        jac = np.full((3, self.x.size), np.nan)
        jac[:, self.NODE] = np.cross([0.0, 0.0, 1.0], self(self.x))
        return jac


MODELS: tuple[Callable[[], Any], ...] = (
    lambda: Ignition(1e-6),
    lambda: Ignition(1e-9),
    lambda: Fluid("CO2"),
    lambda: Fluid("Water"),
    lambda: Fluid("R134a"),
    Orbit,
)

# Estimate and half width of a 95 % interval; None where a package tells no error.
Answer = tuple[Array, Array | None]


def ours(method: str) -> Callable[[Any, Array], Answer]:
    """This package."""

    def run(fun: Any, x: Array) -> Answer:
        estimate = jacobian(fun, x, method=method, rng=0)
        low, high = estimate.confidence_interval(0.95)
        return estimate.jac, None if method == "3-point" else (high - low) / 2

    return run


def scipy(method: str) -> Callable[[Any, Array], Answer]:
    """SciPy's differences."""
    from scipy.optimize._numdiff import approx_derivative

    return lambda fun, x: (approx_derivative(fun, x, method=method), None)


def numdifftools(fun: Any, x: Array) -> Answer:
    """Extrapolated central differences; its error estimate is no interval of a stated level."""
    import numdifftools as nd

    jac, info = nd.Jacobian(fun, full_output=True)(x)
    return jac, np.reshape(info.error_estimate, jac.shape)


def jacobi(fun: Any, x: Array) -> Answer:
    """The package jacobi: extrapolated differences with a standard error."""
    from jacobi import jacobi as estimate

    jac, error = estimate(fun, x)
    return jac, 1.96 * error


def statsmodels(fun: Any, x: Array) -> Answer:
    """Forward differences of statsmodels."""
    from statsmodels.tools.numdiff import approx_fprime

    return approx_fprime(x, fun), None


PEERS: dict[str, Callable[[Any, Array], Answer]] = {
    "gradiator_np": ours("auto"),
    "gradiator_np 3-point": ours("3-point"),
    "SciPy 2-point": scipy("2-point"),
    "SciPy 3-point": scipy("3-point"),
    "statsmodels": statsmodels,
    "numdifftools": numdifftools,
    "jacobi": jacobi,
}


def judged(model: Any, peer: Callable[[Any, Array], Answer]) -> tuple[float, int, Array]:
    """Largest error relative to the row's largest entry, evaluations, and where intervals hold."""
    runs = 0

    def counted(x: Array) -> Array:
        nonlocal runs
        runs += 1
        return np.asarray(model(np.asarray(x, dtype=float)))

    exact = model.exact()
    known = np.isfinite(exact)
    try:
        jac, half = peer(counted, model.x)
    except (ValueError, RuntimeError):  # a step left the states for which the model is defined
        return np.inf, runs, np.zeros(0)
    error = np.abs(jac - exact)
    size = np.abs(exact).max(axis=1, where=known, initial=0.0)
    worst = float((error / np.where(size > 0, size, np.inf)[:, None])[known].max())
    return worst, runs, np.zeros(0) if half is None else (error <= half)[known]


def measured(points: int) -> Iterator[dict[str, Any]]:
    """A row for every model and package."""
    for make in MODELS:
        model = make()
        rng = np.random.default_rng(1)
        places = [model.x, *(model.near(rng) for _ in range(points - 1))]
        for name, peer in PEERS.items():
            errors, runs, held = [], [], []
            for model.x in places:
                error, count, inside = judged(model, peer)
                errors.append(error)
                runs.append(count)
                held.append(inside)
            inside = np.concatenate(held)
            yield {
                "model": model.name,
                "package": name,
                "median error": float(np.median(errors)),
                "largest error": float(np.max(errors)),
                "evaluations": float(np.mean(runs)),
                "in 95 % intervals": float(inside.mean()) if inside.size else "-",
            }


def main() -> None:
    """Measure, print, write."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = list(measured(2 if _common.quick() else 20))
    print(_common.table(rows[0], [row.values() for row in rows]))
    _common.write("simulators", rows)


if __name__ == "__main__":
    main()
