"""The plain PPO that training is compared with, and the script that compares."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import training_throughput
import update_rate
from bare_ppo import BarePPO, Batch, sweep

from qio_envs import forest_uav_v0
from qio_rllib.acting.distributions import Distributions
from qio_rllib.sampling.stepper import one_thread

SMALL = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 20, "reward": "local"}


def small(**settings):
    env = forest_uav_v0.batched_env(4, **SMALL)
    return BarePPO(env, env_steps=160, minibatch_size=96, threads=1, **settings)


def test_loss_and_gradient_are_those_of_this_packages_learner():
    config = (
        training_throughput.config_of(training_throughput.OURS, ("forest_uav_v0", SMALL), 4)
        .training(train_batch_size_per_learner=160, minibatch_size=96, entropy_coeff=0.03)
        .env_runners(num_envs_per_env_runner=4)
    )
    ppo = small(entropy_coeff=0.03)
    spaces = {"shared": (ppo.env.observation_space, ppo.env.action_space)}
    learner = config.build_learner(spaces=spaces)
    module = learner.module["shared"]
    given = list(ppo.net.parameters())
    mine = [*module.policy.parameters(), *module.value.parameters()]
    with torch.no_grad():
        for parameter, source in zip(mine, given, strict=True):
            parameter.copy_(source)

    batch = ppo.credit(ppo.sample())
    batch = Batch(*(column[:96].clone() for column in batch))
    batch = batch._replace(logp=batch.logp + 0.5 * torch.randn(96))  # ratios on both sides of the clip
    ppo.loss(batch).backward()

    rows = {
        Columns.OBS: batch.observations,
        Columns.ACTIONS: batch.actions,
        Columns.ACTION_LOGP: batch.logp,
        Postprocessing.ADVANTAGES: batch.advantages,
        Postprocessing.VALUE_TARGETS: batch.targets,
    }
    output = module._forward_train(rows)
    policy = Distributions(output[Columns.ACTION_DIST_INPUTS], discrete=True)
    values = module.compute_values(rows)
    loss, _ = learner.losses("shared", learner.config, rows, policy, values)
    loss.backward()
    assert loss.item() == pytest.approx(ppo.loss(batch).item(), rel=1e-5)
    for parameter, source in zip(mine, given, strict=True):
        torch.testing.assert_close(parameter.grad, source.grad, rtol=1e-4, atol=1e-6)


def test_what_was_sampled_belongs_to_the_policy():
    ppo = small()
    ppo.sample()
    log_probs = ppo.net.actor(ppo.rows[:-1]).log_softmax(-1).detach()
    chosen = log_probs.gather(-1, torch.from_numpy(ppo.actions.reshape(40, -1, 1)))[..., 0]
    np.testing.assert_allclose(ppo.logp.reshape(40, -1), chosen, atol=1e-5)
    assert ppo.truncated[19].all()
    assert ppo.truncated[39].all()
    assert ppo.truncated.sum() == 2 * 4 * 3
    # The team's return is the sum of the local rewards.
    returns = ppo.rewards.reshape(2, 20, 4, 3).sum((1, 3)).ravel()
    np.testing.assert_allclose(sorted(ppo.returns), sorted(returns), atol=1e-4)


def test_credit_is_the_sum_of_discounted_errors_within_an_episode():
    rng = np.random.default_rng(0)
    errors = rng.normal(size=(7, 2, 3)).astype(np.float32)
    over = rng.random((7, 2, 3)) < 0.3
    out = np.empty_like(errors)
    sweep(errors, over, 0.9, out)
    for e, n in np.ndindex(2, 3):
        for t in range(7):
            last = next((s for s in range(t, 7) if over[s, e, n]), 6)
            expected = sum(0.9 ** (s - t) * errors[s, e, n] for s in range(t, last + 1))
            assert out[t, e, n] == pytest.approx(expected, abs=1e-5)


def test_it_learns():
    ppo = small(lr=3e-3, seed=1)
    first = ppo.iterate()
    for _ in range(40):
        last = ppo.iterate()
    assert first["env_steps"] == 160
    assert last["team_return"] > first["team_return"] + 3
    assert min(last["sample_s"], last["learn_s"]) > 0


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_the_script_compares_the_three_and_trains_to_a_target(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training_throughput, "STEPS", 48)
    monkeypatch.setattr(training_throughput, "MINIBATCH", 40)
    monkeypatch.setattr(training_throughput, "EPOCHS", 1)
    out = tmp_path / "new" / "x.csv"
    training_throughput.main(
        ["--parts", "forest", "target", "--rounds", "1", "--seconds", "0.01", "--out", str(out)]
    )
    printed = capsys.readouterr().out
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    speeds = [row for row in rows if row["part"] == "forest"]
    assert [row["contestant"] for row in speeds] == [
        f"{path}, {num_envs}"
        for num_envs in ("1 environment", "8 environments")
        for path in ("RLlib", "this package", "plain torch")
    ]
    for row in speeds:
        assert row["env_steps"] == "48"
        assert 12 <= int(row["gradient_steps"]) <= (14 if row["contestant"].startswith("RLlib") else 12)
        assert row["contestant"] in printed
    assert {row["ratio"] for row in speeds if row["contestant"].startswith("RLlib")} == {"1.0"}
    assert {row["ratio_to_bare"] for row in speeds if row["contestant"].startswith("plain")} == {"1.0"}
    ends = [row for row in rows if row["part"] == "target"]
    assert [row["reached"] for row in ends] == ["False"] * 3
    assert (out.parent / "x_target.csv").read_text().count("\n") == 4
    assert printed.count("not reached") == 3


def test_the_update_is_measured_beside_torch_and_its_matrix_product(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(update_rate, "WIDTHS", (16, 32))
    monkeypatch.setattr(update_rate, "MINIBATCHES", (64,))
    out = tmp_path / "x.csv"
    training_throughput.main(["--parts", "update", "--rounds", "1", "--out", str(out)])
    printed = capsys.readouterr().out
    assert not out.exists()
    with (tmp_path / "x_update.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [update_rate.KERNELS, update_rate.EAGER, update_rate.BARE]
    assert [(row["width"], row["contestant"]) for row in rows] == [
        (width, name) for width in ("16", "32") for name in names
    ]
    for row in rows:
        # 6 products forward and backward of 77-w-w-5 and 77-w-w-1, without the gradient of observations
        width = int(row["width"])
        products = sum(2 * 77 * width + 3 * (width * width + width * last) for last in (5, 1))
        assert update_rate.step_flops(width, 64) == 2 * 64 * products
        speed = 2 * 64 * products / float(row["step_ms"]) / 1e6
        assert float(row["gflop_per_s"]) == pytest.approx(speed, rel=0.01, abs=0.06)
        share = float(row["gflop_per_s"]) / float(row["product_gflop_per_s"])
        assert float(row["share"]) == pytest.approx(share, rel=0.1, abs=0.02)
        assert (row["ratio_to_bare"] == "1.0") or row["contestant"] != update_rate.BARE
        assert row["width"] in printed


def test_the_update_that_is_measured_uses_kernels_or_torch_as_it_says(monkeypatch):
    steps, _ = update_rate.contestants(16, 32, training_throughput.UPDATE)
    used = []
    real = update_rate.common.actor_critic_loss

    def noting(*args):
        found = real(*args)
        used.append(found is not None)
        return found

    monkeypatch.setattr(update_rate.common, "actor_critic_loss", noting)
    with one_thread():
        steps[update_rate.KERNELS]()
        steps[update_rate.EAGER]()
    assert used == [True]  # without kernels nobody asks for that loss
