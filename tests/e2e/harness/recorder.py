"""What was sent, acknowledged and received, as the clients saw it; no server is asked.

A publication is `[line, number]`: a line is one sender in one channel, its numbers count from 0 and
each is sent once. What has no acknowledgement is *unknown*: it may have arrived, never twice."""

import array
import asyncio
import bisect
import collections
import math
import time

UNANSWERED, ACKNOWLEDGED, REFUSED, CUT = range(4)
# Longer than a publish is under way to a server that is up, and its close on the way back until an
# SDK tells of it on a busy machine. What a draining node took and doesn't answer waits for 5 s
# before its connection is closed all the same.
UNDER_WAY_S = 0.8


class Line:
    """One sender in one channel. A `session` is one connection of the sender: order is promised
    within it, and from what was acknowledged to everything sent later."""

    def __init__(self, books, number, channel, sender):
        self._books = books
        self.number, self.channel, self.sender = number, channel, sender
        self.states = bytearray()
        self.sessions = array.array("I")
        self.sent_at = array.array("d")
        self.waited = array.array("d")
        self.pending = 0

    def send(self, session):
        """The number of the publication that is about to be sent."""
        self.states.append(UNANSWERED)
        self.sessions.append(session)
        self.sent_at.append(time.monotonic())
        self.waited.append(math.nan)
        self.pending += 1
        return len(self.states) - 1

    def answer(self, number, state, overtaken=False):
        """What became of it: `ACKNOWLEDGED`, `REFUSED` (an error, or no answer in time on a
        connection that lived) or `CUT` (the connection ended first; `overtaken` if something sent
        behind it on that connection was answered, so that it had reached the server, too)."""
        self.states[number] = state
        self.waited[number] = time.monotonic() - self.sent_at[number]
        self.pending -= 1
        if state == ACKNOWLEDGED:
            self._books.acknowledge()
        elif state == CUT:
            self._books.cuts.append((self.number, number, self.waited[number], overtaken))

    def acknowledged(self, number):
        return self.states[number] == ACKNOWLEDGED

    def count(self, state):
        return self.states.count(state)


class Account:
    """What one subscriber got of its channels, from their first publication on."""

    def __init__(self, name, kind, channels, lines):
        self.name, self.kind, self.channels = name, kind, set(channels)
        # Publications that came again.
        self.again = []
        # What nobody sent in that channel.
        self.foreign = []
        # Of one session, behind a later one of it.
        self.disorder = []
        # Of a session, behind one of a later session: disorder if it was acknowledged.
        self.late = []
        # Channels whose position was lost, and how that was told.
        self.gaps = []
        self.resumption = None
        self._lines = lines
        self._got = collections.defaultdict(bytearray)
        self._last = {}
        self._subscribed = set()
        self._missing = set()
        self._complete = asyncio.Event()

    def __repr__(self):
        return self.name

    def received(self, channel, data):
        line = self._line(channel, data)
        if line is None:
            self.foreign.append((channel, data))
            return
        number = data[1]
        got = self._got[line.number]
        if len(got) <= number:
            got.extend(bytes(number + 1 - len(got)))
        got[number] = min(got[number] + 1, 255)
        if got[number] > 1:
            self.again.append((line.number, number))
        else:
            self._in_order(line, number)
        if self.resumption is not None:
            self.resumption.heard(self, line, number)
        if self._missing:
            self._missing.discard((line.number, number))
            if not self._missing:
                self._complete.set()

    def subscribed(self, channel, recovered):
        """A subscription began; whoever had one before keeps its position only by recovery."""
        if channel in self._subscribed and not recovered:
            self.gaps.append((channel, "not recovered"))
        self._subscribed.add(channel)

    def ended(self, channel, reason):
        """A subscription ended for good."""
        self.gaps.append((channel, reason))

    def has(self, line, number):
        got = self._got[line.number]
        return number < len(got) and got[number] > 0

    def lacks(self):
        """What was acknowledged in its channels and isn't here, as (line, number)."""
        return [
            (line.number, number)
            for line in self._lines
            if line.channel in self.channels
            for number, state in enumerate(line.states)
            if state == ACKNOWLEDGED and not self.has(line, number)
        ]

    def out_of_order(self):
        lines = self._lines
        return self.disorder + [late for late in self.late if lines[late[0]].acknowledged(late[1])]

    async def gets(self, wanted, within):
        """Waits until it has all of `wanted`; returns what it still lacks when time is up."""
        self._missing = {item for item in wanted if not self.has(self._lines[item[0]], item[1])}
        self._complete.clear()
        if self._missing:
            try:
                async with asyncio.timeout(within):
                    await self._complete.wait()
            except TimeoutError:
                pass
        missing, self._missing = self._missing, set()
        return missing

    def _line(self, channel, data):
        known = isinstance(data, list) and len(data) == 2 and data[0] < len(self._lines)
        line = self._lines[data[0]] if known else None
        return line if line and line.channel == channel and data[1] < len(line.states) else None

    def _in_order(self, line, number):
        session = line.sessions[number]
        last_session, last_number = self._last.get(line.number, (0, -1))
        if session < last_session:
            self.late.append((line.number, number))
        elif session == last_session and number < last_number:
            self.disorder.append((line.number, number))
        else:
            self._last[line.number] = (session, number)


class Resumption:
    """From now on: when each of some subscribers next gets something sent after now."""

    def __init__(self, accounts, channels):
        self.began = time.monotonic()
        self.seconds = {}
        self._waiting, self._channels = set(accounts), set(channels)
        self._done = asyncio.Event()
        for account in accounts:
            account.resumption = self

    def heard(self, account, line, number):
        if line.channel in self._channels and line.sent_at[number] > self.began:
            self.seconds[account.name] = time.monotonic() - self.began
            self._waiting.discard(account)
            account.resumption = None
            if not self._waiting:
                self._done.set()

    async def worst(self, within):
        """Seconds until the last of them heard again; who didn't within the time fails it."""
        try:
            if self._waiting:
                async with asyncio.timeout(within):
                    await self._done.wait()
        except TimeoutError:
            raise AssertionError(f"{self._waiting} heard nothing for {within} s") from None
        finally:
            for account in self._waiting:
                account.resumption = None
        return max(self.seconds.values())


class Recorder:
    """All lines and accounts of a run."""

    def __init__(self):
        self.lines = []
        self.accounts = []
        self.acknowledged = 0
        # Of publishes whose connection ended first: line, number, seconds waited, and whether
        # something sent behind it was answered.
        self.cuts = []
        self._goal = None
        self._reached = asyncio.Event()

    def line(self, channel, sender):
        self.lines.append(Line(self, len(self.lines), channel, sender))
        return self.lines[-1]

    def account(self, name, kind, channels):
        """The account of a subscriber that is there before anything is sent."""
        self.accounts.append(self.visitor(name, kind, channels))
        return self.accounts[-1]

    def visitor(self, name, kind, channels):
        """An account of somebody who comes later, so nothing is concluded from what it lacks."""
        return Account(name, kind, channels, self.lines)

    def count(self, state):
        return sum(line.count(state) for line in self.lines)

    def acknowledge(self):
        self.acknowledged += 1
        if self._goal is not None and self.acknowledged >= self._goal:
            self._reached.set()

    async def reaches(self, goal, within):
        """Waits until so many publications are acknowledged."""
        self._goal = goal
        self._reached.clear()
        if self.acknowledged < goal:
            async with asyncio.timeout(within):
                await self._reached.wait()

    def waits(self, since, until):
        """How long each publish that was sent in this time took to be acknowledged: seconds, item."""
        return [
            (line.waited[number], (line.number, number))
            for line in self.lines
            for number in range(
                bisect.bisect_left(line.sent_at, since), bisect.bisect_left(line.sent_at, until)
            )
            if line.acknowledged(number)
        ]

    def taken_unanswered(self):
        """Publications that reached a server which gave no answer before it ended the connection,
        with what shows it: somebody has it, something behind it was answered, or it was sent so
        long before the end that it can't have crossed the server's close on its way. A client can't
        tell more."""
        found = {}
        for number, item, waited, overtaken in self.cuts:
            if self._somebody_has(self.lines[number], item):
                found[number, item] = "somebody has it"
            elif overtaken:
                found[number, item] = "something behind it was answered"
            elif waited > UNDER_WAY_S:
                found[number, item] = f"it waited {waited:.3f} s"
        return found

    def _somebody_has(self, line, number):
        return any(account.has(line, number) for account in self.accounts)

    def name(self, item):
        """A publication in words."""
        line = self.lines[item[0]]
        return f"{line.channel} {line.sender} {item[1]}"
