"""What a client was told, in order, each thing taken once."""

import asyncio


class Events:
    """A log of events (dictionaries with a `kind`) that tests take from and wait on."""

    def __init__(self):
        self.log = []
        self._taken = set()
        self._more = asyncio.Event()
        self._watcher = None

    def watch(self, watcher):
        """Also calls `watcher` with each event from now on, as it comes."""
        self._watcher = watcher

    def record(self, **event):
        self.log.append(event)
        self._more.set()
        if self._watcher is not None:
            self._watcher(event)

    def seen(self, kind, **match):
        """All events of a kind so far, taken or not."""
        return [event for event in self.log if self._fits(event, kind, match)]

    async def next(self, kind, within=5.0, **match):
        """Takes the first event of a kind that fits and wasn't taken, or waits for it."""
        try:
            async with asyncio.timeout(within):
                while True:
                    for number, event in enumerate(self.log):
                        if number not in self._taken and self._fits(event, kind, match):
                            self._taken.add(number)
                            return event
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            tail = "\n  ".join(repr(event) for event in self.log[-15:])
            raise AssertionError(
                f"no {kind} {match or ''} within {within} s; the last events were:\n  {tail}"
            ) from None

    async def count(self, number, kind, within=10.0, **match):
        """Waits for `number` events of a kind in all, and returns them."""
        try:
            async with asyncio.timeout(within):
                while len(found := self.seen(kind, **match)) < number:
                    self._more.clear()
                    await self._more.wait()
                return found
        except TimeoutError:
            found = len(self.seen(kind, **match))
            raise AssertionError(
                f"{found} of {number} events {kind} {match or ''} within {within} s"
            ) from None

    @staticmethod
    def _fits(event, kind, match):
        return event["kind"] == kind and all(
            key in event and event[key] == value for key, value in match.items()
        )
