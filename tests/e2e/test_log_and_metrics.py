"""What an operator's own tools read: log lines as JSON, and the metrics that README lists."""

import asyncio
import json
import pathlib
import re
import signal

from harness import cluster, connect, token
from harness.node import BINARY, clean_environment, free_port

README = pathlib.Path(__file__).parents[2] / "README.md"


async def test_each_line_of_a_log_in_json_is_an_object_with_an_event():
    process = await asyncio.create_subprocess_exec(
        str(BINARY),
        "serve",
        *("--listen", f"127.0.0.1:{free_port()}", "--set", "log.format=json"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=clean_environment(),
    )
    lines = []
    try:
        async with asyncio.timeout(20):
            while line := await process.stderr.readline():
                lines.append(json.loads(line))
                if lines[-1]["message"] == "node.listening":
                    process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    events = {line["message"]: line for line in lines}
    assert events["node.listening"]["level"] == "INFO" and "clients" in events["node.listening"]
    assert "node.left" in events, events
    assert all(re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", event) for event in events), events


async def test_each_prefix_of_readme_is_in_the_metrics_and_no_other():
    table = README.read_text().partition("\n## Metrics\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    prefixes = tuple(re.findall(r"`(orbweb_\w+)`", " ".join(rows)))
    assert len(prefixes) >= len(rows) > 5, rows
    async with cluster(2) as c, await connect("python", c[1], token=token("alice")) as alice:
        await alice.subscribe("chat:room")
        await c[0].call("publish", channel="chat:room", data=1)
        lines = (await c[0].metrics()).splitlines()
    names = {re.split("[{ ]", line)[0] for line in lines if not line.startswith("#")}
    missing = [prefix for prefix in prefixes if not any(name.startswith(prefix) for name in names)]
    assert missing == [], names
    assert [name for name in names if not name.startswith(prefixes)] == []
