"""TorchRL's PPO on a PettingZoo environment: one policy for all agents, one critic that sees what all of them see.

``PettingZooWrapper`` stacks the agents of a group into one tensor, so that a rollout of T steps with N agents holds
observations ``[T, N, D]`` under ``("agents", "observation")``. Collector, modules, advantages and loss are TorchRL's.
Discrete and continuous actions.

    python examples/torchrl_ppo.py
    python examples/torchrl_ppo.py --settings '{"scenario": "sprint", "reward": "local"}' --steps 50000

The same seed prints the same numbers. TorchRL warns that it is tested with an older PettingZoo; it works with this one.
"""

import argparse
import json
import math
import statistics

import torch
from tensordict import TensorDictBase
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.envs import ExplorationType, PettingZooWrapper, set_exploration_type
from torchrl.modules import MultiAgentMLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss

from qio_envs import environment

SETTINGS = {  # where --settings is not given; other environments keep their defaults
    "forest_uav_v0": {"height": 10, "width": 10, "num_uavs": 4, "max_steps": 40, "reward": "local"},
}
LENGTH = 400  # steps between two updates
EPOCHS, MINIBATCHES = 8, 4
EVALUATION_SEEDS = range(10_000, 10_020)


def make_policy(env: PettingZooWrapper) -> ProbabilisticActor:
    """Return a network that all agents share, and what their actions are drawn from."""
    space = env.full_action_spec[env.action_key]
    discrete = space.domain == "discrete"
    network = multi_agent_mlp(env, space.space.n if discrete else 2 * space.shape[-1], centralized=False)
    parameters = [("agents", "logits")] if discrete else [("agents", "loc"), ("agents", "scale")]
    return ProbabilisticActor(
        TensorDictModule(
            network if discrete else torch.nn.Sequential(network, NormalParamExtractor()),
            in_keys=[("agents", "observation")],
            out_keys=parameters,
        ),
        spec=env.full_action_spec,
        in_keys=parameters,
        out_keys=[env.action_key],
        distribution_class=Categorical if discrete else TanhNormal,
        distribution_kwargs={} if discrete else {"low": space.space.low, "high": space.space.high},
        return_log_prob=True,
    )


def make_critic(env: PettingZooWrapper) -> ValueOperator:
    """Return a network that values the agents' joint observation, for each agent."""
    return ValueOperator(
        multi_agent_mlp(env, 1, centralized=True),
        in_keys=[("agents", "observation")],
        out_keys=[("agents", "state_value")],
    )


def multi_agent_mlp(env: PettingZooWrapper, outputs: int, centralized: bool) -> MultiAgentMLP:
    """Return two layers of 64 with tanh and a linear one, the same for all agents."""
    agents, inputs = env.observation_spec["agents", "observation"].shape
    return MultiAgentMLP(
        n_agent_inputs=inputs,
        n_agent_outputs=outputs,
        n_agents=agents,
        centralized=centralized,
        share_params=True,
        depth=2,
        num_cells=64,
        activation_class=torch.nn.Tanh,
    )


def train(env: PettingZooWrapper, policy: ProbabilisticActor, steps: int) -> None:
    """Improve the policy for that many environment steps (each moves all agents once)."""
    loss_module = ClipPPOLoss(
        policy, make_critic(env), clip_epsilon=0.2, entropy_coeff=0.01, critic_coeff=0.5
    )
    loss_module.set_keys(
        action=env.action_key,
        sample_log_prob=("agents", "action_log_prob"),
        value=("agents", "state_value"),
        reward=("agents", "reward"),
        done=("agents", "done"),
        terminated=("agents", "terminated"),
    )
    loss_module.make_value_estimator(gamma=0.99, lmbda=0.95)
    optimizer = torch.optim.Adam(loss_module.parameters(), lr=1e-3)
    iterations = math.ceil(steps / LENGTH)
    collector = Collector(
        env,
        policy,
        frames_per_batch=LENGTH,
        total_frames=iterations * LENGTH,
        auto_register_policy_transforms=False,
    )
    for iteration, rollout in enumerate(collector, start=1):
        with torch.no_grad():
            loss_module.value_estimator(rollout)  # adds advantages and value targets
            standardise(rollout["advantage"], rollout["agents", "mask"])
        for _ in range(EPOCHS):
            for index in torch.randperm(LENGTH).chunk(MINIBATCHES):
                losses = loss_module(rollout[index])
                loss = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(loss_module.parameters(), 0.5)
                optimizer.step()
        returns = team_returns(rollout)
        if iteration % 5 == 0 and len(returns):
            print(f"{iteration * LENGTH:>9,} steps  team return {returns.mean():8.2f}", flush=True)


def standardise(advantages: torch.Tensor, alive: torch.Tensor) -> None:
    """Give the advantages of living agents mean 0 and deviation 1, and 0 to those that had ended."""
    chosen = advantages[alive]
    advantages.sub_(chosen.mean()).div_(chosen.std() + 1e-6).mul_(alive.unsqueeze(-1))


def team_returns(rollout: TensorDictBase) -> torch.Tensor:
    """Return those of the episodes that ended in a rollout, as an agent that was there to the end was told."""
    ended = rollout["next", "done"][:, 0]
    witness = rollout["agents", "mask"][ended].int().argmax(dim=-1, keepdim=True)
    return rollout["next", "agents", "info", "team_return"][ended].gather(-1, witness)


@torch.no_grad()
def evaluate(env: PettingZooWrapper, policy: ProbabilisticActor | None) -> float:
    """Return the mean team return of one episode for each of the evaluation's seeds (without policy: at random)."""
    returns = []
    with set_exploration_type(ExplorationType.RANDOM):  # draw actions; the most probable ones are worse here
        for seed in EVALUATION_SEEDS:
            start = env.reset(seed=seed)
            episode = env.rollout(max_steps=100_000, policy=policy, auto_reset=False, tensordict=start)
            returns.append(team_returns(episode).item())
    return statistics.fmean(returns)


def natural(text: str) -> int:
    """Return a whole number of the command line."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got '{text}'")
    return int(text)


def main() -> None:
    """Train, and print the team return before and after, beside that of random actions."""
    parser = argparse.ArgumentParser(
        description=__doc__, usage=argparse.SUPPRESS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", default="forest_uav_v0", help="id of the environment (%(default)s)")
    parser.add_argument("--settings", type=json.loads, metavar="JSON", help="scenario and settings of it")
    parser.add_argument("--steps", type=natural, default=10_000, help="environment steps (%(default)s)")
    parser.add_argument("--seed", type=natural, default=0, help="of environment and network (%(default)s)")
    args = parser.parse_args()
    settings = SETTINGS.get(args.env, {}) if args.settings is None else args.settings
    try:
        parallel_env = environment(args.env).parallel_env(**settings)
        parallel_env.reset(seed=args.seed)
    except (TypeError, ValueError) as error:  # an unknown environment or setting, or a seed that is too large
        parser.error(str(error))
    if parallel_env.batch.has_action_mask:
        parser.error("action masks are not used here: choose settings without")

    torch.set_num_threads(1)  # more are slower on networks of this size
    torch.manual_seed(args.seed)
    env = PettingZooWrapper(
        parallel_env,
        group_map={"agents": parallel_env.possible_agents},
        use_mask=True,  # where agents may end before the others, their rows hold zeros from then on
        done_on_any=False,
    )
    policy = make_policy(env)
    random, before = evaluate(env, None), evaluate(env, policy)
    env.set_seed(args.seed)
    if args.steps:
        train(env, policy, args.steps)
    print(f"team return over {len(EVALUATION_SEEDS)} episodes on seeds that were not trained on")
    for name, value in (("random", random), ("untrained", before), ("trained", evaluate(env, policy))):
        print(f"{name:>12} {value:8.2f}")


if __name__ == "__main__":
    main()
