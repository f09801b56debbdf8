"""Stable-Baselines3's PPO on a PettingZoo environment, through SuperSuit; all agents share one policy.

SuperSuit makes a vector environment of a PettingZoo environment: each agent is a row of it, as if it were an
environment of its own. Several environments are laid one below the other, and PPO learns from all rows.

    python examples/stable_baselines3_ppo.py
    python examples/stable_baselines3_ppo.py --settings '{"scenario": "sprint", "reward": "local"}' --steps 200000

The same seed prints the same numbers.
"""

import argparse
import json
from collections.abc import Callable

import numpy as np
import supersuit
import torch
from pettingzoo import ParallelEnv
from pettingzoo.utils import BaseParallelWrapper
from stable_baselines3 import PPO
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from qio_envs import environment
from qio_envs.api import BatchedEnv

SETTINGS = {  # where --settings is not given; other environments keep their defaults
    "forest_uav_v0": {"height": 10, "width": 10, "num_uavs": 4, "max_steps": 40, "reward": "local"},
}
NUM_ENVS = 8  # of the environment, each with a row for every agent
LENGTH = 80  # steps in each environment between two updates
EVALUATION_ENVS, EVALUATION_SEED = 32, 10_000  # one episode for each of the seeds 10000 to 10031


class KeepRows(BaseParallelWrapper):
    """Says what SuperSuit's vector environment does not say by itself.

    It needs all agents in every step: one that has ended keeps its row until the others end too, with observation
    and reward 0, terminated. (SuperSuit's own ``black_death_v3`` waits in version 3.11 for agents that are terminated
    *and* truncated, and never ends an episode in which they are one of both.) And a time limit is marked as such,
    so that Stable-Baselines3 bootstraps from the final observation.
    """

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Start an episode with all agents."""
        result = self.env.reset(seed, options)
        self.agents = list(self.possible_agents)
        return result

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        """Advance the agents that go on, and fill in the others."""
        step = self.env.step({agent: actions[agent] for agent in self.env.agents})
        for agent in self.possible_agents:
            if agent not in step[0]:
                zeros = np.zeros_like(self.observation_space(agent).low)
                for values, value in zip(step, (zeros, 0.0, True, False, {}), strict=True):
                    values[agent] = value
        _, _, terminated, truncated, infos = step
        for agent, info in infos.items():
            info["TimeLimit.truncated"] = truncated[agent] and not terminated[agent]
        self.agents = list(self.possible_agents) if self.env.agents else []
        return step


def vector_env(env: ParallelEnv, seed: int) -> VecEnv:
    """Return several PettingZoo environments of a kind as one vector environment of Stable-Baselines3."""
    rows = supersuit.pettingzoo_env_to_vec_env_v1(KeepRows(env))
    rows = supersuit.concat_vec_envs_v1(rows, NUM_ENVS, num_cpus=1, base_class="stable_baselines3")
    rows.venv.reset(
        seed=seed
    )  # SuperSuit's wrapper has no seed() that works; later resets go on from this one
    return rows


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
    parser.add_argument("--steps", type=natural, default=50_000, help="environment steps (%(default)s)")
    parser.add_argument("--seed", type=natural, default=0, help="of environment and network (%(default)s)")
    args = parser.parse_args()
    settings = SETTINGS.get(args.env, {}) if args.settings is None else args.settings
    try:
        chosen = environment(args.env)
        env = chosen.batched_env(EVALUATION_ENVS, **settings)  # all environments and agents at once
        set_random_seed(args.seed)
        rows = vector_env(chosen.parallel_env(**settings), args.seed)
    except (TypeError, ValueError) as error:  # an unknown environment or setting, or a seed that is too large
        parser.error(str(error))
    if env.has_action_mask:
        parser.error("action masks are not used here: choose settings without")

    torch.set_num_threads(1)  # more are slower on networks of this size
    model = PPO(
        "MlpPolicy", rows, n_steps=LENGTH, batch_size=640, n_epochs=4, learning_rate=1e-3, ent_coef=0.01
    )
    if args.steps:
        model.learn(args.steps * env.num_agents)  # Stable-Baselines3 counts rows

    def act() -> np.ndarray:
        observations = env.observe()
        actions, _ = model.predict(observations.reshape(-1, *observations.shape[2:]))
        return actions.reshape(*observations.shape[:2], *env.action_space.shape)

    print(f"team return over {EVALUATION_ENVS} episodes on seeds that were not trained on")
    for name, policy in env.scripted_policies.items():
        print(f"{name:>12} {evaluate(env, policy(env).act):8.2f}")
    print(f"{'trained':>12} {evaluate(env, act):8.2f}")


if __name__ == "__main__":
    main()
