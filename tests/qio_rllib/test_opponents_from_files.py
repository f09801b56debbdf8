"""``self_play.opponents``: pools that begin with policy files; and ``initial_weights``."""

import json

import numpy as np
import pytest
import yaml
from toy_strategies import ENV, SETTINGS, policy_of

from qio_envs.api import ConfigError
from qio_rllib.algorithms import MADDPGConfig, PPOConfig
from qio_rllib.artifacts.policy_file import save_policy
from qio_rllib.cli import main
from qio_rllib.games.self_play import OpponentPool, SelfPlaySettings
from qio_rllib.sampling.evaluation import load_policy_from_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]

ROCK, PAPER = 0, 1


def config_of(settings, config_class=PPOConfig, **training):
    return (
        config_class()
        .environment(ENV, env_config=SETTINGS)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=8, rollout_fragment_length=4)
        .training(
            self_play=settings,
            train_batch_size_per_learner=32,
            **({"minibatch_size": 32, "num_epochs": 1} if config_class is PPOConfig else {}),
            **training,
        )
        .rl_module(model_config={"fcnet_hiddens": [5]})
        .debugging(seed=0)
    )


@pytest.fixture
def files(tmp_path):
    """Return policy files of rock and paper."""
    return [
        str(save_policy(policy_of(action), tmp_path / f"{name}.pt"))
        for action, name in ((ROCK, "rock"), (PAPER, "paper"))
    ]


def frozen_only(files, **settings):
    return {"opponents": files, "snapshot_interval": None, "current_share": 0.0, **settings}


@pytest.mark.parametrize("remote", [0, pytest.param(1, marks=pytest.mark.long)])
def test_the_pool_is_the_files_and_stays_so(files, remote):
    config = config_of(frozen_only(files))
    config.env_runners(num_env_runners=remote)
    algorithm = config.build_algo()
    pool = algorithm.opponents.pool
    results = [algorithm.train()["self_play"] for _ in range(3)]
    assert [result["pool"] for result in results] == [2, 2, 2]
    for number, action in enumerate((ROCK, PAPER)):
        expected = policy_of(action).team.groups[0].actor.network.state_dict()
        assert pool.snapshots[number]["shared"].keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(pool.snapshots[number]["shared"][name], array)
    algorithm.stop()


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_opponents_are_drawn_with_their_weights(files, share):
    given = {files[0]: share, files[1]: 1.0 - share}
    algorithm = config_of(frozen_only(given)).build_algo()
    assert algorithm.opponents.pool.probabilities() == {0: share, 1: 1.0 - share}
    played = []
    for _ in range(40):
        (rollout,) = algorithm.env_runner.sample()
        part = rollout.modules["shared"]
        frozen = ~part.columns["learning"]
        assert (frozen.sum(axis=2) == 1).all()
        played.append(part.actions[frozen])
    played = np.concatenate(played)
    assert set(np.unique(played)) <= {ROCK, PAPER}
    assert (played == ROCK).mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 320) + 1e-9)
    algorithm.stop()


def test_a_best_response_to_files_is_learned(files):
    config = config_of(frozen_only(files[:1]), lr=0.05, gamma=0.0)
    algorithm = config.build_algo()
    for _ in range(20):
        result = algorithm.train()
    chances = np.exp(algorithm.env_runner.sample()[0].modules["shared"].columns["logp"])
    assert result["self_play"]["score"] > 0.95  # paper wins each round
    assert chances.mean() > 0.9
    algorithm.stop()


def test_snapshots_come_beside_the_files_and_give_way_first(files):
    pool = OpponentPool(SelfPlaySettings(opponents=files, pool_size=2))
    for path in files:
        pool.add({"shared": {"w": np.array(len(path))}}, stays=3.0)
    for number in range(4):
        pool.add({"shared": {"w": np.array(-number)}})
    assert sorted(pool.snapshots) == [0, 1, 4, 5]
    assert pool.probabilities() == pytest.approx({0: 3 / 8, 1: 3 / 8, 4: 1 / 8, 5: 1 / 8})
    other = OpponentPool(SelfPlaySettings(opponents=files, pool_size=1))
    other.set_state(pool.get_state())
    assert sorted(other.snapshots) == [0, 1, 5]
    other.add({"shared": {}})
    assert sorted(other.snapshots) == [0, 1, 6]


def test_a_checkpoint_holds_the_pool_with_its_weights(files, tmp_path):
    algorithm = config_of(frozen_only({files[0]: 3.0, files[1]: 1.0})).build_algo()
    algorithm.train()
    algorithm.save_to_path(tmp_path / "checkpoint")
    other = config_of(frozen_only(files)).build_algo()
    other.restore_from_path(tmp_path / "checkpoint")
    assert other.opponents.pool.probabilities() == {0: 0.75, 1: 0.25}
    algorithm.stop()
    other.stop()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"opponents": []}, "self_play.opponents: expected a list of policy files, or a mapping"),
        ({"opponents": "rock.pt"}, "self_play.opponents: expected a list of policy files"),
        ({"opponents": {"rock.pt": -1}}, "weights of at least 0, one of which is above 0"),
        ({"opponents": {"rock.pt": 0}}, "weights of at least 0, one of which is above 0"),
        ({"opponents": {"rock.pt": 1}, "matchmaking": "elo"}, "a list where matchmaking is not uniform"),
        ({"opponents": ["nowhere.pt"]}, r"self_play.opponents: policy file: there is no file .*nowhere.pt"),
        ({"snapshot_interval": 0}, "snapshot_interval: expected a whole number of at least 1, or null"),
    ],
)
def test_pools_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        config_of(settings).validate()


def test_policies_of_other_modules_or_networks_are_refused(tmp_path):
    apart = save_policy(policy_of(ROCK, together=False), tmp_path / "apart.pt")
    with pytest.raises(ConfigError, match="apart.pt has the modules m0, m1, expected shared"):
        config_of(frozen_only([str(apart)])).validate()
    wider = save_policy(policy_of(ROCK, network={"fcnet_hiddens": [7]}), tmp_path / "wider.pt")
    with pytest.raises(
        ConfigError, match=r"wider.pt: another network in shared: network is .*7.*, expected .*5"
    ):
        config_of(frozen_only([str(wider)])).build_algo()
    longer = {**SETTINGS, "memory": 2}
    seen = save_policy(policy_of(ROCK, settings=longer), tmp_path / "seen.pt")
    with pytest.raises(ConfigError, match=r"another network in shared: observation_shape is"):
        config_of(frozen_only([str(seen)])).build_algo()


def test_the_command_takes_files_by_relative_paths_and_names_bad_ones(files, tmp_path, monkeypatch, capsys):
    """Tune's trials run in another working directory."""
    monkeypatch.chdir(tmp_path)
    config = {
        "env_config": SETTINGS,
        "num_env_runners": 0,
        "train_batch_size_per_learner": 32,
        "minibatch_size": 32,
        "num_epochs": 1,
        "evaluation_duration": 2,
        "model_config": {"fcnet_hiddens": [5]},
        "self_play": frozen_only(["rock.pt"]),
    }
    entry = {"run": "PPO", "env": ENV, "stop": {"training_iteration": 1}, "config": config}

    # The run begins with the weights of a checkpoint, and hardly moves them.
    before = config_of(None).debugging(seed=3).build_algo()
    before.save_to_path(tmp_path / "before")
    before.stop()
    config |= {"initial_weights": "before", "lr": 1e-12}
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"more": entry}))
    assert main(["train", "--config", "more.yaml", "--out", "runs"]) == 0
    (run,) = (tmp_path / "runs/more").iterdir()
    written = yaml.safe_load((run / "config.yaml").read_text())["more"]["config"]
    assert written["self_play"]["opponents"] == ["rock.pt"]
    weights = [
        load_policy_from_checkpoint(path).team.groups[0].actor.network.state_dict()
        for path in (tmp_path / "before", run / json.loads((run / "run.json").read_text())["checkpoint"])
    ]
    for name, array in weights[0].items():
        np.testing.assert_allclose(array, weights[1][name], atol=1e-9)

    # Checkpoints are pickles: that another folder's is loaded is said first.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    capsys.readouterr()
    wider = [
        "--set",
        "model_config.fcnet_hiddens=[6]",
        "--set",
        "self_play=null",
        "--set",
        f"initial_weights={run}",
    ]
    assert main(["train", "../more.yaml", *wider]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "is not in runs/: Ray's checkpoints are pickles" in first
    assert "initial_weights: " in second
    assert "another network in shared" in second
    monkeypatch.chdir(tmp_path)

    config["initial_weights"] = None
    save_policy(policy_of(ROCK, network={"fcnet_hiddens": [7]}), tmp_path / "wider.pt")
    for opponents, said in (
        (["nowhere.pt"], "there is no file"),
        (["wider.pt"], "another network in shared"),
    ):
        config["self_play"] = frozen_only(opponents)
        (tmp_path / "response.yaml").write_text(yaml.safe_dump({"response": entry}))
        assert main(["train", "--config", "response.yaml", "--out", "bad"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("rllib: self_play.opponents: ")
        assert error.count("\n") == 1
        assert said in error
    assert not list((tmp_path / "bad").glob("*/*"))


@pytest.mark.parametrize("config_class", [PPOConfig, MADDPGConfig])
def test_initial_weights_are_those_of_the_whole_modules(config_class, tmp_path):
    """Critics and targets too, in the Learner; policies in the runners."""
    first = config_of(None, config_class).debugging(seed=3).build_algo()
    first.train()
    first.save_to_path(tmp_path / "checkpoint")
    second = config_of(None, config_class, initial_weights=str(tmp_path / "checkpoint")).build_algo()
    expected, found = (one.learner_group.get_weights()["shared"] for one in (first, second))
    assert expected.keys() == found.keys()
    assert any("value" in name or "critic" in name for name in found)
    for name, array in expected.items():
        np.testing.assert_array_equal(array, found[name])
    acting = second.env_runner.get_state()["rl_module"]["shared"]
    for name, array in acting.items():
        np.testing.assert_array_equal(array, expected[name])
    first.stop()
    second.stop()


def test_initial_weights_that_do_not_fit_are_refused(tmp_path):
    algorithm = config_of(None).build_algo()
    algorithm.save_to_path(tmp_path / "checkpoint")
    algorithm.stop()
    with pytest.raises(
        ConfigError, match="initial_weights: .*nowhere is neither a run with a checkpoint nor a checkpoint"
    ):
        config_of(None, initial_weights=str(tmp_path / "nowhere")).validate()
    wider = config_of(None, initial_weights=str(tmp_path / "checkpoint"))
    wider.rl_module(model_config={"fcnet_hiddens": [6]})
    with pytest.raises(
        ConfigError, match=r"initial_weights: .*another network in shared: .* is \[.*, expected \["
    ):
        wider.build_algo()
    apart = config_of(None, initial_weights=str(tmp_path / "checkpoint")).multi_agent(policies="independent")
    with pytest.raises(ConfigError, match="has the modules shared, expected agent_0, agent_1"):
        apart.build_algo()
