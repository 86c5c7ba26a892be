"""`orbweb demo`: a cluster in one go, without a terminal."""

import asyncio
import os
import re

from harness import eventually
from harness.node import BINARY, clean_environment


async def start(*arguments):
    return await asyncio.create_subprocess_exec(
        str(BINARY),
        "demo",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=clean_environment(),
    )


async def line_with(words, process):
    """The next line that has these words."""
    async with asyncio.timeout(20):
        while line := (await process.stdout.readline()).decode():
            if words in line:
                return line
    raise AssertionError(f"the demo ended without {words!r}")


async def test_a_key_kills_a_node_and_it_comes_back():
    process = await start("--for", "60s")
    try:
        await line_with("status", process)
        process.stdin.write(b"k")
        await line_with("killed", process)
        await line_with("started again", process)
        await line_with("ready again", process)
        process.stdin.write(b"q")
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()


async def test_it_ends_by_itself_and_leaves_nothing_behind():
    process = await start("--nodes", "2", "--for", "4s")
    folder = (await line_with("logs", process)).split()[1]
    assert os.path.isdir(folder)
    output = (await asyncio.wait_for(process.communicate(), 20))[0].decode()
    assert process.returncode == 0, output
    assert not os.path.exists(folder)


async def test_nodes_end_with_the_demo_even_if_it_is_killed():
    process = await start("--nodes", "2")
    url = re.search(r"http://\S+(?=/demo)", await line_with("/demo", process))[0]
    port = int(url.rsplit(":", 1)[1])
    await line_with("status", process)
    process.kill()
    await process.wait()

    async def refused():
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return True
        writer.close()

    await eventually(refused, 10, "the nodes end, too")
