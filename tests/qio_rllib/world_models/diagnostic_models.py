"""World models whose predictions are known, and what really happens beside them."""

import torch

from qio_rllib.world_models.episodes import Episodes
from qio_rllib.world_models.model import Predicted, WorldModel


class Pushed(WorldModel):
    """The truth of `pushed`: a position moves by a hidden speed, which the sum of all actions so far is.

    The state is position and speed; the reward of a step is the position after it. Draws add normals of a deviation.
    """

    obs_size, num_actions, state_size, feature_size = 1, 1, 2, 2

    def __init__(self, deviation=0.0, goes_on=1.0):
        super().__init__()
        self.deviation, self.goes_on = deviation, goes_on

    def observe(self, state, action, obs, generator=None, others=None):
        return torch.cat([obs, state[:, 1:] + action], dim=-1)

    def step(self, state, action, generator=None, others=None):
        speed = state[:, 1:] + action
        position = state[:, :1] + speed
        if generator is not None:
            position = position + self.deviation * torch.randn(position.shape, generator=generator)
        after = torch.cat([position, speed], dim=-1)
        return Predicted(after, position[:, 0], torch.full((len(state),), self.goes_on))

    def features(self, state):
        return state

    def decode(self, state):
        return state[..., :1]

    def learn(self, batch, generator):
        raise NotImplementedError


class Still(Pushed):
    """Predicts that nothing changes; the reward is that of the present position."""

    def step(self, state, action, generator=None, others=None):
        return Predicted(state, state[:, 0], torch.full((len(state),), self.goes_on))


def pushed(length=12, count=7, noise=0.0, lengths=None, terminated=False, seed=0):
    """Sequences of what `Pushed` predicts, with normals of a deviation in the position.

    Args:
        length: Steps of the longest.
        count: Sequences.
        noise: The deviation.
        lengths: Of each sequence; the rest is filled with numbers that nobody should look at.
        terminated: Whether the last step of each is an end.
        seed: Of all draws.
    """
    generator = torch.Generator().manual_seed(seed)
    actions = torch.randn(length, count, 1, generator=generator)
    obs = [torch.randn(count, 1, generator=generator)]
    speed = torch.zeros(count, 1)
    for action in actions:
        speed = speed + action
        obs.append(obs[-1] + speed + noise * torch.randn(count, 1, generator=generator))
    seen = torch.stack(obs)
    rewards = seen[1:, :, 0].clone()
    steps = torch.tensor([length] * count if lengths is None else lengths)
    present = torch.arange(length)[:, None] < steps
    seen[1:][~present], rewards[~present] = 1e6, -1e6
    last = torch.arange(length)[:, None] == steps - 1
    return Episodes(seen, actions, rewards, last & terminated, present)
