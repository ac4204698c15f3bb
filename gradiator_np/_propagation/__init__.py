"""What the uncertainty of inputs does to outputs, and which inputs matter."""

from gradiator_np._propagation.propagation import Propagation, propagate
from gradiator_np._propagation.sensitivity import Sensitivities, sensitivities

__all__ = ["Propagation", "Sensitivities", "propagate", "sensitivities"]
