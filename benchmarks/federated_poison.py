"""How much poison a federation bears: every rule of aggregation against every attack, and six forests with one liar.

    python benchmarks/federated_poison.py poles --seeds 3
    python benchmarks/federated_poison.py forests --seeds 2
    python benchmarks/federated_poison.py --table      # of what is there, no training

poles: 10 clients with equal poles (``cart_pole_v0`` with episodes of at most 200 steps), PPO of one iteration a round,
of which a share is malicious. A score is the sampled return of the common policy, the mean of 20 fixed evaluation
episodes, between random play (0) and the greatest return (1).

forests: family ``six_forests`` and PPO as in federated_forests.py, 4 iterations a round; the client of the forest at
index `LIAR` is malicious. A score is the team's return over the number of free cells, the mean of the five honest
forests.

Rules are told the true share of malicious clients, also where nobody attacks: "trimmed_mean" leaves out so many at
either end, "multi_krum" and "distance_filter" expect so many. All shares are whole numbers of clients here. A client
that lies about its steps meets weights by environment steps. What the settings refuse has a row with the reason and no
score.

Raw: results/federated/poison.csv and poison_forests.csv, one row a seed and cell; the first is drawn in poison.png.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from federated_forests import ITERATIONS, config_of, score
from tables import append, read

import qio_envs
from qio_envs.api import ConfigError
from qio_envs.api.scores import normalized_score, reference_scores
from qio_rllib.algorithms import Federated, FederatedConfig
from qio_rllib.artifacts.plot_style import LABEL_SIZE, new_figure
from qio_rllib.artifacts.run_description import run_description
from qio_rllib.federated.settings import LYING_COUNT, RULES
from qio_rllib.sampling.evaluation import FIRST_EVALUATION_SEED, evaluate, evaluation_seeds, mean_scores

POLES, FORESTS = "poles", "forests"
FILES = {POLES: "poison.csv", FORESTS: "poison_forests.csv"}
CLEAN = "none"
ATTACKS: tuple[str, ...] = (
    CLEAN,
    "sign_flip",
    "noise",
    "normalized",
    LYING_COUNT,
    "random_actions",
    "flipped_rewards",
)
SHARES = (0.1, 0.2, 0.3, 0.4)
TOLD = {"trimmed_mean": "trim", "multi_krum": "byzantine", "distance_filter": "byzantine"}
"""The setting by which a rule is told the share of malicious clients."""

ENV = "cart_pole_v0"
ENV_CONFIG: dict[str, Any] = {"max_steps": 200}
CLIENTS, ROUNDS, EPISODES = 10, 15, 20
LOCAL = {
    "run": "PPO",
    "num_envs_per_env_runner": 32,
    "train_batch_size_per_learner": 512,
    "num_epochs": 4,
    "minibatch_size": 256,
    "lr": 0.01,
    "gamma": 0.98,
    "lambda_": 0.9,
    "vf_clip_param": 1e4,
    "use_kl_loss": False,
    "model_config": {"fcnet_hiddens": [16, 16], "fcnet_activation": "tanh"},
}
LOCAL_ITERATIONS, LIAR = 4, 2
FOREST_ATTACKS: tuple[str, ...] = (CLEAN, "sign_flip", "normalized")

Cell = tuple[str, str, float]
"""A rule, an attack, and the share of malicious clients."""


def cells_of(what: str, shares: Sequence[float]) -> list[Cell]:
    """Return the cells of a study, those without an attack first.

    Args:
        what: Which study.
        shares: Of malicious clients, of the poles; in the forests it is one of six.
    """
    attacks = ATTACKS
    if what == FORESTS:
        attacks, shares = FOREST_ATTACKS, (1 / len(qio_envs.family("six_forests")),)
    return [(rule, attack, share) for attack in attacks for share in shares for rule in RULES]


def settings_of(cell: Cell, malicious: Sequence[int]) -> dict[str, Any]:
    """Return what a cell sets of a federation.

    Args:
        cell: Of a study.
        malicious: Indices of the clients that attack, if there is an attack.
    """
    rule, attack, share = cell
    aggregation = {"rule": rule, **({TOLD[rule]: share} if rule in TOLD else {})}
    if attack == CLEAN:
        return {"aggregation": aggregation}
    if attack == LYING_COUNT:
        aggregation["weights"] = "env_steps"
    return {"aggregation": aggregation, "attack": {"type": attack, "clients": list(malicious)}}


def pole(seed: int, cell: Cell) -> float:
    """Return the score of ten equal poles of a cell.

    Raises:
        ConfigError: The settings refuse the cell.
    """
    return equal_poles(seed, CLIENTS, settings_of(cell, range(round(cell[2] * CLIENTS))))


def equal_poles(seed: int, count: int, settings: dict[str, Any]) -> float:
    """Return the score of the common policy of equal poles.

    Args:
        seed: Of the run.
        count: Of clients.
        settings: Of the federation.

    Raises:
        ConfigError: The settings are refused.
    """
    config = FederatedConfig().environment(ENV, env_config=ENV_CONFIG).debugging(seed=seed)
    config.training(local=LOCAL, clients=[{"count": count, "label": "client"}], **settings)
    algorithm = played(config, ROUNDS)
    policy = algorithm.client_policy(algorithm.clients[-1])
    algorithm.stop()
    rows = evaluate(policy, ENV, ENV_CONFIG, evaluation_seeds(EPISODES), explore=True)
    env = qio_envs.environment(ENV).batched_env(EPISODES, **ENV_CONFIG)
    random = reference_scores(env, FIRST_EVALUATION_SEED)["random"]
    return normalized_score(mean_scores(rows)["episode_return"], random, ENV_CONFIG["max_steps"])


def forest(seed: int, cell: Cell) -> float:
    """Return the mean score of the honest clients of six forests, attacked or not."""
    settings = settings_of(cell, (LIAR,))
    algorithm = played(
        config_of(seed, local_iterations=LOCAL_ITERATIONS, **settings), ITERATIONS // LOCAL_ITERATIONS
    )
    honest = [client for client in algorithm.clients if client.index != LIAR]
    scores = [score(algorithm.client_policy(client), client) for client in honest]
    algorithm.stop()
    return float(np.mean(scores))


def played(config: FederatedConfig, rounds: int) -> Federated:
    """Return an Algorithm after so many rounds."""
    algorithm = config.build_algo()
    for _ in range(rounds):
        algorithm.training_step()
    return algorithm


def run(what: str, seed: int, cell: Cell) -> dict[str, Any]:
    """Return the row of a cell: its score, or why it has none."""
    started = time.process_time()
    found, reason = "", ""
    try:
        found = f"{(pole if what == POLES else forest)(seed, cell):.4f}"
    except ConfigError as error:
        reason = str(error)
    rule, attack, share = cell
    return {
        "seed": seed,
        "rule": rule,
        "attack": attack,
        "share": f"{share:.3f}",
        "score": found,
        "cpu_seconds": round(time.process_time() - started, 1),
        "refused": reason,
    }


def train(what: str, cells: Sequence[Cell], seeds: range, out: Path) -> None:
    """Add the rows that are not there."""
    for seed in seeds:
        for rule, attack, share in cells:
            there = [
                row
                for row in read(out)
                if (row["seed"], row["rule"], row["attack"]) == (str(seed), rule, attack)
            ]
            if any(row["share"] == f"{share:.3f}" for row in there):
                continue
            if there and attack == CLEAN and rule not in TOLD:  # the same run whatever the share
                row: dict[str, Any] = {**there[0], "share": f"{share:.3f}"}
            else:
                row = run(what, seed, (rule, attack, share))
            append(out, [row])
            print(row, flush=True)


def scores_of(rows: Sequence[dict[str, str]], cell: Cell) -> list[float] | None:
    """Return one score a seed of a cell, of those that are there; None where the settings refuse it."""
    key = (*cell[:2], f"{cell[2]:.3f}")
    found = [row for row in rows if (row["rule"], row["attack"], row["share"]) == key]
    if any(row["refused"] for row in found):
        return None
    return [float(row["score"]) for row in found]


def shares_of(rows: Sequence[dict[str, str]]) -> list[float]:
    """Return the shares of malicious clients that a study has."""
    return sorted({float(row["share"]) for row in rows})


def table(rows: Sequence[dict[str, str]]) -> str:
    """Return a table of means over seeds for each share, with the least and the greatest, and what is refused."""
    lines: list[str] = []
    reasons: dict[str, int] = {}
    for share in shares_of(rows):
        attacks = [attack for attack in ATTACKS if any(row["attack"] == attack for row in rows)]
        lines += [
            "",
            f"| share {share:.3g} | " + " | ".join(attacks) + " |",
            "| --- " * (len(attacks) + 1) + "|",
        ]
        for rule in RULES:
            texts = []
            for attack in attacks:
                scores = scores_of(rows, (rule, attack, share))
                if scores is None:
                    key = (rule, attack, f"{share:.3f}")
                    mine = [row for row in rows if (row["rule"], row["attack"], row["share"]) == key]
                    texts.append(f"({reasons.setdefault(mine[0]['refused'], len(reasons) + 1)})")
                elif not scores:
                    texts.append("not run")
                else:
                    spread = f" ({min(scores):.2f} to {max(scores):.2f})" if len(scores) > 1 else ""
                    texts.append(f"{np.mean(scores):.2f}{spread}")
            lines.append(f"| {rule} | " + " | ".join(texts) + " |")
    return "\n".join([*lines, "", *(f"({number}) {reason}" for reason, number in reasons.items())])


def draw(rows: Sequence[dict[str, str]], path: Path) -> None:
    """Draw the mean scores of rules by attacks, a panel a share."""
    shares = shares_of(rows)
    title = "Mean scores on cart_pole_v0 by aggregation rule (rows) and attack (columns)"
    figure, panels = new_figure(len(shares), 1, (8.0, 0.9 + 2.9 * len(shares)), title)
    for axes, share in zip(panels, shares, strict=True):
        found = [[scores_of(rows, (rule, attack, share)) for attack in ATTACKS] for rule in RULES]
        means = np.array([[np.mean(scores) if scores else np.nan for scores in line] for line in found])
        image = axes.imshow(means, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        for (y, x), value in np.ndenumerate(means):
            text = f"{value:.2f}"
            if np.isnan(value):
                text = "refused" if found[y][x] is None else "not run"
            colour = "white" if value < 0.6 else "black"
            axes.text(x, y, text, ha="center", va="center", color=colour)
        axes.set_xticks(range(len(ATTACKS)), [attack.replace("_", "\n") for attack in ATTACKS])
        axes.set_yticks(range(len(RULES)), [rule.replace("_", " ") for rule in RULES])
        axes.grid(visible=False)
        axes.set_title(
            f"{round(share * CLIENTS)} of {CLIENTS} clients malicious", loc="left", fontsize=LABEL_SIZE
        )
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=panels, label="score: random play 0, greatest return 1", shrink=0.6)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", metavar="STUDY", help=f"{POLES} or {FORESTS} (both)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (3)")
    parser.add_argument("--first-seed", type=int, default=0, help="(0)")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of malicious poles")
    parser.add_argument("--out", type=Path, default=Path("results/federated"), help="folder")
    parser.add_argument("--table", action="store_true", help="of what is there, no training")
    arguments = parser.parse_args()
    for what in arguments.what:
        if what not in FILES:
            parser.error(f"STUDY: expected one of {', '.join(FILES)}, got {what!r}")
    for what in arguments.what or FILES:
        out = arguments.out / FILES[what]
        if not arguments.table:
            info = run_description(["python", "benchmarks/federated_poison.py", what])
            out.parent.mkdir(parents=True, exist_ok=True)
            out.with_suffix(".json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
            seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
            train(what, cells_of(what, arguments.shares), seeds, out)
        rows = read(out)
        print(f"\n{what}: mean over seeds (least to greatest)\n{table(rows)}")
        if what == POLES:
            draw(rows, out.with_suffix(".png"))


if __name__ == "__main__":
    main()
