"""Learners by plain gradient descent whose gradients are corrected as those of clients are."""

import numpy as np
import torch
import toy_off_policy
from toy_off_policy import MADDPGConfig, moved_apart, setup_of
from toy_runners import forest, learner_of, runner_of

from qio_rllib.algorithms.dqn import DQNLearner
from qio_rllib.algorithms.maddpg import MADDPGLearner
from qio_rllib.algorithms.ppo import PPOLearner
from qio_rllib.federated.layout import ParameterLayout
from qio_rllib.learners.client_correction import ClientCorrection, CorrectionSettings
from qio_rllib.learners.common import as_module

RATE = 0.02
MU = 0.3


class PlainDescent:
    """Steps of plain gradient descent, so that gradients can be read from how parameters move."""

    def register_optimizer(self, *, module_id, optimizer, params, lr_or_lr_schedule, optimizer_name="x"):
        super().register_optimizer(
            module_id=module_id,
            optimizer_name=optimizer_name,
            optimizer=torch.optim.SGD(params, lr=RATE),
            params=params,
            lr_or_lr_schedule=RATE,
        )


class PlainPPO(PlainDescent, PPOLearner):
    """PPO by plain gradient descent."""


class PlainMADDPG(PlainDescent, MADDPGLearner):
    """MADDPG by plain gradient descent."""


class PlainDQN(PlainDescent, DQNLearner):
    """DQN by plain gradient descent."""


def on_policy(config=None):
    """A PPO learner and a rollout."""
    config = (config or forest()).training(grad_clip=None, vf_clip_param=1e3).learners(learner_class=PlainPPO)
    torch.manual_seed(0)
    runner = runner_of(config)
    return learner_of(config, runner), runner.sample()[0]


def off_policy(task="swarm", algorithm=MADDPGConfig, learner_class=PlainMADDPG):
    """A learner with transitions; its target networks differ from those that they follow."""
    config = toy_off_policy.config_of(task, algorithm=algorithm, grad_clip=None)
    setup = setup_of(config.learners(learner_class=learner_class))
    moved_apart(*[network for module in setup.modules for _, network in module.targets()])
    return setup


def layout_of(learner, personal=()):
    return ParameterLayout.of(as_module(learner.module), personal)


def weights_of(learner):
    return layout_of(learner).read(as_module(learner.module))


def vectors_of(size, count, seed=7):
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


def corrected(learner, layout, kind, anchor=None, server=None, own=None):
    """Set a correction on a learner and begin a client's training."""
    settings = {"type": kind} | ({} if kind == "scaffold" else {"coefficient": MU})
    learner.correction = ClientCorrection(CorrectionSettings.of(settings), learner)
    weights = layout.read(as_module(learner.module)) if anchor is None else anchor
    learner.correction.begin(layout, weights, server, own)
    return learner.correction


def added_to_gradients(kind, weights, anchor, server, own):
    """What the papers add, in NumPy."""
    return MU * (weights - anchor) if kind == "fedprox" else server - own


def step_of(learner, rollout):
    """Take one gradient step on a whole rollout."""
    for module_id, part in rollout.modules.items():
        batch = learner.prepare(module_id, [part])
        learner._step(module_id, learner.config.get_config_for_module(module_id), batch)
