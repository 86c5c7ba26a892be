"""What copies cost: CPU and latency of an acknowledged publication with 1, 2 and 3 of them, on four
nodes, in turns; run by `tests/measure copies`.

Publisher, owner and subscriber sit on three different nodes. CPU is that of all four nodes, without
what they use when nothing happens; the clients share this machine's cores."""

import asyncio
import statistics

from harness import cluster
from harness.figures import add_numbers, machine, millis, parser, tell
from harness.latency import latency, used

NODES = 4
COPIES = (1, 2, 3)


async def publish(copies, rate, seconds, rest):
    """One run on a cluster of its own; names and ports apart, each is the same."""
    async with cluster(NODES, more=f"copies = {copies}\n") as c:
        publisher, owner, subscriber, _ = c
        channel = await c.key(owner, "long:")
        _, idle = await used(c, asyncio.sleep(rest))
        found, cpu = await used(c, latency(publisher, subscriber, channel, rate, seconds))
    found["idle_percent"] = round(sum(idle) * 100 / rest, 2)
    at_rest = sum(idle) / rest * found["sent"] / rate
    found["cpu_us"] = round((sum(cpu) - at_rest) * 1e6 / found["sent"], 1)
    found["cpu_us_with_idle"] = round(sum(cpu) * 1e6 / found["sent"], 1)
    return found


def median(runs):
    """The median run of each figure."""
    found = {"cpu_us": statistics.median(run["cpu_us"] for run in runs)}
    found["cpu_us_with_idle"] = statistics.median(run["cpu_us_with_idle"] for run in runs)
    for figure in ("acknowledge_us", "deliver_us"):
        found[figure] = {
            name: statistics.median(run[figure][name] for run in runs) for name in runs[0][figure]
        }
    return {**found, "runs": runs}


async def measure(options):
    found = {"machine": machine(), "nodes": NODES, "rate": options.rate}
    runs = {copies: [] for copies in COPIES}
    for _ in range(options.rounds):
        for copies in COPIES:
            run = await publish(copies, options.rate, options.seconds, options.idle)
            runs[copies].append(run)
    return {**found, "copies": {copies: median(each) for copies, each in runs.items()}}


def rows_of(found):
    rows = []
    for copies, part in found["copies"].items():
        cpu = f"{part['cpu_us']} µs ({part['cpu_us_with_idle']} µs with what idles)"
        rows.append((f"copies = {copies}, CPU of all nodes a publication", cpu))
        rows.append((f"copies = {copies}, publish → acknowledge", millis(part["acknowledge_us"])))
        rows.append((f"copies = {copies}, publish → deliver", millis(part["deliver_us"])))
    return rows


def main():
    words = add_numbers(
        parser(__doc__, "copies"),
        {
            "rate": (1000, "publications a second, 1000 at most: a connection may send no more"),
            "seconds": (8, "how long each run lasts"),
            "rounds": (3, "runs with each number of copies"),
            "idle": (3, "seconds in which nothing happens, before each run"),
        },
    )
    options = words.parse_args()
    found = asyncio.run(measure(options))
    tell(found, rows_of(found), options.json)


if __name__ == "__main__":
    main()
