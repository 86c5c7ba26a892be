"""Publications that every client must get, whatever happens to nodes and connections."""

from cent import PublishRequest

RESUMED_S = 15.0


class Feed:
    """Publishes 0, 1, 2, … to channels; each publication has to be acknowledged."""

    def __init__(self, server, *channels):
        self.sent, self._server, self._channels = 0, server, channels

    async def publish(self, number=5):
        for data in range(self.sent, self.sent + number):
            for channel in self._channels:
                await self._server.publish(PublishRequest(channel=channel, data=data))
        self.sent += number

    async def reached(self, client):
        """Waits until a client has the last one of each channel."""
        for channel in self._channels:
            await client.events.next(
                "publication", RESUMED_S, channel=channel, data=self.sent - 1
            )

    async def reached_exactly(self, client):
        """All of it came, once and in order, and no position was lost."""
        await self.publish(1)
        await self.reached(client)
        for channel in self._channels:
            got = client.events.seen("publication", channel=channel)
            assert [event["data"] for event in got] == list(range(self.sent)), channel
            again = client.events.seen("subscribed", channel=channel)[1:]
            assert all(event["recovered"] or is_new_epoch(event) for event in again), again


def is_new_epoch(subscribed):
    """Whether it tells no more than where a server-side subscription goes on."""
    return subscribed["server"] and not subscribed["was_recovering"]


async def resumed(client, *channels):
    """Waits until a client that was cut off is subscribed again, with its positions."""
    for channel in channels:
        await client.events.next(
            "subscribed", RESUMED_S, channel=channel, was_recovering=True, recovered=True
        )
