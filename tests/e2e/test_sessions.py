"""What outlives a user's connections: server-side subscriptions, attributes, the inbox."""

import asyncio

import pytest
from cent import PublishRequest, SubscribeRequest, UnsubscribeRequest
from harness import Cable, SdkError, api, call, cluster, connect, eventually, token
from harness.feed import Feed, resumed

# Clients may keep attributes of their own.
ALLOWED = ("--set", "client.allow_sessions=true")


async def test_a_subscription_made_while_connected_reaches_every_device(sdk):
    async with cluster(3) as c, api(c[2]) as server:
        alice = token("alice")
        devices = await asyncio.gather(*(connect(sdk, node, token=alice) for node in c))
        for n in range(2):
            await server.subscribe(SubscribeRequest(user="alice", channel="chat:news"))
            await asyncio.gather(*(one.events.next("subscribed", channel="chat:news") for one in devices))
            await server.publish(PublishRequest(channel="chat:news", data=n))
            for one in devices:
                got = await one.events.next("publication", channel="chat:news")
                assert (got["data"], got["server"]) == (n, True)
            await server.unsubscribe(UnsubscribeRequest(user="alice", channel="chat:news"))
            await asyncio.gather(*(one.events.next("unsubscribed", channel="chat:news") for one in devices))
        await server.publish(PublishRequest(channel="chat:news", data="unheard"))
        await server.publish(PublishRequest(channel="#alice", data="heard"))
        for one in devices:
            await one.events.next("publication", channel="#alice", data="heard")
            assert not one.events.seen("publication", data="unheard")
            assert len(one.events.seen("connected")) == 1
            await one.close()


async def test_a_subscription_is_positioned_and_recovers_on_another_node(sdk):
    async with cluster(2) as c, Cable(c[0]) as cable, api(c[1]) as server:
        async with await connect(sdk, cable, token=token("alice")) as alice:
            await server.subscribe(SubscribeRequest(user="alice", channel="chat:news"))
            begun = await alice.events.next("subscribed", channel="chat:news")
            assert (begun["recoverable"], begun["positioned"], begun["server"]) == (True, True, True)
            feed = Feed(server, "chat:news")
            await feed.publish()
            await feed.reached(alice)
            await cable.cut()
            await feed.publish()
            cable.to(c[1])
            await cable.mend()
            await resumed(alice, "chat:news")
            await feed.reached_exactly(alice)


async def test_what_ends_while_a_client_is_away_is_not_there_when_it_is_back(sdk):
    async with cluster(2) as c, Cable(c[0]) as cable, api(c[1]) as server:
        await server.subscribe(SubscribeRequest(user="alice", channel="chat:news"))
        async with await connect(sdk, cable, token=token("alice")) as alice:
            await alice.events.next("subscribed", channel="chat:news")
            await cable.cut()
            await server.unsubscribe(UnsubscribeRequest(user="alice", channel="chat:news"))
            await cable.mend()
            await alice.events.next("unsubscribed", 15, channel="chat:news")


async def test_attributes_set_through_one_node_are_read_through_another(sdk):
    async with cluster(3, args=ALLOWED) as c:
        for n, node in enumerate(c):
            assert await call(node, "session_set", user="alice", key="n", value={"n": n}) == {"copies": 2}
            for other in c:
                got = await call(other, "session_get", user="alice")
                assert got == {"attributes": {"n": {"n": n}}}
        async with await connect(sdk, c[0], token=token("alice")) as alice:
            assert await alice.rpc("session_get", {}) == {"attributes": {"n": {"n": 2}}}
            await alice.rpc("session_set", {"key": "own", "value": [1, "x"]})
            got = await call(c[1], "session_get", user="alice", key="own")
            assert got == {"attributes": {"own": [1, "x"]}}
            await call(c[2], "session_delete", user="alice", key="n")
            assert await alice.rpc("session_get", {"key": "n"}) == {"attributes": {}}
        async with await connect(sdk, c[0], token=token("bob")) as bob:
            assert await bob.rpc("session_get", {}) == {"attributes": {}}


async def test_clients_keep_no_attributes_unless_that_is_allowed(sdk):
    async with cluster(1) as c, await connect(sdk, c[0], token=token("alice")) as alice:
        for method in ("session_get", "session_set", "session_delete"):
            with pytest.raises(SdkError) as refused:
                await alice.rpc(method, {"key": "k", "value": 1})
            assert refused.value.code == 103, method


async def test_attributes_and_subscriptions_have_limits():
    async with cluster(1) as c, api(c[0]) as server:

        async def refused(method, **body):
            with pytest.raises(SdkError) as error:
                await call(c[0], method, user="alice", **body)
            return error.value.code

        assert await refused("session_set", key="k" * 129, value=1) == 106
        assert await refused("session_set", key="k", value="v" * 4096) == 106
        for n in range(48):
            await call(c[0], "session_set", user="alice", key=f"k{n}", value=n)
        assert await refused("session_set", key="one more", value=1) == 106
        for n in range(100):
            await server.subscribe(SubscribeRequest(user="alice", channel=f"chat:{n}"))
        assert await refused("subscribe", channel="chat:one-more") == 106
        async with await connect("python", c[0], token=token("alice")) as alice:
            await alice.events.count(101, "subscribed")


@pytest.mark.parametrize("victim", ["owner", "gateway", "gateway and owner"])
async def test_what_is_kept_of_a_user_outlives_nodes(sdk, victim):
    async with (
        cluster(3, args=ALLOWED) as c,
        Cable(c[0], c[1]) as cable,
        api(c[1]) as server,
    ):
        owner = c[0] if victim == "gateway and owner" else c[2]
        killed = c[2] if victim == "owner" else c[0]
        user, before = await c.key(owner, "user-"), await c.key(owner)
        while_there = await c.key(c[1])
        await server.subscribe(SubscribeRequest(user=user, channel=before))
        async with await connect(sdk, cable, token=token(user)) as alice:
            await alice.events.next("subscribed", channel=before, server=True)
            await server.subscribe(SubscribeRequest(user=user, channel=while_there))
            await alice.events.next("subscribed", channel=while_there, server=True)
            await alice.rpc("session_set", {"key": "own", "value": 1})
            await call(c[1], "session_set", user=user, key="given", value=[2])
            channels = [f"#{user}", before, while_there]
            feed = Feed(server, *channels)
            await feed.publish()
            await feed.reached(alice)
            await cable.cut()
            await feed.publish()
            killed.kill()
            await feed.publish()
            await cable.mend()
            await resumed(alice, *channels)
            await feed.reached_exactly(alice)
            kept = {"attributes": {"given": [2], "own": 1}}
            assert await alice.rpc("session_get", {}) == kept
            for node in c.running:
                assert await call(node, "session_get", user=user) == kept
            await server.unsubscribe(UnsubscribeRequest(user=user, channel=before))
            await alice.events.next("unsubscribed", channel=before)


async def test_a_connection_that_stays_keeps_following_its_record_when_the_owner_dies(sdk):
    async with cluster(3) as c, api(c[1]) as server:
        user = await c.key(c[2], "user-")
        async with await connect(sdk, c[0], token=token(user)) as alice:
            await server.subscribe(SubscribeRequest(user=user, channel="chat:a"))
            await alice.events.next("subscribed", channel="chat:a")
            c[2].kill()
            await server.subscribe(SubscribeRequest(user=user, channel="chat:b"))
            await alice.events.next("subscribed", channel="chat:b", within=10)
            await server.unsubscribe(UnsubscribeRequest(user=user, channel="chat:a"))
            await alice.events.next("unsubscribed", channel="chat:a", within=10)

            async def delivered():
                await server.publish(PublishRequest(channel="chat:b", data="on"))
                return alice.events.seen("publication", channel="chat:b")

            await eventually(delivered, 10, "publications go on")
            assert len(alice.events.seen("connected")) == 1, "it cost the connection"
