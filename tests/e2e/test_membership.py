"""Nodes come, die, come back, and are kept out."""

import asyncio
import contextlib
import math
import statistics
import time

import pytest
from cent import CentApiResponseError, PublishRequest
from harness import Cable, Ended, Load, Reads, api, cluster, connect, eventually, token


async def test_a_killed_node_is_gone_from_every_view_within_a_second_and_a_half():
    async with cluster(3) as c:
        victim = c[2]
        key = await c.key(victim)
        victim.kill()
        await c.gone(victim, key, within=1.5)
        await c.settled(within=10)


async def test_a_killed_process_is_noticed_before_its_silence_is():
    async with cluster(3) as c:
        taken = []
        for victim in (c[2], c[1], c[2], c[1], c[2]):
            await c.lined()
            key = await c.key(victim)
            began = time.monotonic()
            victim.kill()
            await c.gone(victim, key, within=1.5, poll=0.005)
            taken.append(time.monotonic() - began)
            await c.settled()
            await victim.start()
            await c.settled()
        print("noticed after", [round(seconds, 3) for seconds in taken])
        assert statistics.median(taken) < 0.15, taken


async def test_a_stopped_process_has_its_lifelines_and_is_noticed_by_its_silence():
    async with cluster(3) as c:
        await c.lined()
        key = await c.key(c[2])
        c[2].pause()
        try:
            # Its kernel answers for it, so only gossip can tell.
            assert await c.gone(c[2], key, within=5, poll=0.005) > 0.15
            for node in (c[0], c[1]):
                assert await node.counter("orbweb_lifeline_cut_total") == 0
                assert await node.counter("orbweb_lifeline_up") == 2
        finally:
            c[2].resume()
        await c.settled(within=20)


ONE_COPY = "copies = 1\n"


async def test_streams_of_a_killed_owner_go_on_where_they_were(sdk):
    async with cluster(3) as c, Cable(c[0]) as cable:
        channel = await c.key(c[2])
        async with (
            await connect(sdk, cable, token=token("alice")) as alice,
            await connect(sdk, c[1], token=token("bob")) as bob,
        ):
            await alice.subscribe(channel)
            await bob.subscribe(channel)
            await bob.publish(channel, "before")
            await alice.events.next("publication", channel=channel, data="before")
            await cable.cut()
            await bob.publish(channel, "missed")
            c[2].kill()
            await c.gone(c[2], channel, within=5)
            await cable.mend()
            await alice.events.next(
                "subscribed", within=15, channel=channel, was_recovering=True, recovered=True
            )
            # It waits for the new owner; nobody has to try again.
            await bob.publish(channel, "after")
            for client in (alice, bob):
                await client.events.next("publication", within=10, channel=channel, data="after")
                got = [event["data"] for event in client.events.seen("publication")]
                assert got == ["before", "missed", "after"]
                again = client.events.seen("subscribed", channel=channel)[1:]
                assert all(event["recovered"] for event in again), again


async def test_an_inbox_of_a_killed_owner_goes_on_without_a_new_connection(sdk):
    async with cluster(3) as c, api(c[1]) as server:
        user = await c.key(c[2], "user-")
        inbox = f"#{user}"
        async with await connect(sdk, c[0], token=token(user)) as alice:
            await alice.events.next("subscribed", channel=inbox, server=True)
            before = await server.publish(PublishRequest(channel=inbox, data="before"))
            await alice.events.next("publication", channel=inbox, data="before")
            c[2].kill()
            after = await server.publish(PublishRequest(channel=inbox, data="after"))
            await alice.events.next("publication", within=10, channel=inbox, data="after")
            got = [event["data"] for event in alice.events.seen("publication", channel=inbox)]
            assert got == ["before", "after"]
            assert (before.offset, after.offset) == (1, 2)
            assert len(alice.events.seen("connected")) == 1, "it cost the connection"


async def test_with_one_copy_streams_of_a_killed_owner_say_that_they_are_not_recovered(sdk):
    async with cluster(3, more=ONE_COPY) as c, Cable(c[0]) as cable:
        channel = await c.key(c[2])
        async with (
            await connect(sdk, cable, token=token("alice")) as alice,
            await connect(sdk, c[1], token=token("bob")) as bob,
        ):
            await alice.subscribe(channel)
            await bob.subscribe(channel)
            await bob.publish(channel, "before")
            await alice.events.next("publication", channel=channel, data="before")
            await cable.cut()
            c[2].kill()
            await c.gone(c[2], channel, within=5)
            await cable.mend()
            # Who comes back is told of the gap, and so is who was never gone.
            for client in (alice, bob):
                await client.events.next(
                    "subscribed", within=15, channel=channel, was_recovering=True, recovered=False
                )
            # Both listen to the new owner.
            await until_published(bob, channel, "after")
            await alice.events.next("publication", within=10, channel=channel, data="after")
            await bob.events.next("publication", within=10, channel=channel, data="after")


async def test_with_one_copy_an_inbox_of_a_killed_owner_begins_anew_and_says_so(sdk):
    async with cluster(3, more=ONE_COPY) as c, api(c[1]) as server:
        user = await c.key(c[2], "user-")
        inbox = f"#{user}"
        async with await connect(sdk, c[0], token=token(user)) as alice:
            await alice.events.next("subscribed", channel=inbox, server=True)
            await server.publish(PublishRequest(channel=inbox, data="before"))
            await alice.events.next("publication", channel=inbox, data="before")
            c[2].kill()
            # The connection itself was never broken: it is ended, because this can't be told on it.
            await alice.events.next("connecting", within=10, code=3010)
            await alice.events.next(
                "subscribed", within=10, channel=inbox, was_recovering=True, recovered=False
            )

            async def published():
                try:
                    return await server.publish(PublishRequest(channel=inbox, data="after"))
                except CentApiResponseError as error:
                    assert error.code == 100, error

            await eventually(published, 10, "a publish after the owner changed")
            await alice.events.next("publication", channel=inbox, data="after")
            got = [event["data"] for event in alice.events.seen("publication", channel=inbox)]
            assert got == ["before", "after"]


async def test_presence_comes_back_after_its_owner_was_killed(sdk):
    async with cluster(3) as c:
        channel = await c.key(c[2])
        async with contextlib.AsyncExitStack() as stack:
            clients = {}
            for name, node in (("alice", c[0]), ("bob", c[1])):
                clients[name] = await stack.enter_async_context(
                    await connect(sdk, node, token=token(name))
                )
                await clients[name].subscribe(channel)
            c[2].kill()
            await c.gone(c[2], channel, within=5)

            async def both():
                with contextlib.suppress(Exception):
                    return sorted((await clients["alice"].presence(channel)).values()) == [
                        "alice",
                        "bob",
                    ]

            await eventually(both, 10, "presence with both again")


async def test_clients_of_a_killed_node_come_back_elsewhere_and_miss_nothing(sdk):
    async with cluster(3) as c, Cable(c[2], c[0]) as cable:
        channel = await c.key(c[1])
        async with (
            await connect(sdk, cable, token=token("alice")) as alice,
            await connect(sdk, c[0], token=token("bob")) as bob,
        ):
            await alice.subscribe(channel)
            await bob.subscribe(channel)
            await bob.publish(channel, 0)
            await alice.events.next("publication", channel=channel)
            c[2].kill()
            for number in range(1, 6):
                await bob.publish(channel, number)
            await alice.events.next(
                "subscribed", channel=channel, was_recovering=True, recovered=True
            )
            got = await alice.events.count(6, "publication", channel=channel)
            assert [event["data"] for event in got] == list(range(6))


@pytest.mark.parametrize("address", ["same", "another"])
async def test_a_node_restarted_at_once_replaces_itself(address):
    async with cluster(3) as c:
        key, slots = await c.key(c[2]), await c.slots()
        before = (await owners_of(key, c))[0]
        if address == "another":
            c[2].move()
        killed = time.monotonic()
        c[2].kill()
        c[2].launch()
        assert time.monotonic() - killed < 0.05, "too late to be at once"

        async def replaced():
            first, *others = await owners_of(key, c)
            assert first["name"] == "n3" and first["incarnation"] != before["incarnation"]
            return all(other == first for other in others)

        # It takes 0.4 to 0.6 s where nothing else runs.
        await eventually(replaced, 2, "everybody knows the new incarnation", poll=0.01)
        await c[2].ready()
        await c.settled()
        # The ring follows the name: it has its old slots back.

        async def restored():
            return await c.slots() == slots

        await eventually(restored, 5, "every node owns the slots that it had")


async def test_a_second_node_of_a_name_is_refused_and_says_why():
    async with cluster(2) as c:
        double = c.node("n2")
        double.launch()
        assert await double.exit_code(within=10) == 1
        # Its last word, on one line, and not a word of the node that was there before.
        last = double.log.splitlines()[-1]
        assert last.startswith("orbweb: this node can't be part of the cluster: "), double.log
        assert c[1].mesh_address in last and double.mesh_address in last, double.log
        await c.settled()
        assert c[1].running


async def test_a_wrong_secret_is_kept_out_and_harms_nobody():
    async with cluster(2) as c:
        stranger = c.node("stranger", secret=c.new_secret("other")).launch()
        try:
            await eventually(
                lambda: any(word in node.log for node in c for word in ("refused", "secret")),
                10,
                "somebody says why the stranger is kept out",
            )
            if stranger.running:
                assert await stranger.get_status_code("/readyz") == 503
            for node in c.nodes[:2]:
                assert sorted(await node.members()) == ["n1", "n2"]
                # Told once a source, however often it tries.
                assert sum("secret" in line for line in node.log.splitlines()) <= 2

            async def counted():
                return await c[0].counter("orbweb_link_refused_total") >= 2

            # It tries again, and each time counts.
            await eventually(counted, 10, "refusals are counted")
        finally:
            if stranger.running:
                stranger.kill()


async def test_the_secret_is_replaced_node_by_node():
    async with cluster(2) as c:
        old, new = c.secret, c.new_secret("new")
        # First everybody accepts both, then everybody uses the new one, then the old one goes.
        for secret, accepted in ((old, new), (new, old), (new, None)):
            for node, other in ((c[1], c[0]), (c[0], c[1])):
                node.terminate()
                assert await node.exit_code(within=20) == 0
                node.secret, node.join = secret, [other]
                node.args = ["--set", f"previous_secret_file={accepted}"] if accepted else []
                await node.start()
                await c.settled()


async def test_the_seed_may_come_up_last():
    async with cluster(3, start=False) as c:
        c[1].launch()
        c[2].launch()
        for node in (c[1], c[2]):
            await eventually(lambda node=node: serves(node), 10, "its HTTP side")
        # c[1] and c[2] know nobody but the seed: neither serves clients alone.
        assert [await node.get_status_code("/readyz") for node in (c[1], c[2])] == [503, 503]
        c[0].launch()
        for node in c:
            await node.ready(within=15)
        await c.settled()


async def test_a_node_joins_by_name():
    async with cluster(1) as c:
        late = await c.add(join=[f"localhost:{c[0].mesh_port}"])
        assert "--join" in late.command() and c[0].mesh_address not in late.command()
        await c.settled()
        assert sorted(await late.members()) == ["n1", "n2"]


async def test_two_nodes_that_point_at_each_other_form_one_cluster():
    async with cluster(2, start=False) as c:
        c[0].join, c[1].join = [c[1]], [c[0]]
        c[0].launch()
        c[1].launch()
        for node in c:
            await node.ready(within=15)
        await c.settled()


async def test_nodes_that_start_at_the_same_moment_form_one_cluster_soon():
    async with cluster(3, start=False) as c:
        for node in c:
            node.join = [other for other in c if other is not node]
        for node in c:
            node.launch()
        began = time.monotonic()
        for node in c:
            await node.ready(within=10)
        await c.settled(within=5)
        # Half of a second but for starting three unoptimised processes on a busy machine.
        assert time.monotonic() - began < 4


async def test_a_paused_node_leaves_and_shows_nothing_of_the_past_when_it_is_back():
    async with cluster(3) as c, await connect("python", c[0], token=token("alice")) as alice:
        channel = await c.key(c[2])
        async with Reads(c[2], channel) as reads:
            await c[0].call("publish", channel=channel, data="before")
            await reads.more()
            c[2].pause()
            paused = time.monotonic()
            try:
                await c[0].publish_until_acknowledged(channel, "after")
                await alice.subscribe(channel)
                gone_on = time.monotonic()
                # These wait in its kernel for it to go on.
                await reads.more()
            finally:
                c[2].resume()
            resumed = time.monotonic()
            await c.settled(within=20)
            await reads.more()
            await reads.stop()
        assert ["before"] in reads.histories(until=paused), "it answered as the owner"
        for since, until in ((gone_on, resumed), (resumed, math.inf)):
            for got in reads.histories(since, until):
                assert got == ["before", "after"]
            for users in reads.users(since, until):
                assert users == {"alice"}
        assert reads.histories(resumed) and reads.users(resumed), "it answers again"


async def test_traffic_of_the_living_goes_on_while_a_node_dies():
    async with cluster(3) as c:
        channels = [await c.key(c[0], "long:a"), await c.key(c[1], "long:b")]
        async with Load(channels, pause=0.01) as load:
            await load.listen("n1", c[0])
            await load.listen("n2", c[1])
            await load.publish_on(c[0], c[1])
            await load.flows()
            c[2].kill()
            await load.flows(100, within=20)
            await load.stop()
            await load.check()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--join", "127.0.0.1:7401"], ["orbweb secret"]),
        (["--mesh-listen", "127.0.0.1:7401"], ["orbweb secret"]),
        (["--listen", "nonsense"], ["listen", "nonsense"]),
        (["--dev", "--listen", "0.0.0.0:0"], ["dev"]),
    ],
)
async def test_a_wrong_start_says_what_is_wrong(arguments, words):
    async with cluster(1, start=False, mesh=False, config="") as c:
        c[0].words = ["serve", *arguments]
        c[0].launch()
        assert await c[0].exit_code(within=5) != 0
        assert all(word in c[0].log for word in words), c[0].log


async def owners_of(key, nodes):
    """Name and incarnation of the owner of a key, as each of these nodes says. (`/api/status` would
    wait for a node that died.)"""
    found = await asyncio.gather(*(node.get("/api/owner", key=key) for node in nodes))
    return [each["owner"] for each in found]


async def serves(node):
    if not node.running:
        raise Ended(node.log)
    return await node.get_status_code("/healthz") == 200


async def until_published(client, channel, data):
    """Publishes until it is acknowledged: while a slot has no owner, publishing is refused."""

    async def published():
        try:
            await client.publish(channel, data)
        except Exception:  # whatever the SDK raises: it wasn't acknowledged
            return False
        return True

    await eventually(published, 15, "a publish after the owner changed")
