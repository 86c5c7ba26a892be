"""`orbweb demo`: a cluster in one go, with and without a terminal."""

import asyncio
import os
import pty
import re
import termios

from harness import eventually
from harness.node import BINARY, clean_environment


async def start(*arguments, keys=asyncio.subprocess.PIPE, **env):
    return await asyncio.create_subprocess_exec(
        str(BINARY),
        "demo",
        *arguments,
        stdin=keys,
        stdout=asyncio.subprocess.PIPE,
        env={**clean_environment(), **env},
    )


async def line_with(words, process):
    """The next line that has these words."""
    async with asyncio.timeout(20):
        while line := (await process.stdout.readline()).decode():
            if words in line:
                return line
    raise AssertionError(f"the demo ended without {words!r}")


async def killed_and_back(process):
    """Waits until a node was killed, and the same one is started again and ready."""
    name = (await line_with("killed", process)).split()[0]
    assert (await line_with("started again", process)).split()[0] == name
    assert (await line_with("ready again", process)).split()[0] == name


async def test_a_key_kills_a_node_and_it_comes_back():
    process = await start("--for", "60s")
    try:
        await line_with("status", process)
        process.stdin.write(b"k")
        await killed_and_back(process)
        process.stdin.write(b"q")
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()


async def test_a_key_of_a_terminal_needs_no_enter_and_the_terminal_is_as_before():
    keyboard, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    process = await start("--for", "60s", keys=terminal)
    try:
        await line_with("press k", process)
        await eventually(lambda: termios.tcgetattr(terminal) != before, 5, "single key presses")
        os.write(keyboard, b"k")
        await killed_and_back(process)
        os.write(keyboard, b"q")
        assert await asyncio.wait_for(process.wait(), 10) == 0
        assert termios.tcgetattr(terminal) == before
    finally:
        if process.returncode is None:
            process.kill()
        os.close(keyboard)
        os.close(terminal)


async def test_it_ends_by_itself_and_leaves_nothing_behind():
    process = await start("--nodes", "2", "--for", "4s")
    folder = (await line_with("logs", process)).split()[1]
    assert os.path.isdir(folder)
    output = (await asyncio.wait_for(process.communicate(), 20))[0].decode()
    assert process.returncode == 0, output
    assert not os.path.exists(folder)


async def test_nodes_end_with_the_demo_even_if_it_is_killed(tmp_path):
    # Its folder stays behind then.
    process = await start("--nodes", "2", TMPDIR=str(tmp_path))
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
