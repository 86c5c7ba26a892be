"""The image that the Dockerfile makes, and the commands of docs/compose.yaml; run by `.ci/image`,
in a network of their own, so that port 8000 is free."""

import asyncio
import contextlib
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import time

import aiohttp
import pytest
import yaml
from harness import Ended, connect, eventually
from harness.node import clean_environment, free_port, orbweb
from harness.settings import token

pytestmark = pytest.mark.image

COMPOSE = pathlib.Path(__file__).parents[2] / "docs" / "compose.yaml"
TOKEN_SECRET = "t-image-0123456789abcdef0123456789abcdef"
API_KEY = "k-image-0123456789abcdef"


def image_config():
    """The image's configuration, as docker would read it."""
    return json.loads(pathlib.Path(os.environ["ORBWEB_IMAGE_JSON"]).read_text())["Docker"]["config"]


def in_container(*words, **env):
    """A command line that runs words in the container as the image says: user, environment."""
    run = shlex.split(os.environ["ORBWEB_CONTAINER_RUN"])
    return [
        *run,
        *(f"--env={key}={value}" for key, value in env.items()),
        os.environ["ORBWEB_CONTAINER"],
        "--",
        *words,
    ]


async def status_code(url):
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status


def pid_of(name):
    """The process with this name: this test runs in a process namespace of its own."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "comm").read_text().strip() == name:
                return int(folder.name)
    raise LookupError(f"no process {name}")


def test_the_image_is_not_root_and_says_how_it_is_used():
    config = image_config()
    assert config["User"].split(":")[0] not in ("", "0", "root")
    assert config["Entrypoint"] == ["orbweb"] and config["Cmd"] == ["serve"]
    assert set(config["ExposedPorts"]) == {"8000/tcp", "7400/udp", "7400/tcp"}
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "orbweb"]


async def test_a_container_serves_a_client_is_healthy_and_stops_in_order():
    config = image_config()
    env = {"ORBWEB_TOKEN_HMAC_SECRET": TOKEN_SECRET}
    health = in_container(*config["Healthcheck"]["Test"][1:], **env)
    assert subprocess.run(health, capture_output=True).returncode != 0, "healthy before the start"
    process = subprocess.Popen(
        in_container(*config["Entrypoint"], *config["Cmd"], **env), stdin=subprocess.DEVNULL
    )
    try:

        async def ready():
            if process.poll() is not None:
                raise Ended(f"the container ended with {process.returncode}")
            return await status_code("http://127.0.0.1:8000/readyz") == 200

        await eventually(ready, 15, "the container is ready")
        done = await asyncio.to_thread(subprocess.run, health, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        who = token("alice", secret=TOKEN_SECRET)
        url = "ws://127.0.0.1:8000/connection/websocket"
        async with await connect("python", url, token=who) as alice:
            await alice.events.next("subscribed", channel="#alice", server=True)
            pid = pid_of("orbweb")
            owner = pathlib.Path(f"/proc/{pid}").stat().st_uid
            assert owner == int(config["User"].split(":")[0])
            os.kill(pid, signal.SIGTERM)
            await alice.events.next("connecting", code=3001)
        assert await asyncio.to_thread(process.wait, 15) == 0
    finally:
        process.kill()


async def test_the_commands_of_the_compose_file_form_a_cluster():
    """As processes of the same binary; host names and ports become addresses of loopback."""
    given = {
        "ORBWEB_SECRET": orbweb("secret").stdout.strip(),
        "ORBWEB_TOKEN_HMAC_SECRET": TOKEN_SECRET,
        "ORBWEB_API_KEYS": API_KEY,
    }
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert sorted(services) == ["n1", "n2", "n3"]
    mesh = {name: free_port() for name in services}
    http = {}

    def filled(text):
        text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: given[found[1]], str(text))
        return re.sub(r"\b(n[123]):7400", lambda found: f"127.0.0.1:{mesh[found[1]]}", text)

    processes = {}
    try:
        for name, service in services.items():
            assert service["image"] == "orbweb"
            (ports,) = service["ports"]
            outside, inside = ports.split(":")
            assert f"{inside}/tcp" in image_config()["ExposedPorts"]
            http[name] = f"http://127.0.0.1:{outside}"
            env = {key: filled(value) for key, value in service["environment"].items()}
            # What the image and the container's own network would give it.
            env |= {
                "ORBWEB_LISTEN": f"127.0.0.1:{outside}",
                "ORBWEB_MESH_LISTEN": f"127.0.0.1:{mesh[name]}",
            }
            processes[name] = subprocess.Popen(
                [os.environ["ORBWEB_BINARY"], *map(filled, service["command"])],
                stdin=subprocess.DEVNULL,
                env={**clean_environment(), **env},
            )

        async def together():
            for name, url in http.items():
                if processes[name].poll() is not None:
                    raise Ended(f"{name} ended with {processes[name].returncode}")
                assert await status_code(url + "/readyz") == 200, f"{name} isn't ready"
                headers = {"X-API-Key": API_KEY}
                async with aiohttp.ClientSession(headers=headers) as session:
                    async with session.get(url + "/api/status") as answer:
                        nodes = (await answer.json())["result"]["nodes"]
                assert sorted(node["name"] for node in nodes) == sorted(services)
            return True

        await eventually(together, 20, "the three commands form a cluster")
        who = {name: token(name, secret=TOKEN_SECRET) for name in services}
        url = {name: http[name].replace("http", "ws") + "/connection/websocket" for name in http}
        async with await connect("python", url["n1"], token=who["n1"]) as one:
            await one.events.next("subscribed", channel="#n1", server=True)
        for process in processes.values():
            process.terminate()
        limit = time.monotonic() + 30
        for name, process in processes.items():
            assert await asyncio.to_thread(process.wait, limit - time.monotonic()) == 0, name
    finally:
        for process in processes.values():
            process.kill()
