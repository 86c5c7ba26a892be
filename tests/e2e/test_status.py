"""Whether users are connected: told to those who watch, and by the server API."""

import asyncio
import time

import pytest
from cent import SubscribeRequest
from harness import Cable, SdkError, api, call, cluster, connect, eventually, token

# Short, so that tests needn't wait; longer than a reconnect of either SDK takes.
OFFLINE_AFTER_S = 3
WATCHED = ("--set", "client.allow_status=true", "--set", f"session.offline_after={OFFLINE_AFTER_S}s")


async def watch(client, user):
    """Subscribes to a user's status; what it is."""
    return (await client.subscribe(f"@{user}"))["data"]


async def heard(client, user, within=10):
    """The next change of a user's status that somebody who watches is told."""
    return (await client.events.next("publication", within, channel=f"@{user}"))["data"]


async def test_who_watches_is_told_of_the_first_connection_and_the_last(sdk):
    async with cluster(3, args=WATCHED) as c:
        async with await connect(sdk, c[0], token=token("bob")) as bob:
            assert await watch(bob, "alice") == {"online": False}
            one = await connect(sdk, c[1], token=token("alice"))
            assert await heard(bob, "alice") == {"online": True}
            other = await connect(sdk, c[2], token=token("alice"))
            for node in c:
                assert await call(node, "user_status", user="alice") == {"online": True}
            await one.close()
            await asyncio.sleep(OFFLINE_AFTER_S + 1)
            assert not bob.events.seen("publication", channel="@alice")[1:], "one device is left"
            gone = time.monotonic()
            await other.close()
            told = await heard(bob, "alice", OFFLINE_AFTER_S + 5)
            took = time.monotonic() - gone
            assert took >= OFFLINE_AFTER_S - 0.1
            assert told["online"] is False
            assert OFFLINE_AFTER_S * 1000 - 200 <= told["last_seen_ms_ago"] <= took * 1000 + 200
            for node in c:
                status = await call(node, "user_status", user="alice")
                assert (status["online"], status["last_seen_ms_ago"] >= told["last_seen_ms_ago"]) == (False, True)
            assert len(bob.events.seen("publication", channel="@alice")) == 2
            # It outlives the owner, who was the one that saw her go.
            c.named(await c[0].owner("alice")).kill()
            for node in c.running:
                status = await call(node, "user_status", user="alice")
                assert status["online"] is False
                since_then = (time.monotonic() - gone) * 1000
                assert OFFLINE_AFTER_S * 1000 <= status["last_seen_ms_ago"] <= since_then + 200


@pytest.mark.parametrize("victim", ["owner", "gateway", "gateway and owner"])
async def test_a_death_is_announced_only_for_who_stays_away(sdk, victim):
    async with cluster(3, args=WATCHED) as c, Cable(c[0], c[1]) as cable:
        owner = c[0] if victim == "gateway and owner" else c[2]
        killed = c[2] if victim == "owner" else c[0]
        back, away = await c.key(owner, "back-"), await c.key(owner, "away-", avoid=())
        async with await connect(sdk, c[1], token=token("bob")) as bob:
            lost = await connect(sdk, c[0], token=token(away))
            async with await connect(sdk, cable, token=token(back)) as stays:
                users = (back, away)
                for user in users:
                    if await watch(bob, user) != {"online": True}:
                        assert await heard(bob, user) == {"online": True}
                if victim == "owner":
                    await lost.close()
                killed.kill()
                if victim != "owner":
                    await stays.events.count(2, "connected", within=20)
                    await lost.close()
                told = await heard(bob, away, OFFLINE_AFTER_S + 10)
                assert told["online"] is False
                assert await call(c[1], "user_status", user=back) == {"online": True}
                assert not [e for e in bob.events.seen("publication", channel=f"@{back}") if not e["data"]["online"]]
                assert len(bob.events.seen("publication", channel=f"@{away}", data=told)) == 1


async def test_a_status_can_be_watched_by_the_servers_choice(sdk):
    """Without `allow_status`: a friend of whom the application says so."""
    async with cluster(2) as c, api(c[1]) as server:
        async with await connect(sdk, c[0], token=token("bob")) as bob:
            with pytest.raises(SdkError) as refused:
                await bob.subscribe("@alice")
            assert refused.value.code == 103
            await server.subscribe(SubscribeRequest(user="bob", channel="@alice"))
            begun = await bob.events.next("subscribed", channel="@alice")
            assert (begun["server"], begun["data"]) == (True, {"online": False})
            async with await connect(sdk, c[1], token=token("alice")):
                assert await heard(bob, "alice") == {"online": True}


async def test_nobody_but_the_cluster_says_who_is_online():
    async with cluster(1, args=WATCHED) as c:
        with pytest.raises(SdkError) as refused:
            await call(c[0], "publish", channel="@alice", data={"online": True})
        assert refused.value.code == 107
        async with await connect("python", c[0], token=token("bob")) as bob:
            await watch(bob, "alice")
            for ask in (bob.publish("@alice", {"online": True}), bob.presence("@alice"), bob.history("@alice")):
                with pytest.raises(SdkError):
                    await ask
            assert not bob.events.seen("publication")


async def test_what_is_kept_of_a_user_ends_with_the_session():
    """Subscriptions and attributes outlive the last connection by `session.ttl`, not longer."""
    args = (*WATCHED, "--set", "session.ttl=12s")
    async with cluster(2, args=args) as c, api(c[0]) as server:
        async with await connect("python", c[0], token=token("alice")):
            await server.subscribe(SubscribeRequest(user="alice", channel="chat:a"))
            await call(c[1], "session_set", user="alice", key="k", value=1)
            await asyncio.sleep(13)
            kept = await call(c[1], "session_get", user="alice")
            assert kept == {"attributes": {"k": 1}}, "a connection is there"
        await asyncio.sleep(8)
        assert await call(c[1], "session_get", user="alice") == kept

        async def ended():
            return await call(c[0], "session_get", user="alice") == {"attributes": {}}

        await eventually(ended, 20, "the end of what was kept")
        async with await connect("python", c[1], token=token("alice")) as alice:
            assert not alice.events.seen("subscribed", channel="chat:a")
