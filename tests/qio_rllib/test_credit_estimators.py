"""Estimators of credit beside the learners' own numbers."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toy_game
from toy_central import small_config
from toy_off_policy import FOREST
from toy_off_policy import config_of as off_policy_config
from toy_runners import learner_of

from qio_rllib.acting.actor import DIST_INPUTS, LOGP
from qio_rllib.acting.policy import EpisodeStreams
from qio_rllib.algorithms import COMAConfig, DQNConfig, MAACConfig, MADDPGConfig, MASACConfig, PPOConfig
from qio_rllib.causal.baseline import CounterfactualBaselineSettings
from qio_rllib.experiments.credit import Plan, Subject, measure
from qio_rllib.learners.credit_estimators import ESTIMATORS, Case, Trained
from qio_rllib.learners.popart import PopArt
from qio_rllib.learners.training_batch import batch_of
from qio_rllib.models.joint_critics import JointView
from qio_rllib.models.joint_module import COMAModule, MAACModule, one_hot
from qio_rllib.models.values import STATE_SIZE, STATE_SOURCE
from qio_rllib.sampling.continuations import AS_PLAYED, Continuations
from qio_rllib.sampling.counterfactuals import Counterfactuals
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.global_state import StateSource
from qio_rllib.sampling.groups import groups_of, team_of
from qio_rllib.sampling.recorder import RolloutRecorder
from qio_rllib.sampling.rollout import with_limits_as_ends
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.sampled_decisions import sampled_decisions
from qio_rllib.sampling.stepper import EnvStepper


def subject_of(config, popart=None):
    """Modules of a configuration with weights that say something, without training."""
    torch.manual_seed(1)
    runner = BatchedEnvRunner(config=config)
    learner = learner_of(config, runner)
    modules = {name: module.unwrapped() for name, module in learner.module.items()}
    with torch.no_grad():
        for module in modules.values():
            for parameter in module.parameters():
                parameter.mul_(2.0)
    runner.stop()
    env = make_vector_env(config.env, dict(config.env_config), 1)
    team = team_of(env, groups_of(env, config), modules, config, (DIST_INPUTS, LOGP))
    source = config.model_config.get(STATE_SOURCE)
    trained = Trained(team, modules, 0.95, 0.8, {} if popart is None else dict.fromkeys(modules, popart))
    state_source = None if source is None else StateSource(source, config.model_config[STATE_SIZE])
    return Subject(config.env, dict(config.env_config), trained, state_source)


def played(subject, seeds, counterfactuals=None):
    """The rollout of whole episodes, as a runner records it."""
    env = make_vector_env(subject.env, subject.env_config, len(seeds))
    counted = counterfactuals and Counterfactuals(env, subject.team, subject.state_source, counterfactuals)
    stepper, draws = EnvStepper(env, subject.team, subject.state_source, counted), EpisodeStreams(seeds)
    stepper.reset(np.array(seeds, np.uint64))
    recorder = RolloutRecorder(stepper, 12, memory_interval=12)
    gone = np.zeros(len(seeds), bool)
    while stepper.alive.any():
        recorder.before()
        step = stepper.step(draws, True)
        into = recorder.record(step)
        gone |= step.over
        if step.over.any():
            env.retire(step.over)
        stepper.advance(step, into)
        stepper.alive[gone] = False
        recorder.after()
    return recorder.finish()


def learners_advantages(subject, part, module_id, counterfactuals=None):
    """What the learner makes of a rollout, [T, E, M]."""
    trained = subject.trained
    batch = batch_of(
        trained.modules[module_id], [part], trained.gamma, trained.lambda_, trained.popart.get(module_id),
        torch.device("cpu"), counterfactuals,
    )  # fmt: skip
    found = batch.columns["advantages"]
    if batch.valid is not None:
        padded = found.reshape(-1, *part.acted.shape[1:])
        return padded[: part.num_steps].numpy()
    full = np.full(part.acted.shape, np.nan, np.float32)
    full[part.acted] = found.numpy()
    return full


def popart():
    found = PopArt()
    found.mean, found.deviation = 3.0, 2.0
    return found


LEAVING = {"num_agents": 3, "out_radius": 2.0, "max_steps": 9, "process_noise": 0.5, "actions": "discrete"}
"""Agents of the swarm that soon leave, and are dead then."""


def leaving():
    return (
        PPOConfig()
        .environment("swarm_cooperative_v0", env_config=LEAVING)
        .env_runners(num_env_runners=0)
        .rl_module(model_config={"fcnet_hiddens": [8]})
    )


CASES = {
    "own value": (lambda: small_config(central_value=None), None),
    "central value": (small_config, None),
    "PopArt": (small_config, popart),
    "two modules": (lambda: small_config(policies={"one": ["uav_0"], "two": ["uav_1", "uav_2"]}), None),
    "agents that die": (leaving, None),
}


@pytest.mark.parametrize("case", CASES)
def test_advantages_are_those_that_the_learner_takes_from_the_same_rollout(case):
    config, scale = CASES[case]
    subject = subject_of(config(), scale and scale())
    found = measure(subject, Plan(states=9, branches=2, seed=20))
    settings = CounterfactualBaselineSettings()
    rollout = played(subject, range(20, 29), settings)
    compared = 0
    for module_id, part in rollout.modules.items():
        plain = learners_advantages(subject, part, module_id)
        against = learners_advantages(subject, part, module_id, settings)
        for d, one in enumerate(found.decisions):
            members = np.flatnonzero(part.agent_index == one.agent)
            for m in members:
                place = (one.step, one.seed - 20, m)
                assert part.actions[place] == one.action
                for name, advantages in (("GAE", plain), ("GAE, counterfactual baseline", against)):
                    assert found.estimates[name][d, one.action, 0] == pytest.approx(
                        advantages[place], abs=1e-5
                    )
                compared += 1
    legal = np.stack([one.legal for one in found.decisions])
    for values in (found.truth.values, found.estimates["GAE"][..., 0]):
        np.testing.assert_array_equal(np.isnan(values), ~legal)
    assert compared == len(found.decisions) == 9
    assert len({one.step for one in found.decisions}) > 3


@pytest.mark.parametrize("model", ["use_lstm", "use_gru"])
def test_with_memory_too(model):
    config = small_config(central_value="state").rl_module(
        model_config={"fcnet_hiddens": [8], model: True, "lstm_cell_size": 4, "gru_cell_size": 4}
    )
    subject = subject_of(config)
    found = measure(subject, Plan(states=6, branches=2, seed=20))
    ((module_id, part),) = played(subject, range(20, 26)).modules.items()
    advantages = learners_advantages(subject, part, module_id)
    for d, one in enumerate(found.decisions):
        single = found.estimates["GAE"][d, one.action, 0]
        assert single == pytest.approx(advantages[one.step, one.seed - 20, one.agent], abs=1e-5)


@pytest.mark.parametrize("limits_end", [True, False])
def test_a_limit_ends_returns_where_it_did_for_the_learner(limits_end):
    subject = subject_of(small_config(central_value="state"))
    subject = dataclasses.replace(
        subject, trained=dataclasses.replace(subject.trained, limits_end=limits_end)
    )
    found = measure(subject, Plan(states=6, branches=2, seed=20))
    ((module_id, part),) = played(subject, range(20, 26)).modules.items()
    cut, whole = (learners_advantages(subject, one, module_id) for one in (with_limits_as_ends(part), part))
    assert np.abs(cut - whole).max() > 0.01
    for d, one in enumerate(found.decisions):
        place = (one.step, one.seed - 20, one.agent)
        wanted = cut[place] if limits_end else whole[place]
        assert found.estimates["GAE"][d, one.action, 0] == pytest.approx(wanted, abs=1e-5)


def test_the_mean_of_returns_less_value_is_the_truth_less_value():
    """Where episodes terminate, its only error is that of the value, which is the same for all actions."""
    with toy_game.registered():
        subject = subject_of(
            PPOConfig()
            .environment("toy_game_v0")
            .env_runners(num_env_runners=0)
            .rl_module(model_config={"fcnet_hiddens": [8]})
        )
        found = measure(subject, Plan(states=6, branches=20, seed=4))
    (module,) = subject.trained.modules.values()
    for d, one in enumerate(found.decisions):
        with torch.no_grad():
            value = module.value(torch.from_numpy(one.moment.obs[0][0, one.agent]))[0].item()
        mean = found.estimates["return - value"][d, :, 1:].mean(axis=-1)
        np.testing.assert_allclose(mean, found.truth.values[d] - value, atol=1e-5)
        # one step before the end there is nothing behind the reward: all three are the same
        if one.step == 2:
            for name in ("GAE", "one-step TD"):
                np.testing.assert_allclose(
                    found.estimates[name][d], found.estimates["return - value"][d], atol=1e-5
                )


def cases_of(subject, given_others=False, states=4):
    """Decisions of the last agent with two branches, and what is asked of its module."""
    env = make_vector_env(subject.env, subject.env_config, 1)
    agent = len(env.agents) - 1
    found, longest = sampled_decisions(
        env.env, subject.team, subject.state_source, range(states), [agent] * states, 0
    )
    player = Continuations(
        env.env, subject.team, subject.state_source, 0, 3, given_others=given_others, longest=longest
    )
    return found, agent, [Case(subject.trained, part) for part in player.play([*enumerate(found)], 2)]


CRITICS = {
    "MADDPG": (MADDPGConfig, {}),
    "two modules": (MADDPGConfig, {"policies": {"one": ["uav_0"], "two": ["uav_1", "uav_2"]}}),
    "attention": (MADDPGConfig, {"critic": {"type": "attention", "hiddens": [16], "heads": 2}}),
    "MASAC": (MASACConfig, {}),
    "COMA": (COMAConfig, {}),
    "COMA, two modules": (COMAConfig, {"policies": {"one": ["uav_0"], "two": ["uav_1", "uav_2"]}}),
    "COMA, PopArt": (COMAConfig, {"normalize_values": True}),
    "MAAC": (MAACConfig, {"critic": {"hiddens": [16], "heads": 2}}),
    "MAAC, two modules": (MAACConfig, {"policies": {"one": ["uav_0"], "two": ["uav_1", "uav_2"]}}),
    "messages": (MADDPGConfig, {"communication": {"bandwidth": 2, "drop": 0.3}}),
}


def value_of(subject, module, view, joint, member, action):
    """What a module's critics say of what its agent does."""
    if isinstance(module, COMAModule):
        return float(module.critic()(view, joint)[0, member, action])
    if isinstance(module, MAACModule):
        agents = module.settings["joint"]
        critic = subject.trained.modules[agents["modules"][0]].attention().critic
        return float(critic(view, joint).values[agents["own"]][0, member, action])
    return min(float(net.critic(view, joint)[0, member]) for net in module.critic_networks())


@pytest.mark.parametrize("case", CRITICS)
def test_critics_of_actions_are_asked_about_each_action_while_the_others_did_what_they_did(case):
    algorithm, settings = CRITICS[case]
    policies = settings.get("policies")
    training = {name: value for name, value in settings.items() if name != "policies"}
    if algorithm is COMAConfig:
        config = (
            COMAConfig()
            .environment("forest_uav_v0", env_config=FOREST)
            .env_runners(num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=16)
            .training(**training)
            .rl_module(model_config={"fcnet_hiddens": [8]})
        )
    else:
        config = off_policy_config("forest", algorithm=algorithm, **training)
    scale = popart() if "normalize_values" in training else None
    subject = subject_of(config.multi_agent(policies=policies) if policies else config, scale)
    found, _, asked = cases_of(subject)
    compared = 0
    for one in asked:
        part, count = one.continuation, one.probabilities.shape[1]
        g, member = part.group, part.member
        got = one.less_mean(one.joint_values())
        for c, index in enumerate(part.decision):
            moment, row = found[index].moment, c * count
            inboxes = None
            if case == "messages":
                reached = [torch.from_numpy(acted.extras["delivered"][row]) for acted in part.acted]
                said = torch.from_numpy(part.acted[0].extras["messages"][row])
                inboxes = [(links[..., None] * said).sum(1)[None] / links.sum(1).clamp_min(1)[None, :, None]
                           for links in reached]  # fmt: skip
            view = JointView(
                [torch.from_numpy(obs).flatten(2) for obs in moment.obs],
                [torch.ones(obs.shape[:2]) for obs in moment.obs],
                inboxes,
                torch.from_numpy(moment.global_state),
            )
            values = []
            for action in range(count):
                done = [torch.from_numpy(acted.actions[row : row + 1]).clone() for acted in part.acted]
                done[g][0, member] = action
                joint = [torch.nn.functional.one_hot(chosen, count).float() for chosen in done]
                with torch.no_grad():
                    values.append(value_of(subject, one.module, view, joint, member, action))
            if scale is not None:
                values = [value * scale.deviation + scale.mean for value in values]
            expected = np.array(values) - found[index].probabilities @ values
            np.testing.assert_allclose(got[c], expected, atol=1e-5)
            compared += 1
    assert compared == 4 * 3


def test_critics_are_told_who_is_gone():
    config = (
        COMAConfig()
        .environment("swarm_cooperative_v0", env_config=LEAVING)
        .env_runners(num_env_runners=0, rollout_fragment_length=9)
        .training(critic={"hiddens": [16]}, num_critic_updates=1)
        .rl_module(model_config={"fcnet_hiddens": [8]})
    )
    found, _, asked = cases_of(subject_of(config), states=12)
    gone = 0
    for one in asked:
        part, count = one.continuation, one.probabilities.shape[1]
        done = [torch.from_numpy(part.acted[0].actions[::count])]
        for c, index in enumerate(part.decision):
            moment = found[index].moment
            gone += int((~moment.alive).any())
            view = JointView(
                [torch.from_numpy(moment.obs[0])],
                [torch.from_numpy(moment.alive).float()],
                None,
                None if moment.global_state is None else torch.from_numpy(moment.global_state),
            )
            with torch.no_grad():
                values = one.module.critic()(view, [one_hot(done[0][c : c + 1], count)])[0, part.member]
            np.testing.assert_allclose(one.joint_values()[c], values, atol=1e-5)
    assert gone > 0


def test_a_critic_with_memory_is_not_asked_about_a_single_step():
    model = {"use_gru": True, "gru_cell_size": 4, "max_seq_len": 5}
    config = off_policy_config(
        "forest", algorithm=MAACConfig, critic={"hiddens": [8], "heads": 2}, model=model
    )
    assert measure(subject_of(config), Plan(states=2, branches=1, horizon=1)).estimates == {}


def test_which_estimates_are_given_what_the_others_did():
    assert {one.name for one in ESTIMATORS if one.given_others} == {"critic of actions"}


def test_an_illegal_action_is_not_the_best_one():
    case = SimpleNamespace(
        probabilities=np.array([[0.5, 0.0, 0.5]]), q_values=lambda: np.array([[1.0, 5.0, 2.0]])
    )
    (over_best,) = (one for one in ESTIMATORS if one.name == "Q - max")
    assert over_best.estimate(case)[0, [0, 2]].tolist() == [-1.0, 0.0]


def test_q_networks_with_memory_remember_what_was_before_the_decision():
    model = {"use_gru": True, "gru_cell_size": 4, "max_seq_len": 5}
    found, agent, asked = cases_of(subject_of(off_policy_config("forest", algorithm=DQNConfig, model=model)))
    for one in asked:
        network = one.module.policy
        for c, index in enumerate(one.continuation.decision):
            moment = found[index].moment
            row, state = moment.obs[0][0, agent], moment.memory[0]["policy"][0, agent]
            with torch.no_grad():
                features, _ = network.features(torch.from_numpy(row)[None], torch.from_numpy(state)[None])
                np.testing.assert_allclose(one.q_values()[c], network.outputs(features)[0], atol=1e-5)
    assert any(found[index].moment.memory[0]["policy"].any() for index in range(len(found)))


def test_q_networks_are_asked_about_what_the_agent_sees():
    subject = subject_of(off_policy_config("forest", algorithm=DQNConfig))
    subject = dataclasses.replace(subject, trained=dataclasses.replace(subject.trained, reward_scale=0.1))
    for module in subject.trained.modules.values():
        module.policy.exploration.fill_(0.3)
    found, agent, asked = cases_of(subject)
    for one in asked:
        for c, index in enumerate(one.continuation.decision):
            decision = found[index]
            row = torch.from_numpy(decision.moment.obs[0][0, agent])
            with torch.no_grad():
                values = one.module.policy.outputs(one.module.policy.features(row, None)[0]).numpy()
            np.testing.assert_allclose(one.q_values()[c], values / 0.1, atol=1e-4)  # in the rewards' unit
            probabilities = np.where(decision.legal, 0.3 / decision.legal.sum(), 0.0)
            probabilities[np.where(decision.legal, values, -np.inf).argmax()] += 0.7
            np.testing.assert_allclose(decision.probabilities, probabilities, atol=1e-6)
    plan = Plan(states=3, branches=2, horizon=2)
    estimates = measure(subject, plan).estimates
    assert set(estimates) == {"Q - mean", "Q - max"}
    assert (np.nanmax(estimates["Q - max"], axis=1) == 0).all()


def test_others_do_what_they_did_where_that_is_asked_for():
    subject = subject_of(small_config())
    for given in (False, True):
        found, agent, asked = cases_of(subject, given)
        same = []
        for one in asked:
            part, count = one.continuation, one.probabilities.shape[1]
            actions = part.acted[0].actions.reshape(-1, count, 3)
            assert (actions[:, :, :agent] == actions[:, :1, :agent]).all()  # in all rows of a branch alike
            legal = np.stack([found[index].legal for index in part.decision])
            tried = np.where(legal, np.arange(count), [[found[index].action] for index in part.decision])
            np.testing.assert_array_equal(actions[:, :, agent], tried)
            for c, index in enumerate(part.decision):
                done = found[index].actions[0][0, :agent]
                same.append((actions[c, 0, :agent] == done).all())
                if part.branch[c] == AS_PLAYED:
                    assert same[-1]
        assert all(same) == given
