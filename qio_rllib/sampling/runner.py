"""`BatchedEnvRunner`: one forward pass a step for all copies and agents, one `Rollout` for what came of it."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import (
    NUM_AGENT_STEPS_SAMPLED,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    NUM_EPISODES_LIFETIME,
    NUM_MODULE_STEPS_SAMPLED,
    NUM_MODULE_STEPS_SAMPLED_LIFETIME,
    WEIGHTS_SEQ_NO,
)

from qio_envs.api import ConfigError
from qio_rllib.models.amplified import ACTION_MASK, OBSERVATION, is_masked_space
from qio_rllib.models.distributions import Sampler
from qio_rllib.models.policy import ActionSpec
from qio_rllib.sampling.copies import Copies, InvalidSampleError
from qio_rllib.sampling.environments import make_copies
from qio_rllib.sampling.rollout import Array, ModuleRollout, Rollout

METRICS_WINDOW = 100
"""Finished episodes over which training metrics are averaged, so that no iteration lacks them."""

_SAMPLING = "sampling"


@dataclasses.dataclass
class EpisodeRecord:
    """What callbacks are told of an episode.

    Attributes:
        agent_returns: Sum of rewards so far, by agent id.
        length: Environment steps so far.
        info: The numbers of the last info; empty before the end.
        env_index: The copy that plays it.
    """

    agent_returns: dict[Any, float]
    length: int
    info: dict[str, float]
    env_index: int

    def __len__(self) -> int:
        return self.length

    def get_return(self) -> float:
        """Return the sum of rewards over agents and steps."""
        return math.fsum(self.agent_returns.values())


class _Group:
    """The agents of one module, and the arrays that a rollout of theirs is written to."""

    def __init__(self, module_id: str, slots: Array, copies: Copies, config: Any) -> None:
        self.module_id = module_id
        self.slots = slots
        self.agents = tuple(copies.agents[slot] for slot in slots)
        space = copies.observation_spaces[self.agents[0]]
        self.action_space = copies.action_spaces[self.agents[0]]
        self.masked = is_masked_space(space)
        bare = space[OBSERVATION] if self.masked else space  # type: ignore[index]
        assert bare.shape is not None
        self.row_shape = (copies.num_copies, len(slots))
        self.shape = bare.shape
        self.action = ActionSpec.of(self.action_space, config.normalize_actions)
        self.last = np.zeros((*self.row_shape, *self.shape), np.float32)
        self.last_mask: Array | None = None
        self.sampler: Sampler | None = None

    def begin(self, steps: int) -> None:
        """Make room for so many steps; they start from what was seen last."""
        rows = (steps, *self.row_shape)
        self.observations = np.empty((steps + 1, *self.row_shape, *self.shape), np.float32)
        self.observations[0] = self.last
        self.masks: list[Array | None] = [self.last_mask]
        discrete = self.action.count is not None
        self.actions = (
            np.empty(rows, np.int64) if discrete else np.empty((*rows, len(self.action.low)), np.float32)
        )
        self.dist_inputs: Array | None = None
        self.logp = np.empty(rows, np.float32)
        self.rewards = np.empty(rows, np.float32)
        self.terminated, self.truncated = np.empty(rows, bool), np.empty(rows, bool)
        self.acted = np.empty(rows, bool)
        self.final_index: list[Array] = []
        self.final_observations: list[Array] = []

    def finish(self, steps: int) -> ModuleRollout:
        """Return what was written in the first so many steps."""
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
            final_index=np.concatenate([np.empty((0, 3), np.int64), *self.final_index]),
            final_observations=np.concatenate([empty, *self.final_observations]),
        )


class BatchedEnvRunner(EnvRunner, Checkpointable):
    """Steps copies of one environment together; ``config.env_runners(env_runner_cls=BatchedEnvRunner)``.

    ``num_envs_per_env_runner`` copies of an environment of ``qio_envs`` are one `BatchedEnv`; of anybody's PettingZoo
    parallel or Gymnasium environment, so many objects. Each step has one forward pass per module over all copies and
    agents. `sample` gives one `Rollout`; the Learner must take those (`RolloutLearner`).

    Metrics carry RLlib's names. Means over episodes run over the last `METRICS_WINDOW` finished ones, shared among
    the runners, so that each iteration after the first finished episode has them. Callbacks: ``on_environment_created``,
    ``on_episode_start``, ``on_episode_step``, ``on_episode_end`` (with an `EpisodeRecord` for an episode) and
    ``on_sample_end`` (with ``[Rollout]``).

    State (`get_state`): environments, random numbers, what was seen last, running and finished episodes; a runner
    that is restored goes on exactly, where the environments can be pickled.

    Raises:
        ConfigError: A recurrent module, connectors of the user's own, agents that no module acts for or of different
            spaces in one module, or an environment that cannot be held in arrays.
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
        self._callbacks = [
            cls()
            for cls in (
                self.config.callbacks_class
                if isinstance(self.config.callbacks_class, list | tuple)
                else [self.config.callbacks_class]
            )
        ]
        self._remote = bool(self.worker_index)
        if self._remote:
            torch.set_num_threads(1)
        self.copies: Copies | None = None
        self.num_envs = 0
        self._groups: list[_Group] = []
        self._weights_seq_no = 0
        window = math.ceil(METRICS_WINDOW / max(1, self.config.num_env_runners))
        self._finished: collections.deque[dict[str, float]] = collections.deque(maxlen=window)
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
        self.copies = make_copies(self.config.env, self.config.env_config or {}, self.num_envs)
        self.env = self.copies
        self._groups = [
            _Group(module_id, np.array(slots), self.copies, self.config)
            for module_id, slots in self._modules_by_slots().items()
        ]
        entropy = np.random.SeedSequence(self._seed) if self._seed is not None else np.random.SeedSequence()
        self._seeds = entropy.generate_state(self.num_envs, np.uint64)
        self._rng = np.random.Generator(np.random.Philox(entropy.spawn(1)[0]))
        self._started = False
        self._returns = np.zeros((self.num_envs, len(self.copies.agents)))
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._call("on_environment_created", env=self.copies, env_context=self.config.env_config)

    def _modules_by_slots(self) -> dict[str, list[int]]:
        assert self.copies is not None
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

    def get_spaces(self) -> dict[str, Any]:
        """Return (observation space, action space) by module id, and those of the environment."""
        if self.copies is None:
            return self.spaces
        seen, acts = self.copies.observation_spaces, self.copies.action_spaces
        if self.config.is_multi_agent:
            whole = (gymnasium.spaces.Dict(_by_name(seen)), gymnasium.spaces.Dict(_by_name(acts)))
        else:
            whole = (seen[None], acts[None])
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
    ) -> list[Rollout]:
        """Play on, and return one `Rollout`.

        Args:
            num_timesteps: Environment steps at least, over all copies; by default the rollout fragment length of
                each copy.
            num_episodes: Start anew and play until so many episodes have ended, instead.
            explore: Sample actions (True) or take the most probable ones (False); by default as configured.
            random_actions: Act uniformly at random instead.
            force_reset: Start anew.

        Raises:
            InvalidSampleError: A reward or an observation is not finite or of the wrong shape.
        """
        if self.copies is None:
            raise ValueError("this runner has no environment (create_local_env_runner)")
        if num_timesteps is not None and num_episodes is not None:
            raise ValueError("num_timesteps and num_episodes: give one of them")
        explore = self.config.explore if explore is None else explore
        if num_episodes is not None:
            steps = 64  # at a time
        elif num_timesteps is not None:
            steps = math.ceil(num_timesteps / self.num_envs)
        else:
            steps = self.config.get_rollout_fragment_length(self.worker_index or 0)
        with one_thread(), torch.inference_mode():
            if not self._started:
                self._restart(seeds=self._seeds)
                self._started = True
            elif force_reset or num_episodes is not None:
                self._restart()
            rollouts, ended = [], 0
            while True:
                part, more = self._play(steps, explore, random_actions, num_episodes and num_episodes - ended)
                rollouts.append(part)
                ended += more
                if num_episodes is None or ended >= num_episodes:
                    break
        self._log_steps(rollouts, ended)
        self._call("on_sample_end", samples=rollouts)
        return rollouts

    def _play(
        self, steps: int, explore: bool, random_actions: bool, episodes_left: int | None
    ) -> tuple[Rollout, int]:
        """Play ``steps`` steps, or fewer if so many episodes have ended; return them and the number that ended."""
        copies = self.copies
        assert copies is not None
        for group in self._groups:
            group.begin(steps)
        each_step = self._overridden("on_episode_step")
        ended_episodes, t = 0, 0
        while t < steps:
            alive = copies.alive()
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
            self._returns += rewards
            self._lengths += 1
            if truncated.any():
                self._keep_final(t)
            if each_step:
                for e in range(self.num_envs):
                    self._call("on_episode_step", episode=self._record(e), env_index=e)
            over = ~copies.alive().any(axis=1)
            if over.any():
                for e in np.flatnonzero(over):
                    self._end_episode(int(e))
                ended_episodes += int(over.sum())
                self._restart(mask=over)
            t += 1
            for group in self._groups:
                self._observe(group, t)
            if episodes_left and ended_episodes >= episodes_left:
                break
        rollout = Rollout({group.module_id: group.finish(t) for group in self._groups})
        self._check_rewards(rollout)
        return rollout, ended_episodes

    def _act(self, group: _Group, t: int, explore: bool, random_actions: bool) -> Array:
        """Choose and write the actions of a group; return them as the environment takes them."""
        assert self.module is not None
        module = self.module[group.module_id]
        rows = (-1, *group.shape)
        seen: Any = torch.from_numpy(group.observations[t].reshape(rows))
        mask = group.masks[t]
        if group.masked:
            assert mask is not None
            seen = {OBSERVATION: seen, ACTION_MASK: torch.from_numpy(mask.reshape(-1, mask.shape[-1]))}
        batch = {Columns.OBS: seen}
        output = module._forward_exploration(batch) if explore else module._forward_inference(batch)
        inputs = output[Columns.ACTION_DIST_INPUTS].numpy()
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
        if (
            not math.isfinite(out.sum()) and not np.isfinite(out).all()
        ):  # a finite sum of infinities there is not
            e, m, *_ = (int(index) for index in np.argwhere(~np.isfinite(out))[0])
            value = out[e, m][~np.isfinite(out[e, m])][0]
            raise InvalidSampleError(
                f"copy {e}, step {self._lengths[e]}: observation of {group.agents[m]} holds {value}"
            )
        group.masks.append(self.copies.action_mask(group.slots) if group.masked else None)

    def _keep_final(self, t: int) -> None:
        """Keep what truncated agents see: their value continues the return."""
        assert self.copies is not None
        for group in self._groups:
            rows = np.argwhere(group.truncated[t] & group.acted[t])
            if len(rows):
                seen = np.empty((*group.row_shape, *group.shape), np.float32)
                self.copies.observe(group.slots, seen)
                group.final_index.append(np.insert(rows, 0, t, axis=1))
                group.final_observations.append(seen[rows[:, 0], rows[:, 1]])

    def _restart(self, seeds: Array | None = None, mask: Array | None = None) -> None:
        assert self.copies is not None
        self.copies.reset(seeds, mask)
        rows = slice(None) if mask is None else mask
        self._returns[rows] = 0
        self._lengths[rows] = 0
        if self._overridden("on_episode_start"):
            for e in range(self.num_envs) if mask is None else np.flatnonzero(mask):
                self._call("on_episode_start", episode=self._record(int(e)), env_index=int(e))
        if mask is None:
            for group in self._groups:
                group.begin(0)
                group.masks = []
                self._observe(group, 0)
                group.last, group.last_mask = group.observations[0].copy(), group.masks[0]

    def _check_rewards(self, rollout: Rollout) -> None:
        for part in rollout.modules.values():
            if not np.isfinite(part.rewards).all():
                t, e, m = (int(index) for index in np.argwhere(~np.isfinite(part.rewards))[0])
                raise InvalidSampleError(
                    f"copy {e}, step {t} of this rollout: reward of {part.agents[m]} is {part.rewards[t, e, m]}"
                )

    # -- metrics --------------------------------------------------------------------------------------------------

    def _record(self, copy: int) -> EpisodeRecord:
        assert self.copies is not None
        returns = dict(zip(self.copies.agents, self._returns[copy].tolist(), strict=True))
        return EpisodeRecord(returns, int(self._lengths[copy]), {}, copy)

    def _end_episode(self, copy: int) -> None:
        assert self.copies is not None
        record = self._record(copy)
        record.info = self.copies.info(copy)
        scores = {"episode_return": record.get_return(), "episode_len": float(record.length)}
        if self.config.is_multi_agent:
            for agent, value in record.agent_returns.items():
                scores[f"agent_episode_returns_mean/{agent}"] = value
            for group in self._groups:
                scores[f"module_episode_returns_mean/{group.module_id}"] = math.fsum(
                    record.agent_returns[agent] for agent in group.agents
                )
        for key, value in record.info.items():
            if not (key.startswith("steps_to_") and value < 0):  # -1 means «not reached»
                scores[f"info/{key}"] = float(value)
        self._finished.append(scores)
        self._call("on_episode_end", episode=record, env_index=copy)

    def _log_steps(self, rollouts: list[Rollout], ended: int) -> None:
        env_steps = sum(rollout.env_steps() for rollout in rollouts)
        self.num_env_steps_sampled_lifetime += env_steps
        log = self.metrics.log_value
        log(NUM_ENV_STEPS_SAMPLED, env_steps, reduce="sum")
        log(NUM_ENV_STEPS_SAMPLED_LIFETIME, env_steps, reduce="lifetime_sum", with_throughput=True)
        if ended:
            log(NUM_EPISODES, ended, reduce="sum")
            log(NUM_EPISODES_LIFETIME, ended, reduce="lifetime_sum")
        for group in self._groups:
            parts = [rollout.modules[group.module_id] for rollout in rollouts]
            counts = sum(part.acted.sum(axis=(0, 1)) for part in parts).tolist()  # type: ignore[union-attr]
            log((NUM_MODULE_STEPS_SAMPLED, group.module_id), sum(counts), reduce="sum")
            log((NUM_MODULE_STEPS_SAMPLED_LIFETIME, group.module_id), sum(counts), reduce="lifetime_sum")
            for agent, count in zip(group.agents, counts, strict=True):
                log((NUM_AGENT_STEPS_SAMPLED, str(agent)), count, reduce="sum")
                log((NUM_AGENT_STEPS_SAMPLED_LIFETIME, str(agent)), count, reduce="lifetime_sum")

    def get_metrics(self) -> dict[str, Any]:
        """Return the metrics since the last call, and the means over the window of finished episodes."""
        window = max(1, self.config.num_env_runners)  # one value per runner: the mean is over runners
        names = dict.fromkeys(key for scores in self._finished for key in scores)
        for name in names:
            values = [scores[name] for scores in self._finished if name in scores]
            mean = math.fsum(values) / len(values)
            if name in ("episode_return", "episode_len"):
                self.metrics.log_value(f"{name}_mean", mean, window=window)
                self.metrics.log_value(f"{name}_min", min(values), reduce="min", window=window)
                self.metrics.log_value(f"{name}_max", max(values), reduce="max", window=window)
            elif name.startswith("info/"):
                self.metrics.log_value(name.removeprefix("info/"), mean, window=window)
            else:
                self.metrics.log_value(tuple(name.split("/", 1)), mean, window=window)
        return self.metrics.reduce()

    def _overridden(self, name: str) -> bool:
        """Whether anybody listens to a callback."""
        own = any(
            getattr(type(callback), name) is not getattr(RLlibCallback, name) for callback in self._callbacks
        )
        return own or bool(getattr(self.config, f"callbacks_{name}", None))

    def _call(self, name: str, **kwargs: Any) -> None:
        if self._overridden(name):
            make_callback(
                name,
                callbacks_objects=self._callbacks,
                callbacks_functions=getattr(self.config, f"callbacks_{name}", None),
                kwargs={
                    "env_runner": self,
                    "metrics_logger": self.metrics,
                    **(
                        {}
                        if name in ("on_sample_end", "on_environment_created")
                        else self._episode_arguments()
                    ),
                    **kwargs,
                },
            )

    def _episode_arguments(self) -> dict[str, Any]:
        return {"env": self.copies, "rl_module": self.module}

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
                "started": self._started,
                "copies": self.copies.get_state(),
                "rng": self._rng.bit_generator.state,
                "returns": self._returns.copy(),
                "lengths": self._lengths.copy(),
                "finished": list(self._finished),
                "last": {group.module_id: (group.last, group.last_mask) for group in self._groups},
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
        sampling = state.get(_SAMPLING)
        if sampling is not None and self.copies is not None:
            self._finished.clear()
            self._finished.extend(sampling["finished"])
            self._rng.bit_generator.state = sampling["rng"]
            # An environment that cannot be pickled begins new episodes.
            self._started = sampling["started"] and sampling["copies"] is not None
            if self._started:
                self.copies.set_state(sampling["copies"])
                self._returns[:], self._lengths[:] = sampling["returns"], sampling["lengths"]
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


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on this thread: a forward pass over a few rows is slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _by_name(spaces: Mapping[Any, gymnasium.Space]) -> dict[str, gymnasium.Space]:
    return {str(agent): space for agent, space in spaces.items()}
