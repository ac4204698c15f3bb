"""A Jacobian from one sample at a time."""

from gradiator_np._streaming.stream import StreamingJacobian

__all__ = ["StreamingJacobian"]
