"""What the tests on real processes are written with: nodes, clusters, clients, cables."""

from .cable import Cable
from .clients import SDKS, SdkError, connect
from .cluster import Cluster, cluster
from .events import Events
from .node import Node
from .raw import Raw
from .settings import API_KEY, token
from .waiting import eventually

__all__ = [
    "API_KEY",
    "SDKS",
    "Cable",
    "Cluster",
    "Events",
    "Node",
    "Raw",
    "SdkError",
    "cluster",
    "connect",
    "eventually",
    "token",
]
