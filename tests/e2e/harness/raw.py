"""A client without an SDK, for what an SDK would never send and for close codes as they are."""

import asyncio
import json

import websockets
from websockets.asyncio.client import connect as dial


class Raw:
    """One WebSocket that speaks the protocol by hand."""

    def __init__(self, socket):
        self.socket = socket
        self._lines = []
        self._id = 0

    @classmethod
    async def dial(cls, url, **options):
        options.setdefault("proxy", None)
        options.setdefault("compression", None)
        options.setdefault("ping_interval", None)
        options.setdefault("max_size", 8 * 1024 * 1024)
        return cls(await dial(url, **options))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.socket.transport.abort()

    async def send(self, *commands):
        """One frame with these commands."""
        await self.socket.send("\n".join(json.dumps(command) for command in commands))

    async def receive(self, within=5.0):
        """The next JSON object, several of which may share a frame. Pings are answered."""
        async with asyncio.timeout(within):
            while True:
                while not self._lines:
                    self._lines = (await self.socket.recv()).split("\n")
                line = self._lines.pop(0)
                if not line:
                    continue
                answer = json.loads(line)
                if answer:
                    return answer
                await self.socket.send("{}")

    async def messages(self):
        """All JSON objects until the other side closes; pings (empty ones) are handed on, too."""
        while True:
            for line in self._lines:
                if line:
                    yield json.loads(line)
            try:
                self._lines = (await self.socket.recv()).split("\n")
            except websockets.ConnectionClosed:
                return

    async def call(self, within=5.0, **command):
        """Sends one command and returns its reply; pushes in between are dropped."""
        self._id += 1
        await self.send({"id": self._id, **command})
        while (answer := await self.receive(within)).get("id") != self._id:
            pass
        return answer

    async def connect(self, **request):
        reply = await self.call(connect=request)
        assert "error" not in reply, reply
        return reply["connect"]

    async def close_code(self, within=5.0):
        """Reads until the other side closes, and returns its code."""
        try:
            async with asyncio.timeout(within):
                while True:
                    await self.socket.recv()
        except websockets.ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None
