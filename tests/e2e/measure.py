"""The figures of a three-node cluster on loopback, as a table and as JSON; run by `tests/measure`.

Publisher, owner and subscriber sit on three different nodes. Everything, clients included, shares
this machine's cores, so what is told is an upper bound."""

import asyncio
import statistics
import time

from harness import Raw, cluster, eventually, token
from harness.figures import add_numbers, machine, millis, parser, tell
from harness.latency import latency, used


async def deliver(c, prefix, rate, seconds):
    """Publish → deliver, in microseconds."""
    publisher, owner, subscriber = c
    channel = await c.key(owner, prefix)
    found, cpu = await used(c, latency(publisher, subscriber, channel, rate, seconds))
    names = ("publisher", "owner", "subscriber")
    found["cpu_us_a_message"] = {
        name: round(each * 1e6 / found["sent"], 1) for name, each in zip(names, cpu, strict=True)
    }
    return found


async def first_message():
    """Seconds from starting three processes to the first message from one node to another."""
    async with cluster(3, start=False) as c:
        began = time.monotonic()
        for node in c:
            node.launch()

        async def dialled(node, user):
            raw = await Raw.dial(node.ws)
            await raw.connect(token=token(user))
            return raw

        subscriber = await eventually(lambda: dialled(c[2], "s"), 10, "the subscriber's connection")
        publisher = await eventually(lambda: dialled(c[1], "p"), 10, "the publisher's connection")
        async with subscriber, publisher:
            for raw in (subscriber, publisher):
                await eventually(lambda raw=raw: subscribed(raw), 10, "a subscription")
            await publisher.send({"id": 90, "publish": {"channel": "room", "data": 1}})
            while "pub" not in (await subscriber.receive(10)).get("push", {}):
                pass
            taken = time.monotonic() - began
        await c.settled()
        return taken


async def subscribed(raw):
    answer = await raw.call(subscribe={"channel": "room"})
    return "error" not in answer or answer["error"]["code"] == 105


async def death():
    """Seconds from SIGKILL to the last view without the node."""
    async with cluster(3) as c:
        await c.lined()
        key = await c.key(c[2])
        began = time.monotonic()
        c[2].kill()
        await c.gone(c[2], key, within=10, poll=0.005)
        return time.monotonic() - began


async def idle(c, seconds):
    """Share of a core that each node uses when nothing happens, in percent; resident megabytes."""
    _, cpu = await used(c, asyncio.sleep(seconds))
    return {
        "cpu_percent": [round(each * 100 / seconds, 2) for each in cpu],
        "memory_mb": [round(node.memory_bytes() / 1e6, 1) for node in c],
    }


def spread(values):
    return {
        "median_s": round(statistics.median(values), 3),
        "worst_s": round(max(values), 3),
        "rounds": len(values),
    }


async def measure(options):
    found = {"machine": machine()}
    async with cluster(3) as c:
        found["idle"] = await idle(c, options.idle)
        for name, prefix in (("ephemeral", "room-"), ("history", "long:")):
            found[name] = await deliver(c, prefix, options.rate, options.seconds)
    found["first_message"] = spread([await first_message() for _ in range(options.rounds)])
    found["killed_node_gone"] = spread([await death() for _ in range(options.rounds)])
    return found


def rows_of(found):
    rows = []
    for name in ("ephemeral", "history"):
        part = found[name]
        rows.append(
            (
                f"publish → deliver, {name}, {part['rate']}/s",
                f"{millis(part['deliver_us'])} ({part['messages']} messages)",
            )
        )
        cpu = part["cpu_us_a_message"]
        rows.append(
            (
                f"CPU a message, {name}",
                ", ".join(f"{role} {micros} µs" for role, micros in cpu.items()),
            )
        )
    for name, words in (
        ("first_message", "start → first message across nodes"),
        ("killed_node_gone", "kill -9 → gone from every view"),
    ):
        part = found[name]
        rows.append(
            (
                words,
                f"median {part['median_s']} s, worst {part['worst_s']} s of {part['rounds']}",
            )
        )
    idle_ = found["idle"]
    rows.append(
        ("idle, a node", f"{max(idle_['cpu_percent'])} % of a core, {max(idle_['memory_mb'])} MB")
    )
    return rows


def main():
    words = add_numbers(
        parser(__doc__),
        {
            "rate": (1000, "messages a second"),
            "seconds": (10, "how long each latency run lasts"),
            "rounds": (5, "starts and kills"),
            "idle": (10, "seconds in which nothing happens"),
        },
    )
    options = words.parse_args()
    found = asyncio.run(measure(options))
    tell(found, rows_of(found), options.json)


if __name__ == "__main__":
    main()
