"""Functions that are known by their samples alone."""

from gradiator_np._sampled.function import SampledFunction

__all__ = ["SampledFunction"]
