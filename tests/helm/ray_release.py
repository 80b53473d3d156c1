"""The chart's RayCluster on this machine: nodes as its pods would be, and its RayJobs run on them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from benchmarks.release import Pod, Release
from tests.cluster.ray_nodes import RayCluster, ray_cluster
from tests.helm.chart import Document, Rendered


@dataclass(frozen=True, slots=True)
class RayRelease:
    """The nodes of one release. Made by `ray_release`."""

    nodes: RayCluster
    head: Pod  # its files: those of every Ray pod, for paths are the same in all

    async def run_job(self, rendered: Rendered, component: str) -> str:
        """Run the entrypoint of the release's one job of a component (index, load) to its end, where the head
        runs it; what it said. Raises `RuntimeError` when it fails."""
        [job] = [
            one
            for one in rendered.kind("RayJob")
            if one["metadata"]["labels"]["app.kubernetes.io/component"] == component
        ]
        environment = {
            **self.head.environment,
            **self.nodes.environment,
            "RAY_ADDRESS": self.nodes.address,
        }
        process = await asyncio.create_subprocess_shell(
            self.head.local(job["spec"]["entrypoint"]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            cwd=self.head.root,
        )
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        text = said.decode(errors="replace")
        if process.returncode:
            raise RuntimeError(f"{job['metadata']['name']} ended with {process.returncode}:\n{text[-3000:]}")
        return text


@contextmanager
def ray_release(release: Release) -> Iterator[RayRelease]:
    """Start a head and a node for each pod of the groups, of the size that the manifest says."""
    spec = release.rendered.one("RayCluster")["spec"]
    [group] = spec["workerGroupSpecs"]
    head = release.pod(spec["headGroupSpec"]["template"], "ray", "127.0.0.1")
    [container] = group["template"]["spec"]["containers"]
    environment = {
        variable["name"]: head.local(variable["value"])
        for variable in container["env"]  # without Secrets: actors are handed their settings
    }
    with ray_cluster(
        int(group["replicas"]),
        int(container["resources"]["limits"]["cpu"]),
        lasting=True,
        head_cpus=int(spec["headGroupSpec"]["rayStartParams"]["num-cpus"]),
        more={**environment, "PATH": head.environment["PATH"], "PYTHONPATH": head.environment["PYTHONPATH"]},
    ) as nodes:
        yield RayRelease(nodes, head)


def changed(release: Release, rendered: Rendered) -> Release:
    """The release after an upgrade to what was rendered."""
    return replace(release, rendered=rendered)


def group_size(rendered: Rendered) -> int:
    """How many pods the groups have together."""
    groups: list[Document] = rendered.one("RayCluster")["spec"]["workerGroupSpecs"]
    return sum(int(group["replicas"]) for group in groups)
