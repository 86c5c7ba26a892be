"""The latency client (`tests/examples/latency.rs`) on nodes of a cluster, and what it costs them."""

import asyncio
import json
import os

from .node import BINARY
from .settings import token

# Built beside the binary, unless another one is named.
LATENCY = os.environ.get("ORBWEB_LATENCY", str(BINARY.parent / "examples" / "latency"))


async def latency(publisher, subscriber, channel, rate, seconds):
    """Publish → deliver and publish → acknowledge between two nodes, in microseconds."""
    process = await asyncio.create_subprocess_exec(
        LATENCY,
        publisher.ws,
        subscriber.ws,
        channel,
        str(rate),
        str(seconds),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "PUBLISH_TOKEN": token("publisher"),
            "SUBSCRIBE_TOKEN": token("subscriber"),
        },
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, "the latency client failed"
    return json.loads(out)


async def used(nodes, doing):
    """What is awaited, and the CPU seconds that each node used meanwhile."""
    before = [node.cpu_seconds() for node in nodes]
    found = await doing
    return found, [node.cpu_seconds() - start for node, start in zip(nodes, before, strict=True)]
