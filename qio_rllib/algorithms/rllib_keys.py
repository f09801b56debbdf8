"""RLlib's own settings: the methods that take them, names that are old, and what each may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from gymnasium import VectorizeMode
from ray.rllib.algorithms.algorithm_config import TorchCompileWhatToCompile

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


_COUNT, _FROM_ONE = Annotated[int, Range(0)], Annotated[int, Range(1)]
_PROCESSES = Annotated[int, Range(0, 10_000)]
_REQUESTS = Annotated[int, Range(1, 10_000)]
_SECONDS = Annotated[float, Range(0, 1_000_000)]
_SHARE = Annotated[float, Range(0, 1)]
_WEIGHT = Annotated[float, Range(0)]
_DEVICES = Annotated[float, Range(0, 10_000)]  # Ray takes fractions of CPUs and GPUs
_RESOURCES = dict[str, _DEVICES]
_COMPILE_MODE = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]

# What every setting of RLlib that a file can hold may be, by its name. RLlib's own annotations allow null everywhere,
# and say of few numbers how large they may be. Null stands here where it means something. What is missing here can only
# be set in Python, or is declared beside the method of this package that takes it.
TYPES: dict[str, Any] = {
    # environment
    "action_mask_key": str,
    "clip_actions": bool,
    "clip_rewards": Annotated[bool | float | None, Range(0)],
    "disable_env_checking": bool,
    "env_config": dict | None,
    "is_atari": bool,
    "normalize_actions": bool,
    "render_env": bool,
    # framework
    "framework": Literal["torch"],
    "torch_compile_learner": bool,
    "torch_compile_learner_dynamo_backend": str,
    "torch_compile_learner_dynamo_mode": _COMPILE_MODE | None,
    "torch_compile_learner_what_to_compile": Literal["forward_train", "complete_update"]
    | TorchCompileWhatToCompile,
    "torch_compile_worker": bool,
    "torch_compile_worker_dynamo_backend": str,
    "torch_compile_worker_dynamo_mode": _COMPILE_MODE | None,
    "torch_ddp_kwargs": dict[str, Any],
    "torch_skip_nan_gradients": bool,
    # resources
    "custom_resources_for_main_process": _RESOURCES,
    "num_cpus_for_main_process": _DEVICES,
    "placement_strategy": Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"],
    # env_runners
    "add_default_connectors_to_env_to_module_pipeline": bool,
    "add_default_connectors_to_module_to_env_pipeline": bool,
    "batch_mode": Literal["truncate_episodes"],
    "broadcast_env_runner_states": bool,
    "compress_observations": bool,
    "create_local_env_runner": bool,
    "custom_resources_per_env_runner": _RESOURCES,
    "env_runner_state_server_max_concurrency": _REQUESTS,
    "episode_lookback_horizon": _COUNT,
    "episodes_to_numpy": bool,
    "explore": bool,
    "gym_env_vectorize_mode": Literal["sync", "async", "vector_entry_point"] | VectorizeMode,
    "max_requests_in_flight_per_env_runner": _REQUESTS,
    "merge_env_runner_states": Literal["training_only"] | bool,
    "num_cpus_per_env_runner": _DEVICES,
    "num_env_runners": _PROCESSES,
    "num_envs_per_env_runner": Annotated[int, Range(1, 1_000_000)],
    "num_gpus_per_env_runner": _DEVICES,
    "rollout_fragment_length": Annotated[int | Literal["auto"], Range(1)],
    "sample_timeout_s": _SECONDS,
    "use_env_runner_state_server": bool,
    "validate_env_runners_after_construction": bool,
    # learners
    "add_default_connectors_to_learner_pipeline": bool,
    "custom_resources_per_learner": _RESOURCES,
    "learner_config_dict": dict[str, Any],
    "local_gpu_idx": _PROCESSES,
    "max_requests_in_flight_per_aggregator_actor": Annotated[float, Range(1, 10_000)],
    "max_requests_in_flight_per_learner": _REQUESTS,
    "num_aggregator_actors_per_learner": _PROCESSES,
    "num_cpus_per_learner": Annotated[Literal["auto"] | float, Range(0, 10_000)],
    "num_gpus_per_learner": _DEVICES,
    "num_learners": _PROCESSES,
    # rl_module
    "algorithm_config_overrides_per_module": dict[str, dict],
    # training
    "clip_param": _WEIGHT,
    "entropy_coeff": Annotated[float | list, Schedule()],
    "gamma": _SHARE,
    "grad_clip": Annotated[float | None, Range(0)],
    "grad_clip_by": Literal["value", "norm", "global_norm"],
    "kl_coeff": _WEIGHT,
    "kl_target": _WEIGHT,
    "lambda_": _SHARE,
    "lr": Annotated[float | list | None, Schedule(nullable=True)],
    "minibatch_size": Annotated[int | None, Range(1)],
    "num_epochs": _FROM_ONE,
    "shuffle_batch_per_epoch": bool,
    "train_batch_size_per_learner": _FROM_ONE,
    "use_critic": bool,
    "use_gae": bool,
    "use_kl_loss": bool,
    "vf_clip_param": _WEIGHT,
    "vf_loss_coeff": _WEIGHT,
    # evaluation: episodes on fixed seeds
    "broadcast_offline_eval_runner_states": bool,
    "custom_resources_per_offline_eval_runner": _RESOURCES,
    "dataset_num_iters_per_offline_eval_runner": _FROM_ONE,
    "evaluation_auto_duration_max_env_steps_per_sample": _FROM_ONE,
    "evaluation_auto_duration_min_env_steps_per_sample": _FROM_ONE,
    "evaluation_duration": Annotated[int, Range(1, 1_000_000)],
    "evaluation_duration_unit": Literal["episodes"],
    "evaluation_error_after_n_consecutive_skips": Annotated[int | None, Range(1)],
    "evaluation_force_reset_envs_before_iteration": bool,
    "evaluation_interval": Annotated[int | None, Range(1)],
    "evaluation_num_env_runners": _PROCESSES,
    "evaluation_parallel_to_training": bool,
    "evaluation_sample_timeout_s": _SECONDS,
    "evaluation_unhealthy_workers_timeout_s": _SECONDS,
    "ignore_offline_eval_runner_failures": bool,
    "max_num_offline_eval_runner_restarts": _COUNT,
    "max_requests_in_flight_per_offline_eval_runner": _REQUESTS,
    "num_cpus_per_offline_eval_runner": _DEVICES,
    "num_gpus_per_offline_eval_runner": _DEVICES,
    "num_offline_eval_runners": _PROCESSES,
    "off_policy_estimation_methods": dict,
    "offline_eval_batch_size_per_runner": _FROM_ONE,
    "offline_eval_rl_module_inference_only": bool,
    "offline_eval_runner_health_probe_timeout_s": _SECONDS,
    "offline_eval_runner_restore_timeout_s": _SECONDS,
    "offline_evaluation_interval": Annotated[int | None, Range(1)],
    "offline_evaluation_timeout_s": _SECONDS,
    "ope_split_batch_by_episode": bool,
    "restart_failed_offline_eval_runners": bool,
    "validate_offline_eval_runners_after_construction": bool,
    # multi_agent
    "count_steps_by": Literal["env_steps", "agent_steps"],
    "policies_to_train": list[str] | set[str] | tuple[str, ...] | Callable[..., Any] | None,
    "policy_map_capacity": _FROM_ONE,
    "policy_states_are_swappable": bool,
    # reporting
    "keep_per_episode_custom_metrics": bool,
    "log_gradients": bool,
    "metrics_episode_collection_timeout_s": _SECONDS,
    "metrics_num_episodes_for_smoothing": Annotated[int, Range(1, 1_000_000)],
    "min_sample_timesteps_per_iteration": _COUNT,
    "min_time_s_per_iteration": Annotated[float | None, Range(0, 1_000_000)],
    "min_train_timesteps_per_iteration": _COUNT,
    # checkpointing and debugging
    "checkpoint_trainable_policies_only": bool,
    "export_native_model_files": bool,
    "log_level": Literal["DEBUG", "INFO", "WARN", "ERROR"],
    "log_sys_usage": bool,
    "seed": Annotated[int | None, Range(0, 2**32 - 1)],
    # fault tolerance
    "delay_between_env_runner_restarts_s": _SECONDS,
    "env_runner_health_probe_timeout_s": _SECONDS,
    "env_runner_restore_timeout_s": _SECONDS,
    "ignore_env_runner_failures": bool,
    "max_num_env_runner_restarts": _COUNT,
    "num_consecutive_env_runner_failures_tolerance": _COUNT,
    "restart_failed_env_runners": bool,
    "restart_failed_sub_environments": bool,
    # python_environment
    "extra_python_environs_for_driver": dict[str, str],
    "extra_python_environs_for_worker": dict[str, str],
}
