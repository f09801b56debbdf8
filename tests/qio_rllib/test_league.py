"""Leagues and PSRO: what each round trains, against whom, and what is left."""

import csv
import json

import numpy as np
import pytest
import yaml
from toy_strategies import ENV, SETTINGS, policy_of

from qio_envs import matrix_game_v0
from qio_envs.api import ConfigError
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.cli import main
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.experiments.finished_run import RunResult
from qio_rllib.experiments.league import League, Member, mixture_of_league
from qio_rllib.games.game import Game
from qio_rllib.games.regret import nash_conv

CONFIG = {
    "env_config": {**SETTINGS, "rounds": 1},
    "num_env_runners": 0,
    "num_envs_per_env_runner": 32,
    "train_batch_size_per_learner": 64,
    "minibatch_size": 64,
    "num_epochs": 4,
    "lr": 0.1,
    "entropy_coeff": 0.0,
    "evaluation_duration": 2,
    "model_config": {"fcnet_hiddens": [5]},
}
STEPS = {"num_env_steps_sampled_lifetime": 1000}


def write(path, **changes):
    entry = {
        "run": "PPO",
        "env": ENV,
        "stop": STEPS,
        "config": CONFIG,
        "rounds": 4,
        "episodes": 40,
        **changes,
    }
    path.write_text(yaml.safe_dump({"rps": entry}))
    return path


def trained(run):
    """Return the experiment of a run directory."""
    return load_experiment(run / "config.yaml", allow_import=None)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_psro_finds_the_equilibrium_of_rock_paper_scissors(tmp_path, capsys):
    """Responses to the mixture of all before; exact NashConv of the last mixture."""
    file = write(tmp_path / "rps.yaml", rounds=5, episodes=300)
    assert main(["league", str(file), "--out", str(tmp_path / "runs"), "--seed", "2"]) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "runs/rps/seed_2"
    weights = mixture_of_league(folder)
    chances = []
    for path in weights:
        policy = load_policy(path)
        seen = np.ones((1, *policy.spaces["shared"].observation_shape), np.float32)  # the only stage
        chances.append(policy.probabilities("agent_0", seen)[0])
    average = np.array(list(weights.values())) @ np.array(chances) / sum(weights.values())
    game = Game(matrix_game_v0.batched_env(1, **SETTINGS).config.payoff_table[0])
    assert nash_conv(game, [average, average]) < 0.25
    assert min(nash_conv(game, [one, one]) for one in chances) > 1.0  # none of them alone

    content = json.loads((folder / "league.json").read_text())
    assert [(one["round"], one["role"]) for one in content["policies"]] == [
        (n, "response") for n in range(1, 6)
    ]
    assert sum(one["weight"] for one in content["policies"]) == pytest.approx(1)
    seeds = set()
    for one in content["policies"]:
        experiment = trained(folder / one["run"])
        against = experiment.config["self_play"]
        earlier = [folder / other["run"] / "policy.pt" for other in content["policies"][: one["round"] - 1]]
        assert set(against.get("opponents", {})) <= {str(path) for path in earlier}
        assert (against["snapshot_interval"], against["current_share"]) == (None, 0.0)
        assert experiment.config["initial_weights"] is None
        seeds.add(experiment.seed)
    assert len(seeds) == 5
    ranking = list(csv.DictReader((folder / "ranking.csv").open()))
    assert [row["policy"] for row in ranking] == [f"round {number}, response" for number in range(1, 6)]
    np.testing.assert_allclose(
        [float(row["nash"]) for row in ranking], [one["weight"] for one in content["policies"]], atol=1e-9
    )
    assert (folder / "cross_play.png").is_file()
    gains = [float(line.split()[4]) for line in said.splitlines() if " gains " in line]
    assert len(gains) == 4
    assert gains[0] > 0.5 > gains[-1]
    assert "round 5: response gains" in said
    assert f"rllib exploit {folder}"[-20:] in said

    # The same command trains nothing again, and another stop is refused.
    runs = sorted(folder.glob("*/*/run.json"))
    assert main(["league", str(file), "--out", str(tmp_path / "runs"), "--seed", "2", "-q"]) == 0
    assert sorted(folder.glob("*/*/run.json")) == runs
    assert " gains " not in capsys.readouterr().out
    write(file, stop={"training_iteration": 2})
    assert main(["league", str(file), "--out", str(tmp_path / "runs"), "--seed", "2"]) == 2
    assert "was trained with another stop" in capsys.readouterr().err


def test_mixtures_and_gains_are_those_of_the_policies(tmp_path):
    """Rock, then paper, then scissors come out of the trainings."""
    league = League.read(write(tmp_path / "rps.yaml", rounds=3, episodes=5))
    settings = CONFIG["env_config"]
    rounds, against = [], []

    def train(experiment, run, out):
        assert run is None
        action = len(against)
        against.append(experiment.config["self_play"].get("opponents"))
        folder = out / experiment.name / "now"
        folder.mkdir(parents=True)
        save_policy(policy_of(action, settings=settings), folder / "policy.pt")
        return RunResult(folder, folder, {}, ())

    last = league.play(tmp_path / "league", train, rounds.append)
    files = [str(tmp_path / f"league/round_{number:02d}_response/now/policy.pt") for number in (1, 2)]
    assert against == [None, {files[0]: 1.0}, {files[1]: pytest.approx(1.0)}]
    assert [found.gain for found in rounds] == [
        pytest.approx(gain, nan_ok=True) for gain in (np.nan, 1.0, 1.0)
    ]
    np.testing.assert_allclose(rounds[0].weights, [1.0])
    np.testing.assert_allclose(rounds[1].weights, [0.0, 1.0], atol=1e-9)  # paper beats rock
    np.testing.assert_allclose(last.weights, [1 / 3] * 3, atol=1e-9)
    assert len(last.pairings) == 3 * 3 * 2  # each pair once in each team
    assert mixture_of_league(tmp_path / "league") == {
        str(tmp_path / f"league/round_{number:02d}_response/now/policy.pt"): pytest.approx(1 / 3)
        for number in (1, 2, 3)
    }


def test_exact_payoffs_are_those_of_no_episode(tmp_path):
    """Policies of 90% and 80%: sampled payoffs of five episodes would not be these numbers."""
    file = write(tmp_path / "rps.yaml", rounds=3, payoffs="exact")
    entry = yaml.safe_load(file.read_text())
    del entry["rps"]["episodes"]
    file.write_text(yaml.safe_dump(entry))
    league, rounds = League.read(file), []
    chances = [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.1, 0.8, 0.1]]
    settings = CONFIG["env_config"]

    def train(experiment, run, out):
        folder = out / experiment.name / "now"
        folder.mkdir(parents=True)
        save_policy(policy_of(chances[len(rounds)], settings=settings), folder / "policy.pt")
        return RunResult(folder, folder, {}, ())

    last = league.play(tmp_path / "league", train, rounds.append)
    beats = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    expected = np.array(chances) @ beats @ np.array(chances).T
    np.testing.assert_allclose(last.cross_play.payoffs, expected, atol=1e-6)
    assert rounds[1].gain == pytest.approx(expected[1, 0], abs=1e-6)
    np.testing.assert_allclose(last.weights, [0, 1, 0], atol=1e-6)  # the purer paper, without any noise
    assert last.cross_play.payoff_errors.max() == 0


def test_a_gain_is_over_what_the_mixture_earns_against_itself(tmp_path):
    settings = {"scenario": "prisoners_dilemma", "rounds": 1, "memory": 0}
    config = {**CONFIG, "env_config": settings}
    league = League.read(write(tmp_path / "dilemma.yaml", rounds=2, episodes=2, config=config))
    gains, table = [], matrix_game_v0.batched_env(1, **settings).config.payoff_table[0, 0]

    def train(experiment, run, out):
        folder = out / experiment.name / "now"
        folder.mkdir(parents=True)
        save_policy(policy_of(len(gains), settings=settings), folder / "policy.pt")
        return RunResult(folder, folder, {}, ())

    league.play(tmp_path / "league", train, lambda found: gains.append(found.gain))
    assert table[0, 0] != 0
    assert gains[1] == pytest.approx(table[1, 0] - table[0, 0])


def test_a_league_goes_on_with_its_main_policy_and_begins_exploiters_anew(tmp_path):
    league = League.read(write(tmp_path / "rps.yaml", rounds=2, method="league", episodes=2))
    settings = []

    def train(experiment, run, out):
        assert run is None
        settings.append(experiment.config)
        folder = out / experiment.name / "now"
        folder.mkdir(parents=True)
        save_policy(policy_of(len(settings) % 3, settings=CONFIG["env_config"]), folder / "policy.pt")
        return RunResult(folder, folder, {}, ())

    folder = tmp_path / "league"
    league.play(folder, train, lambda found: None)
    content = json.loads((folder / "league.json").read_text())["policies"]
    roles = [(1, "main"), (2, "main"), (2, "main_exploiter"), (2, "league_exploiter")]
    assert [(one["round"], one["role"]) for one in content] == roles
    run = folder / content[0]["run"]
    assert settings[0]["self_play"] == {
        "matchmaking": "prioritized", "current_share": 0.35, "snapshot_interval": None, "teams": None
    }  # fmt: skip
    for config, current, matchmaking in zip(
        settings[1:], (0.35, 0.0, 0.0), ("prioritized", "latest", "prioritized"), strict=True
    ):
        against = config["self_play"]
        assert (against["opponents"], against["current_share"]) == ([str(run / "policy.pt")], current)
        assert against["matchmaking"] == matchmaking
    assert [config["initial_weights"] for config in settings] == [None, str(run), None, None]
    assert len({config["seed"] for config in settings}) == 4


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_the_command_trains_a_league(tmp_path, capsys):
    """Two rounds of PSRO."""
    file = write(tmp_path / "rps.yaml", rounds=2, stop={"training_iteration": 1})
    assert main(["league", str(file), "--out", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    (folder,) = (tmp_path / "runs/rps").iterdir()
    content = json.loads((folder / "league.json").read_text())["policies"]
    assert [(one["round"], one["role"]) for one in content] == [(1, "response"), (2, "response")]
    runs = [folder / one["run"] for one in content]
    against = [trained(run).config["self_play"] for run in runs]
    assert "opponents" not in against[0]
    assert against[1]["opponents"] == {str(runs[0] / "policy.pt"): 1.0}
    assert "round 2: response gains" in said
    assert (folder / "cross_play.png").is_file()


def test_members_of_earlier_rounds_are_whom_the_later_ones_play(tmp_path):
    league = League.read(write(tmp_path / "rps.yaml", method="league"))
    members = [
        Member(number, role, tmp_path / f"{number}_{role}")
        for number in (1, 2)
        for role in ("main", "main_exploiter", "league_exploiter")
    ]
    found = {role: experiment.config for role, experiment in league.trainings(3, members, np.zeros(6))}
    everybody = [str(member.run / "policy.pt") for member in members]
    assert found["main"]["self_play"]["opponents"] == everybody
    assert found["league_exploiter"]["self_play"]["opponents"] == everybody
    assert found["main_exploiter"]["self_play"]["opponents"] == [str(tmp_path / "2_main/policy.pt")]
    assert found["main"]["initial_weights"] == str(tmp_path / "2_main")
    psro = League.read(write(tmp_path / "rps.yaml"))
    weights = np.array([0.6, 0.4, 0.0, 1e-9, 0.0, 0.0])
    ((_, response),) = psro.trainings(3, members, weights)
    assert response.config["self_play"]["opponents"] == {everybody[0]: 0.6, everybody[1]: 0.4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 0}, "rounds: expected a whole number of at least 1, got 0"),
        ({"rounds": "many"}, "rounds: expected a whole number"),
        ({"episodes": 0}, "episodes: expected a whole number of at least 1"),
        ({"method": "psr"}, "method: expected one of psro, league, got 'psr'"),
        ({"meta_solver": "nsh"}, "meta_solver: expected one of nash, uniform, alpha_rank"),
        ({"method": "league", "meta_solver": "uniform"}, "meta_solver: a league matches by scores"),
        ({"payoffs": "exakt"}, "payoffs: expected one of sampled, exact, got 'exakt'"),
        ({"payoffs": "exact"}, "episodes: with payoffs: exact there are none; leave it out"),
        ({"round": 3}, "unknown key 'round'"),
        ({"env": "CartPole-v1", "config": {"num_env_runners": 0}}, "CartPole-v1 has a single agent"),
        ({"run": "DQN", "config": {}}, "self_play: DQN has no pool of opponents"),
        (
            {"config": {**CONFIG, "self_play": {"pool_size": 3}}},
            "self_play: of a league it says the teams alone",
        ),
        ({"config": {**CONFIG, "initial_weights": "x"}}, "initial_weights: a league chooses them itself"),
        ({"config": {**CONFIG, "lr": {"grid_search": [1, 2]}}}, "a league has no search"),
    ],
)
def test_leagues_that_cannot_be_are_refused_in_one_line(changes, message, tmp_path, capsys):
    file = write(tmp_path / "rps.yaml", **changes)
    assert main(["league", str(file), "--out", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_exact_payoffs_of_a_large_game_are_refused_before_training(tmp_path, capsys):
    file = tmp_path / "duel.yaml"
    entry = {"run": "PPO", "env": "swarm_competitive_v0", "stop": STEPS, "rounds": 2, "payoffs": "exact"}
    file.write_text(yaml.safe_dump({"duel": {**entry, "config": {"env_config": {"scenario": "duel"}}}}))
    assert main(["league", str(file), "--dry-run"]) == 2
    assert "exact payoffs: of games of OpenSpiel" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "league.json is damaged"),
        ('{"policies": [{"run": "../elsewhere", "weight": 1}]}', "names ../elsewhere, which lies outside"),
        ('{"policies": []}', "names no policy"),
    ],
)
def test_damaged_leagues_are_not_exploited(content, said, tmp_path, capsys):
    (tmp_path / "league.json").write_text(content)
    with pytest.raises(ConfigError, match=said):
        mixture_of_league(tmp_path)
    assert main(["exploit", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    file = write(tmp_path / "rps.yaml")
    assert main(["league", str(file), "--out", str(tmp_path / "runs"), "--dry-run"]) == 0
    assert capsys.readouterr().out == "rps: 4 rounds of PPO on matrix_game_v0, psro\n"
    assert not (tmp_path / "runs").exists()
