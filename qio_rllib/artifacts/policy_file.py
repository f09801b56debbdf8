"""Policy files: a trained policy that loads and acts with torch alone, without Ray.

A file is a zip archive of ``policy.json`` and one ``torch.export`` program per module, so that any network that
RLlib can build is kept as a graph and needs none of its code to run.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch

from qio_envs.api import ConfigError
from qio_rllib.acting.communication import Communication
from qio_rllib.acting.policy import ActionSpec, Policy, PolicyModule
from qio_rllib.exploration import Amplification

_FORMAT = 1
_DESCRIPTION = "policy.json"


def save_policy(policy: Policy, path: str | Path, examples: dict[str, torch.Tensor] | None = None) -> Path:
    """Write a policy file.

    Args:
        policy: Its networks must be traceable by ``torch.export`` (no recurrence).
        path: Where to; an existing file is replaced only once the new one is complete.
        examples: An observation batch (at least 2 rows) by module id, by default what
            ``network.example_observations`` says.

    Returns:
        The path.
    """
    path = Path(path)
    description: dict[str, Any] = {
        "format": _FORMAT,
        "env": policy.env,
        "env_config": dict(policy.env_config),
        "module_of": [[agent, module_id] for agent, module_id in policy.module_of.items()],
        "communication": policy.communication and dataclasses.asdict(policy.communication),
        "modules": {},
    }
    partial = path.with_suffix(path.suffix + ".partial")
    with zipfile.ZipFile(partial, "w") as archive:
        for module_id, module in policy.modules.items():
            example = (examples or {}).get(module_id)
            archive.writestr(f"{module_id}.pt2", _program(module_id, module.network, example))
            if module.speak is not None:
                archive.writestr(f"{module_id}.speak.pt2", _program(module_id, module.speak, None))
            description["modules"][module_id] = {
                "action": dataclasses.asdict(module.action),
                "amplification": module.amplification and dataclasses.asdict(module.amplification),
                "samples_only": module.samples_only,
            }
        archive.writestr(_DESCRIPTION, json.dumps(description, indent=1))
    partial.replace(path)
    return path


def load_policy(path: str | Path) -> Policy:
    """Read a policy file; ``policy.act(observations)`` then chooses actions.

    Raises:
        ConfigError: The file is missing, damaged, or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"policy file: there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            description = json.loads(archive.read(_DESCRIPTION))
            talks = description.get("communication") is not None
            programs, speakers = (
                {
                    module_id: torch.export.load(io.BytesIO(archive.read(f"{module_id}{end}"))).module()
                    for module_id in (description["modules"] if wanted else ())
                }
                for end, wanted in ((".pt2", True), (".speak.pt2", talks))
            )
    except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"policy file: {path} is damaged or no policy file ({type(error).__name__})"
        ) from error
    if description["format"] != _FORMAT:
        raise ConfigError(f"policy file: {path} has format {description['format']}, expected {_FORMAT}")
    modules = {}
    for module_id, entry in description["modules"].items():
        action, settings = entry["action"], entry["amplification"]
        modules[module_id] = PolicyModule(
            programs[module_id],
            ActionSpec(action["count"], tuple(action["low"]), tuple(action["high"]), action["rescaled"]),
            None if settings is None else Amplification(**settings),
            speakers.get(module_id),
            entry.get("samples_only", False),
        )
    radio = Communication.of(description.get("communication"))
    return Policy(
        modules, dict(description["module_of"]), description["env"], description["env_config"], radio
    )


def _program(module_id: str, network: Any, example: torch.Tensor | None) -> bytes:
    """Return a network as an exported graph that takes batches of any size."""
    if example is None:
        example = getattr(network, "example_observations", None)
    if example is None:
        raise ValueError(f"examples: an observation batch is needed for module '{module_id}'")
    program = torch.export.export(
        network, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), strict=False
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # where this package lies on this machine
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()
