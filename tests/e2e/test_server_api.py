"""The server API in the shapes that PyPI cent expects."""

import aiohttp
import pytest
from cent import (
    BroadcastRequest,
    CentUnauthorizedError,
    HistoryRequest,
    InfoRequest,
    PresenceRequest,
    PublishRequest,
    StreamPosition,
)
from harness import api, cluster, connect, token


async def test_publish_broadcast_and_history():
    async with cluster(1) as c, api(c[0]) as server:
        async with await connect("python", c[0], token=token("alice")) as alice:
            await alice.subscribe("chat:a")
            await alice.subscribe("chat:b")
            one = await server.publish(
                PublishRequest(channel="chat:a", data={"n": 1}, tags={"t": "x"})
            )
            assert one.offset == 1 and one.epoch
            got = await alice.events.next("publication", channel="chat:a")
            assert (got["data"], got["tags"], got["user"]) == ({"n": 1}, {"t": "x"}, None)
            many = await server.broadcast(
                BroadcastRequest(channels=["chat:a", "chat:b"], data={"n": 2})
            )
            assert [answer.result.offset for answer in many.responses] == [2, 1]
            assert all(answer.error is None for answer in many.responses)
            for channel in ("chat:a", "chat:b"):
                await alice.events.next("publication", channel=channel, data={"n": 2})
            past = await server.history(HistoryRequest(channel="chat:a", limit=10))
            assert [pub.data for pub in past.publications] == [{"n": 1}, {"n": 2}]
            assert (past.offset, past.epoch) == (2, one.epoch)
            since = StreamPosition(offset=1, epoch=one.epoch)
            past = await server.history(HistoryRequest(channel="chat:a", limit=10, since=since))
            assert [pub.offset for pub in past.publications] == [2]
            past = await server.history(HistoryRequest(channel="chat:a", limit=1, reverse=True))
            assert [pub.offset for pub in past.publications] == [2]


async def test_broadcast_answers_for_each_channel():
    async with cluster(1) as c, api(c[0]) as server:
        many = await server.broadcast(BroadcastRequest(channels=["chat:a", "nowhere:b"], data=1))
        good, bad = many.responses
        assert good.result.offset == 1 and good.error is None
        assert bad.error.code == 102


async def test_presence_and_info():
    async with cluster(1) as c, api(c[0]) as server:
        async with await connect(
            "python", c[0], token=token("alice", info={"name": "Alice"})
        ) as alice:
            await alice.subscribe("chat:room")
            here = (await server.presence(PresenceRequest(channel="chat:room"))).presence
            assert [(info.user, info.conn_info) for info in here.values()] == [
                ("alice", {"name": "Alice"})
            ]
            (node,) = (await server.info(InfoRequest())).nodes
            assert (node.name, node.num_clients) == (c[0].name, 1)


async def test_without_the_key_nothing_is_served():
    async with cluster(1) as c:
        for key in ("", "wrong"):
            async with api(c[0], key) as server:
                with pytest.raises(CentUnauthorizedError):
                    await server.publish(PublishRequest(channel="chat:a", data=1))


async def test_without_a_configured_key_the_api_is_closed():
    async with cluster(1, config="", mesh=False) as c:
        async with api(c[0]) as server:
            with pytest.raises(CentUnauthorizedError):
                await server.publish(PublishRequest(channel="a", data=1))
        assert await c[0].get_status_code("/healthz") == 200


async def test_health_readiness_and_metrics():
    async with cluster(1) as c, await connect("python", c[0], token=token("alice")) as alice:
        await alice.subscribe("chat:room")
        assert await c[0].get_status_code("/healthz") == 200
        assert await c[0].get_status_code("/readyz") == 200
        lines = (await c[0].metrics()).splitlines()
        assert lines[-1] == "# EOF"
        names = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
        assert names and all(name.startswith("orbweb_") for name in names), names


async def test_a_request_that_is_no_json_is_refused():
    async with cluster(1) as c, aiohttp.ClientSession() as session:
        headers = {"X-API-Key": "k-e2e-7f3a9c52d1"}
        async with session.post(c[0].http + "/api/publish", data=b"{", headers=headers) as answer:
            assert answer.status == 400 or (await answer.json())["error"]["code"] == 107
        assert await c[0].get_status_code("/healthz") == 200
