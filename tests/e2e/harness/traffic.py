"""Publishers and subscribers of both SDKs and light ones, spread over nodes and channels, all on
one recorder's books."""

import asyncio
import contextlib
import itertools
import time

from centrifuge.exceptions import ClientDisconnectedError

from .cable import Cable
from .clients import SdkError, connect
from .keeper import Keeper
from .recorder import ACKNOWLEDGED, CUT, REFUSED
from .settings import token

# Light publishers send what is due this often, and leave out a line with this much under way.
TICK_S = 0.02
LINE_PENDING_MAX = 8
# SDK publishers wait for each answer, then as long as they are told, else this long.
SDK_PAUSE_S = 0.05
SDK_CHANNELS = 3
# Longer than any answer may take.
ANSWER_S = 12.0
# What the JavaScript SDK says when the connection ended before the answer: transport closed, client
# disconnected or closed, write failed, connection closed.
JS_CUT = {2, 3, 4, 10, 11}


class SdkClient:
    """One connection of an SDK behind a cable, and what it sends and gets."""

    def __init__(self, sdk, cable, client, account):
        self.name, self.cable, self.client, self.account = account.name, cable, client, account
        self.session = 0
        # Publishes that failed, in words.
        self.failures = []
        client.events.watch(self._handle)

    @property
    def node(self):
        return self.cable.node

    async def publish(self, line):
        """One publication and what became of it."""
        number = line.send(self.session)
        try:
            await self.client.publish(line.channel, [line.number, number])
        except asyncio.CancelledError:
            raise
        except Exception as error:  # whatever the SDK raises: it wasn't acknowledged
            self.failures.append(f"{line.channel} {number}: {error!r}")
            line.answer(number, CUT if was_cut(error) else REFUSED)
        else:
            line.answer(number, ACKNOWLEDGED)

    def _handle(self, event):
        kind, channel = event["kind"], event.get("channel")
        if kind == "publication":
            self.account.received(channel, event["data"])
        elif kind == "connecting":
            self.session += 1
        elif channel in self.account.channels and kind == "subscribed":
            self.account.subscribed(channel, bool(event["recovered"]))
        elif channel in self.account.channels and kind == "unsubscribed":
            self.account.ended(channel, f"unsubscribed {event['code']}")


def was_cut(error):
    """Whether a publish ended because its connection did."""
    if isinstance(error, SdkError):
        return error.code in JS_CUT
    return isinstance(error, ClientDisconnectedError)


class Traffic:
    """Steady publishing and listening over the channels of a cluster."""

    def __init__(
        self,
        c,
        recorder,
        channels,
        rate,
        keepers=8,
        sdks=("js", "python"),
        seed=0,
        sdk_pause_s=SDK_PAUSE_S,
    ):
        self.cluster, self.recorder = c, recorder
        self.channels, self.rate, self.seed = channels, rate, seed
        self.keepers = []
        self.sdk_clients = []
        self._sizes, self._sdk_pause_s = (keepers, sdks), sdk_pause_s
        self._tasks = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self):
        """Everybody is subscribed before anything is sent."""
        await self._stack.__aenter__()
        try:
            keepers, sdks = self._sizes
            await asyncio.gather(*(self._add_keeper(number) for number in range(keepers)))
            await asyncio.gather(*(self._add_sdk(n, sdk) for n, sdk in enumerate(sdks)))
        except BaseException:
            await self._stack.aclose()
            raise
        self._publish()
        return self

    async def __aexit__(self, *_):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    @property
    def clients(self):
        return [*self.keepers, *self.sdk_clients]

    @property
    def failures(self):
        """Publishes by SDKs that failed, in words."""
        return [words for client in self.sdk_clients for words in client.failures]

    async def stop(self):
        """Ends the publishing; each publication gets its answer, if there is one."""
        self._publishing = False
        async with asyncio.timeout(ANSWER_S):
            await asyncio.gather(*self._tasks)
        self._tasks = []
        await asyncio.gather(*(keeper.all_answered(ANSWER_S) for keeper in self.keepers))

    async def arrived(self, within):
        """Waits until every subscriber caught up: first with a last publication in each channel,
        then with whatever else was acknowledged. Returns account → what it lacks for good."""
        lasts = await asyncio.gather(*(self._publish_last(name) for name in self.channels))
        own = {account: self._of_own_channels(account, lasts) for account in self.recorder.accounts}
        behind = {name: lacks for name, lacks in (await self._get(own, within)).items() if lacks}
        assert not behind, f"not caught up within {within} s: {behind}"
        lacking = {account: account.lacks() for account in self.recorder.accounts}
        return await self._get(lacking, within / 4)

    async def _get(self, wanted, within):
        """Waits for what each account is to get; account → what it lacks when time is up."""
        found = await asyncio.gather(*(x.gets(items, within) for x, items in wanted.items()))
        return dict(zip(wanted, found, strict=True))

    def _of_own_channels(self, account, items):
        lines = self.recorder.lines
        return [item for item in items if lines[item[0]].channel in account.channels]

    async def _publish_last(self, channel):
        keeper = next(keeper for keeper in self.keepers if channel in keeper.channels)
        line = self.recorder.line(channel, f"{keeper.name} last")
        return line.number, await keeper.publish_until_acknowledged(line)

    async def _add_keeper(self, number):
        """All nodes get a keeper of the even channels, then of the odd ones, and so on."""
        nodes = self._nodes_from(number)
        channels = self.channels[(number // len(nodes)) % 2 :: 2]
        account = self.recorder.account(f"keeper-{number}", "keeper", channels)
        learns = (number // 2) % 2 == 0
        keeper = Keeper(account.name, nodes, account, learns, self.seed)
        self.keepers.append(await self._stack.enter_async_context(keeper))

    async def _add_sdk(self, number, sdk):
        cable = await self._stack.enter_async_context(Cable(*self._nodes_from(number)))
        channels = self._few_channels(number)
        account = self.recorder.account(f"{sdk}-{number}", sdk, channels)
        client = await connect(sdk, cable, token=token(account.name))
        await self._stack.enter_async_context(client)
        self.sdk_clients.append(SdkClient(sdk, cable, client, account))
        await asyncio.gather(*(client.subscribe(channel) for channel in channels))

    def _few_channels(self, number):
        turn = itertools.islice(itertools.cycle(self.channels), number * 2, None)
        return list(dict.fromkeys(itertools.islice(turn, SDK_CHANNELS)))

    def _nodes_from(self, number):
        nodes = list(self.cluster)
        start = number % len(nodes)
        return nodes[start:] + nodes[:start]

    def _publish(self):
        self._publishing = True
        share = self.rate / max(1, len(self.keepers))
        for keeper in self.keepers:
            lines = [self.recorder.line(channel, keeper.name) for channel in keeper.channels]
            self._tasks.append(asyncio.ensure_future(self._publish_light(keeper, lines, share)))
        for client in self.sdk_clients:
            channel = sorted(client.account.channels)[0]
            line = self.recorder.line(channel, client.name)
            self._tasks.append(asyncio.ensure_future(self._publish_by_sdk(client, line)))

    async def _publish_light(self, keeper, lines, rate):
        turn = itertools.cycle(lines)
        due, then = 0.0, time.monotonic()
        while self._publishing:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            # What an outage held up isn't made up for.
            due, then = min(due + (now - then) * rate, rate * TICK_S * 3 + 1), now
            batch = list(itertools.islice(turn, int(due)))
            due -= len(batch)
            await keeper.publish([line for line in batch if line.pending < LINE_PENDING_MAX])

    async def _publish_by_sdk(self, client, line):
        while self._publishing:
            await client.publish(line)
            await asyncio.sleep(self._sdk_pause_s)
