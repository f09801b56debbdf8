"""Write the tables of settings in docs/settings.md and docs/algorithms/ from signatures and docstrings.

python docs/settings_tables.py

A page holds ``<!-- settings of PPO -->`` or ``<!-- settings of PPO: central_value, normalize_values -->`` (settings of
an algorithm's ``training()``) or ``<!-- mapping circuit -->`` (keys of a setting that is a mapping), a table, and
``<!-- end -->``. Algorithms that are not installed keep the table that stands there.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

from qio_envs.api import ConfigError
from qio_rllib.algorithms import ALGORITHMS, LOCAL_ALGORITHMS
from qio_rllib.algorithms.capabilities import capability_table
from qio_rllib.algorithms.settings import algorithm_name
from qio_rllib.causal.baseline import CounterfactualBaselineSettings
from qio_rllib.causal.influence import InfluenceSettings
from qio_rllib.causal.masks import CausalMaskSettings
from qio_rllib.experiments.population_settings import PopulationSettings
from qio_rllib.experiments.resources import quiet_ray
from qio_rllib.exploration import Amplification, Annealing, make_annealing
from qio_rllib.federated.server_optimizers import ServerOptimizerSettings
from qio_rllib.federated.settings import (
    AggregationSettings,
    AttackSettings,
    CompressionSettings,
    DropoutSettings,
    ParticipationSettings,
    PrivacySettings,
    QuantizationSettings,
    SecureSettings,
)
from qio_rllib.games.self_play import SelfPlaySettings
from qio_rllib.learners.client_correction import CorrectionSettings
from qio_rllib.learners.policy_consistency import ConsistencySettings
from qio_rllib.models.circuits import CircuitSettings
from qio_rllib.models.communication import Communication
from qio_rllib.models.coordination import CoordinationSettings
from qio_rllib.models.imagination import ImaginationSettings
from qio_rllib.models.joint_critics import CriticSettings
from qio_rllib.models.mixers import MixerSettings
from qio_rllib.models.opponent_model import OpponentModelSettings
from qio_rllib.world_models.ensemble import EnsembleSettings
from qio_rllib.world_models.kalman import KalmanSettings
from qio_rllib.world_models.planning_settings import PlanningSettings
from qio_rllib.world_models.rssm import RSSMSettings

PAGES = Path(__file__).parent
BLOCK = re.compile(r"(<!-- (settings of|mapping) (\w+)(?:: ([\w, ]+))? -->\n)(.*?)(<!-- end -->)", re.DOTALL)
MAPPINGS: dict[str, type] = {
    "aggregation": AggregationSettings,
    "amplification": Amplification,
    "attack": AttackSettings,
    "causal_mask": CausalMaskSettings,
    "circuit": CircuitSettings,
    "communication": Communication,
    "compression": CompressionSettings,
    "correction": CorrectionSettings,
    "counterfactual_baseline": CounterfactualBaselineSettings,
    "critic": CriticSettings,
    "coordination": CoordinationSettings,
    "dropouts": DropoutSettings,
    "ensemble": EnsembleSettings,
    "entropy_annealing": Annealing,
    "imagination": ImaginationSettings,
    "interventional_consistency": ConsistencySettings,
    "influence_reward": InfluenceSettings,
    "kalman": KalmanSettings,
    "mixer": MixerSettings,
    "opponent_model": OpponentModelSettings,
    "participation": ParticipationSettings,
    "planner": PlanningSettings,
    "privacy": PrivacySettings,
    "quantization": QuantizationSettings,
    "rssm": RSSMSettings,
    "secure": SecureSettings,
    "scheduler": PopulationSettings,
    "self_play": SelfPlaySettings,
    "server": ServerOptimizerSettings,
}
EXAMPLES: dict[str, Any] = {
    "amplification": {},
    "burn_in": 1,
    "central_value": "observations",
    "circuit": {},
    "communication": {"bandwidth": 1},
    "coordination": {},
    "counterfactual_baseline": {},
    "entropy_annealing": {"law": "exponential"},
    "imagination": {},
    "interventional_consistency": {},
    "influence_reward": {},
    "normalize_values": True,
    "self_play": {},
    "opponent_model": {},
}
"""Values of settings that not every algorithm takes; each is tried, and left out of the table where it is refused."""


def pages() -> list[Path]:
    """Return the pages that hold tables of settings."""
    return [
        PAGES / "settings.md",
        PAGES / "causal.md",
        PAGES / "communication.md",
        PAGES / "self_play.md",
        PAGES / "opponent_model.md",
        PAGES / "training.md",
        *sorted((PAGES / "algorithms").glob("*.md")),
    ]


def page(text: str) -> str:
    """Return a page with its tables as the code has them now."""
    return BLOCK.sub(_block, text)


def settings_of(name: str) -> dict[str, tuple[Any, str]]:
    """Return default and meaning of the settings that this package adds to an algorithm.

    Args:
        name: A key of `ALGORITHMS`.
    """
    config = ALGORITHMS[name]()
    found: dict[str, tuple[Any, str]] = {}
    for owner in type(config).__mro__:
        method = vars(owner).get("training")
        if method is None or not owner.__module__.startswith("qio_rllib."):
            continue
        meanings = entries(method.__doc__ or "", "Args")
        for key, parameter in inspect.signature(method).parameters.items():
            named = parameter.kind is inspect.Parameter.KEYWORD_ONLY
            if named and key in config.settings().own and key not in found and not _is_refused(name, key):
                found[key] = (_default(config, key), meanings[key])
    return found


def entries(docstring: str, section: str) -> dict[str, str]:
    """Return the entries of a Google-style section: text by name.

    Args:
        docstring: Of a method or class.
        section: "Args" or "Attributes".
    """
    body = inspect.cleandoc(docstring).partition(f"{section}:\n")[2]
    found: dict[str, str] = {}
    name = ""
    for line in body.splitlines():
        if line and not line.startswith(" "):
            break
        if match := re.match(r" {4}(\*{0,2}\w+): (.*)", line):
            name = match[1]
            found[name] = match[2]
        elif line.strip() and name:
            found[name] += f" {line.strip()}"
    return found


def _block(match: re.Match[str]) -> str:
    opening, kind, name, chosen, _, closing = match.groups()
    if name == "capabilities":
        head, *body = capability_table(LOCAL_ALGORITHMS)
        rule = ["---"] * len(head)
        return opening + "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body]) + "\n" + closing
    if kind == "mapping":
        rows = [(key, *cells) for key, cells in _mapping(name).items()]
    elif name in ALGORITHMS:
        keys = chosen.split(", ") if chosen else None
        rows = [(key, *cells) for key, cells in settings_of(name).items() if keys is None or key in keys]
    else:
        return match[0]
    lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{key}` | {_text(default)} | {_markdown(meaning)} |" for key, default, meaning in rows]
    return opening + "\n".join(lines) + "\n" + closing


def _mapping(name: str) -> dict[str, tuple[Any, str]]:
    owner = MAPPINGS[name]
    meanings = entries(owner.__doc__ or "", "Attributes")
    if owner is Annealing:
        law = make_annealing({"law": "quantum"})
        found: dict[str, tuple[Any, str]] = {"law": ("required", "`quantum` or `exponential`.")}
        return found | {key: (getattr(law, key), meaning) for key, meaning in meanings.items()}
    return {
        field.name: (
            "required" if field.default is dataclasses.MISSING else field.default,
            meanings[field.name],
        )
        for field in dataclasses.fields(owner)
    }


def _is_refused(name: str, key: str) -> bool:
    if key not in EXAMPLES:
        return False
    try:
        config = ALGORITHMS[name]().environment("chsh_v0", env_config={"as_team": True})
        config.training(**{key: EXAMPLES[key]}).validate()
    except ConfigError as error:
        return str(error).startswith(f"{key}: {algorithm_name(ALGORITHMS[name])}")
    return False


def _default(config: Any, key: str) -> Any:
    for place in (vars(config), config.model_config, config.learner_config_dict):
        if key in place:
            return place[key]
    return None


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if value == "required":
        return "required"
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{value}`"


def _markdown(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    with quiet_ray():
        for path in pages():
            path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote the tables of {len(pages())} pages")
