"""QMIX and VDN: losses against loops, team rewards, deaths, memory, several modules, what they can represent."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from toy_off_policy import config_of, moved_apart, setup_of

from qio_envs.api import ConfigError
from qio_envs.matrix_game import NAMED_GAMES
from qio_rllib.algorithms import QMIXConfig, VDNConfig
from qio_rllib.sampling.replay import JointReplay, joint_transitions
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.team_reward import with_team_reward

GRU = {"use_gru": True, "gru_cell_size": 6, "max_seq_len": 5}
SCALE = 0.5  # of rewards
GAMMA = 0.9


def mixing(task, algorithm=QMIXConfig, sequences=False, count=12, **settings):
    """Return a Learner and transitions whose rewards are a team's."""
    config = config_of(task, algorithm=algorithm, gamma=GAMMA, reward_scale=SCALE, **settings)
    return setup_of(config, sequences=sequences, count=count)


def mixed_by_hand(setup, own, best):
    """Return (mixed values, targets, whether each row counts), row by row, agent by agent."""
    rows, first = setup.rows, setup.modules[0]
    order = np.argsort([index for members in setup.learner.joint["indices"] for index in members])

    def team(parts, row):
        return torch.as_tensor(np.concatenate([part[row] for part in parts])[order][None]).float()

    values, targets, counts = [], [], []
    with torch.no_grad():
        for row in range(len(rows.rewards[0])):
            acted = [part.numpy()[row] for part in rows.acted]
            goes_on = [part.numpy()[row] for part in rows.present_next]
            mine = [q[row] * a for q, a in zip(own, acted, strict=True)]
            next_values = [q[row] * p for q, p in zip(best, goes_on, strict=True)]
            state = next_state = None
            if rows.global_state is not None:
                state, next_state = rows.global_state[row : row + 1], rows.next_global_state[row : row + 1]
            values.append(float(first.mixer(team([[m] for m in mine], 0), state)))
            following = float(first.target_mixer(team([[m] for m in next_values], 0), next_state))
            alive = any(part.any() for part in goes_on)
            targets.append(
                SCALE * float(rows.rewards[0][row, 0]) + float(rows.discounts[0][row, 0]) * alive * following
            )
            counts.append(any(part.any() for part in acted))
    return np.array(values), np.array(targets), np.array(counts)


@pytest.mark.parametrize("algorithm", [QMIXConfig, VDNConfig], ids=["qmix", "vdn"])
@pytest.mark.parametrize("task", ["forest", "masked", "tag"])
def test_the_loss_is_the_square_of_the_mixed_error_to_mixed_double_q_targets(task, algorithm):
    setup = mixing(task, algorithm)
    learner, rows = setup.learner, setup.rows
    for module in setup.modules:
        moved_apart(module.policy, module.target_policy, by=0.5)
        moved_apart(module.target_policy, module.target_mixers, by=0.3)
    own, best = [], []
    for g in range(len(rows.modules)):
        values, following = learner.values(rows, g)
        own.append(values.detach().numpy())
        best.append(following.numpy())
    values, targets, counts = mixed_by_hand(setup, own, best)
    if task == "masked":
        dead = rows.acted[0].numpy() == 0
        assert dead.any()
        assert not dead.all(axis=1).any()
        assert (rows.present_next[0].numpy().any(axis=1) != rows.present_next[0].numpy().all(axis=1)).any()
    stats = learner.gradient_step(rows)
    wanted = ((values - targets)[counts] ** 2).mean()
    shares = [float(stats[name, "q_loss"]) for name in rows.modules]
    assert sum(shares) == pytest.approx(wanted, rel=1e-4)
    assert float(stats[rows.modules[0], "team_q_mean"]) == pytest.approx(
        values[counts].mean(), rel=1e-3, abs=1e-4
    )


def test_every_network_learns_and_targets_follow():
    setup = mixing("tag", target_network_update_freq=None, tau=0.5)
    chasers, prey = setup.modules
    assert len(chasers.mixers) == 1
    assert len(prey.mixers) == 0
    before = copy.deepcopy([module.state_dict() for module in setup.modules])
    setup.learner.gradient_step(setup.rows)
    for module, old in zip(setup.modules, before, strict=True):
        for name, value in module.state_dict().items():
            if name.startswith("mixers.") or (name.startswith("policy.") and name.endswith("weight")):
                assert not torch.equal(value, old[name]), name
            if name.startswith(("target_mixers.", "target_policy.")) and name.endswith("weight"):
                present = module.state_dict()[name.removeprefix("target_")]
                torch.testing.assert_close(value, (old[name] + present) / 2)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_vdn_is_qmix_with_a_sum_mixer_to_the_bit():
    found = []
    for algorithm, settings in (
        (VDNConfig, {"bootstrap_at_time_limit": False}),
        (QMIXConfig, {"mixer": {"type": "sum"}}),
    ):
        config = config_of("forest", algorithm=algorithm, **settings)
        built = config.build_algo()
        assert built.replay.team
        assert not built.config.bootstrap_at_time_limit
        for _ in range(2):
            built.train()
        found.append(built.learner_group._learner.module["shared"].unwrapped().state_dict())
        built.stop()
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


# -- returns over several steps


def test_a_teams_return_goes_on_when_an_agent_dies():
    """Lives, rewards 1 to 5 to all: a ends in step 2, b in 5 with c; the team's episode ends in 5."""
    settings = {"fragment": 20, "num_envs": 1, "bootstrap_at_time_limit": True}
    runner = BatchedEnvRunner(config=config_of("lives", algorithm=QMIXConfig, **settings))
    replay = JointReplay(50, 1, n_step=3, gamma=GAMMA, team=True)
    replay.add(with_team_reward(runner.sample()[0], "common"))
    batch = replay.sample(400)
    columns = batch.modules["shared"]
    a, c = 0, 2
    for time in range(5):
        rows = columns["observations"][:, c, 1] == time
        assert rows.any()
        rewards = [GAMMA**k * (time + 1 + k) for k in range(min(3, 5 - time))]
        for agent in range(3):  # also of agents that are not there any more
            np.testing.assert_allclose(columns["rewards"][rows, agent], sum(rewards), rtol=1e-6)
            np.testing.assert_allclose(columns["discounts"][rows, agent], GAMMA ** len(rewards), rtol=1e-6)
        np.testing.assert_array_equal(columns["next_observations"][rows, c, 1], min(time + 3, 5))
        assert not columns["present_next"][rows, a].any()
        assert columns["present_next"][rows, c].all()  # cut by time: its value is taken


def test_states_are_those_of_the_first_and_the_last_of_the_steps():
    runner = BatchedEnvRunner(config=config_of("forest", fragment=24, num_envs=2, algorithm=QMIXConfig))
    rollout = with_team_reward(runner.sample()[0], "common")
    single = joint_transitions(rollout, GAMMA)
    assert single.global_states is not None
    replay = JointReplay(400, 1, n_step=3, gamma=GAMMA, team=True)
    replay.add(rollout)
    drawn = replay.sample(300)
    # Where a state stands in the rollout, by its content; states within an episode differ.
    flat = single.global_states.reshape(-1, single.global_states.shape[-1])
    following = single.next_global_states.reshape(flat.shape)
    fresh = single.modules["shared"]["fresh"].all(axis=2)
    assert fresh[1:].any()
    for row in range(len(drawn)):
        places = np.flatnonzero((flat == drawn.global_states[row]).all(axis=1))
        wanted = []
        for place in places:
            t, env = divmod(int(place), 2)
            last = t
            while last < min(t + 2, 23) and not fresh[last + 1, env]:
                last += 1
            wanted.append(following[last * 2 + env])
        assert any(np.array_equal(drawn.next_global_states[row], state) for state in wanted)


@pytest.mark.parametrize("n_step", [1, 2, 4])
def test_with_memory_targets_sum_rewards_within_the_sequence(n_step):
    setup = mixing("forest", sequences=True, model=GRU, n_step=n_step, count=30)
    rows, learner = setup.rows, setup.learner
    assert rows.length == 5
    rewards = torch.arange(5.0).repeat_interleave(30)
    ahead = 100 + torch.arange(150.0)
    fresh = torch.rand(150, generator=torch.Generator().manual_seed(0)) < 0.3
    found = learner.targets(rows, rewards, ahead, fresh).reshape(5, 30)
    r, v, f = (x.reshape(5, 30).numpy() for x in (SCALE * rewards, ahead, fresh))
    for t in range(5):
        for b in range(30):
            total, k = r[t, b], 0
            while k < n_step - 1 and t + k + 1 < 5 and not f[t + k + 1, b]:
                k += 1
                total += GAMMA**k * r[t + k, b]
            total += GAMMA**k * v[t + k, b]
            assert float(found[t, b]) == pytest.approx(total, rel=1e-5)


def test_a_recurrent_team_learns_from_sequences():
    setup = mixing("forest", sequences=True, model=GRU, n_step=3, burn_in=2, count=20)
    rows = setup.rows
    assert rows.length == 7
    before = copy.deepcopy(setup.modules[0].policy.memory.state_dict())
    stats = setup.learner.gradient_step(rows)
    assert np.isfinite(float(stats["shared", "q_loss"]))
    assert any(
        not torch.equal(before[name], value)
        for name, value in setup.modules[0].policy.memory.state_dict().items()
    )


def test_steps_that_only_fill_memories_do_not_count():
    setup = mixing("forest", sequences=True, model=GRU, burn_in=2, count=20)
    changed = dataclasses.replace(setup.rows, rewards=[part.clone() for part in setup.rows.rewards])
    changed.rewards[0].unflatten(0, (7, 20))[:2] += 100.0
    first = setup.learner.gradient_step(setup.rows)
    again = mixing("forest", sequences=True, model=GRU, burn_in=2, count=20)
    second = again.learner.gradient_step(changed)
    assert float(first["shared", "q_loss"]) == float(second["shared", "q_loss"])


# -- what it may look at


@pytest.mark.parametrize(
    ("task", "settings", "size"),
    [
        ("forest", {}, "state"),
        ("lives", {}, 9),  # no state(): the observations of three agents
        ("forest", {"mixer": {"state": "observations"}}, "observations"),
        ("forest", {"mixer": {"type": "sum"}}, 0),
    ],
)
def test_where_the_mixers_state_comes_from(task, settings, size):
    config = config_of(task, algorithm=QMIXConfig, **settings)
    description = config.describe_env()
    wanted = {
        "state": description.state_size,
        "observations": sum(space["observation"].shape[0] if hasattr(space, "spaces") else space.shape[0]
                            for space in description.observation_spaces.values()),
    }.get(size, size)  # fmt: skip
    assert config.describe_agents()["state_size"] == wanted
    setup = setup_of(config)
    assert (setup.rows.global_state is None) == (wanted == 0)
    if wanted:
        assert setup.rows.global_state.shape[-1] == wanted


@pytest.mark.parametrize(("algorithm", "form"), [(QMIXConfig, "monotonic"), (VDNConfig, "sum")])
def test_a_mixer_whose_type_is_not_said_is_the_algorithms_own(algorithm, form):
    config = config_of("forest", algorithm=algorithm, mixer={"embedding": 8})
    assert config.module_settings()["mixer"] == {"type": form, "embedding": 8}
    assert (config.describe_agents()["state_size"] == 0) == (form == "sum")


def test_qmix_takes_no_value_where_time_has_cut_an_episode_unless_told_to():
    for algorithm, wanted in ((QMIXConfig, False), (VDNConfig, True)):
        setup = mixing("forest", algorithm)
        (part,), (columns,) = setup.rollout.modules.values(), setup.steps.modules.values()
        cut = ((part.truncated | part.terminated) & part.acted).reshape(columns["present_next"].shape)
        assert cut.any()
        assert (columns["present_next"][cut] == wanted).all()


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("lives", {"mixer": {"state": "state"}}, r"mixer.state: lives has no state\(\): take 'observations'"),
        ("lives", {"team_reward": "max"}, "team_reward: expected common or sum or mean or null, got 'max'"),
        (
            "lives",
            {"team_reward": None},
            "team_reward: QMIX learns one value from one reward; set it to common",
        ),
        ("lives", {"mixer": {"embeding": 3}}, "mixer: unknown key 'embeding'"),
        ("alone", {}, "env: QMIX needs Discrete actions"),
        ("swarm", {}, "env: QMIX needs Discrete actions"),
        ("lives", {"central_value": "observations"}, "central_value: QMIX learns values and has no critic"),
        ("lives", {"amplification": {}}, "amplification: QMIX learns values"),
    ],
)
def test_bad_settings_are_refused(task, settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        config_of(task, algorithm=QMIXConfig, **settings).validate()
    assert "\n" not in str(caught.value)


# -- what can be represented


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize(("algorithm", "best"), [(QMIXConfig, 8.0), (VDNConfig, 7.0)], ids=["qmix", "vdn"])
def test_qmix_finds_the_optimum_of_the_two_step_game_and_vdn_does_not(algorithm, best):
    """Rashid et al. (2018), appendix: from uniform play a sum fits the second matrix with -1.5, 2.5, 2.5 and 6.5."""
    config = (
        algorithm()
        .environment("matrix_game_v0", env_config={"scenario": "two_step"})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16, rollout_fragment_length=16)
        .multi_agent(policies="independent")
        .training(
            exploration=1.0,
            gamma=0.99,
            lr=2e-3,
            train_batch_size_per_learner=128,
            num_steps_sampled_before_learning_starts=256,
            env_steps_per_update=2,
            target_network_update_freq=50,
        )
        .reporting(min_sample_timesteps_per_iteration=3200)
        .debugging(seed=0)
    )
    built = config.build_algo()
    built.train()
    modules = [built.learner_group._learner.module[name].unwrapped() for name in ("agent_0", "agent_1")]
    places = torch.eye(3)
    with torch.no_grad():
        own = [module.policy(places)[0] for module in modules]
        actions = [[int(values[place].argmax()) for values in own] for place in range(3)]
        second = 1 + actions[0][0]
        payoffs = NAMED_GAMES["two_step"].payoffs[:, 0]  # of both
        assert payoffs[second, actions[second][0], actions[second][1]] == best
        joint = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
        values = torch.stack([own[agent][2, joint[:, agent]] for agent in range(2)], dim=1)
        team = modules[0].mixer(values, torch.tensor([0, 0, 1, 0.5]).expand(4, -1))  # half of the rounds left
    built.stop()
    wanted = [-1.5, 2.5, 2.5, 6.5] if algorithm is VDNConfig else [0.0, 1.0, 1.0, 8.0]
    np.testing.assert_allclose(team.numpy(), wanted, atol=0.35 if algorithm is VDNConfig else 0.5)


def test_a_grid_over_settings_of_the_mixer_waits_until_it_is_resolved():
    grid = {"layer_norm": {"grid_search": [True, False]}}
    first = QMIXConfig().environment("forest_uav_v0").training(mixer=grid)
    last = QMIXConfig().training(mixer=grid).environment("forest_uav_v0")
    assert first.mixer == last.mixer == grid
