"""npm centrifuge, in a Node process of its own, behind the face of `clients.py`.

The driver (`js/driver.js`) holds one connection and speaks JSON lines: commands with an id come
in, answers with that id and events without one go out."""

import asyncio
import itertools
import json
import os
import pathlib

from .errors import SdkError
from .events import Events

MODULES = pathlib.Path(os.environ.get("ORBWEB_E2E_JS", "target/e2e/js")).resolve()
ANSWER_S = 10.0


class JsClient:
    """One connection of the JavaScript SDK."""

    sdk = "js"

    def __init__(self, url, user=None, token="", tokens=None, data=None):
        self.events = Events()
        self._options = {
            "url": f"{url}?user={user}" if user else url,
            "token": token,
            "tokens": list(tokens or []),
            "data": data,
        }
        self._ids = itertools.count(1)
        self._waiting = {}
        self._process = None
        self._reader = None

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def start(self):
        self._process = await asyncio.create_subprocess_exec(
            "node",
            str(MODULES / "driver.js"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=16 * 1024 * 1024,
        )
        self._reader = asyncio.ensure_future(self._read())
        await self._call("connect", **self._options)

    async def close(self):
        if self._process is None:
            return
        self._process.stdin.close()
        try:
            async with asyncio.timeout(3):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._process = None
        await self._reader

    async def subscribe(self, channel, **options):
        return await self._call("subscribe", channel=channel, options=options)

    async def unsubscribe(self, channel):
        await self._call("unsubscribe", channel=channel)

    async def publish(self, channel, data):
        await self._call("publish", channel=channel, data=data)

    async def presence(self, channel):
        return await self._call("presence", channel=channel)

    async def presence_stats(self, channel):
        return await self._call("presence_stats", channel=channel)

    async def history(self, channel, limit=0, since=None, reverse=False):
        options = {"limit": limit, "reverse": reverse, **({"since": since} if since else {})}
        return await self._call("history", channel=channel, options=options)

    async def rpc(self, method, data):
        return await self._call("rpc", method=method, data=data)

    async def _call(self, verb, **arguments):
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": number, "do": verb, **arguments})
        self._process.stdin.write(line.encode() + b"\n")
        async with asyncio.timeout(ANSWER_S):
            return await answer

    async def _read(self):
        async for line in self._process.stdout:
            message = json.loads(line)
            if "id" not in message:
                self.events.record(**message)
                continue
            answer = self._waiting.pop(message["id"])
            if answer.done():
                continue
            if "error" in message:
                error = message["error"]
                answer.set_exception(SdkError(error.get("code"), error.get("message")))
            else:
                answer.set_result(message["result"])
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the driver ended"))
