"""MAAC: whom its critic attends to, its targets and losses, the gradient behind its baseline, and what it refuses."""

import copy
import dataclasses
import math

import pytest
import torch
from resumed_runs import assert_goes_on_exactly
from toy_matrix import Matrix
from toy_off_policy import assert_absent_agents_do_not_matter, config_of, moved_apart, setup_of

from qio_envs.api import ConfigError
from qio_rllib.algorithms import MAACConfig
from qio_rllib.models.actor_attention import ActorAttentionCritic
from qio_rllib.models.joint_critics import GroupShape, JointView
from qio_rllib.sampling.environments import register_env

GROUPS = [GroupShape(2, 3, 3), GroupShape(1, 5, 4), GroupShape(2, 2, 2)]
AGENTS, STATE = 5, 6
CRITIC = {"hiddens": [16], "heads": 2}
MEMORY = {"use_gru": True, "gru_cell_size": 6, "max_seq_len": 4}


def maac(task, model=None, **settings):
    config = config_of(task, algorithm=MAACConfig, model=model, **{"critic": CRITIC, **settings})
    return setup_of(config, sequences=model is not None)


# -- the critic


def critic_of(state=True):
    torch.manual_seed(1)
    return ActorAttentionCritic(GROUPS, STATE if state else 0, [8, 6], "tanh", 2).double()


def view_of(rows=30, absent=0.0, state=True):
    generator = torch.Generator().manual_seed(5)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    alive = [(torch.rand(rows, g.agents, generator=generator) >= absent).double() for g in GROUPS]
    view = JointView(
        [draw(rows, g.agents, g.obs) for g in GROUPS], alive, None, draw(rows, STATE) if state else None
    )
    actions = [
        torch.nn.functional.one_hot(
            torch.randint(g.actions, (rows, g.agents), generator=generator), g.actions
        ).double()
        for g in GROUPS
    ]
    return view, actions


def by_agent(values):
    """Return a list of ``[B, A]``, one for each agent."""
    return [part[:, m] for part in values for m in range(part.shape[1])]


def reference(critic, view, actions):
    """The critic written out agent by agent, from its weights."""

    def named(g, m):
        rows = view.obs[g][:, m]
        features = torch.cat([rows, torch.ones_like(rows[:, :1])], -1) * view.alive[g][:, m : m + 1]
        return torch.cat([features, torch.eye(GROUPS[g].agents)[m].expand(len(rows), -1)], -1)

    agents = [(g, m) for g, group in enumerate(GROUPS) for m in range(group.agents)]
    seen = [torch.tanh(critic.observers[g](named(g, m))) for g, m in agents]
    done = [
        torch.tanh(
            critic.doers[g](torch.cat([named(g, m), actions[g][:, m] * view.alive[g][:, m : m + 1]], -1))
        )
        for g, m in agents
    ]
    found, squares = [], []
    for i, (g, m) in enumerate(agents):
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            query, keys = critic.query(seen[i])[:, head], [critic.key(token)[:, head] for token in done]
            others = [j for j in range(AGENTS) if j != i]
            scores = torch.stack([(query * keys[j]).sum(-1) for j in others], -1)
            there = torch.stack([view.alive[agents[j][0]][:, agents[j][1]] for j in others], -1) > 0
            weights = torch.softmax((scores / 2.0).masked_fill(~there, -torch.inf), -1).nan_to_num(0.0)
            told = torch.stack([torch.tanh(critic.value(done[j]))[:, head] for j in others], 1)
            heads.append((weights.unsqueeze(-1) * told).sum(1))
            squares.append(scores[there & (view.alive[g][:, m : m + 1] > 0)] ** 2)
        parts = [seen[i], *heads] + ([] if view.global_state is None else [view.global_state])
        found.append(critic.outputs[g](torch.cat(parts, -1)))
    return found, torch.cat(squares).mean()


@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize("absent", [0.0, 0.4, 1.0])
def test_each_agent_attends_to_the_living_others(absent, state):
    critic, (view, actions) = critic_of(state), view_of(absent=absent, state=state)
    found = critic(view, actions)
    expected, magnitude = reference(critic, view, actions)
    for left, right in zip(by_agent(found.values), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)
    if absent < 1.0:
        torch.testing.assert_close(found.magnitude, magnitude, rtol=1e-9, atol=1e-9)
    else:
        assert found.magnitude.item() == 0.0


def test_shared_weights_get_their_gradient_divided_by_the_number_of_agents():
    critic, (view, actions) = critic_of(), view_of()
    names = [name for name, _ in critic.named_parameters()]

    def gradients(values):
        loss = sum(part.square().mean() for part in values)
        return torch.autograd.grad(loss, [*critic.parameters()])

    published = gradients(by_agent(critic(view, actions).values))
    plain = gradients(reference(critic, view, actions)[0])
    for name, left, right in zip(names, published, plain, strict=True):
        shared = name.partition(".")[0] in ("query", "key", "value")
        torch.testing.assert_close(left, right / (AGENTS if shared else 1), rtol=1e-9, atol=1e-12)
        assert left.abs().max() > 0, name


def test_an_agents_values_do_not_depend_on_what_it_did():
    critic, (view, actions) = critic_of(), view_of()
    before = by_agent(critic(view, actions).values)
    other = [part.clone() for part in actions]
    other[0][:, 1] = other[0][:, 1].roll(1, dims=-1)
    after = by_agent(critic(view, other).values)
    for agent, (left, right) in enumerate(zip(before, after, strict=True)):
        assert torch.equal(left, right) == (agent == 1)


def test_what_absent_agents_observe_and_do_is_not_heard():
    critic, (view, actions) = critic_of(), view_of(absent=0.4)
    noisy = dataclasses.replace(
        view,
        obs=[rows + 9 * (1 - here).unsqueeze(-1) for rows, here in zip(view.obs, view.alive, strict=True)],
    )
    other = [acts + 9 * (1 - here).unsqueeze(-1) for acts, here in zip(actions, view.alive, strict=True)]
    for left, right in zip(critic(noisy, other).values, critic(view, actions).values, strict=True):
        torch.testing.assert_close(left, right)


# -- targets and losses


def softmax_of(policy, rows, legal):
    with torch.no_grad():
        logits = policy.outputs(policy.features(rows, None)[0])
    masked = logits if legal is None else logits.masked_fill(~legal, -torch.inf)
    return logits, torch.softmax(masked, -1)


def drawn(probs, learner, seed):
    """Draw as the Learner does from its noise."""
    learner.noise.manual_seed(seed)
    uniform = torch.rand(probs.shape, generator=learner.noise).clamp(1e-20, 1 - 1e-7)
    return (probs.log() - torch.log(-torch.log(uniform))).argmax(-1)


@pytest.mark.parametrize("task", ["masked", "forest", "discrete"])
def test_targets_are_soft_values_of_what_the_target_policies_draw(task):
    """Iqbal and Sha (2019), equation 7."""
    setup = maac(task, initial_alpha=0.4)
    (module,), rows, learner = setup.modules, setup.rows, setup.learner
    moved_apart(module.target_policy, module.target_critics, by=0.3)
    learner.noise.manual_seed(8)
    (targets,) = learner.targets([module], rows)
    _, probs = softmax_of(module.target_policy, rows.next_obs[0], rows.next_legal[0])
    chosen = drawn(probs, learner, 8).unsqueeze(-1)
    joint = torch.nn.functional.one_hot(chosen.squeeze(-1), probs.shape[-1]).float()
    with torch.no_grad():
        view = rows.next_view(None)
        values = module.attention(target=True).critic(view, [joint]).values[0].gather(-1, chosen).squeeze(-1)
    soft = values - 0.4 * probs.gather(-1, chosen).squeeze(-1).log()
    expected = rows.rewards[0] + torch.where(rows.present_next[0] > 0, rows.discounts[0] * soft, 0.0)
    here = rows.acted[0] > 0
    torch.testing.assert_close(targets[here], expected[here], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", ["masked", "forest"])
def test_losses_are_those_of_the_textbook(task):
    settings = {"action_regularization": 0.02, "attention_regularization": 0.3}
    setup = maac(task, initial_alpha=0.4, **settings)
    (module,), rows, learner = setup.modules, setup.rows, setup.learner
    moved_apart(module.critics, by=0.2)
    for name in ("critic", "actor"):
        for group in learner.get_optimizer("shared", name).param_groups:
            group["lr"] = 0.0
    learner.noise.manual_seed(8)
    targets = learner.targets([module], rows)[0]
    state = learner.noise.get_state()
    critic, acted = module.attention().critic, rows.acted[0] > 0
    with torch.no_grad():
        found = critic(rows.view(), rows.actions)
        errors = ((found.values[0] * rows.actions[0]).sum(-1) - targets) ** 2
        critic_loss = 3 * errors[acted].mean() + 0.3 * found.magnitude
        logits, probs = softmax_of(module.policy, rows.obs[0], rows.legal[0])
        learner.noise.set_state(state)
        uniform = torch.rand(probs.shape, generator=learner.noise).clamp(1e-20, 1 - 1e-7)
        chosen = (probs.log() - torch.log(-torch.log(uniform))).argmax(-1)
        joint = torch.nn.functional.one_hot(chosen, probs.shape[-1]).float()
        values = critic(rows.view(), [joint]).values[0]
        logp = probs.gather(-1, chosen.unsqueeze(-1)).squeeze(-1).log()
        advantage = (values * joint).sum(-1) - (probs * values).sum(-1)
        gain = logp * (advantage - 0.4 * logp)
        actor_loss = -gain[acted].mean() + 0.02 * (logits**2).mean(-1)[acted].mean()
        entropy = -(probs * probs.clamp_min(1e-30).log()).sum(-1)[acted].mean()
    learner.noise.manual_seed(8)
    stats = learner.gradient_step(rows)
    assert float(stats["shared", "critic_loss"]) == pytest.approx(float(critic_loss), rel=1e-4)
    assert float(stats["shared", "actor_loss"]) == pytest.approx(float(actor_loss), rel=1e-4)
    assert float(stats["shared", "entropy"]) == pytest.approx(float(entropy), rel=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_the_baseline_leaves_the_expected_gradient_what_it_is(alpha):
    """Over all actions, each weighed by its probability: the gradient of the value plus alpha times the entropy."""
    learner = maac("discrete").learner
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    values = torch.randn(1, 4, 5, generator=generator, dtype=torch.float64)
    log_probs = torch.log_softmax(logits, -1)
    probs = log_probs.exp()
    expected = torch.autograd.grad((probs * (values - alpha * log_probs)).sum(), logits, retain_graph=True)[0]
    total = torch.zeros_like(logits)
    for action in range(5):
        chosen = torch.eye(5, dtype=torch.float64)[action].expand_as(values)
        gain = learner.policy_gain(log_probs, chosen, values, torch.tensor(alpha, dtype=torch.float64))
        weighed = (probs.detach()[..., action] * gain).sum()
        total += torch.autograd.grad(weighed, logits, retain_graph=True)[0]
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-10)
    # The weight itself has the baseline: the advantages' mean under the policy is 0.
    weights = [
        torch.autograd.grad(
            learner.policy_gain(log_probs, one.expand_as(values), values, torch.tensor(0.0)).sum(),
            log_probs,
            retain_graph=True,
        )[0].sum(-1)
        for one in torch.eye(5, dtype=torch.float64)
    ]
    mean = (torch.stack(weights, -1) * probs.detach()).sum(-1)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-12)


def test_policies_learn_from_actions_that_all_draw_anew_and_not_from_those_in_the_replay():
    one, two = (maac("discrete") for _ in range(2))
    for setup in (one, two):
        for group in setup.learner.get_optimizer("shared", "critic").param_groups:
            group["lr"] = 0.0
    two.rows.actions[0] = two.rows.actions[0].roll(1, dims=-1)
    stats = [setup.learner.gradient_step(setup.rows) for setup in (one, two)]
    assert float(stats[0]["shared", "critic_loss"]) != float(stats[1]["shared", "critic_loss"])
    for left, right in zip(*(setup.modules[0].policy.parameters() for setup in (one, two)), strict=True):
        torch.testing.assert_close(left, right)


# -- an update


@pytest.mark.parametrize(
    ("task", "model"),
    [("discrete", None), ("forest", MEMORY), ("tag", None), ("pole", None), ("masked", MEMORY)],
)
def test_every_kind_of_task_is_learned_from(task, model):
    setup = maac(task, model=model, amplification={} if task == "forest" else None)
    before = [copy.deepcopy(module.state_dict()) for module in setup.modules]
    stats = setup.learner.gradient_step(setup.rows)
    assert all(math.isfinite(float(value)) for value in stats.values())
    for g, (old, module) in enumerate(zip(before, setup.modules, strict=True)):
        present = module.state_dict()
        changed = {name for name in old if (old[name] != present[name]).any()}
        for part in ("policy", "target_policy"):
            assert {f"{part}.encoder.layers.0.weight", f"{part}.head.layers.0.weight"} <= changed
        assert any(name.startswith("critics.") for name in old) == (g == 0)
    for name in ("critics", "target_critics"):
        for layer in ("observers.0.weight", "outputs.0.0.weight"):
            assert f"{name}.0.critic.{layer}" in {
                key for key in before[0] if (before[0][key] != setup.modules[0].state_dict()[key]).any()
            }


def test_the_temperature_stays_unless_it_has_a_rate():
    setup = maac("discrete")
    setup.learner.gradient_step(setup.rows)
    assert float(setup.modules[0].log_alpha.detach().exp()) == pytest.approx(0.01)
    setup = maac("discrete", alpha_lr=0.01, target_entropy_share=0.1)
    setup.learner.gradient_step(setup.rows)
    assert float(setup.modules[0].log_alpha.detach().exp()) < 0.01 * 0.995


def test_what_absent_agents_hold_does_not_matter():
    assert_absent_agents_do_not_matter(lambda: maac("lives"))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_an_interrupted_run_goes_on_exactly(tmp_path):
    config = config_of("forest", algorithm=MAACConfig, critic=CRITIC, alpha_lr=0.01)
    assert_goes_on_exactly(config, tmp_path, ("critic_loss", "actor_loss", "alpha_loss", "alpha", "entropy"))


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
def test_it_learns_to_coordinate():
    """A matrix game: 3 at random, and 5, 6 or 8 for a joint action from which nobody gains by leaving alone."""
    torch.manual_seed(0)
    register_env("matrix", lambda env_config: Matrix())
    algorithm = (
        MAACConfig()
        .environment("matrix")
        .multi_agent(policies="independent")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16, rollout_fragment_length=1)
        .training(
            critic={"hiddens": [32], "heads": 2},
            train_batch_size_per_learner=64,
            env_steps_per_update=16,
            num_steps_sampled_before_learning_starts=320,
            replay_capacity=2000,
            tau=0.05,
            actor_lr=3e-3,
            critic_lr=1e-2,
            initial_alpha=0.5,
        )
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .reporting(min_sample_timesteps_per_iteration=800)
        .debugging(seed=3)
        .build_algo()
    )
    payoffs = [algorithm.train()["env_runners"]["payoff"] for _ in range(8)]
    algorithm.stop()
    assert payoffs[0] < 4.0
    assert payoffs[-1] >= 4.6  # its policies keep some entropy


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"initial_alpha": 0.0}, "initial_alpha: expected a number above 0, got 0.0"),
        ({"attention_regularization": -1.0}, "attention_regularization: expected a number of at least 0"),
        (
            {"critic": {"type": "mlp"}},
            "critic: MAAC's critic attends to the other agents, expected attention, got",
        ),
        (
            {"critic": {"hiddens": [6], "heads": 4}},
            "critic.heads: 4 heads do not divide the first hidden layer of 6",
        ),
        ({"central_value": "state"}, "central_value: MAAC's critic is central as it is; see critic_state"),
        ({"entropy_annealing": {"law": "quantum"}}, "entropy_annealing: MAAC's entropy is weighed by"),
    ],
)
def test_bad_settings_are_refused(training, message):
    with pytest.raises(ConfigError, match=message):
        config_of("discrete", algorithm=MAACConfig, **training).validate()


def test_continuous_actions_are_refused():
    with pytest.raises(ConfigError, match="env: MAAC needs Discrete actions, agent_0 has Box"):
        config_of("swarm", algorithm=MAACConfig).validate()
