"""COMA: what its critic sees, its targets, its advantages, the gradient that they give, and what it refuses."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from toy_matrix import PAYOFFS, coma_config, played
from toy_off_policy import moved_apart

from qio_envs.api import ConfigError
from qio_rllib.algorithms import COMAConfig
from qio_rllib.learners.joint_rollouts import JointRollout, joint_rollout_of, lambda_returns
from qio_rllib.learners.transitions import outputs_of
from qio_rllib.models.counterfactual_critic import CounterfactualCritic
from qio_rllib.models.joint_critics import GroupShape, JointView
from qio_rllib.sampling.runner import BatchedEnvRunner

GROUPS = [GroupShape(2, 3, 3), GroupShape(1, 5, 4)]
STATE = 6
MEMORY = {"use_gru": True, "gru_cell_size": 6, "max_seq_len": 5}


def probabilities(policy, rows, legal, share=0.2):
    """The policy by the textbook: a softmax over legal actions, mixed with uniform play."""
    with torch.no_grad():
        logits = policy.outputs(policy.features(rows, None)[0])
    legal = torch.ones_like(logits, dtype=torch.bool) if legal is None else legal
    probs = torch.softmax(logits.masked_fill(~legal, -torch.inf), -1)
    return (1 - share) * probs + share * legal / legal.sum(-1, keepdim=True)


# -- the critic


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


# -- targets


def test_lambda_returns_are_mixtures_of_n_step_returns():
    """The forward view (Sutton and Barto, 2018, equation 12.3), written out for each step."""
    steps, lambda_ = 9, 0.7
    rng = np.random.default_rng(0)
    rewards, ahead = rng.normal(size=(2, steps, 4, 3))
    discounts = 0.9 * (rng.random((steps, 4, 3)) > 0.2)
    continuing = (rng.random((steps, 4, 3)) > 0.3) * (discounts > 0)
    continuing = continuing.astype(float)
    continuing[-1] = 0.0
    expected = np.zeros_like(rewards)
    for t, e, m in np.ndindex(rewards.shape):
        total, weight, discount, share = 0.0, 0.0, 1.0, 1.0
        for n in range(t, steps):
            total += discount * rewards[n, e, m]
            discount *= discounts[n, e, m]
            n_step, last = total + discount * ahead[n, e, m], not continuing[n, e, m]
            weight = share if last else share * (1 - lambda_)
            expected[t, e, m] += weight * n_step
            share *= lambda_
            if last:
                break
    found = lambda_returns(
        *(torch.from_numpy(array) for array in (rewards, discounts, ahead, continuing)), lambda_
    )
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("task", ["lives", "masked", "forest"])
def test_targets_are_those_of_each_agents_own_life_by_hand(task):
    """A critic that says the same everywhere, so that only what was done and the policy's means count."""
    learner, rollout, batch = played(coma_config(task, lambda_=0.6, gamma=0.9, steps=23))
    (module,), (part,) = learner.modules(), rollout.modules.values()
    head = module.critic(target=True).head
    worth = torch.linspace(-1.0, 2.0, head.out_features)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(worth)
    (found,) = learner.targets(batch)
    (columns,) = (part.next_observations(),)
    legal = None
    if part.action_mask is not None:
        legal = part.action_mask[1:].copy()
        legal[tuple(part.final_index.T)] = True
        legal = torch.from_numpy(legal)
    rows = torch.from_numpy(columns.reshape(*columns.shape[:3], -1))
    means = (probabilities(module.policy, rows, legal) * worth).sum(-1).numpy()
    steps, envs, agents = part.rewards.shape
    expected = np.zeros(part.rewards.shape)
    for e, m in np.ndindex(envs, agents):
        for t in reversed(range(steps)):
            if part.terminated[t, e, m]:
                ahead = 0.0
            elif part.truncated[t, e, m] or t + 1 == steps:
                ahead = means[t, e, m]
            else:
                ahead = 0.4 * float(worth[part.actions[t + 1, e, m]]) + 0.6 * expected[t + 1, e, m]
            expected[t, e, m] = part.rewards[t, e, m] + 0.9 * ahead
    assert part.truncated[part.acted].any()
    np.testing.assert_allclose(
        found.reshape(part.rewards.shape).numpy()[part.acted], expected[part.acted], rtol=1e-4, atol=1e-5
    )


def test_what_follows_the_end_is_valued_with_actions_that_the_others_draw():
    """In the matrix game's place: what follows is worth the payoff of my action and the other's, who does the same."""
    learner, _, batch = played(coma_config("discrete", exploration=0.0, steps=4, num_envs=40))
    (module,) = learner.modules()
    target = module.critic(target=True)
    moved_apart(target, by=0.5)
    with torch.no_grad():
        module.policy.head.layers[-1].bias[2] += 30.0  # everybody does this
    rows = torch.arange(len(batch.whole.rewards[0]))
    (found,) = learner._values_beyond(learner.modules(), batch, rows)
    done = torch.zeros_like(batch.whole.actions[0])
    done[..., 2] = 1.0
    with torch.no_grad():
        expected = target(batch.whole.next_view(None), [done])[..., 2]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_with_memory_the_policy_beyond_the_end_has_passed_the_steps_before():
    learner, _, batch = played(coma_config("pole", model=MEMORY))
    (module,), rows = learner.modules(), torch.tensor([4, 17, 35])
    moved_apart(module.policy, module.target_critics, by=0.5)
    (found,) = learner._values_beyond([module], batch, rows)
    outputs = outputs_of(module.policy, batch.whole, 0, 0, batch.whole.next_obs)[1]
    with torch.no_grad():  # one agent: its own action does not matter to its critic
        values = module.critic(target=True)(batch.whole.next_view(None), batch.whole.actions)
        expected = (learner.policy(module, outputs, None).probs * values).sum(-1)
    torch.testing.assert_close(found, expected[rows])


def test_targets_are_in_the_units_of_rewards_whatever_the_scale_of_the_values():
    learner, _, batch = played(coma_config("lives", normalize_values=True))
    (module,), (popart,) = learner.modules(), learner._popart.values()
    popart.mean, popart.deviation = 3.0, 2.0
    noise = learner.noise.get_state()
    (scaled,) = learner.targets(batch)
    head = module.critic(target=True).head
    with torch.no_grad():
        head.weight.mul_(2.0)
        head.bias.mul_(2.0).add_(3.0)
    popart.mean, popart.deviation = 0.0, 1.0
    learner.noise.set_state(noise)
    torch.testing.assert_close(learner.targets(batch)[0], scaled)


def test_rollouts_of_several_runners_lie_side_by_side():
    config = coma_config("lives")
    learner, one, batch = played(config)
    other = BatchedEnvRunner(config=config).sample(num_timesteps=36)[0]
    both = joint_rollout_of([one, other], learner.joint, config.gamma, "cpu")
    alone = joint_rollout_of([other], learner.joint, config.gamma, "cpu")
    for name in ("obs", "rewards", "actions", "acted", "present_next"):
        first, second, joined = (getattr(part.whole, name)[0] for part in (batch, alone, both))
        halves = joined.unflatten(0, (12, 6)).split(3, dim=1)
        torch.testing.assert_close(halves[0].flatten(0, 1), first)
        torch.testing.assert_close(halves[1].flatten(0, 1), second)
    short = BatchedEnvRunner(config=config).sample(num_timesteps=9)[0]
    with pytest.raises(ValueError, match=r"rollouts: expected one number of steps, got \[3, 12\]"):
        joint_rollout_of([one, short], learner.joint, config.gamma, "cpu")


# -- advantages and losses


@pytest.mark.parametrize("task", ["masked", "forest", "tag"])
def test_advantages_sum_to_nothing_under_the_policy(task):
    learner, _, batch = played(coma_config(task, amplification={}))
    for g, module in enumerate(learner.modules()):
        moved_apart(module.critic(), by=0.5)
        outputs = outputs_of(module.policy, batch.whole, g, 0)[0]
        probs = learner.policy(module, outputs, batch.whole.legal[g]).probs.detach()
        count, agents, actions = probs.shape
        total, largest = torch.zeros(count, agents), 0.0
        for m, action in itertools.product(range(agents), range(actions)):
            whole = dataclasses.replace(batch.whole, actions=[part.clone() for part in batch.whole.actions])
            whole.actions[g][:, m] = torch.eye(actions)[action]
            found = learner.advantages(module, whole, g, probs)[:, m]
            total[:, m] += probs[:, m, action] * found
            largest = max(largest, float(found.abs().max()))
        acted = batch.whole.acted[g] > 0
        assert largest > 0.05
        assert total[acted].abs().max() < 1e-5
        if batch.whole.legal[g] is not None:
            assert not probs[acted][~batch.whole.legal[g][acted]].any()


@pytest.mark.parametrize("task", ["masked", "forest"])
def test_losses_are_those_of_the_textbook(task):
    learner, rollout, batch = played(coma_config(task, entropy_coeff=0.03))
    (module,), (part,) = learner.modules(), rollout.modules.values()
    moved_apart(module.target_critics, by=0.5)  # which have no part in it
    obs = torch.from_numpy(part.observations[:-1].reshape(*part.rewards.shape, -1)).flatten(0, 1)
    legal = None
    if part.action_mask is not None:
        legal = torch.from_numpy(part.action_mask[:-1]).flatten(0, 1)
    acted = torch.from_numpy(part.acted).flatten(0, 1)
    chosen = torch.from_numpy(part.actions).flatten(0, 1)
    targets = torch.randn(acted.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        values = module.critic()(batch.whole.view(), batch.whole.actions)
    taken = values.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    error = float(((taken - targets)[acted] ** 2).mean())
    found = learner.critic_objective(batch.whole, [targets])
    assert found.losses["shared"].item() == pytest.approx(error, rel=1e-5)
    probs = probabilities(module.policy, obs, legal)
    mine = probs.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    advantages = taken - (probs * values).sum(-1)
    entropy = -(probs * probs.clamp_min(1e-30).log()).sum(-1)
    loss = -(mine.log() * advantages)[acted].mean() - 0.03 * entropy[acted].mean()
    found = learner.actor_objective(batch)
    assert found.losses["shared"].item() == pytest.approx(float(loss), rel=1e-4)
    assert float(found.stats["shared", "entropy"]) == pytest.approx(float(entropy[acted].mean()), rel=1e-5)
    size = float((advantages[acted] ** 2).mean().sqrt())
    assert float(found.stats["shared", "advantage_size"]) == pytest.approx(size, rel=1e-5)
    learner.config = learner.config.copy(copy_frozen=False).training(standardize_advantages=True)
    loss = -(mine.log() * advantages / size)[acted].mean() - 0.03 * entropy[acted].mean()
    assert learner.actor_objective(batch).losses["shared"].item() == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_with_an_exact_critic_the_expected_gradient_is_that_of_the_expected_payoff(share, monkeypatch):
    """All nine joint actions of a matrix game, each weighed by its probability."""
    learner, _, batch = played(coma_config("matrix", exploration=share, steps=1, num_envs=9))
    modules = learner.modules()
    for module in modules:
        moved_apart(module.policy, by=0.5)
    pairs = torch.tensor([*itertools.product(range(3), range(3))])
    whole = dataclasses.replace(
        batch.whole, actions=[torch.eye(3)[pairs[:, g]].unsqueeze(1) for g in range(2)]
    )
    payoffs = torch.from_numpy(PAYOFFS)

    def exact(critic, rows):
        other = rows.actions[1 - critic.own].argmax(-1)
        return payoffs.t()[other] if critic.own == 0 else payoffs[other]

    monkeypatch.setattr(learner, "values", exact)
    parameters = [parameter for module in modules for parameter in module.policy.parameters()]

    def policies(rows):
        found = [outputs_of(module.policy, rows, g, 0)[0] for g, module in enumerate(modules)]
        return [learner.policy(module, part, None).probs for module, part in zip(modules, found, strict=True)]

    one, other = (probs[0, 0] for probs in policies(whole))
    expected = torch.autograd.grad((one.unsqueeze(1) * other * payoffs).sum(), parameters)
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    for row, (a, b) in enumerate(pairs.tolist()):
        alone = whole.rows(slice(row, row + 1))
        objective = learner.actor_objective(JointRollout(alone, [alone]))
        gradients = torch.autograd.grad(-sum(objective.losses.values()), parameters)
        for total, gradient in zip(totals, gradients, strict=True):
            total += float(one[a] * other[b]) * gradient
    for total, gradient in zip(totals, expected, strict=True):
        torch.testing.assert_close(total, gradient, rtol=1e-5, atol=1e-5)
    assert max(float(gradient.abs().max()) for gradient in expected) > 0.1


# -- an update


def test_the_critic_takes_its_steps_from_the_last_to_the_first_and_the_target_follows_in_time(monkeypatch):
    learner, rollout, _ = played(coma_config("forest", target_network_update_freq=5))
    (module,) = learner.modules()
    before = copy.deepcopy(module)
    sizes, losses, objective = [], [], learner.critic_objective

    def noted(rows, targets):
        found = objective(rows, targets)
        sizes.append(rows.obs[0])
        losses.append(found.losses["shared"].item())
        return found

    monkeypatch.setattr(learner, "critic_objective", noted)
    results = learner.update(episodes=[rollout])
    assert results["shared"]["critic_loss"].peek() == pytest.approx(np.mean(losses))
    assert results["shared"]["updates_lifetime"].peek() == 1  # of the policy
    part = torch.from_numpy(rollout.modules["shared"].observations[:-1]).flatten(3)
    for k, rows in enumerate(sizes):
        torch.testing.assert_close(rows, part[12 - 4 * (k + 1) : 12 - 4 * k].flatten(0, 1))
    assert len(sizes) == 3
    for name in ("critics", "policy", "target_critics"):
        same = all(
            torch.equal(old, new)
            for old, new in zip(
                getattr(before, name).parameters(), getattr(module, name).parameters(), strict=True
            )
        )
        assert same == (name == "target_critics")
    learner.update(episodes=[rollout])  # five of six gradient steps lie behind the move
    moved = [*module.target_critics.parameters()]
    assert all(
        not torch.equal(old, new) for old, new in zip(before.target_critics.parameters(), moved, strict=True)
    )


@pytest.mark.parametrize("combined", [None, "sum", "mean"])
def test_a_team_reward_is_what_all_agents_earned(combined, monkeypatch):
    learner, rollout, _ = played(coma_config("tag", team_reward=combined))
    batches, targets = [], learner.targets
    monkeypatch.setattr(learner, "targets", lambda batch: batches.append(batch) or targets(batch))
    learner.update(episodes=[rollout])
    own = [part.rewards for part in rollout.modules.values()]
    everybody = np.concatenate(own, axis=2)
    team = {"sum": everybody.sum(axis=2), "mean": everybody.mean(axis=2)}
    assert np.abs(everybody - everybody.mean(axis=2, keepdims=True)).max() > 0.01
    for found, alone in zip(batches[0].whole.rewards, own, strict=True):
        expected = alone if combined is None else np.repeat(team[combined][..., None], alone.shape[2], axis=2)
        np.testing.assert_allclose(found.reshape(alone.shape), expected, rtol=1e-5, atol=1e-6)


def test_a_new_scale_leaves_the_values_what_they_were():
    learner, rollout, batch = played(coma_config("forest", normalize_values=True))
    (module,), (popart,) = learner.modules(), learner._popart.values()
    learner.update(episodes=[rollout])
    assert popart.deviation != 1.0

    def values():
        with torch.no_grad():
            return [
                learner._scaled(0, learner.values(module.critic(target), batch.whole))
                for target in (False, True)
            ]

    before = values()
    targets = learner._normalized(batch.whole, [100.0 * batch.whole.rewards[0] + 7.0])
    for old, new in zip(before, values(), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-3, atol=1e-3)
    acted = batch.whole.acted[0] > 0
    torch.testing.assert_close(
        learner._scaled(0, targets[0])[acted],
        (100.0 * batch.whole.rewards[0] + 7.0)[acted],
        rtol=1e-3,
        atol=1e-2,
    )


def test_a_schedule_of_the_entropy_coefficient_and_both_learning_rates_are_followed():
    config = coma_config("matrix", entropy_coeff=[[0, 0.1], [1000, 0.0]], actor_lr=1e-3, critic_lr=2e-3)
    learner, rollout, _ = played(config)
    assert learner.entropy_coefficients.current("a") == pytest.approx(0.1)
    learner.update(episodes=[rollout], timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 500})
    assert learner.entropy_coefficients.current("a") == pytest.approx(0.05)
    for name, rate in (("actor", 1e-3), ("critic", 2e-3)):
        assert learner.get_optimizer("a", name).param_groups[0]["lr"] == pytest.approx(rate)


def test_a_law_of_annealing_follows_the_entropy_of_those_that_act():
    """Of the legal actions' logarithm; see `EntropyCoefficients`."""
    law = {"law": "quantum", "alpha_0": 0.1, "alpha_min": 0.01, "decay": 0.5}
    learner, rollout, batch = played(coma_config("masked", entropy_annealing=law))
    (module,), acted = learner.modules(), batch.whole.acted[0] > 0
    outputs = outputs_of(module.policy, batch.whole, 0, 0)[0]
    entropy = learner.policy(module, outputs, batch.whole.legal[0]).entropy()[acted]
    share = entropy / batch.whole.legal[0].sum(-1)[acted].clamp_min(2).log()
    found = learner.update(episodes=[rollout])["shared"]
    assert found["normalized_entropy"].peek() == pytest.approx(float(share.mean()), rel=1e-5)
    assert found["alpha"].peek() < 0.1


def test_windows_begin_with_the_memory_that_was_recorded_there():
    """What windows give is what the whole rollout gives in one go; gradients do not pass between windows."""
    learner, _, batch = played(coma_config("lives", model={**MEMORY, "max_seq_len": 7}))
    (module,) = learner.modules()
    whole = outputs_of(module.policy, batch.whole, 0, 0)[0]
    parts = [outputs_of(module.policy, part, 0, 0)[0] for part in batch.windows]
    assert [len(part) // 3 for part in parts] == [7, 5]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-6)
    assert not batch.whole.fresh[0].unflatten(0, (12, 3))[7].all()  # some go on into the second window


@pytest.mark.parametrize("model", [{}, MEMORY], ids=["memoryless", "gru"])
@pytest.mark.parametrize("task", ["lives", "masked"])
def test_what_absent_agents_hold_does_not_matter(task, model):
    found = []
    for value in (0.0, 77.0):
        learner, rollout, _ = played(coma_config(task, model=model, normalize_values=not model))
        (part,) = rollout.modules.values()
        absent = ~part.acted
        assert absent.any()
        part.observations[:-1][absent] += value
        part.actions[absent] = (part.actions[absent] + int(value)) % 3
        part.rewards[absent] += value
        learner.update(episodes=[rollout])
        found.append([*learner.modules()[0].parameters()])
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right)
        assert left.isfinite().all()


@pytest.mark.parametrize(
    ("task", "model"),
    [("discrete", {}), ("forest", MEMORY), ("tag", {}), ("pole", MEMORY), ("masked", {}), ("matrix", {})],
)
def test_every_kind_of_task_is_learned_from(task, model):
    learner, rollout, _ = played(coma_config(task, model=model))
    before = [copy.deepcopy(module.state_dict()) for module in learner.modules()]
    results = learner.update(episodes=[rollout])
    for module_id, old, module in zip(learner.joint["modules"], before, learner.modules(), strict=True):
        assert np.isfinite(results[module_id]["critic_loss"].peek())
        for name in (
            "policy.encoder.layers.0.weight",
            "policy.head.layers.0.weight",
            "critics.0.head.weight",
        ):
            assert (old[name] != module.state_dict()[name]).any(), name


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("model", [{}, MEMORY], ids=["memoryless", "gru"])
def test_an_interrupted_run_goes_on_exactly(model, tmp_path):
    law = {"law": "quantum", "alpha_0": 0.1, "alpha_min": 0.01, "decay": 0.5}
    settings = {"entropy_annealing": law, "normalize_values": True, "target_network_update_freq": 5}
    whole = coma_config("forest", model=model, exploration=[[0, 0.5], [500, 0.0]], **settings).build_algo()
    for _ in range(2):
        whole.train()
    whole.save_to_path(str(tmp_path / "checkpoint"))
    expected = whole.train()["learners"]["shared"]
    resumed = type(whole).from_checkpoint(str(tmp_path / "checkpoint"))
    found = resumed.train()["learners"]["shared"]
    for name in ("critic_loss", "actor_loss", "alpha", "entropy", "exploration", "value_mean", "q_mean"):
        assert found[name] == expected[name]
    for old, new in zip(
        *(algorithm.learner_group.get_weights()["shared"].values() for algorithm in (whole, resumed)),
        strict=True,
    ):
        np.testing.assert_array_equal(old, new)
    whole.stop()
    resumed.stop()


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.usefixtures("ray_runtime")
def test_a_remote_runner_samples_and_evaluates():
    config = coma_config("discrete", steps=6, num_envs=2).env_runners(num_env_runners=2)
    config.training(train_batch_size_per_learner=24)
    algorithm = config.evaluation(evaluation_interval=1, evaluation_duration=2).build_algo()
    before = algorithm.learner_group.get_weights()["shared"]
    result = algorithm.train()
    after = algorithm.learner_group.get_weights()["shared"]
    algorithm.stop()
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] >= 24
    assert np.isfinite(result["evaluation"]["greedy"]["team_return"])
    assert any(np.any(before[name] != after[name]) for name in before)


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
def test_it_learns_to_coordinate():
    """A matrix game: 3 at random, and 5, 6 or 8 for a joint action from which nobody gains by leaving alone."""
    torch.manual_seed(0)
    config = coma_config(
        "matrix",
        steps=1,
        num_envs=32,
        num_critic_updates=1,
        target_network_update_freq=10,
        exploration=[[0, 0.5], [8000, 0.0]],
        actor_lr=1e-2,
        critic_lr=1e-2,
    )
    algorithm = config.reporting(min_sample_timesteps_per_iteration=1600).build_algo()
    payoffs = [algorithm.train()["env_runners"]["payoff"] for _ in range(7)]
    algorithm.stop()
    assert payoffs[0] < 4.0
    assert payoffs[-1] >= 4.8


# -- settings


def test_critics_see_the_state_where_there_is_one_and_else_all_observations():
    assert coma_config("forest").central_value == "state"
    assert coma_config("lives").central_value == "observations"
    assert coma_config("forest").training(central_value="observations").central_value == "observations"
    config = coma_config("forest", central_value="observations")
    assert config.environment("forest_uav_v0").central_value == "observations"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lambda_": 1.5}, "lambda_: expected a number from 0 to 1, got 1.5"),
        ({"exploration": 1.5}, "exploration: expected a number from 0 to 1"),
        ({"num_critic_updates": 0}, "num_critic_updates: expected an integer of at least 1, got 0"),
        ({"num_critic_updates": 13}, "num_critic_updates: 13 are more than the 12 steps of a rollout"),
        ({"team_reward": "max"}, "team_reward: expected common or sum or mean or null, got 'max'"),
        ({"tau": 0.0}, "tau: expected a number above 0, up to 1, got 0.0"),
        (
            {"critic": {"type": "own"}},
            "critic: COMA's critic is an mlp over the state and .* actions, got own",
        ),
        ({"critic": {"hidens": [8]}}, "critic: unknown key 'hidens' .did you mean 'hiddens'"),
        (
            {"counterfactual_baseline": {}},
            "counterfactual_baseline: COMA's advantages are counterfactual as they",
        ),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        coma_config("lives").training(**change).validate()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda config: config.environment("Pendulum-v1"),
            "env: COMA needs Discrete actions, the environment has",
        ),
        (
            lambda config: config.environment("forest_uav_v0").env_runners(rollout_fragment_length="auto"),
            "rollout_fragment_length: a number of steps is needed, got 'auto'",
        ),
        (
            lambda config: config.environment("CartPole-v1").training(central_value="state"),
            "central_value: .*has no state",
        ),
        (
            lambda config: config.environment("forest_uav_v0").env_runners(env_runner_cls=None),
            "env_runner_cls: COMA needs BatchedEnvRunner",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        change(COMAConfig()).validate()
