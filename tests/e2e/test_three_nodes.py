"""Three nodes: whoever publishes, owns and listens, on whichever node, it arrives."""

import asyncio
import contextlib
import re

import pytest
from cent import InfoRequest, PublishRequest
from harness import Cable, Load, api, cluster, connect, eventually, token
from harness.node import orbweb
from harness.settings import API_KEY


@pytest.mark.parametrize("prefix", ["room-", "chat:"], ids=["ephemeral", "history"])
async def test_publisher_owner_and_subscriber_on_three_nodes(sdk, prefix):
    async with cluster(3) as c:
        publisher, owner, subscriber = c
        channel = await c.key(owner, prefix)
        async with (
            await connect(sdk, publisher, token=token("alice")) as alice,
            await connect(sdk, subscriber, token=token("bob")) as bob,
        ):
            await alice.subscribe(channel)
            await bob.subscribe(channel)
            for number in range(20):
                await alice.publish(channel, number)
            got = await bob.events.count(20, "publication", channel=channel)
            assert [event["data"] for event in got] == list(range(20))
            offsets = [0] * 20 if prefix == "room-" else list(range(1, 21))
            assert [event["offset"] for event in got] == offsets


async def test_an_inbox_reaches_all_devices_wherever_they_are(sdk):
    async with cluster(3) as c:
        async with contextlib.AsyncExitStack() as stack:
            devices = [
                await stack.enter_async_context(await connect(sdk, node, token=token("alice")))
                for node in c
            ]
            other = await stack.enter_async_context(await connect(sdk, c[1], token=token("bob")))
            for number, node in enumerate(c):
                async with api(node) as server:
                    await server.publish(PublishRequest(channel="#alice", data={"from": number}))
            for device in devices:
                got = await device.events.count(3, "publication", channel="#alice")
                assert [event["data"]["from"] for event in got] == [0, 1, 2]
            assert other.events.seen("publication") == []


async def test_presence_counts_all_nodes(sdk):
    async with cluster(3) as c:
        async with contextlib.AsyncExitStack() as stack:
            for name, node in zip("xyz", c, strict=True):
                client = await stack.enter_async_context(
                    await connect(sdk, node, token=token(name))
                )
                await client.subscribe("chat:room")
            assert sorted((await client.presence("chat:room")).values()) == ["x", "y", "z"]
            assert await client.presence_stats("chat:room") == {"clients": 3, "users": 3}


async def test_a_client_recovers_on_another_node(sdk):
    async with cluster(3) as c, Cable(c[0]) as cable:
        channel = await c.key(c[2])
        async with (
            await connect(sdk, cable, token=token("alice")) as alice,
            await connect(sdk, c[1], token=token("bob")) as bob,
        ):
            await alice.subscribe(channel)
            await bob.subscribe(channel)
            await bob.publish(channel, 0)
            await alice.events.next("publication", channel=channel)
            await cable.cut()
            for number in range(1, 6):
                await bob.publish(channel, number)
            cable.to(c[1])
            await cable.mend()
            await alice.events.next(
                "subscribed", channel=channel, was_recovering=True, recovered=True
            )
            got = await alice.events.count(6, "publication", channel=channel)
            assert [event["data"] for event in got] == list(range(6))


async def test_order_holds_for_each_sender_across_nodes():
    async with cluster(3) as c:
        channel = await c.key(c[1])
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    await connect("python", node, token=token(node.name))
                )
                for node in c
            ]
            for client in clients:
                await client.subscribe(channel)

            async def publish(client, name):
                for number in range(100):
                    await client.publish(channel, [name, number])

            await asyncio.gather(*(publish(x, n.name) for x, n in zip(clients, c, strict=True)))
            heard = []
            for client in clients:
                got = await client.events.count(300, "publication", channel=channel)
                heard.append([tuple(event["data"]) for event in got])
            assert heard[0] == heard[1] == heard[2]
            for node in c:
                mine = [number for name, number in heard[0] if name == node.name]
                assert mine == list(range(100))


async def test_every_node_tells_the_same_owner_and_info_names_all():
    async with cluster(3) as c:
        for number in range(30):
            owners = {await node.owner(f"key-{number}") for node in c}
            assert len(owners) == 1
        async with api(c[2]) as server:
            nodes = (await server.info(InfoRequest())).nodes
            assert sorted(node.name for node in nodes) == sorted(node.name for node in c)


async def test_status_and_owner_on_the_command_line():
    async with cluster(3) as c:
        env = {"ORBWEB_API_KEY": API_KEY}
        text = await asyncio.to_thread(orbweb, "status", "--node", c[1].http, env=env)
        assert all(node.name in text.stdout for node in c)
        assert "disagree" not in text.stdout
        text = await asyncio.to_thread(orbweb, "owner", "alice", "--node", c[1].http, env=env)
        assert await c[0].owner("alice") in text.stdout
        nobody = await asyncio.to_thread(
            orbweb, "status", "--node", "http://127.0.0.1:1", env=env, check=False
        )
        assert nobody.returncode != 0 and "127.0.0.1:1" in nobody.stderr


async def test_a_fourth_node_joins_under_load_and_takes_its_share():
    async with cluster(3) as c:
        before = await c.slots()
        rooms = [f"chat:{number}" for number in range(24)]
        load = Load([f"long:{number}" for number in range(24)], pause=0.05)
        async with present(rooms, c[0], c[1]), load:
            for node in c.nodes[:3]:
                await load.listen(node.name, node)
            await load.listen("js", c[0], sdk="js")
            await load.publish_on(*c.nodes[:3])
            await load.flows()
            here = await presence(rooms, c)
            late = await c.add("n4", join=[c[1]])
            await c.settled()
            after = await c.slots()
            assert after["n4"] > 16384 / 4 / 2, after
            assert all(after[name] <= before[name] for name in before), (before, after)
            moved = [channel for channel in load.channels if await c[0].owner(channel) == "n4"]
            assert moved, "no channel of the load moved to the new node"
            assert "n4" in [await c[0].owner(room) for room in rooms]
            assert await presence(rooms, c) == here
            await load.flows()
            # Whoever comes to the new node now finds what was published before it came.
            async with await connect("python", late, token=token("newcomer")) as newcomer:
                await newcomer.subscribe(moved[0])
                past = await newcomer.history(moved[0], limit=300)
                assert past["publications"][0]["offset"] == 1
            await load.stop()
            await load.check()


async def test_a_node_that_leaves_under_load_takes_nothing_with_it():
    async with cluster(3) as c, Cable(c[2], c[0], c[1]) as cable:
        rooms = [await c.key(c[2], "chat:")]
        load = Load([f"long:{number}" for number in range(24)], pause=0.05)
        async with present(rooms, c[0], c[1]), load:
            await load.listen("stays", c[0])
            moves = await load.listen("moves", cable)
            await load.publish_on(c[0], c[1])
            await load.flows()
            here = await presence(rooms, c)
            c[2].terminate()
            assert await c[2].exit_code(within=20) == 0
            assert await presence(rooms, c.running) == here
            await moves.events.next("connected")
            assert moves.events.seen("connecting", code=3001), moves.events.seen("connecting")
            await c.settled()
            await load.flows()
            await load.stop()
            await load.check()


@contextlib.asynccontextmanager
async def present(channels, *nodes):
    """A user in these channels on each of these nodes."""
    async with contextlib.AsyncExitStack() as stack:
        for node in nodes:
            user = f"user-of-{node.name}"
            client = await stack.enter_async_context(
                await connect("python", node, token=token(user))
            )
            for channel in channels:
                await client.subscribe(channel)
        yield


async def presence(channels, nodes):
    """Who is in these channels: two everywhere, and the same whichever node is asked."""
    told = [
        [(await node.call("presence", channel=channel))["presence"] for channel in channels]
        for node in nodes
    ]
    assert all(each == told[0] for each in told), told
    assert all(len(clients) == 2 for clients in told[0]), told[0]
    return told[0]


async def test_a_second_signal_ends_a_drain_at_once():
    async with cluster(2, more='drain_timeout = "60s"\n') as c:
        # A paused peer can't take the slots over, and is missed only after half a second.
        c[0].pause()
        try:
            c[1].terminate()
            await eventually(lambda: "node.leaving" in c[1].log, 5, "the drain began")
            c[1].terminate()
            assert await c[1].exit_code(within=2) == 130
            assert "node.left" not in c[1].log
        finally:
            c[0].resume()


async def test_a_drain_ends_within_its_time_limit():
    async with cluster(2, more='drain_timeout = "400ms"\n') as c:
        c[0].pause()
        try:
            c[1].terminate()
            assert await c[1].exit_code(within=2) == 0
            assert re.search(r"drain.timed_out.*slots_owned=[1-9]", c[1].log), c[1].log
        finally:
            c[0].resume()


async def test_a_drain_without_anybody_to_hand_over_to_ends_at_once():
    async with cluster(2, more='drain_timeout = "60s"\n') as c:
        for node in c:
            node.terminate()
            assert await node.exit_code(within=5) == 0


async def test_a_drain_waits_for_who_died_a_moment_ago():
    async with cluster(2, more='drain_timeout = "60s"\n') as c:
        await c[1].call("publish", channel="long:kept", data="kept")
        c[0].kill()
        await c.gone(c[0], "long:kept", within=5)
        c[1].terminate()
        await eventually(lambda: "node.leaving" in c[1].log, 5, "the drain began")
        await c[0].start()
        assert await c[1].exit_code(within=15) == 0
        past = await c[0].call("history", channel="long:kept", limit=10)
        assert [pub["data"] for pub in past["publications"]] == ["kept"]
