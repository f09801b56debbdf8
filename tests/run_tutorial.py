"""Run a tutorial of docs/tutorials as a reader does, in this process and in the working directory.

python tests/run_tutorial.py PAGE

Blocks with a title are files, other blocks of Python share one namespace, and blocks of commands are given to the
functions behind ``rllib`` and ``python -m qio_envs.testing``. A command that fails ends it.
"""

import re
import shlex
import sys
from pathlib import Path

BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def start_ray() -> None:
    import ray

    if not ray.is_initialized():
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


def give(line: str) -> None:
    from qio_envs.testing.command_line import main as check
    from qio_rllib.cli import main as rllib

    words = shlex.split(line)
    if words[0] == "rllib":
        start_ray()
        status = rllib(words[1:])
    elif words[:3] == ["python", "-m", "qio_envs.testing"]:
        status = check(words[3:])
    else:
        raise SystemExit(f"unknown command: {line}")
    if status:
        raise SystemExit(f"status {status}: {line}")


def main(page: Path) -> None:
    sys.path.insert(0, ".")
    namespace: dict = {"__name__": "__tutorial__"}
    for kind, title, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if title:
            Path(title).parent.mkdir(exist_ok=True)
            Path(title).write_text(text)
        elif kind == "python":
            start_ray()
            exec(compile(text, f"block of {page.name}", "exec"), namespace)
        elif kind == "bash":
            for line in text.splitlines():
                give(line)
        else:
            raise SystemExit(f"a block of {kind} has no title")
    print("returns", *namespace["returns"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
