"""One Ray node, run as `python -m tests.cluster.ray_node`: everything of it listens on loopback alone.

`ray start --node-ip-address=127.0.0.1` would listen on the machine's outer address. The node's processes end
with this one, and this one with whoever started it.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from ray import _raylet
from ray._private import utils
from ray._private.node import Node
from ray._private.parameter import RayParams

from tests.servers.process import free_port

READY = "the node has started"
_OBJECT_STORE_BYTES = 80 << 20  # Ray's least is 75 MiB
_NONE = -1  # Ray's word for a service that is not there


class _Node(Node):  # type: ignore[misc] # Ray has no types
    """A node without a dashboard, which would take longer to start than all the rest."""

    def start_api_server(self, **_: object) -> None:
        """No dashboard."""

    def start_raylet(self, *arguments: Any, **named: Any) -> None:
        """As usual, but it is told the ports of its agents: it would wait for them to be written, and give up
        after 15 s, in which a busy machine has not even imported them."""
        for name in (
            _raylet.METRICS_AGENT_PORT_NAME,
            _raylet.METRICS_EXPORT_PORT_NAME,
            _raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME,
        ):
            _raylet.persist_port(self.get_session_dir_path(), self.node_id, name, _NONE)
        _raylet.persist_port(
            self.get_session_dir_path(),
            self.node_id,
            _raylet.RUNTIME_ENV_AGENT_PORT_NAME,
            self._ray_params.runtime_env_agent_port,
        )
        super().start_raylet(*arguments, **named)


def main() -> None:
    """Start the node, say so, and keep it until the parent process is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--head", action="store_true")
    parser.add_argument("--port", type=int, required=True, help="of the head's GCS")
    parser.add_argument("--cpus", type=int, required=True)
    parser.add_argument("--folder", required=True)
    options = parser.parse_args()
    parent = os.getppid()
    # Ray's word for an installation without the dashboard: its agents leave most of themselves out, too.
    utils.get_dashboard_dependency_error = lambda: ImportError("left out")
    node = _Node(
        RayParams(
            node_ip_address="127.0.0.1",
            gcs_address=None if options.head else f"127.0.0.1:{options.port}",
            gcs_server_port=options.port if options.head else None,
            redis_password=os.environ.get("RAY_REDIS_PASSWORD"),
            num_cpus=options.cpus,
            num_gpus=0,
            object_store_memory=_OBJECT_STORE_BYTES,
            min_worker_port=0,
            max_worker_port=0,
            runtime_env_agent_port=free_port(),
            include_dashboard=False,
            include_log_monitor=False,
            no_monitor=True,
            temp_dir=options.folder,
        ),
        head=options.head,
        shutdown_at_exit=False,
        spawn_reaper=True,
    )
    print(READY, flush=True)  # noqa: T201 - whoever started it reads that
    while os.getppid() == parent and not node.dead_processes():
        time.sleep(0.5)


if __name__ == "__main__":
    main()
