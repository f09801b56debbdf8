"""Hypothesis strategies of drift control, and actions to play it with."""

import numpy as np
from hypothesis import strategies as st

from qio_envs.drift_control import DriftControlConfig

seeds = st.integers(0, 2**64 - 1)


@st.composite
def drift_configs(draw, **fixed):
    """Drift control with any of its settings, often in a ball that is soon left."""
    distractors = draw(st.integers(0, 9))
    values = {
        "max_steps": draw(st.integers(1, 40)),
        "out_radius": draw(st.sampled_from([2.0, 3.0, 50.0])),
        "process_noise": draw(st.sampled_from([0.0, 0.02, 0.3])),
        "drive_noise": draw(st.sampled_from([0.0, 0.1, 2.0])),
        "action_cost": draw(st.sampled_from([0.0, 0.01, 2.0])),
        "actions": draw(st.sampled_from(["continuous", "discrete"])),
        "hidden": sorted(draw(st.sets(st.integers(0, 3), max_size=3))),
        "distractors": distractors,
        "distractor_noise": draw(st.sampled_from([0.0, 0.05, 1.0])),
        "sensor_shift": distractors > 0 and draw(st.booleans()),
    }
    return DriftControlConfig(**(values | fixed))


def actions_of(env, step, key=0):
    """Return actions, some of them out of bounds; runs of eight steps go the same way."""
    generator = np.random.default_rng([key, step // 8])
    if env.config.actions == "discrete":
        return generator.integers(0, 9, (env.num_envs, 1))
    return generator.uniform(-1.6, 1.6, (env.num_envs, 1, 2)).astype(np.float32)


def close(given, expected):
    """Assert equality up to the rounding of float32."""
    np.testing.assert_allclose(given, expected, rtol=2e-5, atol=5e-5)
