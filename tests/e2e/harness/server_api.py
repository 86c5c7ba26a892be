"""PyPI cent, the maintained client of the server API."""

import aiohttp
import cent

from .errors import SdkError
from .settings import API_KEY


def api(node, key=API_KEY):
    """An async context: the server API of a node."""
    return cent.AsyncClient(f"{node.http}/api", key)


async def call(node, method, **body):
    """Calls a method that cent doesn't know; its result."""
    headers = {"X-API-Key": API_KEY}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{node.http}/api/{method}", json=body) as answer,
    ):
        reply = await answer.json()
    if "error" in reply:
        raise SdkError(reply["error"]["code"], reply["error"]["message"])
    return reply["result"]
