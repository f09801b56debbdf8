"""Who may say what to whom: targets, hierarchies, gates, bits; what is recorded of it, learned from it and reported."""

import dataclasses

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.columns import Columns
from toy_lives import Lives
from toy_off_policy import setup_of

from qio_envs.api import ConfigError
from qio_rllib.acting.team import DELIVERED, INBOX, MESSAGE_NOISE, MESSAGES, SENT
from qio_rllib.algorithms import A2CConfig, MADDPGConfig, PPOConfig
from qio_rllib.artifacts.metrics import progress_row
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.learners import joint_update
from qio_rllib.learners.conversation import converse
from qio_rllib.learners.joint_update import _Update
from qio_rllib.models.communication import Communication
from qio_rllib.models.messages import Speaker
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.evaluation import evaluate, policy_from_modules
from qio_rllib.sampling.runner import BatchedEnvRunner

SWARM = ("swarm_cooperative_v0", {"scenario": "hidden_target", "max_steps": 7})
PARTS = {"first": ["agent_1"], "others": ["agent_0", "agent_2"]}
LEADERS = [["agent_2", "agent_0"], ["agent_1"]]
KINDS = {
    "broadcast": {"bandwidth": 3, "drop": 0.3},
    "targeted": {"bandwidth": 2, "routing": "targeted", "signature": 3, "drop": 0.3},
    "bits": {"bits": 3},
    "gated": {"bandwidth": 2, "gate": {"cost": 0.1}},
    "hierarchical": {"bandwidth": 2, "routing": "hierarchical", "leaders": LEADERS},
    "all": {"bits": 2, "routing": "targeted", "signature": 2, "gate": {"cost": 0.1}, "drop": 0.2},
}
MODELS = {
    "feedforward": {"fcnet_hiddens": [8]},
    "lstm": {"fcnet_hiddens": [8], "use_lstm": True, "lstm_cell_size": 4, "max_seq_len": 4},
}
kinds = pytest.mark.parametrize("kind", KINDS)
models = pytest.mark.parametrize("model", MODELS)


def config_of(
    kind, algorithm=PPOConfig, model="feedforward", policies=PARTS, env=SWARM, num_envs=4, **training
):
    config = algorithm().environment(env[0], env_config=env[1])
    if policies:
        config.multi_agent(policies=policies)
    if algorithm is PPOConfig:
        training = {"train_batch_size_per_learner": 40, "minibatch_size": 30, "num_epochs": 2} | training
    if algorithm is MADDPGConfig:
        training = {"train_batch_size_per_learner": 16, "critic": {"hiddens": [8]}} | training
        training = {"num_steps_sampled_before_learning_starts": 80, "env_steps_per_update": 20} | training
        training = {"replay_capacity": 512} | training
    return (
        config.env_runners(num_env_runners=0, num_envs_per_env_runner=num_envs, rollout_fragment_length=10)
        .training(communication=KINDS[kind] if isinstance(kind, str) else kind, **training)
        .rl_module(model_config=MODELS[model])
        .reporting(min_sample_timesteps_per_iteration=40)
        .debugging(seed=3)
    )


def learner_of(config, runner):
    config.validate()
    learner = config.learner_class(
        config=config, module_spec=config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    )
    learner.build()
    for module_id, module in runner.module.items():
        module.load_state_dict(learner.module[module_id].state_dict(), strict=False)
    return learner


# -- settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env": ("CartPole-v1", {}), "policies": None}, "communication: CartPole-v1 has a single agent"),
        ({"kind": {"bits": 1, "routing": "hierarchical", "leaders": [["agent_0", "x"]]}}, "leaders: "),
        ({"self_play": {}, "policies": None}, "communication: with self_play messages stay within a team"),
        ({"normalize_observations": True}, "communication: does not go with normalize_observations"),
        ({"counterfactual_baseline": {}}, "communication: does not go with counterfactual_baseline"),
    ],
)
def test_what_does_not_go_together_is_refused(change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        config_of(**{"kind": "bits", **change}).validate()
    assert "\n" not in str(caught.value)
    config = config_of("bits").rl_module(model_config={"vf_share_layers": True})
    with pytest.raises(ConfigError, match="vf_share_layers: values do not see messages"):
        config.validate()


def test_leaders_are_all_agents_of_the_environment():
    for leaders, missing in (
        ([["agent_0", "agent_1"]], "agent_2 is in no group"),
        ([["agent_0", "agent_1", "agent_2", "agent_3"]], "agent_3 is no agent of the environment"),
    ):
        with pytest.raises(ConfigError, match=missing):
            config_of({"bits": 1, "routing": "hierarchical", "leaders": leaders}).validate()


# -- what the learner makes of what was recorded


@models
@pytest.mark.parametrize(
    ("kind", "env"), [*((kind, "swarm") for kind in KINDS), ("all", "lives"), ("hierarchical", "lives")]
)
def test_ppo_gives_what_the_actor_gave(kind, model, env):
    """Over the links that worked and with the noise that was drawn, whichever agents were there."""
    register_env("whispering_lives", lambda env_config: Lives())
    there, policies = SWARM, PARTS
    given = KINDS[kind]
    if env == "lives":
        there, policies = ("whispering_lives", {}), {"others": ["c", "a"], "single": ["b"]}
        given = given | {"leaders": [["b", "a"], ["c"]]} if kind == "hierarchical" else given
    config = config_of(given, model=model, policies=policies, env=there)
    runner = BatchedEnvRunner(config=config)
    learner = learner_of(config, runner)
    rollout = runner.sample()[0]
    parts = {module_id: [part] for module_id, part in rollout.modules.items()}
    update = _Update(learner, parts)
    batches = {module_id: learner.prepare(module_id, found) for module_id, found in parts.items()}
    seen = {}
    original = learner.losses

    def spy(module_id, config, batch, policy, values):
        seen[module_id] = policy.logp(batch[Columns.ACTIONS]), batch
        return original(module_id, config, batch, policy, values)

    learner.losses = spy
    update._step(
        update._select(batches, np.arange(next(iter(batches.values())).units // len(update.indices[0])))
    )
    assert set(seen) == set(parts)
    for module_id, (logp, batch) in seen.items():
        part = rollout.modules[module_id]
        assert len(logp) == part.acted.sum()
        np.testing.assert_allclose(logp.detach(), batch[Columns.ACTION_LOGP], atol=2e-5)
        if kind in ("bits", "gated", "all"):
            assert np.ptp(part.columns[MESSAGE_NOISE]) > 1


@kinds
@models
def test_maddpg_gives_what_the_actor_gave(kind, model):
    config = config_of(kind, MADDPGConfig, model, num_envs=6, exploration=0.0)
    setup = setup_of(config, sequences=model == "lstm", count=20)
    with torch.no_grad():
        outputs, openness = setup.learner.present_outputs(setup.modules, setup.rows)
    assert len(openness) == (2 if "gate" in KINDS[kind] else 0)
    for found, done, acted in zip(outputs, setup.rows.actions, setup.rows.acted, strict=True):
        torch.testing.assert_close(torch.tanh(found)[acted > 0], done[acted > 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("burn_in", [0, 1, 3])
def test_no_gradient_passes_through_steps_that_only_fill_memories(burn_in):
    setup = setup_of(config_of("broadcast", MADDPGConfig, "lstm", num_envs=6), sequences=True, count=20)
    talk = setup.learner.talk(setup.rows)
    talk = dataclasses.replace(talk, obs=[rows.clone().requires_grad_() for rows in talk.obs])
    policies = [module.policy for module in setup.modules]
    found = converse(policies, talk, setup.learner.joint["indices"], burn_in)
    sum(features.square().sum() for features in found.features).backward()
    for rows in talk.obs:
        assert not rows.grad[:burn_in].any()
        assert rows.grad[burn_in:].flatten(1).any(dim=1).all()


@pytest.mark.parametrize("binary", [False, True])
def test_agents_begin_by_speaking(binary):
    """Who is never heard cannot learn what to say."""
    torch.manual_seed(0)
    speaker = Speaker(6, [16], "tanh", value=2, signature=2, binary=binary, gated=True)
    rows = torch.randn(1000, 6)
    spoken = speaker(rows)
    assert 0.8 < float(spoken.openness.mean()) < 0.95
    assert float(spoken.gates.detach().mean()) > 0.95
    assert abs(float(spoken.messages.detach().mean(0).mean())) < 0.5  # what they say is not moved


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("algorithm", [PPOConfig, A2CConfig, MADDPGConfig])
@models
def test_a_whole_update_moves_every_part_of_every_speaker(algorithm, model):
    config = config_of("all", algorithm, model)
    built = config.build_algo()
    before = {
        module_id: {name: p.clone() for name, p in module.named_parameters() if "speaker" in name}
        for module_id, module in built.learner_group._learner.module.items()
    }
    for _ in range(2):
        result = built.train()
    for module_id, module in built.learner_group._learner.module.items():
        now = dict(module.named_parameters())
        for name, old in before[module_id].items():
            assert (now[name] != old).any(), (module_id, name)
    row = progress_row(result)
    assert 0 <= row["env_runners/bits_sent"] <= 4
    built.stop()


def test_all_modules_go_down_the_sum_of_their_losses(monkeypatch):
    config = config_of("gated")
    runner = BatchedEnvRunner(config=config)
    learner = learner_of(config, runner)
    parts = {module_id: [part] for module_id, part in runner.sample()[0].modules.items()}
    update, totals, descend = _Update(learner, parts), [], joint_update.descend
    monkeypatch.setattr(
        joint_update, "descend", lambda them, loss, *more: totals.append(loss) or descend(them, loss, *more)
    )
    stats = update._step({key: learner.prepare(key, found) for key, found in parts.items()})
    assert len(stats) == 2
    losses = [float(one["total_loss"]) for one in stats.values()]
    assert float(totals[0].detach()) == pytest.approx(sum(losses), rel=1e-6)


def test_no_gradient_reaches_whom_nobody_hears():
    kind = {"bandwidth": 2, "routing": "hierarchical", "leaders": [["agent_0", "agent_2"], ["agent_1"]]}
    config = config_of(kind, minibatch_size=None)
    runner = BatchedEnvRunner(config=config)
    learner = learner_of(config, runner)

    def gradients(cut):
        rollout = runner.sample()[0]
        for part in rollout.modules.values():
            part.columns[DELIVERED][..., cut] = False
        parts = {module_id: [part] for module_id, part in rollout.modules.items()}
        update = _Update(learner, parts)
        update.epochs({key: learner.prepare(key, found) for key, found in parts.items()}, 1, None)
        return {
            module_id: sum(float(p.grad.abs().sum()) for p in module.policy.speaker.parameters())
            for module_id, module in update.modules.items()
        }

    assert min(gradients([]).values()) > 0  # agent_1 alone in its module is heard by agent_0 of the other one
    assert gradients([1])["first"] == 0
    assert gradients([0, 2])["others"] == 0


@pytest.mark.parametrize("algorithm", [PPOConfig, MADDPGConfig])
def test_a_message_costs_what_is_said(algorithm):
    """The loss of each sender grows by the cost times the mean probability that its gate opens."""
    losses, opened = {}, {}
    for cost in (0.0, 2.0):
        config = config_of({"bandwidth": 2, "gate": {"cost": cost}}, algorithm, num_envs=4)
        if algorithm is MADDPGConfig:
            setup = setup_of(config)
            setup.learner.communication = Communication(2, gate={"cost": cost})
            *_, actors = setup.learner.losses(setup.rows)
            losses[cost] = {key: loss.item() for key, loss in actors.losses.items()}
            with torch.no_grad():
                openness = setup.learner.present_outputs(setup.modules, setup.rows)[1]
            opened = {
                key: (rows * acted).sum().item() / acted.sum().item()
                for key, rows, acted in zip(actors.losses, openness, setup.rows.acted, strict=True)
            }
        else:
            runner = BatchedEnvRunner(config=config)
            learner = learner_of(config, runner)
            parts = {module_id: [part] for module_id, part in runner.sample()[0].modules.items()}
            update = _Update(learner, parts)
            batches = {key: learner.prepare(key, found) for key, found in parts.items()}
            talk = update._talk([*batches.values()])
            policies = [update.modules[key].policy for key in batches]
            with torch.no_grad():
                openness = converse(policies, talk, update.indices).openness
            opened = {key: rows.mean().item() for key, rows in zip(batches, openness, strict=True)}
            losses[cost] = {key: one["total_loss"].item() for key, one in update._step(batches).items()}
    for key, share in opened.items():
        assert 0.1 < share < 0.99
        assert losses[2.0][key] - losses[0.0][key] == pytest.approx(2 * share, rel=1e-3)


# -- what is reported, kept and resumed


def test_bits_are_counted_by_hand():
    config = config_of({"bits": 3, "routing": "targeted", "signature": 2, "gate": {}})
    runner = BatchedEnvRunner(config=config)
    rollout = runner.sample()[0]
    sent = np.concatenate([part.columns[SENT] for part in rollout.modules.values()], axis=2)
    assert 0 < sent.mean() < 1
    assert runner.get_metrics()["bits_sent"].peek() == pytest.approx(5 * sent.mean())
    for part in rollout.modules.values():
        said, spoke = part.columns[MESSAGES], part.columns[SENT]
        assert set(np.unique(said[spoke])) == {-1.0, 1.0}
        assert not said[~spoke].any()
        assert part.columns[INBOX].shape[-1] == 3
    assert Communication(4, routing="targeted").message_bits == (4 + 8) * 32
    assert Communication(2).message_bits == 64
    policy = policy_from_modules(dict(runner.module.items()), config)
    counted = []
    team = policy.team_for(["agent_0", "agent_1", "agent_2"])
    original = type(team).bits_sent
    type(team).bits_sent = lambda self, acted: counted.append(original(self, acted)) or counted[-1]
    try:
        rows = evaluate(policy, *SWARM, [1, 2], explore=True)
    finally:
        type(team).bits_sent = original
    np.testing.assert_allclose([row["bits_sent"] for row in rows], np.mean(counted, axis=(0, 2)))


def test_silent_and_absent_agents_send_nothing():
    register_env("whispering_lives", lambda env_config: Lives())
    config = config_of({"bits": 1}, env=("whispering_lives", {}), policies=None)
    runner = BatchedEnvRunner(config=config)
    part = runner.sample()[0].modules["shared"]
    np.testing.assert_array_equal(part.columns[SENT], part.acted)
    assert runner.get_metrics()["bits_sent"].peek() == pytest.approx(1.0)


@pytest.mark.parametrize(("kind", "model"), [("all", "lstm"), ("hierarchical", "feedforward")])
def test_a_file_acts_and_counts_as_the_policy_does(kind, model, tmp_path):
    config = config_of(kind, model=model)
    policy = policy_from_modules(dict(BatchedEnvRunner(config=config).module.items()), config)
    loaded = load_policy(save_policy(policy, tmp_path / "policy.pt"))
    assert loaded.team.communication == dataclasses.replace(
        Communication.of(KINDS[kind]), leaders=loaded.team.communication.leaders
    )
    for explore in (False, True):
        one, two = (evaluate(p, *SWARM, [5, 6], explore) for p in (policy, loaded))
        assert one == two


def test_nothing_is_drawn_where_nothing_is_explored():
    config = config_of({"bits": 2, "gate": {}})
    policy = policy_from_modules(dict(BatchedEnvRunner(config=config).module.items()), config)
    assert not policy.team.draws
    one, two = (evaluate(policy, *SWARM, [5], explore=False) for _ in range(2))
    assert one == two


def numbers(result):
    return {
        name: value
        for name, value in progress_row(result).items()
        if "time" not in name and "per_s" not in name
    }


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("algorithm", [PPOConfig, MADDPGConfig])
def test_a_resumed_run_equals_an_uninterrupted_one(algorithm, tmp_path):
    training = {"central_value": "state"} if algorithm is PPOConfig else {"burn_in": 1}
    whole = config_of("all", algorithm, "lstm", **training).build_algo()
    for _ in range(3):
        whole.train()
    path = str(tmp_path / "checkpoint")
    whole.save_to_path(path)
    expected = [numbers(whole.train()) for _ in range(2)]
    whole.stop()
    resumed = Algorithm.from_checkpoint(path)
    assert [numbers(resumed.train()) for _ in range(2)] == expected
    resumed.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_snapshots_talk_too():
    config = config_of("all", MADDPGConfig, "lstm", self_play={"snapshot_interval": 1, "current_share": 0.0})
    algorithm = config.build_algo()
    for _ in range(3):
        result = algorithm.train()
    assert progress_row(result)["env_runners/bits_sent"] > 0
    algorithm.stop()


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_remote_runners_talk_and_report(tmp_path):
    config = config_of("all", model="lstm").env_runners(num_env_runners=1)
    algorithm = config.build_algo()
    for _ in range(2):
        row = progress_row(algorithm.train())
    assert 0 < row["env_runners/bits_sent"] <= 4
    assert np.isfinite(row["learners/first/total_loss"])
    assert row["learners/first/mean_kl_loss"] < 0.1
    algorithm.stop()
