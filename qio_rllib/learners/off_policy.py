"""`JointLearner` and `OffPolicyLearner`: gradient steps on joint transitions."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from ray.rllib.core import ALL_MODULES
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.metrics import (
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_MODULE_STEPS_TRAINED,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
    WEIGHTS_SEQ_NO,
)
from ray.rllib.utils.schedules.scheduler import Scheduler

from qio_envs.api import ConfigError
from qio_rllib.fused.adam import Adam
from qio_rllib.learners.client_correction import FEDPROX, SCAFFOLD, ClientCorrection
from qio_rllib.learners.common import (
    descend,
    log_what_torch_computes,
    polyak_update,
    refuse_non_finite,
)
from qio_rllib.learners.present_settings import OPERATORS, operator_settings, put_present_settings
from qio_rllib.learners.threads import LearnerThreads
from qio_rllib.learners.transitions import Transitions, transitions_of
from qio_rllib.models.joint_module import JOINT
from qio_rllib.models.memory import memory_kind
from qio_rllib.sampling.replay import JointTransitions
from qio_rllib.sampling.streams import torch_generator

_NOISE_STATE, _STEPS_STATE = "noise_generator", "steps_followed"


@dataclasses.dataclass(frozen=True)
class Objective:
    """One thing that is minimised in a gradient step.

    Attributes:
        optimizer: Name of the optimizers that take a step down the losses.
        losses: By module id.
        stats: What is reported beside them, by (module id, name).
    """

    optimizer: str
    losses: Mapping[str, torch.Tensor]
    stats: Mapping[tuple[str, str], torch.Tensor] = dataclasses.field(default_factory=dict)


class JointLearner(TorchLearner, abc.ABC):
    """Learns from what all agents did in a step: ``update(episodes=experience)``.

    A subclass says which parameters have which optimizer (`optimizer_parameters`) and how it learns from experience
    (`learn`). Its state holds the source of its noise and the clock of the target networks. A federation sets
    `correction`.

    Raises:
        FloatingPointError: A loss or gradient is not finite.
    """

    rollout_columns: tuple[str, ...] = ()
    """What it needs of the Actors in runners."""
    corrections: tuple[str, ...] = (FEDPROX, SCAFFOLD)
    """Types of `ClientCorrection` that it takes."""

    @classmethod
    def memory_interval(cls, config: Any) -> int:
        """Return after how many steps runners record the memory of agents: a sequence can begin anywhere."""
        return 1

    def build(self) -> None:
        """Build the Learner, its noise and the exploration schedule."""
        super().build()
        self.correction: ClientCorrection | None = None
        self.threads = LearnerThreads(self.config.num_cpus_per_learner)
        self._followers: tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]] | None = None
        self._steps_followed = 0
        log_what_torch_computes(self.module)
        self.seed_streams(self.config.seed)
        self.joint = next(iter(self.module.values())).unwrapped().settings[JOINT]
        self._exploration = None
        if self.config.exploration is not None:
            self._exploration = Scheduler(
                fixed_value_or_schedule=self.config.exploration, framework=self.framework, device=self._device
            )
        self._explore(0)

    def seed_streams(self, seed: int | None) -> None:
        """Begin the random numbers of a seed."""
        self.noise = torch_generator(seed, "learner noise")

    @abc.abstractmethod
    def optimizer_parameters(
        self, module: Any, config: Any
    ) -> dict[str, tuple[list[torch.nn.Parameter], float | list]]:
        """Return the parameters and the learning rate (or its schedule) of each of a module's optimizers, by name."""

    @classmethod
    def weight_decay(cls, name: str, config: Any) -> float:
        """Return the decoupled weight decay of one of a module's optimizers, by name."""
        return 0.0

    @abc.abstractmethod
    def learn(self, experience: list[Any], updates: int) -> None:
        """Learn from experience, and log what shall be reported.

        Args:
            experience: What the algorithm gives as ``episodes``.
            updates: ``num_epochs``.
        """

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Register an Adam for each part."""
        module = self.module[module_id].unwrapped()
        for name, (parameters, rate) in self.optimizer_parameters(module, config).items():
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=Adam(parameters, self.weight_decay(name, config)),
                params=parameters,
                lr_or_lr_schedule=rate,
            )

    def update(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Learn from ``episodes`` (or ``training_data``); arguments as in RLlib's ``Learner.update``."""
        data = kwargs.get("training_data")
        if data is not None:
            data.validate()
            data.solve_refs()
        experience = data.episodes if data is not None else kwargs["episodes"]
        updates, timesteps = kwargs.get("num_epochs") or 1, kwargs.get("timesteps") or {}
        self._check_is_built()
        self.before_gradient_based_update(timesteps=timesteps)
        with self.threads.update():
            self.learn(list(experience), updates)
        self._explore(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))
        self.after_gradient_based_update(timesteps=timesteps)
        return self.metrics.reduce()

    def compute_loss_for_module(self, **kwargs: Any) -> torch.Tensor:
        """Refuse RLlib's batches."""
        raise ConfigError(f"{type(self).__name__} learns from what BatchedEnvRunner gives only")

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the Learner's state with that of its noise, and the target networks' clock."""
        state = super().get_state(*args, **kwargs)
        if not kwargs.get("inference_only"):
            state[_NOISE_STATE] = self.noise.get_state().numpy()
            state[_STEPS_STATE] = self._steps_followed
            state[OPERATORS] = operator_settings(self)
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the Learner, its noise and the clock."""
        super().set_state(state)
        self._steps_followed = state.get(_STEPS_STATE, self._steps_followed)
        if _NOISE_STATE in state:
            self.noise.set_state(torch.as_tensor(state[_NOISE_STATE], dtype=torch.uint8))
        put_present_settings(self, state.get(OPERATORS, {}))

    def modules(self) -> list[Any]:
        """Return the modules, in the order of `Transitions.modules`."""
        return [self.module[module_id].unwrapped() for module_id in self.joint["modules"]]

    def parameters_of(self, optimizer: str) -> list[torch.nn.Parameter]:
        """Return the parameters of an optimizer, by name, over all modules."""
        found = (self.get_optimizer(module_id, optimizer) for module_id in self.joint["modules"])
        return [each for one in found for group in one.param_groups for each in group["params"]]

    def follow(self) -> None:
        """Let the target networks follow the present ones; called after each gradient step.

        They move every ``target_network_update_freq`` of these steps, after each where it is None.
        """
        self._steps_followed += 1
        every = self.config.target_network_update_freq
        if every is not None and self._steps_followed % every:
            return
        if self._followers is None:  # a look at all parts of all modules takes longer than the step
            pairs = [pair for module in self.modules() for pair in module.targets()]
            targets, presents = ([each for pair in pairs for each in pair[k].parameters()] for k in (0, 1))
            self._followers = targets, presents
        polyak_update(*self._followers, self.config.tau)

    def descend(self, objective: Objective) -> dict[tuple[str, str], torch.Tensor]:
        """Take one step down an objective; return what to report by (module id, name)."""
        optimizers = [self.get_optimizer(module_id, objective.optimizer) for module_id in objective.losses]
        losses = [*objective.losses.values()]
        total = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        stats = dict(objective.stats)
        for module_id, loss in objective.losses.items():
            stats[module_id, f"{objective.optimizer}_loss"] = loss.detach()
        # Each module's gradients are clipped by themselves, as if it learned alone.
        correct = None if self.correction is None else self.correction.correct
        norms = descend(optimizers, total, self.config.grad_clip, self.config.grad_clip_by, correct)
        for module_id, norm in zip(objective.losses, norms, strict=False):
            stats[module_id, f"{objective.optimizer}_gradient_norm"] = norm
        return stats

    def report(self, means: Mapping[tuple[str, str], float], steps: Mapping[str, int], updates: int) -> None:
        """Log an update.

        Args:
            means: By (module id, name).
            steps: Steps that the agents of each module acted in.
            updates: Gradient steps.

        Raises:
            FloatingPointError: A mean is not finite.
        """
        refuse_non_finite(means)
        log = self.metrics.log_value
        for key, mean in means.items():
            log(key, mean, window=1)
        self._weights_seq_no += 1
        for module_id in self.joint["modules"]:
            for owner in (module_id, ALL_MODULES):
                log((owner, NUM_MODULE_STEPS_TRAINED), steps[module_id], reduce="sum")
                log((owner, NUM_MODULE_STEPS_TRAINED_LIFETIME), steps[module_id], reduce="lifetime_sum")
            log((module_id, "updates_lifetime"), updates, reduce="lifetime_sum")
            log((module_id, WEIGHTS_SEQ_NO), self._weights_seq_no, window=1)

    def _explore(self, timestep: int) -> None:
        if self._exploration is None:
            return
        value = float(self._exploration.update(timestep=timestep))
        for module_id, module in zip(self.joint["modules"], self.modules(), strict=True):
            module.policy.exploration.fill_(value)
            self.metrics.log_value((module_id, "exploration"), value, window=1)


class OffPolicyLearner(JointLearner):
    """Learns from a replay: ``update(episodes=[JointTransitions], num_epochs=gradient steps)``.

    A subclass says what is minimised (`losses`). After each gradient step the target networks follow.

    Raises:
        FloatingPointError: A loss or gradient is not finite.
    """

    def build(self) -> None:
        """Build the Learner."""
        super().build()
        recurrent = memory_kind(self.config.model_config) is not None
        self.burn_in = self.config.burn_in if recurrent else 0

    @abc.abstractmethod
    def losses(self, batch: Transitions) -> Iterator[Objective]:
        """Yield what is minimised, one after the other; each step is taken before the next one is asked for."""

    def gradient_step(self, batch: Transitions) -> dict[tuple[str, str], torch.Tensor]:
        """Take one step down each objective; return what to report by (module id, name)."""
        stats: dict[tuple[str, str], torch.Tensor] = {}
        for objective in self.losses(batch):
            stats |= self.descend(objective)
        self.follow()
        return stats

    def learn(self, experience: list[Any], updates: int) -> None:
        """Take gradient steps, each on an equal share of the transitions."""
        batch: JointTransitions
        (batch,) = experience
        rows = len(batch) // updates
        totals: dict[tuple[str, str], torch.Tensor] = {}
        # Single transitions become tensors all at once; of sequences steps come first, so each share by itself.
        single = self.config.sequence_length == 1
        whole = transitions_of(batch, self.joint, self.burn_in, self._device) if single else None
        for update in range(updates):
            share = slice(update * rows, (update + 1) * rows)
            if whole is not None:
                part = whole.rows(share)
            else:
                part = transitions_of(batch[share], self.joint, self.burn_in, self._device)
            for key, value in self.gradient_step(part).items():
                totals[key] = totals[key] + value if key in totals else value
        means = {key: float(total) / updates for key, total in totals.items()}
        steps = {key: int(batch.modules[key]["acted"].sum()) for key in self.joint["modules"]}
        self.report(means, steps, updates)
