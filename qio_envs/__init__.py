"""Environments for research on multi-agent exploration, usable with any framework.

Each name below is an `Environment`: ``forest_uav_v0.parallel_env(scenario="sprint")`` gives a PettingZoo
environment, ``.env`` its AEC form, ``.batched_env`` arrays over many environments, ``.gym_env`` and
``.vector_env`` the Gymnasium forms where there is one agent.

`family` gives related environments that one policy network fits, such as carts with poles of different lengths.

Importing this package registers the ids ``qio_envs/...`` with Gymnasium. ``gymnasium.make`` imports it itself where its
name stands before the id: ``gymnasium.make("qio_envs:qio_envs/ForestUAV-v0")``.
"""

from typing import Any

from qio_envs.api.kernel_cache import find_cache
from qio_envs.family_registry import Family, FamilyMember, families, family
from qio_envs.registry import Environment, environment, environments

find_cache()

forest_uav_v0 = Environment(
    "forest_uav_v0",
    "qio_envs.forest_uav:ForestUAV",
    "UAVs with limited sight and radio cover a forest (cooperative, discrete actions)",
    gym_id="qio_envs/ForestUAV-v0",
    gym_scenario="solo",
)
swarm_cooperative_v0 = Environment(
    "swarm_cooperative_v0",
    "qio_envs.swarm:CooperativeSwarm",
    "agents in the plane gather at one point (cooperative, continuous or discrete actions)",
    gym_id="qio_envs/Swarm-v0",
    gym_scenario="solo",
)
swarm_competitive_v0 = Environment(
    "swarm_competitive_v0",
    "qio_envs.swarm:CompetitiveSwarm",
    "agents in the plane contend for the place nearest the origin (competitive, continuous or discrete actions)",
)
swarm_mixed_v0 = Environment(
    "swarm_mixed_v0",
    "qio_envs.swarm:MixedSwarm",
    "two teams in the plane keep together and seek contact (mixed, continuous or discrete actions)",
)
skirmish_v0 = Environment(
    "skirmish_v0",
    "qio_envs.skirmish:Skirmish",
    "teams of units fight by SMAX's rules, one of them scripted or not (cooperative or competitive, discrete actions)",
)
qubit_control_v0 = Environment(
    "qubit_control_v0",
    "qio_envs.qubit_control:QubitControl",
    "gates steer qubits to a target state (one agent, discrete actions)",
    gym_id="qio_envs/QubitControl-v0",
)
drift_control_v0 = Environment(
    "drift_control_v0",
    "qio_envs.drift_control:DriftControl",
    "two actions hold a drifting state near the origin (one agent, continuous or discrete actions)",
    gym_id="qio_envs/DriftControl-v0",
)
cart_pole_v0 = Environment(
    "cart_pole_v0",
    "qio_envs.cart_pole:CartPole",
    "pushes keep the pole on a cart upright; its physics are settings (one agent, discrete actions)",
    gym_id="qio_envs/CartPole-v0",
)
chsh_v0 = Environment(
    "chsh_v0",
    "qio_envs.chsh:CHSH",
    "two agents who cannot talk answer a question each (cooperative, discrete actions)",
)
causal_chain_v0 = Environment(
    "causal_chain_v0",
    "qio_envs.causal_chain:CausalChain",
    "three variables, two actions, one without effect; known causes (one agent, continuous actions)",
    gym_id="qio_envs/CausalChain-v0",
)
greedy_casino_v0 = Environment(
    "greedy_casino_v0",
    "qio_envs.greedy_casino:GreedyCasino",
    "two slot machines that pay least where intuition leads (one agent, discrete actions)",
    gym_id="qio_envs/GreedyCasino-v0",
)
confounded_control_v0 = Environment(
    "confounded_control_v0",
    "qio_envs.confounded_control:ConfoundedControl",
    "an action holds a number near 0, and logs mislead about its effect (one agent, continuous actions)",
    gym_id="qio_envs/ConfoundedControl-v0",
)
matrix_game_v0 = Environment(
    "matrix_game_v0",
    "qio_envs.matrix_game:MatrixGame",
    "agents choose at once, round by round, and are paid by a table (mixed, discrete actions)",
)

mpe_spread_v0 = Environment(
    "mpe_spread_v0",
    "qio_envs.mpe:Spread",
    "agents cover all landmarks without hitting each other (cooperative, discrete or continuous actions)",
)
mpe_speaker_listener_v0 = Environment(
    "mpe_speaker_listener_v0",
    "qio_envs.mpe:SpeakerListener",
    "one agent names the landmark to which the other is to go (cooperative, discrete or continuous actions)",
)
mpe_reference_v0 = Environment(
    "mpe_reference_v0",
    "qio_envs.mpe:Reference",
    "two agents tell each other where to go (cooperative, discrete or continuous actions)",
)
mpe_tag_v0 = Environment(
    "mpe_tag_v0",
    "qio_envs.mpe:Tag",
    "slow adversaries hunt faster agents among obstacles (competitive, discrete or continuous actions)",
)
mpe_world_comm_v0 = Environment(
    "mpe_world_comm_v0",
    "qio_envs.mpe:WorldComm",
    "tag with food, forests to hide in and a leader who speaks (competitive, discrete or continuous actions)",
)
mpe_adversary_v0 = Environment(
    "mpe_adversary_v0",
    "qio_envs.mpe:Adversary",
    "agents cover a goal that an adversary has to guess (mixed, discrete or continuous actions)",
)
mpe_push_v0 = Environment(
    "mpe_push_v0",
    "qio_envs.mpe:Push",
    "an agent goes to its goal, an adversary keeps it away (competitive, discrete or continuous actions)",
)
mpe_crypto_v0 = Environment(
    "mpe_crypto_v0",
    "qio_envs.mpe:Crypto",
    "a message that one agent can read and another, who hears it too, cannot (mixed, discrete or continuous actions)",
)

__all__ = [
    "Environment",
    "Family",
    "FamilyMember",
    "cart_pole_v0",
    "causal_chain_v0",
    "chsh_v0",
    "confounded_control_v0",
    "drift_control_v0",
    "environment",
    "environments",
    "families",
    "family",
    "forest_uav_v0",
    "greedy_casino_v0",
    "matrix_game_v0",
    "mpe_adversary_v0",
    "mpe_crypto_v0",
    "mpe_push_v0",
    "mpe_reference_v0",
    "mpe_speaker_listener_v0",
    "mpe_spread_v0",
    "mpe_tag_v0",
    "mpe_world_comm_v0",
    "qubit_control_v0",
    "skirmish_v0",
    "swarm_competitive_v0",
    "swarm_cooperative_v0",
    "swarm_mixed_v0",
]


def __getattr__(name: str) -> Any:
    """Look up ``__version__`` when it is asked for: the metadata of all installed packages are read for it."""
    if name == "__version__":
        from qio_envs.api.distribution import version

        return version()
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
