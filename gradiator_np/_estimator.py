"""Ask and tell: somebody else runs the points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, Unpack, cast, overload

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._engine import X_ITSELF, Engine
from gradiator_np._evaluate import output
from gradiator_np._options import EstimatorOptions, takes
from gradiator_np._results import JacobianEstimate
from gradiator_np._samples import Samples
from gradiator_np._settings import Settings
from gradiator_np._signatures import complete
from gradiator_np._structure import Layout
from gradiator_np.designs._complex_step import ComplexStep

if TYPE_CHECKING:
    from gradiator_np._compressed import Compression, SparseJacobianEstimate


E = TypeVar("E", bound="JacobianEstimate | SparseJacobianEstimate")


@takes(EstimatorOptions)
class JacobianEstimator(Generic[E]):
    """Estimate a Jacobian from points that somebody else runs: a cluster, a lab, a rig.

    ``ask`` says which points to run, ``tell`` takes their outputs in any order and in parts,
    ``estimate`` gives the Jacobian at any time. ``jacobian`` is a loop around the same machine.

    Parameters
    ----------
    x : array_like or dict
        The point at which the Jacobian is wanted.
    sparsity : pattern or sparsity.Coloring, optional
        As in ``jacobian``, but no runs are made to compare it with; of indices (rows, cols) only
        with f0, which tells the number of outputs.
    common_seeds : bool
        Whether the runs get the seeds of ``streams(ids)``, so that both ends of a difference
        share one.
    **options : Options

    Examples
    --------
    Ask until nothing more is wanted; the first round may be a single point.

    >>> from gradiator_np import JacobianEstimator
    >>> estimator = JacobianEstimator([1.0, 2.0])
    >>> while True:
    ...     points, ids = estimator.ask()
    ...     if len(ids) == 0:
    ...         break
    ...     estimator.tell([[x[0] * x[1]] for x in points], ids)
    >>> estimator.estimate().jac.round(6)
    array([[2., 1.]])
    """

    @overload
    def __init__(
        self: JacobianEstimator[JacobianEstimate], x: Any, *, sparsity: None = None,
        common_seeds: bool = False, **options: Unpack[EstimatorOptions],
    ) -> None: ...  # fmt: skip

    @overload
    def __init__(
        self: JacobianEstimator[SparseJacobianEstimate], x: Any, *, sparsity: object,
        common_seeds: bool = False, **options: Unpack[EstimatorOptions],
    ) -> None: ...  # fmt: skip

    def __init__(
        self, x: Any, *, sparsity: Any = None, common_seeds: bool = False,
        **options: Unpack[EstimatorOptions],
    ) -> None:  # fmt: skip
        known = complete(options, EstimatorOptions)
        point = checks.point(x, known["batch_dims"])
        self._layout = point.layout
        self._method = known["method"]
        settings = Settings.of(point, known, common_seeds)
        self._kind: _Kind | None = None  # of values that were told
        if known["f0"] is not None:
            self._kind = _Kind.of(known["f0"], known["batch_dims"])
        self._compression: Compression | None = None
        if sparsity is not None:
            from gradiator_np._compressed import Compression, coloring_of

            n = None if self._kind is None else self._kind.layout.size
            coloring = coloring_of(sparsity, n, point.layout.size)
            self._compression, settings = Compression.of(point, known, coloring, common_seeds)
            point = self._compression.point
        self._engine = Engine(point, settings)
        if self._kind is not None:
            kind = self._kind
            self._engine.expect(kind.layout, kind.precision)
            self._engine.tell(kind.flat[None].copy(), X_ITSELF, run=False)

    def __repr__(self) -> str:
        engine, shapes = self._engine, self._layout.shapes
        method = self._method if isinstance(self._method, str) else type(self._method).__name__
        return (
            f"JacobianEstimator(x of shape {shapes}, method {method}: {engine.nfev} points told, "
            f"{len(engine.pending())} pending)"
        )

    @property
    def nfev(self) -> int:
        """Points told so far, failed ones included."""
        return self._engine.nfev

    @property
    def n_failed(self) -> int:
        """Those that failed in some output."""
        return self._engine.n_failed

    @property
    def samples(self) -> Samples:
        """Every run so far, x first where its value is known."""
        found = self._engine.samples
        return found if self._compression is None else self._compression.samples(found)

    def ask(self) -> tuple[Any, NDArray[np.intp]]:
        """Points to run.

        Returns
        -------
        points : array, shape (k, *x.shape), or dict of such arrays
            Asking again before telling gives the same points.
        ids : array of int, shape (k,)
            Their names, for ``tell``; empty where nothing more is wanted.
        """
        flat, ids = self._engine.ask()
        if self._compression is not None:
            flat = self._compression(flat)
        return self._layout.unflatten(flat), ids

    def streams(self, ids: Sequence[int] | NDArray[np.intp]) -> NDArray[np.intp]:
        """Random stream of each point, where ``common_seeds`` says so; 0 is that of x.

        Runs of one stream are to get the same seed.
        """
        ids = checks.whole(ids, "ids").reshape(-1)
        asked = self._engine.told + len(self._engine.pending())
        if len(ids) and not 0 <= ids.min() <= ids.max() <= asked:
            raise ValueError(f"ids {ids[:5].tolist()} are not those of points that were asked for")
        return self._engine.streams(ids)

    def tell(
        self,
        outputs: Any,
        ids: Sequence[int] | NDArray[np.intp] | None = None,
        points: Any = None,
        errors: Mapping[int, str] | None = None,
    ) -> None:
        """Take outputs back.

        Parameters
        ----------
        outputs : array_like, shape (k, *y.shape), or a sequence of k values
            None or nan marks a failed run, or failed outputs of a run. For x and y as dicts also
            a dict of arrays.
        ids : sequence of int, optional
            Which points these are; by default all that are pending, in the order of ``ask``.
        points : array_like, shape (k, *x.shape), optional
            The points that were really reached, where they differ from those asked for.
        errors : dict of int to str, optional
            Why runs failed, by id; their outputs are ignored.

        Raises
        ------
        ValueError
            For unknown ids, ids told before, or outputs of another shape; nothing is taken then.
        """
        ids, rows = checks.told(outputs, ids, errors, self._engine.pending())
        reached = None if points is None else self._reached(points, ids)
        kind = self._kind or self._learn(rows)
        if self._compression is not None:
            self._compression.expect(kind.layout)
        values = self._flat(rows, ids, kind)
        self._kind = kind
        self._engine.expect(kind.layout, kind.precision)
        order = np.argsort(ids)
        self._engine.tell(
            values[order], ids[order], errors, None if reached is None else reached[order]
        )

    def _reached(self, points: Any, ids: NDArray[np.intp]) -> NDArray[Any]:
        """Points that were really run, (k, B, m)."""
        layout = self._layout
        if self._compression is not None:
            raise ValueError(
                "with sparsity inputs move together, and a point that was missed tells of none of "
                "them: leave points out, or sparsity"
            )
        flat, lead = checks.direction(points, layout, "points")
        if lead != 1 or len(flat) != len(ids):
            raise ValueError(
                f"points must have {len(ids)} rows, one for each id, got {np.shape(points)}"
            )
        if not np.isfinite(flat).all():
            raise ValueError(
                "points that were reached must be finite; mark failed runs by None in outputs"
            )
        if flat.dtype.kind == "c":
            raise TypeError("points that were reached must be real, got complex numbers")
        reached = flat.reshape(len(ids), -1, layout.size)
        if (reached[ids == 0] != self._engine.x).any():
            raise ValueError("x itself was missed: estimate around the point that was reached")
        return reached

    def _learn(self, rows: list[Any]) -> _Kind:
        """What values are like, from the first that is one."""
        value = next((row for row in rows if row is not None), None)
        if value is None:
            raise ValueError(
                "every run of the first tell failed: the shape of y is not known yet; tell at "
                "least one that succeeded with them"
            )
        return _Kind.of(value, len(self._layout.batch))

    def _flat(self, rows: list[Any], ids: NDArray[np.intp], kind: _Kind) -> NDArray[Any]:
        """Values (k, *batch, n), nan where a run failed."""
        layout = kind.layout
        may_be_complex = kind.flat.dtype.kind == "c" or isinstance(
            self._engine.settings.design, ComplexStep
        )
        flats: list[NDArray[Any]] = []
        for i, row in zip(ids, rows):
            if row is None:
                flats.append(np.full((*layout.batch, layout.size), np.nan))
                continue
            same = layout.same(row)
            _, flat = output(layout.arrange(row) if same else row, len(layout.batch))
            if not same:
                raise ValueError(
                    f"the output of id {i} has shape {np.shape(row)}, earlier ones had "
                    f"{layout.shapes}; nothing of this tell was taken"
                )
            if flat.dtype.kind == "c" and not may_be_complex:
                raise TypeError(f"the output of id {i} is complex, earlier ones were real")
            flats.append(flat)
        return np.stack(flats)

    def estimate(self) -> E:
        """The Jacobian from what has been told so far.

        Raises
        ------
        ValueError
            Before the first output was told: not even the shape of y is known.
        """
        found = self._engine.estimate()
        if self._compression is None:
            return cast(E, found)
        from gradiator_np._compressed import sparse_estimate

        return cast(E, sparse_estimate(self._compression, found))


class _Kind(NamedTuple):
    """What values of fun are like, learned from the first."""

    layout: Layout
    flat: NDArray[Any]
    precision: float

    @classmethod
    def of(cls, value: Any, batch_dims: int) -> _Kind:
        """The kind of one value."""
        return cls(*output(value, batch_dims), checks.precision(value))
