"""Acting by kernels against acting by torch and numpy: the same distributions, draws, and greedy actions."""

import numpy as np
import pytest
import torch
from toy_runners import assert_same, config_of, forest, runner_of

from qio_rllib.acting.actor import ActorInputs, NetworkActor
from qio_rllib.acting.distributions import sample
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.fused import use
from qio_rllib.fused.choices import drawn
from qio_rllib.fused.use import acting_kernels, acts, in_use
from qio_rllib.sampling import runner as runner_module
from qio_rllib.sampling.evaluation import policy_from_modules
from qio_rllib.sampling.stepper import one_thread

LOWEST = np.finfo(np.float32).min


@pytest.fixture(autouse=True)
def threads():
    with one_thread():
        yield


def test_draws_are_those_of_the_distribution_function():
    rng = np.random.default_rng(0)
    logits = (3 * rng.standard_normal((50, 40, 6))).astype(np.float32)
    logits[:, ::3, 2] = LOWEST
    logits[:, ::5, 5] = LOWEST
    noise = rng.random((50, 40), np.float32)
    noise[0], noise[1] = 0.0, np.nextafter(np.float32(1), np.float32(0))
    assert drawn(logits, noise) is None  # outside
    expected, logp = sample(logits, True, False, noise)
    with acting_kernels():
        assert not in_use()
        actions, found = sample(logits, True, False, noise)
        greedy = sample(logits, True, False, None)
        assert drawn(logits.astype(np.float64), noise) is None
        assert drawn(logits[:0], noise[:0]) is None
        assert drawn(logits, noise[:1]) is None
    assert actions.dtype == np.int64
    # Another rounding of the exponential moves a bound by as little as float32 can tell.
    same = actions == expected
    assert same.mean() > 0.999
    np.testing.assert_allclose(found[same], logp[same], atol=2e-6)
    assert np.isin(actions[:, ::3], [0, 1, 3, 4, 5]).all()
    assert (np.take_along_axis(logits, actions[..., None], -1) > LOWEST).all()
    np.testing.assert_array_equal(greedy[0], sample(logits, True, False, None)[0])


def test_draws_have_the_frequencies_and_take_extremes():
    logits = np.tile(np.array([[2.0, 0.0, -1.0, LOWEST, 1.0]], np.float32), (60_000, 1))
    with acting_kernels():
        actions, logp = drawn(logits, np.random.default_rng(1).random(60_000, np.float32))
        far = np.array([[-3e38, 3e38, 0], [90, -90, 90], [LOWEST, LOWEST, 5]], np.float32)
        extremes = [drawn(far, np.full(3, number, np.float32))[0].tolist() for number in (0.0, 0.999)]
    weights = np.exp(logits[0].astype(float))
    shares = weights / weights.sum()
    np.testing.assert_allclose(np.bincount(actions, minlength=5) / 60_000, shares, atol=0.008)
    np.testing.assert_allclose(logp, np.log(np.maximum(shares, 1e-30))[actions], atol=1e-5)
    assert extremes == [[1, 0, 2], [1, 2, 2]]


CASES = {
    "forest": lambda: forest(num_envs=3, fragment=12),
    "masks": lambda: forest(num_envs=3, fragment=12, mask_blocked_moves=True, obstacle_density=0.2),
    "operator": lambda: forest(num_envs=3, fragment=12).training(amplification={"eta": 0.5}),
    "Gaussian": lambda: config_of("Pendulum-v1", {"max_episode_steps": 7}, 3, 12),
    "free deviations": lambda: config_of("Pendulum-v1", None, 3, 12).rl_module(
        model_config={"fcnet_hiddens": [8], "free_log_std": True}
    ),
    "normalised": lambda: forest(num_envs=3, fragment=12).training(normalize_observations=True),
    "head layers": lambda: forest(num_envs=3, fragment=12).rl_module(
        model_config={"fcnet_hiddens": [8], "head_fcnet_hiddens": [6], "fcnet_activation": "silu"}
    ),
}
OTHERS = {
    "layer normalisation": {"fcnet_hiddens": [8], "fcnet_use_layernorm": True},
    "no hidden layers": {"fcnet_hiddens": []},
    "memory": {"fcnet_hiddens": [8], "use_gru": True, "gru_cell_size": 6, "max_seq_len": 4},
}


def by_torch(monkeypatch):
    monkeypatch.setattr(runner_module, "acting_kernels", one_thread)


@pytest.mark.parametrize("name", list(CASES))
def test_a_runner_acts_as_by_torch_and_repeats(name, monkeypatch):
    """Same random numbers, same actions, up to the last digits of what they are drawn from."""
    again, first = runner_of(CASES[name]()), runner_of(CASES[name]())
    called = []
    network = type(first.module[next(iter(first.module.keys()))].unwrapped().policy)
    real = network.outputs_by
    with monkeypatch.context() as patch:
        patch.setattr(network, "outputs_by", lambda *args: called.append(1) or real(*args))
        found = [first.sample(), first.sample()]
    assert len(called) == 24
    for rollouts in found:
        assert_same(rollouts, again.sample())
    other = runner_of(CASES[name]())
    by_torch(monkeypatch)
    for ours, theirs in zip(found[0][0].modules.values(), other.sample()[0].modules.values(), strict=True):
        np.testing.assert_array_equal(np.asarray(ours.acted), np.asarray(theirs.acted))
        np.testing.assert_allclose(ours.actions, theirs.actions, atol=1e-5)
        for column, values in ours.columns.items():
            np.testing.assert_allclose(values, theirs.columns[column], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", list(OTHERS))
def test_networks_that_kernels_do_not_know_act_by_torch(name, monkeypatch):
    config = forest(num_envs=2, fragment=6).rl_module(model_config=OTHERS[name])
    ours, theirs = runner_of(config), runner_of(config)
    assert ours.module["shared"].unwrapped().policy.layers() is None
    found = ours.sample()
    by_torch(monkeypatch)
    for mine, other in zip(found[0].modules.values(), theirs.sample()[0].modules.values(), strict=True):
        np.testing.assert_array_equal(mine.actions, other.actions)


def test_rows_do_not_depend_on_how_many_environments_there_are():
    runner = runner_of(forest(num_envs=5, fragment=4))
    runner.sample()
    (group,) = runner.stepper.team.groups
    actor, obs = group.actor, runner.stepper.obs[0]
    assert isinstance(actor, NetworkActor)

    def decide(rows):
        return actor.decide(ActorInputs(np.ascontiguousarray(rows)), {}, explore=True)[0]

    with acting_kernels():
        whole = decide(obs)
        for one in range(5):
            np.testing.assert_array_equal(decide(obs[one : one + 1].copy())[0], whole[one])
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            decide(obs[..., :-1])


def test_a_policy_file_takes_the_actions_that_a_greedy_runner_takes(tmp_path):
    config = forest(num_envs=2, fragment=7)
    runner = runner_of(config)
    part = runner.sample(explore=False)[0].modules["shared"]
    saved = save_policy(policy_from_modules(dict(runner.module.items()), config), tmp_path / "policy.pt")
    player = load_policy(saved).player()
    assert not acts()
    agents = [str(agent) for agent in runner.env.agents]
    for observations, actions in zip(part.observations, part.actions, strict=False):
        for seen, chosen in zip(observations, actions, strict=True):
            taken = player.act(dict(zip(agents, seen, strict=True)))
            assert [taken[agent] for agent in agents] == chosen.tolist()


def test_kernels_act_on_one_thread_only_and_where_they_compile(monkeypatch):
    with acting_kernels():
        assert acts()
        torch.set_num_threads(2)
        with acting_kernels():
            assert not acts()
        torch.set_num_threads(1)
        monkeypatch.setattr(use, "are_available", lambda: False)
        with acting_kernels():
            assert not acts()
        assert acts()
    assert not acts()
