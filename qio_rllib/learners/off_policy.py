"""The Learner of MADDPG: critics regress on joint targets, actors climb their own values, targets follow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
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
from qio_rllib.acting.communication import Communication, inbox
from qio_rllib.learners.on_policy import as_tensor, clip_gradients, learner_threads
from qio_rllib.models.joint_critics import JointView
from qio_rllib.models.maddpg import MADDPGModule
from qio_rllib.sampling.replay import JointBatch

_NOISE_STATE = "noise_generator"


class MADDPGLearner(TorchLearner):
    """Learns from rows of a `JointReplay`: ``update(episodes=[JointBatch], num_epochs=gradient steps)``.

    Its state holds the source of its noise (Gumbel, lost messages of target agents).

    Raises:
        FloatingPointError: A loss or gradient is not finite.
    """

    def build(self) -> None:
        """Build the Learner, its noise and the exploration schedule."""
        super().build()
        self._noise = torch.Generator().manual_seed(self.config.seed or 0)
        self._joint = next(iter(self.module.values())).unwrapped().model_config["joint"]
        self._radio = Communication.of(self.config.model_config.get("communication"))
        self._exploration = Scheduler(
            fixed_value_or_schedule=self.config.exploration, framework=self.framework, device=self._device
        )
        self._explore(0)

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Register one Adam for actor and speaker, and one for the critic."""
        module = self.module[module_id].unwrapped()
        acting = [*module.actor.parameters()]
        if module.speaker is not None:
            acting += module.speaker.parameters()
        for name, parameters, rate in (
            ("actor", acting, config.actor_lr),
            ("critic", [*module.critic.parameters()], config.critic_lr),
        ):
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=torch.optim.Adam(parameters, fused=True),
                params=parameters,
                lr_or_lr_schedule=rate,
            )

    def update(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Take ``num_epochs`` gradient steps, each on an equal share of the rows."""
        data = kwargs.get("training_data")
        if data is not None:
            data.validate()
            data.solve_refs()
        (batch,) = data.episodes if data is not None else kwargs["episodes"]
        updates, timesteps = kwargs.get("num_epochs") or 1, kwargs.get("timesteps") or {}
        self._check_is_built()
        self.before_gradient_based_update(timesteps=timesteps)
        with learner_threads(self.config.num_cpus_per_learner):
            self._learn(batch, updates)
        self._explore(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))
        self.after_gradient_based_update(timesteps=timesteps)
        return self.metrics.reduce()

    def compute_loss_for_module(self, **kwargs: Any) -> torch.Tensor:
        """Refuse RLlib's batches."""
        raise ConfigError("MADDPG learns from the joint steps of its replay only")

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the Learner's state with that of its noise."""
        state = super().get_state(*args, **kwargs)
        if not kwargs.get("inference_only"):
            state[_NOISE_STATE] = self._noise.get_state().numpy()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the Learner and its noise."""
        super().set_state(state)
        if _NOISE_STATE in state:
            self._noise.set_state(torch.as_tensor(state[_NOISE_STATE], dtype=torch.uint8))

    # -- one update -----------------------------------------------------------------------------------------------

    def _learn(self, batch: JointBatch, updates: int) -> None:
        whole = self._tensors(batch)
        rows = len(batch) // updates
        totals: dict[tuple[str, str], torch.Tensor] = {}
        for update in range(updates):
            for key, value in self.gradient_step(
                whole.select(slice(update * rows, (update + 1) * rows))
            ).items():
                totals[key] = totals[key] + value if key in totals else value
        means = {key: float(total) / updates for key, total in totals.items()}
        broken = [
            f"{name} of '{module_id}' is {mean}"
            for (module_id, name), mean in means.items()
            if not math.isfinite(mean)
        ]
        if broken:
            raise FloatingPointError(f"{', '.join(broken)} in this update")
        for key, mean in means.items():
            self.metrics.log_value(key, mean, window=1)
        log = self.metrics.log_value
        for module_id in self._joint["modules"]:
            steps = int(batch.modules[module_id]["acted"].sum())
            for owner in (module_id, ALL_MODULES):
                log((owner, NUM_MODULE_STEPS_TRAINED), steps, reduce="sum")
                log((owner, NUM_MODULE_STEPS_TRAINED_LIFETIME), steps, reduce="lifetime_sum")
            log((module_id, "updates_lifetime"), updates, reduce="lifetime_sum")
        self._weights_seq_no += 1
        for module_id in self._joint["modules"]:
            log((module_id, WEIGHTS_SEQ_NO), self._weights_seq_no, window=1)

    def gradient_step(self, rows: _Rows) -> dict[tuple[str, str], torch.Tensor]:
        """Take one step of all critics, then of all actors and speakers; return what to report by (module, name)."""
        modules = [self.module[module_id].unwrapped() for module_id in self._joint["modules"]]
        stats: dict[tuple[str, str], torch.Tensor] = {}
        joint = JointView(rows.seen, rows.acted, rows.heard, rows.state)
        targets = self._targets(modules, rows)
        losses = []
        for g, module_id in enumerate(self._joint["modules"]):
            worth = modules[g].critic(joint, rows.actions)
            loss = _mean_over((worth - targets[g]) ** 2, rows.acted[g])
            losses.append(loss)
            stats[module_id, "critic_loss"] = loss.detach()
            stats[module_id, "q_mean"] = _mean_over(worth.detach(), rows.acted[g])
        self._descend("critic", losses, stats)

        said = self._said(modules, rows)
        losses = []
        for critic in (module.critic for module in modules):
            critic.requires_grad_(False)
        for g, module_id in enumerate(self._joint["modules"]):
            inputs = rows.seen[g] if said is None else torch.cat([rows.seen[g], said[g]], dim=-1)
            own, output = self._act(modules[g], inputs, rows.legal[g])
            # Others' actions and all messages are those that were executed; only its own action is the actor's.
            worth = modules[g].critic.of_own(joint, rows.actions, own)
            gain = _mean_over(worth, rows.acted[g])
            flat = _mean_over((output**2).mean(-1), rows.acted[g])
            losses.append(-gain + self.config.action_regularization * flat)
            stats[module_id, "actor_loss"] = -gain.detach()
        self._descend("actor", losses, stats)
        for critic in (module.critic for module in modules):
            critic.requires_grad_(True)
        for module in modules:
            self._follow(module)
        return stats

    def _targets(self, modules: list[MADDPGModule], rows: _Rows) -> list[torch.Tensor]:
        """Return what each agent's action was worth by the target networks, ``[B, M]`` a module."""
        with torch.no_grad():
            heard = None
            if self._radio is not None:
                messages = [
                    module.target_speaker(seen) for module, seen in zip(modules, rows.next_seen, strict=True)
                ]
                heard = self._heard(messages, self._next_delivered(rows.present_next))
            joint = JointView(rows.next_seen, rows.present_next, heard, rows.next_state)
            actions = []
            for g, module in enumerate(modules):
                inputs = (
                    rows.next_seen[g] if heard is None else torch.cat([rows.next_seen[g], heard[g]], dim=-1)
                )
                actions.append(self._act(module, inputs, rows.next_legal[g], target=True)[0])
            return [
                rows.rewards[g]
                + self.config.gamma * rows.present_next[g] * module.target_critic(joint, actions)
                for g, module in enumerate(modules)
            ]

    def _said(self, modules: list[MADDPGModule], rows: _Rows) -> list[torch.Tensor] | None:
        """Return what agents would hear from the present speakers, with gradients, over the links that worked."""
        if rows.delivered is None:
            return None
        return self._heard(
            [module.speak(seen) for module, seen in zip(modules, rows.seen, strict=True)], rows.delivered
        )

    def _heard(self, messages: list[torch.Tensor], delivered: list[torch.Tensor]) -> list[torch.Tensor]:
        return heard_by_group(messages, delivered, self._joint["slots"])

    def _next_delivered(self, present: list[torch.Tensor]) -> list[torch.Tensor]:
        """Draw which of the next step's messages arrive, as runners do."""
        assert self._radio is not None
        alive = _by_slot(present, self._joint["slots"]) > 0
        agents = alive.shape[1]
        delivered = (
            alive[:, :, None] & alive[:, None, :] & ~torch.eye(agents, dtype=torch.bool, device=alive.device)
        )
        if self._radio.drop > 0.0:
            draws = torch.rand(delivered.shape, generator=self._noise).to(alive.device)
            delivered &= draws >= self._radio.drop
        return [delivered[:, slots] for slots in self._joint["slots"]]

    def _act(
        self, module: MADDPGModule, inputs: torch.Tensor, legal: torch.Tensor | None, target: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return module.act(inputs, legal, self.config.gumbel_temperature, self._noise, target)

    def _descend(
        self, name: str, losses: list[torch.Tensor], stats: dict[tuple[str, str], torch.Tensor]
    ) -> None:
        """Take a step of all modules' optimizers of a name down the sum of the losses."""
        optimizers = {module_id: self.get_optimizer(module_id, name) for module_id in self._joint["modules"]}
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()
        for module_id, optimizer in optimizers.items():
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            if self.config.grad_clip is not None:
                stats[module_id, f"{name}_gradient_norm"] = clip_gradients(
                    gradients, self.config.grad_clip, self.config.grad_clip_by
                )
            optimizer.step()

    def _follow(self, module: MADDPGModule) -> None:
        """Move the target networks towards the present ones."""
        with torch.no_grad():
            for target, present in (
                (module.target_actor, module.actor),
                (module.target_speaker, module.speaker),
                (module.target_critic, module.critic),
            ):
                if target is not None:
                    torch._foreach_lerp_([*target.parameters()], [*present.parameters()], self.config.tau)

    def _explore(self, timestep: int) -> None:
        value = float(self._exploration.update(timestep=timestep))
        for module_id in self._joint["modules"]:
            self.module[module_id].unwrapped().exploration.fill_(value)
            self.metrics.log_value((module_id, "exploration"), value, window=1)

    def _tensors(self, batch: JointBatch) -> _Rows:
        parts = [batch.modules[module_id] for module_id in self._joint["modules"]]

        def tensors(name: str, numbers: bool = False) -> list[torch.Tensor]:
            found = [as_tensor(part[name]).to(self._device) for part in parts]
            return [array.float() for array in found] if numbers else found

        actions = []
        for acts, group in zip(tensors("actions"), self._joint["groups"], strict=True):
            one_hot = acts.dtype == torch.int64
            actions.append(torch.nn.functional.one_hot(acts, group["acts"]).float() if one_hot else acts)
        heard = delivered = None
        if self._radio is not None:
            delivered = tensors("delivered")
            heard = self._heard(tensors("messages"), delivered)

        def optional(part: Mapping[str, Any], name: str) -> torch.Tensor | None:
            return as_tensor(part[name]).to(self._device) if name in part else None

        def state(array: Any) -> torch.Tensor | None:
            return None if array is None else as_tensor(array).to(self._device)

        return _Rows(
            seen=tensors("observations"),
            next_seen=tensors("next_observations"),
            actions=actions,
            rewards=tensors("rewards"),
            acted=tensors("acted", numbers=True),
            present_next=tensors("present_next", numbers=True),
            legal=[optional(part, "action_mask") for part in parts],
            next_legal=[optional(part, "next_action_mask") for part in parts],
            heard=heard,
            delivered=delivered,
            state=state(batch.states),
            next_state=state(batch.next_states),
        )


@dataclasses.dataclass
class _Rows:
    """Joint steps as tensors; each list has one entry a module."""

    seen: list[torch.Tensor]  # [B, M, D]
    next_seen: list[torch.Tensor]
    actions: list[torch.Tensor]  # [B, M, A], one-hot where discrete
    rewards: list[torch.Tensor]  # [B, M]
    acted: list[torch.Tensor]  # [B, M], 0 or 1
    present_next: list[torch.Tensor]
    legal: list[torch.Tensor | None]  # bool [B, M, A]
    next_legal: list[torch.Tensor | None]
    heard: list[torch.Tensor] | None  # [B, M, K], what arrived of the messages that were sent
    delivered: list[torch.Tensor] | None  # bool [B, M, N]
    state: torch.Tensor | None  # [B, S]
    next_state: torch.Tensor | None

    def select(self, rows: slice) -> _Rows:
        """Return some of the rows, as views."""

        def part(value: Any) -> Any:
            if isinstance(value, list):
                return [part(item) for item in value]
            return None if value is None else value[rows]

        return _Rows(**{field.name: part(getattr(self, field.name)) for field in dataclasses.fields(self)})


def heard_by_group(
    messages: Sequence[torch.Tensor], delivered: Sequence[torch.Tensor], slots: Sequence[Sequence[int]]
) -> list[torch.Tensor]:
    """Return the inboxes of each module's agents, ``[B, M, K]``.

    Args:
        messages: Of each module's agents, ``[B, M, K]``.
        delivered: Whose message reached them, bool ``[B, M, N]``, by slot of the sender.
        slots: The agents' slots, by module.
    """
    sent = _by_slot(messages, slots)
    return [inbox(sent, reached) for reached in delivered]


def _by_slot(parts: Sequence[torch.Tensor], slots: Sequence[Sequence[int]]) -> torch.Tensor:
    """Join what the modules' agents have along the second axis, in the order of all agents' slots."""
    order = [slot for members in slots for slot in members]
    joined = torch.cat(list(parts), dim=1)
    return joined if order == sorted(order) else joined[:, torch.as_tensor(order).argsort()]


def _mean_over(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of the values where the mask is 1; 0 where it is nowhere."""
    return (values * mask).sum() / mask.sum().clamp_min(1.0)
