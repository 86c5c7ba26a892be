//! The work that every system is given: who is connected where, and who publishes what.

/// Bytes of a publication's data, quotes included.
pub(crate) const DATA_BYTES: usize = 128;

/// One kind of work.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) members: usize,
    pub(crate) reach: Reach,
    pub(crate) work: Work,
}

#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Members publish, so many times a second in all.
    Traffic { rate: u32 },
    /// As traffic, at the highest rate that is borne, then at half of it.
    Saturate,
    /// Members are connected and subscribed; nothing is said.
    Idle,
    /// Members connect, one after the other.
    Connect,
    /// New users connect, speak to each other and leave, so many a second, all the time.
    Churn { rate: u32 },
}

/// Whom a publication is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// Everybody in the publisher's room; there are so many rooms. With Orbweb they keep a history or
    /// don't; the others keep none.
    Rooms { rooms: usize, history: bool },
    /// One user, on the other node. With Orbweb it goes to that user's inbox, which keeps a history
    /// or doesn't; the others keep none.
    User { history: bool },
}

/// One client, on one node. It is in a room, or, where users speak to users, alone in its own.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) user: String,
    pub(crate) node: usize,
    pub(crate) room: usize,
    /// The room that it publishes to.
    pub(crate) to: usize,
}

impl Scenario {
    /// All of them, in the order in which they run.
    pub(crate) fn all() -> Vec<Self> {
        let traffic = |name, title, members, reach, rate| Self {
            name,
            title,
            members,
            reach,
            work: Work::Traffic { rate },
        };
        let rooms_of = |rooms| Reach::Rooms { rooms, history: false };
        let (room, rooms) = (rooms_of(1), rooms_of(100));
        let stream = Reach::Rooms { rooms: 1, history: true };
        let (direct, history) = (Reach::User { history: false }, Reach::User { history: true });
        vec![
            traffic("fanout-30", "one room, 30/s", 1000, room, 30),
            traffic("fanout-150", "one room, 150/s", 1000, room, 150),
            // More than two nodes beside a generator deliver one by one: what waits leaves together.
            traffic("fanout-800", "one room, 800/s", 1000, room, 800),
            traffic("rooms", "100 rooms, 3,000/s", 1000, rooms, 3000),
            traffic("direct-1000", "users to users across nodes, 1,000/s", 200, direct, 1000),
            traffic("direct-4000", "users to users across nodes, 4,000/s", 200, direct, 4000),
            traffic(
                "history-fanout",
                "one room, 30/s; Orbweb with history, 2 copies",
                1000,
                stream,
                30,
            ),
            traffic(
                "history-1000",
                "users to users, 1,000/s; Orbweb with history, 2 copies",
                200,
                history,
                1000,
            ),
            traffic(
                "history-4000",
                "users to users, 4,000/s; Orbweb with history, 2 copies",
                200,
                history,
                4000,
            ),
            Self {
                name: "saturate",
                title: "100 rooms, the most with a p99 below 50 ms; latencies at half of it",
                members: 1000,
                reach: rooms,
                work: Work::Saturate,
            },
            // Ten in a room; how many rooms that makes depends on how many are asked for.
            Self::still("idle", "connected and subscribed", Work::Idle),
            Self::still("connect", "connects, each with a token and a subscription", Work::Connect),
            Self {
                name: "churn",
                title: "users that connect, publish to each other and leave",
                members: 100,
                reach: history,
                work: Work::Churn { rate: 50 },
            },
        ]
    }

    fn still(name: &'static str, title: &'static str, work: Work) -> Self {
        Self { name, title, members: 0, reach: Reach::Rooms { rooms: 1, history: false }, work }
    }

    /// The same with so many members.
    pub(crate) fn sized(&mut self, members: u32) {
        self.members = members as usize;
        if matches!(self.work, Work::Idle | Work::Connect) {
            self.reach = Reach::Rooms { rooms: self.members.div_ceil(10), history: false };
        }
    }

    /// Whether it runs only when it is named: a short run of it says nothing.
    pub(crate) fn is_long(&self) -> bool {
        matches!(self.work, Work::Churn { .. })
    }

    /// The name's first part.
    pub(crate) fn family(&self) -> &str {
        self.name.split('-').next().unwrap_or(self.name)
    }

    /// Whether a publication is one delivery.
    pub(crate) fn one_to_one(&self) -> bool {
        matches!(self.reach, Reach::User { .. })
    }

    /// Everybody: half of each room, and of the users, on each node.
    pub(crate) fn members(&self) -> Vec<Member> {
        let member = |number: usize| {
            let (room, to) = match self.reach {
                Reach::Rooms { rooms, .. } => {
                    let room = number / self.members.div_ceil(rooms);
                    (room, room)
                }
                // The neighbour, who is on the other node.
                Reach::User { .. } => (number, number ^ 1),
            };
            Member { user: format!("u{number}"), node: number % 2, room, to }
        };
        (0..self.members).map(member).collect()
    }

    /// Who publishes the publication of this number: rooms take turns, and within a room its
    /// members.
    pub(crate) fn publisher(&self, number: usize) -> usize {
        let rooms = match self.reach {
            Reach::Rooms { rooms, .. } => rooms,
            Reach::User { .. } => self.members,
        };
        let size = self.members / rooms;
        (number % rooms) * size + (number / rooms) % size
    }
}
