"""`CausalModel`: learned mechanisms of a time step along a causal graph; interventions, counterfactuals (torch)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import gymnasium
import numpy as np
import torch
from torch import nn

from qio_envs.api import BatchedEnv, ConfigError, did_you_mean
from qio_envs.api.causal import InterventionSpaces
from qio_rllib.causal.datasets import REWARD, TransitionData, variable_names
from qio_rllib.causal.graph import CausalGraph, GraphError
from qio_rllib.causal.moments import DataError
from qio_rllib.causal.step_variables import Intervention, Rows, StepVariables
from qio_rllib.world_models.ensemble import Ensemble, EnsembleSettings


class Step(NamedTuple):
    """Recorded steps."""

    state: Rows  # [n, D]
    action: Rows  # [n, A]
    next_state: Rows  # [n, D]
    reward: Rows  # [n]


class Outcome(NamedTuple):
    """What a step leads to, float32."""

    next_state: torch.Tensor  # [n, D]
    reward: torch.Tensor  # [n]


class CausalModel(nn.Module):
    """A structural causal model of a time step whose mechanisms are the members of an `Ensemble`.

    Each target, a component of the next state or the reward, is ``x_j = f_j(causes) + e_j``: ``f_j`` is the mean over
    the ensemble's members, whose networks of that target see its causes alone, and the noises are independent. Causes
    are components of the state, actions, and other components of the next state: a mechanism of the same step, as in a
    chain x1 -> x2' -> x3'. What is no ancestor of a target has no influence on it at all, and no gradient.

    An intervention sets components of the state before the step, actions, or targets: their mechanisms are replaced,
    and what depends on them within the step follows. Edges between variables before the step have no meaning here: an
    intervention takes place between two steps, and what was made of a variable before stays.

    Counterfactuals are those of additive noise (Pearl 2009, section 7.1): the residual of every target is kept. The
    ends of episodes are not modelled.

    Args:
        graph: Its variables hold the state's by name, the same with ``'`` behind them for after the step, the actions
            and ``reward``; none is hidden. Those that are missing have no causes and no effects.
        state_names: ``D`` names.
        action_names: ``A`` names; of a discrete action one for each choice, its numbers are one-hot.
        settings: Sizes of the ensemble; without attention.
        spaces: By name what a variable may be set to, such as ``BatchedEnv.intervention_spaces``; one that is missing
            may be set to any finite number.

    Attributes:
        graph: As given, over all variables.
        variables: Their names: inputs (state, actions), then targets (next state, reward).
        ensemble: The networks. Its actions are the model's actions and the mechanisms of the same step.

    Raises:
        GraphError: Hidden variables, or an effect of the reward.
        ConfigError: Names that are given twice, or attention.
    """

    def __init__(
        self,
        graph: CausalGraph,
        state_names: Sequence[str],
        action_names: Sequence[str],
        settings: EnsembleSettings | None = None,
        spaces: InterventionSpaces | None = None,
    ) -> None:
        super().__init__()
        settings = settings or EnsembleSettings()
        if settings.attention_heads:
            raise ConfigError("settings: attention_heads does not go with a causal graph; set it to 0")
        self.variables = StepVariables(tuple(state_names), tuple(action_names), dict(spaces or {}))
        inputs, names = self.variables.inputs, self.variables.names
        if graph.hidden:
            raise GraphError(
                f"graph: {', '.join(sorted(graph.hidden))} hidden; a causal model needs to see all variables"
            )
        unknown = [name for name in graph.variables if name not in names]
        if unknown:
            raise GraphError(
                f"graph: {unknown[0]!r} is no variable of the step{did_you_mean(unknown[0], names)}"
            )
        edges = [edge for edge in graph.edges if edge[1] not in inputs]
        after_reward = [effect for cause, effect in edges if cause == REWARD]
        if after_reward:
            raise GraphError(f"graph: {REWARD} -> {after_reward[0]}; a reward has no effects within its step")
        self.graph = CausalGraph(edges, names)
        self.state_size, self.num_actions = len(state_names), len(action_names)
        adjacency = torch.from_numpy(self.graph.adjacency)
        causes = adjacency[:, len(inputs) :].T  # [T, V]
        within = causes[:, len(inputs) :].any(0).nonzero()[:, 0]  # targets that have effects within the step
        mask = torch.cat([causes[:, : len(inputs)], causes[:, len(inputs) + within]], dim=1)
        self._within: list[int] = within.tolist()
        self._levels = _levels(causes[:, len(inputs) :])
        self.ensemble = Ensemble(
            self.state_size,
            self.num_actions + len(within),
            settings,
            torch.cat([mask, torch.zeros_like(mask[:1])]),  # the continuation is not used
        )
        # A component that is a cause of itself is learned by its change; others by their values.
        own = torch.diagonal(causes[: self.state_size, : self.state_size])
        self.register_buffer("_stays", torch.cat([own, own.new_zeros(1)]).float(), persistent=False)

    _stays: torch.Tensor

    @classmethod
    def of_env(
        cls,
        env: BatchedEnv,
        settings: EnsembleSettings | None = None,
        edges: Sequence[tuple[str, str]] | None = None,
    ) -> Self:
        """Return an untrained model with the names and spaces of an environment.

        Args:
            env: With one agent and flat observations.
            settings: Sizes of the ensemble.
            edges: Of the graph, such as those of `TransitionGraph.to_graph`; None takes `BatchedEnv.graph`.

        Raises:
            GraphError: Hidden variables, or other names than those of observations and actions.
            UnsupportedError: No edges are given, and the environment describes no graph.
        """
        state_names, action_names = variable_names(env)
        spaces: dict[str, Any] = dict(env.intervention_spaces)
        if isinstance(env.action_space, gymnasium.spaces.Box):
            low, high = env.action_space.low.flatten(), env.action_space.high.flatten()
            for name, least, most in zip(action_names, low, high, strict=True):
                spaces[name] = gymnasium.spaces.Box(least, most, (), np.float32)
        graph = CausalGraph(**env.graph()._asdict()) if edges is None else CausalGraph(edges)
        return cls(graph, state_names, action_names, settings, spaces)

    @classmethod
    def of_ensemble(
        cls,
        ensemble: Ensemble,
        state_names: Sequence[str],
        action_names: Sequence[str],
        spaces: InterventionSpaces | None = None,
    ) -> Self:
        """Return a trained world model as a causal model; its weights are shared.

        Such a model predicts targets from what was before the step: a target that is set changes no other one, and
        residuals of one step may depend on each other. Without an input mask everything is a cause of everything.

        Args:
            ensemble: Its actions are in [-1, 1], or one-hot.
            state_names: Names of the ``D`` numbers in an observation.
            action_names: Of the ``A`` numbers in an action.
            spaces: See the class.
        """
        size = len(state_names)
        if (size, len(action_names)) != (ensemble.obs_size, ensemble.num_actions):
            raise ConfigError(
                f"names: expected {ensemble.obs_size} of the state and {ensemble.num_actions} of actions, got {size} "
                f"and {len(action_names)}"
            )
        mask = np.ones((size + 1, size + len(action_names)), bool)
        if ensemble.is_factored:
            mask = ensemble.input_mask[: size + 1, 0].cpu().numpy() > 0
            mask[range(size), range(size)] = True  # it predicts changes
        variables = StepVariables(tuple(state_names), tuple(action_names))
        edges = [(variables.inputs[i], variables.targets[t]) for t, i in np.argwhere(mask)]
        graph = CausalGraph(edges)
        model = cls(graph, state_names, action_names, EnsembleSettings(members=1, hiddens=(1,)), spaces)
        model.ensemble = ensemble
        return model

    # -- learning ---------------------------------------------------------------------------------------------

    def fit(
        self,
        data: TransitionData | Sequence[TransitionData],
        steps: int = 2000,
        batch_size: int = 256,
        lr: float = 3e-3,
        seed: int = 0,
    ) -> Self:
        """Fit the mechanisms by their likelihood; each member learns from batches of its own.

        Rows after interventions on the state and on actions are like others; of a target that was set from outside
        (`TransitionData.replaced`) they tell nothing, and its mechanism learns from the other rows.

        Args:
            data: One or several data sets with the model's names, in its order.
            steps: Gradient steps, at least 1.
            batch_size: Rows in one, for each member.
            lr: Learning rate at the start; it falls to 0 along a cosine.
            seed: Of the batches.

        Raises:
            DataError: Other names, no rows, numbers that are not finite, or a target that was set in all rows.
        """
        inputs, targets, counts = self._data([data] if isinstance(data, TransitionData) else list(data))
        for place, name in enumerate(self.variables.targets):
            if not counts[:, place].any():
                raise DataError(f"{name}: was set in all data, which so says nothing of its causes")
        obs, actions = inputs.split([self.state_size, self.num_actions], dim=1)
        actions = torch.cat([actions, targets[:, self._within]], dim=1)
        changes = targets - self._kept(obs)
        ensemble, generator = self.ensemble, torch.Generator().manual_seed(seed)
        ensemble.input_scale.update(torch.cat([obs, actions], dim=1))
        means = (changes * counts).sum(0) / counts.sum(0)
        changes = torch.where(counts > 0, changes, means)  # what does not count does not shift the scales
        ensemble.target_scale.update(changes)
        scaled = ensemble.target_scale(changes)
        optimizer = torch.optim.Adam(ensemble.parameters(), lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            drawn = torch.randint(len(inputs), (ensemble.members, batch_size), generator=generator)
            mean, log_variance, _ = ensemble.predictions(obs[drawn], actions[drawn])
            nll = ensemble.negative_log_likelihood(mean, log_variance, scaled[drawn])
            loss = (nll * counts[drawn]).sum() / batch_size + ensemble.bounds_loss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return self

    def _data(self, parts: list[TransitionData]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return inputs ``[n, D + A]``, targets ``[n, D + 1]`` and which of these count."""
        names = self.variables.names
        inputs, targets, counts = [], [], []
        for part in parts:
            if (*part.input_names, *part.target_names) != names:
                raise DataError(
                    f"data: expected the variables {', '.join(names)}, "
                    f"got {', '.join((*part.input_names, *part.target_names))}"
                )
            for name, column in part.columns().items():
                if not np.isfinite(column).all():
                    raise DataError(f"{name}: holds numbers that are not finite")
            free = [name not in part.replaced for name in self.variables.targets]
            inputs.append(torch.as_tensor(part.inputs, dtype=torch.float32))
            targets.append(torch.as_tensor(part.targets, dtype=torch.float32))
            counts.append(torch.tensor(free).float().expand(len(part.targets), -1))
        if not sum(len(rows) for rows in inputs):
            raise DataError("data: there are no rows")
        device = self._stays.device
        return torch.cat(inputs).to(device), torch.cat(targets).to(device), torch.cat(counts).to(device)

    # -- prediction -------------------------------------------------------------------------------------------

    def predict(self, state: Rows, action: Rows) -> Outcome:
        """Return the expected outcome of a step.

        Args:
            state: ``[n, D]``.
            action: ``[n, A]``.

        Raises:
            DataError: Wrong shapes, or numbers that are not finite.
        """
        return self.predict_intervention(state, action, {})

    def predict_intervention(self, state: Rows, action: Rows, do: Intervention) -> Outcome:
        """Return the expected outcome after an intervention.

        Args:
            state: As observed before the step, ``[n, D]``.
            action: ``[n, A]``.
            do: What is set; components of the state and actions before the step, targets in place of their mechanisms.

        Raises:
            DataError: Wrong shapes, or numbers that are not finite.
            ConfigError: An unknown variable, or one that is set twice.
            InterventionError: A value outside its space or of the wrong shape.
        """
        inputs, fixed = self.variables.set(self._inputs(state, action), do)
        return self._outcome(self._follow(inputs, fixed))

    def counterfactual(
        self, step: Step, action: Rows | None = None, do: Intervention | None = None
    ) -> Outcome:
        """Return what recorded steps would have led to under other actions or an intervention, all else equal.

        With the recorded actions and no intervention it is what was recorded, exactly.

        Args:
            step: What was recorded; the residuals of its targets are kept.
            action: In place of the recorded ones, ``[n, A]``; None for these.
            do: See `predict_intervention`.

        Raises:
            DataError: Wrong shapes, or numbers that are not finite.
            ConfigError: An unknown variable, or one that is set twice.
            InterventionError: A value outside its space or of the wrong shape.
        """
        inputs = self._inputs(step.state, step.action)
        recorded = self._recorded(step)
        other = inputs if action is None else self._inputs(step.state, action)
        other, fixed = self.variables.set(other, do or {})
        return self._outcome(self._follow(other, fixed, recorded, self._means(inputs, recorded)))

    def residuals(self, step: Step) -> torch.Tensor:
        """Return what was observed less what the mechanisms give from what was observed, float32 ``[n, D + 1]``.

        Raises:
            DataError: See `counterfactual`.
        """
        inputs = self._inputs(step.state, step.action)
        recorded = self._recorded(step)
        return recorded - self._means(inputs, recorded)

    def _means(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mechanisms' means ``[n, D + 1]`` where targets that are causes have given values."""
        ensemble, members = self.ensemble, self.ensemble.members
        obs, actions = inputs.split([self.state_size, self.num_actions], dim=1)
        actions = torch.cat([actions, targets[:, self._within]], dim=1)
        mean, _, _ = ensemble.predictions(obs.expand(members, -1, -1), actions.expand(members, -1, -1))
        return ensemble.target_scale.inverse(mean.mean(0)) + self._kept(obs)

    def _kept(self, obs: torch.Tensor) -> torch.Tensor:
        """Return the part of targets that is the component before the step, ``[n, D + 1]``."""
        return nn.functional.pad(obs, (0, 1)) * self._stays

    def _follow(
        self,
        inputs: torch.Tensor,
        fixed: dict[int, torch.Tensor],
        recorded: torch.Tensor | None = None,
        recorded_means: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return all targets ``[n, D + 1]``, causes before effects; with residuals where steps were recorded."""
        found = inputs.new_zeros(len(inputs), self.state_size + 1)
        for level in self._levels:
            values = self._means(inputs, found)
            if recorded is not None and recorded_means is not None:
                values = recorded + (values - recorded_means)  # what does not change stays to the bit
            columns = dict(enumerate(found.unbind(1)))
            columns |= {place: fixed.get(place, values[:, place]) for place in level}
            found = torch.stack([columns[place] for place in range(len(columns))], dim=1)
        return found

    def _outcome(self, targets: torch.Tensor) -> Outcome:
        return Outcome(targets[:, :-1], targets[:, -1])

    # -- arguments --------------------------------------------------------------------------------------------

    def _inputs(self, state: Rows, action: Rows) -> torch.Tensor:
        count = len(state)
        return torch.cat(
            [
                self._checked("state", state, (count, self.state_size)),
                self._checked("action", action, (count, self.num_actions)),
            ],
            dim=1,
        )

    def _checked(self, what: str, given: Rows, shape: tuple[int, ...]) -> torch.Tensor:
        return self.variables.rows(what, given, shape, self._stays.device)

    def _recorded(self, step: Step) -> torch.Tensor:
        """Return the targets of recorded steps, ``[n, D + 1]``."""
        count = len(step.state)
        next_state = self._checked("next_state", step.next_state, (count, self.state_size))
        return torch.cat([next_state, self._checked("reward", step.reward, (count,))[:, None]], dim=1)

    # -- files ------------------------------------------------------------------------------------------------

    def get_extra_state(self) -> dict[str, Any]:
        """Return names and edges, which a state dictionary carries."""
        return {"variables": list(self.variables.names), "edges": [list(edge) for edge in self.graph.edges]}

    def set_extra_state(self, state: Any) -> None:
        """Refuse the state dictionary of a model with other names or edges.

        Raises:
            ConfigError: They differ.
        """
        for key, own in self.get_extra_state().items():
            if state[key] != own:
                raise ConfigError(f"state_dict: belongs to a causal model with other {key}")


def _levels(causes: torch.Tensor) -> list[list[int]]:
    """Return targets in groups, each of which depends on earlier ones alone; ``causes`` is bool ``[T, T]``."""
    left, levels, done = set(range(len(causes))), [], torch.zeros(len(causes), dtype=torch.bool)
    while left:
        level = [place for place in sorted(left) if not bool((causes[place] & ~done).any())]
        levels.append(level)
        left -= set(level)
        done[level] = True
    return levels
