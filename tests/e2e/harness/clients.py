"""The maintained SDKs behind one face, so that one test speaks to each of them."""

from .errors import SdkError
from .js_client import JsClient
from .python_client import PythonClient

SDKS = {"js": JsClient, "python": PythonClient}

__all__ = ["SDKS", "SdkError", "connect", "start_client"]


async def start_client(sdk, to, **options):
    """A client of an SDK that was told to connect. `to` is a node, a cable or a URL; options:
    `user` (development mode), `token`, `tokens` (what getToken returns, one after the other),
    `data`."""
    client = SDKS[sdk](to if isinstance(to, str) else to.ws, **options)
    await client.start()
    return client


async def connect(sdk, to, **options):
    """A client of an SDK that is connected."""
    client = await start_client(sdk, to, **options)
    await client.events.next("connected")
    return client
