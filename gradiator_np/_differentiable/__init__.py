"""A function with a backward and a forward pass: its own where given, estimated where not."""

from gradiator_np._differentiable.function import Gradiator, gradiator
from gradiator_np._differentiable.owner import Counts
from gradiator_np._differentiable.point import DifferentiablePoint
from gradiator_np._differentiable.reuse import Reuse

__all__ = ["Counts", "DifferentiablePoint", "Gradiator", "Reuse", "gradiator"]
