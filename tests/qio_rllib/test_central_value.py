"""A central value: what it sees, how it is configured, and what runners record for it."""

import itertools

import gymnasium
import numpy as np
import pytest
import torch
from pettingzoo import ParallelEnv
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from toy_central import (
    ENDS,
    FOREST,
    SMALL,
    SPREAD,
    STATE_OF_SMALL,
    EndingsWithState,
    concatenated,
    small_config,
)
from toy_lives import Lives, Masked

from qio_envs.api import ConfigError
from qio_rllib.algorithms import PPOConfig
from qio_rllib.experiments.experiment import Experiment
from qio_rllib.models.values import CentralInputs, ValueNetwork
from qio_rllib.sampling.environments import register_env

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]


@pytest.fixture(autouse=True, scope="module")
def toys(ray_runtime):
    register_env("central_endings", lambda env_config: EndingsWithState(ENDS))
    register_env("central_lives", lambda env_config: Lives())
    register_env("central_masked", lambda env_config: Masked())


# -- the network --------------------------------------------------------------------------------------------------


def critic_and_inputs():
    torch.manual_seed(0)
    critic = ValueNetwork((2, 2), {"fcnet_hiddens": [16, 8]}, central=(5, 3))
    rows, agents = torch.tensor([0, 0, 1, 1, 1, 0]), torch.tensor([0, 1, 0, 1, 2, 2])
    return critic, torch.randn(2, 5), torch.randn(6, 4), rows, agents


def values_of(critic, states, obs, rows, agents):
    return critic(obs, CentralInputs(states, rows, agents))[0]


def test_states_that_are_looked_at_once_give_what_long_input_vectors_give():
    critic, states, obs, rows, agents = critic_and_inputs()
    torch.testing.assert_close(
        values_of(critic, states, obs, rows, agents), concatenated(critic, states[rows], obs, agents)
    )


def test_a_value_depends_on_the_state_the_observation_and_the_agent():
    critic, states, obs, rows, agents = critic_and_inputs()
    before = values_of(critic, states, obs, rows, agents)
    of_state = values_of(critic, states + torch.tensor([[1.0], [0.0]]), obs, rows, agents)
    assert ((of_state != before) == (rows == 0)).all()
    assert (values_of(critic, states, obs + 1, rows, agents) != before).all()
    assert (values_of(critic, states, obs, rows, (agents + 1) % 3) != before).all()


@pytest.mark.parametrize("part", [slice(2, 5), torch.tensor([5, 2])])
def test_some_rows_keep_the_states_that_they_refer_to(part):
    critic, states, obs, rows, agents = critic_and_inputs()
    whole = CentralInputs(torch.cat([torch.full((3, 5), torch.nan), states]), rows + 3, agents)
    some = whole.select(part, 0).used()
    assert len(some.states) == len(rows[part].unique())
    expected = values_of(critic, states, obs, rows, agents)[part]
    torch.testing.assert_close(critic(obs[part], some)[0], expected)


@pytest.mark.parametrize(
    "settings", [{"fcnet_hiddens": [7]}, {"fcnet_use_layernorm": True}, {"fcnet_activation": "relu"}]
)
def test_hidden_layers_are_those_of_the_model_config(settings):
    critic = ValueNetwork((2, 2), {"fcnet_hiddens": [16, 8], **settings}, central=(5, 3))
    sizes = [layer.out_features for layer in critic.modules() if isinstance(layer, torch.nn.Linear)]
    assert sizes == [*settings.get("fcnet_hiddens", [16, 8]), 1]
    kinds = {type(layer) for layer in critic.encoder.rest}
    assert (torch.nn.LayerNorm in kinds) == settings.get("fcnet_use_layernorm", False)
    assert (torch.nn.ReLU in kinds) == (settings.get("fcnet_activation") == "relu")


# -- the configuration --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_order_of_calls_does_not_matter(order):
    config = PPOConfig()
    calls = [
        lambda: config.environment(SPREAD),
        lambda: config.training(central_value="observations", amplification={"eta": 0.3}),
        lambda: config.rl_module(model_config={"fcnet_hiddens": [4]}),
        lambda: config.training(lr=1e-3),
    ]
    for index in order:
        calls[index]()
    config.multi_agent(policies="independent")
    found = config.model_config
    assert config.central_value == found["state_source"] == "observations"
    assert (found["state_size"], found["num_agents"], found["fcnet_hiddens"]) == (54, 3, [4])
    assert found["amplification"]["eta"] == 0.3
    config.validate()


def test_another_environment_is_measured_anew_and_none_takes_all_back():
    config = small_config()
    assert config.model_config["state_size"] == STATE_OF_SMALL
    config.environment(env_config={**SMALL, "height": 5, "num_uavs": 4})
    assert (config.model_config["state_size"], config.model_config["num_agents"]) == (4 * 30 + 1, 4)
    config.training(central_value=None)
    assert config.central_value is None
    assert not {"state_source", "state_size", "num_agents"} & set(config.model_config)


class Nameless(ParallelEnv):
    """Does not say which agents there can be."""

    metadata = {"name": "nameless"}  # noqa: RUF012


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda: small_config(central_value="stat"),
            r"central_value: expected state or observations or null, got 'stat'.*state",
        ),
        (
            lambda: small_config("central_lives"),
            r"central_value: central_lives has no state\(\): take 'observations'",
        ),
        (lambda: small_config("CartPole-v1"), r"central_value: CartPole-v1 has no state\(\)"),
        (
            lambda: (
                register_env("central_nameless", lambda env_config: Nameless())
                or PPOConfig().training(central_value="observations").environment("central_nameless")
            ),
            "central_nameless has no possible_agents; .*critics need agents with fixed",
        ),
        (
            lambda: small_config().env_runners(env_runner_cls=None).validate(),
            "env_runner_cls: central_value needs BatchedEnvRunner, which records states, got None",
        ),
        (
            lambda: (
                small_config(central_value=None, normalize_values=True)
                .env_runners(env_runner_cls=None)
                .validate()
            ),
            "env_runner_cls: normalize_values needs BatchedEnvRunner, got None",
        ),
        (
            lambda: small_config().rl_module(model_config={"vf_share_layers": True}).validate(),
            "vf_share_layers: a central value has a network of its own",
        ),
        (
            lambda: small_config(use_critic=False).validate(),
            "use_critic: false leaves nothing to learn a central value with",
        ),
        (
            lambda: PPOConfig().training(central_value="state").environment(gymnasium.Env).validate(),
            "central_value: set the environment by name",
        ),
        (
            lambda: (
                small_config(SPREAD)
                .rl_module(rl_module_spec=RLModuleSpec(module_class=DefaultPPOTorchRLModule))
                .build_algo()
            ),
            "rl_module_spec: central_value needs an ActorCritic of this package; 'shared' is a DefaultPPOTorch",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        change()
    assert "\n" not in str(caught.value)


def test_a_file_says_it_in_one_line():
    def config_of(value):
        values = {"run": "PPO", "env": SPREAD, "stop": {"training_iteration": 1}}
        return Experiment.from_mapping({**values, "config": {"central_value": value}}).algorithm_config()

    assert config_of("state").model_config["state_size"] == 54
    assert config_of(None).central_value is None
    with pytest.raises(ConfigError, match=r"config.central_value: expected state or observations or null"):
        config_of("obs")


# -- what the runner records --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "env", ["central_lives", "central_masked", FOREST, "mpe2.simple_speaker_listener_v4"]
)
def test_joined_observations_are_those_of_all_modules_and_zeros_for_the_dead(env):
    policies = "shared" if env == FOREST else "independent"
    algorithm = small_config(env, central_value="observations", policies=policies).build_algo()
    for _ in range(2):  # the second goes on from the last state of the first
        (rollout,) = algorithm.env_runner.sample()
        parts = rollout.modules.values()
        living = [np.where(part.acted[..., None], part.observations[:-1], 0) for part in parts]
        expected = np.concatenate([seen.reshape(20, 2, -1) for seen in living], axis=-1)
        for part in parts:
            assert part.global_states.shape[0] == 21
            np.testing.assert_array_equal(part.global_states[:-1], expected)
            assert len(part.final_global_states) == len(part.final_index)
    algorithm.stop()


def test_states_are_the_environments_own_also_at_the_end_of_an_episode():
    algorithm = small_config("central_endings", policies="independent").build_algo()
    (rollout,) = algorithm.env_runner.sample()
    part = rollout.modules["b"]
    np.testing.assert_array_equal(part.global_states[:, 0, 0], np.arange(21) % 7)
    np.testing.assert_array_equal(
        part.final_global_states, np.full((4, 1), 7.0)
    )  # two episodes of two environments
    other = rollout.modules["a"]
    assert len(other.final_global_states) == other.terminated.sum() > 0
    algorithm.stop()


class Relay(Lives):
    """Agent ``a`` is cut in step 2, in which ``b`` comes."""

    def step(self, actions):
        seen, rewards, terminated, truncated, infos = super().step(actions)
        if self.time == 2:
            terminated["a"], truncated["a"] = False, True
        return seen, rewards, terminated, truncated, infos


def test_the_last_state_of_a_cut_agent_holds_those_that_have_just_come():
    register_env("central_relay", lambda env_config: Relay())
    config = small_config("central_relay", central_value="observations", policies="independent")
    algorithm = config.build_algo()
    (rollout,) = algorithm.env_runner.sample()
    part = rollout.modules["a"]
    assert len(part.final_index) == 2 * 4  # an episode has five steps
    for (step, e, _), state in zip(part.final_index, part.final_global_states, strict=True):
        a, b, c = state.reshape(3, 3)
        assert [seen[1] for seen in (a, b, c)] == [2, 2, 2]
        np.testing.assert_array_equal(state[3:], part.global_states[step + 1, e][3:])
    algorithm.stop()
