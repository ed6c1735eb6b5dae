"""Run a Ray cluster on this machine in this process: `python -m support.ray_host NODES NPUS MS` prints its address.

Every node has NPUS emulated NPUs of MS milliseconds. Commands on stdin: "add" starts a node and prints its id, "kill" ends the
newest one hard, end of file ends the cluster. Ray's test kit sets signal handlers, so it must run in a main thread.
"""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

from ais_bench.emulator.binary import library_path
from ais_bench.emulator.machine import find_onnxruntime


def main(nodes: int, npus: int, milliseconds: float) -> None:
    """Serve commands until stdin ends."""
    environment = {
        "AIS_BENCH_ACL_LIBRARY": str(library_path()),
        "AIS_BENCH_ORT_LIBRARY": str(find_onnxruntime()),
        "AIS_EMULATOR_DEVICES": str(npus),
        "AIS_EMULATOR_EXEC_MS": str(milliseconds),
    }
    small = {"include_dashboard": False, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **small})

    def add() -> object:
        # The NPUs are a custom resource of the node; otherwise Ray would search a driver.
        return cluster.add_node(num_cpus=1, resources={"NPU": npus}, env_vars=environment, **small)

    added = [add() for _ in range(nodes)]
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "add":
            added.append(add())
            print(added[-1].node_id, flush=True)
        elif line.strip() == "kill":
            node = added.pop()
            print(node.node_id, flush=True)
            cluster.remove_node(node, allow_graceful=False)
            print("killed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
