"""Nodes are killed: nothing that was acknowledged is lost, and clients of each SDK keep their
place."""

import contextlib

import pytest
from harness import Cable, api, cluster, connect, token
from harness.failover import Plan, failover
from harness.feed import Feed, resumed

@contextlib.asynccontextmanager
async def client_of(sdk, cable, user, kind):
    """A client that listens to its inbox (`kind` inbox) or to a channel named as its user."""
    async with await connect(sdk, cable, token=token(user if kind == "inbox" else "alice")) as it:
        if kind == "inbox":
            await it.events.next("subscribed", channel=f"#{user}", server=True)
        else:
            await it.subscribe(user)
        yield it


@pytest.mark.parametrize("position", ["never lost", "before", "during", "after"])
@pytest.mark.parametrize("kind", ["subscription", "inbox"])
async def test_a_killed_owner_costs_no_position_wherever_it_was_taken(sdk, kind, position):
    """`position`: where the client was, seen from the failover, when it was cut off."""
    async with cluster(3) as c, Cable(c[0]) as cable, api(c[1]) as server:
        owner = c[2]
        key = await c.key(owner, "user-" if kind == "inbox" else "chat:")
        channel = f"#{key}" if kind == "inbox" else key
        async with client_of(sdk, cable, key, kind) as alice:
            feed = Feed(server, channel)
            await feed.publish()
            await feed.reached(alice)
            if position == "before":
                await cable.cut()
            await feed.publish()
            owner.kill()
            if position == "during":
                await cable.cut()
            await feed.publish()
            if position == "after":
                await feed.reached(alice)
                await cable.cut()
            await feed.publish()
            if position == "never lost":
                await feed.reached_exactly(alice)
                assert len(alice.events.seen("connected")) == 1, "it cost the connection"
                return
            await cable.mend()
            await resumed(alice, channel)
            await feed.reached_exactly(alice)


@pytest.mark.parametrize("victim", ["gateway", "gateway and owner"])
async def test_clients_of_a_killed_node_resume_on_another(sdk, victim):
    async with cluster(3) as c, Cable(c[0], c[1]) as cable, api(c[1]) as server:
        owner = c[0] if victim == "gateway and owner" else c[2]
        user, room = await c.key(owner, "user-"), await c.key(owner)
        async with client_of(sdk, cable, user, "inbox") as alice:
            await alice.subscribe(room)
            feed = Feed(server, f"#{user}", room)
            await feed.publish()
            await feed.reached(alice)
            c[0].kill()
            await feed.publish()
            await resumed(alice, f"#{user}", room)
            await feed.publish()
            await feed.reached_exactly(alice)


async def test_nothing_acknowledged_is_lost_when_nodes_are_killed():
    report = await failover(Plan.from_environment(kills=6, publications=20_000))
    assert report.problems() == []


async def test_nothing_acknowledged_is_lost_when_nodes_are_killed_and_paused():
    report = await failover(Plan.from_environment(kills=3, pauses=3, pause_max=8, publications=10_000))
    assert report.problems() == []


async def test_with_one_copy_the_recorder_finds_what_is_lost():
    """Else the tests above could not fail."""
    report = await failover(Plan(kills=6, publications=20_000, copies=1))
    assert report.lost and report.gaps, report.table()
