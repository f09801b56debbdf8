"""Agents that share a quantum state or a random number: no signalling, the bounds of the CHSH game, refusals."""

import itertools
import types
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

import qio_envs
from qio_envs.adapters.team import TeamEnv
from qio_envs.api import ConfigError
from qio_envs.chsh import CLASSICAL_BOUND, QUANTUM_BOUND
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import ActorInputs, NetworkActor
from qio_rllib.algorithms import PPOConfig
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.artifacts.video import record_episode
from qio_rllib.experiments.experiment import Experiment
from qio_rllib.models.actor_critic import ActorCritic
from qio_rllib.models.coordination import (
    CoordinationSettings,
    NoSignallingBox,
    SharedRandomness,
    SharedState,
)
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, load_policy_from_checkpoint, mean_scores

BOUNDS = {
    "entangled": QUANTUM_BOUND,
    "separable": CLASSICAL_BOUND,
    "shared_randomness": CLASSICAL_BOUND,
    "no_signalling": 1.0,
}
RESOURCES = tuple(BOUNDS)
SHAPES = [(2, 2, 2), (2, 3, 3), (3, 2, 2), (3, 3, 1), (1, 3, 2), (2, 4, 2)]  # agents, actions, numbers seen
QUESTIONS = torch.tensor(list(itertools.product((0, 1), repeat=2)))  # [4, 2]: x and y
SEEN = torch.nn.functional.one_hot(QUESTIONS, 2).flatten(1).float()  # [4, 4]
WINS = torch.tensor(
    [[float(a ^ b == x & y) for a, b in itertools.product((0, 1), repeat=2)] for x, y in QUESTIONS.tolist()]
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spaces(agents, actions, size):
    box = gymnasium.spaces.Box(-np.inf, np.inf, (agents * size,), np.float32)
    return box, gymnasium.spaces.Discrete(actions**agents)


def network_of(resource, agents=2, actions=2, size=2, seed=0, spread=1.0, **settings):
    """Return a network with random parameters."""
    torch.manual_seed(seed)
    given = CoordinationSettings.of({"num_agents": agents, "resource": resource, **settings})
    network = given.network(agents * size, actions**agents)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return network


def win_rate(network):
    """Return the exact probability of a win in the CHSH game, differentiable."""
    return (torch.softmax(network(SEEN), -1) * WINS).sum(-1).mean()


# -- what the agents can do ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", RESOURCES)
@pytest.mark.parametrize(("agents", "actions", "size"), SHAPES)
def test_nobody_learns_what_the_others_see(resource, agents, actions, size):
    for seed in range(6):
        network = network_of(resource, agents, actions, size, seed)
        seen = torch.randn(12, agents, size, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            probs = network(seen.flatten(1)).exp().reshape(12, *[actions] * agents)
        torch.testing.assert_close(probs.flatten(1).sum(1), torch.ones(12), atol=1e-5, rtol=0)
        for agent in range(agents):
            changed = torch.randn(12, agents, size, generator=torch.Generator().manual_seed(99 + seed))
            changed[:, agent] = seen[:, agent]
            with torch.no_grad():
                other = network(changed.flatten(1)).exp().reshape(12, *[actions] * agents)
            rest = [1 + k for k in range(agents) if k != agent]
            mine, again = (x.sum(rest) if rest else x for x in (probs, other))
            torch.testing.assert_close(mine, again, atol=3e-6, rtol=0)
            assert mine.std(0).max() > 1e-3  # but on what it sees itself it does depend


@pytest.mark.parametrize(("agents", "actions", "size"), SHAPES)
def test_separable_agents_act_independently_and_the_others_do_not(agents, actions, size):
    seen = torch.randn(9, agents * size, generator=torch.Generator().manual_seed(0))
    for resource in RESOURCES:
        with torch.no_grad():
            probs = network_of(resource, agents, actions, size, 3)(seen).exp()
        probs = probs.reshape(9, *[actions] * agents)
        product = torch.ones(9, *[1] * agents)
        for agent in range(agents):
            rest = [1 + k for k in range(agents) if k != agent]
            product = product * (probs.sum(rest, keepdim=True) if rest else probs)
        distance = (probs - product).abs().max()
        if resource == "separable" or agents == 1:
            assert distance < 3e-6
        else:
            assert distance > 1e-2


@pytest.mark.parametrize("resource", RESOURCES)
def test_no_draw_of_parameters_beats_its_bound(resource):
    bound = BOUNDS[resource]
    best = 0.0
    for seed in range(150):
        network = network_of(resource, seed=seed, spread=10.0 ** (seed % 3 - 1), num_layers=1 + seed % 2)
        with torch.no_grad():
            best = max(best, float(win_rate(network)))
            anything = (torch.softmax(network(SEEN), -1) * WINS.flip(0)).sum(-1).mean()  # a relabelled game
        assert float(anything) <= bound + 1e-6
    assert 0.5 < best <= bound + 1e-6


@pytest.mark.parametrize("resource", RESOURCES)
def test_gradient_ascent_reaches_its_bound_and_stays_below(resource):
    bound = BOUNDS[resource]
    reached = []
    for seed in (0, 1, 2):
        network = network_of(resource, seed=seed, spread=0.0)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        for _ in range(100):
            loss = -win_rate(network)
            assert -loss.item() <= bound + 1e-6
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        reached.append(-loss.item())
    assert max(reached) > bound - 0.01


@pytest.mark.parametrize(("agents", "actions"), [(1, 2), (2, 2), (2, 3), (3, 2)])
def test_a_box_is_the_sum_over_all_bits_that_agents_put_in_and_get(agents, actions):
    values = 3
    network = network_of("no_signalling", agents, actions, 2, seed=5, num_values=values)
    assert isinstance(network, NoSignallingBox)
    seen = torch.randn(4, agents, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        numbers = torch.einsum("bnd,ndk->bnk", seen, network.response) + network.offset
        numbers = numbers.reshape(4, agents, values, 1 + 2 * actions).double()
        ones = torch.sigmoid(numbers[..., 0])
        respond = torch.softmax(numbers[..., 1:].unflatten(-1, (2, actions)), -1)  # [B, N, K, bit, A]
        chances = torch.softmax(network.values.double(), 0)
        found = network(seen.flatten(1)).exp().double()
    expected = torch.zeros(4, actions**agents, dtype=torch.float64)
    bits = list(itertools.product((0, 1), repeat=agents))
    for k, given, got in itertools.product(range(values), bits, bits):
        if sum(got) % 2 != min(given):
            continue
        weight = chances[k] * 0.5 ** (agents - 1)
        for agent, bit in enumerate(given):
            weight = weight * (ones[:, agent, k] if bit else 1 - ones[:, agent, k])
        for place, taken in enumerate(itertools.product(range(actions), repeat=agents)):
            terms = [respond[:, agent, k, got[agent], taken[agent]] for agent in range(agents)]
            expected[:, place] += weight * torch.stack(terms).prod(0)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("agents", "actions"), [(2, 2), (2, 3), (3, 2), (3, 3), (2, 4)])
def test_joint_actions_are_the_digits_of_the_team(agents, actions):
    team = types.SimpleNamespace(_choices=actions, env=types.SimpleNamespace(num_agents=agents))
    for chosen in itertools.product(range(actions), repeat=agents):
        wanted = int(TeamEnv.encode(team, np.array([chosen]))[0, 0])
        assert TeamEnv.decode(team, np.array([[wanted]])).tolist() == [list(chosen)]
        for entangled in (True, False):
            state = SharedState(agents, 1, actions, 1, entangled)
            own = state.shape[2]
            with torch.no_grad():
                for parameter in state.parameters():
                    parameter.zero_()
                for agent, action in enumerate(chosen):
                    for qubit in range(own):  # an RY of pi turns the qubit over
                        state.offset[agent, 2 * qubit + 1] = np.pi * (action >> (own - 1 - qubit) & 1)
                assert state(torch.zeros(1, agents)).exp()[0, wanted] == pytest.approx(1, abs=1e-5)
        for kind, first, responses in ((SharedRandomness, 0, 1), (NoSignallingBox, 1, 2)):
            shared = kind(agents, 1, actions, 3)
            with torch.no_grad():
                for parameter in shared.parameters():
                    parameter.zero_()
                offset = shared.offset.view(agents, 3, -1)[..., first:].unflatten(-1, (responses, actions))
                for agent, action in enumerate(chosen):
                    offset[agent, ..., action] = 50.0
                assert shared(torch.zeros(1, agents)).exp()[0, wanted] == pytest.approx(1, abs=1e-5)


def test_each_agent_sees_its_own_part_of_the_row():
    env = qio_envs.chsh_v0.batched_env(3, as_team=True)
    env.reset(0)
    assert env.observe().shape == (3, 1, 4)
    np.testing.assert_array_equal(
        env.observe()[:, 0].reshape(3, 2, 2), env.env.observe()
    )  # agent after agent, as the networks reshape it
    for resource in RESOURCES:
        network = network_of(resource)
        with torch.no_grad():
            probs = network(SEEN).exp().reshape(4, 2, 2)
        assert (
            probs.sum(2)[0] - probs.sum(2)[1]
        ).abs().max() < 1e-5  # (0, 0) and (0, 1): Alice's is the same
        assert (probs.sum(2)[0] - probs.sum(2)[2]).abs().max() > 1e-3


@pytest.mark.parametrize("resource", RESOURCES)
def test_everything_that_is_shared_can_be_learned(resource):
    network = network_of(resource, 2, 3, 2)
    seen, weights = torch.randn(16, 4), torch.randn(16, 9)
    (network(seen) * weights).sum().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad.abs() > 1e-7).any(), name
        assert parameter.grad.isfinite().all()


# -- in a module --------------------------------------------------------------------------------------------------


def module_of(shape=(2, 2, 2), **model_config):
    observations, actions = spaces(*shape)
    return ActorCritic(
        observation_space=observations,
        action_space=actions,
        model_config={"fcnet_hiddens": [8], "fcnet_activation": "tanh", **model_config},
    )


@pytest.mark.parametrize("resource", RESOURCES)
def test_acting_is_sampling_from_the_network(resource):
    module = module_of(coordination={"resource": resource})
    actor = NetworkActor(module.policy, ActionSpec.of(module.action_space, False), ("dist_inputs",))
    assert actor.samples_only
    seen = torch.randn(11, 4)
    acted = actor.act(ActorInputs(seen.numpy()[:, None]), {}, np.random.default_rng(0), explore=False)
    assert isinstance(actor._forward, torch.jit.ScriptModule)
    for forward in (module._forward_inference, module._forward_train):
        expected = forward({Columns.OBS: seen})[Columns.ACTION_DIST_INPUTS]
        torch.testing.assert_close(
            torch.from_numpy(acted.extras["dist_inputs"])[:, 0], expected, atol=0, rtol=0
        )
    assert module.compute_values({Columns.OBS: seen}).shape == (11,)


@pytest.mark.parametrize(
    ("shape", "model_config", "message"),
    [
        ((2, 2, 2), {"coordination": {"num_agents": 3}}, "num_agents: .*as_team"),
        ((1, 5, 4), {"coordination": {}}, "num_agents: 5 actions .*set env_config.as_team to true"),
        ((3, 2, 1), {"coordination": {"num_agents": 2}}, "as_team"),
        ((2, 8, 2), {"coordination": {"num_agents": 6}}, "4 observed numbers are not those of 6 agents"),
        ((7, 4, 1), {"coordination": {"num_agents": 7}}, "7 agents with 4 actions need 14 qubits"),
        ((2, 2, 2), {"coordination": {}, "amplification": {}}, "amplification: .*set it to null"),
        ((2, 2, 2), {"coordination": {}, "circuit": {}}, "coordination: takes the place of a circuit"),
        ((2, 2, 2), {"coordination": {}, "use_lstm": True}, "use_lstm: a coordinated policy has no memory"),
    ],
)
def test_what_cannot_be_coordinated_is_refused(shape, model_config, message):
    with pytest.raises(ConfigError, match=message) as caught:
        module_of(shape, **model_config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resource": "entangle"}, r"coordination.resource: expected one of .*did you mean 'entangled'"),
        ({"resource": None}, "coordination.resource: expected one of .*got None"),
        ({"num_agent": 2}, "coordination: unknown key 'num_agent' .did you mean 'num_agents'"),
        ({"num_agents": 0}, "coordination.num_agents: expected an integer from 1 to 12, got 0"),
        ({"num_agents": True}, "coordination.num_agents: expected an integer from 1 to 12, got True"),
        ({"num_layers": 21}, "coordination.num_layers: expected an integer from 1 to 20, got 21"),
        ({"num_values": 0}, "coordination.num_values: expected an integer from 1 to 1000"),
        (2, "coordination: .*got 2"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        PPOConfig().training(coordination=settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("algorithm", "config", "message"),
    [
        ("PPO", {"env_config": {}}, "coordination: .*as_team of chsh_v0 to true"),
        ("PPO", {"amplification": {}}, "amplification: acts on the joint distribution"),
        ("PPO", {"coordination": {"num_agents": 4}}, "coordination.num_agents: chsh_v0 has 2 agents, got 4"),
        ("DQN", {}, "coordination: DQN learns values"),
    ],
)
def test_experiments_are_refused_before_a_run(algorithm, config, message):
    values = {"env_config": {"as_team": True}, "coordination": {"num_agents": 2}, **config}
    with pytest.raises(ConfigError, match=message):
        Experiment.from_mapping(
            {"run": algorithm, "env": "chsh_v0", "stop": {"training_iteration": 1}, "config": values}
        ).validate()


def test_action_masks_are_refused():
    """With them Alice's answer would tell her what Bob is allowed to do."""
    observations, actions = spaces(2, 2, 2)
    masked = gymnasium.spaces.Dict(
        {"observation": observations, "action_mask": gymnasium.spaces.Box(0, 1, (4,), np.int8)}
    )
    with pytest.raises(ConfigError, match="mask"):
        ActorCritic(
            observation_space=masked,
            action_space=actions,
            model_config={"coordination": {}, "fcnet_hiddens": [8]},
        )


def test_the_number_of_agents_is_that_of_the_environment():
    config = {
        "env_config": {"as_team": True, "num_uavs": 4, "height": 6, "width": 6},
        "coordination": {"num_agents": 2},
    }
    with pytest.raises(ConfigError, match="coordination.num_agents: .*4"):
        Experiment.from_mapping(
            {"run": "PPO", "env": "forest_uav_v0", "stop": {"training_iteration": 1}, "config": config}
        ).validate()


# -- a trained team -----------------------------------------------------------------------------------------------

TEAM = {"as_team": True, "rounds": 5}


@pytest.fixture(scope="module")
def trained(ray_runtime: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any]:
    algorithm = (
        PPOConfig()
        .environment("chsh_v0", env_config=TEAM)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=8)
        .evaluation(evaluation_interval=1, evaluation_duration=6)
        .training(
            train_batch_size_per_learner=80,
            minibatch_size=40,
            num_epochs=1,
            lr=1e-2,
            coordination={},
            gamma=0.0,
        )
        .rl_module(model_config={"fcnet_hiddens": [8], "fcnet_activation": "tanh"})
        .debugging(seed=0)
        .build_algo()
    )
    result = algorithm.train()
    path = tmp_path_factory.mktemp("team") / "checkpoint"
    algorithm.save_to_path(str(path))
    algorithm.stop()
    return result, path


@pytest.mark.ray
def test_its_policy_is_sampled_whatever_is_asked(trained, tmp_path):
    result, path = trained
    policy = load_policy_from_checkpoint(path)
    loaded = load_policy(save_policy(policy, tmp_path / "policy.pt"))
    logged = result["evaluation"]
    assert logged["greedy"] == logged["sampled"]
    for each in (policy, loaded):
        assert all(group.actor.samples_only for group in each.team.groups)
        rows = [evaluate(each, "chsh_v0", TEAM, evaluation_seeds(6), explore) for explore in (False, True)]
        assert rows[0] == rows[1]
        scores = mean_scores(rows[0])
        assert scores == {key: logged["greedy"][key] for key in scores}
        (agent,) = each.module_of
        seen = SEEN[0].numpy()
        player = each.player(explore=False, seed=0)
        counts = np.bincount([player.act({agent: seen})[agent] for _ in range(600)], minlength=4)
        network = each.team.groups[0].actor.network.head
        with torch.no_grad():
            expected = torch.softmax(network(torch.tensor(np.stack([seen, seen]))), -1)[0].numpy()
        np.testing.assert_allclose(counts / 600, expected, atol=0.09)


@pytest.mark.ray
@pytest.mark.parametrize("explore", [False, True])
def test_an_episode_of_it_can_be_recorded(trained, explore):
    policy = load_policy_from_checkpoint(trained[1])
    frames, _, row = record_episode(policy, "chsh_v0", TEAM, seed=3, explore=explore)
    assert len(frames) == 6
    assert 0 <= row["episode_return"] <= 5
