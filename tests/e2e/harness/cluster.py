"""A cluster of real processes, written as a sentence: `async with cluster(3) as c:`."""

import asyncio
import contextlib
import itertools
import pathlib
import tempfile
import time

from .node import Node, orbweb
from .waiting import POLL_S, eventually

SLOTS = 16384


class Cluster:
    """Nodes that know each other; `c[0]` is the seed of the others."""

    def __init__(self, folder, **options):
        self.folder = pathlib.Path(folder)
        self.options = options
        self.nodes = []
        self.secret = self.new_secret("secret")

    def __getitem__(self, number):
        return self.nodes[number]

    def __iter__(self):
        return iter(self.nodes)

    def __len__(self):
        return len(self.nodes)

    def new_secret(self, name):
        """A file with a secret of its own."""
        path = self.folder / name
        path.write_text(orbweb("secret").stdout)
        path.chmod(0o600)
        return path

    def node(self, name=None, join=None, **options):
        """A node that isn't started yet; it joins through the first unless told otherwise. Every
        second one runs on one thread."""
        name = name or f"n{len(self.nodes) + 1}"
        options.setdefault("one_thread", len(self.nodes) % 2 == 1)
        join = self.nodes[:1] if join is None else join
        options = {"secret": self.secret, **self.options, **options}
        node = Node(name, self.folder, join=join, **options)
        self.nodes.append(node)
        return node

    def introduce(self):
        """Tells every node of all others, for its next start."""
        for node in self.nodes:
            node.join = [other for other in self.nodes if other is not node]

    async def add(self, name=None, **options):
        """A new node, started and ready."""
        return await self.node(name, **options).start()

    @property
    def running(self):
        return [node for node in self.nodes if node.running]

    def named(self, name):
        return next(node for node in self.nodes if node.name == name and node.running)

    async def settled(self, within=15.0):
        """Every running node sees exactly the running nodes, their views are equal, and all slots
        have one owner."""
        names = sorted(node.name for node in self.running)

        async def agreed():
            views = await asyncio.gather(*(node.members() for node in self.running))
            for node, view in zip(self.running, views, strict=True):
                assert sorted(view) == names, f"{node.name} sees {sorted(view)}, not {names}"
                owned = {name: member["slots_owned"] for name, member in view.items()}
                assert sum(owned.values()) == SLOTS, f"{node.name} says of slots: {owned}"
                # A node that isn't in the views yet owns nothing.
                assert all(owned.values()), f"{node.name} says of slots: {owned}"
                claiming = {name: member["slots_claiming"] for name, member in view.items()}
                assert not any(claiming.values()), f"{node.name} says of claims: {claiming}"
                hashes = {name: member["view_hash"] for name, member in view.items()}
                assert len(set(hashes.values())) == 1, f"{node.name} says of views: {hashes}"
            return True

        await eventually(agreed, within, "the cluster settled")
        return self

    async def whole(self, within=75.0):
        """Every node runs, is ready, serves with all copies, has them of all its slots, and agrees
        with the others on who owns what. The time allows for the longest patience with a node that was paused again and
        again."""
        assert self.running == self.nodes, f"only {self.running} run"
        await asyncio.gather(*(node.ready(within) for node in self.nodes))
        await self.settled(within)
        await eventually(self._full, within, "every node serves with all copies")
        return self

    async def _full(self):
        members = await self.running[0].members()
        serving = {name: member["serving"] for name, member in members.items()}
        assert set(serving.values()) == {"full"}, serving
        for said in ("slots_under_replicated", "slots_astray"):
            slots = {name: member[said] for name, member in members.items()}
            assert not any(slots.values()), f"{said}: {slots}"
        return True

    async def slots(self):
        """Name → slots owned, as the first running node is told."""
        members = await self.running[0].members()
        return {name: member["slots_owned"] for name, member in members.items()}

    async def key(self, owner, prefix="chat:", avoid=()):
        """A key with this prefix that `owner` owns."""
        for number in itertools.count():
            key = f"{prefix}{number}"
            if key not in avoid and await self.running[0].owner(key) == owner.name:
                return key
            assert number < 2000, f"{owner} owns none of 2000 keys"

    async def lined(self):
        """Every running node has a lifeline with every other."""

        async def all_lined():
            up = [await node.counter("orbweb_lifeline_up") for node in self.running]
            assert up == [len(up) - 1] * len(up), f"lifelines: {up}"
            return True

        await eventually(all_lined, 10, "lifelines between all")

    async def gone(self, node, key, within=1.5, poll=POLL_S):
        """Waits until no other running node's view has `node`: none takes it for the owner of a key
        that it owned. Returns the seconds that took. (`/api/status` would ask the dead node.)"""
        began = time.monotonic()

        async def unanimous():
            others = [other for other in self.running if other is not node]
            owners = await asyncio.gather(*(other.owner(key) for other in others))
            return node.name not in owners

        await eventually(unanimous, within, f"{node.name} gone from every view", poll)
        return time.monotonic() - began

    def panics(self):
        """Lines of any node's log that tell of a panic."""
        logs = self.folder.glob("*.log")
        return [
            f"{log.name}: {line}"
            for log in logs
            for line in log.read_text(errors="replace").splitlines()
            if "panicked at" in line
        ]

    def tails(self, lines=25):
        """The ends of all logs, for a failed test."""
        return "\n".join(
            f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
            for log in sorted(self.folder.glob("*.log"))
        )


@contextlib.asynccontextmanager
async def cluster(size, start=True, peers=False, **options):
    """`size` nodes, started one after the other through the first, settled; all killed at the end.
    With `peers` each is told of all others, so that any of them can be started again. A panic in
    any of them fails the test."""
    with tempfile.TemporaryDirectory(prefix="orbweb-e2e-") as folder:
        web = Cluster(folder, **options)
        try:
            for _ in range(size):
                web.node()
            if peers:
                web.introduce()
            if start:
                for node in web.nodes:
                    node.launch()
                await asyncio.gather(*(node.ready() for node in web.nodes))
                if size > 1:
                    await web.settled()
            yield web
        except BaseException:
            print(web.tails())
            raise
        finally:
            for node in web.running:
                node.kill()
        panics = web.panics()
        assert not panics, "\n".join(panics)
