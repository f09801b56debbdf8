"""Recurrent policies: cells against the unrolled computation, stored states, RLlib's own LSTM module."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.evaluation.postprocessing import Postprocessing

from qio_envs.api import ConfigError
from qio_rllib.acting.distributions import Distributions
from qio_rllib.algorithms import A2CConfig, PPOConfig
from qio_rllib.models.actor_critic import INPUTS, ActorCritic
from qio_rllib.models.memory import Memory
from qio_rllib.sampling.rollout import join

SMALL = {"height": 10, "width": 10, "num_uavs": 3, "max_steps": 20, "reward": "local"}
KINDS = ("lstm", "gru")


def unrolled_by_hand(memory, features, state, fresh):
    outputs = []
    for t in range(len(features)):
        state = torch.where(fresh[t].unsqueeze(-1), torch.zeros_like(state), state)
        output, state = memory(features[t], state)
        outputs.append(output)
    return torch.stack(outputs), state


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_states_and_gradients_equal_those_of_the_computation_step_by_step(kind):
    generator = torch.Generator().manual_seed(1)
    memory = Memory(kind, 5, 7).double()
    features = torch.randn(9, 4, 5, generator=generator, dtype=torch.double, requires_grad=True)
    start = torch.randn(4, memory.state_size, generator=generator, dtype=torch.double)
    fresh = torch.rand(9, 4, generator=generator) < 0.25
    fresh[0, 0] = True
    weights = torch.randn(9, 4, 7, generator=generator, dtype=torch.double)

    def gradients(outputs):
        return torch.autograd.grad((outputs * weights).sum(), [features, *memory.parameters()])

    outputs, states = memory.unroll(features, start, fresh)
    expected, last = unrolled_by_hand(memory, features, start, fresh)
    torch.testing.assert_close(outputs, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(states[8], last, atol=1e-12, rtol=0)
    torch.testing.assert_close(memory.unroll_states(features, start, fresh)[8], last, atol=1e-12, rtol=0)
    for ours, theirs in zip(gradients(outputs), gradients(expected), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_a_fresh_row_forgets_and_no_gradient_passes_to_what_came_before():
    memory = Memory("gru", 2, 3)
    features = torch.randn(4, 1, 2, requires_grad=True)
    fresh = torch.tensor([[False], [False], [True], [False]])
    outputs, _ = memory.unroll(features, torch.randn(1, 3), fresh)
    outputs[3].sum().backward()
    assert features.grad[:2].abs().max() == 0
    assert features.grad[2:].abs().min() > 0


@pytest.fixture(scope="module", params=[("lstm", None), ("gru", None), ("lstm", "state"), ("lstm", "shared")])
def trained(request, ray_runtime):
    kind, value = request.param
    config = (
        PPOConfig()
        .environment("forest_uav_v0", env_config=SMALL)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .training(train_batch_size_per_learner=60, minibatch_size=60, num_epochs=1, amplification={})
        .rl_module(
            model_config={
                "fcnet_hiddens": [12],
                f"use_{kind}": True,
                f"{kind}_cell_size": 8,
                "max_seq_len": 8,
                "vf_share_layers": value == "shared",
            }
        )
        .debugging(seed=3)
    )
    if value == "state":
        config.training(central_value="state")
    algorithm = config.build_algo()
    algorithm.env_runner.sample()  # so that what follows starts from memories that hold something
    (rollout,) = algorithm.env_runner.sample()
    yield SimpleNamespace(
        algorithm=algorithm,
        learner=algorithm.learner_group._learner,
        part=rollout.modules["shared"],
        shared=value == "shared",
    )
    algorithm.stop()


def test_a_stored_state_replayed_from_the_middle_gives_the_recorded_probabilities(trained):
    part, policy = trained.part, trained.learner.module["shared"].policy
    assert part.memory_interval == 8
    assert len(part.memory["policy"]) == 4  # 30 steps in windows of 8
    steps, envs, agents = part.rewards.shape
    rows = torch.from_numpy(part.observations[:-1].reshape(steps, envs * agents, -1))
    fresh = torch.from_numpy(part.fresh_steps()[:-1].reshape(steps, -1))
    assert fresh[1:].any()  # an episode ends within the rollout
    for window in range(1, 4):
        start = 8 * window
        state = torch.from_numpy(part.memory["policy"][window].reshape(envs * agents, -1))
        assert state.abs().max() > 0.01
        features = policy.unrolled(rows[start:], state, fresh[start:])
        found = policy.distribution(policy.outputs(features), None)
        recorded = torch.from_numpy(part.columns["dist_inputs"][start:].reshape(found.shape))
        torch.testing.assert_close(found, recorded, atol=2e-6, rtol=0)


def test_the_first_ratio_is_one(trained):
    batch = trained.learner.prepare("shared", [trained.part])
    dist_inputs, values, _ = trained.learner._forward(trained.learner.module["shared"], batch)
    columns = batch.flat_columns()
    policy = Distributions(batch.flat(dist_inputs), discrete=True)
    ratio = torch.exp(policy.logp(columns[Columns.ACTIONS]) - columns[Columns.ACTION_LOGP])
    torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-5, rtol=0)
    assert batch.rows == trained.part.acted.sum() == 180
    assert batch.flat(values).shape == (180,)


def test_values_of_windows_equal_those_of_the_whole_rollout(trained):
    """Advantages come from one pass over the rollout, the loss from windows that begin with recorded memories."""
    batch = trained.learner.prepare("shared", [trained.part])
    _, values, _ = trained.learner._forward(trained.learner.module["shared"], batch)
    columns = batch.flat_columns()
    module = trained.learner.module["shared"].unwrapped()
    from qio_rllib.learners.training_batch import _Part

    table = None
    if module.has_central_value:
        table = torch.from_numpy(trained.part.global_states).flatten(0, 1)
    whole, _ = _Part(module, trained.part, 0, table, "cpu").values(recurrent=True)
    expected = {
        tuple(row): value
        for row, value in zip(
            trained.part.observations[:-1].reshape(-1, trained.part.observations.shape[-1]).tolist(),
            whole[:-1].reshape(-1).tolist(),
            strict=True,
        )
    }
    rows = batch.flat(batch.inputs.rows)
    found = batch.flat(values).tolist()
    close = [
        abs(expected[tuple(row)] - value) < 1e-4 for row, value in zip(rows.tolist(), found, strict=True)
    ]
    assert np.mean(close) > 0.95  # equal observations at different times share a key
    assert len(columns[Columns.ACTIONS]) == 180


def test_an_update_changes_memory_and_heads_alike(trained):
    module = trained.learner.module["shared"].unwrapped()
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    trained.learner._epochs("shared", trained.learner.prepare("shared", join([trained.part])), 1, None)
    moved = {
        name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])
    }
    assert moved == set(before)
    module.load_state_dict({**module.state_dict(), **before})


@pytest.fixture(scope="module")
def beside_rllib():
    """Our module and RLlib's, with the same weights, and windows of recorded episodes in which none ends."""
    config = (
        PPOConfig()
        .environment("forest_uav_v0", env_config={**SMALL, "max_steps": 16})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .training(
            train_batch_size_per_learner=64, minibatch_size=64, num_epochs=1, amplification=None,
            entropy_coeff=0.02, clip_param=0.1, vf_loss_coeff=0.7, vf_clip_param=2.0, kl_coeff=0.3,
        )
        .rl_module(
            model_config={
                "fcnet_hiddens": [12], "use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 8,
                "vf_share_layers": False,
            }
        )
        .debugging(seed=4)
    )  # fmt: skip
    algorithm = config.build_algo()
    learner = algorithm.learner_group._learner
    (rollout,) = algorithm.env_runner.sample()
    batch = learner.prepare("shared", [rollout.modules["shared"]])
    ours = learner.module["shared"].unwrapped()
    theirs = DefaultPPOTorchRLModule(
        observation_space=ours.observation_space,
        action_space=ours.action_space,
        model_config=vars(
            DefaultModelConfig(fcnet_hiddens=[12], use_lstm=True, lstm_cell_size=8, vf_share_layers=False)
        ),
        catalog_class=PPOCatalog,
    )
    for network, encoder, head in (
        (ours.policy, theirs.encoder.actor_encoder, theirs.pi),
        (ours.value, theirs.encoder.critic_encoder, theirs.vf),
    ):
        pairs = zip(
            [*network.encoder.parameters(), *network.memory.parameters(), *network.head.parameters()],
            [*encoder.tokenizer.parameters(), *encoder.lstm.parameters(), *head.parameters()],
            strict=True,
        )
        with torch.no_grad():
            for mine, other in pairs:
                other.copy_(mine)
    yield SimpleNamespace(learner=learner, batch=batch, ours=ours, theirs=theirs, algorithm=algorithm)
    algorithm.stop()


@pytest.mark.usefixtures("ray_runtime")
def test_rllibs_own_lstm_module_gives_the_same_loss_on_the_same_windows(beside_rllib):
    learner, batch = beside_rllib.learner, beside_rllib.batch
    assert not batch.inputs.fresh[1:].any()
    config = learner.config.get_config_for_module("shared")

    def state(name):
        hidden, cell = batch.inputs.memory[name].chunk(2, dim=-1)
        return {"h": hidden.unsqueeze(1), "c": cell.unsqueeze(1)}

    swapped = {name: column.transpose(0, 1) for name, column in batch.columns.items()}
    rows = {
        Columns.OBS: batch.inputs.rows.transpose(0, 1),
        Columns.STATE_IN: {"actor": state("policy"), "critic": state("value")},
        **swapped,
    }
    output = beside_rllib.theirs._forward_train(rows)
    its_config = learner.config.copy(copy_frozen=False).env_runners(env_runner_cls=None)
    stock = PPOTorchLearner(config=its_config, module_spec=learner._module_spec)
    stock.build()
    stock._module._rl_modules["shared"] = beside_rllib.theirs
    stock.curr_kl_coeffs_per_module["shared"].data.copy_(learner.curr_kl_coeffs_per_module["shared"].data)
    expected = stock.compute_loss_for_module(module_id="shared", config=config, batch=rows, fwd_out=output)
    dist_inputs, values, _ = learner._forward(learner.module["shared"], batch)
    policy = Distributions(batch.flat(dist_inputs), discrete=True)
    loss, stats = learner.losses("shared", config, batch.flat_columns(), policy, batch.flat(values))
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    assert stats["vf_loss"] > 0
    assert Postprocessing.VALUE_TARGETS in batch.columns


@pytest.mark.usefixtures("ray_runtime")
def test_rllibs_own_runner_plays_and_trains_a_recurrent_module_of_ours():
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=1, env_runner_cls=None)
        .training(train_batch_size_per_learner=100, minibatch_size=50, num_epochs=1, amplification={})
        .rl_module(
            model_config={"fcnet_hiddens": [8], "use_lstm": True, "lstm_cell_size": 4, "max_seq_len": 10}
        )
    )
    algorithm = config.build_algo()
    result = algorithm.train()
    algorithm.stop()
    assert np.isfinite(result["learners"]["default_policy"]["total_loss"])


@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("kind", KINDS)
def test_a2c_with_memory_and_continuous_actions_learns_from_windows(kind):
    config = (
        A2CConfig()
        .environment("swarm_cooperative_v0", env_config={"out_radius": 2.1, "max_steps": 30})
        .env_runners(num_envs_per_env_runner=2, rollout_fragment_length=16)
        .training(train_batch_size_per_learner=32, central_value="observations")
        .rl_module(
            model_config={"fcnet_hiddens": [8], f"use_{kind}": True, f"{kind}_cell_size": 4, "max_seq_len": 8}
        )
        .reporting(min_sample_timesteps_per_iteration=200)
        .debugging(seed=1)
    )
    algorithm = config.build_algo()
    result = algorithm.train()
    algorithm.stop()
    assert np.isfinite(result["learners"]["shared"]["total_loss"])
    # agents have left, so that some rows of windows count for nothing
    assert result["env_runners"]["exits"] > 0


def test_both_memories_at_once_are_refused():
    with pytest.raises(ConfigError, match="use_lstm and use_gru exclude each other"):
        ActorCritic(
            observation_space=gymnasium.spaces.Box(-1, 1, (3,)),
            action_space=gymnasium.spaces.Discrete(2),
            model_config={"use_lstm": True, "use_gru": True},
        )


def test_a_module_with_memory_keeps_its_value_network_in_runners_and_others_do_not():
    space, actions = gymnasium.spaces.Box(-1, 1, (3,)), gymnasium.spaces.Discrete(2)
    for settings, kept in (({}, False), ({"use_gru": True, "gru_cell_size": 4}, True)):
        module = ActorCritic(
            observation_space=space, action_space=actions, inference_only=True, model_config=settings
        )
        assert hasattr(module, "value") == kept
    assert INPUTS
