"""What follows each of an agent's actions: branches of an episode that are played on, with paired random numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from qio_envs.api import BatchedEnv
from qio_rllib.acting.actor import Acted
from qio_rllib.acting.policy import episode_generator
from qio_rllib.acting.team import Team
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.branches import place_of
from qio_rllib.sampling.global_state import StateSource
from qio_rllib.sampling.rollout import ModuleRollout
from qio_rllib.sampling.sampled_decisions import Decision, Replace, advance
from qio_rllib.sampling.stepper import EnvStepper, Step
from qio_rllib.sampling.streams import generator
from qio_rllib.sampling.vector_env import Array

AS_PLAYED = 0
"""The branch with the random numbers of the episode itself: its taken action gives what the episode gave."""
_MOST_ROWS = 2048  # at once
_MOST_BYTES = 256 * 2**20  # of what is kept of them


@dataclasses.dataclass(frozen=True, eq=False)
class Continuation:
    """What followed each of an agent's ``A`` actions in ``C`` branches.

    Row ``c A + a`` is action ``a`` of branch ``c``. Rows of an illegal action are those of the action that was taken.

    Attributes:
        decision: Index of the decision, int64 ``[C]``.
        branch: Of the decision, int64 ``[C]``; `AS_PLAYED` or one of its own random numbers.
        probabilities: The agent's policy in the decision, float64 ``[C, A]``.
        group: Index of the agent's group.
        member: The agent's place in it.
        obs: What each group saw in the decision, float32 ``[C A, M, ...]``.
        alive: Who acted, bool ``[C A, N]``.
        acted: What each group did.
        memory: What the agent remembered before, by name, float32 ``[C A, S]``.
        part: The agent's way from the decision on, ``[T, C A, 1, ...]``, without columns.
    """

    decision: Array
    branch: Array
    probabilities: Array
    group: int
    member: int
    obs: list[Array]
    alive: Array
    acted: list[Acted]
    memory: dict[str, Array]
    part: ModuleRollout

    def returns(self, gamma: float) -> Array:
        """Return the discounted sums of the agent's rewards, float64 ``[C, A]``."""
        rewards = np.where(self.part.acted, self.part.rewards, 0.0)[..., 0]
        discounts = gamma ** np.arange(len(rewards), dtype=np.float64)
        return (discounts @ rewards).reshape(self.probabilities.shape)


class Continuations:
    """Plays on after every action of an agent, in branches whose random numbers do not depend on the action.

    Branch `AS_PLAYED` has the episode's own random numbers. Branches 1, 2, ... have others, each its own: a key of the
    environment's numbers from the decision's step on, and a source of all agents' draws. All actions of a branch share
    both (common random numbers). What agents saw before the decision stays what it was.

    Args:
        batch: One environment of the kind; its own state does not matter.
        team: Who acts, sampled; its Actors record `DIST_INPUTS`.
        state_source: Where global states come from; None for none.
        seed: Of the branches.
        horizon: Steps to play on, the decision's included; None for the end of the episode.
        given_others: Whether the other agents do in the decision what they did in the episode; else they draw anew.
        paired: Whether actions share a branch's random numbers; without, each has its own.
        longest: Steps that are expected at most, for the size of what is played at once.
    """

    def __init__(
        self,
        batch: BatchedEnv,
        team: Team,
        state_source: StateSource | None,
        seed: int,
        horizon: int | None = None,
        given_others: bool = False,
        paired: bool = True,
        longest: int = 200,
    ) -> None:
        self.batch, self.team, self.state_source = batch, team, state_source
        self.seed, self.horizon, self.given_others, self.paired = seed, horizon, given_others, paired
        self.longest = longest if horizon is None else min(horizon, longest)
        self.env_steps = 0

    def play(self, chosen: Sequence[tuple[int, Decision]], branches: int) -> Iterator[Continuation]:
        """Yield what follows decisions of one agent, some branches at a time.

        Args:
            chosen: Index and decision; all of the same agent.
            branches: Beside `AS_PLAYED`.
        """
        (agent,) = {decision.agent for _, decision in chosen}
        g, member = place_of(self.team, agent)
        pairs = [(index, one, b) for index, one in chosen for b in range(branches + 1)]
        count = len(chosen[0][1].legal)
        obs = chosen[0][1].moment.obs[g]
        numbers = obs[0, 0].size + (0 if self.state_source is None else self.state_source.size)
        rows = min(_MOST_ROWS, _MOST_BYTES // (4 * numbers * (self.longest + 1)))
        size = max(1, rows // count)
        for start in range(0, len(pairs), size):
            yield self._play(pairs[start : start + size], agent, g, member)

    def _play(
        self, pairs: Sequence[tuple[int, Decision, int]], agent: int, g: int, member: int
    ) -> Continuation:
        count = len(pairs[0][1].legal)
        stepper, draws = self._branched(pairs, count)
        legal = np.stack([decision.legal for _, decision, _ in pairs])
        taken = np.array([decision.action for _, decision, _ in pairs])
        own = np.where(legal, np.arange(count), taken[:, None]).reshape(-1)

        def forced(acted: list[Acted]) -> list[Acted]:
            found = [one._replace(actions=one.actions.copy()) for one in acted]
            if self.given_others:
                for place, one in enumerate(found):
                    done = np.concatenate([decision.actions[place] for _, decision, _ in pairs])
                    one.actions[...] = np.repeat(done, count, axis=0)
            found[g].actions[:, member] = own
            return found

        obs, alive = [seen.copy() for seen in stepper.obs], stepper.alive.copy()
        memory = {name: array[:, member].copy() for name, array in stepper.memory[g].items()}
        way = _Way(stepper, agent, g, member)
        acted: list[Acted] = []
        while way.going.any() and way.steps != self.horizon:
            step = way.step(draws, None if acted else forced)
            acted = acted or step.acted
            self.env_steps += len(own)
        return Continuation(
            np.array([index for index, _, _ in pairs]),
            np.array([b for _, _, b in pairs]),
            np.stack([decision.probabilities for _, decision, _ in pairs]),
            g,
            member,
            obs,
            alive,
            acted,
            memory,
            way.finish(memory),
        )

    def _branched(
        self, pairs: Sequence[tuple[int, Decision, int]], count: int
    ) -> tuple[EnvStepper, _BranchDraws]:
        """Return environments that stand in the decisions, ``count`` times each, and their draws."""
        moments = [decision.moment for _, decision, _ in pairs]
        repeats = count if self.paired else 1
        sources, keys = [], []
        for index, decision, b in pairs:
            assert decision.moment.env is not None
            for row in range(count // repeats):
                if b == AS_PLAYED:
                    source = episode_generator(0)
                    source.bit_generator.state = decision.moment.draws
                    keys.append(decision.moment.env["seed"][0])
                else:
                    source = generator(self.seed, "continuations", index, b, row)
                    keys.append(source.integers(2**64, dtype=np.uint64))
                sources.append(source)

        def rows(arrays: Sequence[Array]) -> Array:
            return np.repeat(np.concatenate(arrays), count, axis=0)

        states = [moment.env for moment in moments if moment.env is not None]
        env = {name: rows([state[name] for state in states]) for name in states[0]}
        env["seed"] = np.repeat(np.array(keys, np.uint64), repeats)
        masks = [
            None if mask is None else rows([moment.masks[g] for moment in moments])  # type: ignore[misc]
            for g, mask in enumerate(moments[0].masks)
        ]
        alive = rows([moment.alive for moment in moments])
        stepper = EnvStepper(BatchedVectorEnv(self.batch.branch(len(alive))), self.team, self.state_source)
        seen = self.state_source is not None
        stepper.set_state(
            {
                "env": env,
                "obs": [rows([moment.obs[g] for moment in moments]) for g in range(len(self.team.groups))],
                "masks": masks,
                "memory": [
                    {name: rows([moment.memory[g][name] for moment in moments]) for name in memory}
                    for g, memory in enumerate(moments[0].memory)
                ],
                "fresh": np.zeros_like(alive),
                "alive": alive,
                "global_state": rows([moment.global_state for moment in moments]) if seen else None,  # type: ignore[misc]
                "steps": rows([moment.steps for moment in moments]),
            }
        )
        return stepper, _BranchDraws(sources, repeats)


class _Way:
    """Records one agent's way through the environments of a stepper."""

    def __init__(self, stepper: EnvStepper, agent: int, g: int, member: int) -> None:
        self.stepper, self.agent, self.g, self.member = stepper, agent, g, member
        self.going = stepper.alive[:, agent].copy()
        self.steps = 0
        self.obs = [self._seen(stepper.obs)]
        self.states = [stepper.global_state]
        self.columns: list[tuple[Array, ...]] = []
        self.finals: list[tuple[Array, Array, Array | None]] = []

    def step(self, draws: Any, replace: Replace | None) -> Step:
        """Play a step."""
        here, stepper = self.going, self.stepper
        step = advance(stepper, draws, replace, self._keep_final)
        self.going = here & stepper.alive[:, self.agent]
        given = (step.rewards, step.terminated, step.truncated)
        self.columns.append((*(array[:, self.agent].copy() for array in given), here, self.going))
        self.obs.append(self._seen(stepper.obs))
        self.states.append(stepper.global_state)
        self.steps += 1
        return step

    def _keep_final(self, step: Step) -> None:
        rows = np.flatnonzero((step.terminated | step.truncated)[:, self.agent] & self.going)
        if len(rows):
            obs, state = self.stepper.final(step)
            place = np.stack([np.full(len(rows), self.steps), rows, np.zeros(len(rows), np.int64)], axis=1)
            self.finals.append((place, self._seen(obs)[rows], None if state is None else state[rows]))

    def finish(self, memory: dict[str, Array]) -> ModuleRollout:
        """Return what was recorded, without actions."""
        rewards, terminated, truncated, acted, continues = (
            np.stack(found)[..., None] for found in zip(*self.columns, strict=True)
        )
        finals = [np.concatenate(parts) for parts in zip(*(part[:2] for part in self.finals), strict=True)]
        group = self.stepper.team.groups[self.g]
        shape = self.obs[0].shape[1:]
        index, observations = finals or (np.empty((0, 3), np.int64), np.empty((0, *shape), np.float32))
        states = None if self.states[0] is None else np.stack(self.states)  # type: ignore[arg-type]
        last = None
        if states is not None:
            last = np.concatenate(
                [np.empty((0, states.shape[-1]), np.float32), *(part[2] for part in self.finals)]
            )
        return ModuleRollout(
            agents=(group.agents[self.member],),
            agent_index=np.array([self.agent]),
            observations=np.stack(self.obs)[:, :, None],
            action_mask=None,
            actions=np.zeros(rewards.shape, np.int64),
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            acted=acted,
            continues=continues,
            fresh=np.zeros(rewards.shape[1:], bool),
            final_index=index,
            final_observations=observations,
            global_states=states,
            final_global_states=last,
            memory={name: array[None, :, None] for name, array in memory.items()},
            memory_interval=len(rewards),
        )

    def _seen(self, obs: Sequence[Array]) -> Array:
        return obs[self.g][:, self.member].copy()


class _BranchDraws:
    """Random numbers of branches, each the same for some environments that follow each other."""

    def __init__(self, sources: Sequence[np.random.Generator], repeats: int) -> None:
        self.sources, self.repeats = sources, repeats

    def random(self, size: tuple[int, ...], dtype: Any) -> Array:
        """Return uniform numbers on [0, 1), ``[E, ...]``."""
        return self._repeated([source.random(size[1:], dtype) for source in self.sources])

    def standard_normal(self, size: tuple[int, ...], dtype: Any) -> Array:
        """Return standard normal numbers, ``[E, ...]``."""
        return self._repeated([source.standard_normal(size[1:], dtype) for source in self.sources])

    def _repeated(self, drawn: Sequence[Array]) -> Array:
        return np.repeat(np.stack(drawn), self.repeats, axis=0)
