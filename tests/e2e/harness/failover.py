"""The run that proves "nothing acknowledged is lost": a cluster under traffic and faults, and the
report of what its clients recorded."""

import dataclasses
import math
import os
import time

from .cluster import cluster
from .faults import ROLES, Faults, schedule
from .figures import percentiles, table
from .recorder import ACKNOWLEDGED, CUT, REFUSED, UNANSWERED, Recorder
from .traffic import Traffic

CAUGHT_UP_S = 20.0
# Streams keep everything: `long:` holds 20,000 publications.
CHANNELS_MIN = 12
CHANNEL_PUBLICATIONS_MAX = 12_000
# Half of them a client: it may have 128.
CHANNELS_MAX = 250
# What a client recovers of a channel: no outage may hold up more, and one lasts this much longer
# than the pause that makes it.
RECOVERED_MAX = 300
OUTAGE_S = 3
# Of what is published in a channel with an SDK publisher.
SDK_SHARE = 0.4
# What is promised of one failure among three nodes or more: seconds until subscribers hear again.
# Shares of few kills say nothing, and one alone may have met a machine that stood still.
RESUMED_S_MAX = {"p50": (10, 0.8), "p99": (50, 1.5), "max": (1, 5.0)}


@dataclasses.dataclass
class Plan:
    """What a run does. Each field can be set in the environment, as `ORBWEB_FAILOVER_SEED`."""

    kills: int = 6
    pauses: int = 0
    # Seconds of the longest pause; the shortest is 0.1 s.
    pause_max: int = 3
    # Acknowledged ones, at least; more if the faults take longer.
    publications: int = 20_000
    # Publications a second of all light publishers together.
    rate: int = 600
    seed: int = 1
    copies: int = 2
    nodes: int = 4
    # Deaths are noticed by gossip alone.
    gossip_only: bool = False
    # Seconds in which nothing happens before each fault: a cluster of two needs 10 to know its
    # stable membership, without which a survivor doesn't go on alone.
    rest: int = 0
    sdks: tuple = ("js", "python", "js", "python")

    @classmethod
    def from_environment(cls, **fields):
        for field in ("kills", "pauses", "pause_max", "publications", "rate", "seed"):
            if value := os.environ.get(f"ORBWEB_FAILOVER_{field.upper()}"):
                fields[field] = int(value)
        return cls(**fields)

    @property
    def channel_rate(self):
        """Publications a second of one channel, at most."""
        return RECOVERED_MAX / (OUTAGE_S + self.pause_max)

    @property
    def channels(self):
        kept = math.ceil(self.publications / CHANNEL_PUBLICATIONS_MAX)
        recovered = math.ceil(self.rate / (self.channel_rate * (1 - SDK_SHARE)))
        number = max(CHANNELS_MIN, kept, recovered)
        assert number <= CHANNELS_MAX, f"{number} channels: a lower rate or shorter pauses, please"
        return [f"long:{number}" for number in range(number)]


@dataclasses.dataclass
class Report:
    """What became of a run's publications."""

    plan: Plan
    seconds: float
    faults: list
    recorder: Recorder
    # Account → what was acknowledged and never reached it.
    lacking: dict

    @property
    def lost(self):
        """Publications that some subscriber lacks."""
        return set().union(*self.lacking.values())

    @property
    def gaps(self):
        return [(x.name, *gap) for x in self.recorder.accounts for gap in x.gaps]

    @property
    def foreign(self):
        return [(x.name, *item) for x in self.recorder.accounts for item in x.foreign]

    @property
    def out_of_order(self):
        return self._named(lambda account: account.out_of_order())

    def duplicates(self, kind=None):
        return self._named(lambda account: account.again if kind in (None, account.kind) else [])

    @property
    def refused(self):
        """Publishes that got an error or no answer while their connection lived."""
        return self.recorder.count(REFUSED) + self.recorder.count(UNANSWERED)

    @property
    def cut(self):
        """Publishes whose connection ended before the answer."""
        return self.recorder.count(CUT)

    def problems(self):
        """What must not have happened, in words. Pauses can reorder and repeat."""
        promised = {
            "acknowledged and lost": sorted(map(self.recorder.name, self.lost)),
            "positions lost": self.gaps,
            "never sent, yet received": self.foreign,
        }
        if self.plan.pauses == 0:
            promised["out of order"] = self.out_of_order
            promised["received twice"] = self.duplicates()
        found = [f"{len(found)} {what}: {found[:5]}" for what, found in promised.items() if found]
        return found + self._slow()

    def _slow(self):
        """Of each role, what took longer than promised, in words."""
        if self.plan.nodes < 3:
            return []
        return [
            f"{share} of {found['n']} failovers, {role} killed: {found[share]} s"
            for role, found in by_role(self._kills, spread).items()
            for share, (enough, most_s) in RESUMED_S_MAX.items()
            if found["n"] >= enough and found[share] >= most_s
        ]

    @property
    def _kills(self):
        return [fault for fault in self.faults if fault.kind == "kill"]

    def figures(self):
        """The report as numbers, for JSON."""
        kills = self._kills
        kinds = sorted({account.kind for account in self.recorder.accounts})
        return {
            **dataclasses.asdict(self.plan),
            "seconds": round(self.seconds, 1),
            "acknowledged": self.recorder.acknowledged,
            "lost": len(self.lost),
            "positions_lost": len(self.gaps),
            "never_sent": len(self.foreign),
            "out_of_order": len(self.out_of_order),
            "duplicates": {kind: len(self.duplicates(kind)) for kind in kinds},
            "unknown": {"refused": self.refused, "cut": self.cut},
            "kills_by_role": by_role(kills, len),
            "pauses_by_role": by_role([x for x in self.faults if x.kind == "pause"], len),
            "failover_pause_s": by_role(kills, spread),
            "faults": [dataclasses.asdict(fault) for fault in self.faults],
        }

    def table(self):
        found = self.figures()
        rows = [
            ("acknowledged", f"{found['acknowledged']} in {found['seconds']} s"),
            ("lost", found["lost"]),
            ("positions lost", found["positions_lost"]),
            ("never sent, yet received", found["never_sent"]),
            ("out of order", found["out_of_order"]),
            ("duplicates", words(found["duplicates"])),
            ("unknown", words(found["unknown"])),
            ("kills", words(found["kills_by_role"])),
            ("pauses of a process", words(found["pauses_by_role"])),
        ]
        for role, pause in found["failover_pause_s"].items():
            rows.append((f"failover pause, {role} killed", f"{words(pause)} s"))
        return table(rows)

    def _named(self, found):
        name = self.recorder.name
        return [(x.name, name(item)) for x in self.recorder.accounts for item in found(x)]


def by_role(faults, figure):
    return {
        role: figure(mine) for role in ROLES if (mine := [x for x in faults if x.role == role])
    }


def spread(kills):
    """The failover pauses, and of how many kills."""
    pauses = percentiles((kill.resumed_s for kill in kills), p50=0.5, p99=0.99, max=1.0)
    return {"n": len(kills), **pauses}


def words(figures):
    return ", ".join(f"{name} {value}" for name, value in figures.items()) or "none"


async def failover(plan, say=print):
    """Carries a plan out and reports."""
    say(f"failover, replayed by {plan}")
    began = time.monotonic()
    recorder = Recorder()
    faults = schedule(plan.seed, plan.kills, plan.pauses, plan.pause_max)
    options = {"more": f"copies = {plan.copies}\n", "lifelines": not plan.gossip_only}
    async with cluster(plan.nodes, peers=True, **options) as c:
        if plan.gossip_only:
            lifelines = [await node.counter("orbweb_lifeline_up") for node in c]
            assert not any(lifelines), f"lifelines: {lifelines}"
        traffic = Traffic(
            c,
            recorder,
            plan.channels,
            plan.rate,
            sdks=plan.sdks,
            seed=plan.seed,
            sdk_pause_s=1 / (plan.channel_rate * SDK_SHARE),
        )
        async with traffic:
            await Faults(c, traffic, say, plan.rest).carry_out(faults)
            await recorder.reaches(plan.publications, 30 + plan.publications / plan.rate * 3)
            await traffic.stop()
            lacking = await traffic.arrived(CAUGHT_UP_S)
    seconds = time.monotonic() - began
    report = Report(plan, seconds, faults, recorder, lacking)
    say(report.table())
    return report
