"""Reads of one node's server API, so close together that one of them falls into any moment of a
failover, and what each answer was at the time when it was asked for."""

import asyncio
import contextlib
import dataclasses
import time

import aiohttp

from .settings import API_KEY

PAUSE_S = 0.02
# Longer than a read waits for an owner before it is refused.
ANSWER_S = 10.0


@dataclasses.dataclass
class Read:
    """One question; `result` stays `None` if it was refused or never answered."""

    method: str
    asked: float
    result: dict | None = None


class Reads:
    """Asks a node steadily for the history and the presence of a channel, answered or not."""

    def __init__(self, node, channel):
        self.all = []
        self._node, self._channel = node, channel
        self._asking = set()
        self._session = self._task = None

    async def __aenter__(self):
        self._session = aiohttp.ClientSession(
            headers={"X-API-Key": API_KEY},
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=ANSWER_S),
        )
        self._task = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(self, *_):
        for task in [self._task, *self._asking]:
            task.cancel()
        await asyncio.gather(self._task, *self._asking, return_exceptions=True)
        await self._session.close()

    async def more(self, number=20, within=10.0):
        """Waits until so many more questions were asked."""
        goal = len(self.all) + number
        async with asyncio.timeout(within):
            while len(self.all) < goal:
                await asyncio.sleep(PAUSE_S)

    async def stop(self):
        """Ends the asking; every question gets its answer, if there is one."""
        self._task.cancel()
        await asyncio.gather(*self._asking)

    def answers(self, method, since=0.0, until=float("inf")):
        """What was answered to the questions of this time, refusals left out."""
        return [
            read.result
            for read in self.all
            if read.method == method and since <= read.asked <= until and read.result is not None
        ]

    def histories(self, since=0.0, until=float("inf")):
        """The data of the publications in each answer."""
        answers = self.answers("history", since, until)
        return [[pub["data"] for pub in answer["publications"]] for answer in answers]

    def users(self, since=0.0, until=float("inf")):
        """The users that each answer tells of."""
        answers = self.answers("presence", since, until)
        return [{info["user"] for info in answer["presence"].values()} for answer in answers]

    async def _run(self):
        while True:
            for method, more in (("history", {"limit": 100}), ("presence", {})):
                read = Read(method, time.monotonic())
                self.all.append(read)
                task = asyncio.ensure_future(self._ask(read, {"channel": self._channel, **more}))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
            await asyncio.sleep(PAUSE_S)

    async def _ask(self, read, body):
        url = f"{self._node.http}/api/{read.method}"
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._session.post(url, json=body) as answer:
                read.result = (await answer.json()).get("result")
