"""Rules of the project that a machine can check."""

import ast
import configparser
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def modules(package: str) -> list[Path]:
    path = ROOT / package
    found = [path] if path.is_file() else sorted(path.rglob("*.py"))
    assert found
    return found


def offenders(package: str, *forbidden: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules(package)
        for name in imports_of(path)
        if any(name == module or name.startswith(module + ".") for module in forbidden)
    ]


def test_the_suite_imports_neither_ray_nor_torch_nor_the_plug_ins():
    assert offenders("qio_envs", "ray", "torch", "qio_rllib") == []


def test_an_environment_imports_the_api_and_itself_only():
    for folder in (ROOT / "qio_envs").iterdir():
        if folder.is_dir() and folder.name not in ("api", "testing", "__pycache__"):
            wrong = [
                f"{path.name}: {name}"
                for path in modules(f"qio_envs/{folder.name}")
                for name in imports_of(path)
                if name.startswith("qio_envs")
                and not name.startswith(("qio_envs.api", f"qio_envs.{folder.name}"))
            ]
            assert wrong == []


@pytest.mark.parametrize(
    "folder",
    ["fused", "exploration", "quantum", "world_models", "causal", "federated", "evaluation", "games"],
)
def test_the_mathematics_is_free_of_ray(folder):
    assert offenders(f"qio_rllib/{folder}", "ray") == []


# The one order of imports: a folder imports those before it, never those after it.
ORDER = [
    "fused",
    "exploration",
    "quantum",
    "world_models",
    "causal",
    "federated",
    "evaluation",
    "games",
    "models",
    "acting",
    "sampling",
    "artifacts",
    "learners",
    "algorithms",
    "experiments",
    "cli",
]


@pytest.mark.parametrize("folder", ORDER)
def test_imports_point_one_way(folder):
    later = [f"qio_rllib.{name}" for name in ORDER[ORDER.index(folder) + 1 :]]
    assert offenders(f"qio_rllib/{folder}", *later) == []


def test_the_order_names_every_folder():
    found = {
        path.name for path in (ROOT / "qio_rllib").iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    assert found == set(ORDER)


@pytest.mark.parametrize("package", ["qio_envs", "qio_rllib"])
def test_every_module_imports(package):
    for path in modules(package):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if not name.endswith("__main__"):
            importlib.import_module(name)


def test_every_dependency_has_a_constraint_and_imports():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().split()
    }
    modules_of = {
        "causal-learn": "causallearn",
        "dp-accounting": "dp_accounting",
        "mkdocs-material": "material",
        "open-spiel": "pyspiel",
        "pillow": "PIL",
        "pygame-ce": "pygame",
        "pytest-xdist": "xdist",
        "ruamel.yaml": "ruamel.yaml",
        "stable-baselines3": "stable_baselines3",
        "supersuit": "supersuit",
    }
    names = []
    for line in "\n".join(lines).split():
        if line.startswith("%"):
            continue
        name = line.split(">")[0].split("[")[0].split("=")[0]
        names.append(name)
        assert name.lower() in pinned, f"{name} is not in constraints.txt"
        if name not in ("ruff", "mypy"):
            importlib.import_module(modules_of.get(name, name))
    assert {"ray", "torch", "numba"} <= set(names)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("qio_envs", ["ray", "torch", "numba", "matplotlib"]),
        ("qio_envs.forest_uav", ["ray", "torch", "matplotlib"]),
        ("qio_envs.swarm", ["ray", "torch", "matplotlib"]),
        ("qio_envs.qubit_control", ["ray", "torch", "matplotlib"]),
        ("qio_envs.skirmish", ["ray", "torch", "matplotlib"]),
        ("qio_envs.chsh", ["ray", "torch", "matplotlib"]),
        ("qio_envs.drift_control", ["ray", "torch", "matplotlib"]),
        ("qio_envs.cart_pole", ["ray", "torch", "matplotlib"]),
        ("qio_envs.causal_chain", ["ray", "torch", "matplotlib", "networkx"]),
        ("qio_envs.confounded_control", ["ray", "torch", "matplotlib", "networkx"]),
        ("qio_envs.greedy_casino", ["ray", "torch", "matplotlib", "networkx"]),
        ("qio_envs.matrix_game", ["ray", "torch", "matplotlib", "networkx"]),
        ("qio_envs.mpe", ["ray", "torch", "matplotlib", "mpe2"]),
        ("qio_rllib", ["ray", "torch"]),
        ("qio_rllib.exploration", ["ray", "matplotlib", "scipy"]),
        ("qio_rllib.world_models", ["ray", "matplotlib", "scipy"]),
        ("qio_rllib.games.nash", ["ray", "torch", "matplotlib", "pyspiel"]),
        ("qio_rllib.games.openspiel", ["ray", "torch", "matplotlib"]),
        ("qio_rllib.federated.aggregation", ["ray", "torch", "cryptography", "dp_accounting"]),
        ("qio_rllib.federated.privacy", ["ray", "torch", "dp_accounting"]),
        ("qio_rllib.artifacts.policy_file", ["ray", "matplotlib"]),
        ("qio_rllib.cli", ["ray", "torch", "matplotlib"]),
    ],
)
def test_imports_stay_light(module, absent):
    code = f"import sys, {module}; print(*[name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
