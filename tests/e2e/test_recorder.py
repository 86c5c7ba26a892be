"""The recorder finds what it is there to find: each thing that a run must not do, done by hand."""

import array
import asyncio

import pytest
from harness.failover import Plan, Report
from harness.faults import ROLES, Fault, schedule
from harness.recorder import ACKNOWLEDGED, CUT, REFUSED, Recorder, Resumption

CHANNEL = "long:0"


class Books:
    """One line in one channel, and one subscriber of it."""

    def __init__(self):
        self.recorder = Recorder()
        self.line = self.recorder.line(CHANNEL, "sender")
        self.account = self.recorder.account("subscriber", "keeper", [CHANNEL])

    def send(self, *states, session=1):
        for state in states:
            self.line.answer(self.line.send(session), state)

    def receive(self, *numbers, channel=CHANNEL):
        for number in numbers:
            self.account.received(channel, [self.line.number, number])


@pytest.fixture
def books():
    return Books()


async def test_only_what_was_acknowledged_can_be_lacking(books):
    books.send(ACKNOWLEDGED, REFUSED, CUT, ACKNOWLEDGED)
    books.line.send(1)
    books.receive(0)
    assert books.account.lacks() == [(0, 3)]
    assert books.recorder.acknowledged == 2


async def test_what_comes_twice_is_counted(books):
    books.send(ACKNOWLEDGED, ACKNOWLEDGED)
    books.receive(0, 1, 0)
    assert books.account.again == [(0, 0)]
    assert books.account.out_of_order() == []


@pytest.mark.parametrize("data", [[0, 1], [7, 0], "anything", [0]])
async def test_what_nobody_sent_is_foreign(books, data):
    books.send(ACKNOWLEDGED)
    books.account.received(CHANNEL, data)
    assert books.account.foreign == [(CHANNEL, data)]


async def test_what_was_sent_to_another_channel_is_foreign(books):
    books.send(ACKNOWLEDGED)
    books.receive(0, channel="long:1")
    assert len(books.account.foreign) == 1


async def test_order_holds_within_a_session_for_the_unknown_too(books):
    books.send(REFUSED, ACKNOWLEDGED)
    books.receive(1, 0)
    assert books.account.out_of_order() == [(0, 0)]


@pytest.mark.parametrize(("state", "found"), [(ACKNOWLEDGED, [(0, 0)]), (CUT, [])])
async def test_across_sessions_order_holds_for_what_was_acknowledged(books, state, found):
    books.send(state, session=1)
    books.send(ACKNOWLEDGED, session=2)
    books.receive(1, 0)
    assert books.account.out_of_order() == found


async def test_a_second_subscription_keeps_its_position_only_by_recovery(books):
    books.account.subscribed(CHANNEL, recovered=False)
    books.account.subscribed(CHANNEL, recovered=True)
    assert books.account.gaps == []
    books.account.subscribed(CHANNEL, recovered=False)
    assert books.account.gaps == [(CHANNEL, "not recovered")]


async def test_a_publish_that_was_cut_off_was_taken_if_somebody_has_it(books):
    books.send(CUT, CUT)
    books.receive(1)
    assert list(books.recorder.taken_unanswered()) == [(0, 1)]


async def test_a_publish_that_was_cut_off_was_taken_if_one_behind_it_was_answered(books):
    for overtaken in (False, True):
        books.line.answer(books.line.send(1), CUT, overtaken)
    assert list(books.recorder.taken_unanswered()) == [(0, 1)]


async def test_a_publish_that_waited_long_can_not_have_crossed_the_close(books):
    number = books.line.send(1)
    books.line.sent_at[number] -= 1
    books.line.answer(number, CUT)
    assert list(books.recorder.taken_unanswered()) == [(0, 0)]


async def test_waiting_ends_with_the_last_or_says_what_is_missing(books):
    books.send(ACKNOWLEDGED, ACKNOWLEDGED)
    waiting = asyncio.ensure_future(books.account.gets(books.account.lacks(), 5))
    await asyncio.sleep(0)
    books.receive(0, 1)
    assert await waiting == set()
    books.send(ACKNOWLEDGED)
    assert await books.account.gets(books.account.lacks(), 0.01) == {(0, 2)}


async def test_each_goal_is_waited_for_anew(books):
    books.send(ACKNOWLEDGED)
    await books.recorder.reaches(1, 1)
    with pytest.raises(TimeoutError):
        await books.recorder.reaches(2, 0.01)
    waiting = asyncio.ensure_future(books.recorder.reaches(2, 5))
    await asyncio.sleep(0)
    books.send(ACKNOWLEDGED)
    await waiting


async def test_a_resumption_needs_something_that_was_sent_after_it_began(books):
    books.send(ACKNOWLEDGED)
    resumption = Resumption([books.account], [CHANNEL])
    books.receive(0)
    assert resumption.seconds == {}
    books.send(ACKNOWLEDGED)
    books.receive(1)
    assert await resumption.worst(1) > 0


async def test_a_seed_gives_one_schedule_with_each_role_in_turn():
    plan = {"kills": 6, "pauses": 3, "pause_s_max": 8}
    faults = schedule(7, **plan)
    assert faults == schedule(7, **plan) != schedule(8, **plan)
    roles = {kind: [x.role for x in faults if x.kind == kind] for kind in ("kill", "pause")}
    assert roles == {"kill": [*ROLES, *ROLES], "pause": [*ROLES]}
    shortest, drawn, longest = sorted(x.seconds for x in faults if x.kind == "pause")
    assert (shortest, longest) == (0.1, 8) and shortest < drawn < longest


@pytest.mark.parametrize(
    ("seconds", "found"),
    [
        ([0.1] * 49 + [1.5], ["p99"]),
        ([0.1] * 48 + [4.9], []),
        ([0.1] * 99 + [4.9], []),
        ([0.1] * 4 + [0.8] * 6, ["p50"]),
        ([5.0], ["max"]),
    ],
)
@pytest.mark.parametrize("nodes", [2, 3])
async def test_failovers_that_took_longer_than_promised_are_told(seconds, found, nodes):
    kills = [Fault("kill", "owner", 0, resumed_s=each) for each in seconds]
    report = Report(Plan(nodes=nodes), 0.0, kills, Recorder(), {})
    told = [problem.split()[0] for problem in report.problems()]
    assert told == (found if nodes == 3 else [])


async def test_waits_are_those_of_what_was_sent_in_a_time_and_acknowledged(books):
    books.send(ACKNOWLEDGED, REFUSED, ACKNOWLEDGED, ACKNOWLEDGED)
    books.line.sent_at[:] = array.array("d", [1.0, 2.0, 3.0, 4.0])
    books.line.waited[:] = array.array("d", [0.1, 0.2, 0.3, 0.4])
    assert books.recorder.waits(1.5, 4.0) == [(0.3, (0, 2))]
    assert [item for _, item in books.recorder.waits(0.0, 9.0)] == [(0, 0), (0, 2), (0, 3)]
