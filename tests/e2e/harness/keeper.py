"""A light client that keeps its positions as SDKs do, for volume.

It holds one connection to one node, and after it ends to any other; subscribes again from the epoch
and offset that it has; and never sends a publication twice."""

import asyncio
import contextlib
import random

import websockets

from .raw import Raw
from .recorder import ACKNOWLEDGED, CUT, REFUSED
from .settings import token

RETRY_S = 0.05
DIAL_S = 5.0
RESUBSCRIBE = 2500


class Keeper:
    """A subscriber, and a publisher of lines whose channels it is subscribed to."""

    def __init__(self, name, nodes, account, learns_epochs=True, seed=0):
        self.name, self.account = name, account
        self.channels = sorted(account.channels)
        self.node = None
        self.session = 0
        # JavaScript's flag: it takes a new epoch from the publication that comes with it.
        self._flag = {"flag": 1} if learns_epochs else {}
        self._nodes = list(nodes)
        self._random = random.Random(f"{seed} {name}")
        self._raw = None
        self._id = 0
        # The highest command that was answered: all before it had reached the server.
        self._answered_id = 0
        self._positions = {}
        self._subscribed = set()
        self._asked = {}
        self._publishing = {}
        self._retries = set()
        self._task = None
        self._all_subscribed = asyncio.Event()
        self._answered = asyncio.Event()

    async def __aenter__(self):
        return await self.start()

    async def __aexit__(self, *_):
        await self.close()

    async def start(self, within=10.0):
        """Connects to the first of its nodes and subscribes to all its channels."""
        self._task = asyncio.ensure_future(self._run())
        await self.subscribed(within)
        return self

    async def subscribed(self, within=10.0):
        async with asyncio.timeout(within):
            await self._all_subscribed.wait()

    async def close(self):
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def can_publish(self, line):
        return line.channel in self._subscribed

    async def publish(self, lines):
        """Sends the next publication of each of these lines in one frame and doesn't wait for the
        answers. Returns the numbers; lines whose channel isn't subscribed now are left out."""
        session, commands, sent = self.session, [], []
        for line in filter(self.can_publish, lines):
            number = line.send(session)
            content = {"channel": line.channel, "data": [line.number, number]}
            commands.append({"id": self._next(), "publish": content})
            self._publishing[self._id] = (line, number)
            sent.append((line, number))
        # A connection that is gone answers none of them: `_lose` says so.
        with contextlib.suppress(websockets.ConnectionClosed, OSError):
            if commands:
                await self._raw.send(*commands)
        return sent

    async def publish_until_acknowledged(self, line, within=20.0):
        """New numbers of a line until one is acknowledged; returns that one."""
        async with asyncio.timeout(within):
            while True:
                await self._all_subscribed.wait()
                for _, number in await self.publish([line]):
                    await self.all_answered(within)
                    if line.acknowledged(number):
                        return number
                await asyncio.sleep(RETRY_S)

    async def all_answered(self, within):
        """Waits until nothing that was sent waits for its answer; the rest stays unanswered."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._publishing:
                    self._answered.clear()
                    await self._answered.wait()

    async def _run(self):
        nodes = list(self._nodes)
        while True:
            for node in nodes:
                with contextlib.suppress(OSError, websockets.WebSocketException, TimeoutError):
                    await self._serve(node)
            await asyncio.sleep(RETRY_S)
            self._random.shuffle(nodes)

    async def _serve(self, node):
        """One connection, to its end."""
        async with await Raw.dial(node.ws, open_timeout=DIAL_S) as raw:
            try:
                self._raw, self.session = raw, self.session + 1
                await raw.connect(token=token(self.name))
                self.node = node
                await self._subscribe(*self.channels)
                async for message in raw.messages():
                    await self._handle(message)
            finally:
                self._lose()

    def _lose(self):
        self.node = None
        self._subscribed.clear()
        self._asked.clear()
        for task in self._retries:
            task.cancel()
        for command, (line, number) in self._publishing.items():
            line.answer(number, CUT, overtaken=command < self._answered_id)
        self._publishing.clear()
        self._answered.set()
        self._all_subscribed.clear()

    async def _subscribe(self, *channels):
        commands = []
        for channel in channels:
            position = self._positions.get(channel)
            from_there = {"recover": True, **position} if position else {}
            content = {"channel": channel, **self._flag, **from_there}
            commands.append({"id": self._next(), "subscribe": content})
            self._asked[self._id] = channel
        await self._raw.send(*commands)

    async def _handle(self, message):
        if "push" in message:
            await self._handle_push(message["push"])
        elif not message:
            await self._raw.socket.send("{}")
        else:
            self._handle_answer(message)

    def _handle_answer(self, message):
        self._answered_id = max(self._answered_id, message["id"])
        if message["id"] in self._publishing:
            line, number = self._publishing.pop(message["id"])
            line.answer(number, REFUSED if "error" in message else ACKNOWLEDGED)
            self._answered.set()
        elif message["id"] in self._asked:
            self._handle_subscribed(self._asked.pop(message["id"]), message)

    async def _handle_push(self, push):
        channel = push.get("channel")
        if "pub" in push:
            self._handle_publication(channel, push["pub"])
        elif "unsubscribe" in push:
            self._subscribed.discard(channel)
            self._all_subscribed.clear()
            if push["unsubscribe"]["code"] >= RESUBSCRIBE:
                await self._subscribe(channel)
            else:
                self.account.ended(channel, f"unsubscribed {push['unsubscribe']['code']}")
        elif "disconnect" in push:
            await self._raw.socket.close()

    def _handle_subscribed(self, channel, message):
        if "error" in message:
            self._handle_refused(channel, message["error"])
            return
        result = message["subscribe"]
        self.account.subscribed(channel, result.get("recovered", False))
        position = {"epoch": result.get("epoch", ""), "offset": result.get("offset", 0)}
        self._positions[channel] = position
        for publication in result.get("publications", []):
            self._handle_publication(channel, publication)
        self._subscribed.add(channel)
        if len(self._subscribed) == len(self.channels):
            self._all_subscribed.set()

    def _handle_refused(self, channel, error):
        if not error.get("temporary"):
            self.account.ended(channel, f"error {error['code']}")
            self._positions.pop(channel, None)
        retry = asyncio.ensure_future(self._subscribe_later(channel))
        self._retries.add(retry)
        retry.add_done_callback(self._retries.discard)

    async def _subscribe_later(self, channel):
        await asyncio.sleep(RETRY_S)
        with contextlib.suppress(websockets.ConnectionClosed, OSError):
            await self._subscribe(channel)

    def _handle_publication(self, channel, publication):
        position = self._positions[channel]
        if publication.get("epoch"):
            position["epoch"] = publication["epoch"]
        position["offset"] = publication.get("offset", position["offset"])
        self.account.received(channel, publication["data"])

    def _next(self):
        self._id += 1
        return self._id
