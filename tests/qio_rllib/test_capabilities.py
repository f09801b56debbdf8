"""What an algorithm declares that it can do is what it takes, and everything else is refused."""

import dataclasses

import gymnasium
import numpy as np
import pytest

from qio_envs.api import ConfigError
from qio_rllib.algorithms import LOCAL_ALGORITHMS
from qio_rllib.algorithms.capabilities import CAPABILITIES, Capabilities, capability_table
from qio_rllib.sampling.environments import register_env

FOREST = ("forest_uav_v0", {"scenario": "sprint", "num_uavs": 3})


class Masked(gymnasium.Env):
    """Discrete actions with a mask."""

    observation_space = gymnasium.spaces.Dict(
        {
            "observation": gymnasium.spaces.Box(-1, 1, (2,), np.float32),
            "action_mask": gymnasium.spaces.Box(0, 1, (3,), np.int8),
        }
    )
    action_space = gymnasium.spaces.Discrete(3)


class Product(gymnasium.Env):
    """Two discrete numbers and a real one as an action."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Dict(
        {
            "gears": gymnasium.spaces.MultiDiscrete([2, 3]),
            "gas": gymnasium.spaces.Box(-1, 1, (1,), np.float32),
        }
    )


register_env("capabilities_product", lambda env_config: Product())
register_env("capabilities_masked", lambda env_config: Masked())

# Of each capability a use of it, and where.
USES = {
    "discrete_actions": (("CartPole-v1", {}), lambda config: config),
    "continuous_actions": (("Pendulum-v1", {}), lambda config: config),
    "product_actions": (("capabilities_product", {}), lambda config: config),
    "action_masks": (("capabilities_masked", {}), lambda config: config),
    "recurrence": (
        FOREST,
        lambda config: config.rl_module(model_config={"use_gru": True, "gru_cell_size": 8, "max_seq_len": 4}),
    ),
    "agent_id": (FOREST, lambda config: config.training(agent_id=True)),
    "several_learners": (FOREST, lambda config: config.learners(num_learners=2)),
    "central_value": (FOREST, lambda config: config.training(central_value="observations")),
    "normalize_values": (FOREST, lambda config: config.training(normalize_values=True)),
    "normalize_observations": (FOREST, lambda config: config.training(normalize_observations=True)),
    "normalize_rewards": (FOREST, lambda config: config.training(normalize_rewards=True)),
    "amplification": (FOREST, lambda config: config.training(amplification={})),
    "entropy_annealing": (FOREST, lambda config: config.training(entropy_annealing={"law": "quantum"})),
    "circuit": (("CartPole-v1", {}), lambda config: config.training(circuit={"num_qubits": 2})),
    "coordination": (("chsh_v0", {"as_team": True}), lambda config: config.training(coordination={})),
    "imagination": (FOREST, lambda config: config.training(imagination={"horizon": 2})),
    "counterfactual_baseline": (FOREST, lambda config: config.training(counterfactual_baseline={})),
    "interventional_consistency": (FOREST, lambda config: config.training(interventional_consistency={})),
    "influence_reward": (FOREST, lambda config: config.training(influence_reward={})),
    "team_reward": (
        FOREST,
        lambda config: config.training(
            team_reward="sum",
            **({"central_value": "observations"} if config.has_team_value else {}),
        ),
    ),
    "self_play": (FOREST, lambda config: config.training(self_play={})),
    "opponent_model": (FOREST, lambda config: config.training(opponent_model={})),
    "time_limits_as_ends": (FOREST, lambda config: config.training(bootstrap_at_time_limit=False)),
    "communication": (FOREST, lambda config: config.training(communication={"bandwidth": 1})),
    "rllib_runner": (FOREST, lambda config: config.env_runners(env_runner_cls=None)),
}

# The word by which a refusal names what was wanted.
NAMED = {
    "time_limits_as_ends": "bootstrap_at_time_limit",
    "discrete_actions": "env",
    "continuous_actions": "env",
    "product_actions": "env",
    "action_masks": "env",
    "recurrence": "use_gru",
    "several_learners": "num_learners",
    "rllib_runner": "env_runner_cls",
}


def test_every_capability_has_a_use_here():
    assert set(USES) == set(CAPABILITIES)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", LOCAL_ALGORITHMS)
def test_an_algorithm_takes_what_it_declares_and_refuses_the_rest(name, capability):
    (env, env_config), use = USES[capability]

    def attempt():
        use(LOCAL_ALGORITHMS[name]().environment(env, env_config=env_config)).validate()

    if getattr(LOCAL_ALGORITHMS[name].capabilities, capability):
        attempt()
    else:
        with pytest.raises(ConfigError, match=name) as caught:
            attempt()
        assert NAMED.get(capability, capability) in str(caught.value).split(": ")[0]
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_an_undeclared_capability_is_refused_whichever_it_is(capability):
    # Take a capability away from an algorithm that has it.
    (env, env_config), use = USES[capability]
    able = next(config for config in LOCAL_ALGORITHMS.values() if getattr(config.capabilities, capability))
    unable = type(
        able.__name__,
        (able,),
        {"capabilities": dataclasses.replace(able.capabilities, **{capability: False})},
    )
    with pytest.raises(ConfigError, match=able.__name__.removesuffix("Config")):
        use(unable().environment(env, env_config=env_config)).validate()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "MADDPG",
            lambda config: config.training(central_value="state"),
            "central_value: MADDPG's critics are central as they are; see critic_state",
        ),
        (
            "MASAC",
            lambda config: config.training(central_value="state"),
            "central_value: MASAC's critics are central as they are; see critic_state",
        ),
        (
            "MADDPG",
            lambda config: config.training(normalize_values=True),
            "normalize_values: MADDPG's critics learn values as they are; scale the rewards instead",
        ),
        (
            "MADDPG",
            lambda config: config.training(entropy_annealing={"law": "quantum"}),
            "entropy_annealing: MADDPG's loss has no entropy; set exploration instead",
        ),
        (
            "DQN",
            lambda config: config.training(amplification={}),
            "amplification: DQN learns values and has no policy of its own; set it to null",
        ),
        (
            "MADDPG",
            lambda config: config.learners(num_learners=2).validate(),
            "num_learners: MADDPG learns in one Learner, got 2; num_env_runners can be more",
        ),
        (
            "A2C",
            lambda config: config.env_runners(env_runner_cls=None).validate(),
            "env_runner_cls: A2C needs BatchedEnvRunner, got None",
        ),
        (
            "MADDPG",
            lambda config: config.environment(normalize_actions=False).validate(),
            r"normalize_actions: MADDPG's actors act in \[-1, 1\]; leave it on",
        ),
        (
            "DQN",
            lambda config: config.environment("Pendulum-v1").validate(),
            "env: DQN needs Discrete actions, the environment has Box",
        ),
        (
            "DQN",
            lambda config: config.rl_module(model_config={"vf_share_layers": True}).validate(),
            "model_config.vf_share_layers: DQN has no value network to share layers with",
        ),
    ],
)
def test_a_refusal_says_what_to_do(name, change, message):
    with pytest.raises(ConfigError, match=message):
        change(LOCAL_ALGORITHMS[name]().environment("forest_uav_v0"))


def test_with_box_actions_the_entropy_law_is_refused_and_the_exponential_one_is_not():
    config = LOCAL_ALGORITHMS["PPO"]().environment("Pendulum-v1")
    with pytest.raises(ConfigError, match="entropy_annealing.law: quantum follows .*take exponential"):
        config.training(entropy_annealing={"law": "quantum"}).validate()
    config.training(entropy_annealing={"law": "exponential"}).validate()


def test_the_table_has_a_row_for_each_capability_and_a_column_for_each_algorithm():
    head, *rows = capability_table(LOCAL_ALGORITHMS)
    assert head == ["", *LOCAL_ALGORITHMS]
    assert [row[0] for row in rows] == [name.replace("_", " ") for name in CAPABILITIES]
    marks = dict(zip(head, rows[CAPABILITIES.index("central_value")], strict=True))
    assert [marks[name] for name in ("A2C", "DQN", "MADDPG", "PPO")] == ["yes", "no", "no", "yes"]


def test_an_algorithm_that_declares_nothing_more_gets_the_least():
    least = Capabilities()
    assert least.discrete_actions
    assert not any(getattr(least, name) for name in ("several_learners", "amplification", "rllib_runner"))
