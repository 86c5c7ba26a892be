"""One node and both SDKs: every verb of the client protocol, recovery, rights and tokens."""

import asyncio

import pytest
import websockets
from cent import PublishRequest
from harness import Cable, Raw, SdkError, api, cluster, connect, start_client, token


def data_of(events):
    return [event["data"] for event in events]


async def test_a_publication_reaches_every_subscriber(sdk):
    async with cluster(1) as c:
        async with (
            await connect(sdk, c[0], token=token("alice")) as alice,
            await connect(sdk, c[0], token=token("bob")) as bob,
        ):
            await alice.subscribe("chat:room")
            await bob.subscribe("chat:room")
            await alice.publish("chat:room", {"text": "hi", "n": [1, 2.5, None, "ü"]})
            for client in (alice, bob):
                got = await client.events.next("publication", channel="chat:room")
                assert got["data"] == {"text": "hi", "n": [1, 2.5, None, "ü"]}
                assert got["user"] == "alice"
                assert got["offset"] == 1


async def test_an_ephemeral_channel_has_no_positions(sdk):
    async with cluster(1) as c, await connect(sdk, c[0], token=token("alice")) as alice:
        answer = await alice.subscribe("room")
        assert not answer["recoverable"]
        await alice.publish("room", "hi")
        assert (await alice.events.next("publication"))["offset"] == 0


async def test_unsubscribed_means_no_more_publications(sdk):
    async with cluster(1) as c:
        async with (
            await connect(sdk, c[0], token=token("alice")) as alice,
            await connect(sdk, c[0], token=token("bob")) as bob,
        ):
            for channel in ("chat:left", "chat:kept"):
                await alice.subscribe(channel)
                await bob.subscribe(channel)
            await bob.unsubscribe("chat:left")
            # The two commands of bob are one after the other, so the second's answer proves the
            # first was carried out.
            await bob.history("chat:kept")
            await alice.publish("chat:left", 1)
            await alice.publish("chat:kept", 2)
            assert (await bob.events.next("publication"))["data"] == 2
            assert data_of(bob.events.seen("publication")) == [2]


async def test_presence_tells_who_is_there(sdk):
    async with cluster(1) as c:
        async with (
            await connect(sdk, c[0], token=token("alice")) as alice,
            await connect(sdk, c[0], token=token("alice")) as phone,
            await connect(sdk, c[0], token=token("bob")) as bob,
        ):
            for client in (alice, phone, bob):
                await client.subscribe("chat:room")
            here = await bob.presence("chat:room")
            assert sorted(here.values()) == ["alice", "alice", "bob"]
            assert await bob.presence_stats("chat:room") == {"clients": 3, "users": 2}


async def test_joining_and_leaving_are_told(sdk):
    async with cluster(1) as c, await connect(sdk, c[0], token=token("alice")) as alice:
        await alice.subscribe("chat:room", joinLeave=True)
        async with await connect(sdk, c[0], token=token("bob")) as bob:
            await bob.subscribe("chat:room")
            joined = await alice.events.next("join", channel="chat:room", user="bob")
        left = await alice.events.next("leave", channel="chat:room", user="bob")
        assert left["client"] == joined["client"]


async def test_history_by_limit_since_and_reverse(sdk):
    async with cluster(1) as c, await connect(sdk, c[0], token=token("alice")) as alice:
        await alice.subscribe("chat:room")
        for number in range(1, 11):
            await alice.publish("chat:room", number)
        top = await alice.history("chat:room")
        assert (top["offset"], top["publications"]) == (10, [])
        every = await alice.history("chat:room", limit=-1)
        assert data_of(every["publications"]) == list(range(1, 11))
        assert [pub["offset"] for pub in every["publications"]] == list(range(1, 11))
        first = await alice.history("chat:room", limit=3)
        assert data_of(first["publications"]) == [1, 2, 3]
        since = {"offset": 4, "epoch": top["epoch"]}
        behind = await alice.history("chat:room", limit=3, since=since)
        assert data_of(behind["publications"]) == [5, 6, 7]
        last = await alice.history("chat:room", limit=3, reverse=True)
        assert data_of(last["publications"]) == [10, 9, 8]
        before = await alice.history("chat:room", limit=2, since=since, reverse=True)
        assert data_of(before["publications"]) == [3, 2]


async def test_an_unknown_rpc_method_is_an_error(sdk):
    async with cluster(1) as c, await connect(sdk, c[0], token=token("alice")) as alice:
        with pytest.raises(SdkError) as refused:
            await alice.rpc("no such method", {"a": 1})
        assert refused.value.code == 104


async def test_what_was_missed_is_recovered_after_a_cut(sdk):
    async with cluster(1) as c, Cable(c[0]) as cable:
        async with (
            await connect(sdk, cable, token=token("alice")) as alice,
            await connect(sdk, c[0], token=token("bob")) as bob,
        ):
            first = await alice.subscribe("chat:room")
            assert first["recoverable"] and first["positioned"]
            await bob.subscribe("chat:room")
            for number in range(3):
                await bob.publish("chat:room", number)
            await alice.events.count(3, "publication", channel="chat:room")
            await cable.cut()
            for number in range(3, 8):
                await bob.publish("chat:room", number)
            await cable.mend()
            await alice.events.next(
                "subscribed", channel="chat:room", was_recovering=True, recovered=True
            )
            got = await alice.events.count(8, "publication", channel="chat:room")
            assert data_of(got) == list(range(8))
            await bob.publish("chat:room", 8)
            got = await alice.events.count(9, "publication", channel="chat:room")
            assert [event["offset"] for event in got] == list(range(1, 10))


async def test_a_position_that_is_too_old_is_not_recovered(sdk):
    async with cluster(1) as c, Cable(c[0]) as cable:
        async with (
            await connect(sdk, cable, token=token("alice")) as alice,
            await connect(sdk, c[0], token=token("bob")) as bob,
        ):
            await alice.subscribe("short:room")
            await bob.subscribe("short:room")
            await bob.publish("short:room", 0)
            await alice.events.next("publication", data=0)
            await cable.cut()
            for number in range(1, 11):
                await bob.publish("short:room", number)
            await cable.mend()
            await alice.events.next(
                "subscribed", channel="short:room", was_recovering=True, recovered=False
            )
            await bob.publish("short:room", "now")
            await alice.events.next("publication", channel="short:room", data="now")
            assert data_of(alice.events.seen("publication", channel="short:room")) == [0, "now"]


async def test_a_user_is_subscribed_to_their_inbox_and_recovers_it(sdk):
    async with cluster(1) as c, Cable(c[0]) as cable:
        async with (
            await connect(sdk, cable, token=token("alice")) as alice,
            api(c[0]) as server,
        ):
            inbox = await alice.events.next("subscribed", channel="#alice", server=True)
            assert inbox["recoverable"]
            await server.publish(PublishRequest(channel="#alice", data={"n": 1}))
            await alice.events.next("publication", channel="#alice", server=True, data={"n": 1})
            await cable.cut()
            for number in (2, 3):
                await server.publish(PublishRequest(channel="#alice", data={"n": number}))
            await cable.mend()
            await alice.events.next(
                "subscribed", channel="#alice", was_recovering=True, recovered=True
            )
            got = await alice.events.count(3, "publication", channel="#alice")
            assert data_of(got) == [{"n": 1}, {"n": 2}, {"n": 3}]


async def test_a_user_limited_channel_admits_only_those_named(sdk):
    async with cluster(1) as c:
        async with (
            await connect(sdk, c[0], token=token("alice")) as alice,
            await connect(sdk, c[0], token=token("bob")) as bob,
            await connect(sdk, c[0], token=token("carol")) as carol,
        ):
            await alice.subscribe("chat:dm#alice,bob")
            await bob.subscribe("chat:dm#alice,bob")
            with pytest.raises(SdkError) as refused:
                await carol.subscribe("chat:dm#alice,bob")
            assert refused.value.code == 103
            await alice.publish("chat:dm#alice,bob", "psst")
            assert (await bob.events.next("publication"))["data"] == "psst"
            assert carol.events.seen("publication") == []


async def test_a_client_may_not_read_another_users_inbox(sdk):
    async with cluster(1) as c, await connect(sdk, c[0], token=token("bob")) as bob:
        with pytest.raises(SdkError) as refused:
            await bob.subscribe("#alice")
        assert refused.value.code == 103
        with pytest.raises(SdkError) as refused:
            await bob.publish("#alice", "hi")
        assert refused.value.code == 103


async def test_what_is_not_allowed_is_refused(sdk):
    async with cluster(1) as c, await connect(sdk, c[0], token=token("alice")) as alice:

        async def refused(call):
            with pytest.raises(SdkError) as error:
                await call
            return error.value.code

        assert await refused(alice.subscribe("closed:room")) == 103
        assert await refused(alice.subscribe("nowhere:room")) == 102
        await alice.subscribe("readonly:room")
        assert await refused(alice.publish("readonly:room", 1)) == 103
        assert await refused(alice.history("readonly:room", limit=1)) in (103, 108)
        assert await refused(alice.presence("readonly:room")) in (103, 108)
        assert await refused(alice.publish("chat:not-subscribed", 1)) == 103
        # None of it harmed the connection.
        await alice.subscribe("chat:room")
        await alice.publish("chat:room", "still here")
        await alice.events.next("publication", data="still here")


async def test_a_forged_token_ends_the_connection_for_good(sdk):
    async with cluster(1) as c:
        forged = token("alice", secret="another-secret-0123456789abcdef0123456789")
        client = await start_client(sdk, c[0], token=forged)
        async with client:
            assert (await client.events.next("disconnected"))["code"] == 3500


async def test_an_expired_token_is_replaced_by_a_new_one(sdk):
    async with cluster(1) as c:
        client = await start_client(
            sdk, c[0], token=token("alice", lives=-5), tokens=[token("alice")]
        )
        async with client:
            await client.events.next("token asked")
            await client.events.next("connected")


async def test_a_connection_is_refreshed_before_its_token_ends(sdk):
    async with cluster(1) as c:
        tokens = [token("alice", lives=2), token("alice", lives=3600)]
        client = await start_client(sdk, c[0], tokens=tokens)
        async with client:
            await client.events.next("connected")
            await client.events.count(2, "token asked", within=10)
            await client.subscribe("chat:room")
            await client.publish("chat:room", "same connection")
            await client.events.next("publication", data="same connection")
            assert len(client.events.seen("connected")) == 1
            assert client.events.seen("disconnected") == []


async def test_channels_of_a_token_are_subscribed_by_the_server(sdk):
    async with cluster(1) as c:
        claims = token("alice", channels=["chat:news"])
        async with await connect(sdk, c[0], token=claims) as alice, api(c[0]) as server:
            await alice.events.next("subscribed", channel="chat:news", server=True)
            await server.publish(PublishRequest(channel="chat:news", data="extra"))
            await alice.events.next("publication", channel="chat:news", server=True, data="extra")


async def test_development_mode_needs_no_token(sdk):
    async with cluster(1, args=["--dev"]) as c:
        async with (
            await connect(sdk, c[0], user="alice") as alice,
            await connect(sdk, c[0], data={"user": "bob"}) as bob,
        ):
            # Every allow_* is on.
            await alice.subscribe("closed:room")
            await bob.subscribe("closed:room")
            await bob.publish("closed:room", "hi")
            assert (await alice.events.next("publication"))["user"] == "bob"
            await alice.events.next("subscribed", channel="#alice", server=True)
            await bob.events.next("subscribed", channel="#bob", server=True)


async def test_pages_of_this_machine_may_connect_in_development_mode_only():
    page = "http://localhost:3000"
    async with cluster(1, args=["--dev"]) as c:
        async with await Raw.dial(f"{c[0].ws}?user=alice", origin=page) as raw:
            await raw.connect()
        with pytest.raises(websockets.InvalidStatus):
            await Raw.dial(c[0].ws, origin="http://example.org")
    async with cluster(1) as c:
        with pytest.raises(websockets.InvalidStatus):
            await Raw.dial(c[0].ws, origin=page)
        async with await Raw.dial(c[0].ws, origin=c[0].http) as raw:
            await raw.connect(token=token("alice"))


async def test_both_sdks_talk_to_each_other():
    async with cluster(1) as c:
        async with (
            await connect("js", c[0], token=token("alice")) as alice,
            await connect("python", c[0], token=token("bob")) as bob,
        ):
            await alice.subscribe("chat:room")
            await bob.subscribe("chat:room")
            await asyncio.gather(
                *(
                    client.publish("chat:room", [client.sdk, n])
                    for client in (alice, bob)
                    for n in range(20)
                )
            )
            heard = [data_of(await x.events.count(40, "publication")) for x in (alice, bob)]
            assert heard[0] == heard[1]
            for name in ("js", "python"):
                assert [n for who, n in heard[0] if who == name] == list(range(20))
