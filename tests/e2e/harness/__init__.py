"""What the tests on real processes are written with: nodes, clusters, clients, cables."""

from .cable import Cable
from .clients import SDKS, SdkError, connect, start_client
from .cluster import Cluster, cluster
from .events import Events
from .load import Load
from .node import Node
from .raw import Raw
from .reads import Reads
from .server_api import api, call
from .settings import API_KEY, token
from .waiting import Ended, eventually

__all__ = [
    "API_KEY",
    "SDKS",
    "Cable",
    "Cluster",
    "Ended",
    "Events",
    "Load",
    "Node",
    "Raw",
    "Reads",
    "SdkError",
    "api",
    "call",
    "cluster",
    "connect",
    "eventually",
    "start_client",
    "token",
]
