"""What all stages share: the log, the caller's limits, and what is known of every input by now."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array, Index
from gradiator_np.designs._adaptive.evaluation_log import EvaluationLog
from gradiator_np.designs._adaptive.model.contrasts import inconsistent
from gradiator_np.designs._adaptive.model.differences import CentralDifferences, merge_repeats
from gradiator_np.designs._adaptive.model.likelihood import noise_over_slope
from gradiator_np.designs._adaptive.model.misfit import reach_of_fit
from gradiator_np.designs._adaptive.model.mixture import Slopes, mixture, slopes, variances
from gradiator_np.designs._adaptive.model.posterior import Posterior
from gradiator_np.designs._adaptive.model.prior import States
from gradiator_np.designs._adaptive.state import AxisState, FunctionProfile, Tolerance
from gradiator_np.designs._protocol import Problem

# Share of the prior that an output by itself gives to states that its input knows nothing of,
# and that of noise of its own in them.
OPEN, JITTER = 0.5, 0.1
# Share of jitter in the prior of an input that bends where the pilot did not see it.
RARE = 1e-5


@dataclass(frozen=True, slots=True)
class Inference:
    """What the pairs of every free input say.

    Attributes
    ----------
    points : Posterior
        Every input at every point of the batch is a line (m B) of its own, with its outputs.
    pooled : Posterior
        Every input is a line (m), with the mean weights of all points.
    batch : int
    """

    points: Posterior
    pooled: Posterior
    batch: int

    def by_output(self, a: Array) -> Array:
        """From outputs of one point and lines (N / B, m B) to all outputs and inputs (N, m)."""
        lines = a.reshape(len(a), -1, self.batch)
        return np.ascontiguousarray(lines.transpose(2, 0, 1).reshape(-1, lines.shape[1]))


@dataclass(frozen=True, slots=True)
class Context:
    """The problem, and the answers that its log allows.

    Attributes
    ----------
    problem : Problem
    log : EvaluationLog
    states : States
    inputs : array of int, shape (m,)
        The free inputs.
    known_noise : array, shape (N,), or None
    tolerance : Tolerance
    max_step : array that broadcasts to (B, m), or None
        The caller's limit, in units of x.
    min_step : float
        The step below which the caller calls the function rough, in units of the scale; 0 where
        there is none.
    """

    problem: Problem
    log: EvaluationLog
    states: States
    inputs: Index
    known_noise: Array | None
    tolerance: Tolerance
    max_step: Any
    min_step: float = 0.0
    _last: dict[str, Any] = field(default_factory=dict, repr=False)

    def differences(self, profile: FunctionProfile) -> CentralDifferences:
        """Every pair of every free input."""
        return self.log.differences(self.inputs, profile.growth)

    def infer(self, profile: FunctionProfile, axes: AxisState) -> Inference:
        """What is known of every free input by now; remembered until more is."""
        parts = axes.jitter, axes.narrow, axes.centre
        key = (self.log.version, id(profile), *map(id, parts))
        if self._last.get("key") != key:
            self._last.clear()  # of many inputs both would not fit
            # the objects themselves are kept as well, so that no other takes their id
            self._last.update(key=key, of=(profile, axes), known=self._infer(profile, axes))
        known: Inference = self._last["known"]
        return known

    def _infer(self, profile: FunctionProfile, axes: AxisState) -> Inference:
        noise, m, batch = profile.noise, self.inputs.size, self.log.batch
        view = merge_repeats(self.differences(profile), noise)
        states, prior = self.priors(profile, axes)
        slope = np.ascontiguousarray(np.broadcast_to(profile.slope, (m, noise.size)))

        def by_point(prior: Array, slope: Array) -> Posterior:
            level = np.tile(noise.reshape(batch, -1), (m, 1))
            lines = slope.reshape(m * batch, noise.size // batch)
            return Posterior(view.by_point(batch), states, prior, lines, level)

        points = by_point(prior, slope)
        if np.isfinite(view.slope).any():
            mean = slopes(points).reshape(m, noise.size)
            slope = _scale_of_slopes(mean, view, profile)
            if axes.jitter.any():
                # an input on a grid of its own: its rounding adds to the noise of its pairs
                grown = 1 + np.square(axes.jitter / noise_over_slope(noise, slope))
                view = replace(view, noise_factor=view.noise_factor * grown[:, None])
            points = by_point(prior, slope).updated()
            if not profile.nonsmooth:
                # second differences at a kink are none of curvature
                points = points.with_curvature()
        # one step serves all points
        weights = points.weights
        if batch > 1:
            weights = weights.reshape(m, batch, weights.shape[-1]).mean(axis=1)
        return Inference(points, Posterior(view, states, weights, slope, noise), batch)

    def priors(self, profile: FunctionProfile, axes: AxisState) -> tuple[States, Array]:
        """The states that matter, and their weights on every line, input by input."""
        m, batch = self.inputs.size, self.log.batch
        common = np.broadcast_to(profile.prior, (batch, profile.prior.shape[-1]))
        own = {
            k: self.states.prior(RARE, centre=axes.centre[k])
            for k in np.flatnonzero(np.isfinite(axes.centre))
        }
        if axes.narrow.any():
            narrow = self.states.prior(RARE, narrow=True)
            own |= dict.fromkeys(np.flatnonzero(axes.narrow), narrow)
        most = np.stack([*common, *own.values()]).max(axis=0)
        keep = np.flatnonzero(most > 1e-6 * most.max())
        every = np.tile(common[:, keep], (m, 1))
        lines = every.reshape(m, batch, keep.size)
        for k, prior in own.items():
            lines[k] = prior[keep]
        return self.states.take(keep), every

    def inconsistent(self, profile: FunctionProfile, axes: AxisState) -> NDArray[np.bool_]:
        """Entries (m, N) whose pairs contradict the states of their input."""
        known = self.infer(profile, axes).points
        if profile.random:
            # repetitions of a step show an outlier as well
            all_pairs = self.differences(profile).by_point(self.log.batch)
            known = replace(known, differences=all_pairs)
        return inconsistent(known).reshape(self.inputs.size, -1)

    def slopes(self, profile: FunctionProfile, axes: AxisState) -> Slopes:
        """Slopes of all outputs along all free inputs, and their errors, (N, m) each."""
        known = self.infer(profile, axes)
        if "slopes" not in self._last:
            out = mixture(known.points).map(known.by_output)
            output, line, own = self._per_output(profile, axes)
            self._last["slopes"] = out.put(output, line, mixture(own)) if output.size else out
        slopes: Slopes = self._last["slopes"]
        return slopes

    def variances(self, profile: FunctionProfile, axes: AxisState) -> Array:
        """Variances (N, m) of the slopes."""
        known = self.infer(profile, axes)
        out = known.by_output(variances(known.points).T)
        output, line, own = self._per_output(profile, axes)
        if output.size:
            out[output, line] = variances(own)[:, 0]
        return out

    def _per_output(
        self, profile: FunctionProfile, axes: AxisState
    ) -> tuple[Index, Index, Posterior]:
        """Output and line (K,) of entries that contradict their input, and what each knows alone.

        The outputs of an input share the length at which it bends. One that does not bend there,
        or earlier than the terms of the model reach, or whose pairs were hit by an outlier, has a
        posterior of its own: its own pairs choose between curvature and noise.
        """
        known = self.infer(profile, axes).pooled
        each = np.broadcast_to(profile.prior, (self.log.batch, profile.prior.shape[-1]))
        prior = (1 - OPEN) * each + OPEN * self.states.prior(JITTER)
        reach = reach_of_fit(known)
        line, output = np.nonzero(self.inconsistent(profile, axes) | np.isfinite(reach))
        own = known.differences.of_entries(line, output).within(reach[line, output])
        noise, slope = known.noise[output][:, None], known.slope[line, output][:, None]
        weights = prior[output // (self.log.f0.size // self.log.batch)]
        weights[axes.narrow[line]] = self.states.prior(JITTER, narrow=True)
        alone = Posterior(own, self.states, weights, slope, noise)
        return output, line, alone.updated().with_curvature() if line.size else alone


def _scale_of_slopes(mean: Array, view: CentralDifferences, profile: FunctionProfile) -> Array:
    """b: the slope, the pilot's where there is none yet, and no less than its noise shows."""
    known = np.isfinite(view.slope).any(axis=1)
    square = np.where(known, np.square(mean), np.square(profile.slope))
    return np.ascontiguousarray(np.sqrt(square + 1e-4 * np.square(profile.noise)))
