"""One recorded rollout through RLlib's own pipeline and through this package's: the same numbers, or a named reason."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.evaluation.postprocessing import Postprocessing

from qio_rllib.acting.distributions import Distributions
from qio_rllib.algorithms import PPOConfig
from qio_rllib.sampling.rollout import ModuleRollout

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]

SMALL = {"height": 12, "width": 12, "num_uavs": 3, "max_steps": 15, "reward": "local"}


def sequences(part: ModuleRollout) -> list[tuple[int, int, int]]:
    """Return (environment, first step, step after the last) of the parts of episodes in a rollout."""
    ends, found = part.truncated.any(-1), []
    for e in range(part.rewards.shape[1]):
        bounds = [0, *(int(t) + 1 for t in np.flatnonzero(ends[:, e])), part.num_steps]
        found += [(e, start, stop) for start, stop in itertools.pairwise(bounds) if start < stop]
    return found


def episodes_of(part: ModuleRollout, module_id: str) -> list[MultiAgentEpisode]:
    """Return the rollout as RLlib's own runner would have given it."""
    final = {tuple(index): row for index, row in zip(part.final_index, part.final_observations, strict=True)}
    episodes = []
    for e, start, stop in sequences(part):
        cut = bool(part.truncated[stop - 1, e].any())

        def rows(array, e=e, start=start, stop=stop):
            return [dict(zip(part.agents, array[t, e], strict=True)) for t in range(start, stop)]

        last = part.observations[stop, e]
        if cut:
            last = [final[(stop - 1, e, m)] for m in range(len(part.agents))]
        outputs = [
            {agent: {Columns.ACTION_LOGP: a[agent], Columns.ACTION_DIST_INPUTS: b[agent]} for agent in a}
            for a, b in zip(rows(part.columns["logp"]), rows(part.columns["dist_inputs"]), strict=True)
        ]
        episodes.append(
            MultiAgentEpisode(
                observations=[*rows(part.observations), dict(zip(part.agents, last, strict=True))],
                actions=rows(part.actions),
                rewards=rows(part.rewards),
                terminateds={"__all__": False},
                truncateds={"__all__": cut},
                extra_model_outputs=outputs,
                agent_module_ids=dict.fromkeys(part.agents, module_id),
                len_lookback_buffer=0,
            )
        )
    return episodes


def keys(observations, columns) -> list[bytes]:
    """Return what tells the rows of a batch apart."""
    parts = [observations, columns[Columns.ACTIONS], columns[Columns.ACTION_LOGP]]
    rows = torch.cat([part.float().reshape(len(observations), -1) for part in parts], 1)
    return [row.tobytes() for row in rows.numpy()]


@pytest.fixture(scope="module")
def setting(ray_runtime):
    config = (
        PPOConfig()
        .environment("forest_uav_v0", env_config=SMALL)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .training(
            train_batch_size_per_learner=80, minibatch_size=80, num_epochs=1, gamma=0.97, kl_coeff=0.3,
            vf_clip_param=2.0, vf_loss_coeff=0.7, entropy_coeff=0.02, clip_param=0.1, amplification={},
        )
        .rl_module(model_config={"fcnet_hiddens": [16], "vf_share_layers": False})
        .debugging(seed=5)
    )  # fmt: skip
    algorithm = config.build_algo()
    learner = algorithm.learner_group._learner
    (rollout,) = algorithm.env_runner.sample(num_timesteps=80)
    its_config = learner.config.copy(copy_frozen=False).env_runners(env_runner_cls=None)
    stock = PPOTorchLearner(config=its_config, module_spec=learner._module_spec)
    stock.build()
    stock.module.set_state(learner.module.get_state())
    part = rollout.modules["shared"]
    theirs = stock._make_batch_if_necessary(TrainingData(episodes=episodes_of(part, "shared")))["shared"]
    ours = learner.prepare("shared", [part])
    places = {key: index for index, key in enumerate(keys(ours.inputs.rows, ours.columns))}
    assert len(places) == 240
    real = theirs[Columns.LOSS_MASK]
    order = [places[key] for key in itertools.compress(keys(theirs[Columns.OBS], theirs), real)]
    # Away from the policy that sampled, so that clipping and divergence have something to do.
    with torch.no_grad():
        for mine, other in zip(
            learner.module["shared"].parameters(), stock.module["shared"].parameters(), strict=True
        ):
            mine.add_(0.1 * torch.randn(mine.shape, generator=torch.Generator().manual_seed(mine.numel())))
            other.copy_(mine)
    yield SimpleNamespace(
        learner=learner,
        stock=stock,
        theirs=theirs,
        real=real,
        ours=ours.select(torch.tensor(order)),
    )
    algorithm.stop()


def test_value_targets_are_equal(setting):
    assert 0 < int((~setting.real).sum()) == 2 * 3 * 3  # a phantom row for each part of an episode and agent
    torch.testing.assert_close(setting.ours.inputs.rows, setting.theirs[Columns.OBS][setting.real])
    for name in (Columns.ACTIONS, Columns.ACTION_LOGP, Postprocessing.VALUE_TARGETS):
        ours = setting.ours.columns[name]
        expected = setting.theirs[name][setting.real].to(ours.dtype)
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_advantages_differ_by_the_phantom_rows_in_rllibs_mean_and_deviation_alone(setting):
    everything = setting.theirs[Postprocessing.ADVANTAGES]
    assert everything.mean().abs() < 1e-5
    real = everything[setting.real]
    assert real.mean().abs() > 1e-4  # RLlib's phantom rows took part in its mean
    torch.testing.assert_close(
        setting.ours.columns[Postprocessing.ADVANTAGES],
        (real - real.mean()) / real.std(correction=0),
        atol=1e-4,
        rtol=1e-4,
    )


def test_loss_and_gradients_of_the_same_rows_are_equal(setting):
    learner, stock = setting.learner, setting.stock
    module = stock.module["shared"]
    output = module.forward_train(setting.theirs)
    config = stock.config.get_config_for_module("shared")
    expected = stock.compute_loss_for_module(
        module_id="shared", config=config, batch=setting.theirs, fwd_out=output
    )
    expected.backward()
    rows = {name: setting.theirs[name][setting.real] for name in setting.ours.columns}
    module = learner.module["shared"]
    dist_inputs, values, _ = learner._forward(module, setting.ours)
    loss, stats = learner.losses("shared", config, rows, Distributions(dist_inputs, discrete=True), values)
    loss.backward()
    assert stats["mean_kl_loss"] > 1e-3
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    for mine, other in zip(module.parameters(), stock.module["shared"].parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-4)
