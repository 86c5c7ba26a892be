"""One node: a real process with ports, a log, and questions that it can be asked over HTTP."""

import asyncio
import os
import pathlib
import secrets
import signal
import socket
import subprocess

import aiohttp

from . import settings
from .waiting import POLL_S, Ended, eventually

BINARY = pathlib.Path(os.environ.get("ORBWEB_BINARY", "target/debug/orbweb")).resolve()
START_S = 10.0
# Error codes after which a publish may be tried again.
TEMPORARY = (100, 111)
_given_ports = set()


def free_port(host="127.0.0.1"):
    """A port that is free for TCP and UDP and that no other node of this run was given."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            tcp.bind((host, 0))
            port = tcp.getsockname()[1]
            try:
                udp.bind((host, port))
            except OSError:
                continue
        if port not in _given_ports:
            _given_ports.add(port)
            return port


def orbweb(*arguments, within=10.0, env=None, check=True):
    """Runs a command of the binary to its end and returns it."""
    done = subprocess.run(
        [str(BINARY), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within,
        env={**clean_environment(), **(env or {})},
    )
    if check:
        assert done.returncode == 0, f"orbweb {arguments}: {done.stdout}{done.stderr}"
    return done


def clean_environment():
    """The environment without settings of a node that happen to be in it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ORBWEB_")}
    return {**kept, "RUST_BACKTRACE": "1", "NO_COLOR": "1"}


class Node:
    """A node that was or can be started; started again it is a new incarnation."""

    def __init__(
        self,
        name,
        folder,
        secret=None,
        join=(),
        host="127.0.0.1",
        listen_host=None,
        args=(),
        more="",
        config=None,
        prefix=(),
        mesh=True,
        lifelines=True,
        one_thread=False,
    ):
        self.name = name
        self.folder = pathlib.Path(folder)
        self.host = host
        self.port = free_port()
        self.mesh_port = free_port()
        self.listen_host = listen_host or host
        self.secret = secret
        self.join = list(join)
        self.args = list(args)
        self.prefix = list(prefix)
        self.mesh = mesh
        self.lifelines = lifelines
        self.one_thread = one_thread
        self._taken = None
        self.words = None
        self.process = None
        self.starts = 0
        self.config_path = self.folder / f"{name}.toml"
        self.config_path.write_text(settings.config(more) if config is None else config)

    def __repr__(self):
        return f"<{self.name} {self.host}:{self.port} mesh {self.mesh_port}>"

    @property
    def http(self):
        return f"http://{self.host}:{self.port}"

    @property
    def ws(self):
        return f"ws://{self.host}:{self.port}/connection/websocket"

    @property
    def mesh_address(self):
        return f"{self.host}:{self.mesh_port}"

    @property
    def log_path(self):
        # With the port: two nodes of one name have a log each.
        return self.folder / f"{self.name}.{self.port}.{self.starts}.log"

    @property
    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def pid(self):
        return self.process.pid

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def move(self):
        """Other ports from the next start on."""
        self.port, self.mesh_port = free_port(), free_port()

    def command(self):
        if self.words is not None:
            return [*self.prefix, str(BINARY), *self.words]
        words = [*self.prefix, str(BINARY), "serve", "--name", self.name]
        words += ["--listen", f"{self.listen_host}:{self.port}", "--config", str(self.config_path)]
        if self.mesh:
            words += ["--mesh-listen", self.mesh_address]
            if self.secret is not None:
                words += ["--secret-file", str(self.secret)]
            for seed in self.join:
                words += ["--join", seed if isinstance(seed, str) else seed.mesh_address]
        return words + self.args

    def launch(self):
        """Starts the process and doesn't wait for it."""
        assert not self.running, f"{self} runs already"
        self.starts += 1
        if not self.lifelines and self._taken is None:
            self._take_tcp()
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=clean_environment() | ({"ORBWEB_CLIENT_SHARDS": "1"} if self.one_thread else {}),
                start_new_session=True,
            )
        return self

    def _take_tcp(self):
        """Holds the TCP port beside the mesh's and doesn't listen: the node goes on without
        lifelines."""
        self._taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._taken.bind((self.host, self.mesh_port))

    async def start(self, within=START_S):
        """Starts the process and waits until it is ready to serve."""
        self.launch()
        await self.ready(within)
        return self

    async def ready(self, within=START_S, poll=POLL_S):
        async def answers():
            if not self.running:
                raise Ended(f"{self} exited with {self.process.returncode}:\n{self.log}")
            return await self.get_status_code("/readyz") == 200

        await eventually(answers, within, f"{self.name} ready", poll)

    def kill(self):
        """SIGKILL: the node has no say in it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(5)

    def terminate(self):
        """SIGTERM: the node is asked to drain."""
        self.process.send_signal(signal.SIGTERM)

    def pause(self):
        """SIGSTOP: the process stands still and its kernel goes on answering for it."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    async def exit_code(self, within=15.0):
        """Waits for the end of the process."""
        try:
            return await asyncio.to_thread(self.process.wait, within)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self} still runs after {within} s:\n{self.log[-4000:]}"
            ) from None

    async def get_status_code(self, path, **headers):
        async with aiohttp.ClientSession() as session:
            timeout = aiohttp.ClientTimeout(total=2)
            async with session.get(self.http + path, headers=headers, timeout=timeout) as answer:
                await answer.read()
                return answer.status

    async def get(self, path, **params):
        """The result of a lookup of the server API."""
        async with aiohttp.ClientSession(headers={"X-API-Key": settings.API_KEY}) as session:
            timeout = aiohttp.ClientTimeout(total=2)
            async with session.get(self.http + path, params=params, timeout=timeout) as answer:
                assert answer.status == 200, f"{path}: {answer.status} {await answer.text()}"
                return (await answer.json())["result"]

    async def post(self, method, **body):
        """What the server API answers to a call: a result or an error."""
        async with aiohttp.ClientSession(headers={"X-API-Key": settings.API_KEY}) as session:
            timeout = aiohttp.ClientTimeout(total=10)
            url = f"{self.http}/api/{method}"
            async with session.post(url, json=body, timeout=timeout) as answer:
                assert answer.status == 200, f"{url}: {answer.status} {await answer.text()}"
                return await answer.json()

    async def call(self, method, **body):
        """The result of a call of the server API."""
        answer = await self.post(method, **body)
        assert "error" not in answer, answer
        return answer["result"]

    async def publish_until_acknowledged(self, channel, data, within=15.0):
        """The result of one publication, tried again as long as the error is a temporary one. The
        key that all tries have in common keeps it single."""
        key = secrets.token_hex(8)

        async def acknowledged():
            answer = await self.post("publish", channel=channel, data=data, idempotency_key=key)
            assert answer.get("error", {}).get("code") in (None, *TEMPORARY), answer
            return answer.get("result")

        return await eventually(acknowledged, within, f"{self.name} acknowledges")

    async def metrics(self):
        """The text of /metrics."""
        async with aiohttp.ClientSession() as session:
            async with session.get(self.http + "/metrics") as answer:
                assert answer.status == 200
                return await answer.text()

    async def counter(self, name, **labels):
        """The value of one metric, 0 if it isn't there."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        for line in (await self.metrics()).splitlines():
            written, _, value = line.rpartition(" ")
            found, _, rest = written.partition("{")
            if found == name and set(rest.rstrip("}").split(",")) - {""} == wanted:
                return float(value)
        return 0

    async def status(self):
        return await self.get("/api/status")

    async def members(self):
        """Name → what this node says of it, for the nodes in its view."""
        nodes = (await self.status())["nodes"]
        return {node["name"]: node for node in nodes if node["state"] == "up"}

    async def owner(self, key):
        """The name of the node that owns a key by this node's view."""
        return (await self.placement(key))[0]

    async def placement(self, key):
        """The names of the node that owns a key and of its successors, by this node's view."""
        found = await self.get("/api/owner", key=key)
        return [node["name"] for node in [found["owner"], *found["successors"]]]

    async def incarnation(self, name):
        """Which start of a node this one knows; `None` if it isn't up."""
        return (await self.members()).get(name, {}).get("incarnation")

    def cpu_seconds(self):
        """CPU time that the process has used."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self):
        """Resident memory of the process."""
        pages = int(pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def pss_bytes(self):
        """Resident memory of the process, pages that it shares counted in part."""
        lines = pathlib.Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
