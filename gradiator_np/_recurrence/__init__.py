"""Time stepping: tangents, adjoints, checkpoints."""

from gradiator_np._recurrence.recurrence import Recurrence, StepCounts

__all__ = ["Recurrence", "StepCounts"]
