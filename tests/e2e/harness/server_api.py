"""PyPI cent, the maintained client of the server API."""

import cent

from .settings import API_KEY


def api(node, key=API_KEY):
    """An async context: the server API of a node."""
    return cent.AsyncClient(f"{node.http}/api", key)
