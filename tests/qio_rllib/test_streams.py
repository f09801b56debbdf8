"""Random numbers: a stream of its own for each purpose of each run."""

import itertools

import numpy as np
import torch
from small_runners import forest, runner_of

from qio_rllib.algorithms import MADDPGConfig
from qio_rllib.sampling.replay import JointReplay
from qio_rllib.sampling.streams import generator, torch_generator


def first_numbers(source):
    """Return the first numbers of a stream, which later ones of others must not repeat."""
    if isinstance(source, torch.Generator):
        return tuple(torch.randint(2**62, (4,), generator=source).tolist())
    return tuple(source.integers(2**62, size=4).tolist())


def learner_of(config, runner):
    learner = config.learner_class(
        config=config, module_spec=config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    )
    learner.build()
    return learner


def off_policy():
    env_config = {"scenario": "hidden_target", "max_steps": 10}
    return (
        MADDPGConfig()
        .environment("swarm_cooperative_v0", env_config=env_config)
        .env_runners(num_env_runners=0)
        .rl_module(model_config={"fcnet_hiddens": [4]})
        .training(critic={"hiddens": [4]})
        .debugging(seed=3)
    )


def test_runners_replay_minibatches_and_learner_noise_of_one_seed_draw_different_numbers():
    config, evaluation = forest(), forest()
    evaluation.in_evaluation = True
    runners = [runner_of(config), runner_of(config, worker_index=1), runner_of(evaluation)]
    sources = [runner._rng for runner in runners]
    sources += [JointReplay(10, 3)._rng, learner_of(config, runners[0])._generator]
    noise = learner_of(off_policy(), runner_of(off_policy())).noise
    # torch's numbers are those of another kind of generator, so that the seeds themselves are compared.
    seeds = [torch_generator(3, purpose).initial_seed() for purpose in ("runner", "replay", "minibatches")]
    assert noise.initial_seed() not in seeds
    found = [first_numbers(source) for source in [*sources, noise]]
    assert len(set(itertools.chain.from_iterable(found))) == 4 * len(found)


def test_a_runner_of_one_seed_is_not_another_runner_of_the_next_seed():
    runners = {
        (seed, index): first_numbers(runner_of(forest().debugging(seed=seed), worker_index=index)._rng)
        for seed in (0, 1)
        for index in (0, 1)
    }
    assert runners[0, 1] != runners[1, 0]
    assert len(set(runners.values())) == 4


def test_a_seed_a_purpose_and_numbers_repeat_a_stream_and_nothing_else_does():
    cases = list(itertools.product((0, 1), ("runner", "replay"), ((), (0,), (1,), (0, 1), (1, 0))))
    numbers = [first_numbers(generator(seed, purpose, *index)) for seed, purpose, index in cases]
    again = [first_numbers(generator(seed, purpose, *index)) for seed, purpose, index in cases]
    assert numbers == again
    # SeedSequence pads with zeros: (3, purpose) and (3, purpose, 0) are one stream, which no two callers share.
    distinct = {numbers[place] for place, (_, _, index) in enumerate(cases) if index != (0,)}
    assert len(distinct) == 16
    assert first_numbers(torch_generator(0, "noise")) == first_numbers(torch_generator(0, "noise"))
    assert first_numbers(torch_generator(0, "noise")) != first_numbers(torch_generator(1, "noise"))


def test_without_a_seed_every_stream_is_another():
    assert first_numbers(generator(None, "runner")) != first_numbers(generator(None, "runner"))
    one, other = (torch_generator(None, "noise") for _ in range(2))
    assert first_numbers(one) != first_numbers(other)
    assert isinstance(generator(None, "runner").random(), float)
    assert np.isfinite(generator(3, "runner").standard_normal())
