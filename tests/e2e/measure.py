"""The figures of a three-node cluster on loopback, as a table and as JSON; run by `tests/measure`.

Publisher, owner and subscriber sit on three different nodes. Everything, clients included, shares
this machine's cores, so what is told is an upper bound."""

import argparse
import asyncio
import json
import os
import pathlib
import platform
import statistics
import time

from harness import Raw, cluster, eventually, token

LATENCY = os.environ.get("ORBWEB_LATENCY", "target/release/examples/latency")
IDLE_S = 10


async def deliver(c, prefix, rate, seconds):
    """Publish → deliver, in microseconds."""
    publisher, owner, subscriber = c
    channel = await c.key(owner, prefix)
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
    before = [node.cpu_seconds() for node in c]
    out, _ = await process.communicate()
    assert process.returncode == 0, "the latency client failed"
    used = [node.cpu_seconds() - start for node, start in zip(c, before, strict=True)]
    found = json.loads(out)
    names = ("publisher", "owner", "subscriber")
    found["cpu_us_a_message"] = {
        name: round(cpu * 1e6 / found["messages"], 1) for name, cpu in zip(names, used, strict=True)
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


async def idle(c):
    """Share of a core that each node uses when nothing happens, in percent; resident megabytes."""
    before = [node.cpu_seconds() for node in c]
    await asyncio.sleep(IDLE_S)
    used = [node.cpu_seconds() - start for node, start in zip(c, before, strict=True)]
    return {
        "cpu_percent": [round(cpu * 100 / IDLE_S, 2) for cpu in used],
        "memory_mb": [round(node.memory_bytes() / 1e6, 1) for node in c],
    }


def spread(values):
    return {
        "median_s": round(statistics.median(values), 3),
        "worst_s": round(max(values), 3),
        "rounds": len(values),
    }


async def measure(options):
    found = {"machine": {"cores": os.cpu_count(), "system": platform.platform()}}
    async with cluster(3) as c:
        found["idle"] = await idle(c)
        for name, prefix in (("ephemeral", "room-"), ("history", "long:")):
            found[name] = await deliver(c, prefix, options.rate, options.seconds)
    found["first_message"] = spread([await first_message() for _ in range(options.rounds)])
    found["killed_node_gone"] = spread([await death() for _ in range(options.rounds)])
    return found


def table(found):
    rows = []
    for name in ("ephemeral", "history"):
        part = found[name]
        micros = part["deliver_us"]
        rows.append(
            (
                f"publish → deliver, {name}, {part['rate']}/s",
                f"p50 {micros['p50'] / 1000:.2f} ms, p99 {micros['p99'] / 1000:.2f} ms, "
                f"max {micros['max'] / 1000:.1f} ms ({part['messages']} messages)",
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
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures to this file")
    parser.add_argument("--rate", type=int, default=1000, help="messages a second")
    parser.add_argument("--seconds", type=int, default=10, help="how long each latency run lasts")
    parser.add_argument("--rounds", type=int, default=5, help="starts and kills")
    options = parser.parse_args()
    found = asyncio.run(measure(options))
    text = json.dumps(found, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    print(text)
    print(table(found))


if __name__ == "__main__":
    main()
