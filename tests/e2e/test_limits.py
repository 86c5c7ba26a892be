"""Input that breaks a limit gets its code; the node and the other connections are unharmed."""

import asyncio
import contextlib
import json
import os

import pytest
import websockets
from cent import PublishRequest
from harness import Cable, Raw, api, cluster, connect, eventually, token
from harness.bulk import BATCH_MAX, Bulk
from harness.latency import latency

# Of one node; `ORBWEB_MANY_CHANNELS=100000` takes half a minute unoptimised, and `tests/measure
# memory` has as many.
MANY_CHANNELS = int(os.environ.get("ORBWEB_MANY_CHANNELS", "20000"))
# From publish to delivery for 99 of 100, of an unoptimised node beside others.
P99_S_MAX = 0.5

@contextlib.asynccontextmanager
async def node_with_a_witness(**options):
    """One node, and a connection that has to live through what happens beside it."""
    async with cluster(1, **options) as c:
        async with await connect("python", c[0], token=token("witness")) as witness:
            await witness.subscribe("chat:witness")
            yield c[0]
            await witness.publish("chat:witness", "unharmed")
            await witness.events.next("publication", channel="chat:witness", data="unharmed")
            assert len(witness.events.seen("connected")) == 1
        assert c[0].running


async def test_a_frame_of_64_kib_passes_and_a_longer_one_closes():
    async with node_with_a_witness() as node:
        async with await Raw.dial(node.ws) as raw:
            await raw.connect(token=token("alice"))
            await raw.call(subscribe={"channel": "chat:room"})
            shell = len(json.dumps({"id": 3, "publish": {"channel": "chat:room", "data": ""}}))
            answer = await raw.call(publish={"channel": "chat:room", "data": "x" * (65536 - shell)})
            assert "error" not in answer
            await raw.send({"id": 9, "publish": {"channel": "chat:room", "data": "x" * 65536}})
            assert await raw.close_code() == 1009


async def test_channel_names_have_255_bytes():
    async with node_with_a_witness() as node, await Raw.dial(node.ws) as raw:
        await raw.connect(token=token("alice"))
        assert "error" not in await raw.call(subscribe={"channel": "x" * 255})
        answer = await raw.call(subscribe={"channel": "x" * 256})
        assert answer["error"]["code"] in (106, 107)
        # Bytes, not characters.
        answer = await raw.call(subscribe={"channel": "ü" * 128})
        assert answer["error"]["code"] in (106, 107)


async def test_who_does_not_authenticate_in_time_is_closed():
    async with node_with_a_witness(more='client.auth_timeout = "1s"\n') as node:
        async with await Raw.dial(node.ws) as raw:
            assert await raw.close_code(within=5) == 3502


async def test_a_slow_reader_is_closed_with_3008():
    async with node_with_a_witness() as node, api(node) as server:
        flood = PublishRequest(channel="chat:flood", data="x" * 60_000)
        async with await Raw.dial(node.ws, max_queue=1) as raw:
            await raw.connect(token=token("alice"))
            await raw.call(subscribe={"channel": "chat:flood"})
            raw.socket.transport.pause_reading()
            before = node.memory_bytes()
            # What the kernel's buffers take isn't the node's.
            for _ in range(400):
                await server.publish(flood)
                if await node.counter("orbweb_gateway_closed_slow_total") == 1:
                    break
            raw.socket.transport.resume_reading()
            assert await raw.close_code(within=10) == 3008
            assert node.memory_bytes() - before < 64 * 1024 * 1024


async def test_who_never_reads_costs_no_more_than_its_outbox():
    async with node_with_a_witness() as node, api(node) as server:
        flood = PublishRequest(channel="chat:flood", data="x" * 60_000)
        async with await Raw.dial(node.ws, max_queue=1) as raw:
            await raw.connect(token=token("alice"))
            await raw.call(subscribe={"channel": "chat:flood"})
            raw.socket.transport.pause_reading()
            before = node.memory_bytes()
            for _ in range(400):
                await server.publish(flood)
            assert node.memory_bytes() - before < 64 * 1024 * 1024

            async def dropped():
                return await node.counter("orbweb_gateway_connections") == 1

            # Its close frame can't reach it, and isn't waited for.
            await eventually(dropped, 5, "only the witness is connected")


async def test_a_connection_has_at_most_128_channels():
    async with node_with_a_witness() as node, await Raw.dial(node.ws) as raw:
        await raw.connect(token=token("alice"))
        answers = [await raw.call(subscribe={"channel": f"c{number}"}) for number in range(130)]
        refused = [number for number, answer in enumerate(answers) if "error" in answer]
        # The inbox may count as one.
        assert refused in (list(range(127, 130)), list(range(128, 130)))
        assert answers[-1]["error"]["code"] == 106


async def answers(raw, count):
    """The next replies; pushes in between are dropped."""
    found = []
    while len(found) < count:
        answer = await raw.receive(10)
        if "id" in answer:
            found.append(answer)
    return found


async def test_requests_beyond_256_that_wait_are_refused_at_once_and_the_others_answered():
    async with cluster(3) as c, await Raw.dial(c[0].ws) as raw:
        channel, other = await c.key(c[2]), await c.key(c[1])
        async with await connect("python", c[0], token=token("witness")) as witness:
            await witness.subscribe(other)
            await raw.connect(token=token("alice"))
            await raw.call(subscribe={"channel": channel})
            publish = {"channel": channel, "data": 1}
            numbers = list(range(1000, 1300))
            c[2].pause()
            try:
                await raw.send(*({"id": number, "publish": publish} for number in numbers))
                refused = await answers(raw, 44)
                await witness.publish(other, "unharmed")
            finally:
                c[2].resume()
            assert [answer["id"] for answer in refused] == numbers[256:]
            assert {answer["error"]["code"] for answer in refused} == {111}
            others = await answers(raw, 256)
            assert others == [{"id": number, "publish": {}} for number in numbers[:256]]
            assert "error" not in await raw.call(publish=publish)
            await witness.events.next("publication", channel=other, data="unharmed")
            assert len(witness.events.seen("connected")) == 1


async def fill(node, channel, count):
    """Publishes 1, 2, 3, … by the server API."""
    async with Bulk([node]) as bulk:
        await bulk.broadcast([channel], data=1)
        commands = [{"publish": {"channel": channel, "data": n}} for n in range(2, count + 1)]
        await bulk.call("batch", commands=commands)


async def pages_of(read):
    """All of a stream, page by page; `read` takes a position."""
    pages, since = [], None
    while not pages or pages[-1]:
        page = await read(since)
        pages.append([pub["data"] for pub in page.get("publications", [])])
        since = {"epoch": page["epoch"], "offset": sum(map(len, pages))}
    return pages[:-1]


async def test_a_history_has_at_most_300_publications_and_goes_on_behind_them():
    async with node_with_a_witness() as node, await Raw.dial(node.ws) as raw:
        await fill(node, "long:room", 700)
        await raw.connect(token=token("alice"))
        await raw.call(subscribe={"channel": "long:room"})
        more = {"channel": "long:room", "limit": 1000}

        async def by_client(since):
            return (await raw.call(history={**more, "since": since}))["history"]

        async def by_server(since):
            return await node.call("history", **more, since=since)

        for read in (by_client, by_server):
            pages = await pages_of(read)
            assert [len(page) for page in pages] == [300, 300, 100]
            assert sum(pages, []) == list(range(1, 701))


@pytest.mark.parametrize("missed", [300, 301])
async def test_who_missed_more_than_300_publications_is_told_so(missed):
    async with node_with_a_witness() as node, Cable(node) as cable:
        async with await connect("python", cable, token=token("alice")) as alice:
            await alice.subscribe("long:room")
            await cable.cut()
            await fill(node, "long:room", missed)
            await cable.mend()
            back = await alice.events.next("subscribed", channel="long:room", was_recovering=True)
            assert back["recovered"] == (missed == 300)
            await node.call("publish", channel="long:room", data="now")
            await alice.events.next("publication", channel="long:room", data="now")
            got = [event["data"] for event in alice.events.seen("publication", channel="long:room")]
            assert got == [*(range(1, 301) if missed == 300 else []), "now"]


async def test_a_batch_has_1000_commands_and_a_broadcast_1000_channels():
    def batch(count):
        command = {"publish": {"channel": "long:batch", "data": 1}}
        return {"commands": [command] * count, "parallel": True}

    def broadcast(count):
        return {"channels": [f"long:{n}" for n in range(count)], "data": 1}

    async with node_with_a_witness() as node:
        replies = (await node.post("batch", **batch(1000)))["replies"]
        assert sorted(reply["publish"]["offset"] for reply in replies) == list(range(1, 1001))
        responses = (await node.call("broadcast", **broadcast(1000)))["responses"]
        assert [response["result"]["offset"] for response in responses] == [1] * 1000
        for method, body in (("batch", batch(1001)), ("broadcast", broadcast(1001))):
            assert (await node.post(method, **body))["error"]["code"] == 106
        assert (await node.call("history", channel="long:batch"))["offset"] == 1000
        assert (await node.call("history", channel="long:1000"))["offset"] == 0


async def test_a_node_has_no_limit_of_channels_and_serves_each_of_very_many():
    channels = [f"long:{n}" for n in range(MANY_CHANNELS)]
    async with node_with_a_witness() as node, Bulk([node]) as bulk:
        await bulk.broadcast(channels, data="first")
        found = await latency(node, node, "long:many", rate=200, seconds=2)
        assert found["deliver_us"]["p99"] < P99_S_MAX * 1e6, found
        await bulk.broadcast(channels, data="second")
        some = channels[:: MANY_CHANNELS // BATCH_MAX][:BATCH_MAX]
        reads = [{"history": {"channel": channel, "limit": 10}} for channel in some]
        replies = (await bulk.call("batch", commands=reads, parallel=True))["replies"]
        pasts = [[pub["data"] for pub in reply["history"]["publications"]] for reply in replies]
        assert pasts == [["first", "second"]] * BATCH_MAX
        assert await node.counter("orbweb_stream_held") >= MANY_CHANNELS


BROKEN = {
    "a command before connect": ['{"id":1,"subscribe":{"channel":"chat:room"}}'],
    "a second connect": ["CONNECT", '{"id":7,"connect":{}}'],
    "no id": ["CONNECT", '{"id":0,"publish":{"channel":"chat:room","data":1}}'],
    "no JSON": ["CONNECT", "{"],
    "an empty channel": ["CONNECT", '{"id":7,"subscribe":{"channel":""}}'],
    "a pong without a ping": ["CONNECT", "{}"],
}


@pytest.mark.parametrize("name", BROKEN)
async def test_who_breaks_the_protocol_is_closed_with_3501(name):
    async with node_with_a_witness() as node, await Raw.dial(node.ws) as raw:
        for frame in BROKEN[name]:
            if frame == "CONNECT":
                await raw.connect(token=token("alice"))
            else:
                await raw.socket.send(frame)
        assert await raw.close_code() == 3501


async def test_a_command_that_is_not_known_is_an_error():
    async with node_with_a_witness() as node, await Raw.dial(node.ws) as raw:
        await raw.connect(token=token("alice"))
        for unknown in ({}, {"of_a_later_version": {}}):
            answer = await raw.call(**unknown)
            assert answer["error"]["code"] == 104
        assert "error" not in await raw.call(subscribe={"channel": "chat:room"})


async def test_subscribing_twice_is_an_error():
    async with node_with_a_witness() as node, await Raw.dial(node.ws) as raw:
        await raw.connect(token=token("alice"))
        await raw.call(subscribe={"channel": "chat:room"})
        answer = await raw.call(subscribe={"channel": "chat:room"})
        assert answer["error"]["code"] == 105


@pytest.mark.parametrize("owner", ["here", "elsewhere"])
async def test_commands_of_a_frame_are_carried_out_in_order(owner):
    async with cluster(2) as c, await Raw.dial(c[0].ws) as raw:
        channel = await c.key(c[0] if owner == "here" else c[1])
        await raw.send(
            {"id": 1, "connect": {"token": token("alice")}},
            {"id": 2, "subscribe": {"channel": channel}},
            {"id": 3, "publish": {"channel": channel, "data": 5}},
            {"send": {"data": "no answer wanted"}},
            {"id": 4, "presence_stats": {"channel": channel}},
            {"id": 5, "history": {"channel": channel, "limit": 10}},
        )
        answers, pushed = {}, []
        while len(answers) < 5 or not pushed:
            answer = await raw.receive()
            if "id" in answer:
                answers[answer["id"]] = answer
            elif publication := answer["push"].get("pub"):
                pushed.append(publication["data"])
        assert all("error" not in answer for answer in answers.values()), answers
        assert answers[4]["presence_stats"] == {"num_clients": 1, "num_users": 1}
        assert [pub["data"] for pub in answers[5]["history"]["publications"]] == [5]
        assert pushed == [5]


async def test_pings_come_and_silence_is_closed_with_3012():
    more = 'client.ping_interval = "1s"\nclient.pong_timeout = "500ms"\n'
    async with node_with_a_witness(more=more) as node:
        async with await Raw.dial(node.ws) as raw:
            reply = await raw.connect(token=token("alice"))
            assert (reply["ping"], reply["pong"]) == (1, True)
            # Reading without answering.
            assert await raw.close_code(within=5) == 3012


async def test_other_paths_and_plain_requests_are_refused():
    async with node_with_a_witness() as node:
        assert await node.get_status_code("/connection/websocket") in (400, 426)
        assert await node.get_status_code("/nothing/here") == 404
        with pytest.raises(websockets.InvalidStatus):
            await Raw.dial(node.http.replace("http", "ws") + "/healthz")


async def test_half_a_handshake_holds_nobody_up():
    async with node_with_a_witness() as node:
        _, writer = await asyncio.open_connection(node.host, node.port)
        writer.write(b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\nUpgr")
        await writer.drain()
        assert await node.get_status_code("/healthz") == 200
        writer.close()
