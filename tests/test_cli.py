"""The command line as a user starts it: real processes, their output and their exit codes."""

import json
import subprocess
import sys

import numpy as np
import pytest

from gradiator_np import _cli as cli
from gradiator_np import _example as example
from gradiator_np import jacobian

MODEL = """
import numpy as np

print("loading")

def polynomial(x):
    print("running")
    return np.array([x[0] * x[1], x[1] ** 2, 3.0 * x[0]])

def named(p):
    return {"double": 2 * p["u"], "both": np.array([p["u"], p["v"].sum()])}

def wave(x):
    return np.sin(x)

def square(x):
    return x * x

def matrix(x):
    return x @ x.T

def many(points):
    return points * 2

def unlicensed(x):
    raise RuntimeError("no licence")

def silent(x):
    pass

def root(x):
    return np.sqrt(x)

def spiral(x):
    return np.exp(1j * x)

constant = 3.0

class model:
    simulate = staticmethod(square)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli")
    (path / "mymodel.py").write_text(MODEL)
    (path / "broken.py").write_text("import numpy\nimport a_module_that_nobody_has\n")
    np.save(path / "x.npy", np.arange(6.0).reshape(2, 3) + 1)
    return path


@pytest.fixture
def command(folder):
    """Run ``python -m gradiator_np`` in a folder that holds a model."""

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "gradiator_np", *arguments],
            cwd=folder, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    return run


@pytest.fixture
def inside(folder, monkeypatch, capsys):
    """The same in this process, which is quicker."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)

    def run(*arguments):
        code = cli.main(arguments)
        return code, *capsys.readouterr()

    return run


def strict(text):
    """JSON without the NaN and Infinity that only Python reads."""

    def refuse(name):
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def test_json_holds_the_jacobian_and_nothing_else_is_printed(command):
    """The model prints when it is imported and when it runs: that must not spoil the JSON."""
    done = command(
        "jacobian", "mymodel:polynomial", "--at", "-1,2", "--method", "3-point", "--json"
    )
    assert done.returncode == 0
    answer = strict(done.stdout)
    # 3-point is exact for degree 2 but for rounding: |y| eps / h with h ~ eps^(1/3) |x|, and
    # |y| <= 4, |x| >= 1: 4 eps^(2/3) = 1.5e-10.
    np.testing.assert_allclose(answer["jac"], [[2, -1], [0, 4], [3, 0]], rtol=0, atol=2e-10)
    assert answer["nfev"] == 5
    assert answer["x"] == [-1.0, 2.0]
    assert answer["y"] == [-2.0, 4.0, -3.0]
    assert "running" in done.stderr


def test_the_default_tells_its_error_within_the_evaluations_allowed(command):
    done = command("jacobian", "mymodel:wave", "--at", "0.5,1", "--max-nfev", "15", "--json",
                   "--max-step", "0.1")  # fmt: skip
    assert done.returncode == 0
    answer = strict(done.stdout)
    assert answer["nfev"] <= 15
    error = np.abs(np.array(answer["jac"]) - np.diag(np.cos([0.5, 1.0])))
    # A deterministic function: rounding 1e-16 over a step chosen for it, 1e-5 or more.
    assert error.max() < 1e-9
    assert (np.array(answer["stderr"]) < 1e-8).all()


def test_numbers_that_json_lacks_are_words(command):
    """A fixed input is not moved: its error is infinite, and a 2-point rule knows of none."""
    done = command(
        "jacobian", "mymodel:polynomial", "--at", "1,2", "--method", "2-point", "--json",
        "--lower", "0,2", "--upper", "9,2",
    )  # fmt: skip
    answer = strict(done.stdout)
    assert done.returncode == 0
    assert answer["stderr"] == [["NaN", "Infinity"]] * 3
    assert float(answer["stderr"][0][1]) == np.inf


def test_complex_values_are_pairs(command):
    done = command("jacobian", "mymodel:spiral", "--at", "0.0", "--method", "5-point", "--json")
    jac = strict(done.stdout)["jac"]
    # Fourth order, steps near eps^(1/5): far below 1e-8 of |d e^ix| = 1.
    assert jac["re"] == pytest.approx(0.0, abs=1e-8)
    assert jac["im"] == pytest.approx(1.0, abs=1e-8)


def test_a_table_for_people(command):
    done = command("jacobian", "mymodel:named", "--at", '{"u": 1, "v": [2, 3]}', "--noise", "0.1",
                   "--method", "3-point", "--abs-step", "0.5")  # fmt: skip
    assert done.returncode == 0
    rows = {tuple(line.split()[:2]): line.split()[2:] for line in done.stdout.splitlines()}
    # Central difference of two noisy values: 0.1 sqrt(2) / (2 * 0.5).
    assert rows[("y.double", "x.u")] == ["2.00", "0.14"]
    assert rows[("y.both[1]", "x.v[1]")] == ["1.00", "0.14"]
    assert "status: ok" in done.stdout


def test_a_number_an_array_of_one_and_a_file(inside):
    for at, shape in [("3", ()), ("3,", (1, 1)), ("x.npy", (2, 3, 2, 3))]:
        _, out, _ = inside(
            "jacobian", "mymodel:square", "--at", at, "--method", "2-point", "--json"
        )
        assert np.shape(strict(out)["jac"]) == shape
    _, out, _ = inside("jacobian", "mymodel:matrix", "--at", "[[1, 2], [3, 4]]", "--json",
                       "--method", "2-point")  # fmt: skip
    assert np.shape(strict(out)["jac"]) == (2, 2, 2, 2)


def test_a_large_jacobian_goes_to_a_file(inside, folder):
    np.save(folder / "long.npy", np.arange(1.0, 31.0))
    code, out, _ = inside("jacobian", "mymodel:many", "--at", "long.npy", "--vectorized", "--out",
                          "j.npz", "--method", "2-point")  # fmt: skip
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 14  # a head, an overview of 900 entries, the status
    assert lines[-2] == "all entries: --out FILE.npz or --json"
    saved = np.load(folder / "j.npz")
    # Doubling and both differences are exact in binary.
    np.testing.assert_array_equal(saved["jac"], 2 * np.eye(30))
    np.testing.assert_array_equal(saved["x"], np.arange(1.0, 31.0))


def test_workers_find_the_module(command):
    done = command("jacobian", "mymodel:model.simulate", "--at", "1,2", "--workers", "2",
                   "--method", "2-point", "--json")  # fmt: skip
    assert done.returncode == 0
    assert np.shape(strict(done.stdout)["jac"]) == (2, 2)


def test_dicts_go_to_a_file_by_their_names(inside, folder):
    inside("jacobian", "mymodel:named", "--at", '{"u": 1, "v": [2, 3]}', "--out", "named.npz",
           "--abs-step", "0.5", "--method", "2-point")  # fmt: skip
    saved = np.load(folder / "named.npz")
    assert {"jac.both.u", "jac.double.v", "stderr.both.v", "x.u", "y.both"} < set(saved)
    np.testing.assert_array_equal(saved["jac.both.v"], [[0, 0], [1, 1]])  # exact in binary
    code, _, err = inside("jacobian", "mymodel:square", "--at", "1", "--out", "no/such/folder.npz",
                          "--method", "2-point")  # fmt: skip
    assert code == 2
    assert "cannot be written" in err


def test_a_reader_that_stops_early_is_no_error(folder):
    """As in ``| head -1``: no traceback."""
    with subprocess.Popen(
        [sys.executable, "-m", "gradiator_np", "jacobian", "mymodel:many", "--at", "1,2",
         "--vectorized", "--method", "2-point"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        process.stdout.close()
        assert process.stderr.read() == "loading\n"
        assert process.wait(60) == 1


def test_a_function_that_raises_is_a_failed_estimation(command):
    done = command("jacobian", "mymodel:unlicensed", "--at", "1,2")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "RuntimeError: no licence" in done.stderr
    assert "in unlicensed" in done.stderr
    assert "evaluate.py" not in done.stderr  # the user's frames, not ours


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["mymodel:absent", "--at", "1"], "polynomial, named"),
        (["mymodel:constant", "--at", "1"], "is a float"),
        (["mymodel", "--at", "1"], "module:function"),
        (["absent:f", "--at", "1"], "no module 'absent'"),
        (["broken:f", "--at", "1"], "a_module_that_nobody_has"),
        (["mymodel:square", "--at", "1,x"], "could not convert"),
        (["mymodel:square", "--at", "absent.npy"], "cannot be read"),
        (["mymodel:square", "--at", "{1"], "JSON"),
        (["mymodel:square", "--at", "nan"], "finite"),
        (["mymodel:square", "--at", "1", "--method", "4-point"], "choose one of"),
        (["mymodel:square", "--at", "1,2", "--abs-step", "1,2,3"], "shape"),
        (["mymodel:square", "--at", "1", "--lower", "2"], "outside of its bounds"),
        (["mymodel:silent", "--at", "1"], "does fun return"),
        (["mymodel:square"], "--at"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_commands_that_make_no_sense(inside, arguments, message):
    code, out, err = inside("jacobian", *arguments)
    assert code == 2
    assert out == ""
    assert message in err


def test_the_example_is_right_to_within_its_error_bars(command):
    """Two tables, each entry with its distance from the exact one in standard errors."""
    done = command()
    assert done.returncode == 0
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("infected day")]
    assert len(rows) == 24
    estimate, stderr, exact, distance = np.array([row[-5:] for row in rows])[:, [0, 2, 3, 4]].T
    error = estimate.astype(float) - exact.astype(float)
    # Fixed simulations: this tests the same 24 numbers always. The learned noise level has few
    # degrees of freedom (Student t, 5 and up), so one of 24 lies beyond 5 in one run of 10; a
    # wrong unit, scale or order of the columns is off by hundreds.
    assert (np.abs(error) <= 5 * stderr.astype(float)).all()
    # Printed to 1 (error, over a stderr of 28 and more) and to 0.1 (distance): 0.04 + 0.05.
    np.testing.assert_allclose(error / stderr.astype(float), distance.astype(float), atol=0.1)
    assert (np.abs(error) <= 0.02 * np.abs(exact.astype(float))).all()


def test_the_example_s_exact_answer_is_its_simulator_s_derivative():
    """Variational equations against wide central differences of fourth order."""
    exact = example.exact_jacobian()
    # Rounding to persons (0.5) over steps of 0.5 % of rates ~0.2, with weights 1.5 in all: 750.
    # Fourth order leaves h^4 f5 / 30, far below.
    estimate = jacobian(example.simulate, example.X, method="5-point", rel_step=0.005)
    bound = 750 + 1e-3 * np.abs(exact).max(axis=1, keepdims=True)
    assert (np.abs(estimate.jac - exact) <= bound).all()


def test_help_and_version(command):
    from gradiator_np import __version__

    assert command("--version").stdout.strip() == __version__
    assert "exit codes" in command("jacobian", "--help").stdout
    assert command("nonsense").returncode == 2
