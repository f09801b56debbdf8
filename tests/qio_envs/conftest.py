from hypothesis import HealthCheck, settings

# The first example of a run may compile kernels; the examples are the same in every run.
settings.register_profile(
    "qio_envs",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("qio_envs")
