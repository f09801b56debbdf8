"""Pretrained policies: what is installed is what the results give, and plays as its card says."""

import sys
from pathlib import Path

import pytest

from qio_envs.api import ConfigError
from qio_rllib.acting.policy import Player
from qio_rllib.artifacts.policy_file import load_policy
from qio_rllib.artifacts.pretrained import card_of, cards, policy_path
from qio_rllib.cli import main
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, mean_scores

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "docs"))


def test_files_cards_and_table_are_what_the_results_give():
    import policy_cards

    assert list(cards()) == list(policy_cards.POLICIES)
    for name in policy_cards.POLICIES:
        assert card_of(name) == policy_cards.card(name), "run: make docs"
        assert policy_path(f"policy:{name}").read_bytes() == policy_cards.policy_file(name).read_bytes()
        assert (ROOT / "tune_configs" / f"{card_of(name).command.split()[2]}.yaml").is_file()
    text = policy_cards.PAGE.read_text()
    assert text == policy_cards.page(text), "run: make docs"
    assert sum(policy_path(f"policy:{name}").stat().st_size for name in cards()) < policy_cards.LARGEST


def test_every_policy_is_loaded_and_is_of_the_task_of_its_card():
    for name, card in cards().items():
        policy = load_policy(f"policy:{name}")
        assert (str(policy.env), dict(policy.env_config)) == (card.env, dict(card.env_config))
        assert isinstance(policy.player(), Player)
        low, high = card.interval
        assert low < card.score < high
        assert card.random < card.score


def test_a_policy_scores_what_its_card_says():
    card = card_of("policy:swarm_masac")
    rows = evaluate(
        load_policy("policy:swarm_masac"),
        card.env,
        card.env_config,
        evaluation_seeds(card.episodes),
        explore=card.mode == "sampled",
    )
    low, high = card.interval
    score = mean_scores(rows)[card.metric]
    assert low < score < high
    assert score == pytest.approx(card.score, rel=0.01)


def test_scores_have_the_digits_that_tell_policies_apart():
    battle, forest = card_of("skirmish_qmix"), card_of("forest_uav_ppo")
    assert (battle.shown(0.98765), battle.measure) == ("0.99", " won")
    assert (forest.shown(396.04), forest.measure) == ("396.0", "")


def test_an_unknown_name_is_refused_with_the_nearest_one(capsys):
    with pytest.raises(ConfigError, match="did you mean 'swarm_masac'"):
        load_policy("policy:swarm_massac")
    for command in ("evaluate", "video"):
        assert main([command, "policy:swarm_massac"]) == 2
        line = capsys.readouterr().err
        assert line.startswith(
            "rllib: policy: there is no 'swarm_massac' (did you mean 'swarm_masac'?); installed: "
        )
        assert line.count("\n") == 1


def test_the_commands_take_names(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    assert main(["policies"]) == 0
    out = capsys.readouterr().out
    for name, card in cards().items():
        assert f"policy:{name}\n" in out
        shown = f"{card.shown(card.score)}{card.measure}"
        assert f"  {card.mode} {shown}: {card.normalized:.2f} between random play" in out
        assert f"  rllib train {name} --seed 0\n" in out
    assert main(["policies", "forest_uav_ppo"]) == 0
    assert f"sha256: {card_of('forest_uav_ppo').sha256}\n" in capsys.readouterr().out
    assert main(["evaluate", "policy:swarm_masac", "--greedy", "--out", "rows.csv"]) == 0
    seeds = evaluation_seeds(card_of("swarm_masac").episodes)
    assert f"{len(seeds)} episodes, seeds {seeds[0]} to {seeds[-1]}" in capsys.readouterr().out


def test_the_files_are_in_a_wheel():
    import configparser

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    pattern = config["options.package_data"]["qio_rllib.artifacts"].strip()
    found = {
        path.relative_to(ROOT / "qio_rllib/artifacts/policies").as_posix()
        for path in (ROOT / "qio_rllib/artifacts").glob(pattern)
    }
    assert found == {f"{name}/{file}" for name in cards() for file in ("card.yaml", "policy.pt")}
