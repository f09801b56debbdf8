"""Hypothesis strategies of small forests."""

from hypothesis import strategies as st

from qio_envs.forest_uav import ForestConfig


@st.composite
def forest_configs(draw, **fixed):
    height, width = draw(st.integers(5, 11)), draw(st.integers(5, 11))
    values = {
        "height": height,
        "width": width,
        "num_uavs": draw(st.integers(1, 9)),
        "max_steps": draw(st.integers(1, 40)),
        "sensing_radius": draw(st.integers(0, min(height, width) - 1)),
        "obstacle_density": draw(st.sampled_from([0.0, 0.0, 0.2, 0.45, 0.6])),
        "mask_blocked_moves": draw(st.booleans()),
        "comm_budget": draw(st.sampled_from([0.0, 0.1, 0.3, 0.7, 1.0])),
        "comm_range": draw(st.sampled_from([None, 0.0, 1.0, 2.5, 6.0])),
        "comm_loss": draw(st.sampled_from([0.0, 0.0, 0.3, 1.0])),
        "reward": draw(st.sampled_from(["team", "local", "difference"])),
        "collision_penalty": draw(st.sampled_from([0.0, 0.25, 1.5])),
    }
    return ForestConfig(**(values | fixed))


seeds = st.integers(0, 2**64 - 1)
