"""A function with a backward and a forward pass: its own where given, estimated where not."""

from gradiator_np.differentiable.function import Gradiator, gradiator
from gradiator_np.differentiable.reuse import Reuse

__all__ = ["Gradiator", "Reuse", "gradiator"]
