"""The options of ``jacobian`` and its kin: name, type, default and meaning of each, here only."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypedDict

from gradiator_np._checks import UNBOUNDED
from gradiator_np._evaluate import Run
from gradiator_np._samples import Samples
from gradiator_np._signatures import F, shows


class DesignOptions(TypedDict, total=False):
    """Options that say how it is estimated.

    method : str or design
        "auto" (default) finds the noise of each output and chooses steps from noise and
        curvature: 2 m + 9 evaluations for a smooth deterministic function of m inputs, at most
        5 m + 10 for others, some more where noise hides what an input does at steps of its own
        size; runs that fail by chance are repeated beyond that. "2-point",
        "3-point", "5-point", "7-point" or "9-point": stencils of order 1, 2, 4, 6, 8, as many
        evaluations for each input, and one at x. "cs": complex step, exact to rounding for
        analytic functions; one run more tells others.
        Or a design, such as ``designs.Hadamard(step=...)``.
    rel_step : scalar or like x, optional
        Steps relative to |x|, or to ``x_scale`` where it is given; a negative one steps back.
        Steps turn "auto" into "3-point".
    abs_step : scalar or like x, optional
        Steps in units of x; wins over ``rel_step``.
    x_scale : scalar or like x, optional
        Typical size of each input; by default |x|, and where x is 0 the median of the others.
    bounds : pair of (scalar or like x), or scipy.optimize.Bounds
        No evaluation outside. Inputs with equal bounds are fixed: not moved, ``stderr`` inf.
    noise : scalar or like y, optional
        Standard deviation of one evaluation, where it is known; 0 for none. By default "auto" finds
        it, and stencils read it from their own values: digits of printed outputs, and, from
        "3-point" on, their highest difference, which is far above the noise of a smooth function
        for "3-point". "2-point" has no ``stderr`` unless outputs are printed.
    max_nfev : int, optional
        Evaluations that "auto" may use, that at x included.
    atol, rtol : float, or like jac (atol; like x for a VJP), optional
        Wanted standard error: absolute, in y per x, and relative to the norm of each row of J.
        "auto" goes on until both are met.
    min_step, max_step : scalar or like x, optional
        Limits of the steps of "auto", in units of x: a program that is rough below a scale, a rig
        that may be moved by so much and no more.
    solver : str or Solver, optional
        Solve the samples by "pinv", "huber", "spectral", "rank-one", "taylor" or an object with
        options, as in ``fit_points``, in place of the method's own weights. Not with "auto" without
        given steps. A ridge is relative to the squared displacements of each input; an answer that
        contradicts the method's own is told (status "lack_of_fit").
    batch_dims : int
        So many leading axes of x and y are independent points, all perturbed at once.
    on_error : {"adapt", "drop", "raise"}
        What to do where a run raises or returns nan: replace the point by another (default),
        go on without it, or stop. With the first two outputs fail one by one, and ``stderr`` is
        inf where a direction was lost.
    rng : None, int or numpy.random.Generator
        For what is drawn at random. None stands for seed 0: the same call gives the same answer,
        and so does an int; a Generator goes on from where it is.
    """

    method: Annotated[Any, "auto"]
    rel_step: Annotated[Any, None]
    abs_step: Annotated[Any, None]
    x_scale: Annotated[Any, None]
    bounds: Annotated[Any, UNBOUNDED]
    noise: Annotated[Any, None]
    max_nfev: Annotated[int | None, None]
    atol: Annotated[Any, None]
    rtol: Annotated[float | None, None]
    min_step: Annotated[Any, None]
    max_step: Annotated[Any, None]
    solver: Annotated[Any, None]
    batch_dims: Annotated[int, 0]
    on_error: Annotated[str, "adapt"]
    rng: Annotated[Any, None]


class PriorOptions(TypedDict, total=False):
    """Options that say what is known before.

    f0 : array_like or dict, optional
        ``fun(x)``, where it is known: saves one evaluation.
    jac0 : like jac, optional
        The solver's prior Jacobian.
    """

    f0: Annotated[Any, None]
    jac0: Annotated[Any, None]


class ArgumentOptions(TypedDict, total=False):
    """Options that ``fun`` is called with.

    args, kwargs : tuple, dict
        Passed on to ``fun``.
    """

    args: Annotated[tuple[Any, ...], ()]
    kwargs: Annotated[Mapping[str, Any] | None, None]


class WorkerOptions(TypedDict, total=False):
    """Options that say who runs ``fun``.

    workers : int, callable or concurrent.futures.Executor
        1: a plain loop. Another int: processes (-1: one for each core). A map-like callable.
        An executor, of threads where ``fun`` releases the GIL. Results are the same bit for bit.
        Not used with ``vectorized``, where one call takes all points.
    vectorized : bool
        ``fun`` takes points (k, *x.shape) and returns (k, *y.shape). (SciPy's are columns.)
    run : Run, optional
        How to run: progress.
    """

    workers: Annotated[Any, 1]
    vectorized: Annotated[bool, False]
    run: Annotated[Run | None, None]


class FitOptions(TypedDict, total=False):
    """Options of a fit to residuals.

    bounds : (lower, upper) or scipy.optimize.Bounds
        Each a scalar or of the shape of x. No point outside of them is ever asked for.
    x_scale : like x, optional
        Unit of each parameter: it is first moved by 0.2 of it, and what is given is believed. By
        default |x0|; where that is 0, the median of the others, or 1. Where the first runs show
        that to be wrong by far, a few more along the parameter find another, which the message
        names.
    constraints : scipy.optimize.LinearConstraint, or sequence of them, optional
        ``lb <= A x <= ub``, by flat x; equalities where both are the same, which also tie
        parameters to each other. x0 must hold them, and no point that breaks them is asked for.
    fixed : bool or like x, optional
        True where a parameter stays at its value in x0: it is taken for known.
    sigma : float or array, optional
        Standard deviations of the data, in units of the residuals, which are divided by them; an
        array of the shape of the residuals where they differ.
    absolute_sigma : bool, optional
        Whether ``sigma`` (1 where there is none) are the errors of the data themselves. False, the
        default without a prior: only their ratios count, and standard errors are scaled so that
        the reduced chi-squared is 1, as in `scipy.optimize.curve_fit`.
    loss : {"linear", "soft_l1", "huber", "cauchy"}
        As in `scipy.optimize.least_squares`: how much a large residual counts. All but "linear"
        bear a few wrong data.
    f_scale : float
        Where ``loss`` turns from squares, in units of ``sigma``: two or three where that is the
        error of the data.
    prior_mean, prior_std : like x, optional
        What is known of parameters before, with its standard deviation (inf for nothing): counts
        as data and costs no runs. Needs ``sigma`` (1.0 where residuals are in units of it). Mean 0
        and one standard deviation for all is Tikhonov's regularisation.
    prior_cov : array_like, shape (m, m), optional
        Covariance of what is known before, in place of ``prior_std``.
    run_noise : float or array, optional
        Repeatability of the program, where it is known: the standard deviation of one residual
        between runs at one and the same x, not the error of the data (that is ``sigma``); an
        array, of the shape of the residuals, where they differ. By default it is found.
    x_half_width, x_rel_half_width : like x, optional
        Go on until what the noise of the runs leaves open, as the half width of every parameter's
        95 % interval, is at most ``x_half_width + x_rel_half_width |x|``, with runs where they
        determine most. inf where any width will do.
    ftol, xtol, gtol : float or None, optional
        Tolerances, as SciPy's; None: not by that. ``ftol`` (1e-8) ends the search: no run may be
        expected to lower ``cost`` by more than ``ftol`` of it, beyond what noise hides. Where runs
        have no noise J is made afresh then, by a run along each parameter, and Gauss-Newton steps
        follow until they change each parameter by less than ``xtol (xtol + |x|)`` (1e-8), or the
        residuals are orthogonal to each column of J to ``gtol`` (1e-8; the cosine of MINPACK and of
        SciPy's "lm", which no unit changes), or rounding ends them.
    max_nfev : int, optional
        Runs that may be made; default 100 (m + 1).
    samples : Samples, optional
        Earlier runs: they are used and not paid again.
    jac0 : array_like or sparse array, shape (n, m), optional
        An earlier Jacobian at x0, in residual per x: it takes the place of the first m runs. With
        ``jacobian(fun, x0, sparsity=...).jac`` as many runs as its pattern has colours do.
    rng : None, int or numpy.random.Generator
        On which side of the centre the few runs next to it lie, which tell noise from curvature.
        None stands for seed 0, so that a call can be repeated.
    """

    bounds: Annotated[Any, UNBOUNDED]
    x_scale: Annotated[Any, None]
    constraints: Annotated[Any, ()]
    fixed: Annotated[Any, False]
    sigma: Annotated[Any, None]
    absolute_sigma: Annotated[bool | None, None]
    loss: Annotated[str, "linear"]
    f_scale: Annotated[float, 1.0]
    prior_mean: Annotated[Any, None]
    prior_std: Annotated[Any, None]
    prior_cov: Annotated[Any, None]
    run_noise: Annotated[Any, None]
    x_half_width: Annotated[Any, None]
    x_rel_half_width: Annotated[Any, None]
    ftol: Annotated[float | None, 1e-8]
    xtol: Annotated[float | None, 1e-8]
    gtol: Annotated[float | None, 1e-8]
    max_nfev: Annotated[int | None, None]
    samples: Annotated[Samples | None, None]
    jac0: Annotated[Any, None]
    rng: Annotated[Any, None]


class SecondDerivativeOptions(TypedDict, total=False):
    """Options of second derivatives.

    jac : callable, optional
        The gradient of ``fun``, of the shape of x (the Jacobian, y.shape + x.shape, of a function
        with several outputs): it is run in place of ``fun``, 2 m + 9 times of a smooth one, and
        its derivatives are made symmetric. ``workers`` and the like hold for it.
    x_scale : scalar or like x, optional
        Typical size of each input; by default |x|, and where x is 0 the median of the others.
    bounds : pair of (scalar or like x), or scipy.optimize.Bounds
        No evaluation outside. Inputs with equal bounds are fixed: ``stderr`` inf.
    noise : scalar or like y, optional
        Standard deviation of one evaluation, where it is known; 0 for none. By default six runs
        next to x tell it.
    max_nfev : int, optional
        Evaluations that may be used, that at x included. Where they allow less than several sizes
        of each second difference, one size is taken; (m + 1) (m + 2) / 2 + 9 is the least for a
        Hessian.
    samples : JacobianEstimate or Samples, optional
        Earlier runs: pairs along inputs that have the right size are not run again, nor, of an
        estimate, the value at x.
    f0 : array_like or dict, optional
        ``fun(x)``, where it is known: saves one evaluation.
    on_error : {"adapt", "drop", "raise"}
        What to do where a run raises or returns nan: take other sizes (default), go on without it,
        or stop. ``stderr`` is inf where an entry was lost.
    rng : None, int or numpy.random.Generator
        For what is drawn at random. None stands for seed 0.
    """

    jac: Annotated[Any, None]
    x_scale: Annotated[Any, None]
    bounds: Annotated[Any, UNBOUNDED]
    noise: Annotated[Any, None]
    max_nfev: Annotated[int | None, None]
    samples: Annotated[Any, None]
    f0: Annotated[Any, None]
    on_error: Annotated[str, "adapt"]
    rng: Annotated[Any, None]


class SparsityOptions(TypedDict, total=False):
    """The option of functions of which each output reads few inputs.

    sparsity : pattern or sparsity.Coloring, optional
        Which outputs read which inputs, shape (n, m) of flat y and x, as in ``jacobian``: a VJP
        then takes as many evaluations as the pattern has colours. Several inputs, or outputs, lie
        one after the other in the flat ones.
    """

    sparsity: Annotated[Any, None]


class SeedOptions(TypedDict, total=False):
    """The option of random simulators.

    seed_arg : str, optional
        For random simulators: the name of the argument of ``fun`` that takes a seed (an int; a
        Generator where its name is rng), all of them derived from ``rng``. Both ends of a
        difference get the same (common random numbers), so noise that does not depend on x
        cancels. "auto" then runs antithetic pairs, each with a seed of its own, whose scatter
        tells what does not cancel.
    """

    seed_arg: Annotated[str | None, None]


#: The pieces, in the order in which they are shown.
PIECES = (
    DesignOptions, SecondDerivativeOptions, PriorOptions, FitOptions, ArgumentOptions,
    WorkerOptions, SeedOptions, SparsityOptions,
)  # fmt: skip


class EstimatorOptions(DesignOptions, PriorOptions, total=False):
    """What ``JacobianEstimator`` takes beside x."""


class RunOptions(ArgumentOptions, WorkerOptions, total=False):
    """What an evaluator takes beside fun."""


class Options(EstimatorOptions, RunOptions, SeedOptions, total=False):
    """What ``jacobian`` takes beside fun and x."""


class GradiatorOptions(DesignOptions, WorkerOptions, SparsityOptions, total=False):
    """What ``gradiator`` takes for what it has to estimate, at points that are its own affair."""


class DerivativeOptions(TypedDict, total=False):
    """What ``gradiator`` takes beside ``fun``, ``grad_fun`` and what is for estimates."""

    jvp_fun: Annotated[Callable[..., Any] | None, None]
    jac_fun: Annotated[Callable[..., Any] | None, None]
    argnums: Annotated[int | tuple[int, ...] | None, None]
    context: Annotated[bool, False]
    reuse: Annotated[Any, False]


class AdapterOptions(DerivativeOptions, GradiatorOptions, total=False):
    """What ``gradiator`` of a framework takes beside its own."""


class ProbeOptions(RunOptions, total=False):
    """What functions that look at noise and steps take beside their own."""

    x_scale: Annotated[Any, None]
    bounds: Annotated[Any, UNBOUNDED]


class HessianOptions(SecondDerivativeOptions, RunOptions, total=False):
    """What ``hessian`` and its kin take beside fun and x."""


class LeastSquaresOptions(FitOptions, RunOptions, total=False):
    """What ``least_squares`` takes beside its own."""


def takes(kind: type) -> Callable[[F], F]:
    """Show the options of one kind where a function or a class says ``**options``."""
    return shows(kind, *PIECES)
