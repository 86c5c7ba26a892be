"""Very many calls of the server API, in batches, several at once."""

import asyncio
import itertools
import json

import aiohttp

from .settings import API_KEY

# As many commands as a batch, and channels as a broadcast, may have; fewer if they are large.
BATCH_MAX = 1000
BODY_BYTES_MAX = 900_000
AT_ONCE = 4
CALL_S = 60


class Bulk:
    """Calls the nodes in turn."""

    def __init__(self, nodes):
        self._nodes = itertools.cycle(nodes)
        self._session = None

    async def __aenter__(self):
        headers = {"X-API-Key": API_KEY, "Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=CALL_S)
        self._session = aiohttp.ClientSession(headers=headers, timeout=timeout)
        return self

    async def __aexit__(self, *_):
        await self._session.close()

    async def call(self, method, **body):
        """The answer of a node to one call; a refusal fails it."""
        url = f"{next(self._nodes).http}/api/{method}"
        async with self._session.post(url, data=json.dumps(body)) as answer:
            assert answer.status == 200, f"{url}: {answer.status} {await answer.text()}"
            return await answer.json()

    async def commands(self, commands):
        """Carries out commands, each an object of one field, in any order; one error fails it."""
        await self._all(self._batch(batch) for batch in batches(commands))

    async def broadcast(self, channels, **content):
        """Publishes to all of these channels; one error fails it."""
        starts = range(0, len(channels), BATCH_MAX)
        await self._all(
            self._broadcast(channels[start : start + BATCH_MAX], content) for start in starts
        )

    async def _batch(self, batch):
        done = await self.call("batch", commands=batch, parallel=True)
        check(done["replies"], len(batch))

    async def _broadcast(self, channels, content):
        done = await self.call("broadcast", channels=channels, **content)
        check(done["result"]["responses"], len(channels))

    @staticmethod
    async def _all(calls):
        """Awaits all of them, so many at once."""
        turns = iter(calls)

        async def work():
            for call in turns:
                await call

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())


def batches(commands):
    """Commands in lists that fit into one call each."""
    batch, size = [], 0
    for command in commands:
        more = len(json.dumps(command))
        if batch and (len(batch) == BATCH_MAX or size + more > BODY_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(command)
        size += more
    if batch:
        yield batch


def check(answers, number):
    failed = [answer for answer in answers if "error" in answer]
    assert not failed, f"{len(failed)} of {len(answers)} calls failed: {failed[:3]}"
    assert len(answers) == number, f"{len(answers)} answers to {number} calls"
