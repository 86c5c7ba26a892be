"""Waiting for another process: its state can only be asked for, so it is asked often."""

import asyncio
import inspect
import time

import aiohttp

POLL_S = 0.05


class Ended(Exception):
    """What is waited for won't come: a process is gone. Ends the waiting at once."""


async def eventually(check, within=5.0, what=None, poll=POLL_S):
    """Calls `check` until it returns something true, and returns that. Errors of a node that isn't
    there yet count as "not yet"; the last one is told if time runs out."""
    deadline = time.monotonic() + within
    last = None
    while True:
        try:
            answer = check()
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                return answer
            last = answer
        except (OSError, aiohttp.ClientError, AssertionError, LookupError) as error:
            last = error
        if time.monotonic() >= deadline:
            name = what or getattr(check, "__name__", "the condition")
            raise AssertionError(f"{name}: not within {within} s; last: {last!r}")
        await asyncio.sleep(poll)
