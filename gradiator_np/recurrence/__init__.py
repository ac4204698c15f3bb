"""Time stepping: tangents, adjoints, checkpoints."""

from gradiator_np.recurrence.recurrence import Recurrence

__all__ = ["Recurrence"]
