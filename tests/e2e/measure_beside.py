"""What others notice of trouble that isn't theirs: latencies of a quiet channel alone, beside a hot
channel, beside clients that read slowly or not at all, and beside a node with a slow link; run by
`tests/measure beside`.

Three nodes in a network of their own. The quiet channel's publisher and subscriber, its owner and the
other copy are on the first two; the first owns the other channels, too. What makes the trouble shares this machine's cores."""

import asyncio
import contextlib
import itertools
import json
import re
import statistics
import subprocess

from harness import cluster
from harness.bulk import Bulk
from harness.figures import add_numbers, machine, parser, tell
from harness.latency import latency
from harness.raw import Raw
from harness.settings import token

NODES = 3
QUIET_RATE = 200
# The hot channel: so many a second, in batches.
HOT_RATE, HOT_BATCH = 3000, 60
# The busy channel: what is published to clients that don't read, and over the slow link.
BUSY_RATE, BUSY_BYTES = 100, 32_768
CLIENTS = 5
# What the slow link carries, a third of what is to go over it; the rest is dropped.
LINK_KBYTES = 1000
# Frames that a slow client reads a second.
READS_RATE = 10
FIGURES = ("p50", "p99", "p999")


@contextlib.asynccontextmanager
async def running(doing):
    """Something that goes on until the block ends; if it fails, so does the block."""
    task = asyncio.ensure_future(doing)
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def subscribers(node, channel, number, prefix):
    """Clients in a channel that haven't been sent anything yet."""
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for n in range(number):
            client = await stack.enter_async_context(await Raw.dial(node.ws))
            await client.connect(token=token(f"{prefix}-{n}"))
            await client.call(subscribe={"channel": channel})
            clients.append(client)
        yield clients


@contextlib.asynccontextmanager
async def paced(rate, act, found, name, each=1):
    """Acts so often while the block runs, as time allows; how often a second it was is put down, each
    time for as many as it is worth."""
    loop = asyncio.get_running_loop()
    began, done = loop.time(), 0

    async def act_on():
        nonlocal done
        for done in itertools.count(1):
            await act()
            await asyncio.sleep(max(0, began + done / rate - loop.time()))

    async with running(act_on()):
        yield
        found[name] = round(done * each / (loop.time() - began))


async def read_all(clients):
    async def read(client):
        async for message in client.messages():
            assert "error" not in message, message
            if not message:
                await client.socket.send("{}")
        raise AssertionError("a connection that is read was closed")

    await asyncio.gather(*map(read, clients))


async def read_slowly(clients):
    """Takes a frame now and then, of the many that there are."""

    async def read(client):
        async for _ in client.messages():
            await asyncio.sleep(1 / READS_RATE)

    await asyncio.gather(*map(read, clients))
    # They may well be parted with.
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def busy(node, channel, found):
    """Somebody publishes much to a channel."""
    async with await Raw.dial(node.ws) as publisher:
        await publisher.connect(token=token("busy"))
        await publisher.call(subscribe={"channel": channel})
        frame = json.dumps({"id": 9, "publish": {"channel": channel, "data": "x" * BUSY_BYTES}})
        kbytes = BUSY_BYTES / 1000
        send = paced(BUSY_RATE, lambda: publisher.socket.send(frame), found, "kbytes_a_second", kbytes)
        async with running(read_all([publisher])), send:
            yield


@contextlib.asynccontextmanager
async def alone(_):
    """Nothing goes on beside."""
    yield {}


@contextlib.asynccontextmanager
async def hot_channel(c):
    async with Bulk(c.nodes[:2]) as bulk, contextlib.AsyncExitStack() as stack:
        hot, found = await c.key(c[0], "hot-"), {}
        batch = [{"publish": {"channel": hot, "data": {"n": n}}} for n in range(HOT_BATCH)]
        for node in c.nodes[1:]:
            clients = await stack.enter_async_context(subscribers(node, hot, 2, "hot"))
            await stack.enter_async_context(running(read_all(clients)))
        publish = paced(
            HOT_RATE / HOT_BATCH, lambda: bulk.commands(batch), found, "publications_a_second", HOT_BATCH
        )
        await stack.enter_async_context(publish)
        yield found


@contextlib.asynccontextmanager
async def bad_readers(c):
    found = {"stuck": CLIENTS, "slow": CLIENTS}
    before, channel = await closed(c), await c.key(c[0], "busy-")
    async with (
        subscribers(c[1], channel, CLIENTS, "stuck"),
        subscribers(c[1], channel, CLIENTS, "slow") as slow,
    ):
        async with running(read_slowly(slow)), busy(c[0], channel, found):
            yield found
        found["closed_slow"] = int(await closed(c) - before)
        assert found["closed_slow"] >= CLIENTS, "who doesn't read is parted with"


@contextlib.asynccontextmanager
async def slow_link(c):
    found, channel = {"link_kbytes_a_second": LINK_KBYTES}, await c.key(c[0], "busy-")
    async with subscribers(c[2], channel, CLIENTS, "far") as clients, running(read_all(clients)):
        limit(c[2].mesh_port)
        try:
            async with busy(c[0], channel, found):
                yield found
            found["packets_dropped"] = dropped()
            assert found["packets_dropped"] > 0, "the link was too slow for nothing"
        finally:
            nft("delete table inet slow")


TROUBLES = {
    "alone": alone,
    "beside a hot channel": hot_channel,
    "beside clients that read slowly or not": bad_readers,
    "beside a node with a slow link": slow_link,
}


def limit(port):
    """UDP from and to this port gets through as far as the limit allows."""
    nft("add table inet slow")
    nft("add chain inet slow input { type filter hook input priority 0 ; }")
    for side in ("sport", "dport"):
        over = f"limit rate over {LINK_KBYTES} kbytes/second counter drop"
        nft(f"add rule inet slow input udp {side} {port} {over}")


def dropped():
    """Packets that went beyond the limit so far."""
    return sum(map(int, re.findall(r"counter packets (\d+)", nft("list table inet slow"))))


def nft(words):
    done = subprocess.run(["nft", words], capture_output=True, text=True)
    assert done.returncode == 0, f"nft {words}: {done.stderr}"
    return done.stdout


async def closed(c):
    return sum([await node.counter("orbweb_gateway_closed_slow_total") for node in c])


async def quiet_channel(c):
    """A channel with history that the first node owns and the second has the other copy of."""
    wanted = [c[0].name, c[1].name]
    for n in range(2000):
        if (await c[0].placement(f"long:{n}"))[:2] == wanted:
            return f"long:{n}"
    raise AssertionError(f"{wanted} hold none of 2000 channels")


async def measure(options):
    runs = {name: [] for name in TROUBLES}
    found = {"machine": machine(), "rate": QUIET_RATE, "seconds": options.seconds}
    async with cluster(NODES, more="copies = 2\n") as c:
        channel = await quiet_channel(c)
        for _ in range(options.rounds):
            for name, trouble in TROUBLES.items():
                async with trouble(c) as what:
                    run = await latency(c[0], c[1], channel, QUIET_RATE, options.seconds)
                runs[name].append({**run, "trouble": what})
                await c.whole()
    return {**found, "runs": runs}


def rows_of(found):
    rows = []
    for name, runs in found["runs"].items():
        for figure, words in (("acknowledge_us", "acknowledge"), ("deliver_us", "deliver")):
            middle = {f: statistics.median(run[figure][f] for run in runs) / 1000 for f in FIGURES}
            value = "p50 {p50:.2f} ms, p99 {p99:.2f} ms, p99.9 {p999:.2f} ms".format(**middle)
            rows.append((f"publish → {words}, {name}", value))
        told = [f"{key} {value}" for key, value in runs[-1]["trouble"].items()]
        if told:
            rows.append((f"  of these: {name}", ", ".join(told)))
    return rows


def main():
    words = add_numbers(
        parser(__doc__, "beside"),
        {
            "seconds": (10, "how long each run lasts"),
            "rounds": (3, "runs of each kind, in turns"),
        },
    )
    options = words.parse_args()
    found = asyncio.run(measure(options))
    tell(found, rows_of(found), options.json)


if __name__ == "__main__":
    main()
