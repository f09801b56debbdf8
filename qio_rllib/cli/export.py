"""``rllib export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.cli.arguments import AllowImport, load_policy_of
from qio_rllib.cli.output import relative, say


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint, run directory, policy file or policy:NAME.")
    ],
    file_format: Annotated[
        str, typer.Option("--format", help="onnx, or torch (an exported program, .pt2).")
    ] = "onnx",
    out: Annotated[
        Path, typer.Option(help="Directory to make, or for a policy with one module a file (.onnx, .pt2).")
    ] = Path("exported"),
    allow_import: AllowImport = None,
) -> None:
    """Write a policy as graphs that onnxruntime or torch run without this package, and a JSON that describes them."""
    formats = ("onnx", "torch")
    if file_format not in formats:
        raise ConfigError(
            f"--format: expected one of {', '.join(formats)}, got '{file_format}'"
            f"{did_you_mean(file_format, formats)}"
        )
    from qio_rllib.artifacts.exported_policy import check_output, export_policy

    check_output(out, file_format)
    policy, _ = load_policy_of(checkpoint, allow_import or ())
    for path in export_policy(policy, out, file_format):
        say(f"written to {relative(path)}")
