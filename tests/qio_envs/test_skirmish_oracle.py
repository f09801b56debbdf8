"""The skirmish against SMAX: its episodes, written by benchmarks/smax_reference.py, played again."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import smax_agreement

from qio_envs.skirmish.config import FIRST_ATTACK, STOP, UNITS

EPISODES = smax_agreement.load(Path(__file__).with_name("smax_reference.npz"))


@pytest.mark.parametrize("episode", EPISODES, ids=lambda episode: f"{episode.map}-{episode.controller}")
def test_steps_and_whole_episodes_are_smax_s(episode):
    found = dataclasses.asdict(smax_agreement.compare(episode))
    assert found.pop("step_error") < smax_agreement.TOLERANCE
    if len(episode.types) <= 40:
        assert found["first_apart"] == -1
        assert found["whole_error"] < smax_agreement.TOLERANCE
    else:  # in crowds that push each other rounding errors grow
        assert found["whole_error"] < 100 * smax_agreement.TOLERANCE
    del found["first_apart"], found["whole_error"]
    assert found.pop("decisions") > 0
    assert found.pop("drawn") <= 0.5 * episode.enemy_actions.size
    assert found == {
        "wrong_masks": 0,
        "wrong_ends": 0,
        "wrong_decisions": 0,
        "wrong_memory": 0,
    }


def test_smax_s_episodes_have_everything():
    assert {kind for episode in EPISODES for kind in episode.types} == set(range(len(UNITS)))
    ends, borders, drawn = set(), 0, 0
    for episode in EPISODES:
        allies, health = episode.ally_actions.shape[1], episode.units[..., 0]
        alive = health[-1] > 0
        late = episode.steps == episode.length_limit
        ends.add((bool(alive[:allies].any()), bool(alive[allies:].any()), late))
        assert health.max() == 1
        losses = -np.diff(health, axis=0)
        hits = (episode.enemy_actions >= FIRST_ATTACK).any(axis=1)
        borders += int((losses[~hits][:, :allies] > 0).sum())  # an ally that dies while no enemy shoots
        found = smax_agreement.Agreement()
        smax_agreement.step_by_step(episode, found)
        drawn += found.drawn
    assert {(True, False, False), (False, True, False), (True, True, True)} <= ends  # won, lost, out of time
    assert borders > 0
    assert drawn > 0


@pytest.mark.parametrize(
    ("column", "change", "caught"),
    [
        ("enemy_actions", lambda actions: np.where(actions >= FIRST_ATTACK, STOP, actions), "wrong_decisions"),
        ("masks", lambda masks: 1 - masks, "wrong_masks"),
        ("dones", lambda dones: ~dones, "wrong_ends"),
        ("memory", lambda memory: memory + 1, "wrong_memory"),
        ("rewards", lambda rewards: rewards + 1e-3, "step_error"),
        ("seen", lambda seen: seen + 1e-3, "whole_error"),
    ],
)  # fmt: skip
def test_the_comparison_sees_what_differs(column, change, caught):
    episode = next(episode for episode in EPISODES if episode.map == "2s3z")
    other = dataclasses.replace(episode, **{column: change(getattr(episode, column))})
    limit = smax_agreement.TOLERANCE if caught.endswith("error") else 0
    assert getattr(smax_agreement.compare(other), caught) > limit
