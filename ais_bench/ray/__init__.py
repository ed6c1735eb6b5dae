"""Several servers: one session over the nodes of a Ray cluster. Only this package imports Ray.

    from ais_bench.ray import ClusterSession

    with ClusterSession("model.onnx", preprocess=read) as session:
        for outputs in session.map(paths):
            ...

See docs/cluster.md.
"""

from __future__ import annotations

try:
    import ray as _ray  # noqa: F401
except ImportError as error:
    raise ImportError("ais_bench.ray needs Ray, which is not installed: pip install 'ais_bench[ray]'") from error

from ais_bench.ray.cluster import ClusterSession
from ais_bench.ray.predictor import Predictor

__all__ = ["ClusterSession", "Predictor"]
