"""The study of opponent models: every variant meets the same opponents."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from opponent_model import VARIANTS, habits

from qio_rllib.models.policy_network import CATEGORICAL, PolicyNetwork, PolicySpec

OTHERS = {"count": 1, "num_actions": 3, "is_discrete": True}


def test_opponents_play_alike_whatever_the_variant():
    torch.manual_seed(0)
    rows = (torch.rand(50, 19) < 0.4).float()
    for number in range(2):
        found = {}
        for name, (model, hidden) in VARIANTS.items():
            network = {"fcnet_hiddens": [hidden], "opponent_model": model, "other_agents": OTHERS}
            policy = PolicyNetwork(PolicySpec((19,), CATEGORICAL, 3, network=network))
            weights = {key: array.numpy() for key, array in policy.state_dict().items()}
            changed = habits(weights, number)
            policy.load_state_dict({key: torch.from_numpy(array) for key, array in changed.items()})
            with torch.no_grad():
                found[name] = policy(rows)[0]
        for logits in found.values():
            torch.testing.assert_close(logits, found["none"], rtol=1e-3, atol=1e-2)
        best, second = found["none"].topk(2).values.T
        assert ((best - second) > 3).float().mean() > 0.9  # as good as deterministic
        assert len(set(found["none"].argmax(-1).tolist())) > 1
