"""The measuring commands, as short as they go: each prints a figure of every kind."""

import asyncio
import contextlib
import json
import os
import pathlib
import re
import signal

import pytest
from harness.latency import LATENCY
from harness.node import BINARY

COMMAND = pathlib.Path(__file__).parents[1] / "measure"
LATENCIES = r"p50 [\d.]+ ms, p99 [\d.]+ ms, max [\d.]+ ms"
WAITS = r"p50 [\d.]+, p99 [\d.]+, max [\d.]+ ms of \d+ in [\d.]+ s"
SECONDS = r"median [\d.]+ s, worst [\d.]+ s of 1"

# Words after the command → rows that it has to print: a name and a figure.
RUNS = {
    "--seconds 1 --rounds 1 --rate 500 --idle 1": [
        ("publish → deliver, ephemeral, 500/s", LATENCIES),
        ("publish → deliver, history, 500/s", LATENCIES),
        ("CPU a message, ephemeral", r"publisher [\d.]+ µs, owner [\d.]+ µs, subscriber [\d.]+ µs"),
        ("start → first message across nodes", SECONDS),
        ("kill -9 → gone from every view", SECONDS),
        ("idle, a node", r"[\d.]+ % of a core, [\d.]+ MB"),
        ("machine", r"\d+ cores"),
    ],
    "copies --seconds 1 --rounds 1 --rate 500 --idle 1": [
        (f"copies = {copies}, {figure}", value)
        for copies in (1, 2, 3)
        for figure, value in (
            ("CPU of all nodes a publication", r"-?[\d.]+ µs"),
            ("publish → acknowledge", LATENCIES),
            ("publish → deliver", LATENCIES),
        )
    ],
    "failover --kills 1 --publications 300 --rate 300 --nodes 3": [],
    "memory --users 50 --streams 50 --publications 1 --seconds 1": [
        (f"50 {kept}, {kind}", r"[\d.]+ \+ [\d.]+ \+ [\d.]+ MB .* -?\d+ bytes each")
        for kept in ("users", "streams")
        for kind in ("RSS", "PSS")
    ]
    + [
        ("publish → deliver, 3 nodes with 50 streams", LATENCIES),
        ("publish → deliver, a node with no channels", LATENCIES),
        ("publish → deliver, a node with 50 channels", LATENCIES),
    ],
    # Unoptimised, beside others: what is promised of how long slots are parked can't be judged here.
    "move --megabytes 2 --rate 300 --seconds 1 --parked-max 2000": [
        ("payload, each copy", r"\d+ MB in [\d.]+ s"),
        ("joined: up after", r"[\d.]+ s"),
        ("slots that moved", r"join \d+, drain \d+"),
        *(
            (f"publish → acknowledge, {phase}", WAITS)
            for phase in ("before", "join", "between", "drain", "after")
        ),
        ("acknowledged", r"[1-9]\d*"),
        ("lost", "0"),
    ],
}


async def measure(*words):
    """Runs the command on the binaries of these tests; its output if it succeeds."""
    process = await asyncio.create_subprocess_exec(
        str(COMMAND),
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "ORBWEB_BINARY": str(BINARY), "ORBWEB_LATENCY": LATENCY},
        start_new_session=True,
    )
    try:
        out, errors = await process.communicate()
    finally:
        # Interrupted, it takes its nodes along.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
    assert process.returncode == 0, (out + errors).decode()
    return out.decode(), errors.decode()


@pytest.mark.parametrize("words", RUNS)
async def test_a_measurement_prints_its_figures(words, tmp_path):
    file = tmp_path / "figures.json"
    out, errors = await measure(*words.split(), "--json", str(file))
    for name, figure in RUNS[words]:
        assert re.search(rf"^{re.escape(name)}  +{figure}", out, re.MULTILINE), (name, out)
    found = json.loads(file.read_text())
    if words.startswith("failover"):
        (fault,) = found["faults"]
        assert fault["resumed_s"] > 0 and found["problems"] == [], found
        assert re.search(r"^1/1 kill owner", errors, re.MULTILINE), errors
    else:
        assert found["machine"]["cores"] == os.cpu_count()


async def test_the_cost_of_growth_is_told_size_by_size(tmp_path):
    file = tmp_path / "figures.json"
    words = "scale --sizes 3,4 --rest 1 --rate 100 --seconds 1 --json"
    out, _ = await measure(*words.split(), str(file))
    heading, _, *rows = [line.split("|") for line in out.splitlines() if line.startswith("|")]
    assert [row[1].strip() for row in rows] == ["3", "4"], out
    assert all(len(row) == len(heading) for row in rows), out
    sizes = json.loads(file.read_text())["sizes"]
    assert [size["links"] for size in sizes] == [2, 3], sizes
    for size in sizes:
        assert size["death"]["claims"] >= 1 and size["join"]["claims"] >= 1, size
        assert size["publication"]["datagrams"] > 1 and size["rest"]["bytes"] > 0, size


@pytest.mark.hosts
async def test_what_others_notice_of_trouble_is_told(tmp_path):
    file = tmp_path / "figures.json"
    words = "beside --rounds 1 --seconds 6 --json"
    out, _ = await measure(*words.split(), str(file))
    runs = json.loads(file.read_text())["runs"]
    for name in runs:
        for figure in ("acknowledge", "deliver"):
            assert re.search(rf"^publish → {figure}, {name} +p50 [\d.]+ ms, p99 ", out, re.MULTILINE), out
    assert len(runs) == 4 and all(run["messages"] > 0 for (run,) in runs.values()), runs
