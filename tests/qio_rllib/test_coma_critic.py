"""The critic of COMA: what it sees and what it does not."""

import dataclasses

import pytest
import torch

from qio_rllib.models.counterfactual_critic import CounterfactualCritic
from qio_rllib.models.joint_critics import GroupShape, JointView

GROUPS = [GroupShape(2, 3, 3), GroupShape(1, 5, 4)]
STATE = 6


@pytest.fixture
def seen():
    generator = torch.Generator().manual_seed(5)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    obs = [draw(20, group.agents, group.obs) for group in GROUPS]
    alive = [torch.ones(20, group.agents) for group in GROUPS]
    actions = [
        torch.nn.functional.one_hot(
            torch.randint(group.actions, (20, group.agents), generator=generator), group.actions
        ).float()
        for group in GROUPS
    ]
    return JointView(obs, alive, None, draw(20, STATE)), actions


def critic_of(own=0):
    torch.manual_seed(1)
    return CounterfactualCritic(GROUPS, own, STATE, [16, 8], "tanh")


def test_the_values_of_an_agents_actions_depend_on_what_the_others_do_and_not_on_what_it_did(seen):
    view, actions = seen
    critic = critic_of()
    before = critic(view, actions)
    assert before.shape == (20, 2, 3)
    for g, m in ((0, 0), (0, 1), (1, 0)):
        other = [part.clone() for part in actions]
        other[g][:, m] = other[g][:, m].roll(1, dims=-1)
        change = (critic(view, other) - before).abs().amax(dim=(0, 2))
        for agent in range(2):
            assert bool(change[agent] > 1e-4) == ((g, m) != (0, agent))
    other = [part.clone() for part in actions]
    other[0][:, 0] = other[0][:, 0].roll(1, dims=-1)
    assert torch.equal(critic(view, other)[:, 0], before[:, 0])


def test_the_critic_sees_the_state_its_agents_observation_and_which_agent_it_is(seen):
    view, actions = seen
    critic = critic_of()
    before = critic(view, actions)
    state = critic(dataclasses.replace(view, global_state=view.global_state + 1), actions)
    assert ((state - before).abs().amax(-1) > 1e-4).all()
    obs = [part.clone() for part in view.obs]
    obs[0][:, 0] += 1
    change = (critic(dataclasses.replace(view, obs=obs), actions) - before).abs().amax(-1)
    assert (change[:, 0] > 1e-5).all()
    assert not change[:, 1].any()
    alike = [part.clone() for part in view.obs]
    alike[0][:, 1] = alike[0][:, 0]
    none = [torch.zeros_like(part) for part in actions]
    values = critic(dataclasses.replace(view, obs=alike), none)
    assert (values[:, 0] != values[:, 1]).any()


def test_what_an_absent_agent_did_is_not_there(seen):
    view, actions = seen
    critic = critic_of()
    gone = dataclasses.replace(view, alive=[view.alive[0], torch.zeros_like(view.alive[1])])
    other = [actions[0], 7 * actions[1] + 3]
    assert torch.equal(critic(gone, other), critic(gone, actions))
    assert not torch.equal(critic(view, other), critic(view, actions))
