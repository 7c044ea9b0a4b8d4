"""The house rules that a reader of the code relies on, read off the syntax trees."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hwsim"
FILES = sorted(PACKAGE.rglob("*.py"))
EACH = pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
LONGEST = 400
HEAVY = {"pandas", "matplotlib", "numpy", "ruamel", "simpy", "jinja2", "torch"}
SCALES = {1e6, 1e9, 1e12, 1e15, 1e18, 2.0**20, 2.0**30, 2.0**40}
"""Powers that turn a unit into its kilo-, mega-, giga-, ... form (1000 and 1024 alone are ordinary numbers)."""
SCALES_ALLOWED: dict[str, dict[str, str]] = {
    "specs/base.py": {
        "Bytes": "range of a quantity, in SI",
        "BytesPerSecond": "range of a quantity, in SI",
        "FlopsPerSecond": "range of a quantity, in SI",
        "Watts": "range of a quantity, in SI",
        "Hertz": "range of a quantity, in SI",
        "Usd": "range of a quantity, in SI",
        "UsdPerSecond": "range of a quantity, in SI",
        "Kilograms": "range of a quantity, in SI",
        "Count": "largest count a file may hold",
        "NaturalCount": "largest count a file may hold",
    },
    "specs/model.py": {"Model": "largest sizes a model file may hold: counts, no units"},
    "specs/strategy.py": {"_column": "largest count in a column"},
    "search/space.py": {"_pin_value": "largest pin"},
    "events/workload.py": {"MOST_PRIORITY": "largest priority: a number without a unit"},
    "search/plan.py": {"MOST_DEVICES": "largest machine tried: a count of devices"},
    "specs/scenario.py": {"MOST_TIMES": "largest multiple of a base's value: a number without a unit"},
}
"""File to definition to the reason why its large numbers are no units."""
MACHINE_NAMES = re.compile(r"bandwidth|peak_flops|^_?peak$|flops_per_s|bytes_per_s")
"""Attributes by which durations would be worked out above the costs."""


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def _none(found: Iterator[str]) -> None:
    problems = list(found)
    assert not problems, "\n".join(problems)


def _constant(node: ast.AST) -> float | None:
    """Value of a number, or of an expression such as 2**30 or 10**9 made of numbers alone."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    powers: dict[type[ast.operator], Callable[[float, float], float]] = {
        ast.Pow: lambda a, b: a**b if abs(b) < 100 else 0.0,
        ast.LShift: lambda a, b: a * 2.0**b,
    }
    if isinstance(node, ast.BinOp) and type(node.op) in powers:
        left, right = _constant(node.left), _constant(node.right)
        if left is not None and right is not None:
            return float(powers[type(node.op)](left, right))
    return None


def _defined(node: ast.stmt) -> set[str]:
    """Names that a top-level statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


@EACH
def test_only_units_knows_what_a_giga_is(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    if name == "units.py":
        return
    allowed = SCALES_ALLOWED.get(name, {})
    _none(
        f"{_where(path, node)}: {ast.unparse(node)} (take it from hwsim.units, or justify it in SCALES_ALLOWED)"
        for statement in _tree(path).body
        if not _defined(statement) & set(allowed)
        for node in ast.walk(statement)
        if _constant(node) in SCALES
    )


def test_every_exception_is_still_needed() -> None:
    for name, allowed in SCALES_ALLOWED.items():
        found = {
            defined
            for statement in _tree(PACKAGE / name).body
            for defined in _defined(statement)
            if any(_constant(node) in SCALES for node in ast.walk(statement))
        }
        assert set(allowed) <= found, f"{name}: {sorted(set(allowed) - found)} need no exception any more"


@pytest.mark.parametrize("floor", ["analytic", "events", "search"])
def test_durations_are_asked_of_costs(floor: str) -> None:
    """Only costs may name a bandwidth or a peak rate; the floors above arrange durations."""
    _none(
        f"{_where(path, node)}: .{node.attr}"
        for path in FILES
        if path.relative_to(PACKAGE).parts[0] == floor
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Attribute) and MACHINE_NAMES.search(node.attr)
    )


@EACH
def test_files_are_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{path.relative_to(ROOT)} has {lines} lines, more than {LONGEST}"


@EACH
def test_no_assert_no_print_no_relative_import(path: Path) -> None:
    def problems() -> Iterator[str]:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Assert):
                yield f"{_where(path, node)}: assert (python -O drops it: raise an HwsimError)"
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                yield f"{_where(path, node)}: print"
            elif isinstance(node, ast.ImportFrom) and node.level:
                yield f"{_where(path, node)}: relative import"

    _none(problems())


@EACH
def test_every_public_name_has_a_docstring(path: Path) -> None:
    def problems(body: list[ast.stmt], inside: str) -> Iterator[str]:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if node.name.startswith("_"):
                continue
            overload = any("overload" in ast.unparse(item) for item in node.decorator_list)
            if not ast.get_docstring(node) and not overload:
                yield f"{_where(path, node)}: {inside}{node.name} has no docstring"
            if isinstance(node, ast.ClassDef):
                yield from problems(node.body, f"{node.name}.")

    tree = _tree(path)
    _none(problems(tree.body, ""))
    assert not tree.body or ast.get_docstring(tree), f"{path.relative_to(ROOT)}: the module has no docstring"


@pytest.mark.parametrize("floor", ["formulas", "ops", "costs", "analytic"])
def test_no_hidden_loop_over_rows(floor: str) -> None:
    """Columns through and through: NumPy's Python loops in disguise are not used."""
    loops = {"np.vectorize", "np.nditer", "np.ndenumerate", "np.apply_along_axis", "np.fromiter", "np.frompyfunc"}
    _none(
        f"{_where(path, node)}: {ast.unparse(node.func)}"
        for path in FILES
        if path.relative_to(PACKAGE).parts[0] == floor
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in loops
    )


def _loaded(statement: str) -> set[str]:
    """Top-level modules in memory after a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import hwsim",
        "import hwsim.cli",
        "import hwsim.cli.app",
        "import hwsim.cli.app as app; assert app.run(['--version'], debug=True) == 0",
    ],
)
def test_imports_are_lazy(statement: str) -> None:
    assert not _loaded(statement) & HEAVY


def test_a_plan_needs_no_pandas_or_matplotlib() -> None:
    loaded = _loaded("import hwsim; hwsim.plan('gpt2', 'a100-sxm-80', 1, global_batch=1, seq_len=128)")
    assert not loaded & {"pandas", "matplotlib", "simpy", "jinja2", "torch"}


def test_public_names_are_listed_before_their_first_use() -> None:
    code = "import hwsim, sys; print(set(hwsim.__all__) <= set(dir(hwsim)), 'hwsim.api' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["True", "False"]
