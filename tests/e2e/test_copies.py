"""How many nodes hold what was acknowledged, and who says so."""

import asyncio
import time

from cent import HistoryRequest, PublishRequest
from harness import API_KEY, Cable, api, cluster, connect, eventually, token
from harness.bulk import Bulk
from harness.feed import resumed
from harness.node import orbweb
from harness.recorder import Recorder
from harness.traffic import Traffic

# How long two nodes must have been up, with all copies, before one goes on alone: 10 s, and the
# tenth of a second in which a node looks again.
STABLE_S = 10.5
# From the death of one until the other acknowledges: it waits for 3 s.
ALONE_S = 3.0, 5.5
# What a restarted node gets copies of, and what is published meanwhile.
STREAMS, STREAM_BYTES = 1000, 2000
CHANNELS = [f"long:live-{number}" for number in range(8)]


async def publish(node, channel, **more):
    """The result of a publication by the server API."""
    return await node.call("publish", channel=channel, data={"n": 1}, **more)


async def test_a_publication_is_held_by_as_many_nodes_as_configured():
    for copies in (2, 3):
        async with cluster(4, more=f"copies = {copies}\n") as c:
            for number in range(12):
                answer = await publish(c[number % 4], f"chat:{number}")
                assert answer["copies"] == copies, answer
            assert "copies" not in await publish(c[0], "ephemeral")
            await c.whole()


async def test_a_restarted_node_is_ready_when_no_slot_of_any_node_lacks_a_copy():
    recorder = Recorder()
    async with cluster(3, peers=True) as c, Bulk(c.nodes) as bulk:
        await bulk.broadcast([f"long:{n}" for n in range(STREAMS)], data="x" * STREAM_BYTES)
        await c.whole()
        victim, others = c[2], c.nodes[:2]
        traffic = Traffic(others, recorder, CHANNELS, rate=200, keepers=4, sdks=())
        async with traffic:
            for at_once in (False, True):
                await recorder.reaches(recorder.acknowledged + 100, 15)
                key = await c.key(victim)
                victim.kill()
                if not at_once:
                    await c.gone(victim, key)
                victim.launch()
                await victim.ready(within=30, poll=0.01)
                told = await victim.members()
                claims = told[victim.name]["slots_owned"], told[victim.name]["slots_claiming"]
                assert claims[0] > 0 and claims[1] == 0, claims
                for name in ("slots_unrepaired", "slots_under_replicated", "slots_astray"):
                    short = {node.name: told[node.name][name] for node in c}
                    assert not any(short.values()), (name, short)
                await c.whole()
            await traffic.stop()
            assert not any((await traffic.arrived(15)).values())


async def test_a_node_alone_says_that_it_is():
    async with cluster(1) as c:
        assert (await publish(c[0], "chat:a"))["copies"] == 1
        assert (await c[0].members())["n1"]["serving"] == "standalone"
        assert await c[0].counter("orbweb_serving_standalone") == 1
        assert "node.standalone" in c[0].log
        status = await asyncio.to_thread(
            orbweb, "status", "--node", c[0].http, "--api-key", API_KEY
        )
        assert "warning: n1 is standalone: it acknowledges with fewer copies" in status.stdout


async def test_a_degraded_node_says_so_until_it_has_company_again():
    async with cluster(2, peers=True, more='degraded = "accept"\n') as c:
        assert (await publish(c[0], "chat:a"))["copies"] == 2
        await c.whole()
        c[1].kill()
        # It waits whether the other comes back before it goes on alone.
        assert (await publish(c[0], "chat:a"))["copies"] == 1

        async def said():
            report = (await c[0].members())["n1"]
            short = [report[name] for name in ("slots_under_replicated", "slots_unrepaired")]
            return report["serving"] == "degraded" and short == [1, 0]

        await eventually(said, 2, "status says so")
        assert await c[0].counter("orbweb_serving_degraded") == 1
        assert await c[0].counter("orbweb_slot_under_replicated") == 1
        assert "node.degraded" in c[0].log
        assert "slots.under_replicated" not in c[0].log, "a short time is nobody's concern"
        status = await asyncio.to_thread(
            orbweb, "status", "--node", c[0].http, "--api-key", API_KEY
        )
        assert "warning: n1 is degraded: it acknowledges with fewer copies" in status.stdout
        assert "warning: n1 has 1 slots with too few copies" in status.stdout
        await eventually(lambda: "slots.under_replicated" in c[0].log, 15, "the log tells of it")
        await c[1].start()
        await c.whole()
        assert (await publish(c[0], "chat:a"))["copies"] == 2
        await eventually(lambda: "slots.replicated" in c[0].log, 5, "the log tells of the end")


async def test_the_second_node_goes_on_alone_with_all_that_the_first_had_alone():
    """By the default, `degraded = "half"`."""
    async with cluster(1) as c:
        names = [f"chat:{number}" for number in range(16)]
        for name in names:
            assert (await publish(c[0], name))["copies"] == 1
            kept = await c[0].call("session_set", user=name, key="kept", value=name)
            assert kept["copies"] == 1
        await c.add()
        await c.whole()
        room = await c.key(c[0])
        assert room in names
        async with (
            Cable(c[1]) as cable,
            await connect("js", cable, token=token("alice")) as alice,
            await connect("python", c[1], token=token("bob")) as bob,
        ):
            for client in (alice, bob):
                await client.subscribe(room)
            assert (await publish(c[1], room))["copies"] == 2
            for client in (alice, bob):
                await client.events.next("publication", channel=room)
            await asyncio.sleep(STABLE_S)
            await cable.cut()
            c[0].kill()
            killed = time.monotonic()
            alone = await c[1].publish_until_acknowledged(room, "alone")
            waited = time.monotonic() - killed
            assert (alone["copies"], alone["offset"]) == (1, 3)
            await cable.mend()
            await resumed(alice, room)
            for client in (alice, bob):
                await client.events.next("publication", channel=room, data="alone")
                got = [event["data"] for event in client.events.seen("publication", channel=room)]
                assert got == [{"n": 1}, "alone"]
            again = bob.events.seen("subscribed", channel=room)[1:]
            assert all(event["recovered"] for event in again), again
        print(f"acknowledged {waited:.2f} s after the kill")
        assert ALONE_S[0] <= waited <= ALONE_S[1]
        for name in names:
            past = (await c[1].call("history", channel=name, limit=10))["publications"]
            more = [{"n": 1}, "alone"] if name == room else []
            assert [pub["data"] for pub in past] == [{"n": 1}, *more]
            kept = await c[1].call("session_get", user=name)
            assert kept == {"attributes": {"kept": name}}
        assert (await c[1].members())["n2"]["serving"] == "degraded"


async def test_a_node_that_may_not_go_on_alone_refuses():
    async with cluster(2, peers=True, more='degraded = "refuse"\n') as c, api(c[0]) as server:
        await publish(c[0], "chat:a")
        c[1].kill()
        await eventually(lambda: refuses(c[0]), 10, "a refusal")
        assert await c[0].get_status_code("/readyz") == 503
        await c[1].start()
        await c.whole()
        await publish(c[0], "chat:a")
        past = await server.history(HistoryRequest(channel="chat:a", limit=10))
        offsets = [publication.offset for publication in past.publications]
        # Who was refused doesn't know whether it is there; what was acknowledged is.
        assert offsets == list(range(1, len(offsets) + 1)) and len(offsets) >= 2


async def refuses(node):
    answer = await node.post("publish", channel="chat:a", data=1)
    return answer.get("error", {}).get("code") == 100


async def test_an_idempotency_key_outlives_the_owner():
    async with cluster(3) as c, api(c[0]) as server:
        channel = await c.key(c[2])
        request = PublishRequest(channel=channel, data="once", idempotency_key="key-1")
        first = await server.publish(request)
        assert (await server.publish(request)).offset == first.offset
        c[2].kill()
        again = await server.publish(request)
        assert (again.offset, again.epoch) == (first.offset, first.epoch)
        past = await server.history(HistoryRequest(channel=channel, limit=10))
        assert [publication.data for publication in past.publications] == ["once"]
