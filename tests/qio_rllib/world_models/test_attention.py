"""Attention over the other agents: a plain oracle, permutations, absent agents, both models, joint candidates."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qio_rllib.world_models.attention import AttentionOverOthers
from qio_rllib.world_models.ensemble import Ensemble, EnsembleSettings
from qio_rllib.world_models.imagination import imagine
from qio_rllib.world_models.model import Sequences
from qio_rllib.world_models.rssm import RSSM, RSSMSettings

OBS, ACTIONS = 3, 2
ATTENTION = {"attention_heads": 2, "attention_size": 8}
RECURRENT = {
    "deterministic": 12,
    "stochastic": 4,
    "embedding": 8,
    "hiddens": (16,),
    "latent_hiddens": (16,),
    "reward_hiddens": (16,),
    "continuation_hiddens": (16,),
}
MODELS = pytest.mark.parametrize("kind", ["ensemble", "rssm"])


def model_of(kind, stirred=True, seed=0, **changes):
    """A model with attention whose output layer, which starts at 0, has some effect."""
    torch.manual_seed(seed)
    attention = ATTENTION | changes
    if kind == "ensemble":
        model = Ensemble(OBS, ACTIONS, EnsembleSettings(members=3, hiddens=(16,), **attention))
    else:
        model = RSSM(OBS, ACTIONS, RSSMSettings(**RECURRENT, **attention))
    if stirred and model.others is not None:
        torch.nn.init.normal_(model.others.output)
    return model


def rows_of(model, envs, agents, seed=0):
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(envs * agents, model.state_size, generator=generator)
    return state, torch.rand(envs * agents, ACTIONS, generator=generator) * 2 - 1


def layer_of(count=2, heads=2, seed=0):
    torch.manual_seed(seed)
    layer = AttentionOverOthers(count, 5, 8, heads, 3, "silu")
    torch.nn.init.normal_(layer.output)
    return layer


# -- the layer


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_it_is_attention_of_each_agent_over_the_others_that_are_there(heads):
    layer = layer_of(heads=heads)
    rows, present = torch.randn(2, 3 * 4, 5), torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 0, 0]])
    found = layer(rows, present).unflatten(1, (3, 4))
    for k in range(2):
        for e in range(3):
            for m in range(4):
                others = [n for n in range(4) if n != m and present[e, n] and present[e, m]]
                if not others:
                    assert (found[k, e, m] == 0).all()
                    continue

                def embedded(layer_, n, k=k, e=e):
                    row = torch.nn.functional.silu(
                        rows[k, e * 4 + n] @ layer.embedding.weight[k] + layer.embedding.bias[k, 0]
                    )
                    return (row @ layer_.weight[k] + layer_.bias[k, 0]).unflatten(0, (heads, -1))

                query = embedded(layer.query, m)
                scores = torch.stack([(query * embedded(layer.key, n)).sum(-1) for n in others])
                weights = torch.softmax(scores / math.sqrt(8 / heads), dim=0)  # [others, heads]
                mean = sum(
                    weight.unsqueeze(-1) * embedded(layer.value, n)
                    for weight, n in zip(weights, others, strict=True)
                )
                torch.testing.assert_close(
                    found[k, e, m], mean.flatten() @ layer.output[k], atol=1e-5, rtol=1e-4
                )


@given(
    order=st.permutations(range(5)),
    present=st.lists(st.booleans(), min_size=5, max_size=5),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=50, deadline=None)
def test_agents_that_change_places_change_outputs(order, present, seed):
    layer, generator = layer_of(), torch.Generator().manual_seed(seed)
    rows, here = torch.randn(2, 5, 5, generator=generator), torch.tensor([present])
    with torch.no_grad():
        found, moved = layer(rows, here), layer(rows[:, order], here[:, order])
    torch.testing.assert_close(moved, found[:, order], atol=1e-5, rtol=1e-4)


def test_the_layer_starts_at_nothing_and_heads_divide_its_size():
    layer = AttentionOverOthers(1, 5, 8, 2, 3, "silu")
    assert (layer(torch.randn(1, 4, 5), torch.ones(2, 2)) == 0).all()
    with pytest.raises(ValueError, match="attention_heads: 3 heads do not divide a size of 8"):
        AttentionOverOthers(1, 5, 8, 3, 3, "silu")


# -- models


@MODELS
@given(order=st.permutations(range(4)), seed=st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_predictions_change_places_with_agents(kind, order, seed):
    model = model_of(kind)
    state, action = rows_of(model, 1, 4, seed)
    here = torch.tensor([[1, 1, 0, 1]])
    with torch.no_grad():
        found = model.step(state, action, others=model.attend(state, action, here))
        places = torch.tensor(order)
        others = model.attend(state[places], action[places], here[:, places])
        moved = model.step(state[places], action[places], others=others)
    for one, other in zip(found, moved, strict=True):
        torch.testing.assert_close(other, one[places], atol=1e-4, rtol=1e-4)


@MODELS
def test_what_others_are_and_do_matters_and_an_absent_agent_has_no_gradient(kind):
    """Two steps on: gradients of the first agents' predictions in what the others are and do, in two environments."""
    model = model_of(kind)
    state, action = rows_of(model, 2, 3)
    state.requires_grad_()
    action.requires_grad_()
    here = torch.tensor([[1, 1, 1], [1, 1, 0]])
    found = model.step(state, action, others=model.attend(state, action, here))
    found = model.step(found.state, action, others=model.attend(found.state, action, here))
    (found.state[[0, 3]].sum() + found.rewards[[0, 3]].sum() + found.continuation[[0, 3]].sum()).backward()
    for grad in (state.grad.unflatten(0, (2, 3)), action.grad.unflatten(0, (2, 3))):
        assert (grad[:, 0] != 0).any(-1).all()
        assert (grad[:, 1] != 0).any(-1).all()
        assert (grad[0, 2] != 0).any()
        assert (grad[1, 2] == 0).all()


@MODELS
def test_numbers_of_absent_agents_do_not_matter_even_if_they_are_none(kind):
    model = model_of(kind)
    state, action = rows_of(model, 2, 3)
    here = torch.tensor([[1, 1, 0], [0, 1, 1]])
    expected = model.step(state, action, others=model.attend(state, action, here))
    state, action = state.clone(), action.clone()
    state[[2, 3]], action[[2, 3]] = torch.nan, torch.nan
    found = model.step(state, action, others=model.attend(state, action, here))
    kept = [0, 1, 4, 5]
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one[kept], other[kept])


@MODELS
def test_an_agent_without_others_is_one_of_a_model_without_attention(kind):
    model, plain = model_of(kind), model_of(kind, attention_heads=0)
    assert not plain.sees_others
    shared = {name: value for name, value in model.state_dict().items() if not name.startswith("others.")}
    if kind == "rssm":  # the memory's input is wider by what the others give
        shared["cell.weight_ih"] = shared["cell.weight_ih"][:, : plain.cell.input_size]
    plain.load_state_dict(shared)
    state, action = rows_of(model, 6, 1)
    actions = action[:, None, None].expand(-1, 4, 3, -1)
    for present in (torch.ones(6, 1), torch.tensor([[1, 0], [0, 1], [1, 0]])):
        found = model.step(state, action, others=model.attend(state, action, present))
        assert plain.attend(state, action, present) is None
        for one, other in zip(found, plain.step(state, action), strict=True):
            torch.testing.assert_close(one, other)
        torch.testing.assert_close(
            model.returns(state, actions, 0.9, present=present),
            plain.returns(state, actions, 0.9, present=present),
        )


@MODELS
def test_candidates_of_one_index_are_played_together(kind):
    model = model_of(kind)
    envs, agents, candidates, horizon = 2, 3, 4, 3
    state, _ = rows_of(model, envs, agents)
    actions = torch.rand(envs * agents, candidates, horizon, ACTIONS) * 2 - 1
    here = torch.tensor([[1, 1, 1], [1, 0, 1]])
    with torch.no_grad():
        found = model.returns(state, actions, 0.9, lambda features: features[..., 0], here)
        members = model.members if kind == "ensemble" else 1
        for n in range(candidates):
            now, total, weight = state.expand(members, -1, -1), 0.0, 1.0
            for h in range(horizon):
                taken = actions[:, n, h].expand(members, -1, -1)
                if kind == "ensemble":
                    others = model.attend(now, taken, here)
                    mean, _, logits = model.predictions(now, taken, others)
                    change = model.target_scale.inverse(mean)
                    now, rewards = now + change[..., :-1], change[..., -1]
                    goes_on = torch.sigmoid(logits)
                else:
                    others = model.attend(now[0], taken[0], here)
                    step = model.step(now[0], taken[0], others=others)
                    now, rewards, goes_on = step.state[None], step.rewards, step.continuation
                total, weight = total + weight * rewards, weight * goes_on * 0.9
            total = total + weight * model.features(now)[..., 0]
            torch.testing.assert_close(found[:, n], total.mean(0) if kind == "ensemble" else total[0])


@MODELS
def test_no_gradient_passes_to_others_in_imagination(kind):
    model = model_of(kind)
    state, _ = rows_of(model, 2, 3)
    taken = torch.zeros(6, ACTIONS, requires_grad=True)
    found = imagine(model, state, lambda features: taken, 4, None, torch.ones(2, 3))
    found.states[-1, 0].sum().backward()
    assert (taken.grad[0] != 0).any()
    assert (taken.grad[1:] == 0).all()
    other = imagine(model, state, lambda features: taken * 0 + 0.5, 4, None, torch.ones(2, 3))
    assert not torch.equal(other.states[-1], found.states[-1])


# -- learning


def whispered(length, envs, agents=2, seed=0):
    """Agent 0 observes a sign, which all agents are paid by in every step; agent 2, where there is one, is absent."""
    generator = torch.Generator().manual_seed(seed)
    sign = torch.randint(2, (envs,), generator=generator) * 2.0 - 1.0
    obs = torch.zeros(length + 1, envs, agents, OBS)
    obs[:, :, 0, 0] = sign
    rewards = sign.unsqueeze(-1).expand(length, envs, agents)
    actions = torch.rand(length, envs, agents, ACTIONS, generator=generator) * 2 - 1
    learned, fresh = torch.ones(length, envs, agents), torch.zeros(length, envs, agents, dtype=torch.bool)
    learned[:, :, 2:] = 0.0

    def flat(values):
        return values.flatten(1, 2)

    return Sequences(
        flat(obs[:-1]), flat(obs[1:]), flat(actions), flat(rewards), flat(torch.zeros_like(rewards)),
        flat(learned), flat(fresh), learned,
    )  # fmt: skip


@MODELS
def test_it_learns_what_only_another_agent_observes(kind):
    length = 1 if kind == "ensemble" else 2
    batch = whispered(length, 64, agents=3)
    found = {}
    for heads in (2, 0):
        model, noise = model_of(kind, stirred=False, attention_heads=heads), torch.Generator().manual_seed(0)
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        model.take_in(batch)
        for _ in range(100):
            optimizer.zero_grad()
            model.learn(batch, noise).loss.backward()
            optimizer.step()
        with torch.no_grad():
            learned = model.learn(batch, noise).states[-1]
            action, here = batch.actions[-1], batch.present[-1]
            step = model.step(learned, action, others=model.attend(learned, action, here))
        blind = torch.arange(len(action)) % 3 == 1
        truth = batch.rewards[-1]
        found[heads] = float(torch.corrcoef(torch.stack([step.rewards, truth])[:, blind])[0, 1])
    assert found[2] > 0.9
    assert abs(found[0]) < 0.5


@MODELS
def test_rows_of_absent_agents_change_no_loss(kind):
    model = model_of(kind)
    losses = []
    for filling in (0.0, 7.0):
        batch = whispered(3, 16, agents=3)
        absent = torch.arange(48) % 3 == 2
        batch.obs[:, absent], batch.actions[:, absent], batch.next_obs[:, absent] = filling, filling, filling
        if not losses:
            model.take_in(batch)
        losses.append(model.learn(batch, torch.Generator().manual_seed(0)).loss)
    assert torch.equal(*losses)
    batch.obs[:, torch.arange(48) % 3 == 0] += 1.0
    assert not torch.equal(losses[0], model.learn(batch, torch.Generator().manual_seed(0)).loss)
