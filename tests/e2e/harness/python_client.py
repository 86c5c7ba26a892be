"""PyPI centrifuge-python behind the face of `clients.py`."""

import asyncio

import centrifuge
from centrifuge import exceptions

from .errors import SdkError
from .events import Events

# Longer than a slot without an owner may ask for patience.
ANSWER_S = 10.0


def publication(pub, channel, server):
    return {
        "channel": channel,
        "data": pub.data,
        "offset": pub.offset,
        "user": pub.info.user if pub.info else None,
        "tags": dict(pub.tags or {}),
        "server": server,
    }


def subscribed(ctx, channel, server):
    position = ctx.stream_position
    return {
        "channel": channel,
        "recoverable": ctx.recoverable,
        "positioned": ctx.positioned,
        "was_recovering": ctx.was_recovering,
        "recovered": ctx.recovered,
        "offset": position.offset if position else None,
        "epoch": position.epoch if position else None,
        "data": ctx.data,
        "server": server,
    }


class Subscription(centrifuge.SubscriptionEventHandler):
    """Records what happens on one channel."""

    def __init__(self, channel, events):
        self.channel, self.events = channel, events

    async def on_subscribed(self, ctx):
        self.events.record(kind="subscribed", **subscribed(ctx, self.channel, False))

    async def on_unsubscribed(self, ctx):
        self.events.record(
            kind="unsubscribed", channel=self.channel, code=ctx.code, reason=ctx.reason
        )

    async def on_publication(self, ctx):
        self.events.record(kind="publication", **publication(ctx.pub, self.channel, False))

    async def on_join(self, ctx):
        info = ctx.info
        self.events.record(kind="join", channel=self.channel, user=info.user, client=info.client)

    async def on_leave(self, ctx):
        info = ctx.info
        self.events.record(kind="leave", channel=self.channel, user=info.user, client=info.client)


class Connection(centrifuge.ClientEventHandler):
    """Records what happens to the connection and to its server-side subscriptions."""

    def __init__(self, events):
        self.events = events

    async def on_connecting(self, ctx):
        self.events.record(kind="connecting", code=ctx.code, reason=ctx.reason)

    async def on_connected(self, ctx):
        self.events.record(kind="connected", client=ctx.client, data=ctx.data)

    async def on_disconnected(self, ctx):
        self.events.record(kind="disconnected", code=ctx.code, reason=ctx.reason)

    async def on_error(self, ctx):
        self.events.record(kind="error", code=ctx.code, reason=str(ctx.error))

    async def on_subscribed(self, ctx):
        self.events.record(kind="subscribed", **subscribed(ctx, ctx.channel, True))

    async def on_unsubscribed(self, ctx):
        self.events.record(kind="unsubscribed", channel=ctx.channel, code=None, server=True)

    async def on_publication(self, ctx):
        self.events.record(kind="publication", **publication(ctx.pub, ctx.channel, True))


def call(method):
    """Turns the SDK's errors into ours."""

    async def called(*arguments, **options):
        try:
            return await method(*arguments, **options)
        except exceptions.ReplyError as error:
            raise SdkError(error.code, error.message) from error

    return called


class PythonClient:
    """One connection of the Python SDK."""

    sdk = "python"

    def __init__(self, url, user=None, token="", tokens=None, data=None):
        self.events = Events()
        left = list(tokens or [])

        async def get_token():
            self.events.record(kind="token asked")
            return left.pop(0) if len(left) > 1 else left[0]

        self._client = centrifuge.Client(
            f"{url}?user={user}" if user else url,
            events=Connection(self.events),
            token=token,
            get_token=get_token if tokens else None,
            data=data,
            proxy=None,
            min_reconnect_delay=0.05,
            max_reconnect_delay=0.5,
        )

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def start(self):
        await self._client.connect()

    async def close(self):
        await self._client.disconnect()

    async def subscribe(self, channel, **options):
        options = {{"joinLeave": "join_leave"}.get(key, key): on for key, on in options.items()}
        options.setdefault("min_resubscribe_delay", 0.05)
        options.setdefault("max_resubscribe_delay", 0.5)
        sub = self._client.get_subscription(channel) or self._client.new_subscription(
            channel, events=Subscription(channel, self.events), **options
        )
        await sub.subscribe()
        answers = [
            asyncio.ensure_future(self.events.next(kind, ANSWER_S, channel=channel))
            for kind in ("subscribed", "unsubscribed")
        ]
        done, others = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        for other in others:
            other.cancel()
        answer = done.pop().result()
        if answer["kind"] == "unsubscribed":
            raise SdkError(answer["code"], answer["reason"])
        return answer

    async def unsubscribe(self, channel):
        await self._client.get_subscription(channel).unsubscribe()

    async def publish(self, channel, data):
        await call(self._client.publish)(channel, data)

    async def presence(self, channel):
        found = await call(self._client.presence)(channel)
        return {client: info.user for client, info in found.clients.items()}

    async def presence_stats(self, channel):
        found = await call(self._client.presence_stats)(channel)
        return {"clients": found.num_clients, "users": found.num_users}

    async def history(self, channel, limit=0, since=None, reverse=False):
        since = centrifuge.StreamPosition(**since) if since else None
        found = await call(self._client.history)(channel, limit=limit, since=since, reverse=reverse)
        publications = [publication(pub, channel, False) for pub in found.publications]
        return {"publications": publications, "offset": found.offset, "epoch": found.epoch}

    async def rpc(self, method, data):
        return (await call(self._client.rpc)(method, data)).data
