"""Federations of the cart-pole task: speed-up by more clients, what privacy costs, and what a round costs.

    python benchmarks/federated_cart_pole.py speedup
    python benchmarks/federated_cart_pole.py speedup_momentum
    python benchmarks/federated_cart_pole.py privacy
    python benchmarks/federated_cart_pole.py privacy_skellam
    python benchmarks/federated_cart_pole.py overhead --flower-python PYTHON    # see federated_flower.py
    python benchmarks/federated_cart_pole.py speedup --table                    # of what is there, no training

All clients train A2C with two hidden layers of 16 units: 755 weights with the value network. Returns are those of the
common policy in fixed evaluation episodes with the default pole, at most 500.

speedup: 1 to 16 equal clients, all of them in every round, one gradient step each. How many environment steps *each
client* takes until the sampled return in 20 episodes is at least 400, measured every second round; theory has it that
the steps fall as one over the number of clients (Fan et al., 2021; Zhang et al., 2024: FedSARSA), each number with a
step size of its own. So the learning rate of each number of clients is the best of at least three on other seeds, where
greater ones are tried as long as the greatest is the best. A learning rate of the server would be a second name for the
clients': with one gradient step a round they multiply each other.

speedup_momentum: the same with momentum 0.9 at the server, whose steps are ten times as long in the end.

privacy: 1,000 equal clients, each in a round with probability 0.1, four gradient steps each. Gaussian noise on the sum,
seeded, so that epsilon is that of a simulation; beside it the same federation without privacy. The clip is the better
of two on another seed.

privacy_skellam: after it, the same federation with integer noise under secure sums, which binds the server too and is
not amplified by sampling; so much that epsilon is that of a row of Gaussian noise.

overhead: 1,000 equal clients, 100 a round. CPU milliseconds a client and round of the whole trainer in one process, of
as many training steps of one Algorithm, and of Flower's simulation with clients that do nothing; and the memory of the
process that trains, without what it shares with others, after each round.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from federated_overhead import OVERHEAD, overhead, overhead_table
from federated_privacy import PRIVACY, SKELLAM, print_privacy, privacy, privacy_table, skellam
from federated_speedup import SERVERS, speedup, speedup_table

from qio_rllib.artifacts.run_description import run_description

OUT = Path("results/federated")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=[*SERVERS, PRIVACY, SKELLAM, OVERHEAD])
    parser.add_argument("--seeds", type=int, help="number of seeds, from 0 (speedup 10, privacy 3)")
    parser.add_argument("--rounds", type=int, help="of a run (privacy 12, overhead 50)")
    parser.add_argument("--flower-python", help="of overhead: Python of an environment that holds flwr")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write")
    parser.add_argument("--table", action="store_true", help="of what is there, no training")
    given = parser.parse_args(arguments)
    out = given.out / f"{given.study}.csv"
    command = ["python", "benchmarks/federated_cart_pole.py", given.study]
    if given.study == OVERHEAD and not given.table and given.flower_python is None:
        parser.error("overhead: --flower-python is missing")
    if not given.table:
        info = run_description(command)
        if given.study in SERVERS:
            speedup(given.study, range(given.seeds or 10), out)
        elif given.study == PRIVACY:
            privacy(range(given.seeds or 3), out, given.rounds or 12)
        elif given.study == SKELLAM:
            skellam(range(given.seeds or 3), out, given.rounds or 12)
        else:
            overhead(out, given.rounds or 50, given.flower_python)
        out.with_suffix(".json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    tables = {PRIVACY: privacy_table, SKELLAM: print_privacy, OVERHEAD: overhead_table}
    tables.get(given.study, speedup_table)(out)


if __name__ == "__main__":
    main()
