"""Faults on nodes, drawn from a seed, each begun when the cluster is whole again."""

import asyncio
import contextlib
import dataclasses
import random

from .keeper import Keeper
from .recorder import Resumption

ROLES = ("owner", "successor", "gateway")
PROBE_S = 0.02
RESUMED_S = 20.0
PAUSE_S_MIN = 0.1
# Some killed nodes are started again before anybody can have noticed.
AT_ONCE = 0.25


@dataclasses.dataclass
class Fault:
    """What happens to the node that then has a role for the channel or client number `pick`."""

    kind: str
    role: str
    pick: int
    seconds: float = 0.0
    at_once: bool = False
    victim: str = ""
    channel: str = ""
    # From the kill to the next delivery, at the last subscriber that heard again.
    resumed_s: float | None = None

    def __str__(self):
        how = f"{self.seconds:.1f} s" if self.kind == "pause" else ""
        how = "started at once" if self.at_once else how
        resumed = "" if self.resumed_s is None else f"resumed after {self.resumed_s:.2f} s"
        words = [self.kind, self.role, self.victim, self.channel, how, resumed]
        return " ".join(filter(None, words))


def schedule(seed, kills, pauses, pause_s_max):
    """The faults of a seed: roles in turn, pauses among the kills."""
    rng = random.Random(seed)
    lengths = pause_lengths(rng, pauses, pause_s_max)
    kinds = ["kill"] * kills + ["pause"] * pauses
    rng.shuffle(kinds)
    turns = {"kill": 0, "pause": 0}
    faults = []
    for kind in kinds:
        role = ROLES[turns[kind] % len(ROLES)]
        turns[kind] += 1
        fault = Fault(kind, role, rng.randrange(1 << 16))
        if kind == "pause":
            fault.seconds = lengths.pop()
        else:
            fault.at_once = rng.random() < AT_ONCE
        faults.append(fault)
    return faults


def pause_lengths(rng, number, most_s):
    """Seconds of so many pauses: the longest and the shortest that there are, and between them as
    many of each order of magnitude."""
    drawn = [PAUSE_S_MIN * (most_s / PAUSE_S_MIN) ** rng.random() for _ in range(number)]
    lengths = [round(length, 2) for length in [most_s, PAUSE_S_MIN, *drawn][:number]]
    rng.shuffle(lengths)
    return lengths


class Probe:
    """Publishes to a channel every 20 ms on a node that survives, and listens on all that do."""

    def __init__(self, recorder, channel, nodes):
        self._recorder, self.channel, self._nodes = recorder, channel, nodes
        self._stack = contextlib.AsyncExitStack()
        self.listeners = []

    async def __aenter__(self):
        """It flows: every listener heard of it."""
        await self._stack.__aenter__()
        for node in self._nodes:
            account = self._recorder.visitor(f"probe-{node.name}", "probe", [self.channel])
            keeper = Keeper(account.name, [node], account)
            self.listeners.append(account)
            await self._stack.enter_async_context(keeper)
            self._publisher = keeper
        line = self._recorder.line(self.channel, "probe")
        flows = Resumption(self.listeners, [self.channel])
        task = asyncio.ensure_future(self._publish(line))
        self._stack.push_async_callback(self._stop, task)
        await flows.worst(RESUMED_S)
        return self

    async def __aexit__(self, *_):
        await self._stack.aclose()

    async def _publish(self, line):
        while True:
            await self._publisher.publish([line])
            await asyncio.sleep(PROBE_S)

    async def _stop(self, task):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await self._publisher.all_answered(RESUMED_S)


class Faults:
    """Carries a schedule out on a cluster under traffic."""

    def __init__(self, c, traffic, say=print, rest=0):
        self._cluster, self._traffic, self._say, self._rest = c, traffic, say, rest

    async def carry_out(self, faults):
        for number, fault in enumerate(faults, 1):
            await self._cluster.whole()
            await asyncio.sleep(self._rest)
            await getattr(self, f"_{fault.kind}")(fault)
            self._say(f"{number}/{len(faults)} {fault}")
        await self._cluster.whole()

    async def _kill(self, fault):
        victim = await self._victim(fault)
        survivors = [node for node in self._cluster if node is not victim]
        channels = {fault.channel}
        if fault.role == "gateway":
            channels.update(await self._channels_not_owned_by(victim))
        async with Probe(self._traffic.recorder, fault.channel, survivors) as probe:
            cut_off = self._accounts_on(victim, channels)
            listeners = cut_off if fault.role == "gateway" else probe.listeners
            resumption = Resumption(listeners, channels)
            victim.kill()
            if fault.at_once:
                victim.launch()
            fault.resumed_s = await resumption.worst(RESUMED_S)
        if not fault.at_once:
            victim.launch()

    def _accounts_on(self, node, channels):
        """Of the clients whose gateway a node is, if they listen to any of these channels."""
        accounts = [client.account for client in self._traffic.clients if client.node is node]
        return [account for account in accounts if account.channels & channels]

    async def _pause(self, fault):
        victim = await self._victim(fault)
        victim.pause()
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            victim.resume()

    async def _victim(self, fault):
        """The node that has the role now; names it and a channel in the fault."""
        if fault.role == "gateway":
            victim = await self._gateway(fault)
        else:
            channels = self._traffic.channels
            fault.channel = channels[fault.pick % len(channels)]
            names = await self._placement(fault.channel)
            victim = self._cluster.named(names[ROLES.index(fault.role)])
        fault.victim = victim.name
        return victim

    async def _gateway(self, fault):
        """The gateway of a client, and a channel of the client that it doesn't own if there is
        one, so that the client's way is all that is cut."""
        clients = [client for client in self._traffic.clients if client.node is not None]
        client = clients[fault.pick % len(clients)]
        own = sorted(client.account.channels)
        others = [name for name in await self._channels_not_owned_by(client.node) if name in own]
        fault.channel = (others or own)[fault.pick % len(others or own)]
        return client.node

    async def _channels_not_owned_by(self, node):
        channels = self._traffic.channels
        placed = await asyncio.gather(*(self._placement(channel) for channel in channels))
        return [name for name, at in zip(channels, placed, strict=True) if at[0] != node.name]

    async def _placement(self, channel):
        return await self._cluster.running[0].placement(channel)
