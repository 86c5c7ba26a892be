"""Nodes are killed: nothing that was acknowledged is lost, and clients of each SDK keep their
place."""

from harness.failover import Plan, failover


async def test_nothing_acknowledged_is_lost_when_nodes_are_killed():
    report = await failover(Plan.from_environment(kills=6, publications=20_000))
    assert report.problems() == []


async def test_nothing_acknowledged_is_lost_when_nodes_are_killed_and_paused():
    report = await failover(Plan.from_environment(kills=3, pauses=3, publications=10_000))
    assert report.problems() == []


async def test_with_one_copy_the_recorder_finds_what_is_lost():
    """Else the tests above could not fail."""
    report = await failover(Plan(kills=3, publications=3000, copies=1))
    assert report.gaps or report.lost, report.table()
