"""Many kills and publications: what was lost, and how long each failover took; run by
`tests/measure failover`. Tells its progress and a table on standard error, JSON on standard output.
Fails if anything was lost that was acknowledged."""

import argparse
import asyncio
import dataclasses
import json
import pathlib
import sys

from harness.failover import Plan, failover


def arguments():
    parser = argparse.ArgumentParser(prog="tests/measure failover", description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures to this file")
    plan = Plan.from_environment(kills=50, pauses=0, publications=500_000, rate=2000)
    helps = {
        "kills": "kill -9 of the owner, successor and gateway in turn",
        "pauses": "SIGSTOP for 0.3 to 3 s, among the kills",
        "publications": "acknowledged ones, at least",
        "rate": "publications a second",
        "seed": "draws the schedule",
        "copies": "nodes that hold each publication",
    }
    for name, text in helps.items():
        default = getattr(plan, name)
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} [{default}]")
    return parser.parse_args(), plan


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
