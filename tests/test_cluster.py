"""examples/rayjob.yaml: the fields of a RayJob, what fits together in them, its entrypoint as a job of a local Ray."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import pytest

from qio_rllib.artifacts.yaml_files import read_yaml

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "examples/rayjob.yaml"

Quantity = Annotated[str, pydantic.StringConstraints(pattern=r"^\d+(\.\d+)?(m|[KMGT]i?)?$")]
Name = Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Strict(pydantic.BaseModel):
    """The fields of ray.io/v1 and of core/v1 that the manifest uses, with the types of their definitions."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class Mount(Strict):
    name: Name
    mountPath: str


class Resources(Strict):
    requests: dict[str, Quantity]
    limits: dict[str, Quantity]


class Container(Strict):
    name: Name
    image: str
    workingDir: str
    resources: Resources
    volumeMounts: list[Mount]


class Claim(Strict):
    claimName: Name


class Volume(Strict):
    name: Name
    persistentVolumeClaim: Claim


class PodSpec(Strict):
    terminationGracePeriodSeconds: int | None = None
    containers: list[Container]
    volumes: list[Volume]


class Template(Strict):
    spec: PodSpec


class Head(Strict):
    rayStartParams: dict[str, str]
    template: Template


class Workers(Head):
    groupName: Name
    replicas: int
    minReplicas: int
    maxReplicas: int


class Cluster(Strict):
    rayVersion: str
    headGroupSpec: Head
    workerGroupSpecs: list[Workers]


class JobSpec(Strict):
    entrypoint: str
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: int
    backoffLimit: int
    rayClusterSpec: Cluster


class Metadata(Strict):
    name: Name


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


def test_the_manifest_is_a_ray_job_whose_parts_fit_together():
    spec = RayJob.model_validate(read_yaml(MANIFEST)).spec
    cluster = spec.rayClusterSpec
    (pinned,) = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert cluster.rayVersion == pinned
    assert f"rayproject/ray:{pinned}-py311" in (ROOT / "docs/cluster.md").read_text()
    words = shlex.split(spec.entrypoint)
    assert words[:2] == ["rllib", "train"]
    assert (ROOT / words[words.index("--config") + 1]).is_file()
    out = words[words.index("--out") + 1]
    for group in (cluster.headGroupSpec, *cluster.workerGroupSpecs):
        pod = group.template.spec
        assert {mount.name for each in pod.containers for mount in each.volumeMounts} == {
            volume.name for volume in pod.volumes
        }
        assert [mount.mountPath for mount in pod.containers[0].volumeMounts] == [out]
        assert pod.containers[0].image.endswith(f":{pinned}")
    for workers in cluster.workerGroupSpecs:
        assert workers.minReplicas <= workers.replicas <= workers.maxReplicas


def test_a_manifest_with_a_misspelt_field_is_found_out():
    values = read_yaml(MANIFEST)
    values["spec"]["rayClusterSpec"]["headGroupSpecs"] = values["spec"]["rayClusterSpec"].pop("headGroupSpec")
    with pytest.raises(pydantic.ValidationError, match="headGroupSpec"):
        RayJob.model_validate(values)


def test_the_entrypoint_is_accepted():
    words = shlex.split(read_yaml(MANIFEST)["spec"]["entrypoint"])
    from qio_rllib.cli import main

    before = Path.cwd()
    os.chdir(ROOT)
    try:
        assert main([*words[1:], "--dry-run"]) == 0
    finally:
        os.chdir(before)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.ray
@pytest.mark.long
def test_the_entrypoint_trains_as_a_job_of_a_local_ray(tmp_path):
    pytest.importorskip(
        "aiohttp_cors", reason="job submission needs the dashboard: pip install 'qio[cluster]'"
    )
    gcs, dashboard = free_port(), free_port()
    folder = tempfile.mkdtemp(prefix="qio")  # Ray's sockets need a short path
    ray = Path(sys.executable).with_name("ray")
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    env |= {"RAY_AUTH_MODE": "disabled", "PATH": f"{ray.parent}:{env['PATH']}"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    head = subprocess.Popen(
        [ray, "start", "--head", "--block", "--num-cpus=4", f"--port={gcs}", "--node-ip-address=127.0.0.1",
         "--include-dashboard=true", f"--dashboard-port={dashboard}", f"--temp-dir={folder}"],
        env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{dashboard}"
    words = shlex.split(read_yaml(MANIFEST)["spec"]["entrypoint"])
    words[words.index("--out") + 1] = str(tmp_path / "runs")
    words[words.index("--config") + 1] = str(ROOT / words[words.index("--config") + 1])
    small = ["--set", "stop.training_iteration=1"]
    try:
        for _ in range(120):
            try:
                socket.create_connection(("127.0.0.1", dashboard), timeout=1).close()
                break
            except OSError:
                assert head.poll() is None
                time.sleep(1)
        done = subprocess.run(
            [ray, "job", "submit", "--address", address, "--", *words, *small],
            env=env, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
    finally:
        head.terminate()
        head.wait(60)
        shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "succeeded" in done.stdout
    (run,) = (tmp_path / "runs/forest-uav-ppo").iterdir()
    assert (run / "policy.pt").is_file()
