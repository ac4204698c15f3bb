"""Functions of functions: branches, sums, and layers with weights, differentiated in one sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple, Unpack

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._differentiable.function import Gradiator
from gradiator_np._differentiable.inputs import name_of, own, plus, same_inputs, tree
from gradiator_np._differentiable.point import DifferentiablePoint
from gradiator_np._operators import PointOperator
from gradiator_np._options import GradiatorOptions, takes
from gradiator_np._structure import Layout


class Node(NamedTuple):
    """A function of the graph, and the names of what it receives."""

    function: Gradiator
    args: tuple[str, ...]


@takes(GradiatorOptions)
class Graph:
    """Functions that receive the results of others, differentiated in one sweep.

    A layer receives its weights beside the state, a sum the results of several branches; the
    gradients by all of them come at one pullback a function.

    Parameters
    ----------
    nodes : mapping of str to tuple
        ``{"h": (layer, "x", "w1"), "y": (layer, "h", "w2")}``: a name for each result, with the
        function (plain, or a ``Gradiator`` with derivatives) and the names of its arguments.
        Names that no node has are inputs, in the order in which they are met.
    output : str, optional
        The node whose result is wanted; the last one by default.
    **estimation_options
        For the derivatives of plain functions; see ``gradiator``.

    Attributes
    ----------
    inputs : tuple of str
        Names of the inputs, the order of positional ones.
    nodes : dict of str to Node
        In the order in which they are run.
    output : str

    Raises
    ------
    ValueError
        For nodes that wait for each other, an output that is none, or nodes of which the output
        does not depend.

    Notes
    -----
    Reverse accumulation over the graph (Griewank and Walther, *Evaluating Derivatives*, 2nd ed.,
    SIAM 2008, ch. 3). An estimated node of m inputs costs m + 1 evaluations or more, so arguments
    that lead back to no wanted input are held fixed. A chain without branches is better a
    ``Chain``: it also chooses the order of products, and has error bars.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import Graph
    >>> layer = lambda x, w: np.tanh(w @ x)
    >>> loss = Graph({"h": (layer, "x", "w1"), "y": (layer, "h", "w2"), "sum": (np.add, "y", "x")})
    >>> loss.inputs
    ('x', 'w1', 'w2')
    >>> x, w1, w2 = np.ones(2), np.eye(2), np.zeros((2, 2))
    >>> by_x, by_w1, by_w2 = loss.vjp((x, w1, w2), np.ones(2))
    >>> by_x.round(3), by_w2.round(3)[0]
    (array([1., 1.]), array([0.762, 0.762]))

    Second derivatives of a graph whose nodes all have derivatives are differences of its gradients:

    >>> from gradiator_np import gradiator, hessian
    >>> product = gradiator(lambda a, b: a @ b, lambda x, v: (v * x[1], v * x[0]))
    >>> found = hessian(Graph({"y": (product, "a", "b")}), {"a": np.ones(2), "b": np.ones(2)})
    >>> found.hess["a"]["b"].round(6), found.design
    (array([[1., 0.],
           [0., 1.]]), 'gradients, auto')
    """

    def __init__(
        self,
        nodes: Mapping[str, Sequence[Any]],
        output: str | None = None,
        **estimation_options: Unpack[GradiatorOptions],
    ) -> None:
        if not isinstance(nodes, Mapping) or not nodes:
            raise ValueError(
                'nodes must be a dict of name: (function, "argument", ...), one at least, '
                f"got {nodes!r:.60}"
            )
        given = {name: _node(name, node, estimation_options) for name, node in nodes.items()}
        self.output = next(reversed(given)) if output is None else output
        if self.output not in given:
            raise ValueError(f"output={output!r:.60} is no node; nodes are {list(given)}")
        needed = _ancestors(given, self.output)
        idle = [name for name in given if name not in needed]
        if idle:
            raise ValueError(
                f"{self.output!r}, the output, does not depend on {idle}; leave these out, or "
                "name the output"
            )
        named = dict.fromkeys(arg for node in given.values() for arg in node.args)
        self.inputs = tuple(name for name in named if name not in given)
        if not self.inputs:
            raise ValueError("no node has an input: every argument is the name of a node")
        self.nodes = {name: given[name] for name in _sorted(given)}
        self._latest: LinearizedGraph | None = None

    def __repr__(self) -> str:
        texts = [
            f"{n} = {name_of(f.fun)}({', '.join(args)})" for n, (f, args) in self.nodes.items()
        ]
        return f"Graph({'; '.join(texts)}: {self.nfev} evaluations so far)"

    @property
    def nfev(self) -> int:
        """Evaluations of the nodes so far, each function counted once."""
        return sum(
            f.nfev for f in {id(n.function): n.function for n in self.nodes.values()}.values()
        )

    def __call__(self, *args: Any, **by_name: Any) -> Any:
        """The output, for inputs in their order or by their names, or for one dict of all."""
        alone = len(args) == 1 and isinstance(args[0], Mapping) and not by_name
        values = self._taken(args[0]) if alone else self._values(args, by_name)
        self._latest = LinearizedGraph(self, values)
        return self._latest.value

    def linearize(self, *args: Any, **by_name: Any) -> LinearizedGraph:
        """Run the graph and keep what belongs to the point.

        Returns
        -------
        LinearizedGraph
            Unpacks to ``value, pushforward, pullback``.
        """
        return self._at(self._values(args, by_name))

    def vjp(self, x: Any, v: Any, wanted: str | Sequence[str] | None = None) -> Any:
        """v^T J for v of the shape of the output (no conjugate).

        Parameters
        ----------
        x : tuple or dict
            The inputs in their order, or by name; one that is alone may come as it is.
        v : array_like
        wanted : str or sequence of str, optional
            Inputs to differentiate by, all of them by default.

        Returns
        -------
        array, or tuple of arrays
            Of the shape of each wanted input; one alone where one name is given, or one input is
            all that there is.
        """
        return self._at(self._taken(x)).pullback(v, wanted)

    def jvp(self, x: Any, u: Any) -> Any:
        """J u, for tangents u as the inputs x: a tuple, or a dict that may leave some out."""
        return self._at(self._taken(x)).pushforward(u)

    def as_gradiator(self) -> Gradiator:
        """The same as a `Gradiator`: what the adapters for torch and JAX take."""
        alone = len(self.inputs) == 1
        return Gradiator(
            self,
            self.vjp,
            jvp_fun=lambda x, u: self.jvp(x, (u,) if alone else u),
        )

    # -- inside ----------------------------------------------------------------------------------

    def _given_jacobian(self) -> Callable[..., Any] | None:
        """The Jacobian, where the derivatives given determine it."""
        every = all(node.function._given() for node in self.nodes.values())
        return Gradiator(self, self._cotangents).jacobian if every else None

    def _cotangents(self, x: Any, v: Any) -> Any:
        """v^T J in the structure of x."""
        if isinstance(x, Mapping) and x.keys() == set(self.inputs):
            found = dict(zip(self.inputs, self.vjp(x, v, self.inputs)))
            return {name: found[name] for name in x}
        return self.vjp(x, v)

    def _at(self, values: dict[str, Any]) -> LinearizedGraph:
        latest = self._latest
        if latest is not None:
            before, now = tuple(latest.inputs.values()), tuple(values.values())
            if same_inputs(before, now):
                return latest
        self._latest = LinearizedGraph(self, values)
        return self._latest

    def _taken(self, x: Any) -> dict[str, Any]:
        """The inputs from the one argument that products take."""
        if isinstance(x, Mapping) and (len(self.inputs) > 1 or x.keys() == set(self.inputs)):
            return self._values((), x)
        return self._values(x if isinstance(x, tuple) else (x,), {})

    def _values(self, args: tuple[Any, ...], by_name: Mapping[str, Any]) -> dict[str, Any]:
        if len(args) > len(self.inputs):
            raise ValueError(
                f"{len(args)} inputs were given, but the graph has {len(self.inputs)}: "
                f"{', '.join(self.inputs)}"
            )
        given = dict(zip(self.inputs, args))
        twice, other = given.keys() & by_name.keys(), by_name.keys() - set(self.inputs)
        if twice or other:
            raise ValueError(
                f"inputs are {', '.join(self.inputs)}, each once; got {sorted(twice or other)} "
                + ("twice" if twice else "as well")
            )
        given |= by_name
        missing = [name for name in self.inputs if name not in given]
        if missing:
            raise ValueError(f"inputs {missing} are missing; give {', '.join(self.inputs)}")
        return {name: own(given[name]) for name in self.inputs}


class LinearizedGraph(PointOperator):
    """A graph at one point: ``value, pushforward, pullback``.

    SciPy takes it for a linear operator, over all inputs in their order; Jacobians of nodes that
    one product had to estimate serve the next ones.

    Attributes
    ----------
    graph : Graph
    inputs : dict
        The inputs by name.
    results : dict
        The inputs, and what each node returned.
    x_layout, y_layout : Layout
        How the inputs lie in a flat vector of m numbers, and the output in one of n.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import Graph
    >>> point = Graph({"y": (np.multiply, "a", "b")}).linearize([2.0, 3.0], [5.0, 7.0])
    >>> point.value, point.pullback([1.0, 1.0], "a").round(6)
    (array([10., 21.]), array([5., 7.]))
    """

    def __init__(self, graph: Graph, inputs: dict[str, Any]) -> None:
        self.graph, self.inputs = graph, inputs
        self.results = dict(inputs)
        self._points: dict[tuple[str, tuple[int, ...]], DifferentiablePoint] = {}
        self._runs: dict[str, DifferentiablePoint] = {}
        for name, (function, args) in graph.nodes.items():
            point = DifferentiablePoint(function, tuple(self.results[arg] for arg in args))
            if isinstance(point.value, tuple):
                raise ValueError(
                    f"node {name!r} returned a tuple of {len(point.value)}; return a dict or an "
                    "array, or make it a node for each part"
                )
            self.results[name] = point.value
            self._runs[name] = point

    def __repr__(self) -> str:
        return f"LinearizedGraph({', '.join(self.graph.inputs)} -> {self.graph.output})"

    @property
    def value(self) -> Any:
        """The output here."""
        return self.results[self.graph.output]

    def pullback(self, v: Any, wanted: str | Sequence[str] | None = None) -> Any:
        """v^T J by the inputs ``wanted``, all of them by default, for one v or several on a
        leading axis; see `Graph.vjp`."""
        graph = self.graph
        names = graph.inputs if wanted is None else wanted
        names = (names,) if isinstance(names, str) else tuple(names)
        other = [name for name in names if name not in graph.inputs]
        if other:
            raise ValueError(f"{other} are no inputs; inputs are {', '.join(graph.inputs)}")
        moving = self._moving(names)
        flat, lead = checks.direction(v, self.y_layout, "v")
        cotangents = {graph.output: self.y_layout.unflatten(flat)}
        for name in reversed(graph.nodes):
            args = graph.nodes[name].args
            where = tuple(i for i, arg in enumerate(args) if arg in moving)
            if name not in cotangents or not where:
                continue
            point = self._point(name, where)
            pulled = point.pullback(cotangents.pop(name))
            for i, part in zip(where, pulled if isinstance(point.where, tuple) else (pulled,)):
                arg = args[i]
                cotangents[arg] = plus(cotangents[arg], part) if arg in cotangents else part
        none = flat.shape[:lead]
        found = tuple(cotangents.get(name, self._nothing(name, none)) for name in names)
        alone = isinstance(wanted, str) or (wanted is None and len(names) == 1)
        return found[0] if alone else found

    def pushforward(self, u: Any) -> Any:
        """J u for tangents by name, or in the order of the inputs; those left out stay. All of them
        may have an axis more in front, for several at once."""
        graph = self.graph
        given = u if isinstance(u, Mapping) and u.keys() <= set(graph.inputs) else None
        if given is None:
            parts = u if isinstance(u, tuple) else (u,)
            if len(parts) != len(graph.inputs):
                raise ValueError(
                    f"u has {len(parts)} tangents for the inputs {', '.join(graph.inputs)}; give "
                    "one each, or a dict of some by name"
                )
            given = dict(zip(graph.inputs, parts))
        tangents = dict(given)
        for name, (_, args) in graph.nodes.items():
            where = tuple(i for i, arg in enumerate(args) if arg in tangents)
            if where:
                point = self._point(name, where)
                moved = tuple(tangents[args[i]] for i in where)
                tangents[name] = point.pushforward(
                    moved if isinstance(point.where, tuple) else moved[0]
                )
        if graph.output not in tangents:
            raise ValueError("u is empty: give a tangent for one input at least")
        return tangents[graph.output]

    def _moving(self, names: tuple[str, ...]) -> set[str]:
        """The inputs ``names`` and all nodes that depend on them."""
        moving = set(names)
        for name, (_, args) in self.graph.nodes.items():
            if moving.intersection(args):
                moving.add(name)
        return moving

    def _point(self, name: str, where: tuple[int, ...]) -> DifferentiablePoint:
        """A node here by some of its arguments; Jacobians made for one product serve the next."""
        key = name, where
        if key not in self._points:
            alone = len(self.graph.nodes[name].args) == 1
            self._points[key] = self._runs[name].again(0 if alone else where, keep=True)
        return self._points[key]

    def _nothing(self, name: str, lead: tuple[int, ...]) -> Any:
        """The cotangent of an input that the output does not depend on."""
        layout = Layout.of(tree(self.inputs[name]), self._batch_dims)
        return layout.unflatten(np.zeros((*lead, *layout.batch, layout.size)))

    # -- SciPy's operator --------------------------------------------------------------------------

    @property
    def _batch_dims(self) -> int:
        return self._runs[self.graph.output].owner.batch_dims

    @property
    def x_layout(self) -> Layout:
        """How the inputs lie in a flat vector of m numbers."""
        return Layout.of({name: tree(x) for name, x in self.inputs.items()}, self._batch_dims)

    @property
    def y_layout(self) -> Layout:
        """How the output lies in a flat vector of n numbers."""
        return self._runs[self.graph.output].y_layout

    def _layouts(self) -> tuple[Layout, Layout]:
        return self.y_layout, self.x_layout

    def _is_complex(self) -> bool:
        return any(point._is_complex() for point in self._runs.values())

    def _jvp_rows(self, tangents: NDArray[Any]) -> NDArray[Any]:
        return self.y_layout.flatten(self.pushforward(self.x_layout.unflatten(tangents)), 1)

    def _vjp_rows(self, cotangents: NDArray[Any]) -> NDArray[Any]:
        names = self.graph.inputs
        found = self.pullback(self.y_layout.unflatten(cotangents), names)
        return self.x_layout.flatten(dict(zip(names, map(tree, found))), 1)


def _node(name: str, node: Any, options: Mapping[str, Any]) -> Node:
    if isinstance(node, str) or not isinstance(node, Sequence) or len(node) < 2:
        raise ValueError(f'{name!r} must be (function, "argument", ...), got {node!r:.60}')
    function, *args = node
    if not all(isinstance(arg, str) for arg in args):
        raise ValueError(
            f"arguments of {name!r} must be names, got {args!r:.60}; constants are inputs of their "
            "own, or part of the function"
        )
    if not isinstance(function, Gradiator):
        function = Gradiator(function, options=options)
    return Node(function, tuple(args))


def _ancestors(nodes: Mapping[str, Node], output: str) -> set[str]:
    """Nodes that the output depends on, itself among them."""
    found, waiting = set(), [output]
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in found:
            found.add(name)
            waiting.extend(nodes[name].args)
    return found


def _sorted(nodes: Mapping[str, Node]) -> list[str]:
    """Names so that each node comes after those that it receives."""
    waits = {name: [arg for arg in node.args if arg in nodes] for name, node in nodes.items()}
    try:
        return list(TopologicalSorter(waits).static_order())
    except CycleError as exc:
        raise ValueError(
            f"nodes wait for each other: {' <- '.join(exc.args[1])}; a loop in time is a Recurrence"
        ) from None
