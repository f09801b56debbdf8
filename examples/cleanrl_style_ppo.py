"""PPO in one file and plain torch, straight on the arrays of a batched environment.

Shows how to train on ``BatchedEnv`` without any framework: observations are ``[E, N, D]`` for E environments and N
agents, nothing resets by itself, and the observation after the last step of an episode is there to be read.
All agents share one policy. Discrete and continuous actions; no action masks.

    python examples/cleanrl_style_ppo.py
    python examples/cleanrl_style_ppo.py --settings '{"scenario": "sprint", "reward": "local"}' --steps 400000

The same seed prints the same numbers.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable

import gymnasium
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, Normal

from qio_envs import environment
from qio_envs.api import BatchedEnv

SETTINGS = {  # where --settings is not given; other environments keep their defaults
    "forest_uav_v0": {"height": 10, "width": 10, "num_uavs": 4, "max_steps": 40, "reward": "local"},
}
NUM_ENVS = 16  # environments E that are stepped together
LENGTH = 40  # steps T of an iteration, in each environment
EPOCHS, MINIBATCHES = 4, 4
LEARNING_RATE = 1e-3  # at the start; falls linearly to 0
GAMMA, LAMBDA = 0.99, 0.95  # discount, and of generalised advantage estimation
CLIP = 0.2  # of the probability ratio, around 1
VALUE_WEIGHT, ENTROPY_WEIGHT = 0.5, 0.01
MAX_NORM = 0.5  # to which gradients are clipped
LINES = 10  # of progress
EVALUATION_ENVS, EVALUATION_SEED = 32, 10_000  # one episode for each of the seeds 10000 to 10031


class Agent(nn.Module):
    """One actor and one critic for every agent of every environment; leading axes may be any."""

    def __init__(self, env: BatchedEnv) -> None:
        super().__init__()
        inputs, space = math.prod(env.observation_space.shape), env.action_space
        self.discrete = isinstance(space, gymnasium.spaces.Discrete)
        outputs = int(space.n) if self.discrete else math.prod(space.shape)
        self.actor, self.critic = network(inputs, outputs, 0.01), network(inputs, 1, 1.0)
        self.log_std = nn.Parameter(torch.zeros(0 if self.discrete else outputs))

    def distribution(self, observations: torch.Tensor) -> Distribution:
        """Return what the policy draws actions from."""
        outputs = self.actor(observations)
        if self.discrete:
            return Categorical(logits=outputs)
        return Independent(Normal(outputs, self.log_std.exp()), 1)

    def value(self, observations: torch.Tensor) -> torch.Tensor:
        """Return the discounted rewards that are expected from here on."""
        return self.critic(observations)[..., 0]


def network(inputs: int, outputs: int, last_gain: float) -> nn.Module:
    """Return two layers of 64 with tanh and a linear one, initialised orthogonally."""
    layers = [nn.Linear(inputs, 64), nn.Linear(64, 64), nn.Linear(64, outputs)]
    for layer, gain in zip(layers, (2**0.5, 2**0.5, last_gain), strict=True):
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def observe(env: BatchedEnv) -> torch.Tensor:
    """Return the observations as ``[E, N, D]``."""
    return torch.from_numpy(env.observe()).flatten(2)


def for_env(env: BatchedEnv, actions: torch.Tensor) -> np.ndarray:
    """Return drawn actions as the environment takes them: continuous ones within their bounds."""
    if isinstance(env.action_space, gymnasium.spaces.Discrete):
        return actions.numpy()
    space = env.action_space
    return actions.numpy().reshape(*actions.shape[:2], *space.shape).clip(space.low, space.high)


def train(env: BatchedEnv, agent: Agent, steps: int) -> None:
    """Improve the agent for that many environment steps, over all environments (each moves all agents once)."""
    iterations = math.ceil(steps / (LENGTH * env.num_envs))
    optimizer = torch.optim.Adam(agent.parameters(), lr=LEARNING_RATE, eps=1e-5)
    first = observe(env)
    shape = (LENGTH, *first.shape[:2])  # T, E, N
    observations = torch.empty(*shape, first.shape[2])
    next_observations = torch.empty_like(observations)
    log_probs, rewards = torch.empty(shape), torch.empty(shape)
    alive, terminated, truncated = (torch.empty(shape, dtype=torch.bool) for _ in range(3))
    returns: list[float] = []

    for iteration in range(iterations):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - iteration / iterations)

        # Sample: one forward pass a step for all environments and agents.
        drawn = []
        with torch.no_grad():
            for t in range(LENGTH):
                observations[t] = observe(env)
                alive[t] = torch.from_numpy(env.agents_alive())
                distribution = agent.distribution(observations[t])
                drawn.append(distribution.sample())
                log_probs[t] = distribution.log_prob(drawn[t])
                transition = env.step(for_env(env, drawn[t]))
                rewards[t], terminated[t], truncated[t] = map(torch.from_numpy, transition)
                next_observations[t] = observe(env)  # of the episode's end too, before anything is reset
                over = ~env.running
                if over.any():
                    returns += env.info()["team_return"][over].tolist()
                    env.reset(mask=over)

            # Credit. A time limit is no end of the task: what would have followed is bootstrapped from the
            # final observation. Nothing follows a termination. Neither carries over to the next episode.
            values, next_values = agent.value(observations), agent.value(next_observations)
            errors = rewards + GAMMA * next_values * ~terminated - values
            goes_on = ~(terminated | truncated)
            advantages, carried = torch.empty(shape), torch.zeros(shape[1:])
            for t in reversed(range(LENGTH)):
                carried = errors[t] + GAMMA * LAMBDA * carried * goes_on[t]
                advantages[t] = carried
            targets = advantages + values

        # Learn from the rows [T, E, N] of agents that were alive to act.
        batch = [rows[alive] for rows in (observations, torch.stack(drawn), log_probs, advantages, targets)]
        for _ in range(EPOCHS):
            for index in torch.randperm(len(batch[0])).chunk(MINIBATCHES):
                seen, actions, old_log_probs, gains, target = (rows[index] for rows in batch)
                distribution = agent.distribution(seen)
                ratio = (distribution.log_prob(actions) - old_log_probs).exp()
                gains = (gains - gains.mean()) / (gains.std(correction=0) + 1e-8)
                policy_loss = -torch.min(gains * ratio, gains * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
                value_loss = (agent.value(seen) - target).square().mean()
                loss = (
                    policy_loss + VALUE_WEIGHT * value_loss - ENTROPY_WEIGHT * distribution.entropy().mean()
                )
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), MAX_NORM)
                optimizer.step()

        if iteration * LINES // iterations < (iteration + 1) * LINES // iterations and returns:
            done = (iteration + 1) * LENGTH * env.num_envs
            print(f"{done:>9,} steps  team return {statistics.fmean(returns):8.2f}", flush=True)
            returns.clear()


@torch.no_grad()
def evaluate(env: BatchedEnv, act: Callable[[], np.ndarray]) -> float:
    """Return the mean team return of one episode in each environment, on the evaluation's seeds."""
    returns = np.full(env.num_envs, np.nan)
    env.reset(EVALUATION_SEED)
    while np.isnan(returns).any():
        env.step(act())
        over = ~env.running
        first = over & np.isnan(returns)
        returns[first] = env.info()["team_return"][first]
        env.reset(mask=over)
    return float(returns.mean())


def natural(text: str) -> int:
    """Return a whole number of the command line."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got '{text}'")
    return int(text)


def main() -> None:
    """Train, and print the team return beside those of the environment's scripted policies."""
    parser = argparse.ArgumentParser(
        description=__doc__, usage=argparse.SUPPRESS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", default="forest_uav_v0", help="id of the environment (%(default)s)")
    parser.add_argument("--settings", type=json.loads, metavar="JSON", help="scenario and settings of it")
    parser.add_argument("--steps", type=natural, default=100_000, help="environment steps (%(default)s)")
    parser.add_argument("--seed", type=natural, default=0, help="of environment and network (%(default)s)")
    args = parser.parse_args()
    settings = SETTINGS.get(args.env, {}) if args.settings is None else args.settings
    try:
        env = environment(args.env).batched_env(NUM_ENVS, **settings)
        env.reset(args.seed)
    except (TypeError, ValueError) as error:  # an unknown environment or setting, or a seed that is too large
        parser.error(str(error))
    if env.has_action_mask:
        parser.error("action masks are not used here: choose settings without")

    torch.set_num_threads(1)  # more are slower on networks of this size
    torch.manual_seed(args.seed)
    agent = Agent(env)
    train(env, agent, args.steps)

    env = environment(args.env).batched_env(EVALUATION_ENVS, **settings)
    print(f"team return over {EVALUATION_ENVS} episodes on seeds that were not trained on")
    for name, policy in env.scripted_policies.items():
        print(f"{name:>12} {evaluate(env, policy(env).act):8.2f}")
    trained = evaluate(env, lambda: for_env(env, agent.distribution(observe(env)).sample()))
    print(f"{'trained':>12} {trained:8.2f}")


if __name__ == "__main__":
    main()
