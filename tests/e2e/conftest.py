"""Runs `async def` tests, each on an event loop of its own and within a time limit."""

import asyncio
import inspect

import pytest

TEST_S = 90


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def limited():
        async with asyncio.timeout(TEST_S):
            await pyfuncitem.obj(**arguments)

    asyncio.run(limited())
    return True


def pytest_generate_tests(metafunc):
    """A test that takes `sdk` runs once with each SDK."""
    if "sdk" in metafunc.fixturenames:
        metafunc.parametrize("sdk", ["js", "python"])
