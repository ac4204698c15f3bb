"""Sparse Jacobians in solvers: Newton's method on a nonlinear plate, and a stiff reaction.

Bratu's equation, Laplace(u) + lambda exp(u) = 0 on a square, is solved by Newton's method with
``scipy.sparse.linalg.spsolve`` on a grid of 64 x 64 nodes: a Jacobian of 4096 inputs takes 5 runs
beside the residual, in which inputs of one colour move together; SciPy's ``least_squares`` takes
the same Jacobians as ``jac=``. The Brusselator, two species that react and spread in two
dimensions, is stiff: BDF and Radau take the same kind of Jacobian, where SciPy's own differences
need more runs for the same pattern.

Run ``python docs/examples/sparse_solvers.py``; it prints runs and errors, and draws
``sparse_solvers.png``: a pattern by the colours of its columns, and the solutions.
"""

from __future__ import annotations

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares
from scipy.sparse import block_array, eye_array
from scipy.sparse.linalg import spsolve

from gradiator_np import prepare
from gradiator_np.sparsity import color, grid_pattern

LAMBDA = 6.0  # 6.808 is the largest with a solution


def laplace(u: np.ndarray, rim: float | None = 0.0) -> np.ndarray:
    """Second differences of fields (..., n, n) on the unit square; rim None: nothing flows out."""
    wide = [(0, 0)] * (u.ndim - 2) + [(1, 1)] * 2
    g = np.pad(u, wide, mode="edge") if rim is None else np.pad(u, wide, constant_values=rim)
    near = g[..., 2:, 1:-1] + g[..., :-2, 1:-1] + g[..., 1:-1, 2:] + g[..., 1:-1, :-2]
    return (near - 4 * u) * (u.shape[-1] + 1) ** 2


def bratu(u: np.ndarray) -> np.ndarray:
    """Residuals of Bratu's equation at the nodes."""
    side = round(np.sqrt(u.size))
    return (laplace(u.reshape(side, side)) + LAMBDA * np.exp(u).reshape(side, side)).ravel()


def newton(side: int) -> tuple[np.ndarray, list[float], int]:
    """The solution, the norms of the residual on the way, and the runs."""
    u, norms = np.zeros(side * side), []
    with prepare(bratu, u, sparsity=grid_pattern((side, side), 5), method="2-point") as jacobian:
        while not norms or (norms[-1] > 1e-9 * norms[0] and len(norms) < 20):
            residual = bratu(u)
            norms.append(float(np.linalg.norm(residual)))
            u = u - spsolve(jacobian(u, f0=residual, x_scale=1.0).jac.tocsc(), residual)
        return u.reshape(side, side), norms, jacobian.nfev + len(norms)


def fitted(side: int) -> tuple[np.ndarray, dict[str, int]]:
    """The same solution by SciPy's least squares, and runs by our Jacobian and by its own."""
    pattern, start, runs = grid_pattern((side, side), 5), np.zeros(side * side), {}
    with prepare(bratu, start, sparsity=pattern, method="2-point", x_scale=1.0) as jacobian:
        ours = least_squares(bratu, start, jac=lambda u: jacobian(u).jac, tr_solver="lsmr")
        runs["ours"] = ours.nfev + jacobian.nfev
    counted = [0]

    def count(u: np.ndarray) -> np.ndarray:
        counted[0] += 1
        return bratu(u)

    least_squares(count, start, jac_sparsity=pattern, tr_solver="lsmr")
    return ours.x.reshape(side, side), {**runs, "SciPy": counted[0]}


def brusselator(_t: float, y: np.ndarray) -> np.ndarray:
    """Rates of two species on a square, each flat in a vector one behind the other."""
    side = round(np.sqrt(y.size / 2))
    u, v = y.reshape(2, side, side)
    spread = 2e-3 * laplace(np.stack([u, v]), rim=None)
    reaction = np.stack([1 + u * u * v - 4.4 * u, 3.4 * u - u * u * v])
    return (reaction + spread).ravel()


def react(
    side: int, until: float = 6.0, method: str = "BDF"
) -> tuple[np.ndarray, dict[str, int], float]:
    """The state in the end, runs by us and by SciPy's own differences, and how far both differ."""
    s = np.linspace(0, 1, side)
    start = np.concatenate([
        (22 * np.outer(s * (1 - s) ** 1.5, np.ones(side))).ravel(),
        (27 * np.outer(np.ones(side), s * (1 - s) ** 1.5)).ravel(),
    ])  # fmt: skip
    grid, same = grid_pattern((side, side), 5), eye_array(side * side)
    pattern = block_array([[grid, same], [same, grid]], format="csr")
    runs = {"ours": 0, "SciPy": 0}

    def counted(who: str) -> object:
        def rate(t: float, y: np.ndarray) -> np.ndarray:
            runs[who] += 1
            return brusselator(t, y)

        return rate

    options = {"method": method, "rtol": 1e-5, "atol": 1e-8}
    jacobian = prepare(lambda y: brusselator(0.0, y), start, sparsity=pattern, method="2-point",
                       x_scale=1.0)  # fmt: skip
    ours = solve_ivp(counted("ours"), (0, until), start, **options,
                     jac=lambda t, y: jacobian(y).jac.tocsc())  # fmt: skip
    runs["ours"] += jacobian.nfev
    theirs = solve_ivp(counted("SciPy"), (0, until), start, **options, jac_sparsity=pattern)
    apart = float(np.abs(ours.y[:, -1] - theirs.y[:, -1]).max())
    return ours.y[:, -1].reshape(2, side, side), runs, apart


def draw(plate: np.ndarray, species: np.ndarray) -> None:
    """A pattern by colours, and both solutions."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    pattern = grid_pattern((8, 8), 5)
    entries, groups = pattern.tocoo(), color(pattern)
    _, (one, two, three) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    rows, columns = entries.coords
    one.scatter(columns, rows, c=groups.column_colors[columns], cmap="tab10", s=9, marker="s")
    one.set(title=f"8 x 8 nodes: {groups.n_colors} colours", xlabel="input", ylabel="output",
            aspect="equal")  # fmt: skip
    one.invert_yaxis()
    for axes, field, title in ((two, plate, "Bratu"), (three, species[0], "Brusselator, u")):
        picture = axes.imshow(field, origin="lower", extent=(0, 1, 0, 1))
        axes.set_title(title)
        plt.colorbar(picture, ax=axes)
    plt.savefig(__file__.replace(".py", ".png"), dpi=80)


def main() -> None:
    plate, norms, runs = newton(64)
    print(
        f"Bratu: {len(norms)} steps, {runs} runs, residuals " + " ".join(f"{n:.1e}" for n in norms)
    )
    same, counts = fitted(32)
    print(f"Bratu by least_squares, 32 x 32: runs {counts}, largest value {same.max():.4f}")
    for method in ("Radau", "BDF"):
        species, counts, apart = react(32, method=method)
        print(f"Brusselator by {method}: runs {counts}, states differ by {apart:.1e}")
    draw(plate, species)


if __name__ == "__main__":
    main()
