"""What kept state costs in memory: users with a subscription and an attribute each, and streams of
some publications each, on three nodes with two copies; and how a node alone that holds as many
channels answers; run by `tests/measure memory`.

Memory is what the processes have more than before, all nodes and copies together, freed memory that
the allocator keeps included."""

import asyncio
import time

from harness import cluster, eventually
from harness.bulk import Bulk
from harness.figures import add_numbers, machine, millis, parser, tell
from harness.latency import latency

NODES, COPIES = 3, 2
SAMPLES = 20
# So that nothing expires meanwhile.
LONG = ["--set", "namespaces.long.history_ttl=1h"]
# 100 bytes as JSON, the size of a short chat message.
TEXT = "x" * 91
RATE = 1000


def memory(nodes):
    """Megabytes of each node: resident, and with shared pages counted in part."""
    return {
        "rss_mb": [round(node.memory_bytes() / 1e6, 1) for node in nodes],
        "pss_mb": [round(node.pss_bytes() / 1e6, 1) for node in nodes],
    }


def grown(before, after, number):
    """What so many things cost."""
    more = {key: sum(after[key]) - sum(before[key]) for key in before}
    return {
        "number": number,
        "copies": COPIES,
        "before": before,
        "after": after,
        "bytes_each": {key[:3]: round(value * 1e6 / number) for key, value in more.items()},
    }


async def held(c, number):
    """Waits until the nodes say that they hold so many streams; inboxes may add a few."""

    async def all_held():
        return sum([await node.counter("orbweb_stream_held") for node in c]) >= number

    await eventually(all_held, 10, f"{number} streams are held")


async def users(number):
    """Every user has a subscription made by the server API, and an attribute."""
    async with cluster(NODES, more=f"copies = {COPIES}\n") as c, Bulk(c) as bulk:
        before, began = memory(c), time.monotonic()
        names = [f"user-{n}" for n in range(number)]
        await bulk.commands(
            command
            for name in names
            for command in (
                {"subscribe": {"user": name, "channel": "room"}},
                {"session_set": {"user": name, "key": "theme", "value": "dark"}},
            )
        )
        seconds = time.monotonic() - began
        await c.whole()
        found = grown(before, memory(c), number)
        for name in names[:: max(1, number // SAMPLES)]:
            kept = await bulk.call("session_get", user=name)
            assert kept["result"]["attributes"] == {"theme": "dark"}, (name, kept)
    return {**found, "made_in_s": round(seconds, 1)}


async def streams(number, publications, latency_s):
    """Every stream has as many publications."""
    async with cluster(NODES, more=f"copies = {COPIES}\n", args=LONG) as c, Bulk(c) as bulk:
        before, began = memory(c), time.monotonic()
        channels = [f"long:{n}" for n in range(number)]
        for n in range(publications):
            await bulk.broadcast(channels, data={"n": n, "t": TEXT})
        seconds = time.monotonic() - began
        await c.whole()
        await held(c, COPIES * number)
        found = grown(before, memory(c), number)
        channel = await c.key(c[1], "long:")
        found["then"] = await latency(c[0], c[2], channel, RATE, latency_s)
    return {**found, "publications_each": publications, "made_in_s": round(seconds, 1)}


async def alone(number, latency_s):
    """Latencies at a node alone: with nothing, and with as many channels."""
    async with cluster(1, args=LONG) as c, Bulk(c) as bulk:
        node = c[0]
        empty = await latency(node, node, "long:0", RATE, latency_s)
        before = memory(c)
        await bulk.broadcast([f"long:{n}" for n in range(number)], data={"n": 0, "t": TEXT})
        await held(c, number)
        full = await latency(node, node, "long:1", RATE, latency_s)
        return {"number": number, "before": before, "after": memory(c), "empty": empty, "full": full}


async def measure(options):
    return {
        "machine": machine(),
        "users": await users(options.users),
        "streams": await streams(options.streams, options.publications, options.seconds),
        "alone": await alone(options.streams, options.seconds),
    }


def rows_of(found):
    rows = []
    for name in ("users", "streams"):
        part = found[name]
        for kind in ("rss", "pss"):
            each = part["bytes_each"][kind]
            all_ = " + ".join(map(str, part["after"][f"{kind}_mb"]))
            was = " + ".join(map(str, part["before"][f"{kind}_mb"]))
            words = f"{all_} MB (empty {was}), {each} bytes each with {part['copies']} copies"
            rows.append((f"{part['number']} {name}, {kind.upper()}", words))
    words = f"publish → deliver, {NODES} nodes with {found['streams']['number']} streams"
    rows.append((words, millis(found["streams"]["then"]["deliver_us"])))
    part = found["alone"]
    for name, words in (("empty", "no"), ("full", part["number"])):
        rows.append(
            (f"publish → deliver, a node with {words} channels", millis(part[name]["deliver_us"]))
        )
    return rows


def main():
    words = add_numbers(
        parser(__doc__, "memory"),
        {
            "users": (100_000, "users with kept state"),
            "streams": (100_000, "streams, and channels of the node alone"),
            "publications": (10, "publications of each stream"),
            "seconds": (10, "how long each latency run lasts"),
        },
    )
    options = words.parse_args()
    found = asyncio.run(measure(options))
    tell(found, rows_of(found), options.json)


if __name__ == "__main__":
    main()
