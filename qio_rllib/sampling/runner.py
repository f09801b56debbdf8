"""`BatchedEnvRunner`: one forward pass a step for all copies and agents, one `Rollout` for what came of it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NoReturn

import gymnasium
import numpy as np
import torch
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import (
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    WEIGHTS_SEQ_NO,
)

from qio_envs.api import ConfigError
from qio_rllib.acting.communication import Communication, inbox
from qio_rllib.acting.distributions import Sampler
from qio_rllib.acting.policy import ActionSpec
from qio_rllib.models.amplified import ACTION_MASK, OBSERVATION, AmplifiedPolicy, is_masked_space
from qio_rllib.sampling.environments import make_copies
from qio_rllib.sampling.episodes import EpisodeLog, EpisodeRecord
from qio_rllib.sampling.rollout import Array, ModuleRollout, Rollout, SamplingFailure
from qio_rllib.sampling.states import StateSource
from qio_rllib.sampling.vector_env import Copies, InvalidSampleError, bare_space, name_of

_SAMPLING = "sampling"
_CALLBACKS = (
    "on_environment_created", "on_episode_start", "on_episode_step", "on_episode_end", "on_sample_end",
)  # fmt: skip


class _Group:
    """The agents of one module, and the arrays that a rollout of theirs is written to."""

    def __init__(self, module_id: str, slots: Array, copies: Copies, config: Any) -> None:
        self.module_id = module_id
        self.slots = slots
        self.agents = tuple(copies.agents[slot] for slot in slots)
        space = copies.observation_spaces[self.agents[0]]
        self.action_space = copies.action_spaces[self.agents[0]]
        self.masked = is_masked_space(space)
        shape = bare_space(space).shape
        assert shape is not None
        self.row_shape = (copies.num_copies, len(slots))
        self.shape = shape
        self.action = ActionSpec.of(self.action_space, config.normalize_actions)
        self.last = np.zeros((*self.row_shape, *self.shape), np.float32)
        self.last_mask: Array | None = None
        self.sampler: Sampler | None = None
        self.forward: Any = None  # what `_forward_pass` gives
        self.speak: Any = None  # maps observations to messages, where agents communicate
        self.inbox: Array | None = None  # float32 [E, M, B], what reached the agents in this step

    def begin(self, steps: int) -> None:
        """Make room for so many steps; they start from what was seen last."""
        rows = (steps, *self.row_shape)
        self.observations = np.empty((steps + 1, *self.row_shape, *self.shape), np.float32)
        self.observations[0] = self.last
        self.masks: list[Array | None] = [self.last_mask]
        if self.action.count is not None:
            self.actions = np.empty(rows, np.int64)
        else:
            self.actions = np.empty((*rows, len(self.action.low)), np.float32)
        self.dist_inputs: Array | None = None
        self.logp = np.empty(rows, np.float32)
        self.rewards = np.empty(rows, np.float32)
        self.terminated, self.truncated = np.empty(rows, bool), np.empty(rows, bool)
        self.acted, self.continues = np.empty(rows, bool), np.empty(rows, bool)
        self.final_index: list[Array] = []
        self.final_observations: list[Array] = []
        self.final_states: list[Array] = []
        self.messages: list[Array] = []
        self.delivered: list[Array] = []

    def input_of(self, t: int, heard: bool = True) -> torch.Tensor:
        """Return what the network takes in step ``t``: observations, and what was heard, ``[E * M, ...]``.

        A copy: torch's arithmetic rounds by where its operands lie in memory, and an array's rows lie differently in
        rollouts of different lengths.
        """
        rows = torch.from_numpy(self.observations[t].reshape(-1, *self.shape))
        if heard and self.inbox is not None:
            return torch.cat([rows, torch.from_numpy(self.inbox.reshape(len(rows), -1))], dim=-1)
        return rows.clone()

    def finish(self, steps: int, states: Array | None) -> ModuleRollout:
        """Return what was written in the first so many steps; ``states`` are those of the copies, if recorded."""
        assert self.dist_inputs is not None
        self.last, self.last_mask = self.observations[steps].copy(), self.masks[steps]
        empty = np.empty((0, *self.shape), np.float32)
        return ModuleRollout(
            agents=self.agents,
            observations=self.observations[: steps + 1],
            action_mask=np.stack(self.masks[: steps + 1]) if self.masked else None,  # type: ignore[arg-type]
            actions=self.actions[:steps],
            dist_inputs=self.dist_inputs[:steps],
            logp=self.logp[:steps],
            rewards=self.rewards[:steps],
            terminated=self.terminated[:steps],
            truncated=self.truncated[:steps],
            acted=self.acted[:steps],
            continues=self.continues[:steps],
            slots=self.slots,
            final_index=np.concatenate([np.empty((0, 3), np.int64), *self.final_index]),
            final_observations=np.concatenate([empty, *self.final_observations]),
            states=None if states is None else states[: steps + 1],
            final_states=(
                None
                if states is None
                else np.concatenate([np.empty((0, states.shape[-1]), np.float32), *self.final_states])
            ),
            messages=np.stack(self.messages) if self.messages else None,
            delivered=np.stack(self.delivered) if self.messages else None,
        )


class BatchedEnvRunner(EnvRunner, Checkpointable):
    """Steps copies of one environment together; ``config.env_runners(env_runner_cls=BatchedEnvRunner)``.

    ``num_envs_per_env_runner`` copies of an environment of ``qio_envs`` are one `BatchedEnv`; of anybody's PettingZoo
    parallel or Gymnasium environment, so many objects. Each step has one forward pass per module over all copies and
    agents. `sample` gives one `Rollout`; the Learner must take those (`RolloutLearner`).

    Metrics carry RLlib's names. Means over episodes, and over what the last infos hold, run over the last
    ``metrics_num_episodes_for_smoothing`` finished episodes that had the number, shared among the runners, so that
    each iteration after the first such episode has them; several runners' means are averaged.

    Callbacks: ``on_environment_created``, ``on_episode_start``, ``on_episode_step``, ``on_episode_end`` (with an
    `EpisodeRecord` for an episode and `Copies` for an environment) and ``on_sample_end`` (with a list of `Rollout`).

    State (`get_state`): environments, random numbers, what was seen last, running and finished episodes; a runner
    that is restored goes on exactly, where the environments can be pickled, and with new episodes elsewhere.
    Another runner than the one that the state is of, by ``worker_index``, takes the weights only.

    An error in an environment reaches the caller, and the next `sample` starts anew.

    Raises:
        ConfigError: A recurrent module, connectors of the user's own, ``batch_mode="complete_episodes"``, agents that
            no module acts for or of different spaces in one module, or an environment that cannot be held in arrays.
    """

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self.spaces = kwargs.get("spaces") or {}
        for key in ("_env_to_module_connector", "_module_to_env_connector"):
            if getattr(self.config, key, None) is not None:
                raise ConfigError(
                    f"env_runners: {key.strip('_')} is not used by BatchedEnvRunner; take env_runner_cls=None for "
                    "RLlib's own runner, or wrap the environment"
                )
        # RLlib sets complete_episodes for evaluation, where it asks for so many episodes itself.
        if self.config.batch_mode != "truncate_episodes" and not self.config.in_evaluation:
            raise ConfigError(
                f"env_runners: batch_mode={self.config.batch_mode!r} is not for BatchedEnvRunner, whose rollouts have "
                "equal lengths; an episode that a rollout cuts goes on in the next one"
            )
        classes = self.config.callbacks_class
        self._callbacks = [cls() for cls in (classes if isinstance(classes, list | tuple) else [classes])]
        self._heard = {name for name in _CALLBACKS if self._somebody_hears(name)}
        self._remote = bool(self.worker_index)
        if self._remote:
            torch.set_num_threads(1)
        self.copies: Copies | None = None
        self.num_envs = 0
        self._groups: list[_Group] = []
        self._weights_seq_no = 0
        smoothing = self.config.metrics_num_episodes_for_smoothing
        window = math.ceil(smoothing / max(1, self.config.num_env_runners))
        self.episodes = EpisodeLog(window, self.config.is_multi_agent)
        if self._remote or self.config.num_env_runners == 0 or self.config.create_env_on_local_worker:
            self.make_env()
        self.module: MultiRLModule | None = None
        self.make_module()

    # -- construction -----------------------------------------------------------------------------------------

    def make_env(self) -> None:
        """Build the copies; the next `sample` starts them."""
        if self.copies is not None:
            self.copies.close()
        self.num_envs = self.config.num_envs_per_env_runner
        context = EnvContext(
            self.config.env_config or {},
            worker_index=self.worker_index or 0,
            num_workers=self.config.num_env_runners,
        )
        self.copies = make_copies(self.config.env, context, self.num_envs)
        self.env = self.copies
        self._groups = [
            _Group(module_id, np.array(slots), self.copies, self.config)
            for module_id, slots in self._modules_by_slots().items()
        ]
        self._state_source = StateSource.of(
            self.config.model_config.get("state_source"),
            self.config.env,
            self.copies.observation_spaces,
            self.copies.state_size,
        )
        self._last_state: Array | None = None
        self._rng = self._generator(0)
        self._started = False
        self.episodes.watch(self.copies, {group.module_id: group.agents for group in self._groups})
        self._call("on_environment_created", env=self.copies, env_context=context)

    def _generator(self, steps: int) -> np.random.Generator:
        """Return the random numbers of this runner after so many environment steps of all."""
        seed = self.config.seed
        # Not RLlib's seed + worker_index: runner 1 of seed 0 would play as runner 0 of seed 1 does.
        runner = (self.worker_index or 0, int(self.config.in_evaluation))
        entropy = None if seed is None else (seed, *runner, int(steps))
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))

    def _modules_by_slots(self) -> dict[str, list[int]]:
        assert self.copies is not None
        if not self.config.is_multi_agent and self.copies.agents != (None,):
            names = ", ".join(map(str, self.copies.agents))
            raise ConfigError(
                f"multi_agent: {self.config.env} has the agents {names}; say who acts for them: "
                "config.multi_agent(policies=..., policy_mapping_fn=...)"
            )
        found: dict[str, list[int]] = {}
        for slot, agent in enumerate(self.copies.agents):
            module_id = DEFAULT_MODULE_ID
            if self.config.is_multi_agent:
                try:
                    module_id = self.config.policy_mapping_fn(agent, None)
                except Exception as error:
                    raise ConfigError(
                        f"multi_agent: policy_mapping_fn fails for agent {agent} ({type(error).__name__}: {error})"
                    ) from error
                if module_id not in self.config.policies:
                    raise ConfigError(
                        f"multi_agent: policy_mapping_fn gives agent {agent} the module {module_id!r}; "
                        f"allowed: {', '.join(map(str, self.config.policies))}"
                    )
            found.setdefault(module_id, []).append(slot)
        for module_id, slots in found.items():
            first, *others = (self.copies.agents[slot] for slot in slots)
            for agent in others:
                for kind, spaces in (
                    ("observation", self.copies.observation_spaces),
                    ("action", self.copies.action_spaces),
                ):
                    if spaces[agent] != spaces[first]:
                        raise ConfigError(
                            f"multi_agent: {first} and {agent} share the module '{module_id}', but their {kind} "
                            f"spaces differ: {spaces[first]} and {spaces[agent]}"
                        )
        return found

    def make_module(self) -> None:
        """Build the module; without a critic, which only the Learner needs."""
        spec = self.config.get_multi_rl_module_spec(spaces=self.get_spaces(), inference_only=True)
        self.module = spec.build()
        for module_id, module in self.module.items():
            if module.is_stateful():
                raise ConfigError(
                    f"model_config: module '{module_id}' is recurrent; BatchedEnvRunner takes memoryless modules only "
                    "(env_runner_cls=None brings back RLlib's own runner)"
                )
            module.eval()
        for group in self._groups:
            group.sampler = Sampler(self.module[group.module_id], group.action_space)
            group.forward = _forward_pass(self.module[group.module_id])
            group.speak = getattr(self.module[group.module_id], "speak", None)
        self._communication = Communication.of(self.config.model_config.get("communication"))

    def get_spaces(self) -> dict[str, Any]:
        """Return (observation space, action space) by module id, and those of the environment."""
        if self.copies is None:
            return self.spaces
        seen, acts = self.copies.observation_spaces, self.copies.action_spaces
        whole: tuple[gymnasium.Space, gymnasium.Space] = (
            seen[self.copies.agents[0]],
            acts[self.copies.agents[0]],
        )
        if self.config.is_multi_agent:
            whole = (gymnasium.spaces.Dict(_by_name(seen)), gymnasium.spaces.Dict(_by_name(acts)))
        return {
            INPUT_ENV_SPACES: whole,
            INPUT_ENV_SINGLE_SPACES: whole,
            **{group.module_id: (seen[group.agents[0]], acts[group.agents[0]]) for group in self._groups},
        }

    def assert_healthy(self) -> None:
        """Check that construction was completed."""
        assert self.copies is not None
        assert self.module is not None

    # -- sampling -------------------------------------------------------------------------------------------------

    def sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[Rollout] | list[SamplingFailure]:
        """Play on, and return what happened.

        Args:
            num_timesteps: Environment steps at least, over all copies; by default the rollout fragment length of
                each copy.
            num_episodes: Start anew and play until so many episodes have ended, instead; several `Rollout`s.
            explore: Sample actions (True) or take the most probable ones (False); by default as configured.
            random_actions: Act uniformly among the legal actions instead; in Box spaces, standard normal.
            force_reset: Start anew.

        A remote runner that trains returns a `SamplingFailure` for an error, which the Learner raises in the driver.

        Raises:
            InvalidSampleError: A reward or an observation is not finite or of the wrong shape, or an agent has no
                legal action.
            ValueError: Both numbers are given, or one below 1.
        """
        try:
            return self._sample(num_timesteps, num_episodes, explore, random_actions, force_reset)
        except Exception as error:
            if not self._remote or self.config.in_evaluation:
                raise
            # Sampling ends when there are enough steps.
            self.metrics.log_value(NUM_ENV_STEPS_SAMPLED, self.config.total_train_batch_size, reduce="sum")
            return [SamplingFailure(error, self.worker_index or 0)]

    def _sample(
        self,
        num_timesteps: int | None,
        num_episodes: int | None,
        explore: bool | None,
        random_actions: bool,
        force_reset: bool,
    ) -> list[Rollout]:
        if self.copies is None:
            raise ValueError("this runner has no environment (create_local_env_runner)")
        if num_timesteps is not None and num_episodes is not None:
            raise ValueError("num_timesteps and num_episodes: give one of them")
        if (num_timesteps is not None and num_timesteps < 1) or (
            num_episodes is not None and num_episodes < 1
        ):
            raise ValueError("num_timesteps and num_episodes: expected at least 1")
        explore = self.config.explore if explore is None else explore
        if num_episodes is not None:
            steps = 64  # at a time
        elif num_timesteps is not None:
            steps = math.ceil(num_timesteps / self.num_envs)
        else:
            steps = self.config.get_rollout_fragment_length(self.worker_index or 0)
        with one_thread(), torch.inference_mode():
            if not self._started:
                seeds = self._rng.integers(2**64, size=self.num_envs, dtype=np.uint64)
                self._restart(seeds=seeds)
            elif force_reset or num_episodes is not None:
                self._restart()
            self._started = False  # after an error there is nothing to go on from
            rollouts: list[Rollout] = []
            ended = 0
            while True:
                left = None if num_episodes is None else num_episodes - ended
                part, more = self._play(steps, explore, random_actions, left)
                rollouts.append(part)
                ended += more
                if num_episodes is None or ended >= num_episodes:
                    break
            self._started = True
        self.num_env_steps_sampled_lifetime += self.episodes.log_steps(self.metrics, rollouts, ended)
        self._call("on_sample_end", samples=rollouts)
        return rollouts

    def _play(
        self, steps: int, explore: bool, random_actions: bool, episodes_left: int | None
    ) -> tuple[Rollout, int]:
        """Play ``steps`` steps, or fewer once so many episodes have ended; return them and the number that ended."""
        copies = self.copies
        assert copies is not None
        for group in self._groups:
            group.begin(steps)
        states = None
        if self._state_source is not None:
            states = np.empty((steps + 1, self.num_envs, self._state_source.size), np.float32)
            states[0] = self._last_state
        ended, t = 0, 0
        while t < steps:
            alive = copies.alive()
            if self._communication is not None:
                self._exchange(t, alive)
            moves = []
            for group in self._groups:
                group.acted[t] = alive[:, group.slots]
                moves.append((group.slots, self._act(group, t, explore, random_actions)))
            rewards, terminated, truncated = copies.step(moves)
            for group in self._groups:
                columns = slice(None) if len(self._groups) == 1 else group.slots
                group.rewards[t] = rewards[:, columns]
                group.terminated[t] = terminated[:, columns]
                group.truncated[t] = truncated[:, columns]
            self.episodes.step(rewards)
            if not _all_finite(rewards):
                e, slot = (int(index) for index in np.argwhere(~np.isfinite(rewards))[0])
                self._refuse(e, f"reward of {name_of(copies.agents[slot])} is {rewards[e, slot]}")
            continuing = copies.alive()
            for group in self._groups:
                group.continues[t] = continuing[:, group.slots]
            if truncated.any():
                self._keep_final(t)
            if "on_episode_step" in self._heard:
                for e in range(self.num_envs):
                    self._call_episode("on_episode_step", self.episodes.record(e))
            over = ~np.logical_or.reduce(continuing, axis=1)
            if over.any():
                for e in np.flatnonzero(over).tolist():
                    self._call_episode("on_episode_end", self.episodes.end(e))
                ended += int(over.sum())
                self._restart(mask=over)
            t += 1
            for group in self._groups:
                self._observe(group, t)
            if states is not None:
                states[t] = self._state([group.observations[t] for group in self._groups], copies.alive())
            if episodes_left is not None and ended >= episodes_left:
                break
        if states is not None:
            self._last_state = states[t].copy()
        return Rollout({group.module_id: group.finish(t, states) for group in self._groups}), ended

    def _exchange(self, t: int, alive: Array) -> None:
        """Let every living agent send its message, and lay what arrives into the groups' inboxes."""
        assert self._communication is not None
        sent = np.zeros((*alive.shape, self._communication.bandwidth), np.float32)
        for group in self._groups:
            message = group.speak(group.input_of(t, heard=False)).numpy().reshape(*group.row_shape, -1)
            group.messages.append(message)
            sent[:, group.slots] = message
        delivered = self._communication.deliver(alive, self._rng)
        received = inbox(sent, delivered)
        for group in self._groups:
            group.delivered.append(delivered[:, group.slots])
            group.inbox = received[:, group.slots]

    def _act(self, group: _Group, t: int, explore: bool, random_actions: bool) -> Array:
        """Choose and write the actions of a group; return them as the environment takes them."""
        assert self.module is not None
        seen = group.input_of(t)
        mask = group.masks[t]
        legal = None if mask is None else torch.from_numpy(mask.reshape(-1, mask.shape[-1]))
        inputs = group.forward(seen, legal, explore).numpy()
        sampler = group.sampler
        assert sampler is not None
        if random_actions:
            inputs = sampler.uniform_inputs(inputs, mask)
        actions, logp = sampler.sample(inputs, self._rng if explore or random_actions else None)
        if group.dist_inputs is None:
            group.dist_inputs = np.empty((*group.logp.shape, inputs.shape[-1]), np.float32)
        group.dist_inputs[t] = inputs.reshape(*group.row_shape, -1)
        group.actions[t] = actions.reshape(group.actions.shape[1:])
        group.logp[t] = logp.reshape(group.row_shape)
        return group.action.to_env(group.actions[t])

    def _observe(self, group: _Group, t: int) -> None:
        assert self.copies is not None
        out = group.observations[t]
        self.copies.observe(group.slots, out)
        self._check_seen(group, out)
        if group.masked:
            legal = self.copies.action_mask(group.slots)
            assert legal is not None
            if not legal.any(axis=-1).all():
                e, m = (int(index) for index in np.argwhere(~legal.any(axis=-1))[0])
                self._refuse(e, f"action mask of {name_of(group.agents[m])} is {legal[e, m].astype(int)}")
            group.masks.append(legal)
        else:
            group.masks.append(None)

    def _check_seen(self, group: _Group, seen: Array) -> None:
        if not _all_finite(seen):
            e, m, *place = (int(index) for index in np.argwhere(~np.isfinite(seen))[0])
            value = seen[(e, m, *place)]
            self._refuse(e, f"observation of {name_of(group.agents[m])} is {value} at {place}")

    def _refuse(self, copy: int, what: str) -> NoReturn:
        raise InvalidSampleError(copy, int(self.episodes.lengths[copy]), what)

    def _keep_final(self, t: int) -> None:
        """Keep what truncated agents see: their value continues the return."""
        assert self.copies is not None
        found = []
        for group in self._groups:
            seen = np.empty((*group.row_shape, *group.shape), np.float32)
            self.copies.observe(group.slots, seen)
            self._check_seen(group, seen)
            found.append(seen)
        state = None
        if self._state_source is not None:
            present = self.copies.alive().copy()  # those that have just come included
            for group in self._groups:
                present[:, group.slots] |= group.acted[t] & group.truncated[t]
            state = self._state(found, present)
        for group, seen in zip(self._groups, found, strict=True):
            rows = np.argwhere(group.truncated[t] & group.acted[t])
            if len(rows):
                group.final_index.append(np.insert(rows, 0, t, axis=1))
                group.final_observations.append(seen[rows[:, 0], rows[:, 1]])
                if state is not None:
                    group.final_states.append(state[rows[:, 0]])

    def _state(self, seen: list[Array], alive: Array) -> Array:
        """Return what central critics see now: float32 ``[E, S]``."""
        assert self.copies is not None
        assert self._state_source is not None
        parts = [(group.slots, values) for group, values in zip(self._groups, seen, strict=True)]
        state = self._state_source.read(self.copies, parts, alive)
        if not _all_finite(state):
            e, place = (int(index) for index in np.argwhere(~np.isfinite(state))[0])
            self._refuse(e, f"state() is {state[e, place]} at [{place}]")
        return state

    def _restart(self, seeds: Array | None = None, mask: Array | None = None) -> None:
        assert self.copies is not None
        self.copies.reset(seeds, mask)
        for e in self.episodes.begin(mask):
            self._call_episode("on_episode_start", self.episodes.record(e))
        if mask is None:
            for group in self._groups:
                group.begin(0)
                group.masks = []
                self._observe(group, 0)
                group.last, group.last_mask = group.observations[0].copy(), group.masks[0]
            if self._state_source is not None:
                self._last_state = self._state([group.last for group in self._groups], self.copies.alive())

    # -- metrics --------------------------------------------------------------------------------------------------

    def get_metrics(self) -> dict[str, Any]:
        """Return the metrics since the last call, and the means over the window of finished episodes."""
        self.episodes.log_means(self.metrics)
        return self.metrics.reduce()

    def _somebody_hears(self, callback: str) -> bool:
        own = any(
            getattr(type(listener), callback) is not getattr(RLlibCallback, callback)
            for listener in self._callbacks
        )
        return own or bool(getattr(self.config, f"callbacks_{callback}", None))

    def _call(self, callback: str, **arguments: Any) -> None:
        if callback in self._heard:
            make_callback(
                callback,
                callbacks_objects=self._callbacks,
                callbacks_functions=getattr(self.config, f"callbacks_{callback}", None),
                kwargs={"env_runner": self, "metrics_logger": self.metrics, **arguments},
            )

    def _call_episode(self, callback: str, episode: EpisodeRecord) -> None:
        self._call(
            callback, episode=episode, env=self.copies, rl_module=self.module, env_index=episode.env_index
        )

    # -- state ----------------------------------------------------------------------------------------------------

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the state: weights, counters, and (``sampling``) all that the next sample depends on."""
        state: dict[str, Any] = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime}
        if self._check_component(COMPONENT_RL_MODULE, components, not_components):
            assert self.module is not None
            state[COMPONENT_RL_MODULE] = self.module.get_state(
                components=self._get_subcomponents(COMPONENT_RL_MODULE, components),
                not_components=self._get_subcomponents(COMPONENT_RL_MODULE, not_components),
                **kwargs,
            )
            state[WEIGHTS_SEQ_NO] = self._weights_seq_no
        if self._check_component(_SAMPLING, components, not_components) and self.copies is not None:
            state[_SAMPLING] = {
                "worker_index": self.worker_index or 0,
                "started": self._started,
                "copies": self.copies.get_state(),
                "rng": self._rng.bit_generator.state,
                **self.episodes.get_state(),
                "last": {group.module_id: (group.last, group.last_mask) for group in self._groups},
                "last_state": self._last_state,
            }
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over a state, or the parts of one that are there."""
        if COMPONENT_RL_MODULE in state:
            number = state.get(WEIGHTS_SEQ_NO, 0)
            if number == 0 or self._weights_seq_no < number:
                import ray

                weights = state[COMPONENT_RL_MODULE]
                assert self.module is not None
                self.module.set_state(ray.get(weights) if isinstance(weights, ray.ObjectRef) else weights)
            if number > 0:
                self._weights_seq_no = number
        if NUM_ENV_STEPS_SAMPLED_LIFETIME in state:
            self.num_env_steps_sampled_lifetime = state[NUM_ENV_STEPS_SAMPLED_LIFETIME]
            if self.copies is not None and not self._started:
                # A remote runner of a restored run shall not play its first episodes again.
                self._rng = self._generator(self.num_env_steps_sampled_lifetime)
        sampling = state.get(_SAMPLING)
        # RLlib hands the local runner's state to those that it has restarted: each keeps its own random numbers.
        if (
            sampling is not None
            and self.copies is not None
            and sampling["worker_index"] == (self.worker_index or 0)
        ):
            self._rng.bit_generator.state = sampling["rng"]
            same = len(sampling["lengths"]) == self.num_envs
            self._started = sampling["started"] and same and sampling["copies"] is not None
            self.episodes.set_state(sampling, running=self._started)
            if self._started:
                self.copies.set_state(sampling["copies"])
                self._last_state = sampling["last_state"]
                for group in self._groups:
                    group.last, group.last_mask = sampling["last"][group.module_id]

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        """Return what a checkpoint needs to build the runner again."""
        return (), {"config": self.config}

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """Return the parts that have checkpoints of their own."""
        return [(COMPONENT_RL_MODULE, self.module)]

    def stop(self) -> None:
        """Close the environments."""
        if self.copies is not None:
            self.copies.close()


def _forward_pass(module: Any) -> Callable[[torch.Tensor, torch.Tensor | None, bool], torch.Tensor]:
    """Return what maps observations, legal actions and whether to explore to distribution inputs."""
    if isinstance(module, AmplifiedPolicy):
        act = module.acting()
        if act is not None:
            return lambda seen, legal, explore: act(seen, legal)

    def forward(seen: Any, legal: torch.Tensor | None, explore: bool) -> torch.Tensor:
        batch = {Columns.OBS: seen if legal is None else {OBSERVATION: seen, ACTION_MASK: legal}}
        output = module._forward_exploration(batch) if explore else module._forward_inference(batch)
        return output[Columns.ACTION_DIST_INPUTS]

    return forward


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on this thread: a forward pass over a few rows is slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _all_finite(values: Array) -> bool:
    """Whether all are finite; their sum, which is cheaper, is only finite if they are."""
    return math.isfinite(values.sum()) or bool(np.isfinite(values).all())


def _by_name(spaces: Mapping[Any, gymnasium.Space]) -> dict[str, gymnasium.Space]:
    return {str(agent): space for agent, space in spaces.items()}
