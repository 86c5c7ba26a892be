"""Many kills and publications: what was lost, and how long each failover took; run by
`tests/measure failover`. Tells its progress and a table on standard error, JSON on standard output.
Fails if anything was lost that was acknowledged, or if subscribers heard nothing for longer than is
promised of one failure among three nodes."""

import asyncio
import dataclasses
import json
import sys

from harness.failover import Plan, failover
from harness.figures import add_numbers, parser

HELPS = {
    "kills": "kill -9 of the owner, successor and gateway in turn",
    "pauses": "SIGSTOP among the kills, from 0.1 s on",
    "pause_max": "seconds of the longest pause",
    "publications": "acknowledged ones, at least",
    "rate": "publications a second",
    "seed": "draws the schedule",
    "copies": "nodes that hold each publication",
    "nodes": "size of the cluster",
    "rest": "seconds before each fault; a cluster of two needs 11 to go on with one",
}


def arguments():
    plan = Plan.from_environment(kills=150, pauses=0, publications=500_000, rate=2000)
    numbers = {name: (getattr(plan, name), text) for name, text in HELPS.items()}
    words = add_numbers(parser(__doc__, "failover"), numbers)
    text = "no TCP between nodes: deaths are noticed by gossip alone"
    words.add_argument("--gossip-only", action="store_true", help=text)
    return words.parse_args(), plan


def main():
    options, plan = arguments()
    given = vars(options)
    out = given.pop("json")
    plan = dataclasses.replace(plan, **given)
    report = asyncio.run(failover(plan, say=lambda text: print(text, file=sys.stderr, flush=True)))
    text = json.dumps({**report.figures(), "problems": report.problems()}, indent=2)
    if out:
        out.write_text(text + "\n")
    print(text)
    if problems := report.problems():
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
