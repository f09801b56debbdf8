"""No import circles in the suite, imports within functions and for type checkers included."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / "qio_envs").rglob("*.py"))
NAMES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in PATHS
}
ORDER = [
    "named_games",
    "config",
    "gates",
    "state",
    "model",
    "kernels",
    "planning",
    "estimation",
    "search",
    "policies",
    "viewer",
    "env",
    "logs",
    "spread",
    "speaker_listener",
    "reference",
    "tag",
    "world_comm",
    "adversary",
    "push",
    "crypto",
]
"""A module of an environment imports those before it only."""


def imports_of(source, known):
    """Return the modules of ``known`` that a source imports anywhere: ``from a import b`` is a.b where that is one."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute here"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found |= {name if name in known else node.module} & set(known)
    return found


def circle(graph):
    """Return a list of modules that import each other in turn, the first again at the end; empty if there is none."""
    done = set()

    def visit(name, path):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := visit(name, []))), [])


def graph_of(sources):
    return {name: imports_of(source, sources) for name, source in sources.items()}


def test_a_circle_is_found_wherever_the_import_stands():
    sources = {"p.a": "import p.b", "p.b": "def f():\n    from p import c", "p.c": ""}
    assert circle(graph_of(sources)) == []
    sources["p.c"] = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import X"
    assert circle(graph_of(sources)) == ["p.a", "p.b", "p.c", "p.a"]


def test_there_is_no_import_circle():
    assert len(NAMES) > 40
    assert circle(graph_of({name: path.read_text() for name, path in NAMES.items()})) == []


@pytest.mark.parametrize(
    "folder",
    [
        "cart_pole",
        "causal_chain",
        "chsh",
        "confounded_control",
        "drift_control",
        "forest_uav",
        "greedy_casino",
        "matrix_game",
        "mpe",
        "qubit_control",
        "skirmish",
        "swarm",
    ],
)
def test_the_modules_of_an_environment_have_one_order(folder):
    here = {
        name: path
        for name, path in NAMES.items()
        if name.startswith(f"qio_envs.{folder}.") and path.name != "__init__.py"
    }

    def rank(name):
        return ORDER.index(name.split(".")[2])

    for name, path in here.items():
        for other in imports_of(path.read_text(), here):
            assert rank(other) < rank(name) or other.split(".")[:3] == name.split(".")[:3], (name, other)


def test_the_api_knows_neither_adapters_nor_names_nor_environments():
    for name, path in NAMES.items():
        if name.startswith("qio_envs.api"):
            assert all(other.startswith("qio_envs.api") for other in imports_of(path.read_text(), NAMES))
        if name.startswith("qio_envs.adapters"):
            allowed = ("qio_envs.api", "qio_envs.adapters")
            assert all(other.startswith(allowed) for other in imports_of(path.read_text(), NAMES))


def test_files_are_short():
    tests = (ROOT / "tests" / "qio_envs").glob("*.py")
    assert {p.name: n for p in [*PATHS, *tests] if (n := len(p.read_text().splitlines())) >= 450} == {}


def test_gymnasium_makes_an_environment_whose_package_it_imports_itself():
    code = """
import sys, warnings
import gymnasium
warnings.simplefilter("error")
env = gymnasium.make("qio_envs:qio_envs/QubitControl-v0")
env.reset(seed=0)
import qio_envs
assert gymnasium.make("qio_envs/QubitControl-v0").spec.id == env.spec.id == "qio_envs/QubitControl-v0"
print(type(env.unwrapped).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["BatchedGymEnv"], done.stderr
