"""Federated learning: what clients gain, what poison and privacy cost, and secure aggregation beside Flower's."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan, nan
from statistics import mean, median

from claims import figures as f
from claims.claim import Claim, Section

FLOWER, ROUNDS = "federated/flower.csv", "federated/secure_aggregation.csv"
FORESTS, REFERENCES = "federated/forests.csv", "federated/forest_references.csv"
SPEEDUP, SPEEDUPS = "federated/speedup.csv", "federated/speedup_summary.csv"
MOMENTUM, MOMENTUMS = "federated/speedup_momentum.csv", "federated/speedup_momentum_summary.csv"
COUNTS = ("1", "2", "4", "8", "16")
PRIVACY, OVERHEAD = "federated/privacy.csv", "federated/overhead.csv"
NOISE = {"half": "0.5", "one": "1.0", "two": "2.0", "four": "4.0", "sixteen": "16.0"}
POISON, POISON_FORESTS = "federated/poison.csv", "federated/poison_forests.csv"
POISON_GROUPS, SKELLAM = "federated/poison_groups.csv", "federated/privacy_skellam.csv"
SHARES = ("0.100", "0.200", "0.300", "0.400")
ROBUST = ("median", "trimmed_mean", "geometric_median", "multi_krum", "distance_filter")
OURS, THEIRS = "this package", "Flower"


def _seconds(who: str, clients: str, what: str = "secure_sum", column: str = "cpu_seconds") -> float:
    rows = f.rows_of(FLOWER, what=what, who=who, clients=clients)
    return median(float(row[column]) for row in rows)


def _text(who: str, clients: str, decimals: int, **where: str) -> Callable[[], str]:
    return lambda: f"{_seconds(who, clients, **where):.{decimals}f}"


def _times(clients: str) -> Callable[[], str]:
    return lambda: f"{_seconds(THEIRS, clients) / _seconds(OURS, clients):.0f}"


def _forests(arm: str, column: str = "own", worst: bool = False) -> list[float]:
    """Return a number a seed: the mean over the six forests, or the worst."""
    by_seed: dict[str, list[float]] = {}
    for row in f.rows_of(FORESTS, arm=arm):
        by_seed.setdefault(row["seed"], []).append(float(row[column]))
    return [min(scores) if worst else sum(scores) / len(scores) for scores in by_seed.values()]


def _arm(arm: str, column: str = "own", worst: bool = False) -> Callable[[], str]:
    def text() -> str:
        scores = _forests(arm, column, worst)
        return f"{sum(scores) / len(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})"

    return text


def _reference(policy: str) -> float:
    """Return the mean over the six forests of a scripted policy."""
    rows = f.rows_of(REFERENCES, policy=policy)
    return sum(float(row["score"]) for row in rows) / len(rows)


def _by_forest(arm: str) -> dict[str, float]:
    """Return the mean over seeds of each forest's own score."""
    scores: dict[str, list[float]] = {}
    for row in f.rows_of(FORESTS, arm=arm):
        scores.setdefault(row["forest"], []).append(float(row["own"]))
    return {forest: sum(found) / len(found) for forest, found in scores.items()}


def _pairs_won(arm: str) -> Callable[[], str]:
    """Return in how many pairs of seed and forest an arm scores at least what the forest's own learner does."""

    def text() -> str:
        alone = {(row["seed"], row["forest"]): float(row["own"]) for row in f.rows_of(FORESTS, arm="alone")}
        rows = f.rows_of(FORESTS, arm=arm)
        won = sum(float(row["own"]) >= alone[row["seed"], row["forest"]] for row in rows)
        return f"{won} of {len(rows)}"

    return text


def _forests_hold() -> bool:
    means = {arm: sum(_forests(arm)) / 5 for arm in ("pooled", "alone", "averaging after 4", "SCAFFOLD")}
    alone, personal = _by_forest("alone"), _by_forest("personal heads")
    return (
        means["averaging after 4"] >= means["alone"] + 0.03
        and means["SCAFFOLD"] >= (means["pooled"] + means["alone"]) / 2
        and all(personal[forest] >= alone[forest] for forest in alone)
    )


def _speedup(clients: str) -> Callable[[], str]:
    columns = ("speedup", "speedup_low", "speedup_high")
    return lambda: "{} ({} to {})".format(
        *(f.cell(SPEEDUPS, column, 1, clients=clients) for column in columns)
    )


def _steps(file: str, clients: str) -> Callable[[], str]:
    return lambda: f.rows_of(file, clients=clients)[0]["text"]


def _private(noise: str, column: str, decimals: int = 0) -> Callable[[], str]:
    """Return a column over the reported seeds; seed 100 chose the clip."""

    def text() -> str:
        rows = f.rows_of(PRIVACY, noise_multiplier=noise)
        return f.describe((float(row[column]) for row in rows if row["seed"] != "100"), decimals)

    return text


def _epsilon(noise: str) -> Callable[[], str]:
    return lambda: f"{float(f.rows_of(PRIVACY, noise_multiplier=noise)[-1]['epsilon_simulated']):.2g}"


def _cpu_ms(who: str, first: int = 0) -> float:
    return median(float(row["cpu_ms"]) for row in f.rows_of(OVERHEAD, who=who)[first:])


def _trainer_ms() -> float:
    """Return CPU milliseconds of a client and round, without the first round, which compiles."""
    return _cpu_ms("in the driver", 1)


def _mib(who: str, at: str, column: str = "trainer_mib") -> Callable[[], str]:
    return lambda: f.cell(OVERHEAD, column, 0, who=who, round=at)


def _poisoned(rule: str, attack: str, share: str) -> float:
    """Return the mean over seeds of ten poles; not a number where the settings refuse the cell."""
    rows = f.rows_of(POISON, rule=rule, attack=attack, share=share)
    return mean(float(row["score"] or "nan") for row in rows)


def _least(rule: str, share: str) -> float:
    """Return the least of the means over all attacks that the settings allow."""
    attacks = {row["attack"] for row in f.rows_of(POISON, rule=rule, share=share)} - {"none"}
    found = [_poisoned(rule, attack, share) for attack in attacks]
    return min((score for score in found if not isnan(score)), default=nan)


def _by_share(number: Callable[[str], float]) -> str:
    """Return a number for 1 to 4 malicious clients of ten, "0.84, 0.16, -0.03, refused"."""
    found = [number(share) for share in SHARES]
    return ", ".join("refused" if isnan(value) else f"{value:.2f}" for value in found)


def _flipped_by_share(rule: str) -> Callable[[], str]:
    return lambda: _by_share(lambda share: _poisoned(rule, "sign_flip", share))


def _least_by_share(rule: str) -> Callable[[], str]:
    return lambda: _by_share(lambda share: _least(rule, share))


def _in_groups(rule: str, size: str, attack: str = "sign_flip") -> float:
    return mean(
        float(row["score"]) for row in f.rows_of(POISON_GROUPS, rule=rule, attack=attack, group_size=size)
    )


def _both_ways(rule: str) -> Callable[[], str]:
    return lambda: ", ".join(f"{_in_groups(rule, size):.2f}" for size in ("1", "3"))


def _poisoned_forest(rule: str, attack: str) -> float:
    return mean(float(row["score"]) for row in f.rows_of(POISON_FORESTS, rule=rule, attack=attack))


def _poisoned_forests(rule: str) -> Callable[[], str]:
    return lambda: ", ".join(
        f"{_poisoned_forest(rule, attack):.2f}" for attack in ("none", "sign_flip", "normalized")
    )


def _forests_bear_one() -> bool:
    """Return whether the best robust rule keeps nine tenths of the clean score under either attack."""
    clean = _poisoned_forest("mean", "none")
    return all(
        _poisoned_forest("distance_filter", attack) >= 0.9 * clean for attack in ("sign_flip", "normalized")
    )


def _sign_flips_are_borne() -> bool:
    """Return whether two flipped signs or more halve the mean, and the median and the trimmed mean keep nine tenths."""
    clean = _poisoned("mean", "none", "0.200")
    return all(_poisoned("mean", "sign_flip", share) < 0.5 * clean for share in SHARES[1:]) and all(
        _poisoned(rule, "sign_flip", share) >= 0.9 * clean
        for rule in ("median", "trimmed_mean")
        for share in SHARES
    )


FEDERATED = Section(
    "Federated learning",
    "CPU seconds on one core; beside Flower, medians of three runs in turns.",
    (
        Claim(
            "Six different forests, PPO, 40 iterations a forest, team return over free cells, sampled, 5 seeds (least "
            "to greatest; random play {random}, the best scripted controller {scripted}): one policy by averaging "
            "after each iteration {after_1}, after four, a quarter of the traffic, "
            "{after_4}, with SCAFFOLD {scaffold}, FedProx {fedprox}, FedKL {fedkl}, a server with Adam {adam} (one "
            "coefficient each; FedProx's was chosen on another seed after 0.1 had failed on four of these, at about "
            "0.7); pooled experience {pooled}; a learner for each forest "
            "{alone} in its own and {alone_all} over all six",
            {
                "random": lambda: f"{_reference('random'):.3f}",
                "scripted": lambda: f"{_reference('best scripted'):.3f}",
                "after_1": _arm("averaging after 1"),
                "after_4": _arm("averaging after 4"),
                "scaffold": _arm("SCAFFOLD"),
                "fedprox": _arm("FedProx"),
                "fedkl": _arm("FedKL"),
                "adam": _arm("server Adam"),
                "pooled": _arm("pooled"),
                "alone": _arm("alone"),
                "alone_all": _arm("alone", "all_six"),
            },
            "python benchmarks/federated_forests.py --seeds 5",
            (FORESTS, REFERENCES),
            holds=_forests_hold,
        ),
        Claim(
            "The worst of the six forests: averaging after four {after_4}, with a policy head and a value network of "
            "its own {heads}, with a value network of its own {values}, pooled {pooled}, alone {alone}. With heads of "
            "their own all six score more than alone in the mean over seeds, and in {won} pairs of seed and forest",
            {
                "after_4": _arm("averaging after 4", worst=True),
                "heads": _arm("personal heads", worst=True),
                "values": _arm("personal values", worst=True),
                "pooled": _arm("pooled", worst=True),
                "alone": _arm("alone", worst=True),
                "won": _pairs_won("personal heads"),
            },
            "python benchmarks/federated_forests.py --seeds 5",
            (FORESTS,),
            holds=_forests_hold,
        ),
        Claim(
            "Secure aggregation here and Flower 1.42's SecAgg+, all parties in one process, from float vectors of "
            "100,000 numbers to their mean: 32 clients of which 6 are lost before the upload {here_32} against "
            "{there_32} CPU seconds, {times_32} times; 64 and 13 {here_64} against {there_64}, {times_64} times",
            {
                "here_32": _text(OURS, "32", 2),
                "there_32": _text(THEIRS, "32", 1),
                "times_32": _times("32"),
                "here_64": _text(OURS, "64", 2),
                "there_64": _text(THEIRS, "64", 1),
                "times_64": _times("64"),
            },
            "python benchmarks/federated_flower.py --flower-python PYTHON --what secure_sum",
            (FLOWER,),
        ),
        Claim(
            "Flower's simulation of 1,000 nodes of which 100 a round send back 28,000 numbers: {cpu} CPU seconds "
            "a round of all its processes ({wall} on the clock)",
            {
                "cpu": _text(THEIRS, "100", 2, what="simulation"),
                "wall": _text(THEIRS, "100", 1, what="simulation", column="wall_seconds"),
            },
            "python benchmarks/federated_flower.py --flower-python PYTHON --what simulation",
            (FLOWER,),
        ),
        Claim(
            "Secure aggregation among 1,000 clients with 100 neighbours each, 10,000 numbers, 120 lost in four "
            "steps: {seconds} CPU seconds of all parties together, an exact sum of {left} vectors",
            {
                "seconds": lambda: f.cell(ROUNDS, "cpu_seconds", 0, clients="1000"),
                "left": lambda: f.cell(ROUNDS, "contributors", 0, clients="1000"),
            },
            "python benchmarks/secure_aggregation.py",
            (ROUNDS,),
            holds=lambda: all(row["exact"] == "True" for row in f.rows_of(ROUNDS)),
        ),
        Claim(
            "Equal clients on the cart-pole task, A2C, the best learning rate on two other seeds for each number of "
            "clients ({rates}): environment steps of each client until the sampled return is 400: 1 client {steps}; "
            "how many times fewer, as a ratio of interquartile means with its 95% bootstrap interval: 2 clients "
            "{times_2}, 4 clients {times_4}, 8 clients {times_8}, 16 clients {times_16}: not linear",
            {
                "rates": lambda: ", ".join(f.rows_of(SPEEDUPS, clients=count)[0]["lr"] for count in COUNTS),
                "steps": _steps(SPEEDUPS, "1"),
                **{f"times_{count}": _speedup(count) for count in COUNTS[1:]},
            },
            "python benchmarks/federated_cart_pole.py speedup",
            (SPEEDUP, SPEEDUPS),
            holds=lambda: all(
                f.number(SPEEDUPS, "speedup_high", clients=count) < float(count) for count in ("8", "16")
            ),
        ),
        Claim(
            "The same with momentum 0.9 at the server and rates of its own, where a run that does not get there counts "
            "as 25,600: 1 client {steps_1}, 4 clients {steps_4}, 16 clients {steps_16}",
            {f"steps_{count}": _steps(MOMENTUMS, count) for count in ("1", "4", "16")},
            "python benchmarks/federated_cart_pole.py speedup_momentum --seeds 3",
            (MOMENTUM, MOMENTUMS),
        ),
        Claim(
            "1,000 equal clients on the cart-pole task, each in a round with probability 0.1, {rounds} rounds, sampled "
            "return in 100 episodes: without privacy {plain}; Gaussian noise on the sum, simulated, delta 1e-5: "
            "epsilon {epsilon_half}: {half}; {epsilon_one}: {one}; {epsilon_two}: {two}; {epsilon_four}: {four}; "
            "{epsilon_sixteen}: {sixteen}",
            {
                "rounds": lambda: f.rows_of(PRIVACY, noise_multiplier="0.0")[0]["rounds"],
                "plain": _private("0.0", "sampled_return"),
                **{name: _private(noise, "sampled_return") for name, noise in NOISE.items()},
                **{f"epsilon_{name}": _epsilon(noise) for name, noise in NOISE.items()},
            },
            "python benchmarks/federated_cart_pole.py privacy",
            (PRIVACY,),
        ),
        Claim(
            "The same with integer noise that clients add under secure sums, which binds the server too and is not "
            "amplified by sampling: noise multiplier {noise} for epsilon {epsilon}: {returns}",
            {
                "noise": lambda: f"{float(f.rows_of(SKELLAM)[0]['noise_multiplier']):.2f}",
                "epsilon": lambda: f"{float(f.rows_of(SKELLAM)[0]['epsilon_simulated']):.2g}",
                "returns": lambda: f.describe(
                    (float(row["sampled_return"]) for row in f.rows_of(SKELLAM)), 0
                ),
            },
            "python benchmarks/federated_cart_pole.py privacy_skellam",
            (SKELLAM, PRIVACY),
        ),
        Claim(
            "A round of 100 of 1,000 clients on the cart-pole task, 16 environment steps and one gradient step each, "
            "in one process: {whole} CPU milliseconds a client, {alone} of them for the training itself, {rest} for "
            "the federation; Flower's simulation of clients that do nothing with as many numbers: {flower}",
            {
                "whole": lambda: f"{_trainer_ms():.1f}",
                "alone": lambda: f"{_cpu_ms('training alone'):.1f}",
                "rest": lambda: f"{_trainer_ms() - _cpu_ms('training alone'):.1f}",
                "flower": lambda: f"{_cpu_ms(THEIRS):.1f}",
            },
            "python benchmarks/federated_cart_pole.py overhead --rounds 200 --flower-python PYTHON",
            (OVERHEAD,),
            holds=lambda: _trainer_ms() - _cpu_ms("training alone") < 10,
        ),
        Claim(
            "A host in another process holds {host_20} MiB of its own after 20 rounds and {host_200} after 200; the "
            "records that clients keep, in the driver, {records_20} and {records_200} MiB",
            {
                "host_20": _mib("on a host", "20"),
                "host_200": _mib("on a host", "200"),
                "records_20": _mib("on a host", "20", "records_mib"),
                "records_200": _mib("on a host", "200", "records_mib"),
            },
            "python benchmarks/federated_cart_pole.py overhead --rounds 200 --flower-python PYTHON",
            (OVERHEAD,),
        ),
        Claim(
            "Ten equal poles that learn one policy, where 1, 2, 3 or 4 send three times their update with its sign "
            "flipped; random play 0, the greatest return 1, mean of 3 seeds: mean {mean}, median {median}, trimmed "
            "mean {trimmed_mean}, geometric median {geometric_median}, multi-Krum {multi_krum}, distance filter "
            "{distance_filter}; the mean without an attack {clean}",
            {
                **{rule: _flipped_by_share(rule) for rule in ("mean", *ROBUST)},
                "clean": lambda: f.grouped(POISON, "score", 2, rule="mean", attack="none", share="0.200"),
            },
            "python benchmarks/federated_poison.py poles",
            (POISON,),
            holds=_sign_flips_are_borne,
        ),
        Claim(
            "The same, the least over all six attacks: mean {mean}, median {median}, trimmed mean {trimmed_mean}, "
            "geometric median {geometric_median}, multi-Krum {multi_krum}, distance filter {distance_filter}",
            {rule: _least_by_share(rule) for rule in ("mean", *ROBUST)},
            "python benchmarks/federated_poison.py poles",
            (POISON,),
            holds=lambda: all(_least("distance_filter", share) >= 0.8 for share in SHARES),
        ),
        Claim(
            "27 equal poles of which 3 send ten times their update with its sign flipped, mean of 3 seeds, where the "
            "server sees single updates and where it sees secure sums of groups of three: mean {mean}, median "
            "{median}, trimmed mean {trimmed_mean}, geometric median {geometric_median}, multi-Krum {multi_krum}, "
            "distance filter {distance_filter}; the mean without an attack {clean}",
            {
                **{rule: _both_ways(rule) for rule in ("mean", *ROBUST)},
                "clean": lambda: f"{_in_groups('mean', '1', 'none'):.2f}",
            },
            "python benchmarks/federated_groups.py --seeds 3",
            (POISON_GROUPS,),
            holds=lambda: _in_groups("mean", "3") < 0.2 and _in_groups("median", "3") >= 0.8,
        ),
        Claim(
            "Six different forests of which one sends three times its update with its sign flipped, or as far against "
            "the honest mean as updates are long; score over free cells of the five honest ones, 3 seeds, clean, "
            "flipped, against: mean {mean}, median {median}, trimmed mean {trimmed}, geometric median {geometric}, "
            "multi-Krum {krum}, distance filter {filter}",
            {
                name: _poisoned_forests(rule)
                for name, rule in {
                    "mean": "mean",
                    "median": "median",
                    "trimmed": "trimmed_mean",
                    "geometric": "geometric_median",
                    "krum": "multi_krum",
                    "filter": "distance_filter",
                }.items()
            },
            "python benchmarks/federated_poison.py forests --seeds 3",
            (POISON_FORESTS,),
            holds=_forests_bear_one,
        ),
    ),
)
