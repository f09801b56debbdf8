"""Opponent models: what they are taught, what policies make of their predictions, and how well they predict."""

import dataclasses

import numpy as np
import pytest
import torch
from toy_lives import Lives
from toy_runners import config_of, learner_of, lives, runner_of

from qio_envs.api import ConfigError
from qio_rllib.acting.pooled_actor import LEARNING
from qio_rllib.algorithms import DQNConfig, MADDPGConfig, PPOConfig
from qio_rllib.learners.opponent_modelling import OTHERS_ACTED, OTHERS_ACTIONS, with_others
from qio_rllib.models.opponent_model import OpponentModel, OpponentModelSettings, OtherAgents
from qio_rllib.sampling.rollout import Rollout, without_snapshots

SPREAD = ("mpe_spread_v0", {"continuous_actions": True, "max_steps": 6})
REPEATED = ("matrix_game_v0", {"game": "matching_pennies", "rounds": 6, "memory": 2})
MEMORY = {"use_lstm": True, "lstm_cell_size": 5, "max_seq_len": 4}


def config(task=REPEATED, settings=None, memory=None, **changes):
    found = config_of(*task, 3, 12, opponent_model=settings or {}, **changes)
    return found.rl_module(model_config={"fcnet_hiddens": [8], **(memory or {})})


def played(config):
    """Return a Learner, and a rollout of its own modules."""
    torch.manual_seed(0)
    runner = runner_of(config)
    learner = learner_of(config, runner)
    learner.module.set_state(runner.get_state()["rl_module"])
    return learner, runner.sample()[0]


def others_of(rollout: Rollout) -> dict:
    """Return (what the other agents did, whether they did) of each module, found agent by agent."""
    by_agent = {}
    for part in rollout.modules.values():
        for m, index in enumerate(part.agent_index.tolist()):
            by_agent[index] = (part.actions[:, :, m], part.acted[:, :, m])
    found = {}
    for module_id, part in rollout.modules.items():
        rows = []
        for index in part.agent_index.tolist():
            others = [by_agent[other] for other in sorted(by_agent) if other != index]
            rows.append([np.stack(arrays, axis=2) for arrays in zip(*others, strict=True)])
        found[module_id] = [np.stack(arrays, axis=2) for arrays in zip(*rows, strict=True)]
    return found


# -- what they are taught -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policies", ["shared", "independent", {"pair": ["a", "c"], "single": ["b"]}])
def test_targets_are_what_the_others_did_in_the_step(policies):
    register = lives()  # whose agents come and go
    runner = runner_of(register.multi_agent(policies=policies))
    (rollout,) = runner.sample()
    expected = others_of(rollout)
    for module_id, part in with_others(rollout).modules.items():
        actions, acted = expected[module_id]
        assert acted.shape == (*part.acted.shape, 2)
        assert acted.any()
        assert not acted.all()
        np.testing.assert_array_equal(part.columns[OTHERS_ACTED], acted)
        np.testing.assert_array_equal(part.columns[OTHERS_ACTIONS][acted], actions[acted])
        assert not part.columns[OTHERS_ACTIONS][~acted].any()


def test_agents_that_snapshots_play_are_predicted_and_do_not_learn():
    swarm = ("swarm_competitive_v0", {"scenario": "duel", "max_steps": 10})
    runner = runner_of(config(swarm, self_play={"current_share": 0.0}))
    (rollout,) = runner.sample()
    part = next(iter(rollout.modules.values()))
    learning = np.zeros_like(part.acted)
    learning[:, :, 0] = True  # the second agent is a snapshot's
    changed = dataclasses.replace(part, columns={**part.columns, LEARNING: learning})
    found = without_snapshots(with_others(Rollout({"shared": changed}))).modules["shared"]
    assert not found.acted[:, :, 1].any()
    assert found.columns[OTHERS_ACTED][:, :, 0].all()
    np.testing.assert_array_equal(found.columns[OTHERS_ACTIONS][:, :, 0, 0], part.actions[:, :, 1])


@pytest.mark.parametrize("memory", [None, MEMORY])
@pytest.mark.parametrize("task", [REPEATED, SPREAD, "lives"])
def test_the_loss_is_the_mean_negative_log_likelihood_of_those_that_acted(task, memory):
    if task == "lives":
        settings = lives()
        settings.training(opponent_model={"coefficient": 3.0})
        settings.rl_module(model_config={"fcnet_hiddens": [8], **(memory or {})})
    else:
        settings = config(task, {"coefficient": 3.0}, memory)
    learner, rollout = played(settings)
    (module_id, part), *_ = with_others(rollout).modules.items()
    module = learner.module[module_id].unwrapped()
    batch = learner.prepare(module_id, [part])
    with torch.no_grad():
        outputs = batch.flat(learner._forward(learner.module[module_id], batch)[2])
        loss = float(learner._opponents.loss(module_id, module, outputs, batch.flat_columns()))
    columns = {name: value.numpy() for name, value in batch.flat_columns().items()}
    assert outputs.shape[:2] == columns[OTHERS_ACTED].shape
    total, hits = [], []
    for row, (did, acted) in enumerate(zip(columns[OTHERS_ACTIONS], columns[OTHERS_ACTED], strict=True)):
        for k in np.flatnonzero(acted):
            found = outputs[row, k].numpy().astype(np.float64)
            if task == SPREAD:
                error = found - did[k].clip(-1, 1)
                total.append((error**2).sum() / 2)
                hits.append((error**2).mean())
            else:
                total.append(np.log(np.exp(found).sum()) - found[did[k]])
                hits.append(found.argmax() == did[k])
    assert len(total) == columns[OTHERS_ACTED].sum() > 0
    assert loss == pytest.approx(3.0 * np.mean(total), rel=1e-5)
    report = learner._opponents.report(module_id, module)
    name = "opponent_error" if task == SPREAD else "opponent_accuracy"
    assert report == {
        "opponent_loss": pytest.approx(np.mean(total), rel=1e-5),
        name: pytest.approx(np.mean(hits), rel=1e-5),
    }
    assert learner._opponents.report(module_id, module) == {}


def test_the_weighted_loss_is_added_to_that_of_the_policy():
    settings = [config(settings={"coefficient": weight}) for weight in (0.1, 2.0)]
    losses = []
    for one in settings:
        learner, rollout = played(one)
        found = learner.update(episodes=[rollout], num_epochs=1, minibatch_size=36)["shared"]
        losses.append({name: float(stat.peek()) for name, stat in found.items() if "loss" in name})
    added = (2.0 - 0.1) * losses[0]["opponent_loss"]
    assert losses[1]["total_loss"] - losses[0]["total_loss"] == pytest.approx(added, rel=1e-4)


# -- what policies make of it -------------------------------------------------------------------------------------


@pytest.mark.parametrize("discrete", [True, False])
def test_what_is_predicted_stands_behind_the_features_and_is_cut_off(discrete):
    torch.manual_seed(0)
    model = OpponentModel(4, OtherAgents(2, 3, discrete), OpponentModelSettings(hiddens=(5,)), "tanh")
    features = torch.randn(7, 4, requires_grad=True)
    found = model.beside(features)
    outputs = model(features)
    predicted = torch.softmax(outputs, -1) if discrete else outputs
    assert torch.equal(found[:, :4], features)
    torch.testing.assert_close(found[:, 4:], predicted.reshape(7, 6))
    assert torch.equal(model.beside(features, outputs), found)
    found.sum().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(features.grad, torch.ones_like(features))  # through themselves alone
    features.grad = None
    errors = model.errors(
        outputs, torch.zeros((7, 2) if discrete else (7, 2, 3)).long(), torch.ones(7, 2) > 0
    )
    errors.nll.sum().backward()
    assert all(parameter.grad.any() for parameter in model.parameters())
    assert features.grad.any()


@pytest.mark.parametrize("feed", [True, False])
def test_predictions_change_the_policy_where_they_are_fed(feed):
    learner, rollout = played(config(settings={"feed": feed}))
    policy = learner.module["shared"].unwrapped().policy
    rows = torch.from_numpy(rollout.modules["shared"].observations.reshape(-1, 9))
    before, _ = policy(rows)
    with torch.no_grad():
        policy.opponents.layers[-1].bias += torch.tensor([2.0, -2.0])
    assert torch.equal(policy(rows)[0], before) == (not feed)


def test_the_policys_loss_leaves_the_predictor_and_the_prediction_moves_the_encoder():
    learner, rollout = played(config())
    policy = learner.module["shared"].unwrapped().policy
    batch = learner.prepare("shared", [with_others(rollout).modules["shared"]])
    dist_inputs, values, others = learner._forward(learner.module["shared"], batch)
    (dist_inputs.square().sum() + values.sum()).backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in policy.opponents.parameters())
    assert policy.encoder.layers[0].weight.grad.any()
    policy.zero_grad()
    others.square().sum().backward()
    assert all(parameter.grad.any() for parameter in policy.opponents.parameters())
    assert policy.encoder.layers[0].weight.grad.any()


@pytest.mark.parametrize("memory", [None, MEMORY, {"vf_share_layers": True}])
@pytest.mark.parametrize("task", [REPEATED, SPREAD])
def test_a_learner_computes_what_its_actors_acted_by(task, memory):
    learner, rollout = played(config(task, memory=memory))
    for module_id, part in with_others(rollout).modules.items():
        batch = learner.prepare(module_id, [part])
        with torch.no_grad():
            found = batch.flat(learner._forward(learner.module[module_id], batch)[0])
        torch.testing.assert_close(found, batch.flat_columns()["action_dist_inputs"], rtol=1e-4, atol=1e-5)


# -- how well they predict ----------------------------------------------------------------------------------------


def test_a_deterministic_opponent_is_predicted():
    game = ("matrix_game_v0", {"game": "rock_paper_scissors", "rounds": 20, "memory": 2})
    settings = config_of(*game, 8, 20, opponent_model={}, lr=0.01)
    settings.multi_agent(policies="independent", policies_to_train=["agent_0"])
    runner = runner_of(settings)
    with torch.no_grad():  # so that what the opponent does follows from the rounds before
        runner.module["agent_1"].unwrapped().policy.head.layers[-1].weight *= 1000.0
    learner = learner_of(settings, runner)
    learner.module.set_state(runner.get_state()["rl_module"])
    found = []
    for _ in range(30):
        result = learner.update(episodes=runner.sample(), num_epochs=4, minibatch_size=80)
        found.append(float(result["agent_0"]["opponent_accuracy"].peek()))
        runner.set_state({"rl_module": learner.module.get_state(inference_only=True)})
    assert found[0] < 0.8
    assert min(found[-3:]) > 0.95
    assert "opponent_accuracy" not in result["agent_1"]


# -- what is refused ----------------------------------------------------------------------------------------------


class Mixed(Lives):
    """Agents of which one has fewer actions."""

    def action_space(self, agent):
        import gymnasium

        return gymnasium.spaces.Discrete(2 if agent == "a" else 3)


def test_fewer_actions_of_some_agents_are_predicted_as_of_those_with_the_most():
    from qio_rllib.sampling.environments import register_env

    register_env("mixed", lambda env_config: Mixed())
    found = PPOConfig().environment("mixed").training(opponent_model={})
    assert found.model_config["other_agents"] == {"count": 2, "num_actions": 3, "is_discrete": True}
    found.environment("matrix_game_v0", env_config={})  # what is noted follows the environment
    assert found.model_config["other_agents"] == {"count": 1, "num_actions": 3, "is_discrete": True}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coefficient": 0}, "opponent_model.coefficient: expected a finite number above 0 .*, got 0"),
        ({"coefficient": float("inf")}, "config.opponent_model.coefficient: expected a finite"),
        ({"hiddens": [0]}, r"opponent_model.hiddens: expected sizes of at least 1, got \[0\]"),
        ({"feed": 1}, "opponent_model.feed: expected true or false, got 1"),
        ({"fed": True}, r"opponent_model: unknown key 'fed' \(did you mean 'feed'\?\)"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        PPOConfig().environment(*REPEATED[:1]).training(opponent_model=settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda _: PPOConfig().training(opponent_model={}).environment("CartPole-v1"),
            "opponent_model: CartPole-v1 has a single agent; set it to null",
        ),
        (
            lambda c: c.training(circuit={"num_qubits": 2}).validate(),
            "opponent_model: does not go with circuit; set one of the two to null",
        ),
        (
            lambda c: c.training(communication={"bandwidth": 2}).validate(),
            "opponent_model: does not go with communication; set one of the two to null",
        ),
        (
            lambda c: c.env_runners(env_runner_cls=None).validate(),
            "env_runner_cls: opponent_model needs BatchedEnvRunner",
        ),
        (
            lambda _: config(SPREAD).environment(normalize_actions=False).validate(),
            "normalize_actions: opponent_model predicts actions in",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        change(config())


@pytest.mark.parametrize("config_class", [DQNConfig, MADDPGConfig])
def test_algorithms_without_it_say_so(config_class):
    with pytest.raises(
        ConfigError, match="opponent_model: .*'s policy does not predict the other agents; PPO's"
    ):
        config_class().training(opponent_model={})


def test_an_environment_of_another_number_of_agents_is_not_learned_from():
    learner, _ = played(config(SPREAD))
    runner = runner_of(config((SPREAD[0], {**SPREAD[1], "num_agents": 4})))
    with pytest.raises(ConfigError, match="the policy predicts 2 other agents, the environment has 3"):
        learner.update(episodes=runner.sample())
