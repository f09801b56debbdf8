"""RLlib's own settings: the methods that take them, names that are old, and what its annotations leave out."""

from __future__ import annotations

from typing import Any, Literal

from qio_rllib.algorithms.setting_types import Range, Schedule

# Methods of an AlgorithmConfig whose parameters may stand under `config`, in the order of their calls.
SETTERS = (
    "environment",
    "framework",
    "resources",
    "env_runners",
    "learners",
    "rl_module",
    "training",
    "callbacks",
    "evaluation",
    "multi_agent",
    "reporting",
    "checkpointing",
    "debugging",
    "fault_tolerance",
    "experimental",
    "python_environment",
)


RENAMED = {
    "create_env_on_driver": "create_local_env_runner",
    "create_env_on_local_worker": "create_local_env_runner",
    "entropy_coeff_schedule": "entropy_coeff",
    "evaluation_num_episodes": "evaluation_duration",
    "evaluation_num_workers": "evaluation_num_env_runners",
    "framework_str": "framework",
    "lr_schedule": "lr",
    "metrics_smoothing_episodes": "metrics_num_episodes_for_smoothing",
    "min_iter_time_s": "min_time_s_per_iteration",
    "mini_batch_size_per_learner": "minibatch_size",
    "model": "model_config",
    "model_config_dict": "model_config",
    "num_cpus_for_driver": "num_cpus_for_main_process",
    "num_cpus_for_local_worker": "num_cpus_for_main_process",
    "num_cpus_per_learner_worker": "num_cpus_per_learner",
    "num_cpus_per_worker": "num_cpus_per_env_runner",
    "num_envs_per_worker": "num_envs_per_env_runner",
    "num_gpus": "num_gpus_per_learner",
    "num_gpus_per_learner_worker": "num_gpus_per_learner",
    "num_gpus_per_worker": "num_gpus_per_env_runner",
    "num_learner_workers": "num_learners",
    "num_rollout_workers": "num_env_runners",
    "num_sgd_iter": "num_epochs",
    "num_workers": "num_env_runners",
    "recreate_failed_workers": "restart_failed_env_runners",
    "ignore_worker_failures": "ignore_env_runner_failures",
    "max_num_worker_restarts": "max_num_env_runner_restarts",
    "sgd_minibatch_size": "minibatch_size",
    "timesteps_per_iteration": "min_sample_timesteps_per_iteration",
    "train_batch_size": "train_batch_size_per_learner",
    "vf_share_layers": "model_config.vf_share_layers",
}


ALIASES = {"lambda": "lambda_", "callbacks": "callbacks_class"}


# Parameters of RLlib's old API stack, which the new one takes without a word and ignores.
OLD_STACK = frozenset(
    {
        "eager_max_retraces",
        "eager_tracing",
        "enable_tf1_exec_eagerly",
        "exploration_config",
        "extra_python_environs_for_driver",
        "extra_python_environs_for_worker",
        "fake_sampler",
        "local_tf_session_args",
        "observation_filter",
        "observation_fn",
        "off_policy_estimation_methods",
        "optimizer",
        "preprocessor_pref",
        "remote_env_batch_wait_ms",
        "remote_worker_envs",
        "sample_collector",
        "sampler_perf_stats_ema_coef",
        "tf_session_args",
        "update_worker_filter_stats",
        "use_worker_filter_stats",
    }
)


# Where RLlib's annotations say nothing, too little (Ray takes fractions of CPUs), or more than is supported here
# (evaluations are episodes on fixed seeds).
ANNOTATIONS: dict[str, Any] = {
    "num_cpus_per_env_runner": float | None,
    "num_cpus_for_main_process": float | None,
    "framework": Literal["torch"],
    "batch_mode": Literal["truncate_episodes"],
    "count_steps_by": Literal["env_steps", "agent_steps"],
    "env_config": dict | None,
    "evaluation_duration": int | None,
    "evaluation_duration_unit": Literal["episodes"],
    "grad_clip_by": Literal["value", "norm", "global_norm"],
    "log_level": Literal["DEBUG", "INFO", "WARN", "ERROR"],
    "rollout_fragment_length": int | Literal["auto"],
}

_FROM_ONE = Range(1)
_NOT_NEGATIVE = Range(0)
_SHARE = Range(0, 1)

# RLlib's settings whose annotations do not say what numbers they take, by exact name.
LIMITS: dict[str, Range | Schedule] = {
    "clip_param": _NOT_NEGATIVE,
    "delay_between_env_runner_restarts_s": _NOT_NEGATIVE,
    "entropy_coeff": Schedule(),
    "env_runner_health_probe_timeout_s": _NOT_NEGATIVE,
    "env_runner_restore_timeout_s": _NOT_NEGATIVE,
    "evaluation_auto_duration_max_env_steps_per_sample": _FROM_ONE,
    "evaluation_auto_duration_min_env_steps_per_sample": _FROM_ONE,
    "evaluation_duration": _FROM_ONE,
    "evaluation_interval": _FROM_ONE,
    "evaluation_num_env_runners": _NOT_NEGATIVE,
    "evaluation_sample_timeout_s": _NOT_NEGATIVE,
    "evaluation_unhealthy_workers_timeout_s": _NOT_NEGATIVE,
    "gamma": _SHARE,
    "grad_clip": _NOT_NEGATIVE,
    "kl_coeff": _NOT_NEGATIVE,
    "kl_target": _NOT_NEGATIVE,
    "lambda_": _SHARE,
    "local_gpu_idx": _NOT_NEGATIVE,
    "lr": Schedule(nullable=True),
    "max_num_env_runner_restarts": _NOT_NEGATIVE,
    "max_requests_in_flight_per_env_runner": _FROM_ONE,
    "max_requests_in_flight_per_learner": _FROM_ONE,
    "metrics_episode_collection_timeout_s": _NOT_NEGATIVE,
    "metrics_num_episodes_for_smoothing": _FROM_ONE,
    "min_sample_timesteps_per_iteration": _NOT_NEGATIVE,
    "min_time_s_per_iteration": _NOT_NEGATIVE,
    "min_train_timesteps_per_iteration": _NOT_NEGATIVE,
    "minibatch_size": _FROM_ONE,
    "num_aggregator_actors_per_learner": _NOT_NEGATIVE,
    "num_consecutive_env_runner_failures_tolerance": _NOT_NEGATIVE,
    "num_cpus_for_main_process": _NOT_NEGATIVE,
    "num_cpus_per_env_runner": _NOT_NEGATIVE,
    "num_cpus_per_learner": _NOT_NEGATIVE,
    "num_env_runners": _NOT_NEGATIVE,
    "num_envs_per_env_runner": _FROM_ONE,
    "num_epochs": _FROM_ONE,
    "num_gpus_per_env_runner": _NOT_NEGATIVE,
    "num_gpus_per_learner": _NOT_NEGATIVE,
    "num_learners": _NOT_NEGATIVE,
    "rollout_fragment_length": _FROM_ONE,
    "sample_timeout_s": _NOT_NEGATIVE,
    "seed": Range(0, 2**32 - 1),
    "train_batch_size_per_learner": _FROM_ONE,
    "vf_clip_param": _NOT_NEGATIVE,
    "vf_loss_coeff": _NOT_NEGATIVE,
}
