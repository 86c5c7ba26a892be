"""All nodes are restarted one after the other under load, as an upgrade does it: nobody notices."""

import pytest
from harness import cluster
from harness.recorder import REFUSED, UNANSWERED, Recorder
from harness.traffic import Traffic

CHANNELS = [f"long:{number}" for number in range(8)]
SDKS = ("js", "python", "js", "python")
BETWEEN = 300


@pytest.mark.parametrize("nodes", [2, 3])
async def test_a_rolling_restart_fails_loses_and_repeats_nothing(nodes):
    recorder = Recorder()
    async with cluster(nodes, peers=True) as c:
        async with Traffic(c, recorder, CHANNELS, rate=300, keepers=4, sdks=SDKS) as traffic:
            for node in c:
                await recorder.reaches(recorder.acknowledged + BETWEEN, 15)
                await restart(c, node)
            await recorder.reaches(recorder.acknowledged + BETWEEN, 15)
            await traffic.stop()
            lacking = await traffic.arrived(15)
    assert recorder.count(REFUSED) + recorder.count(UNANSWERED) == 0, traffic.failures
    taken = recorder.taken_unanswered()
    assert not taken, {recorder.name(item): how for item, how in taken.items()}
    assert not any(lacking.values()), lacking
    for account in recorder.accounts:
        assert account.gaps == [], account
        assert account.foreign == [], account
        assert account.again == [], account
        assert account.out_of_order() == [], account


async def restart(c, node):
    """Drains a node and starts it again, and goes on as soon as every node says it is ready."""
    node.terminate()
    assert await node.exit_code(within=40) == 0
    assert "drain.timed_out" not in node.log, node.log
    await node.start()
    for each in c:
        await each.ready()
