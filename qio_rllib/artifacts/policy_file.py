"""Policy files: a trained policy that loads and acts with torch alone, without Ray.

A file is a zip archive of ``policy.json``, a description from which the networks are built again, and one state
dictionary per module, which is read with ``weights_only``: nothing in a file is executed.
"""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import Actor, NetworkActor
from qio_rllib.acting.communication import Communication
from qio_rllib.acting.policy import GroupSpaces, Policy
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.acting.world_model_actor import WorldModelActor
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec
from qio_rllib.models.world_model_policy import WorldModelPolicy, WorldModelSpec

FORMAT = 2
_DESCRIPTION = "policy.json"
_KIND_KEYS: dict[type, str] = {NetworkActor: "policy", WorldModelActor: "world_model"}
"""Under which key the specification of an actor's network lies."""


def save_policy(policy: Policy, path: str | Path) -> Path:
    """Write a policy file.

    Args:
        policy: Its actors must be of this package: an RLModule of somebody else's needs its own code to run.
        path: Where to; an existing file is replaced only once the new one is complete.

    Returns:
        The path.

    Raises:
        ConfigError: An actor of another kind.
    """
    path = Path(path)
    communication = policy.team.communication
    groups: list[dict[str, Any]] = []
    weights: dict[str, bytes] = {}
    for group in policy.team.groups:
        actor = group.actor
        if not isinstance(actor, NetworkActor | WorldModelActor):
            raise ConfigError(
                f"policy file: module '{group.module_id}' is an RLModule of another package, which only its own code "
                "can build; keep the checkpoint"
            )
        groups.append(
            {
                "module": group.module_id,
                "agents": list(group.agents),
                "index": group.index.tolist(),
                "agent_id": group.agent_id,
                "action": actor.action.as_dict(),
                _KIND_KEYS[type(actor)]: actor.network.spec.as_dict(),
                "spaces": dataclasses.asdict(policy.spaces[group.module_id]),
            }
        )
        buffer = io.BytesIO()
        torch.save(actor.network.state_dict(), buffer)
        weights[group.module_id] = buffer.getvalue()
    description = {
        "format": FORMAT,
        "env": policy.env,
        "env_config": dict(policy.env_config),
        "communication": communication and dataclasses.asdict(communication),
        "groups": groups,
    }
    partial = path.with_suffix(path.suffix + ".partial")
    with zipfile.ZipFile(partial, "w") as archive:
        archive.writestr(_DESCRIPTION, json.dumps(description, indent=1))
        for module_id, data in weights.items():
            archive.writestr(f"{module_id}.pt", data)
    partial.replace(path)
    return path


def load_policy(path: str | Path) -> Policy:
    """Read a policy file; ``policy.player()`` then acts in an episode.

    Raises:
        ConfigError: The file is missing, damaged, or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"policy file: there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            description = json.loads(archive.read(_DESCRIPTION))
            if description.get("format") != FORMAT:
                raise ConfigError(
                    f"policy file: {path} has format {description.get('format')}, expected {FORMAT}; it was made by an "
                    "earlier version: train again with the config.yaml beside it"
                )
            weights = {
                entry["module"]: torch.load(
                    io.BytesIO(archive.read(f"{entry['module']}.pt")), weights_only=True, map_location="cpu"
                )
                for entry in description["groups"]
            }
        return _built(description, weights)
    except ConfigError:
        raise
    except (
        zipfile.BadZipFile, pickle.UnpicklingError, KeyError, ValueError, TypeError, RuntimeError, OSError,
        AttributeError, EOFError,
    ) as error:  # fmt: skip
        raise ConfigError(
            f"policy file: {path} is damaged or no policy file ({type(error).__name__})"
        ) from error


def _built(description: dict[str, Any], weights: dict[str, Any]) -> Policy:
    groups, spaces = [], {}
    for entry in description["groups"]:
        groups.append(
            AgentGroup(
                entry["module"],
                tuple(entry["agents"]),
                np.array(entry["index"], np.int64),
                _actor(entry, weights[entry["module"]]),
                entry["agent_id"],
            )
        )
        shape = tuple(entry["spaces"]["observation_shape"])
        spaces[entry["module"]] = GroupSpaces(shape, entry["spaces"]["num_actions"])
    team = Team(groups, Communication.of(description["communication"]))
    return Policy(team, spaces, description["env"], description["env_config"])


def _actor(entry: dict[str, Any], weights: dict[str, Any]) -> Actor:
    action = ActionSpec.from_dict(entry["action"])
    if "policy" in entry:
        network = PolicyNetwork(PolicySpec.from_dict(entry["policy"]))
        network.load_state_dict(weights)
        return NetworkActor(network.eval(), action)
    policy = WorldModelPolicy(WorldModelSpec.from_dict(entry["world_model"]))
    policy.load_state_dict(weights)
    return WorldModelActor(policy.eval(), action)
