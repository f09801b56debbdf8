"""`TrainingBatch`: the rows, or windows, that an on-policy update goes through."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

from qio_envs.api import ConfigError
from qio_rllib.acting.actor import DIST_INPUTS, LOGP
from qio_rllib.acting.distributions import Distributions
from qio_rllib.acting.team import DELIVERED, MESSAGE_NOISE
from qio_rllib.causal.baseline import CounterfactualBaselineSettings
from qio_rllib.learners.advantages import compute_advantages
from qio_rllib.learners.common import as_tensor
from qio_rllib.learners.counterfactual_baseline import baseline_of
from qio_rllib.learners.opponent_modelling import OTHERS_ACTED, OTHERS_ACTIONS
from qio_rllib.learners.popart import PopArt
from qio_rllib.models.actor_critic import POLICY, VALUE, ActorCritic, ModuleInputs
from qio_rllib.models.spaces import ACTION_MASK, OBSERVATION
from qio_rllib.models.values import CentralInputs
from qio_rllib.sampling.counterfactuals import REWARDS
from qio_rllib.sampling.rollout import ModuleRollout

Array = np.ndarray
PLAIN_ADVANTAGES = "plain_advantages"
"""Column of what advantages would be without the counterfactual baseline, where there is one."""


@dataclasses.dataclass
class TrainingBatch:
    """Rows ``[B, ...]`` in which an agent acted, or with memory windows ``[T, W, ...]``.

    Attributes:
        inputs: What the module takes.
        columns: ``actions``, ``action_logp``, ``action_dist_inputs``, ``advantages`` and ``value_targets``; of opponent
            models also what the others did.
        valid: Steps of windows in which the agent acted, bool ``[T, W]``; None for rows.
        discrete: Whether actions are discrete.
        factors: Of a product of spaces, how many values each discrete number of an action takes; () otherwise.
        observation_shape: Of one agent's observation, which `inputs` holds flat.
    """

    inputs: ModuleInputs
    columns: dict[str, torch.Tensor]
    valid: torch.Tensor | None
    discrete: bool
    factors: tuple[int, ...]
    observation_shape: tuple[int, ...]

    @property
    def axis(self) -> int:
        """Axis along which minibatches are cut."""
        return 0 if self.valid is None else 1

    @property
    def units(self) -> int:
        """Rows or windows."""
        return self.columns[Columns.ACTION_LOGP].shape[self.axis]

    @property
    def rows(self) -> int:
        """Rows in which an agent acted."""
        return self.units if self.valid is None else int(self.valid.sum())

    def select(self, index: torch.Tensor | slice) -> TrainingBatch:
        """Return some of the rows or windows."""
        axis = self.axis

        def part(tensor: torch.Tensor, along: int = axis) -> torch.Tensor:
            if isinstance(index, slice):
                return tensor[(slice(None),) * along + (index,)]
            return tensor.index_select(along, index)

        inputs = self.inputs
        return TrainingBatch(
            ModuleInputs(
                part(inputs.rows),
                None if inputs.legal is None else part(inputs.legal),
                None if inputs.central is None else inputs.central.select(index, axis),
                {name: part(memory, 0) for name, memory in inputs.memory.items()},
                None if inputs.fresh is None else part(inputs.fresh),
            ),
            {name: part(tensor) for name, tensor in self.columns.items()},
            None if self.valid is None else part(self.valid),
            self.discrete,
            self.factors,
            self.observation_shape,
        )

    def inputs_used(self) -> ModuleInputs:
        """Return the inputs with only those global states that these rows refer to."""
        if self.inputs.central is None:
            return self.inputs
        return dataclasses.replace(self.inputs, central=self.inputs.central.used())

    def together(self, order: Array) -> Array:
        """Return an order of the rows (or windows) in which those of one global state follow each other.

        Args:
            order: int64 ``[units]``; states come as their first rows do in it, and the rows of a state as in it.
        """
        central = self.inputs.central
        assert central is not None
        states = (central.rows if self.valid is None else central.rows[0]).cpu().numpy()[order]
        _, first, inverse = np.unique(states, return_index=True, return_inverse=True)
        return order[np.argsort(first[inverse], kind="stable")]

    def flat(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the rows of a tensor in which an agent acted, ``[B, ...]``."""
        return tensor if self.valid is None else tensor[self.valid]

    def policy(self, dist_inputs: torch.Tensor) -> Distributions:
        """Return the distributions with some parameters, in the batch's shape, in the rows in which an agent acted."""
        return Distributions(self.flat(dist_inputs), self.discrete, self.factors)

    def flat_columns(self) -> dict[str, torch.Tensor]:
        """Return the columns as rows."""
        return {name: self.flat(tensor) for name, tensor in self.columns.items()}

    def rllib_observations(self) -> Any:
        """Return observations as RLlib's modules take them."""
        shaped = self.inputs.rows.reshape(-1, *self.observation_shape)
        if self.inputs.legal is None:
            return shaped
        return {OBSERVATION: shaped, ACTION_MASK: self.inputs.legal}


def values_of(module: Any, part: ModuleRollout, popart: PopArt | None, device: Any) -> tuple[Array, Array]:
    """Return a module's values of a rollout's observations, ``[T + 1, E, M]``, and of its final ones, ``[K]``.

    Args:
        module: The module, unwrapped.
        part: With global states where the module's value is central.
        popart: In whose units the module's values are; None for plain ones.
        device: Of the module.
    """
    own = isinstance(module, ActorCritic)
    table = None
    if own and module.has_central_value:
        assert part.global_states is not None
        table = as_tensor(part.global_states).flatten(0, 1).to(device)
    values, final = _Part(module, part, 0, table, device).values(own and module.policy.memory is not None)
    if popart is None:
        return values, final
    return values * popart.deviation + popart.mean, final * popart.deviation + popart.mean


def batch_of(
    module: Any,
    parts: list[ModuleRollout],
    gamma: float,
    lambda_: float,
    popart: PopArt | None,
    device: Any,
    counterfactual: CounterfactualBaselineSettings | None = None,
    teams: list[ModuleRollout] | None = None,
    talking: bool = False,
) -> TrainingBatch:
    """Return the rows of a module's rollouts, with advantages and value targets.

    With ``teams`` an action's advantage is that of its team's step, and so is the value target.

    Args:
        module: The module, unwrapped.
        parts: Its rollouts.
        gamma: Discount.
        lambda_: Of generalised advantage estimation.
        popart: In whose units the module's values are; None for plain ones.
        device: Where tensors go.
        counterfactual: How advantages are taken against other actions; None for against values. Value targets are the
            same with and without.
        teams: The rollouts of the module's team, as `as_one_agent` gives them, in the order of ``parts``; None where
            each agent learns from its own rewards.
        talking: Whether agents heard each other: windows (of one step without memory) of all agents are returned, those
            who did not act included, an environment's agents next to each other.

    Raises:
        ConfigError: A central value without recorded global states, counterfactuals that were not
            recorded, or windows longer than a rollout.
    """
    own = isinstance(module, ActorCritic)
    central = own and module.has_central_value
    recurrent = own and module.policy.memory is not None
    discrete = isinstance(module.action_space, gymnasium.spaces.Discrete)
    pieces, offset, tables = [], 0, []
    for part, team in zip(parts, teams or itertools.repeat(None, len(parts)), strict=True):
        if central:
            if part.global_states is None:
                raise ConfigError(
                    "central_value: the rollouts have no global states; set training(central_value=...), which tells "
                    "the runner to record them"
                )
            tables.append(as_tensor(part.global_states).flatten(0, 1).to(device))
        piece = _Part(module, part, offset, tables[-1] if tables else None, device)
        if central:
            offset += len(tables[-1])
        values, final = piece.values(recurrent) if team is None else _team_values(module, team, device)
        if popart is not None:
            values, final = (found * popart.deviation + popart.mean for found in (values, final))
        plain = compute_advantages(part if team is None else team, values, final, gamma, lambda_)
        credit = {Postprocessing.ADVANTAGES: plain, Postprocessing.VALUE_TARGETS: plain + values[:-1]}
        if team is not None:
            credit = {name: np.broadcast_to(array, part.acted.shape) for name, array in credit.items()}
        if counterfactual is not None:
            credit[PLAIN_ADVANTAGES] = plain
            if not counterfactual.by_model or REWARDS in part.columns:  # a model has learned nothing at first
                baseline = baseline_of(part, piece.value_of(popart), gamma, discrete, central, device)
                credit[Postprocessing.ADVANTAGES] = compute_advantages(
                    part, values, final, gamma, lambda_, baseline, counterfactual.average_later
                )
        pieces.append(piece.windows(credit, talking) if recurrent or talking else piece.rows(credit))
    joined: dict[str, torch.Tensor] = {}
    for name in pieces[0]:
        # memory has no axis of time
        axis = 1 if (recurrent or talking) and not name.startswith("memory/") else 0
        arrays = [piece[name] for piece in pieces]
        array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=axis)
        joined[name] = as_tensor(array).to(device)
    inputs = ModuleInputs(
        joined.pop(Columns.OBS),
        joined.pop(ACTION_MASK, None),
        CentralInputs(
            tables[0] if len(tables) == 1 else torch.cat(tables),
            joined.pop("state_rows"),
            joined.pop("agents"),
        )
        if central
        else None,
        {name.partition("/")[2]: joined.pop(name) for name in [*joined] if name.startswith("memory/")},
        joined.pop("fresh", None),
    )
    shape = parts[0].observations.shape[3:]
    factors = module.policy.spec.factors if own else ()
    return TrainingBatch(inputs, joined, joined.pop("valid", None), discrete, factors, shape)


def _team_values(module: Any, team: ModuleRollout, device: Any) -> tuple[Array, Array]:
    """Return a module's values of its team's states, ``[T + 1, E, 1]``, and of the final ones ``[K]``."""
    with torch.inference_mode():
        values, final = (
            _numpy(module.value.of_states(as_tensor(states).flatten(0, -2).to(device)))
            for states in (team.observations, team.final_observations)
        )
    return values.reshape(team.observations.shape[:3]), final


class _Part:
    """One rollout of a module on its way into a batch."""

    def __init__(
        self, module: Any, part: ModuleRollout, offset: int, table: torch.Tensor | None, device: Any
    ) -> None:
        self.module, self.part, self.table, self.device = module, part, table, device
        self.shape = part.observations.shape[:3]
        self.flat_obs = self._perceived(part.observations.reshape(*self.shape, -1))
        final = part.final_observations.reshape(len(part.final_index), math.prod(part.observations.shape[3:]))
        self.flat_final = self._perceived(final)
        self.state_rows = self.agents = None
        if table is not None:
            steps, envs, _ = self.shape
            places = np.arange(steps * envs).reshape(steps, envs, 1)
            self.state_rows = np.broadcast_to(offset + places, self.shape)
            self.agents = np.broadcast_to(part.agent_index, self.shape)
        self.offset = offset

    def values(self, recurrent: bool) -> tuple[Array, Array]:
        """Return the values of all observations ``[T + 1, E, M]`` and of the final ones ``[K]``."""
        with torch.inference_mode():
            if recurrent:
                return self._recurrent_values()
            values = self._plain_values(self.flat_obs, self._central(slice(None)))
            return values.reshape(self.shape), self._plain_values(self.flat_final, self._final_central())

    def value_of(self, popart: PopArt | None) -> Callable[[Array, CentralInputs | None], Array]:
        """Return what gives the values, in the units of rewards, of flat observations without memory."""

        def values(observations: Array, central: CentralInputs | None) -> Array:
            with torch.inference_mode():
                found = self._plain_values(self._perceived(observations), central)
            return found if popart is None else found * popart.deviation + popart.mean

        return values

    def _perceived(self, rows: Array) -> Array:
        """Return flat observations ``[..., D]`` as the module's networks take them."""
        if not isinstance(self.module, ActorCritic):
            return rows
        if self.module.policy.imagination is None and self.module.policy.scale is None:
            return rows
        with torch.inference_mode():
            return _numpy(self.module.policy.perceived(as_tensor(rows).to(self.device)))

    def _plain_values(self, observations: Array, central: CentralInputs | None) -> Array:
        """Return the values of flat observations ``[..., D]``, ``[B]``."""
        rows = as_tensor(observations.reshape(-1, observations.shape[-1])).to(self.device)
        if not len(rows):
            return np.empty(0, np.float32)
        if not isinstance(self.module, ActorCritic):
            shaped = rows.reshape(-1, *self.part.observations.shape[3:])
            return self.module.compute_values({Columns.OBS: shaped}).float().cpu().numpy()
        if self.module.shares_layers:
            rows = self.module.policy.features(rows, None)[0]
        return self.module.value(rows, central)[0].float().cpu().numpy()

    def _central(self, steps: slice) -> CentralInputs | None:
        if self.table is None:
            return None
        assert self.state_rows is not None
        assert self.agents is not None
        rows = (self.state_rows[steps] - self.offset).reshape(-1)
        return CentralInputs(
            self.table,
            torch.from_numpy(rows).to(self.device),
            torch.from_numpy(self.agents[steps].reshape(-1).copy()).to(self.device),
        )

    def _final_central(self) -> CentralInputs | None:
        if self.table is None:
            return None
        part = self.part
        assert part.final_global_states is not None
        return CentralInputs(
            as_tensor(part.final_global_states).to(self.device),
            torch.arange(len(part.final_index), device=self.device),
            torch.from_numpy(part.agent_index[part.final_index[:, 2]]).to(self.device),
        )

    def _recurrent_values(self) -> tuple[Array, Array]:
        module, part = self.module, self.part
        steps, envs, agents = self.shape
        name = POLICY if module.shares_layers or module.value.memory is None else VALUE
        state = as_tensor(part.memory[name][0].reshape(envs * agents, -1)).to(self.device)
        fresh = torch.from_numpy(part.fresh_steps().reshape(steps, -1)).to(self.device)
        rows = as_tensor(self.flat_obs.reshape(steps, envs * agents, -1)).to(self.device)
        central = self._central(slice(None))
        if central is not None:
            central = CentralInputs(
                central.states, central.rows.reshape(steps, -1), central.agents.reshape(steps, -1)
            )
        final_rows = as_tensor(self.flat_final).to(self.device)
        at, e, m = part.final_index.T
        if module.value.memory is None and not module.shares_layers:
            values = module.value(rows, central)[0]
            final = module.value(final_rows, self._final_central())[0]
            return _numpy(values).reshape(self.shape), _numpy(final)
        network = module.policy if module.shares_layers else module.value
        memory = network.memory
        if module.shares_layers:
            features = memory.unroll(network.encoder(rows), state, fresh)
            values, states = module.value(features[0])[0], features[1]
        else:
            values, states = network.unroll(rows, central, state, fresh)
        # A truncated agent does not go on, so that its state after the step is among those that are kept.
        before = [states[int(t)][int(i)] for t, i in zip(at, e * agents + m, strict=True)]
        if not before:
            return _numpy(values).reshape(self.shape), np.empty(0, np.float32)
        stacked = torch.stack(before)
        if module.shares_layers:
            final = module.value(network.features(final_rows, stacked)[0])[0]
        else:
            final = network(final_rows, self._final_central(), stacked)[0]
        return _numpy(values).reshape(self.shape), _numpy(final)

    def _columns(self, credit: dict[str, Array]) -> dict[str, Array]:
        part, steps = self.part, self.part.num_steps
        found = {
            Columns.OBS: self.flat_obs[:steps],
            Columns.ACTIONS: part.actions,
            Columns.ACTION_LOGP: part.columns[LOGP],
            Columns.ACTION_DIST_INPUTS: part.columns[DIST_INPUTS],
            **credit,
        }
        found |= {name: part.columns[name] for name in (OTHERS_ACTIONS, OTHERS_ACTED) if name in part.columns}
        if part.action_mask is not None:
            found[ACTION_MASK] = part.action_mask[:steps]
        found |= {name: part.columns[name] for name in (DELIVERED, MESSAGE_NOISE) if name in part.columns}
        if self.state_rows is not None and self.agents is not None:
            found |= {"state_rows": self.state_rows[:steps], "agents": self.agents[:steps]}
        return found

    def rows(self, credit: dict[str, Array]) -> dict[str, Array]:
        """Return the rows in which an agent acted, ``[B, ...]``."""
        all_acted = self.part.acted.all()
        return {
            name: array.reshape(-1, *array.shape[3:]) if all_acted else array[self.part.acted]
            for name, array in self._columns(credit).items()
        }

    def windows(self, credit: dict[str, Array], of_all: bool = False) -> dict[str, Array]:
        """Return windows in which an agent acted at all (or those of all), ``[L, W, ...]``; the last may be padded."""
        part, length = self.part, self.part.memory_interval
        steps = part.num_steps
        count = -(-steps // length)
        columns = {
            **self._columns(credit),
            "valid": part.acted,
            "fresh": part.fresh_steps()[:steps],
        }
        kept = np.stack(
            [part.acted[w * length : (w + 1) * length].any(axis=0) for w in range(count)]
        ).reshape(-1)
        if of_all:
            kept[:] = True
        found = {}
        for name, array in columns.items():
            padded = _padded(array, count * length, name == ACTION_MASK)
            shaped = padded.reshape(count, length, -1, *array.shape[3:]).swapaxes(0, 1)
            found[name] = shaped.reshape(length, -1, *array.shape[3:])[:, kept]
        for name, memory in part.memory.items():
            found[f"memory/{name}"] = memory.reshape(-1, memory.shape[-1])[kept]
        return found


def _padded(array: Array, length: int, value: bool = False) -> Array:
    """Return an array with a value behind, up to a length of its first axis."""
    missing = length - len(array)
    if not missing:
        return array
    return np.concatenate([array, np.full((missing, *array.shape[1:]), value, array.dtype)])


def _numpy(tensor: torch.Tensor) -> Array:
    return tensor.float().cpu().numpy()
