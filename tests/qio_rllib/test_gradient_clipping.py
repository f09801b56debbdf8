"""Gradients are clipped as torch's own functions clip them, in every mode, for each optimizer by itself."""

import pytest
import torch
from toy_runners import forest, learner_of, runner_of

from qio_rllib.learners.common import clip_gradients, descend


def layers():
    torch.manual_seed(0)
    return [torch.nn.Linear(3, 4), torch.nn.Linear(2, 5)]


def parameters_of(modules):
    return [parameter for module in modules for parameter in module.parameters()]


def clipped_by_torch(parameters, limit, by):
    """Clip the parameters' gradients by torch's functions; RLlib's "norm" is that of each tensor."""
    if by == "value":
        torch.nn.utils.clip_grad_value_(parameters, limit)
    elif by == "norm":
        for parameter in parameters:
            torch.nn.utils.clip_grad_norm_([parameter], limit)
    else:
        torch.nn.utils.clip_grad_norm_(parameters, limit)


def loss_of(modules, scale=3.0):
    first, second = modules
    return scale * (
        (first(torch.tensor([[1.0, -2.0, 0.1]])) ** 2).sum() + (second(torch.ones(1, 2)) ** 2).sum()
    )


@pytest.mark.parametrize("limit", [0.05, 2.0, 1e3])
@pytest.mark.parametrize("by", ["value", "norm", "global_norm"])
def test_each_mode_is_torchs(by, limit):
    mine, theirs = layers(), layers()
    for modules in (mine, theirs):
        loss_of(modules).backward()
    gradients = [parameter.grad for parameter in parameters_of(mine)]
    norm = torch.linalg.vector_norm(torch.cat([gradient.flatten() for gradient in gradients]))
    torch.testing.assert_close(clip_gradients(gradients, limit, by), norm)
    clipped_by_torch(parameters_of(theirs), limit, by)
    before = layers()
    loss_of(before).backward()
    changed = False
    for one, other, plain in zip(
        parameters_of(mine), parameters_of(theirs), parameters_of(before), strict=True
    ):
        torch.testing.assert_close(one.grad, other.grad)
        changed |= not torch.equal(one.grad, plain.grad)
    assert changed == (limit < 1e3)


@pytest.mark.parametrize("by", ["value", "norm", "global_norm", None])
def test_each_optimizer_steps_down_its_own_clipped_gradients(by):
    mine, theirs = layers(), layers()
    descend([torch.optim.SGD(module.parameters(), lr=0.1) for module in mine], loss_of(mine), None, "value")
    before = parameters_of(layers())
    loss_of(theirs).backward()
    for one, other, start in zip(parameters_of(mine), parameters_of(theirs), before, strict=True):
        torch.testing.assert_close(one, start - 0.1 * other.grad)
    if by is None:
        return
    mine, theirs = layers(), layers()
    loss_of(mine, scale=100.0).backward()  # what an earlier step has left behind does not count
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.1) for module in mine]
    norms = descend(optimizers, loss_of(mine), 0.5, by)
    loss_of(theirs).backward()
    for norm, module in zip(norms, theirs, strict=True):
        gradients = torch.cat([parameter.grad.flatten() for parameter in module.parameters()])
        torch.testing.assert_close(norm, torch.linalg.vector_norm(gradients))
        clipped_by_torch(list(module.parameters()), 0.5, by)
    for one, other, start in zip(parameters_of(mine), parameters_of(theirs), before, strict=True):
        torch.testing.assert_close(one, start - 0.1 * other.grad)


@pytest.mark.parametrize("by", ["value", "norm", "global_norm"])
def test_a_learner_clips_as_its_configuration_says(by):
    found = {}
    for limit in (None, 0.01):
        config = forest().training(grad_clip=limit, grad_clip_by=by, vf_clip_param=1e3)
        runner = runner_of(config)
        rollout = runner.sample()[0]
        learner = learner_of(config, runner)
        learner.module.set_state(runner_of(forest()).get_state()["rl_module"])
        for parameter in learner.module["shared"].value.parameters():
            torch.nn.init.constant_(parameter, 0.02)
        batch = learner.prepare("shared", [rollout.modules["shared"]])
        learner._step("shared", learner.config.get_config_for_module("shared"), batch)
        found[limit] = list(learner.module["shared"].parameters())
    clipped_by_torch(found[None], 0.01, by)
    moved = False
    for plain, clipped in zip(found[None], found[0.01], strict=True):
        torch.testing.assert_close(clipped.grad, plain.grad)
        moved |= bool(clipped.grad.any())
    assert moved
