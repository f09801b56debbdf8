"""World models of a state that is not all observed: what costs how much, and which part of a model is to blame."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from claims import figures as f
from claims.claim import Claim

CURVES = "python benchmarks/learning_curves.py tune_configs/"
PLANET, AIM = "drift_control_planet", 1.3
HIDDEN = Claim(
    "PlaNet with s1 and s2 hidden, from 10 random episodes and 70 of its own, {steps} environment steps: {ratio} times "
    "the regulator's cost (without exploration; score {score}). The aim of 1.30 is missed. A filter that knows the "
    "true model costs {filtered} times the regulator (lqg), so little is left to be gained below the aim; what has no "
    "memory {memoryless} times; on the same episodes {scripted}; {seconds} s of training a seed, beside other work on "
    "the machine. Settings were chosen in six runs on seed 100, the best of which cost 1.72 times the regulator after "
    "20,000 steps, and in six fits to its replay",
    {
        "steps": lambda: f.steps(PLANET),
        "ratio": lambda: f.relative(PLANET, "lqr"),
        "score": lambda: f.seeds(PLANET, "greedy"),
        "filtered": lambda: f"{f.scripted_score(PLANET, 'lqg') / f.scripted_score(PLANET, 'lqr'):.2f}",
        "memoryless": lambda: f.relative("drift_control_hidden_memoryless", "lqr"),
        "scripted": lambda: f.scripted(PLANET),
        "seconds": lambda: f.training_seconds(PLANET),
    },
    CURVES + "drift_control_planet.yaml --seeds 5",
    (PLANET, "drift_control_hidden_memoryless"),
    holds=lambda: f.score(PLANET, "greedy") / f.scripted_score(PLANET, "lqr") > AIM,
)
PARTS, WIDE = "planning_parts", "drift_control_planet_wide"
LATER = (5, 10, 45)


def _true_planner(start: str) -> Callable[[], str]:
    return lambda: f.cell(f"{PARTS}/planner.csv", "over_lqr", 2, planner="iCEM, 10 steps", start=start)


def _part(folder: str, column: str, step: int) -> float:
    """Return the mean of a column over the policy files of a folder."""
    rows = f.rows_of(f"{PARTS}/model.csv", step=str(step))
    return statistics.fmean(float(row[column]) for row in rows if f"/{folder}/" in row["policy"])


def _parts(folder: str, column: str) -> Callable[[], str]:
    def text() -> str:
        *first, last = (f"{_part(folder, column, step):.2f}" for step in LATER)
        return f"{', '.join(first)} and {last}"

    return text


def _limits_hold() -> bool:
    """Whether the filter is near its ideal, and plans are rated badly early, better later, best by read-outs."""
    near = all(_part(PLANET, "s1_model", step) < 1.4 * _part(PLANET, "s1_ekf", step) for step in LATER)
    sources = ("model", "observed", "imagined")
    ordered = all(
        [*found] == sorted(found)
        for found in ([_part(PLANET, f"correlation_{name}", step) for name in sources] for step in LATER)
    )
    early, _, late = (_part(PLANET, "correlation_model", step) for step in LATER)
    return near and ordered and early < 0.5 < late


LIMITS = Claim(
    "What is missing there: not the planner, which with the true model costs {filter} times the regulator from the "
    "estimate of a filter that knows it, and {truth} from the true state. In the learned models (means of the seeds "
    "with a policy file, after 5, 10 and 45 steps of an episode) s1 can be read out of the state linearly with errors "
    "of {s1_model}, where that filter has {s1_ekf}. The returns that they expect of different plans from one state "
    "correlate with the true ones by {model}; rated by the true reward of the states that they imagine, by {observed} "
    "with the read-out of observed states, and by {imagined} with a read-out for each imagined step, which corrects "
    "what is wrong in the same way in all plans. So the memory knows enough, and early in an episode, far from the "
    "goal, rewards and what imagined states mean are too inexact to choose by. Of what the actions of a plan do to s1 "
    "the models have {effect} at its end",
    {
        "filter": _true_planner("filter"),
        "truth": _true_planner("true state"),
        **{column: _parts(PLANET, column) for column in ("s1_model", "s1_ekf")},
        **{name: _parts(PLANET, f"correlation_{name}") for name in ("model", "observed", "imagined")},
        "effect": _parts(PLANET, "effect_s1"),
    },
    "python benchmarks/planning_parts.py planner; python benchmarks/planning_parts.py model "
    "results/drift_control_planet/seed_*/policy.pt results/drift_control_planet_wide/seed_*/policy.pt",
    (PARTS,),
    holds=_limits_hold,
)


def _wide_pairs() -> list[tuple[float, float]]:
    """Return the scores of seeds with other settings and of the same seeds without."""
    other = f.all_scores(WIDE, "greedy")
    return list(zip(other, f.all_scores(PLANET, "greedy")[: len(other)], strict=True))


WIDER = Claim(
    "The same with a wider memory and reward head (128), exploration of 0.3 and sequences of 32 steps: {wide} times "
    "the regulator's cost, on the same seeds {same} with the settings above. That is no difference, although its model "
    "has more of what actions do to s1, {effect} (of one seed, as above): plans are rated no better "
    "({model}). Settings were chosen in four runs and 18 fits outside of RLlib on seed 100; Gaussian or quadratic "
    "rewards, rewards learned over several imagined steps, likelihoods of observations, weight decay, other weights of "
    "the divergence and more gradient steps did not help in them, in one fit each or two",
    {
        "wide": lambda: f.relative(WIDE, "lqr"),
        "same": lambda: f.describe((same / f.scripted_score(PLANET, "lqr") for _, same in _wide_pairs()), 3),
        "effect": _parts(WIDE, "effect_s1"),
        "model": _parts(WIDE, "correlation_model"),
    },
    CURVES
    + "drift_control_planet.yaml --seeds 3 --out results/drift_control_planet_wide --set model_sequence_length=32 "
    "--set world_model.deterministic=128 --set world_model.reward_hiddens=[128] --set planner.exploration=0.3",
    (WIDE, PARTS),
    holds=lambda: 0 < sum(other > same for other, same in _wide_pairs()) < len(_wide_pairs()),
)


DATA = f"{PARTS}/data.csv"
FEW, MANY = {"source": "mixed", "steps": "16000"}, {"source": "mixed", "steps": "160000"}
EXCITED, BOTH = {"source": "excited", "steps": "16000"}, {"source": "both", "steps": "16000"}


def _fitted(which: Mapping[str, str]) -> float:
    """Return what planning costs with a model that was fitted once, over the regulator's cost."""
    return float(f.rows_of(DATA, **which)[0]["over_lqr"])


def _of_fit(which: Mapping[str, str], column: str) -> list[float]:
    return [f.number(DATA, column, **which, step=str(step)) for step in LATER]


def _in_words(which: Mapping[str, str], column: str) -> Callable[[], str]:
    def text() -> str:
        *first, last = (f"{value:.2f}" for value in _of_fit(which, column))
        return f"{', '.join(first)} and {last}"

    return text


def _more_data_helps_little() -> bool:
    """Whether ten times the data misses the aim, and leaves early ratings and effects where they were."""
    moved = (
        abs(_of_fit(MANY, name)[0] - _of_fit(FEW, name)[0]) for name in ("correlation_model", "effect_s1")
    )
    return AIM < _fitted(MANY) < _fitted(FEW) and max(moved) < 0.1


def _other_data_show_more() -> bool:
    """Whether excited data alone teach effects and s1 best but plan worst, and with the regulator's plan best."""
    more = all(
        excited > max(others)
        for excited, *others in zip(
            *(_of_fit(which, "effect_s1") for which in (EXCITED, FEW, MANY)), strict=True
        )
    )
    nearer = all(
        excited < min(others)
        for excited, *others in zip(
            *(_of_fit(which, "s1_model") for which in (EXCITED, FEW, MANY)), strict=True
        )
    )
    return more and nearer and AIM < _fitted(BOTH) < _fitted(MANY) and _fitted(FEW) < _fitted(EXCITED)


MORE_DATA = Claim(
    "Ten times the data for this model: fitted once, outside of a run, to random play and to lqg with noise, half each "
    "({updates} gradient steps, one fit each on seed 100), planning costs {few} times the regulator from 16,000 steps "
    "and {many} times from 160,000. After 5, 10 and 45 steps of an episode, returns that it expects of plans correlate "
    "with the true ones by {few_model} from 16,000 steps and by {many_model} from 160,000, and it has {few_effect}, "
    "and {many_effect}, of what the actions of a plan do to s1. So more data of that kind help, but not to the aim, "
    "and not where the model is at fault early in an episode: it errs there in a way that data alone do not mend",
    {
        "updates": lambda: f"{int(f.rows_of(DATA, **FEW)[0]['updates']):,}",
        "few": lambda: f"{_fitted(FEW):.2f}",
        "many": lambda: f"{_fitted(MANY):.2f}",
        "few_model": _in_words(FEW, "correlation_model"),
        "many_model": _in_words(MANY, "correlation_model"),
        "few_effect": _in_words(FEW, "effect_s1"),
        "many_effect": _in_words(MANY, "effect_s1"),
    },
    "python benchmarks/planning_parts.py data",
    (PARTS,),
    holds=_more_data_helps_little,
)
OTHER_DATA = Claim(
    "Other data for it: 16,000 steps of coloured noise, less the observed s0, so that no action tells of what is "
    "hidden, as those of a regulator with a filter do. Of what actions do to s1 the model then has {effect}, and it "
    "reads s1 out of its memory with errors of {error}: more, and better, than from ten times as many steps of the "
    "other kind (errors of {many_error} there). Planning costs {cost} times the regulator with it, since it has hardly "
    "seen the goal, near which it rates plans badly (correlations of {model}). Half of it beside half of lqg with "
    "noise costs {both} times the regulator: 16,000 steps that way are worth more than 160,000 with random play in its "
    "place. What is learned of actions depends on how they were chosen more than on how many there are; whether by "
    "their size or because they do not follow from beliefs these fits do not tell",
    {
        "effect": _in_words(EXCITED, "effect_s1"),
        "error": _in_words(EXCITED, "s1_model"),
        "many_error": _in_words(MANY, "s1_model"),
        "cost": lambda: f"{_fitted(EXCITED):.2f}",
        "both": lambda: f"{_fitted(BOTH):.2f}",
        "model": _in_words(EXCITED, "correlation_model"),
    },
    "python benchmarks/planning_parts.py data",
    (PARTS,),
    holds=_other_data_show_more,
)


REWARDS = f"{PARTS}/rewards.csv"
HEADS = ("two-hot", "squared", "gaussian", "quadratic")


def _by_estimates(dynamics: str, head: str, column: str) -> list[float]:
    return [f.number(REWARDS, column, dynamics=dynamics, head=head, step=str(step)) for step in LATER]


def _rated(dynamics: str, head: str) -> Callable[[], str]:
    def text() -> str:
        *first, last = (f"{value:.2f}" for value in _by_estimates(dynamics, head, "correlation"))
        return f"{', '.join(first)} and {last}"

    return text


def _head_costs(dynamics: str) -> list[float]:
    return [_by_estimates(dynamics, head, "over_lqr")[0] for head in HEADS]


def _from_to(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def _memory_is_missing() -> bool:
    """Whether rewards and dynamics of the filter's estimates meet the aim, and rate plans better than the model."""
    rated = zip(
        _by_estimates("learned", "two-hot", "correlation"), _of_fit(BOTH, "correlation_model"), strict=True
    )
    better = all(estimates > memory for estimates, memory in rated)
    return better and max(_head_costs("true") + _head_costs("learned")) < AIM < _fitted(BOTH)


RIGHT_MEMORY = Claim(
    "What these 16,000 steps of both kinds tell where the memory is right: reward heads and dynamics of one hidden "
    "layer, fitted to the estimates of the filter that knows the true model ({steps} steps that have one after them, "
    "{updates} gradient steps where the model took {model_updates}, one fit each on seed 100). From the filter's "
    "estimate, with the true dynamics, returns "
    "of plans correlate with the true ones by {two_hot} with a two-hot head, which is the model's own kind, and by "
    "{gaussian} with a normal distribution's; with fitted dynamics by {two_hot_learned} and {gaussian_learned}; the "
    "model that was fitted to the same steps has {model}. Planning with one of four kinds of head costs {true} times "
    "the regulator with the true dynamics, with the true rewards {filter}, and {learned} times with fitted ones. So "
    "16,000 steps tell enough of rewards and of motion for the aim of 1.30, whatever is hidden; what the model lacks "
    "is a memory that is as good to predict from as those estimates",
    {
        "steps": lambda: f"{int(f.rows_of(REWARDS)[0]['steps']):,}",
        "updates": lambda: f"{int(f.rows_of(REWARDS)[0]['updates']):,}",
        "model_updates": lambda: f"{int(f.rows_of(DATA, **BOTH)[0]['updates']):,}",
        "two_hot": _rated("true", "two-hot"),
        "gaussian": _rated("true", "gaussian"),
        "two_hot_learned": _rated("learned", "two-hot"),
        "gaussian_learned": _rated("learned", "gaussian"),
        "model": _in_words(BOTH, "correlation_model"),
        "true": lambda: _from_to(_head_costs("true")),
        "learned": lambda: _from_to(_head_costs("learned")),
        "filter": _true_planner("filter"),
    },
    "python benchmarks/planning_parts.py rewards",
    (PARTS,),
    holds=_memory_is_missing,
)
FILTER = "drift_control_kalman"
MEMORY = f"{PARTS}/memory.csv"


def _filter_pairs() -> list[tuple[float, float]]:
    """Return the scores of seeds with a Kalman filter as memory, and of the same seeds with PlaNet's."""
    found = f.all_scores(FILTER, "greedy")
    return list(zip(found, f.all_scores(PLANET, "greedy"), strict=False))


def _of_memory(column: str) -> list[float]:
    return [f.number(MEMORY, column, step=str(step)) for step in LATER]


def _memory_in_words(column: str) -> Callable[[], str]:
    def text() -> str:
        *first, last = (f"{value:.2f}" for value in _of_memory(column))
        return f"{', '.join(first)} and {last}"

    return text


CHOSEN_ON = (0, 3, 6)  # seeds that settings were chosen on


def _filter_ratios(chosen_on: bool) -> list[float]:
    """Return costs over the regulator's, of the seeds that settings were chosen on, or of all others."""
    scores, reference = f.all_scores(FILTER, "greedy"), f.scripted_score(FILTER, "lqr")
    return [score / reference for seed, score in enumerate(scores) if (seed in CHOSEN_ON) == chosen_on]


def _filter_is_better() -> bool:
    """Whether a filter as memory costs less than PlaNet's on each seed that both have."""
    return all(found > planet for found, planet in _filter_pairs())


def _verdict() -> str:
    mean = statistics.fmean([*_filter_ratios(True), *_filter_ratios(False)])
    return f"with a mean of {mean:.3f} the aim of {AIM:.2f} is {'reached' if mean <= AIM else 'missed'}"


FILTERED = Claim(
    "A learned state-space model with its Kalman filter as memory (`kalman`), with s1 and s2 hidden, {steps} "
    "environment steps (100 episodes, 90 of its own, explored with noise of 0.5); at 11,000 steps the model begins "
    "anew and learns from the whole replay: {ratio} times the regulator's cost (without exploration; score {score}), "
    "{verdict}; on the seeds that settings were not chosen on {fresh}. PlaNet, from 16,000 steps: {planet}. "
    "{seconds} s of training a seed, beside other work on the machine",
    {
        "steps": lambda: f.steps(FILTER),
        "ratio": lambda: f.relative(FILTER, "lqr"),
        "verdict": _verdict,
        "fresh": lambda: f.describe(_filter_ratios(False), 3),
        "score": lambda: f.seeds(FILTER, "greedy"),
        "planet": lambda: f.relative(PLANET, "lqr"),
        "seconds": lambda: f.training_seconds(FILTER),
    },
    CURVES + "drift_control_kalman.yaml --seeds 10",
    (FILTER, PLANET),
    holds=_filter_is_better,
)


def _one_part_is_missing() -> bool:
    """Whether s1 is nearer to the ideal filter's than in PlaNet's memory, and s2 moves the wrong way."""
    nearer = zip(_of_memory("s1_model"), _of_fit(BOTH, "s1_model"), strict=True)
    farther = zip(_of_memory("s2_model"), _of_fit(BOTH, "s2_model"), strict=True)
    worse = _of_memory("over_lqr")[0] > _fitted(BOTH) and max(_of_memory("effect_s2")) < 0
    return worse and all(one < other for one, other in nearer) and all(one > other for one, other in farther)


LEARNED_MEMORY = Claim(
    "The model with a filter (four unobserved numbers), fitted once to the same 16,000 steps of both kinds ({updates} "
    "gradient steps, one fit on seed 100). "
    "After 5, 10 and 45 steps of an episode s1 is read out of its mean with errors of {error} (PlaNet's "
    "memory {planet_error}, the filter that knows the true model {ideal}), nearly the ideal, and it has {effect} of "
    "what actions do to s1 (PlaNet's {planet_effect}). But s2, which shows in rewards and in little else, is not found "
    "in this fit: errors of {s2} (PlaNet's {planet_s2}, ideal {ideal_s2}), and actions move it the wrong way "
    "({s2_effect}). Expected returns of plans correlate with the true ones by {model} (PlaNet's {planet_model}), and "
    "planning costs {fitted} times the regulator, with PlaNet's model from the same steps {planet}. A filter is "
    "learned from so few steps for what observations depend on, and can miss what only rewards depend on",
    {
        "updates": lambda: f"{int(f.rows_of(MEMORY)[0]['updates']):,}",
        "fitted": lambda: f"{_of_memory('over_lqr')[0]:.2f}",
        "planet": lambda: f"{_fitted(BOTH):.2f}",
        "error": _memory_in_words("s1_model"),
        "planet_error": _in_words(BOTH, "s1_model"),
        "ideal": _memory_in_words("s1_ekf"),
        "effect": _memory_in_words("effect_s1"),
        "planet_effect": _in_words(BOTH, "effect_s1"),
        "s2": _memory_in_words("s2_model"),
        "planet_s2": _in_words(BOTH, "s2_model"),
        "ideal_s2": _memory_in_words("s2_ekf"),
        "s2_effect": _memory_in_words("effect_s2"),
        "model": _memory_in_words("correlation_model"),
        "planet_model": _in_words(BOTH, "correlation_model"),
    },
    "python benchmarks/planning_parts.py memory",
    (PARTS,),
    holds=_one_part_is_missing,
)

CLAIMS = (HIDDEN, FILTERED, LIMITS, WIDER, MORE_DATA, OTHER_DATA, RIGHT_MEMORY, LEARNED_MEMORY)
