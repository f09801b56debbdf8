"""PPO in plain torch over a batch of this package's environments: what a framework can be compared with.

One file, one class, nothing of Ray: kernels fill an array, one forward pass a step for all environments and agents, the
same network and the same gradient steps as RLlib's PPO with two hidden layers of 64 and separate actor and critic.

    python benchmarks/bare_ppo.py --seconds 60        # in the forest
"""

import argparse
import collections
import statistics
import time
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import nn

from qio_envs import forest_uav_v0
from qio_envs.api import BatchedEnv

Array = np.ndarray
WINDOW = (
    8  # episodes over which the team return is averaged: those of an iteration of the forest, as in RLlib
)


class Batch(NamedTuple):
    """Rows to learn from, one for each action of an agent."""

    observations: torch.Tensor  # float32 [B, D]
    actions: torch.Tensor  # int64 [B]
    logp: torch.Tensor  # float32 [B], log-probability when it was chosen
    advantages: torch.Tensor  # float32 [B]
    targets: torch.Tensor  # float32 [B], of the value estimate


class ActorCritic(nn.Module):
    """Two networks with tanh layers of 64, as RLlib's default module without shared layers."""

    def __init__(self, inputs: int, actions: int, hidden: int = 64) -> None:
        super().__init__()
        self.actor, self.critic = (
            nn.Sequential(
                nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, size)
            )
            for size in (actions, 1)
        )  # fmt: skip


class BarePPO:
    """PPO (Schulman et al., 2017) of one policy for all agents.

    Args:
        env: ``E`` environments whose agents choose one of several actions; they are reset.
        env_steps: Environment steps of an iteration, over all environments; a multiple of ``E``.
        epochs: Passes over an iteration's rows.
        minibatch_size: Rows of a gradient step, at most.
        lr: Of Adam.
        gamma: Discount.
        lambda_: Of generalised advantage estimation.
        clip: Of the probability ratio, about 1.
        value_coeff: Weight of the squared error of the value estimate.
        entropy_coeff: Weight of the entropy, in nats.
        max_norm: Global norm to which gradients are clipped.
        seed: Of network, environments and actions.
        threads: That torch learns with; more gain little on a network of this size, and wait for each other on a busy
            machine. Sampling uses one.
        window: Episodes that the reported team return is the mean of, the last ones.
    """

    def __init__(
        self,
        env: BatchedEnv,
        *,
        env_steps: int = 1600,
        epochs: int = 4,
        minibatch_size: int = 1600,
        lr: float = 3e-4,
        gamma: float = 0.99,
        lambda_: float = 0.95,
        clip: float = 0.2,
        value_coeff: float = 0.5,
        entropy_coeff: float = 0.0,
        max_norm: float = 0.5,
        seed: int = 0,
        threads: int = 1,
        window: int = WINDOW,
    ) -> None:
        self.epochs, self.minibatch_size = epochs, minibatch_size
        self.gamma, self.lambda_ = gamma, lambda_
        self.clip, self.value_coeff, self.entropy_coeff, self.max_norm = (
            clip,
            value_coeff,
            entropy_coeff,
            max_norm,
        )
        self.env, num_envs = env, env.num_envs
        env.reset(seed)
        (size,) = env.observation_space.shape
        self.shape = (env_steps // num_envs, num_envs, env.num_agents)  # T, E, N
        steps = self.shape[0]
        self.observations = np.empty((steps + 1, *self.shape[1:], size), np.float32)
        self.rows = torch.from_numpy(self.observations).view(steps + 1, -1, size)  # the same memory
        self.actions = np.empty(self.shape, np.int64)
        self.logp, self.rewards = np.empty(self.shape, np.float32), np.empty(self.shape, np.float32)
        self.terminated, self.truncated = np.empty(self.shape, bool), np.empty(self.shape, bool)
        env.observe(self.observations[0])
        torch.manual_seed(seed)
        self.net = ActorCritic(size, int(env.action_space.n))
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=lr, fused=True)
        self.rng = np.random.default_rng(seed)
        self.returns: collections.deque[float] = collections.deque(maxlen=window)
        self.threads = threads

    def iterate(self) -> dict[str, float]:
        """Sample and learn once.

        Returns:
            ``sample_s`` and ``learn_s`` (seconds), ``env_steps``, and ``team_return``, the mean of the last
            ``window`` episodes (nan before the first has ended).
        """
        threads = torch.get_num_threads()
        start = time.perf_counter()
        torch.set_num_threads(1)  # a pass over so few rows is slower on several
        ends = self.sample()
        middle = time.perf_counter()
        torch.set_num_threads(self.threads)
        self.learn(self.credit(ends))
        end = time.perf_counter()
        torch.set_num_threads(threads)
        return {
            "sample_s": middle - start,
            "learn_s": end - middle,
            "env_steps": self.shape[0] * self.shape[1],
            "team_return": statistics.fmean(self.returns) if self.returns else float("nan"),
        }

    @torch.inference_mode()
    def sample(self) -> list[tuple[int, Array]]:
        """Play ``T`` steps; return the steps after which episodes ended, and what was seen then, ``[E, N, D]``."""
        env, ends = self.env, []
        steps, num_envs, agents = self.shape
        every = np.arange(num_envs * agents)
        draws = self.rng.random((steps, num_envs * agents, 1), np.float32)
        self.observations[0] = env.observe()
        for t in range(steps):
            logits = self.net.actor(self.rows[t]).numpy()
            logits -= logits.max(axis=-1, keepdims=True)
            cumulative = np.exp(logits).cumsum(axis=-1)
            total = cumulative[:, -1:]
            actions = (draws[t] * total >= cumulative).sum(axis=-1)
            self.logp[t] = (logits[every, actions] - np.log(total[:, 0])).reshape(num_envs, agents)
            self.actions[t] = actions.reshape(num_envs, agents)
            self.rewards[t], self.terminated[t], self.truncated[t] = env.step(self.actions[t])
            over = ~env.running
            if over.any():
                self.returns.extend(env.info()["team_return"][over].tolist())
                ends.append((t, env.observe()))
                env.reset(mask=over)
            env.observe(self.observations[t + 1])
        return ends

    @torch.inference_mode()
    def credit(self, ends: list[tuple[int, Array]]) -> Batch:
        """Return the rows of what was sampled, with standardised advantages."""
        values = self.net.critic(self.rows).numpy().reshape(self.observations.shape[:3])
        following = values[1:].copy()
        for t, seen in ends:  # a time limit is no end: the value of what was seen last goes on
            cut = self.truncated[t]
            following[t][cut] = self.net.critic(torch.from_numpy(seen[cut])).numpy()[:, 0]
        following[self.terminated] = 0.0
        advantages = np.empty(self.shape, np.float32)
        over = self.terminated | self.truncated
        sweep(
            self.rewards + np.float32(self.gamma) * following - values[:-1],
            over,
            self.gamma * self.lambda_,
            advantages,
        )
        targets = advantages + values[:-1]
        advantages = (advantages - advantages.mean()) / max(advantages.std(), 1e-4)
        arrays = (self.actions, self.logp, advantages, targets)
        return Batch(self.rows[:-1].flatten(0, 1), *(torch.from_numpy(array.reshape(-1)) for array in arrays))

    def learn(self, batch: Batch) -> None:
        """Take the gradient steps of all epochs."""
        rows = len(batch.actions)
        pieces = -(-rows // self.minibatch_size)
        for _ in range(self.epochs):
            for index in torch.randperm(rows).chunk(pieces):
                self.optimizer.zero_grad()
                self.loss(Batch(*(column[index] for column in batch))).backward()
                nn.utils.clip_grad_norm_(self.net.parameters(), self.max_norm)
                self.optimizer.step()

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the clipped surrogate loss with value and entropy terms, averaged over the rows."""
        log_probs = self.net.actor(batch.observations).log_softmax(-1)
        ratio = torch.exp(log_probs.gather(-1, batch.actions[:, None])[:, 0] - batch.logp)
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        gain = torch.min(batch.advantages * ratio, batch.advantages * clipped).mean()
        error = (self.net.critic(batch.observations)[:, 0] - batch.targets).square().mean()
        entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
        return -gain + self.value_coeff * error - self.entropy_coeff * entropy


@njit(cache=True)
def sweep(errors: Array, over: Array, decay: float, out: Array) -> None:
    """Sum temporal-difference errors backwards, each ``[T, E, N]``, up to the ends of episodes."""
    steps, num_envs, agents = errors.shape
    for e in range(num_envs):
        for n in range(agents):
            carried = 0.0
            for t in range(steps - 1, -1, -1):
                carried = errors[t, e, n] + (0.0 if over[t, e, n] else decay * carried)
                out[t, e, n] = carried


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="training time (60)")
    parser.add_argument("--num-envs", type=int, default=8, help="environments (8)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    forest = forest_uav_v0.batched_env(args.num_envs, reward="local")
    ppo = BarePPO(forest, seed=args.seed, entropy_coeff=0.01)
    spent, steps = 0.0, 0
    while spent < args.seconds:
        row = ppo.iterate()
        spent += row["sample_s"] + row["learn_s"]
        steps += int(row["env_steps"])
        print(
            f"{spent:6.1f} s  {steps:>9,} steps  team return {row['team_return']:6.1f}  "
            f"{row['env_steps'] / (row['sample_s'] + row['learn_s']):>6,.0f} steps/s "
            f"(sampling {row['sample_s']:.3f} s, learning {row['learn_s']:.3f} s)"
        )


if __name__ == "__main__":
    main()
