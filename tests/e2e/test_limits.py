"""Input that breaks a limit gets its code; the node and the other connections are unharmed."""

import asyncio
import contextlib
import json

import pytest
import websockets
from cent import PublishRequest
from harness import Raw, api, cluster, connect, eventually, token


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
