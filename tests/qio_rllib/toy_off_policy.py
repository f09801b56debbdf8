"""Small off-policy learners with transitions that their own policies have played."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from toy_lives import Lives, Masked

from qio_rllib.algorithms import DQNConfig, MADDPGConfig, MASACConfig
from qio_rllib.learners.transitions import Transitions, transitions_of
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.replay import JointReplay, JointTransitions, joint_transitions
from qio_rllib.sampling.rollout import Rollout
from qio_rllib.sampling.runner import BatchedEnvRunner

FOREST = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 7, "mask_blocked_moves": True}
TAG = {"chasers": ["adversary_0", "adversary_1", "adversary_2"], "prey": ["agent_0"]}
SWARM = {"max_steps": 9}
TASKS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "swarm": ("swarm_cooperative_v0", SWARM, None),
    "discrete": ("swarm_cooperative_v0", {**SWARM, "actions": "discrete"}, None),
    "forest": ("forest_uav_v0", FOREST, None),
    "tag": ("mpe2.simple_tag_v3", {"max_cycles": 9}, TAG),
    "speaker": ("mpe2.simple_speaker_listener_v4", {"max_cycles": 9, "continuous_actions": True}, None),
    "separate": ("swarm_mixed_v0", SWARM, "independent"),
    "alone": ("Pendulum-v1", {"max_episode_steps": 9}, None),
    "pole": ("CartPole-v1", {}, None),
    "lives": ("lives", {}, None),
    "masked": ("masked_lives", {}, None),
    "moving": ("moving_lives", {}, None),
}
ATTENTION = {"type": "attention", "hiddens": [16], "heads": 2}


class Moving(Lives):
    """Actions are numbers in [-2, 2], one a step."""

    def action_space(self, agent: str) -> gymnasium.Space:
        return gymnasium.spaces.Box(-2, 2, (1,), np.float32)

    def step(self, actions: dict[str, Any]) -> Any:
        assert all(np.abs(action).max() <= 2 for action in actions.values())
        return super().step({agent: float(action[0]) for agent, action in actions.items()})  # type: ignore[misc]


class Setup(NamedTuple):
    """A Learner, and what its runner has played."""

    learner: Any
    rollout: Rollout
    steps: JointTransitions
    rows: Transitions

    @property
    def modules(self) -> list[Any]:
        """Its modules, in the order of all lists in ``rows``."""
        return self.learner.modules()


def config_of(
    task: str,
    fragment: int = 16,
    batch: int = 32,
    algorithm: Any = MADDPGConfig,
    model: dict[str, Any] | None = None,
    num_envs: int = 4,
    **training: Any,
) -> Any:
    """Return a small configuration for one of `TASKS`."""
    register_env("lives", lambda env_config: Lives())
    register_env("masked_lives", lambda env_config: Masked())
    register_env("moving_lives", lambda env_config: Moving())
    env, env_config, policies = TASKS[task]
    config = algorithm().environment(env, env_config=env_config)
    if policies:
        config.multi_agent(policies=policies)
    settings = {
        "train_batch_size_per_learner": batch,
        "num_steps_sampled_before_learning_starts": 128,
        "env_steps_per_update": 16,
        "replay_capacity": 500,
    }
    if algorithm in (MADDPGConfig, MASACConfig):
        settings["critic"] = {"hiddens": [16]}
    return (
        config.env_runners(
            num_env_runners=0, num_envs_per_env_runner=num_envs, rollout_fragment_length=fragment
        )
        .training(**settings | training)
        .rl_module(model_config={"fcnet_hiddens": [8], "fcnet_activation": "relu"} | (model or {}))
        .reporting(min_sample_timesteps_per_iteration=128)
        .debugging(seed=3)
    )


def setup_of(config: Any, explore: bool | None = None, sequences: bool = False, count: int = 12) -> Setup:
    """Return a Learner with transitions of its own policy: all steps of a rollout, or sequences from a replay."""
    torch.manual_seed(0)
    runner = BatchedEnvRunner(config=config)
    spec = config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    learner = config.learner_class(config=config, module_spec=spec)
    learner.build()
    runner.set_state({"rl_module": learner.module.get_state(inference_only=True)})
    rollout = runner.sample(explore=explore)[0]
    if sequences:
        replay = JointReplay(
            500,
            1,
            config.sequence_length,
            config.replay_n_step,
            config.gamma,
            team=config.learns_for_the_team,
        )
        replay.add(rollout)
        steps = replay.sample(count)
    else:
        found = joint_transitions(rollout, config.gamma)
        steps = JointTransitions.from_flat(
            {key: array.reshape(-1, *array.shape[2:]) for key, array in found.flat().items()}
        )
    return Setup(learner, rollout, steps, transitions_of(steps, learner.joint, learner.burn_in, "cpu"))


def moved_apart(*networks: torch.nn.Module, by: float = 0.1) -> None:
    """Change parameters at random, so that targets differ from the networks that they follow."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for network in networks:
            for parameter in network.parameters():
                parameter.add_(by * torch.randn(parameter.shape, generator=generator))


def assert_absent_agents_do_not_matter(make: Callable[[], Setup]) -> None:
    """Take a gradient step of two setups that are alike but for what absent agents hold."""
    one, two = make(), make()
    rows = two.rows
    absent, gone = rows.acted[0] == 0, rows.present_next[0] == 0
    for values, where in (
        (rows.obs, absent),
        (rows.actions, absent),
        (rows.rewards, absent),
        (rows.next_obs, gone),
    ):
        values[0][where] = 77.0
    for setup in (one, two):
        setup.learner.gradient_step(setup.rows)
    for left, right in zip(*(setup.modules[0].parameters() for setup in (one, two)), strict=True):
        torch.testing.assert_close(left, right)


__all__ = [
    "ATTENTION",
    "DQNConfig",
    "MADDPGConfig",
    "MASACConfig",
    "Setup",
    "assert_absent_agents_do_not_matter",
    "config_of",
    "moved_apart",
    "setup_of",
]
