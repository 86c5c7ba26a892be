"""What a cluster costs as it grows: real processes at their start, at rest, while a channel is
published to, when one of them is killed and when one joins; run by `tests/measure scale`. Prints a
table in Markdown.

All nodes and clients share this machine's cores, so times grow with what all nodes together have to
do; the CPU that one node uses doesn't. A datagram is what the kernel is handed at once, maybe several
packets for one peer."""

import argparse
import asyncio
import pathlib
import statistics
import time

from harness import cluster, eventually
from harness.cluster import SLOTS
from harness.figures import add_numbers, machine, parser, tell
from harness.latency import latency, used

HOME_S = 180.0
POLL_S = 0.02
# Headings, and where the figure below each is.
COLUMNS = {
    "nodes": ("nodes",),
    "links a node": ("links",),
    "memory a node, PSS, MB": ("memory_mb", "pss"),
    "start, s": ("start", "seconds"),
    "start, CPU a node, ms": ("start", "cpu_ms"),
    "at rest, CPU a node, ms/s": ("rest", "cpu_ms"),
    "at rest, datagrams a node, 1/s": ("rest", "datagrams"),
    "at rest, bytes a node, 1/s": ("rest", "bytes"),
    "a publication, datagrams": ("publication", "datagrams"),
    "a publication, p99, ms": ("publication", "p99_ms"),
    **{
        f"{words}, {figure}": (name, key)
        for name, words in (("death", "kill -9"), ("join", "join"))
        for figure, key in (
            ("s", "seconds"),
            ("claims", "claims"),
            ("datagrams", "datagrams"),
            ("CPU a node, ms", "cpu_ms"),
        )
    },
}
# What the plot shows, a panel each: its title, and lines by columns.
PANELS = {
    "until all is home, s": ("start, s", "kill -9, s", "join, s"),
    "CPU a node, ms": ("start, CPU a node, ms", "kill -9, CPU a node, ms", "join, CPU a node, ms"),
    "datagrams of all nodes": ("kill -9, datagrams", "join, datagrams"),
    "datagrams": ("at rest, datagrams a node, 1/s", "a publication, datagrams"),
    "at rest, CPU a node, ms/s": ("at rest, CPU a node, ms/s",),
    "links and memory of a node": ("links a node", "memory a node, PSS, MB"),
}


def datagrams():
    """UDP datagrams that the processes of this machine have sent."""
    lines = pathlib.Path("/proc/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp: "))
    return int(values[names.index("OutDatagrams")])


def loopback_bytes():
    """Bytes that went over loopback."""
    lines = pathlib.Path("/proc/net/dev").read_text().splitlines()
    (values,) = (line.split()[1:] for line in lines if line.split()[0] == "lo:")
    return int(values[0])


async def home(c, observer):
    """Waits until the running nodes, and no others, are one cluster: equal views, each slot with one
    owner and all its copies. All are asked through one of them: to ask each for all others would be
    more work than what is measured."""
    names = sorted(node.name for node in c.running)

    async def agreed():
        members = await observer.members()
        assert sorted(members) == names, f"members: {sorted(members)}"
        said = list(members.values())
        assert len({each["view_hash"] for each in said}) == 1, "views differ"
        assert sum(each["slots_owned"] for each in said) == SLOTS, "not every slot has one owner"
        for lacking in ("slots_claiming", "slots_under_replicated", "slots_astray"):
            assert not any(each[lacking] for each in said), lacking
        return True

    await eventually(agreed, HOME_S, f"{len(names)} nodes are one cluster", POLL_S)


async def claims_of(nodes):
    """Claims that each node has begun since its start."""
    found = await asyncio.gather(*(node.counter("orbweb_claim_begun_total") for node in nodes))
    return dict(zip(nodes, found, strict=True))


async def change(c, doing):
    """What it takes until all is home after something that changes who is there."""
    observer, there = c[0], c.running
    claims = await claims_of(there)
    cpu = {node: node.cpu_seconds() for node in there}
    sent, began = datagrams(), time.monotonic()
    await doing()
    await home(c, observer)
    seconds, sent = time.monotonic() - began, datagrams() - sent
    stayed = [node for node in there if node.running]
    used_s = statistics.mean(node.cpu_seconds() - cpu[node] for node in stayed)
    begun = (await claims_of(c.running)).items()
    return {
        "seconds": round(seconds, 2),
        "claims": round(sum(number - claims.get(node, 0) for node, number in begun)),
        "datagrams": sent,
        "cpu_ms": round(used_s * 1000, 1),
    }


async def start(c):
    """From launching all processes at once."""
    began = time.monotonic()
    for node in c:
        node.launch()
    await asyncio.gather(*(node.ready(HOME_S, poll=0.2) for node in c))
    await home(c, c[0])
    seconds = time.monotonic() - began
    cpu = statistics.mean(node.cpu_seconds() for node in c)
    return {"seconds": round(seconds, 2), "cpu_ms": round(cpu * 1000)}


async def rest(c, seconds):
    """What a node costs in a second in which nothing happens."""
    sent, carried = datagrams(), loopback_bytes()
    _, cpu = await used(c, asyncio.sleep(seconds))
    node_seconds = len(c) * seconds
    return {
        "cpu_ms": round(sum(cpu) * 1000 / node_seconds, 2),
        "datagrams": round((datagrams() - sent) / node_seconds, 1),
        "bytes": round((loopback_bytes() - carried) / node_seconds),
    }


async def publish(c, idle, rate, seconds):
    """What a publication costs with its publisher, owner and subscriber on three nodes."""
    publisher, owner, subscriber = c.nodes[:3]
    channel = await c.key(owner, "long:")
    sent, began = datagrams(), time.monotonic()
    found = await latency(publisher, subscriber, channel, rate, seconds)
    at_rest = idle["datagrams"] * len(c) * (time.monotonic() - began)
    return {
        "datagrams": round((datagrams() - sent - at_rest) / found["sent"], 1),
        "p99_ms": round(found["deliver_us"]["p99"] / 1000, 2),
    }


async def grown(size, options):
    """The figures of one size."""
    async with cluster(size, start=False, one_thread=False) as c:
        found = {"nodes": size, "start": await start(c)}
        await c.lined()
        found["rest"] = await rest(c, options.rest)
        found["links"] = max([await node.counter("orbweb_link_up") for node in c])
        pss = statistics.mean(node.pss_bytes() for node in c)
        found["memory_mb"] = {"pss": round(pss / 1e6, 1)}
        found["publication"] = await publish(c, found["rest"], options.rate, options.seconds)
        dies = c[-1]
        key = await c.key(dies)

        async def death():
            dies.kill()
            # Until then it would be asked, too.
            await c.gone(dies, key, within=10, poll=POLL_S)

        found["death"] = await change(c, death)
        found["join"] = await change(c, c.node("joining").start)
    return found


async def measure(options):
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)
    found = {"machine": machine(), "sizes": []}
    for size in options.sizes:
        one = await grown(size, options)
        found["sizes"].append(one)
        print(f"| {' | '.join(f'{figure(one, column):,}' for column in COLUMNS)} |", flush=True)
    return found


def figure(found, column):
    """One figure of one size."""
    for key in COLUMNS[column]:
        found = found[key]
    return found


def plot(sizes, file):
    """One panel for each kind of figure, over the number of nodes."""
    # Only here: nothing else needs the library.
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    # Text stays text, and the same figures make the same file.
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "scale", "font.size": 9}
    nodes = [figure(one, "nodes") for one in sizes]
    picture = Figure(figsize=(10, 6), layout="constrained")
    for axes, (title, columns) in zip(picture.subplots(2, 3).flat, PANELS.items(), strict=True):
        for column in columns:
            label = column.removesuffix(title).rstrip(", ") or column
            axes.plot(nodes, [figure(one, column) for one in sizes], marker="o", label=label)
        axes.set(title=title, xscale="log", yscale="log", xticks=nodes, xlabel="nodes")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(plain)
            axis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.grid(alpha=0.3)
        axes.legend()
    picture.savefig(file, format="svg", metadata={"Date": None})


def sizes_of(words):
    """Numbers of nodes, of which a publication needs three."""
    sizes = [int(word) for word in words.split(",")]
    if min(sizes) < 3:
        raise argparse.ArgumentTypeError("publisher, owner and subscriber are three nodes")
    return sizes


def main():
    words = add_numbers(
        parser(__doc__, "scale"),
        {
            "rest": (10, "seconds in which nothing happens"),
            "rate": (200, "publications a second"),
            "seconds": (5, "how long they are published"),
        },
    )
    text = "numbers of nodes [3,10,20]"
    words.add_argument("--sizes", type=sizes_of, default=[3, 10, 20], help=text)
    words.add_argument("--plot", type=pathlib.Path, help="also draw the figures, as SVG")
    options = words.parse_args()
    found = asyncio.run(measure(options))
    tell(found, [], options.json)
    if options.plot:
        plot(found["sizes"], options.plot)


if __name__ == "__main__":
    main()
