"""The commands of the binary as an operator types them."""

import asyncio
import contextlib
import json
import re
import signal

import aiohttp
import pytest
from harness import cluster, connect, eventually
from harness.node import BINARY, clean_environment, free_port, orbweb
from harness.settings import API_KEY


@contextlib.asynccontextmanager
async def demo(*arguments):
    """A demo without a terminal; what it prints is in `.text`."""
    process = await asyncio.create_subprocess_exec(
        str(BINARY),
        "demo",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=clean_environment(),
    )
    process.text = ""

    async def read():
        async for line in process.stdout:
            process.text += line.decode()

    reader = asyncio.ensure_future(read())
    try:
        yield process
        await reader
    finally:
        reader.cancel()
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()


async def says(process, pattern, within=15.0):
    """Waits until the process has printed something."""
    return await eventually(
        lambda: re.search(pattern, process.text), within, f"{pattern!r}, in:\n{process.text}"
    )


async def test_demo_runs_a_cluster_without_a_terminal_and_ends_by_itself():
    async with demo("--for", "8s") as process:
        key = (await says(process, r"--api-key (\S+)"))[1]
        urls = re.findall(r"(http://\S+)/demo", process.text)
        assert len(urls) == 3
        assert "press k" not in process.text, "nobody can press a key"
        sockets = [url.replace("http", "ws") + "/connection/websocket" for url in urls]
        async with (
            await connect("python", sockets[0], user="alice") as alice,
            await connect("js", sockets[1], user="bob") as bob,
        ):
            await alice.subscribe("chat:demo")
            await bob.subscribe("chat:demo")
            await alice.publish("chat:demo", "over there")
            await bob.events.next("publication", data="over there")
        text = await asyncio.to_thread(orbweb, "status", "--node", urls[2], "--api-key", key)
        assert all(f"demo-{number}" in text.stdout for number in (1, 2, 3)), text.stdout
        assert await asyncio.wait_for(process.wait(), 15) == 0
        async with aiohttp.ClientSession() as session:
            for url in urls:
                with pytest.raises(aiohttp.ClientConnectionError):
                    await session.get(url)


async def test_alone_it_serves_one_node_and_says_where():
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        str(BINARY),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={**clean_environment(), "ORBWEB_LISTEN": f"127.0.0.1:{port}"},
    )
    try:
        said = b""
        async with asyncio.timeout(5):
            while b"peers" not in said:
                said += await process.stdout.readline()
        assert f"ws://127.0.0.1:{port}/connection/websocket" in said.decode()
        await eventually(
            lambda: asyncio.to_thread(ready, f"http://127.0.0.1:{port}"), 5, "it is ready"
        )
    finally:
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


def ready(url):
    return orbweb("status", "--ready", "--node", url, check=False).returncode == 0


async def test_status_and_its_exit_codes():
    async with cluster(2) as c:

        def status(*arguments, env=None):
            return orbweb("status", *arguments, env=env, check=False)

        node, env = ["--node", c[0].http], {"ORBWEB_API_KEY": API_KEY}
        whole = await asyncio.to_thread(status, *node, env=env)
        assert whole.returncode == 0 and "n1" in whole.stdout and "n2" in whole.stdout
        keyless = await asyncio.to_thread(status, *node)
        assert keyless.returncode == 0 and "ready" in keyless.stdout and "n2" not in keyless.stdout
        wrong = await asyncio.to_thread(status, *node, "--api-key", "0123456789abcdef0")
        assert wrong.returncode != 0 and "key" in wrong.stderr
        assert (await asyncio.to_thread(status, "--ready", *node)).returncode == 0
        c[0].pause()
        try:
            late = await asyncio.to_thread(status, "--ready", *node)
            assert late.returncode != 0
        finally:
            c[0].resume()


async def test_status_shows_which_version_links_speak():
    async with cluster(3) as c:

        async def all_linked():
            whole, table = await statuses(c[0])
            versions = [node["link_versions"] for node in whole["nodes"]]
            assert versions == [{"1": 2}] * 3, versions
            head, *rows = table.splitlines()[1:]
            at = head.index("PROTOCOL")
            assert [row[at:].split()[0] for row in rows] == ["1"] * 3, table
            return True

        await eventually(all_linked, 10, "every node has links of version 1 with both others")


async def statuses(node):
    """What a node's status says at one time, as JSON and as a table."""
    words, env = ("status", "--node", node.http), {"ORBWEB_API_KEY": API_KEY}
    both = (asyncio.to_thread(orbweb, *words, *more, env=env) for more in (["--json"], []))
    whole, table = await asyncio.gather(*both)
    return json.loads(whole.stdout), table.stdout


async def test_who_was_away_sees_itself_outside_as_the_others_do():
    async with cluster(3) as c:
        key = await c.key(c[2])
        c[2].pause()
        try:
            await c.gone(c[2], key, within=5)
        finally:
            c[2].resume()

        # It is let in again after two seconds, and until then it is outside for itself, too.
        async def agree():
            whole, table = await statuses(c[0])
            views = {node["name"]: node["view_hash"] for node in whole["nodes"]}
            owned = {node["name"]: node["slots_owned"] for node in whole["nodes"]}
            assert views.keys() == {"n1", "n2", "n3"} and len(set(views.values())) == 1, views
            assert owned["n3"] == 0, owned
            assert whole["views_agree"] is True and "disagree" not in table, table
            return True

        await eventually(agree, 2, "all see the same two nodes")
        await c.settled(within=20)
        whole, table = await statuses(c[0])
        assert whole["views_agree"] is True and "disagree" not in table
        assert all(node["slots_owned"] > 0 for node in whole["nodes"])


LISTS = {
    '["0123456789abcdef"]': 1,
    '["0123456789abcdef", "fedcba9876543210"]': 2,
    "0123456789abcdef,fedcba9876543210": 2,
    '["0123456789abcdef"': None,
    "[0123456789abcdef]": None,
    '"0123456789abcdef"': None,
}


@pytest.mark.parametrize("written", LISTS)
def test_a_list_in_a_flag_or_variable_is_read_or_refused(written):
    for arguments, env in (
        (["--set", f"api.keys={written}"], None),
        ([], {"ORBWEB_API_KEYS": written}),
    ):
        shown = orbweb("config", "show", *arguments, env=env, check=False)
        if LISTS[written] is None:
            assert shown.returncode != 0 and "`api.keys`" in shown.stderr, shown
            assert "0123456789" not in shown.stdout + shown.stderr, "it tells the key"
        else:
            assert shown.stdout.count('"********"') == LISTS[written], shown


async def test_keys_given_by_flag_open_the_api():
    keys = '["0123456789abcdef", "fedcba9876543210"]'
    async with cluster(1, config="", mesh=False, args=["--set", f"api.keys={keys}"]) as c:
        for key in ("0123456789abcdef", "fedcba9876543210"):
            headers = {"X-API-Key": key}
            assert await c[0].get_status_code("/api/status", **headers) == 200
        assert await c[0].get_status_code("/api/status", **{"X-API-Key": keys}) == 401


def test_config_check_names_what_is_wrong(tmp_path):
    path = tmp_path / "orbweb.toml"
    path.write_text('[client]\nping_intervall = "5s"\n[namespaces.chat]\nhistory_size = 5\n')
    checked = orbweb("config", "check", str(path), check=False)
    assert checked.returncode != 0
    assert "ping_intervall" in checked.stderr and "ping_interval`" in checked.stderr
    path.write_text('[namespaces.chat]\nhistory_size = 5\nhistory_ttl = "5m"\n')
    assert orbweb("config", "check", str(path)).returncode == 0


async def test_a_token_of_the_command_line_lets_a_user_in():
    async with cluster(1) as c:
        config = ["--config", str(c[0].config_path)]
        made = await asyncio.to_thread(orbweb, "token", "--user", "alice", *config)
        async with await connect("python", c[0], token=made.stdout.strip()) as alice:
            await alice.events.next("subscribed", channel="#alice", server=True)


def test_secrets_are_fresh_and_long():
    one, other = (orbweb("secret").stdout.strip() for _ in range(2))
    assert one != other and len(one) >= 43
