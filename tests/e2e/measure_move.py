"""A planned move of much state: a node joins three that hold it, then one of the three drains, while
publishers go on; what failed, was lost or came twice, and how long publishes waited for their
answers; run by `tests/measure move`. Fails if anything failed, was lost or came twice, or if a slot
was parked for longer than is promised.

A publish that comes while its slot changes hands waits: the longest wait is the time for which a
slot is parked, and what the busy machine adds. How late the client itself was is told beside it, and
taken off before the time is judged."""

import asyncio
import contextlib
import dataclasses
import sys
import time

from harness import cluster
from harness.bulk import Bulk
from harness.figures import add_numbers, machine, parser, percentiles, tell
from harness.recorder import REFUSED, UNANSWERED, Recorder
from harness.traffic import Traffic

NODES, COPIES = 3, 2
KEEPERS = 6
# Below the limit of a publication, with room for what is around it.
PAYLOAD_BYTES = 64_000
PUBLICATIONS_EACH = 4
# Two keepers a node share them, and a connection may have 128.
CHANNELS = [f"long:live-{number}" for number in range(200)]
ARGS = ["--set", "namespaces.long.history_ttl=1h", "--set", "drain_timeout=10m"]
MOVED_S = 300.0
CAUGHT_UP_S = 30.0
LAG_S = 0.005
# The phases in which slots change hands, all as planned.
MOVES = ("join", "drain")
SHARES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


@dataclasses.dataclass
class Phase:
    """A part of the run, and how late the client's event loop was at worst meanwhile."""

    name: str
    began: float
    ended: float = 0.0
    lag_s: float = 0.0


class Phases:
    """One after the other, each timed."""

    def __init__(self):
        self.all = []
        self._task = None

    async def __aenter__(self):
        self._task = asyncio.ensure_future(self._watch())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    @contextlib.contextmanager
    def phase(self, name):
        self.all.append(Phase(name, time.monotonic()))
        print(f"{name} …", file=sys.stderr, flush=True)
        yield
        self.all[-1].ended = time.monotonic()

    async def _watch(self):
        while True:
            due = time.monotonic() + LAG_S
            await asyncio.sleep(LAG_S)
            if self.all:
                self.all[-1].lag_s = max(self.all[-1].lag_s, time.monotonic() - due)


async def fill(c, megabytes):
    """Streams with large publications, spread over the slots; the bytes of their payloads."""
    number = max(1, megabytes * 1_000_000 // (PAYLOAD_BYTES * PUBLICATIONS_EACH))
    async with Bulk(c) as bulk:
        await bulk.commands(
            {"publish": {"channel": f"long:{n}", "data": f"{n} {turn} ".ljust(PAYLOAD_BYTES, "x")}}
            for turn in range(PUBLICATIONS_EACH)
            for n in range(number)
        )
    return number * PAYLOAD_BYTES * PUBLICATIONS_EACH


async def measure(options):
    found = {"machine": machine(), "rate": options.rate, "channels": len(CHANNELS)}
    recorder = Recorder()
    async with cluster(NODES, peers=True, more=f"copies = {COPIES}\n", args=ARGS) as c:
        async with Phases() as phases:
            with phases.phase("fill"):
                found["payload_bytes"] = await fill(c, options.megabytes)
                await c.whole()
            found["resident_mb"] = [round(node.memory_bytes() / 1e6) for node in c]
            traffic = Traffic(c, recorder, CHANNELS, options.rate, KEEPERS, sdks=("js", "python"))
            async with traffic:
                steady = options.rate * options.seconds
                with phases.phase("before"):
                    await recorder.reaches(recorder.acknowledged + steady, MOVED_S)
                with phases.phase("join"):
                    joined = await c.node("n4").start(MOVED_S)
                    found["up_after_s"] = round(time.monotonic() - phases.all[-1].began, 2)
                    await c.whole(MOVED_S)
                found["moved_slots"] = {"join": (await c.slots())[joined.name]}
                with phases.phase("between"):
                    await recorder.reaches(recorder.acknowledged + steady, MOVED_S)
                drained = c[2]
                found["moved_slots"]["drain"] = (await c.slots())[drained.name]
                with phases.phase("drain"):
                    drained.terminate()
                    assert await drained.exit_code(MOVED_S) == 0
                    c.nodes.remove(drained)
                    await c.whole(MOVED_S)
                assert "drain.timed_out" not in drained.log, drained.log
                with phases.phase("after"):
                    await recorder.reaches(recorder.acknowledged + steady, MOVED_S)
                await traffic.stop()
                lacking = await traffic.arrived(CAUGHT_UP_S)
    found["phases"] = {phase.name: waits(recorder, phase) for phase in phases.all[1:]}
    found["filled_in_s"] = round(phases.all[0].ended - phases.all[0].began, 1)
    return {**found, **outcome(recorder, lacking), "failures": traffic.failures[:5]}


def words_of(figures):
    return ", ".join(f"{name} {value}" for name, value in figures.items())


def waits(recorder, phase):
    """How long the publishes of a phase waited, in milliseconds."""
    found = recorder.waits(phase.began, phase.ended)
    _, slowest = max(found)
    return {
        "seconds": round(phase.ended - phase.began, 2),
        "acknowledged": len(found),
        "waited_ms": percentiles((wait * 1000 for wait, _ in found), digits=1, **SHARES),
        "slowest": recorder.name(slowest),
        "client_late_ms": round(phase.lag_s * 1000, 1),
    }


def parked(found, most_ms):
    """Of each move that parked a slot for longer than this: how long, beyond what the client itself
    was late."""
    waited = {
        name: round(part["waited_ms"]["max"] - part["client_late_ms"], 1)
        for name, part in found["phases"].items()
        if name in MOVES
    }
    return {f"{name} parked ms": wait for name, wait in waited.items() if wait > most_ms}


def outcome(recorder, lacking):
    return {
        "acknowledged": recorder.acknowledged,
        "failed": recorder.count(REFUSED) + recorder.count(UNANSWERED),
        "cut": len(recorder.cuts),
        "untold": len(recorder.taken_unanswered()),
        "lost": len(set().union(*lacking.values())),
        "duplicates": sum(len(account.again) for account in recorder.accounts),
        "out_of_order": sum(len(account.out_of_order()) for account in recorder.accounts),
        "positions_lost": sum(len(account.gaps) for account in recorder.accounts),
    }


def rows_of(found):
    rows = [
        ("payload, each copy", f"{found['payload_bytes'] / 1e6:.0f} MB in {found['filled_in_s']} s"),
        ("resident before", " + ".join(map(str, found["resident_mb"])) + " MB"),
        ("joined: up after", f"{found['up_after_s']} s"),
        ("slots that moved", words_of(found["moved_slots"])),
    ]
    for name, part in found["phases"].items():
        late = f"client late by {part['client_late_ms']} ms at most"
        words = f"{words_of(part['waited_ms'])} ms of {part['acknowledged']} in {part['seconds']} s ({late})"
        rows.append((f"publish → acknowledge, {name}", words))
    names = ("acknowledged", "failed", "cut", "untold", "lost", "duplicates", "out_of_order")
    return [*rows, *((name.replace("_", " "), found[name]) for name in names)]


def main():
    words = add_numbers(
        parser(__doc__, "move"),
        {
            "megabytes": (1074, "payload to be moved, of each copy"),
            "rate": (600, "publications a second meanwhile"),
            "seconds": (10, "how long before, between and after the moves"),
            "parked_max": (100, "milliseconds for which a slot may be parked"),
        },
    )
    options = words.parse_args()
    found = asyncio.run(measure(options))
    tell(found, rows_of(found), options.json)
    names = ("failed", "untold", "lost", "duplicates", "out_of_order", "positions_lost")
    wrong = {name: found[name] for name in names if found[name]}
    if wrong := wrong | parked(found, options.parked_max):
        sys.exit(f"must not be: {wrong} {found['failures']}")


if __name__ == "__main__":
    main()
