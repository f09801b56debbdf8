"""Are bad experiments refused? A campaign against what ``rllib train --dry-run`` does, with counts as its result.

Two kinds of cases, all drawn from a fixed seed: *experiments*, files of ``tune_configs/`` of which values are replaced
by hostile ones, keys misspelt, added or left out, and text damaged; and *settings*, each a hostile value for one
setting of one algorithm. Every case runs in a process of its own. It must end within the limit, either accepted or in
a `ConfigError` of one line; anything else (a traceback of another kind, several lines, a hang) is a failure and is
listed. Of the accepted experiments a sample is built as an Algorithm.

    python benchmarks/campaign_settings.py       # some minutes on two CPUs
    python benchmarks/campaign_settings.py --experiments 50 --settings 50 --builds 0
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import math
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from qio_envs.api import ConfigError
from qio_rllib.algorithms import ALGORITHMS, algorithm_config_class
from qio_rllib.artifacts.files import write_csv
from qio_rllib.experiments.experiment import load_experiment

CONFIGS = Path(__file__).resolve().parents[1] / "tune_configs"
LIMIT = 2.0
"""Seconds of CPU time that a case may take."""
PATIENCE = 25.0
"""Seconds after which a case that has not ended is stopped."""
MEMORY = 12 * 2**30
"""Bytes of address space that a case may take."""
BASES = {
    "PPO": "forest_uav_sprint_ppo",
    "A2C": "cartpole_a2c",
    "DQN": "cartpole_dqn",
    "MADDPG": "swarm_maddpg",
    "QMIX": "mpe_spread_qmix",
    "COMA": "forest_uav_coma",
    "MAAC": "swarm_maac",
    "MASAC": "pendulum_masac",
    "WorldModel": "drift_control_pets",
    "VDN": "mpe_spread_qmix",
    "Federated": "federated_forests",
}
"""Experiment of each algorithm whose settings are replaced."""


class Raw(str):
    """Text that stands in a YAML file as it is."""


def aliases(depth: int) -> Raw:
    """Return a YAML text of a few hundred bytes that stands for ``9 ** depth`` items."""
    lists = ", ".join(f"&a{k + 1} [{', '.join([f'*a{k}'] * 9)}]" for k in range(depth))
    return Raw(f"[&a0 x, {lists}]")


HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1e-320, -1e30, 1e30, 1e308, math.inf, -math.inf, math.nan,
    2**31, 2**32, 2**63, -(2**63) - 1, 10**30, 10**400, "", " ", "x", "null", "auto", "os.system",
    "a" * 300, "two\nlines", "\u202e\u0000", "../../etc/passwd", [], [[]], [None], [1e300] * 3, [math.nan],
    [[0, 1], [0, 2]], {}, {"x": 1}, {"type": "os.system"}, {1: 2}, {"grid_search": []}, {"grid_search": 5},
    {"grid_search": [1, {"grid_search": [2]}]}, {"grid_search": [math.nan, "x"]}, Raw("2020-01-01"),
    Raw("0o17"), Raw("!!binary aGVsbG8="), Raw("!!set {a, b}"), Raw("!!python/object/apply:os.system [ls]"),
    Raw("[" * 50 + "]" * 50), Raw("[" * 1000 + "]" * 1000), Raw("{a: " * 1000 + "1" + "}" * 1000),
    aliases(5), aliases(9), aliases(12), Raw("&loop [*loop]"), Raw("&loop {a: *loop}"), Raw("1" * 5000),
)  # fmt: skip
"""Values that few settings take."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One experiment file.

    Attributes:
        kind: ``experiments`` or ``settings``.
        name: What was done to which experiment.
        text: The file.
    """

    kind: str
    name: str
    text: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        verdict: ``refused``, ``accepted``, or a failure: ``traceback``, ``lines``, ``slow``, ``hang``, ``killed``.
        message: Of the error.
        seconds: CPU time.
    """

    verdict: str
    message: str
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether an experiment must not end so."""
        return self.verdict not in ("refused", "accepted")


# -- cases --------------------------------------------------------------------------------------------------------


def flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str):
        escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
        return f'"{escaped}"'
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside mappings and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*at, key)
        yield from places(item, (*at, key))


def holder(value: Any, path: Sequence[Any]) -> Any:
    """Return the mapping or list that holds the last part of a path."""
    for part in path[:-1]:
        value = value[part]
    return value


def misspelt(key: str, rng: random.Random) -> str:
    """Return a key with a letter left out, doubled, changed or in the wrong case."""
    k = rng.randrange(len(key)) if key else 0
    return rng.choice(
        [
            key[:k] + key[k + 1 :],
            key[:k] + key[k : k + 1] * 2 + key[k + 1 :],
            key[:k] + "q" + key[k + 1 :],
            key.upper(),
        ]
    )


def replace(values: dict[str, Any], rng: random.Random) -> str:
    """Replace a value by a hostile one."""
    path = rng.choice([*places(values)])
    number = rng.randrange(len(HOSTILE))
    holder(values, path)[path[-1]] = copy.deepcopy(HOSTILE[number])
    return f"{'.'.join(map(str, path))} = hostile {number}"


def scale(values: dict[str, Any], rng: random.Random) -> str:
    """Multiply a number by a large one, a negative one or zero."""
    numbers = [
        path
        for path in places(values)
        if isinstance(holder(values, path)[path[-1]], int | float)
        and not isinstance(holder(values, path)[path[-1]], bool)
    ]
    if not numbers:
        return replace(values, rng)
    path, factor = rng.choice(numbers), rng.choice([-1, 0, 1000, 10**9, 1e20, 1e-20])
    holder(values, path)[path[-1]] *= factor
    return f"{'.'.join(map(str, path))} times {factor:g}"


def rename(values: dict[str, Any], rng: random.Random) -> str:
    """Misspell a key."""
    keys = [path for path in places(values) if isinstance(path[-1], str)]
    if not keys:
        return replace(values, rng)
    path = rng.choice(keys)
    inner, other = holder(values, path), misspelt(path[-1], rng)
    inner[other] = inner.pop(path[-1])
    return f"{'.'.join(map(str, path))} as {other}"


def drop(values: dict[str, Any], rng: random.Random) -> str:
    """Leave something out."""
    path = rng.choice([*places(values)])
    del holder(values, path)[path[-1]]
    return f"without {'.'.join(map(str, path))}"


def wrap(values: dict[str, Any], rng: random.Random) -> str:
    """Put a value into a list or a mapping."""
    path = rng.choice([*places(values)])
    inner, form = holder(values, path), rng.choice(["list", "mapping", "grid"])
    value = inner[path[-1]]
    inner[path[-1]] = {"list": [value], "mapping": {"value": value}, "grid": {"grid_search": [value, None]}}[
        form
    ]
    return f"{'.'.join(map(str, path))} in a {form}"


def add(values: dict[str, Any], rng: random.Random) -> str:
    """Set a setting that the experiment leaves alone, or one that there is not."""
    run = values.get("run")
    known = (
        sorted(algorithm_config_class(run)().settings().known)
        if isinstance(run, str) and run in BASES
        else []
    )
    key, number = rng.choice([*known, "unknown", "__class__", "env", "run"]), rng.randrange(len(HOSTILE))
    config = values.get("config")
    if not isinstance(config, dict):
        return replace(values, rng)
    config[key] = copy.deepcopy(HOSTILE[number])
    return f"config.{key} = hostile {number}"


def damage(text: str, rng: random.Random) -> tuple[str, str]:
    """Return a text with characters that do not belong there, or cut off."""
    k = rng.randrange(len(text))
    part = rng.choice(
        ["\t", "\x00", "\x85", "{", "]", ": ", "- ", "&a ", "*a ", "!!", "%", '"', "'", "\ud7ff", "#", "\n"]
    )
    form = rng.choice(["put", "cut", "taken", "twice"])
    changed = {
        "put": text[:k] + part + text[k:],
        "cut": text[:k],
        "taken": text[:k] + text[k + 5 :],
        "twice": text + text,
    }
    return changed[form], f"text {form} at {k}"


MUTATIONS: tuple[Callable[[dict[str, Any], random.Random], str], ...] = (
    replace, replace, replace, scale, rename, drop, wrap, add, add,
)  # fmt: skip


def experiment_cases(count: int, seed: int) -> Iterator[Case]:
    """Yield experiments with one to three faults each."""
    rng = random.Random(f"experiments {seed}")
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(CONFIGS.glob("*.yaml"))}
    for number in range(count):
        base = rng.choice([*texts])
        if rng.random() < 0.1:
            text, done = damage(texts[base], rng)
            yield Case("experiments", f"{number} {base}: {done}", text)
            continue
        ((name, values),) = YAML(typ="safe", pure=True).load(texts[base]).items()
        done = []
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            if values:
                done.append(rng.choice(MUTATIONS)(values, rng))
        yield Case("experiments", f"{number} {base}: {'; '.join(done)}", f"{name}: {flow(values)}\n")


def setting_cases(count: int, seed: int) -> Iterator[Case]:
    """Yield experiments of all algorithms with one hostile setting."""
    rng = random.Random(f"settings {seed}")
    bases = {}
    for run, stem in BASES.items():
        ((name, values),) = YAML(typ="safe", pure=True).load((CONFIGS / f"{stem}.yaml").read_text()).items()
        known = algorithm_config_class(run)().settings().known
        bases[run] = (
            name,
            values | {"run": run},
            sorted(key for key, setting in known.items() if setting.in_file),
        )
    for number in range(count):
        run = rng.choice([*BASES])
        name, values, known = bases[run]
        key, value = rng.choice(known), rng.randrange(len(HOSTILE))
        config = {**values.get("config", {}), key: HOSTILE[value]}
        text = f"{name}: {flow({**values, 'config': config})}\n"
        yield Case("settings", f"{number} {run}: config.{key} = hostile {value}", text)


# -- outcomes -----------------------------------------------------------------------------------------------------


def dry_run(path: str) -> None:
    """Do what ``rllib train --dry-run`` does before it prints."""
    experiment = load_experiment(path)
    if experiment.is_sweep:
        for _, variant in experiment.variants():
            variant.validate()
    else:
        experiment.validate()


def outcome_of(text: str, directory: str, check: Callable[[str], None] | None = None) -> Outcome:
    """Return what comes of a file in this process; without ``check``, of `dry_run`."""
    path = Path(directory) / "case.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    begun = time.process_time()
    try:
        (check or dry_run)(str(path))
        verdict, message = "accepted", ""
    except ConfigError as error:
        message = str(error)
        verdict = "refused" if message and "\n" not in message else "lines"
    except BaseException:
        verdict, message = "traceback", " | ".join(traceback.format_exc().strip().splitlines()[-3:])
    seconds = time.process_time() - begun
    if verdict in ("refused", "accepted") and seconds > LIMIT:
        verdict = "slow"
    return Outcome(verdict, message, seconds)


def outcomes(cases: Sequence[Case], jobs: int) -> Iterator[tuple[Case, Outcome]]:
    """Yield what comes of each case in a process of its own, ``jobs`` at a time."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as directory:
        waiting, running = list(reversed(list(enumerate(cases)))), {}
        while waiting or running:
            while waiting and len(running) < jobs:
                number, case = waiting.pop()
                receive, send = context.Pipe(duplex=False)
                process = context.Process(target=_in_child, args=(case.text, directory, number, send))
                process.start()
                send.close()
                running[number] = (case, process, receive, time.monotonic())
            for number, (case, process, receive, begun) in list(running.items()):
                ended = receive.poll(0.01)
                if not ended and time.monotonic() - begun < PATIENCE:
                    continue
                try:
                    outcome = receive.recv() if ended else Outcome("hang", "", PATIENCE)
                except EOFError:
                    outcome = Outcome("killed", "", time.monotonic() - begun)
                process.kill()
                process.join()
                del running[number]
                yield case, outcome


def _in_child(text: str, directory: str, number: int, send: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    own = Path(directory) / str(number)
    own.mkdir()
    with (
        open(os.devnull, "w") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
    ):
        send.send(outcome_of(text, str(own)))
    os._exit(0)


def build(cases: Sequence[Case]) -> Iterator[tuple[Case, Outcome]]:
    """Build the Algorithms of accepted experiments, one after the other."""
    import ray

    from qio_rllib.experiments.resources import resources, start_ray

    def built(path: str) -> None:
        experiment = next(variant for _, variant in load_experiment(path).variants())
        config = experiment.algorithm_config()
        if resources(config).get("CPU", 0) <= os.cpu_count():
            config.build_algo().stop()

    start_ray(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as directory:
        for case in cases:
            yield case, outcome_of(case.text, directory, built)
    ray.shutdown()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; return 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--settings", type=int, default=800)
    parser.add_argument("--builds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/campaign"), help="where settings.csv goes")
    options = parser.parse_args(arguments)
    assert set(BASES) == set(ALGORITHMS)
    cases = [
        *experiment_cases(options.experiments, options.seed),
        *setting_cases(options.settings, options.seed),
    ]
    found = []
    for case, outcome in outcomes(cases, options.jobs):
        found.append((case, outcome))
        if outcome.failed:
            print(f"{outcome.verdict}: {case.name}: {outcome.message}"[:600], flush=True)
    accepted = [case for case, outcome in found if outcome.verdict == "accepted"]
    sample = random.Random(options.seed).sample(accepted, min(options.builds, len(accepted)))
    for case, outcome in build(sample) if sample else ():
        found.append((dataclasses.replace(case, kind="builds"), outcome))
        if outcome.verdict not in ("accepted", "slow"):
            print(f"not built: {case.name}: {outcome.verdict}: {outcome.message}"[:600], flush=True)
    rows = [
        {"kind": case.kind, "case": case.name, "verdict": outcome.verdict, "cpu_s": round(outcome.seconds, 3),
         "message": outcome.message}
        for case, outcome in found
    ]  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    write_csv(options.out / "settings.csv", rows)
    for (kind, verdict), count in sorted(Counter((row["kind"], row["verdict"]) for row in rows).items()):
        print(f"{kind:12} {verdict:10} {count}")
    print(f"slowest: {max(float(row['cpu_s']) for row in rows if row['kind'] != 'builds'):.2f} s of CPU time")
    return int(any(outcome.failed for case, outcome in found if case.kind != "builds"))


if __name__ == "__main__":
    sys.exit(main())
