"""Graphs of functions against closed forms, dense algebra, and the count of evaluations."""

import numpy as np
import pytest

from gradiator_np import Graph, gradiator

EPS = np.finfo(float).eps


def layer(x, w):
    return np.tanh(w @ x)


def layer_vjp(x, v):
    x, w = x
    inside = v * (1 - np.tanh(w @ x) ** 2)
    return w.T @ inside, np.outer(inside, x)


def layer_jvp(x, u):
    (x, w), (dx, dw) = x, u
    return (1 - np.tanh(w @ x) ** 2) * (w @ dx + dw @ x)


EXACT = gradiator(layer, layer_vjp, jvp_fun=layer_jvp)


def two_layers(f=EXACT):
    return Graph({"h": (f, "x", "w1"), "y": (f, "h", "w2")})


def point(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=3), rng.normal(size=(4, 3)), rng.normal(size=(2, 4)), rng.normal(size=2)


def test_weights_of_layers_get_their_gradients_in_one_sweep():
    x, w1, w2, v = point()
    net = two_layers(gradiator(layer, layer_vjp, jvp_fun=layer_jvp))
    by_x, by_w1, by_w2 = net.vjp((x, w1, w2), v)
    h = layer(x, w1)
    into_h, want_w2 = layer_vjp((h, w2), v)
    want_x, want_w1 = layer_vjp((x, w1), into_h)
    np.testing.assert_array_equal(by_w2, want_w2)
    np.testing.assert_array_equal(by_w1, want_w1)
    np.testing.assert_array_equal(by_x, want_x)
    # Two runs and two pullbacks: one function serves both layers.
    assert net.nfev == 2
    assert net.nodes["h"].function.counts.grad == 2


def test_only_what_is_wanted_is_estimated():
    x, w1, w2, v = point()
    net = Graph({"h": (layer, "x", "w1"), "y": (layer, "h", "w2")}, method="3-point")
    exact = two_layers().vjp((x, w1, w2), v)
    got = net.vjp((x, w1, w2), v, "w2")
    # Steps of eps^(1/3): truncation and rounding of 1e-10, times third derivatives and |v|.
    np.testing.assert_allclose(got, exact[2], atol=1e-7)
    assert net.nfev == 2 + 2 * w2.size  # the graph once, the second layer by its weights
    got = net.vjp((x, w1, w2), v, ["w1"])
    np.testing.assert_allclose(got[0], exact[1], atol=1e-7)
    assert net.nfev == 2 + 2 * (w2.size + w1.size + 4)  # and the second one by its state


def test_results_that_several_receive_collect_their_cotangents():
    """y = a (x + sin x) + x * x, x in four places."""
    graph = Graph(
        {
            "s": (np.sin, "x"),
            "sum": (np.add, "x", "s"),
            "scaled": (np.multiply, "a", "sum"),
            "square": (np.multiply, "x", "x"),
            "y": (np.add, "scaled", "square"),
        }
    )
    x, a, v = np.array([0.3, -1.2]), np.array([2.0, 0.5]), np.array([1.0, -0.7])
    assert graph.inputs == ("x", "a")
    by_x, by_a = graph.vjp((x, a), v)
    # The default's errors on smooth functions of one or two inputs: 1e-10 and below.
    np.testing.assert_allclose(by_x, v * (a * (1 + np.cos(x)) + 2 * x), rtol=1e-8)
    np.testing.assert_allclose(by_a, v * (x + np.sin(x)), rtol=1e-8)
    u = np.array([0.4, 0.9])
    got = graph.jvp({"x": x, "a": a}, {"x": u})
    np.testing.assert_allclose(got, (a * (1 + np.cos(x)) + 2 * x) * u, rtol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_random_graphs_of_matrices_are_sums_over_paths(seed):
    rng = np.random.default_rng(seed)
    sizes, nodes, dense = {"x": 3, "z": 2}, {}, {"x": {"x": np.eye(3)}, "z": {"z": np.eye(2)}}
    names = ["x", "z"]
    for i in range(6):
        args = [str(a) for a in rng.choice(names, 2)] + [names[-1]] if i else ["x", "z"]
        n = int(rng.integers(1, 5))
        matrices = [rng.normal(size=(n, sizes[a])) for a in args]

        def fun(*x, matrices=matrices):
            return sum(a @ b for a, b in zip(matrices, x))

        def grad(x, v, matrices=matrices):
            return tuple(a.T @ v for a in matrices)

        name = f"n{i}"
        jvp = lambda x, u, f=fun: f(*u)  # noqa: E731
        nodes[name] = (gradiator(fun, grad, jvp_fun=jvp), *args)
        sizes[name] = n
        dense[name] = {
            source: sum(
                m @ dense[a].get(source, np.zeros((sizes[a], sizes[source])))
                for m, a in zip(matrices, args)
            )
            for source in ("x", "z")
        }
        names.append(name)
    # Each node receives the one before it, so that none is idle. Any order of naming will do.
    order = list(nodes)
    graph = Graph({name: nodes[name] for name in rng.permutation(order)}, output=order[-1])
    values = {"x": rng.normal(size=3), "z": rng.normal(size=2)}
    inputs = tuple(values[name] for name in graph.inputs)
    v = rng.normal(size=sizes[order[-1]])
    got = graph.vjp(inputs, v)
    total = 0.0
    for name, part in zip(graph.inputs, got):
        want = v @ dense[order[-1]][name]
        # Sums over up to 3^6 paths of products of six matrices.
        scale = 1e4 * EPS * np.abs(want).max() + 1e-12
        np.testing.assert_allclose(part, want, atol=max(scale, 1e-10 * np.abs(want).max()))
        total += part @ values[name]
    # Linear: v . f(x) = (v^T J) x, and J u with u = x.
    np.testing.assert_allclose(total, v @ graph(*inputs), rtol=1e-9)
    np.testing.assert_allclose(graph.jvp(inputs, inputs), graph(*inputs), rtol=1e-12)


def test_an_input_without_influence_on_a_wanted_path_has_gradient_zero():
    graph = Graph({"y": (lambda x, k: x * 2.0, "x", "k")}, method="2-point")
    by_x, by_k = graph.vjp(([1.0, 2.0], [3.0]), [1.0, 1.0])
    np.testing.assert_allclose(by_x, [2.0, 2.0], rtol=1e-7)
    assert by_k.tolist() == [0.0]


def test_dicts_travel_between_nodes_and_tuples_are_told():
    graph = Graph(
        {
            "d": (lambda x: {"sum": x + x**2, "x": x}, "x"),
            "y": (lambda d: d["sum"] * d["x"], "d"),
        }
    )
    with pytest.raises(ValueError, match="returned a tuple of 2"):
        Graph({"pair": (lambda x: (x, x), "x"), "y": (np.add, "pair", "x")})(np.ones(2))
    x = np.array([0.5, 2.0])
    np.testing.assert_allclose(graph(x), x**2 + x**3)
    np.testing.assert_allclose(graph.vjp(x, np.ones(2)), 2 * x + 3 * x**2, rtol=1e-7)


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_batches_of_points_are_those_points(several):
    """Through two nodes, with an input beside; and several cotangents and tangents at once."""

    def bend(x):
        return np.sin(x)[..., :2] * x[..., 1:]

    rng = np.random.default_rng(0)
    nodes = {"h": (bend, "x"), "y": (np.multiply, "h", "w")}
    x, w = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    lead = (5,) if several else ()
    v, u = rng.normal(size=(*lead, 4, 2)), rng.normal(size=(*lead, 4, 3))
    together = Graph(nodes, method="3-point", batch_dims=1).linearize(x, w)
    alone = [Graph(nodes, method="3-point").linearize(*row) for row in zip(x, w)]
    # Central differences of the same numbers; steps of a batch may be longer than |x| at a point.
    near = {"rtol": 0, "atol": 1e-7}
    for got, want in zip(
        together.pullback(v),
        zip(*(p.pullback(v[..., i, :]) for i, p in enumerate(alone))),
    ):
        np.testing.assert_allclose(got, np.stack(want, axis=-2), **near)
    pushed = [p.pushforward({"x": u[..., i, :]}) for i, p in enumerate(alone)]
    np.testing.assert_allclose(together.pushforward({"x": u}), np.stack(pushed, -2), **near)
    with pytest.raises(ValueError, match="take one of the batch"):
        _ = together.shape


def test_as_gradiator_has_both_products():
    x, w1, w2, v = point()
    f = two_layers().as_gradiator()
    for got, want in zip(f.vjp((x, w1, w2), v), two_layers().vjp((x, w1, w2), v)):
        np.testing.assert_array_equal(got, want)
    alone = Graph({"y": (gradiator(np.sin, lambda x, v: v * np.cos(x)), "x")}).as_gradiator()
    np.testing.assert_array_equal(alone.vjp(x, np.ones(3)), np.cos(x))
    np.testing.assert_allclose(alone.jvp(x, np.ones(3)), np.cos(x), rtol=1e-8)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Graph({}), "one at least"),
        (lambda: Graph({"y": np.sin}), "must be"),
        (lambda: Graph({"y": (np.sin, 3.0)}), "must be names"),
        (lambda: Graph({"y": (np.sin, "x")}, output="z"), "is no node"),
        (lambda: Graph({"a": (np.sin, "x"), "y": (np.sin, "x")}), "does not depend on"),
        (lambda: Graph({"a": (np.sin, "y"), "y": (np.add, "a", "x")}), "wait for each other"),
        (lambda: Graph({"a": (np.sin, "y"), "y": (np.sin, "a")}), "wait for each other|no node"),
        (lambda: two_layers()(np.ones(3)), "are missing"),
        (lambda: two_layers()(*point()), "has 3"),
        (lambda: two_layers()(np.ones(3), x=np.ones(3)), "twice"),
        (lambda: two_layers()(*point()[:3], w3=1.0), "as well"),
        (lambda: two_layers().vjp(point()[:3], np.ones(2), "h"), "are no inputs"),
        (lambda: two_layers().vjp(point()[:3], np.ones(3)), "v"),
        (lambda: two_layers().jvp(point()[:3], (np.ones(3),)), "tangents"),
    ],
)
def test_bad_input_is_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()
