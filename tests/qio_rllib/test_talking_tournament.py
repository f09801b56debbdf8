"""Policies whose agents talk, against each other: who hears whom, by whose weights; and best responses to them."""

import csv
import dataclasses

import numpy as np
import pytest
import torch
import yaml

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.policy import GroupSpaces, Policy
from qio_rllib.acting.team import INBOX, MESSAGES, SENT, AgentGroup, GroupInputs, Team
from qio_rllib.artifacts.policy_file import save_policy
from qio_rllib.cli import main
from qio_rllib.experiments import tournament as playing
from qio_rllib.experiments.exploit import Mixture, Response, exploit_bound
from qio_rllib.experiments.tournament import Contestant, mixed_team, tournament
from qio_rllib.models.communication import Communication
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.evaluation import evaluate, play_episodes, team_in

ENV = "skirmish_v0"
SETTINGS = {"scenario": "3m", "enemy": "agents", "max_steps": 20, "map_width": 8, "map_height": 8}
AGENTS = [f"{side}_{number}" for side in ("ally", "enemy") for number in range(3)]
SIDES = [AGENTS[:3], AGENTS[3:]]
ACROSS = [["ally_0", "enemy_2", "ally_1"], ["enemy_0", "ally_2", "enemy_1"]]
"""Teams whose agents do not lie side by side."""
PLACE = {agent: index for index, agent in enumerate(AGENTS)}
NETWORK = {"fcnet_hiddens": [8]}
SEEDS = [3, 4, 5]


def policy_of(seed, communication, modules=None, factor=3.0, network=NETWORK):
    """Return a policy of the battle with random weights, large ones so that messages matter.

    Args:
        seed: Of the weights.
        communication: How its agents talk; None for silence.
        modules: Lists of agents with a module each; None for one that acts for all.
        factor: Of the weights, biases left out.
        network: ``model_config``.
    """
    env = make_vector_env(ENV, SETTINGS, 1)
    seen, actions = env.observation_spaces[AGENTS[0]], env.action_spaces[AGENTS[0]]
    env.close()
    groups, spaces = [], {}
    for number, agents in enumerate(modules or [AGENTS]):
        torch.manual_seed(seed + 100 * number)
        spec = PolicySpec(
            seen["observation"].shape,
            "categorical",
            int(actions.n),
            has_action_mask=True,
            network=network,
            **({} if communication is None else communication.speaker()),
        )
        policy = PolicyNetwork(spec)
        with torch.no_grad():
            for parameter in policy.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(factor)
        name = f"m{number}" if modules else "shared"
        index = np.array([PLACE[agent] for agent in agents])
        groups.append(
            AgentGroup(name, tuple(agents), index, NetworkActor(policy, ActionSpec.of(actions, False)))
        )
        spaces[name] = GroupSpaces.of(seen, actions)
    return Policy(Team(groups, communication), spaces, ENV, SETTINGS)


TARGETED = Communication(3, routing="targeted", signature=2, teams=SIDES)
GATED = Communication(bits=2, gate={"cost": 0.0}, teams=SIDES)


def returns_alone(policy, seeds=SEEDS, explore=False):
    """Return the agents' returns where a policy acts for all, ``[E, N]``, without anything of a tournament."""
    env = make_vector_env(ENV, SETTINGS, len(seeds))
    found = np.zeros((len(seeds), len(AGENTS)))

    def earn(rewards):
        found[:] += rewards

    play_episodes(team_in(policy, ENV, env), env, seeds, explore, earn=earn)
    env.close()
    return found


@pytest.mark.parametrize(
    ("communication", "modules", "teams"),
    [
        (TARGETED, None, None),
        (GATED, SIDES, None),
        (TARGETED, ACROSS, None),  # a module acts for agents of both sides
        (Communication(2, teams=ACROSS), None, ACROSS),
        (
            Communication(
                2,
                routing="hierarchical",
                leaders=[ACROSS[0], ["enemy_0", "ally_2"], ["enemy_1"]],
                teams=ACROSS,
            ),
            None,
            ACROSS,
        ),
    ],
)
def test_a_policy_against_itself_plays_as_it_does_alone(communication, modules, teams):
    """To the bit; and messages matter, or the test would say nothing."""
    policy = policy_of(3, communication, modules)
    deaf = dataclasses.replace(communication, teams=[[agent] for agent in AGENTS])
    deaf = dataclasses.replace(policy, team=Team(policy.team.groups, deaf))
    found = tournament(
        [Contestant("it", policy), Contestant("other", policy_of(2, None))],
        ENV,
        SETTINGS,
        SEEDS,
        teams,
        explore=False,
    )
    expected = returns_alone(policy)
    assert (returns_alone(deaf) != expected).any()
    for number, side in enumerate(teams or SIDES):
        (one,) = (one for one in found if (one.policy, one.opponent, one.team) == (0, 0, number))
        mine = [PLACE[agent] for agent in side]
        theirs = [index for index in range(6) if index not in mine]
        np.testing.assert_array_equal(one.own, expected[:, mine].mean(axis=1))
        np.testing.assert_array_equal(one.others, expected[:, theirs].mean(axis=1))
    sums = [row["episode_return"] for row in evaluate(policy, ENV, SETTINGS, SEEDS, False)]
    np.testing.assert_allclose(3 * (one.own + one.others), sums, rtol=1e-6)  # what ``rllib evaluate`` prints


def said_and_heard(first, second, alive, sides=SIDES):
    """Return what agents say, hear and do where two policies meet: columns ``[E, 6, ...]`` by name."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(4, 6, 75)).astype(np.float32)
    team = mixed_team([(Contestant("a", first), sides[0]), (Contestant("b", second), sides[1])], PLACE)
    inputs = [
        GroupInputs(obs[:, group.index], np.ones((4, len(group.index), 8), bool)) for group in team.groups
    ]
    acted = team.act(inputs, alive, team.initial_state(4), None, False)
    found = {}
    for group, one in zip(team.groups, acted, strict=True):
        for agent, column in zip(group.agents, range(len(group.index)), strict=True):
            found[agent] = {name: array[:, column] for name, array in one.extras.items()}
            found[agent]["actions"] = one.actions[:, column]
    return obs, found


def test_a_team_hears_itself_alone_by_its_own_weights_and_channel():
    alive = np.ones((4, 6), bool)
    alive[1, 0] = alive[2, 4] = False
    first, second = policy_of(1, Communication(3, teams=SIDES)), policy_of(2, GATED, factor=10.0)
    obs, found = said_and_heard(first, second, alive)
    rows = torch.from_numpy(obs)
    with torch.no_grad():
        numbers = first.team.groups[0].actor.network.speak(rows[:, :3], None, None).messages.numpy()
        bits = second.team.groups[0].actor.network.speak(rows[:, 3:], None, None)
    sent = alive.copy()
    sent[:, 3:] &= bits.gates.numpy() > 0
    assert not sent[:, 3:][alive[:, 3:]].all()  # some gates are closed
    assert sent[:, 3:].any()
    for own, side in ((numbers, SIDES[0]), (bits.messages.numpy(), SIDES[1])):
        for place, agent in enumerate(side):
            here = sent[:, PLACE[agent]]
            np.testing.assert_array_equal(found[agent][SENT], here)
            np.testing.assert_allclose(found[agent][MESSAGES], own[:, place] * here[:, None], atol=1e-6)
            mates = [mate for mate in range(3) if mate != place]
            speak = sent[:, [PLACE[side[mate]] for mate in mates]]
            heard = (own[:, mates] * speak[..., None]).sum(axis=1) / np.maximum(1, speak.sum(axis=1))[:, None]
            listens = alive[:, PLACE[agent]]
            np.testing.assert_allclose(found[agent][INBOX][listens], heard[listens], atol=1e-6)


def test_what_the_other_team_says_changes_nothing():
    alive = np.ones((4, 6), bool)
    talking, other = policy_of(1, TARGETED), policy_of(2, GATED)
    before = said_and_heard(talking, other, alive)[1]
    for opponent in (policy_of(2, None), policy_of(3, TARGETED), policy_of(4, Communication(7))):
        if opponent.team.communication == Communication(7):
            with pytest.raises(ConfigError, match="b: communication: ally_0 hears enemy_0"):
                said_and_heard(talking, opponent, alive)
            continue
        after = said_and_heard(talking, opponent, alive)[1]
        for agent in SIDES[0]:
            assert before[agent].keys() == after[agent].keys()
            for name, column in before[agent].items():
                np.testing.assert_array_equal(column, after[agent][name])
        assert any((before[agent]["actions"] != after[agent]["actions"]).any() for agent in SIDES[1])


def test_losses_on_the_way_are_those_of_each_policy():
    team = mixed_team(
        [
            (Contestant("a", policy_of(1, Communication(3, drop=1.0, teams=SIDES))), SIDES[0]),
            (Contestant("b", policy_of(2, Communication(3, teams=SIDES))), SIDES[1]),
        ],
        PLACE,
    )
    assert team.draws
    inputs = [GroupInputs(np.ones((2, 3, 75), np.float32), np.ones((2, 3, 8), bool)) for _ in team.groups]
    rng = np.random.default_rng(1)
    lost, arrived = team.act(inputs, np.ones((2, 6), bool), team.initial_state(2), rng, False)
    assert (lost.extras[INBOX] == 0).all()
    assert (arrived.extras[INBOX] != 0).all()
    assert not mixed_team([(Contestant("b", policy_of(2, GATED)), side) for side in SIDES], PLACE).draws


def test_messages_between_teams_are_refused_before_anything_is_played(monkeypatch):
    monkeypatch.setattr(playing, "play_episodes", lambda *given, **more: pytest.fail("played"))
    silent = [Contestant(str(seed), policy_of(seed, None)) for seed in range(2)]
    for communication, said in (
        (Communication(2), "ally_0 hears enemy_0"),
        (Communication(2, teams=[["ally_0", "enemy_0"], AGENTS[1:3] + AGENTS[4:]]), "ally_0 hears enemy_0"),
        (Communication(2, routing="hierarchical", leaders=[AGENTS]), "ally_0 hears enemy_0"),
    ):
        loud = Contestant("loud", policy_of(1, communication))
        with pytest.raises(
            ConfigError,
            match=f"^loud: communication: {said}, which is of another team here, and messages stay within a team",
        ):
            tournament([*silent, loud], ENV, SETTINGS, SEEDS)
        with pytest.raises(ConfigError, match=said):
            exploit_bound(Mixture([loud], np.ones(1)), [Response(0, silent[0].policy)], ENV, SETTINGS, 2)
    # Teams that are smaller than those that talk; larger ones hold them.
    loud = Contestant("loud", policy_of(1, TARGETED))
    with pytest.raises(ConfigError, match="loud: communication: ally_0 hears ally_1"):
        tournament([*silent, loud], ENV, SETTINGS, SEEDS, teams=[[agent] for agent in AGENTS])


# -- responses


def test_responses_talk_greedy_or_not():
    """A copy of a mixture gains nothing by acting as it; another policy what it earns more in its place."""
    mixture = Mixture([Contestant("m", policy_of(1, TARGETED, factor=50.0))], np.ones(1))  # hardly draws
    responses = [Response(7, policy_of(5, GATED, factor=50.0))]
    found = exploit_bound(mixture, responses, ENV, SETTINGS, 6)
    seeds = list(range(2_000_000, 2_000_006))
    alone = returns_alone(mixture.contestants[0].policy, seeds, True)
    for number, side in enumerate(SIDES):
        parts = [(mixture.contestants[0], one) for one in SIDES]
        parts[number] = (Contestant("r", responses[0].policy), side)
        env = make_vector_env(ENV, SETTINGS, 6)
        mine = [PLACE[agent] for agent in side]
        earned = playing.returns_of(mixed_team(parts, PLACE), env, seeds, False, None)[:, mine].mean()
        env.close()
        gain = earned - alone[:, mine].mean()
        assert found.teams[number].by_seed[7] == pytest.approx(gain, abs=0.3)


@pytest.fixture
def talking(tmp_path):
    """Return an experiment's file and a policy file of its network."""
    config = {
        "env_config": SETTINGS,
        "num_env_runners": 0,
        "num_envs_per_env_runner": 4,
        "train_batch_size_per_learner": 48,
        "minibatch_size": 48,
        "num_epochs": 1,
        "evaluation_duration": 1,
        "communication": {"bits": 2, "gate": {"cost": 0.0}},
        "model_config": {"fcnet_hiddens": [8], "vf_share_layers": False},
    }
    entry = {"run": "PPO", "env": ENV, "stop": {"training_iteration": 1}, "config": config}
    file = tmp_path / "battle.yaml"
    file.write_text(yaml.safe_dump({"battle": entry}))
    network = {"fcnet_hiddens": [8]}
    return str(file), str(save_policy(policy_of(1, GATED, network=network), tmp_path / "talks.pt"))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_the_commands_take_policies_that_talk(talking, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file, policy = talking
    save_policy(policy_of(2, TARGETED), tmp_path / "other.pt")
    save_policy(policy_of(2, Communication(2)), tmp_path / "across.pt")
    assert main(["tournament", policy, "other.pt", "--episodes", "2"]) == 0
    assert "skirmish_v0: 2 episodes of each pair and team" in capsys.readouterr().out
    assert main(["tournament", policy, "across.pt"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("rllib: across.pt: communication: ally_0 hears enemy_0")
    assert error.count("\n") == 1

    command = ["exploit", policy, "--config", file, "--steps", "96", "--seeds", "4", "--episodes", "2"]
    for setting, said in (
        ("communication.drop=0.5", "talks.pt: communication.drop: it has 0.0, expected 0.5"),
        ("communication.bits=3", "talks.pt: communication.bits: it has 2, expected 3"),
        ("communication=null", "talks.pt: communication: its agents talk, and here it is null"),
        (
            "communication.teams=[[ally_0,ally_1],[ally_2],[enemy_0,enemy_1,enemy_2]]",
            "talks.pt: communication: there ally_0 hears ally_2, unlike here",
        ),
    ):
        assert main([*command, "--set", setting]) == 2
        error = capsys.readouterr().err
        assert error.startswith("rllib: self_play.opponents: ")
        assert said in error
        assert error.count("\n") == 1
    assert main([*command, "-q"]) == 0
    assert "NashConv at least" in capsys.readouterr().out
    (run,) = (tmp_path / "runs/battle_response").glob("*/policy.pt")
    rows = list(csv.DictReader((tmp_path / "runs/battle_response/responses.csv").open()))
    assert [(row["team"], row["seed"]) for row in rows] == [("0", "4"), ("1", "4")]
    from qio_rllib.artifacts.policy_file import load_policy

    response = load_policy(run).team
    assert response.communication == dataclasses.replace(GATED, teams=SIDES)
