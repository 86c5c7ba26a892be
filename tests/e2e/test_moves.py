"""Streams move to other nodes while clients read them: each SDK keeps its place through the new
epoch, as its version does it."""

import asyncio
import contextlib

import pytest
from cent import PublishRequest
from harness import Cable, api, cluster, connect, token


class Feed:
    """Publishes 0, 1, 2, … to a channel by the server API at a steady pace."""

    def __init__(self, server, channel):
        self.sent, self.epochs, self.failed = 0, [], []
        self._task = asyncio.ensure_future(self._publish(server, channel))

    async def _publish(self, server, channel):
        while True:
            try:
                answer = await server.publish(PublishRequest(channel=channel, data=self.sent))
            except Exception as error:  # whatever the client raises is a failed publish
                self.failed.append((self.sent, repr(error)))
                continue
            self.sent += 1
            if answer.epoch not in self.epochs:
                self.epochs.append(answer.epoch)
            await asyncio.sleep(0.02)

    async def flows(self, number=10, within=10.0):
        goal = self.sent + number
        async with asyncio.timeout(within):
            while self.sent < goal:
                await asyncio.sleep(0.01)

    async def stop(self):
        """Ends it between two publications, so that each was acknowledged."""
        await self.flows(1)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        return self.sent


@pytest.mark.parametrize("kind", ["subscription", "inbox"])
async def test_a_client_keeps_its_place_while_its_stream_moves_away_and_back(sdk, kind):
    async with cluster(4) as c, Cable(c[0]) as cable, api(c[1]) as server:
        mover, server_side = c[3], kind == "inbox"
        key = await c.key(mover, "user-" if server_side else "long:")
        user, channel = (key, f"#{key}") if server_side else ("alice", key)
        async with await connect(sdk, cable, token=token(user)) as alice:
            if not server_side:
                await alice.subscribe(channel)
            feed = Feed(server, channel)
            await feed.flows()
            mover.terminate()
            assert await mover.exit_code(within=20) == 0
            await c.settled()
            await feed.flows()
            await mover.start()
            await c.settled()
            assert await c[0].owner(key) == mover.name
            await feed.flows()
            assert len(feed.epochs) >= 3, feed.epochs
            # Neither move cost the connection.
            assert len(alice.events.seen("connected")) == 1

            # The position that the SDK has by now is one of the last epoch.
            before = len(alice.events.seen("subscribed", channel=channel))
            cable.drop()
            await alice.events.count(2, "connected")
            back = (await alice.events.count(before + 1, "subscribed", channel=channel))[-1]
            assert (back["was_recovering"], back["recovered"]) == (True, True), back
            assert back["epoch"] == feed.epochs[-1]
            await feed.flows()

            sent = await feed.stop()
            assert feed.failed == []
            await alice.events.next("publication", channel=channel, data=sent - 1)
            again = alice.events.seen("subscribed", channel=channel, was_recovering=True)
            assert again and all(event["recovered"] for event in again), again
            got = alice.events.seen("publication", channel=channel)
            assert all(event["server"] == server_side for event in got)
            assert [event["data"] for event in got] == list(range(sent))
