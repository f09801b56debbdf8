"""Policies as graphs that other programs run: ONNX files and torch's exported programs, with a JSON beside them.

A module of a policy becomes one file: from observations to greedy actions and the parameters of the distribution, with
masks and memory as inputs and outputs. The JSON says all that is needed to use it without this package.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qio_envs.api import ConfigError
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.policy import Policy
from qio_rllib.acting.team import AgentGroup
from qio_rllib.acting.world_model_actor import WorldModelActor
from qio_rllib.artifacts.files import write_atomically
from qio_rllib.exploration.amplification import amplify_traceable
from qio_rllib.models.circuits import CIRCUIT
from qio_rllib.models.coordination import COORDINATION
from qio_rllib.models.policy_network import CATEGORICAL, SQUASHED_GAUSSIAN

ONNX, TORCH = "onnx", "torch"
FORMATS = {ONNX: ".onnx", TORCH: ".pt2"}
"""Formats and how their files end."""
_PACKAGES = {ONNX: ("onnx", "onnxscript", "onnxruntime"), TORCH: ()}
_CHECKED_ROWS = 64
_TOLERANCE = 1e-4

OBSERVATION, AGENT_INDEX, ACTION_MASK, STATE = "observation", "agent_index", "action_mask", "state"
ACTION, DIST_INPUTS, NEXT_STATE = "action", "dist_inputs", "next_state"

_DISTRIBUTIONS = {
    "categorical": "logits of the actions (log-probabilities where there is a mask or a Q operator)",
    "epsilon_greedy": "Q-values of the actions",
    "gaussian": "means, then logarithms of the standard deviations, before action.bounds",
    "deterministic": "means in [-1, 1], then logarithms of the noise's deviations, before action.bounds",
    "squashed_gaussian": "means, then logarithms of the standard deviations, before tanh and action.bounds",
}


def export_policy(policy: Policy, out: str | Path, file_format: str = ONNX) -> list[Path]:
    """Write a policy as graphs, and what describes them.

    Args:
        policy: What to export.
        out: A file that ends as the format does (`FORMATS`), for policies with one module, with ``<name>.json`` beside
            it; or a directory, which is made, for ``<module>.onnx`` of each module and ``policy.json``.
        file_format: A key of `FORMATS`.

    Returns:
        The files, the description last.

    Raises:
        ConfigError: A policy that cannot be exported, packages that are missing, or ``out`` is there already.
    """
    out = Path(out)
    suffix = FORMATS[file_format]
    check_exportable(policy)
    is_file = check_output(out, file_format, len(policy.team.groups))
    for name in _PACKAGES[file_format]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"--format {file_format}: needs the package {name}; install it with: pip install 'qio[export]'"
            ) from error
    folder = out.parent if is_file else out
    data, modules = {}, []
    for group in policy.team.groups:
        name = out.name if is_file else f"{group.module_id}{suffix}"
        module = _ExportedModule(group, policy)
        data[name] = _graph(module, file_format)
        _check_graph(module, data[name], file_format)
        modules.append({"module": group.module_id, "file": name, **module.description()})
    description = {
        "format": file_format,
        "env": str(policy.env),
        "env_config": dict(policy.env_config),
        "modules": modules,
    }
    described = out.with_suffix(".json").name if is_file else "policy.json"
    data[described] = (json.dumps(description, indent=1) + "\n").encode()
    try:
        folder.mkdir(exist_ok=True)
        for name, content in data.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise ConfigError(f"--out: {folder} cannot be written to ({error.strerror})") from error
    return [folder / name for name in data]


def check_output(out: Path, file_format: str, modules: int = 1) -> bool:
    """Return whether ``out`` stands for one file, not a directory.

    Raises:
        ConfigError: It is there already, ends as another format does, or is one file for several modules.
    """
    suffix = FORMATS[file_format]
    if out.suffix in FORMATS.values() and out.suffix != suffix:
        raise ConfigError(f"--out: a file of the format {file_format} ends in {suffix}, got {out}")
    is_file = out.suffix == suffix
    for path in (out, out.with_suffix(".json")) if is_file else (out,):
        if path.exists() or not path.parent.is_dir():
            raise ConfigError(
                f"--out: {path} {'exists already' if path.exists() else 'is in no directory that exists'}"
            )
    if is_file and modules > 1:
        raise ConfigError(
            f"--out: the policy has {modules} modules, a file each; name a directory, got {out}"
        )
    return is_file


def check_exportable(policy: Policy) -> None:
    """Refuse what is no graph from observations to actions.

    Raises:
        ConfigError: Which module, and why.
    """
    for group in policy.team.groups:
        actor, why = group.actor, None
        if isinstance(actor, WorldModelActor):
            why = "acts by a world model, which plans or imagines with random numbers"
        elif not isinstance(actor, NetworkActor):
            why = "is an RLModule of another package"
        elif actor.network.spec.bandwidth:
            why = "talks to other agents while it acts"
        elif actor.network.spec.network.get(CIRCUIT) is not None:
            why = "is a quantum circuit, whose amplitudes are complex numbers"
        elif actor.network.spec.network.get(COORDINATION) is not None:
            why = "shares a random state with other agents while it acts"
        elif actor.network.amplification.operator != "amplify":
            why = f"has the control '{actor.network.amplification.operator}' in place of the Q operator"
        if why is not None:
            raise ConfigError(
                f"export: module '{group.module_id}' {why}; such a policy acts from its policy.pt"
            )


class _ExportedModule(torch.nn.Module):
    """The graph of a module.

    Args:
        group: Whose.
        policy: Of whom.
    """

    low: torch.Tensor
    high: torch.Tensor
    bounded: torch.Tensor

    def __init__(self, group: AgentGroup, policy: Policy) -> None:
        super().__init__()
        assert isinstance(group.actor, NetworkActor)
        self.network = group.actor.network
        self.action = group.actor.action
        self.agents = group.agents
        self.agent_count = len(group.agents) if group.agent_id else 0
        self.spaces = policy.spaces[group.module_id]
        self.operator = (float(self.network.eta), float(self.network.h_min), float(self.network.tau))
        low, high = (
            torch.tensor(bound, dtype=torch.float32) for bound in (self.action.low, self.action.high)
        )
        bounded = low.isfinite() & high.isfinite()
        if self.action.rescaled:
            low, high = (torch.where(bounded, bound, 0.0) for bound in (low, high))
        for name, value in (("low", low), ("high", high), ("bounded", bounded)):
            self.register_buffer(name, value)

    def forward(
        self,
        observation: torch.Tensor,
        agent_index: torch.Tensor | None = None,
        action_mask: torch.Tensor | None = None,
        state: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return `ACTION` and `DIST_INPUTS`, with memory `NEXT_STATE` too; rows of agents, ``[B, ...]``."""
        network = self.network
        rows = observation.reshape(observation.shape[0], -1)
        if agent_index is not None:
            one_hot = torch.nn.functional.one_hot(agent_index, self.agent_count)
            rows = torch.cat([rows, one_hot.to(rows.dtype)], dim=-1)
        features, following = network.features(network.perceived(rows), state)
        outputs = network.outputs(features)
        if network.spec.distribution == CATEGORICAL and (network.is_amplified or action_mask is not None):
            parameters = amplify_traceable(outputs, *self.operator, action_mask)
        else:
            parameters = network.distribution(outputs, action_mask)
        found = {ACTION: self._greedy(parameters), DIST_INPUTS: parameters}
        return found if following is None else {**found, NEXT_STATE: following}

    def _greedy(self, parameters: torch.Tensor) -> torch.Tensor:
        if self.action.count is not None:
            return parameters.argmax(dim=-1)
        actions = parameters.chunk(2, dim=-1)[0]
        if self.network.spec.distribution == SQUASHED_GAUSSIAN:
            actions = torch.tanh(actions)
        if not self.action.rescaled:
            return actions.maximum(self.low).minimum(self.high)
        scaled = self.low + (actions.clamp(-1, 1) + 1) * ((self.high - self.low) / 2)
        return torch.where(self.bounded, scaled, actions)

    def example(self, rows: int) -> dict[str, torch.Tensor]:
        """Return inputs of so many rows, drawn at random."""
        generator = torch.Generator().manual_seed(0)
        found = {OBSERVATION: torch.randn(rows, *self.spaces.observation_shape, generator=generator)}
        if self.agent_count:
            found[AGENT_INDEX] = torch.arange(rows) % self.agent_count
        if self.spaces.num_actions is not None:
            found[ACTION_MASK] = torch.rand(rows, self.spaces.num_actions, generator=generator) < 0.5
            found[ACTION_MASK][torch.arange(rows), torch.arange(rows) % self.spaces.num_actions] = True
        if self.network.state_size:
            found[STATE] = torch.rand(rows, self.network.state_size, generator=generator) - 0.5
        return found

    def description(self) -> dict[str, Any]:
        """Return what the JSON says of the module, fit for JSON."""
        spec, space = self.network.spec, self.spaces
        meanings = {
            OBSERVATION: "of each agent, as the environment gives it: neither scaled nor normalised",
            AGENT_INDEX: "place of the agent in the list agents, from 0",
            ACTION_MASK: "which actions are legal; at least one",
            STATE: "memory of the agent: zeros at the start of an episode, then next_state of the step before",
            ACTION: "the most probable action, as the environment takes it",
            DIST_INPUTS: _DISTRIBUTIONS[spec.distribution],
            NEXT_STATE: "memory of the agent after this step",
        }

        def entries(values: Mapping[str, torch.Tensor]) -> list[dict[str, Any]]:
            return [
                {
                    "name": name,
                    "shape": ["batch", *value.shape[1:]],
                    "dtype": str(value.dtype).removeprefix("torch."),
                    "meaning": meanings[name],
                }
                for name, value in values.items()
            ]

        inputs = self.example(1)
        with torch.no_grad():
            outputs = self(**inputs)
        bounds = None
        if self.action.count is None:
            how = "rescaled from [-1, 1]" if self.action.rescaled else "clipped"
            bounds = {"low": _finite(self.action.low), "high": _finite(self.action.high), "how": how}
        return {
            "agents": list(self.agents),
            "inputs": entries(inputs),
            "outputs": entries(outputs),
            "observation": {
                "shape": list(space.observation_shape),
                "dtype": "float32",
                "flattening": "inside the graph, row by row (C order)",
                "normalisation": None,
                "layout": "height, width, channels" if len(space.observation_shape) == 3 else None,
            },
            "distribution": spec.distribution,
            "action": {"count": self.action.count, "bounds": bounds},
            "exploration": {
                "share_or_deviation": float(self.network.exploration),
                "in_dist_inputs": spec.distribution == "deterministic",
            },
            "operator": None
            if not self.network.is_amplified
            else dict(zip(("eta", "h_min", "tau"), self.operator, strict=True)),
        }


def _finite(bounds: tuple[float, ...]) -> list[float | None]:
    """Return bounds with None for infinite ones, which JSON does not have."""
    return [bound if np.isfinite(bound) else None for bound in bounds]


def _graph(module: _ExportedModule, file_format: str) -> bytes:
    """Return the file of a module.

    Raises:
        ConfigError: Something in it is no graph.
    """
    module.eval()
    inputs = module.example(3)
    batch = torch.export.Dim("batch", min=1)
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(
                module, (), kwargs=inputs, dynamic_shapes={name: {0: batch} for name in inputs}
            )
            buffer = io.BytesIO()
            if file_format == TORCH:
                torch.export.save(program, buffer)
                return buffer.getvalue()
            outputs = list(module(**inputs))
            found = torch.onnx.export(
                program, dynamo=True, input_names=list(inputs), output_names=outputs, verbose=False
            )
            assert found is not None
            for value in (*found.model.graph.inputs, *found.model.graph.outputs):
                assert value.shape is not None
                value.shape[0] = "batch"
            return found.model_proto.SerializeToString()
    except Exception as error:  # whatever an operator makes the exporters raise
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"export: the policy is no graph ({type(error).__name__}: {reason:.200})"
        ) from error


def _check_graph(module: _ExportedModule, data: bytes, file_format: str) -> None:
    """Run a file beside its module.

    Raises:
        ConfigError: They differ.
    """
    inputs = module.example(_CHECKED_ROWS)
    with torch.no_grad():
        expected = module.network(
            _rows(module, inputs), inputs.get(ACTION_MASK), inputs.get(STATE)
        )  # the policy's own way, with its own operator
    found = _runner(data, file_format)({name: value.numpy() for name, value in inputs.items()})
    for name, value in zip((DIST_INPUTS, NEXT_STATE), expected, strict=True):
        if value is not None and not np.allclose(found[name], value.numpy(), _TOLERANCE, _TOLERANCE):
            raise ConfigError(f"export: the graph's {name} are not those of the policy; nothing was written")


def _rows(module: _ExportedModule, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    rows = inputs[OBSERVATION].reshape(_CHECKED_ROWS, -1)
    if AGENT_INDEX in inputs:
        rows = torch.cat([rows, torch.eye(module.agent_count)[inputs[AGENT_INDEX]]], dim=-1)
    return rows


def _runner(data: bytes, file_format: str) -> Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]:
    """Return what runs a file: from arrays by name to arrays by name."""
    if file_format == ONNX:
        import onnxruntime

        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))
    graph = torch.export.load(io.BytesIO(data)).module()
    return lambda inputs: {
        name: value.detach().numpy()
        for name, value in graph(**{key: torch.from_numpy(array) for key, array in inputs.items()}).items()
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep exporters from writing of packages that they look for and of their own changes."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
