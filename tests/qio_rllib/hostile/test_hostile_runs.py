"""Runs, tables and checkpoints of somebody else: what they may not do, and what the command says of the rest."""

import json
import pickle
from pathlib import Path

import pytest
from attempts import MARK, Touching, experiment, refused

from qio_envs.api import ConfigError
from qio_rllib.artifacts.files import read_csv
from qio_rllib.artifacts.progress_file import ProgressFile
from qio_rllib.cli import main


def run_directory(here, **info):
    run = here / "runs" / "x" / "1"
    (run / "checkpoints" / "trial").mkdir(parents=True)
    (run / "config.yaml").write_text(experiment())
    (run / "run.json").write_text(json.dumps({"status": "finished", **info}))
    return run


def outside(here):
    """A checkpoint elsewhere that would run code."""
    folder = here / "elsewhere"
    folder.mkdir()
    (folder / "rllib_checkpoint.json").write_text("{}")
    (folder / "class_and_ctor_args.pkl").write_bytes(pickle.dumps(Touching()))
    return folder


@pytest.mark.parametrize(
    "path", ["../../../elsewhere", "{here}/elsewhere", "link", ["checkpoints"], 7, "a\0b", ""]
)
def test_a_run_leads_to_no_checkpoint_outside(path, here, capsys):
    outside(here)
    run = run_directory(here, checkpoint=path.format(here=here) if isinstance(path, str) else path)
    (run / "link").symlink_to(here / "elsewhere")
    line = refused(capsys, "evaluate", run)
    assert "expected a path within the run directory" in line or "rllib_checkpoint.json is missing" in line


def test_a_run_takes_no_checkpoint_that_is_a_link_to_one_outside(here, capsys):
    outside(here)
    run = run_directory(here)
    link = run / "checkpoints" / "trial" / "checkpoint_000001"
    link.symlink_to(here / "elsewhere")
    listed = [{"path": str(link.relative_to(run)), "metrics": {"training_iteration": 1}}]
    (run / "checkpoints.json").write_text(json.dumps(listed))
    assert "leads out of the run" in refused(capsys, "evaluate", run)


def test_a_run_description_that_is_nested_deep_is_named(here, capsys):
    run = run_directory(here)
    (run / "run.json").write_text('{"status": ' + "[" * 100_000 + "]" * 100_000 + "}")
    assert "run.json: damaged" in refused(capsys, "evaluate", run)


def test_a_run_of_somebody_else_imports_nothing(here, capsys):
    run = run_directory(here)
    (run / "config.yaml").write_text(experiment(env="evil:make"))
    run = run.rename(here / "foreign")
    assert "--allow-import evil" in refused(capsys, "train", "--resume", run)


@pytest.mark.parametrize(
    "text",
    [
        "training_iteration\n__import__('evil')\n",
        "a,b\n=cmd|' /C calc'!A0,1\n",
        'training_iteration\n"' + "x" * 200_000 + '"\n',
    ],
)
def test_a_table_is_text(text, here):
    (here / "progress.csv").write_text(text)
    with pytest.raises(ConfigError, match=r"progress.csv: damaged table"):
        ProgressFile(here / "progress.csv")
    assert not Path(MARK).exists()


def test_a_table_of_pretraining_is_text(here):
    (here / "pretraining.csv").write_text("a,b\n__import__('evil'),1\n")
    assert read_csv(here / "pretraining.csv") == [{"a": "__import__('evil')", "b": 1}]
    assert not Path(MARK).exists()


def test_a_graph_that_is_nested_deep_is_named(here, capsys):
    (here / "graph.json").write_text("[" * 100_000)
    (here / "data.csv").write_text("a,b\n1,2\n2,3\n")
    arguments = ["data.csv", "--graph", "graph.json", "--treatment", "a", "--outcome", "b"]
    assert "--graph: cannot read graph.json" in refused(capsys, "causal", "effect", *arguments)


# --- checkpoints are code --------------------------------------------------------------------------------------------


def test_a_checkpoint_of_somebody_else_is_code_and_the_command_says_so(here, capsys):
    """What the documentation names: Ray's checkpoints are pickles."""
    main(["evaluate", str(outside(here))])
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rllib: note: ")]
    assert notes == [
        "rllib: note: elsewhere is not in runs/: Ray's checkpoints are pickles, and loading one runs what is in it"
    ]
    assert Path(MARK).exists()


def test_of_a_run_of_ones_own_nothing_is_said(here, capsys):
    run = run_directory(here)
    refused(capsys, "evaluate", run)
    (here / "foreign").symlink_to(run)
    main(["evaluate", "foreign"])
    assert "note" not in capsys.readouterr().err  # it lies in runs/ after all
    run = run.rename(here / "away")
    (here / "runs" / "link").symlink_to(run)
    main(["evaluate", "runs/link"])
    assert "is not in runs/" in capsys.readouterr().err
