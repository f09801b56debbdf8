"""Joint critics: whose action counts, who is heard, and that gradients reach every part."""

import math

import pytest
import torch

from qio_rllib.models.joint_critics import AttentionCritic, GroupShape, JointView, MLPCritic, OwnCritic

GROUPS = [GroupShape(2, 3, 2, 2), GroupShape(1, 5, 4, 2), GroupShape(3, 2, 2, 2)]
STATE = 6


def critic_of(kind, own, heard=True, state=True):
    torch.manual_seed(own)
    groups = GROUPS if heard else [GroupShape(g.agents, g.obs, g.actions) for g in GROUPS]
    return kind(groups, own, STATE if state else 0, [16, 8], "tanh")


def view_of(rows=7, heard=True, state=True, absent=0.3):
    generator = torch.Generator().manual_seed(5)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    alive = [(torch.rand(rows, g.agents, generator=generator) >= absent).float() for g in GROUPS]
    joint = JointView(
        [draw(rows, g.agents, g.obs) for g in GROUPS],
        alive,
        [draw(rows, g.agents, g.inbox) for g in GROUPS] if heard else None,
        draw(rows, STATE) if state else None,
    )
    return joint, [draw(rows, g.agents, g.actions) for g in GROUPS], draw


KINDS = pytest.mark.parametrize("kind", [MLPCritic, AttentionCritic])


@KINDS
@pytest.mark.parametrize("own", [0, 1, 2])
@pytest.mark.parametrize("whole", [True, False])
def test_the_value_of_an_own_action_is_that_of_all_actions_with_it_in_its_place(kind, own, whole):
    critic = critic_of(kind, own, whole, whole).double()
    joint, actions, draw = view_of(heard=whole, state=whole)
    joint = JointView(*[
        None if part is None else [x.double() for x in part] if isinstance(part, list) else part.double()
        for part in (joint.obs, joint.alive, joint.inbox, joint.global_state)
    ])  # fmt: skip
    actions = [acts.double() for acts in actions]
    other = draw(*actions[own].shape).double()
    found = critic.of_own(joint, actions, other)
    for m in range(GROUPS[own].agents):
        changed = [acts.clone() for acts in actions]
        changed[own][:, m] = other[:, m]
        expected = critic(joint, changed)[:, m]
        here = joint.alive[own][:, m] > 0  # an absent agent has no action that could count
        torch.testing.assert_close(found[here, m], expected[here], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(critic.of_own(joint, actions, actions[own])[joint.alive[own] > 0],
                               critic(joint, actions)[joint.alive[own] > 0], rtol=1e-10, atol=1e-10)  # fmt: skip


@KINDS
def test_absent_agents_do_not_count(kind):
    critic = critic_of(kind, 0)
    joint, actions, draw = view_of()
    noisy = JointView(
        [
            x + 9 * draw(*x.shape) * (1 - here).unsqueeze(-1)
            for x, here in zip(joint.obs, joint.alive, strict=True)
        ],
        joint.alive,
        [
            x + 9 * draw(*x.shape) * (1 - here).unsqueeze(-1)
            for x, here in zip(joint.inbox, joint.alive, strict=True)
        ],
        joint.global_state,
    )
    other = [
        x + 9 * draw(*x.shape) * (1 - here).unsqueeze(-1)
        for x, here in zip(actions, joint.alive, strict=True)
    ]
    torch.testing.assert_close(critic(noisy, other), critic(joint, actions))


@KINDS
@pytest.mark.parametrize("part", ["obs", "inbox", "global_state", "actions"])
def test_everything_of_everybody_counts(kind, part):
    """Agent 0 of module 0 is valued by what the last agent of module 2 observes, hears and does, and by the state."""
    critic = critic_of(kind, 0)
    joint, actions, _ = view_of(absent=0.0)
    before = critic(joint, actions)[:, 0]
    obs, inbox, state = (
        [x.clone() for x in joint.obs],
        [x.clone() for x in joint.inbox],
        joint.global_state.clone(),
    )
    actions = [x.clone() for x in actions]
    {"obs": obs[2], "inbox": inbox[2], "actions": actions[2], "global_state": state}[part][:, -1] += 1.0
    after = critic(JointView(obs, joint.alive, inbox, state), actions)[:, 0]
    assert ((after - before).abs() > 1e-6).all()


@KINDS
def test_gradients_reach_every_parameter(kind):
    critic = critic_of(kind, 1)
    joint, actions, draw = view_of(rows=64)
    for loss in (
        critic(joint, actions).square().mean(),
        critic.of_own(joint, actions, draw(64, 1, 4)).square().mean(),
    ):
        critic.zero_grad()
        loss.backward()
        for name, parameter in critic.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_attention_is_scaled_dot_product_attention():
    critic = critic_of(AttentionCritic, 0)
    joint, actions, _ = view_of()
    tokens = torch.cat(
        [critic._embed(g, joint, acts) for g, acts in enumerate(joint.executed(actions))], dim=1
    )
    own = tokens[:, : GROUPS[0].agents]
    query, key = (
        layer(x).unflatten(-1, (4, -1)).transpose(1, 2)
        for layer, x in ((critic.query, own), (critic.key, tokens))
    )
    value = torch.tanh(critic.value(tokens)).unflatten(-1, (4, -1)).transpose(1, 2)
    present = (torch.cat(joint.alive, dim=1) > 0)[:, None, None, :]
    attended = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=present)
    whole = torch.cat(
        [own, attended.transpose(1, 2).flatten(2), joint.global_state.unsqueeze(1).expand(-1, 2, -1)], dim=-1
    )
    expected = critic.output(whole).squeeze(-1)
    somebody = present.any(dim=-1)[:, 0, 0]
    torch.testing.assert_close(critic(joint, actions)[somebody], expected[somebody])
    assert math.isfinite(critic(joint, actions).sum().item())


def test_heads_must_divide_the_embedding():
    with pytest.raises(ValueError, match="3 heads do not divide an embedding of 16"):
        AttentionCritic(GROUPS, 0, 0, [16], "relu", heads=3)


def test_an_own_critic_is_a_network_of_an_agents_own_row():
    torch.manual_seed(0)
    critic = OwnCritic(GROUPS, 2, [16, 8], "tanh")
    joint, actions, draw = view_of()
    rows = torch.cat(
        [
            joint.obs[2] * joint.alive[2].unsqueeze(-1),
            joint.inbox[2] * joint.alive[2].unsqueeze(-1),
            joint.alive[2].unsqueeze(-1),
            actions[2],
        ],
        dim=-1,
    )
    torch.testing.assert_close(critic(joint, actions), critic.network(rows).squeeze(-1))
    other = draw(*actions[2].shape)
    changed = [actions[0], actions[1], other]
    torch.testing.assert_close(critic.of_own(joint, actions, other), critic(joint, changed))
