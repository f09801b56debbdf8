"""The ways by which settings come to a configuration."""

from qio_rllib.algorithms import LOCAL_ALGORITHMS
from qio_rllib.experiments.experiment import Experiment


def experiment(name, env, env_config, **settings):
    return Experiment.from_mapping(
        {
            "run": name,
            "env": env,
            "stop": {"training_iteration": 1},
            "config": {"num_env_runners": 0, "env_config": env_config, **settings},
        }
    )


def from_yaml(name, env, env_config, **settings):
    return experiment(name, env, env_config, **settings).algorithm_config()


def from_builder(name, env, env_config, num_env_runners=0, **settings):
    config = LOCAL_ALGORITHMS[name]().environment(env, env_config=env_config)
    return config.env_runners(num_env_runners=num_env_runners).training(**settings)


def from_dictionary(name, env, env_config, **settings):
    given = {"env": env, "env_config": env_config, "num_env_runners": 0, **settings}
    default = LOCAL_ALGORITHMS[name]().algo_class.get_default_config()
    return default.update_from_dict(given)


def from_output(name, env, env_config, **settings):
    return LOCAL_ALGORITHMS[name]().update_from_dict(
        from_builder(name, env, env_config, **settings).to_dict()
    )


def from_changed_output(name, env, env_config, **settings):
    return LOCAL_ALGORITHMS[name]().update_from_dict(
        {**from_builder(name, env, env_config).to_dict(), **settings}
    )


WAYS = [from_yaml, from_builder, from_dictionary, from_output, from_changed_output]


def content(config):
    """Return every attribute as text; mappings by sorted keys."""

    def plain(value):
        if isinstance(value, dict):
            return "{" + ", ".join(sorted(f"{key}: {plain(item)}" for key, item in value.items())) + "}"
        return repr(value)

    return {key: plain(value) for key, value in config.to_dict().items()}
