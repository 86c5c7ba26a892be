"""Three hosts with addresses of their own; one is cut off and comes back."""

import asyncio
import contextlib
import time

import pytest
from harness import Reads, cluster, connect, eventually, token
from harness.hosts import hosts

pytestmark = pytest.mark.hosts


@contextlib.asynccontextmanager
async def cluster_on_hosts(**options):
    with hosts(3) as machines:
        async with cluster_of(machines, **options) as c:
            yield c, machines


@contextlib.asynccontextmanager
async def cluster_of(machines, before=lambda c, machines: None):
    async with cluster(0) as c:
        for host in machines:
            c.node(host.name, host=host.address, prefix=host.prefix)
        before(c, machines)
        for node in c:
            node.launch()
        for node in c:
            await node.ready()
        await c.settled()
        yield c


async def publish_all(client, channel, numbers):
    for number in numbers:
        await client.publish(channel, number)


@pytest.mark.parametrize("way", ["unplugged", "filtered"])
async def test_a_host_that_was_cut_off_comes_back(way):
    async with cluster_on_hosts() as (c, machines):
        away = machines[2]
        kept, lost = await c.key(c[0]), await c.key(c[2])
        async with (
            await connect("python", c[1], token=token("alice")) as alice,
            await connect("python", c[2], token=token("bob")) as bob,
        ):
            await alice.subscribe(kept)
            await bob.subscribe(kept)
            await publish_all(alice, kept, range(5))
            await bob.events.count(5, "publication", channel=kept)

            if way == "unplugged":
                away.unplug()
            else:
                away.cut_peers()

            async def without_it():
                owners = await asyncio.gather(c[0].owner(lost), c[1].owner(lost))
                return c[2].name not in owners

            await eventually(without_it, 5, "the others go on without it")
            await publish_all(alice, kept, range(5, 20))
            if way == "filtered":
                # It answers still and knows that it may not: one of three is less than half.
                async def not_ready():
                    return await c[2].get_status_code("/readyz") == 503

                await eventually(not_ready, 15, "the host that is cut off says it isn't ready")

            if way == "unplugged":
                away.plug()
            else:
                away.mend_peers()
            await c.settled(within=30)
            await publish_all(alice, kept, range(20, 25))
            got = await bob.events.count(25, "publication", within=25, channel=kept)
            assert [event["data"] for event in got] == list(range(25))


@pytest.mark.parametrize(
    "way", [{}, {"mute": False}, {"deaf": False}], ids=["cut off", "deaf", "mute"]
)
async def test_an_owner_that_others_replaced_shows_nothing_of_the_past(way):
    async with (
        cluster_on_hosts() as (c, machines),
        await connect("python", c[0], token=token("alice")) as alice,
    ):
        channel = await c.key(c[2])
        async with Reads(c[2], channel) as reads:
            await c[0].call("publish", channel=channel, data="before")
            await reads.more()
            machines[2].cut_peers(**way)
            cut = time.monotonic()
            await c[0].publish_until_acknowledged(channel, "after")
            await alice.subscribe(channel)
            gone_on = time.monotonic()
            await reads.more(60)
            machines[2].mend_peers()
            await c.settled(within=30)
            mended = time.monotonic()
            await reads.more()
            await reads.stop()
        assert ["before"] in reads.histories(until=cut), "it answered as the owner"
        for got in reads.histories(gone_on):
            assert got == ["before", "after"]
        for users in reads.users(gone_on):
            assert users == {"alice"}
        assert reads.histories(mended) and reads.users(mended), "it answers again"


def block_tcp_of_peers(c, machines):
    for host in machines:
        host.block_tcp(*(node.mesh_port for node in c))


async def test_a_process_that_dies_on_a_host_is_noticed_at_once():
    async with cluster_on_hosts() as (c, _):
        await c.lined()
        key = await c.key(c[2])
        began = time.monotonic()
        c[2].kill()
        await c.gone(c[2], key, poll=0.005)
        assert time.monotonic() - began < 0.3


@pytest.mark.parametrize("blocked", ["from the start", "later"])
async def test_where_tcp_between_peers_is_dropped_gossip_notices_deaths(blocked):
    options = {"before": block_tcp_of_peers} if blocked == "from the start" else {}
    async with cluster_on_hosts(**options) as (c, machines):
        if blocked == "later":
            await c.lined()
            block_tcp_of_peers(c, machines)
        else:
            assert [await node.counter("orbweb_lifeline_up") for node in c] == [0, 0, 0]
        key = await c.key(c[2])
        c[2].kill()
        assert await c.gone(c[2], key, within=1.5) > 0.15
        await c.settled()


async def test_two_hosts_that_cannot_reach_each_other_go_through_the_third():
    async with cluster_on_hosts() as (c, machines):
        channel = await c.key(c[2])
        machines[0].cut_peers(machines[2])
        async with (
            await connect("python", c[0], token=token("alice")) as alice,
            await connect("python", c[1], token=token("bob")) as bob,
        ):

            async def through():
                with contextlib.suppress(Exception):
                    await alice.subscribe(channel)
                    await alice.publish(channel, "through the third")
                    return True

            await bob.subscribe(channel)
            await eventually(through, 20, "a publication to an owner out of direct reach")
            await bob.events.next("publication", channel=channel, data="through the third")
            await alice.events.next("publication", channel=channel, data="through the third")
            # All three count: one broken link of three takes nobody out.
            await c.settled()
            machines[0].mend_peers()
            await publish_all(alice, channel, range(5))
            got = [await bob.events.next("publication", channel=channel, data=n) for n in range(5)]
            assert len(got) == 5
