"""Every public name has an example in its docstring, and what the documents show is printed."""

import doctest
import inspect
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import pytest

import gradiator_np
from gradiator_np import designs, solvers, sparsity

PUBLIC = [
    pytest.param(name, getattr(module, name), id=f"{module.__name__}.{name}")
    for module in (gradiator_np, designs, solvers, sparsity)
    for name in module.__all__
]


def run_examples(name, value):
    """Run the doctests of a name and of its methods, each in a fresh namespace."""
    tests = doctest.DocTestFinder(exclude_empty=True).find(value, name, globs={})
    found = {test.name: test for test in tests if test.examples}
    assert name in found, f"{name} has no example"
    for test in found.values():
        said = []
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        assert runner.run(test, out=said.append).failed == 0, "".join(said)


@pytest.mark.prints
@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
@pytest.mark.parametrize("name, value", PUBLIC)
def test_every_public_name_has_an_example_that_runs(name, value):
    run_examples(name, value)


@pytest.mark.parametrize("framework", gradiator_np.adapters.__all__)
def test_every_adapter_has_examples_that_run(framework):
    """In a process of their own: a framework's threads do not like forks beside them."""
    if find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    module = f"gradiator_np.adapters.{framework}"
    subprocess.run([sys.executable, "-m", "tests.test_docstrings", module], check=True)


@pytest.mark.parametrize("name, value", PUBLIC)
def test_no_public_object_prints_its_address(name, value):
    if inspect.isclass(value) and not (
        issubclass(value, (BaseException, str)) or Protocol in value.__bases__
    ):
        assert value.__repr__ is not object.__repr__


@pytest.mark.prints
@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/noise.md",
        "docs/propagation.md",
        "docs/calibration.md",
        "docs/second_derivatives.md",
        "docs/sparsity.md",
    ],
)
def test_documents_show_what_their_examples_print(name, capsys):
    text = (Path(__file__).parents[1] / name).read_text()
    shown = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert shown, f"{name} has no example with its output below"
    names = {}  # as a reader goes on who types one block after the other
    for code, output in shown:
        exec(code, names)
        assert capsys.readouterr().out == output


if __name__ == "__main__":
    for public in import_module(sys.argv[1]).__all__:
        run_examples(public, getattr(import_module(sys.argv[1]), public))
