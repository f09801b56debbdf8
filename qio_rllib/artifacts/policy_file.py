"""Policy files: a trained policy that loads and acts with torch alone, without Ray.

A file is a zip archive of ``policy.json``, a description from which the networks are built again, and one state
dictionary per module, which is read with ``weights_only``: nothing in a file is executed.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import Actor, NetworkActor
from qio_rllib.acting.policy import GroupSpaces, Policy
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.acting.world_model_actor import WorldModelActor
from qio_rllib.artifacts.policy_description import (
    POLICY,
    WORLD_MODEL,
    Budget,
    check_description,
    read_description,
)
from qio_rllib.artifacts.pretrained import policy_path
from qio_rllib.models.communication import Communication
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec
from qio_rllib.models.world_model_policy import WorldModelPolicy, WorldModelSpec
from qio_rllib.sampling.named_in_file import NamedInFile

Network = TypeVar("Network", bound=torch.nn.Module)

FORMAT = 3
_DESCRIPTION = "policy.json"
_KIND_KEYS: dict[type, str] = {NetworkActor: POLICY, WorldModelActor: WORLD_MODEL}


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
                "spaces": policy.spaces[group.module_id].as_dict(),
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


def load_policy(path: str | Path, allow_import: Sequence[str] = ()) -> Policy:
    """Read a policy file; ``policy.player()`` then acts in an episode.

    Args:
        path: The file, or ``policy:NAME`` for one that comes with the package (`qio_rllib.artifacts.pretrained`).
        allow_import: Modules that the environment which it names may import, beside
            `qio_rllib.sampling.named_in_file.ALLOWED_PACKAGES`, where somebody plays in `Policy.env`.

    Raises:
        ConfigError: The file is missing, damaged, or of another format; what is wrong in ``policy.json`` is named.
    """
    path = policy_path(path)
    if not path.is_file():
        raise ConfigError(f"policy file: there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = _stored(archive)
            description = read_description(archive.read(members[_DESCRIPTION]))
            _check_format(description)
            check_description(description)
            names = [f"{entry['module']}.pt" for entry in description["groups"]]
            if set(members) != {_DESCRIPTION, *names}:
                raise ConfigError(
                    f"expected the members {_DESCRIPTION}, {', '.join(names)}, got {', '.join(members)}"
                )
            weights = [_weights(name, archive.read(members[name])) for name in names]
        with Budget(weights):
            return _built(description, weights, allow_import)
    except ConfigError as error:
        raise ConfigError(f"policy file: {path}: {' '.join(str(error).split())}") from error
    except Exception as error:  # whatever a damaged file makes zip files, torch or the networks raise
        raise ConfigError(
            f"policy file: {path} is damaged or no policy file ({type(error).__name__})"
        ) from error


def _check_format(description: Any) -> None:
    found = description.get("format") if isinstance(description, dict) else None
    if type(found) is not int or found != FORMAT:
        raise ConfigError(
            f"it has format {found!r:.60}, expected {FORMAT}; if it was made by an earlier version, train again with "
            "the config.yaml beside it"
        )


def _stored(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the members of an archive by name, none of which is compressed, so that none is larger than the file."""
    members = {member.filename: member for member in archive.infolist()}
    if len(members) < len(archive.infolist()):
        raise ConfigError("a member stands there twice")
    for name, member in members.items():
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise ConfigError(f"{name!r:.60} is compressed")
    return members


def _weights(name: str, data: bytes) -> dict[str, torch.Tensor]:
    """Return a state dictionary; what is read takes no more memory than its file."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        _stored(archive)
    found = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    for value in found.values():
        if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
            raise ConfigError(f"{name} holds something else than weights")
        if value.numel() * value.element_size() > len(data):
            raise ConfigError(f"{name} holds weights that are larger than the file")
    return dict(found)


def _built(
    description: dict[str, Any], weights: Sequence[dict[str, torch.Tensor]], allow_import: Sequence[str]
) -> Policy:
    groups, spaces = [], {}
    for entry, values in zip(description["groups"], weights, strict=True):
        groups.append(
            AgentGroup(
                entry["module"],
                tuple(entry["agents"]),
                np.array(entry["index"], np.int64),
                _actor(entry, values),
                entry["agent_id"],
            )
        )
        spaces[entry["module"]] = GroupSpaces.from_dict(entry["spaces"])
    team = Team(groups, Communication.of(description["communication"]))
    env = NamedInFile.of(description["env"], allow_import)
    return Policy(team, spaces, env, description["env_config"])


def _actor(entry: dict[str, Any], weights: dict[str, torch.Tensor]) -> Actor:
    action = ActionSpec.from_dict(entry["action"])
    if POLICY in entry:
        network = _network(lambda: PolicyNetwork(PolicySpec.from_dict(entry[POLICY])), weights)
        return NetworkActor(network, action)
    policy = _network(lambda: WorldModelPolicy(WorldModelSpec.from_dict(entry[WORLD_MODEL])), weights)
    return WorldModelActor(policy, action)


def _network(build: Callable[[], Network], weights: Mapping[str, torch.Tensor]) -> Network:
    """Return a network with its weights.

    Raises:
        ConfigError: It cannot be built, or the weights are those of another one.
    """
    try:
        network = build()
    except ConfigError:
        raise
    except Exception as error:  # whatever settings of other types raise
        raise ConfigError(
            f"{_DESCRIPTION}: its networks cannot be built ({type(error).__name__}: {error!s:.200})"
        ) from error
    expected = network.state_dict()
    for name in [*expected, *weights]:
        found = {"there": weights.get(name), "expected": expected.get(name)}
        there, wanted = ("missing" if one is None else _shape(one) for one in found.values())
        if there != wanted:
            what = "is missing" if there == "missing" else f"has the shape {there}"
            instead = "none" if wanted == "missing" else wanted
            raise ConfigError(
                f"{_DESCRIPTION}: its networks do not fit the weights: {name:.100} {what}, expected {instead}"
            )
    network.load_state_dict(weights)
    return network.eval()


def _shape(values: torch.Tensor) -> str:
    return " x ".join(map(str, values.shape)) or "of a number"
