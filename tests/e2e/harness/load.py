"""Steady traffic over many channels, and the account of what became of it."""

import asyncio

from .clients import connect
from .settings import token


class Load:
    """One publisher a channel at a steady pace; listeners that are subscribed to every channel."""

    def __init__(self, channels, pause):
        self.channels = channels
        self.pause = pause
        self.sent = {channel: 0 for channel in channels}
        self.failed = []
        self.listeners = {}
        self._publishers = []
        self._tasks = []

    async def listen(self, name, to, sdk="python"):
        """Adds a listener connected to a node or cable."""
        client = await connect(sdk, to, token=token(f"listener-{name}"))
        for channel in self.channels:
            await client.subscribe(channel)
        self.listeners[name] = client
        return client

    async def publish_on(self, *nodes):
        """Starts publishing, the channels shared out among these nodes."""
        for number, node in enumerate(nodes):
            client = await connect("python", node, token=token(f"publisher-{number}"))
            self._publishers.append(client)
            for channel in self.channels[number :: len(nodes)]:
                await client.subscribe(channel)
                self._tasks.append(asyncio.ensure_future(self._publish(client, channel)))

    async def _publish(self, client, channel):
        while True:
            number = self.sent[channel]
            try:
                await client.publish(channel, number)
                self.sent[channel] = number + 1
            except asyncio.CancelledError:
                raise
            except Exception as error:  # whatever the SDK raises is a failed publish
                self.failed.append((channel, number, repr(error)))
            await asyncio.sleep(self.pause)

    async def flows(self, number=3, within=10.0):
        """Waits until every channel got `number` more publications through."""
        goal = {channel: sent + number for channel, sent in self.sent.items()}
        async with asyncio.timeout(within):
            while any(self.sent[channel] < goal[channel] for channel in self.channels):
                await asyncio.sleep(self.pause)

    async def stop(self):
        """Ends the publishing; what was answered until then counts."""
        await asyncio.sleep(self.pause)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def arrived(self, name, channel, within=10.0):
        """What a listener got of a channel, once all that was acknowledged is there."""
        sent = self.sent[channel]
        events = self.listeners[name].events
        got = [event["data"] for event in events.seen("publication", channel=channel)]
        missing = sorted(set(range(sent)) - set(got))
        for number in missing:
            await events.next("publication", within, channel=channel, data=number)
        return [event["data"] for event in events.seen("publication", channel=channel)]

    async def check(self):
        """No publish failed, and every listener got everything of every channel, once, in order."""
        assert self.failed == [], self.failed[:5]
        for name in self.listeners:
            for channel in self.channels:
                got = await self.arrived(name, channel)
                # One that was cancelled while under way may have arrived too.
                expected = list(range(max(self.sent[channel], len(got))))
                assert got == expected, f"{name} got of {channel}: {got}"
                assert len(got) <= self.sent[channel] + 1

    async def close(self):
        await self.stop()
        for client in [*self._publishers, *self.listeners.values()]:
            await client.close()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()
