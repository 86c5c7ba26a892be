//! One run: a system is started, its clients get in, the work is done, and what that took is read.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::crowd::{Crowd, Delivery, Entry};
use crate::frame::Stamp;
use crate::options::Options;
use crate::process::file_limit;
use crate::scenario::{DATA_BYTES, Member, Scenario, Work};
use crate::systems::{Kind, System};
use crate::usage;

/// Work that isn't measured, so that caches, compilers and connections are warm.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long a publication that only looks whether everybody is reached is waited for.
const PROBE_WAIT: Duration = Duration::from_secs(2);
const PROBES_MAX: u16 = 10;
/// After so long without a delivery, those that are missing count as lost.
const SILENCE: Duration = Duration::from_secs(3);
/// Files that a process has open beside its clients.
const OTHER_FILES: u64 = 200;

/// What counts as borne, and how it is looked for: from this rate on, by steps of a quarter, each
/// so long, until two tries at one rate fail.
const SATURATED_P99_US: u32 = 50_000;
const SATURATE_FROM: u32 = 1_000;
const SATURATE_STEP: Duration = Duration::from_secs(2);

/// How often memory is looked at in a run of churn.
const CHURN_PARTS: u32 = 12;

/// What one run found. Times in microseconds, memory in bytes.
#[derive(Clone, Default, Debug)]
pub(crate) struct Run {
    pub(crate) publications: u64,
    pub(crate) expected: u64,
    pub(crate) received: u64,
    /// Deliveries that a client should have had and hadn't, and those that it had too often.
    pub(crate) missing: u64,
    pub(crate) surplus: u64,
    pub(crate) closed: u64,
    pub(crate) cpu_us: f64,
    pub(crate) generator_cpu_us: f64,
    pub(crate) elapsed_s: f64,
    pub(crate) latency: Option<Latency>,
    pub(crate) clients: u64,
    pub(crate) memory_bytes: Option<u64>,
    /// The same as time went by, at the ends of equal parts of it.
    pub(crate) memory_by_time: Vec<u64>,
    /// The highest rate that was borne, in publications a second.
    pub(crate) highest_rate: Option<u32>,
    pub(crate) load: f64,
}

/// From when a publication was due to when a client read it, so that a generator that was held up
/// hides nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) p50_us: u32,
    pub(crate) p99_us: u32,
    pub(crate) p999_us: u32,
}

/// Does the scenario's work on a system of its own.
pub(crate) fn run(kind: Kind, scenario: &Scenario, options: &Options) -> Result<Run> {
    let members = scenario.members();
    enough_files(members.len())?;
    let folder = Folder::new()?;
    let seconds = Duration::from_secs(options.seconds.into());
    let start = || kind.start(&folder.0, scenario);
    let run = match scenario.work {
        Work::Traffic { rate } => {
            Traffic::new(&*start()?, scenario, members)?.measure(rate, seconds)
        }
        Work::Saturate => {
            let highest = Traffic::new(&*start()?, scenario, members.clone())?.saturate()?;
            // From new: some systems part with clients that don't keep up.
            let system = start()?;
            let mut half = Traffic::new(&*system, scenario, members)?;
            let run = half.measure((highest / 2).max(1), seconds)?;
            Ok(Run { highest_rate: Some(highest), ..run })
        }
        Work::Idle => idle(&*start()?, &members, seconds),
        Work::Connect => connect(&*start()?, &members),
        Work::Churn { rate } => churn(&*start()?, scenario, rate, seconds),
    };
    // Kept if something went wrong: the logs are in it.
    if run.is_ok() {
        folder.remove();
    }
    run
}

fn idle(system: &dyn System, members: &[Member], seconds: Duration) -> Result<Run> {
    let pids = system.pids();
    let before = usage::pss_bytes(&pids)?;
    let mut crowd = Crowd::enter(entries(system, members)?)?;
    let (cpu, began) = (usage::cpu_us(&pids)?, Instant::now());
    while let Some(left) = seconds.checked_sub(began.elapsed()) {
        crowd.receive(left, |_| {})?;
    }
    Ok(Run {
        cpu_us: usage::cpu_us(&pids)? - cpu,
        elapsed_s: began.elapsed().as_secs_f64(),
        clients: members.len() as u64,
        closed: crowd.closed as u64,
        memory_bytes: Some(usage::pss_bytes(&pids)?.saturating_sub(before)),
        load: usage::load(),
        ..Run::default()
    })
}

fn connect(system: &dyn System, members: &[Member]) -> Result<Run> {
    let (warm, members) = members.split_at(members.len() / 10);
    let early = Crowd::enter(entries(system, warm)?)?;
    // Before the clock runs: signing tokens is the generator's work.
    let entries = entries(system, members)?;
    let pids = system.pids();
    let (cpu, own_cpu, began) = (usage::cpu_us(&pids)?, usage::own_cpu_us()?, Instant::now());
    let crowd = Crowd::enter(entries)?;
    let elapsed_s = began.elapsed().as_secs_f64();
    Ok(Run {
        cpu_us: usage::cpu_us(&pids)? - cpu,
        generator_cpu_us: usage::own_cpu_us()? - own_cpu,
        elapsed_s,
        clients: members.len() as u64,
        closed: (early.closed + crowd.closed) as u64,
        load: usage::load(),
        ..Run::default()
    })
}

/// Everybody comes, publishes once, is heard and leaves; others with new names come next.
fn churn(system: &dyn System, scenario: &Scenario, rate: u32, length: Duration) -> Result<Run> {
    let (pids, began) = (system.pids(), Instant::now());
    let (cpu, own_cpu) = (usage::cpu_us(&pids)?, usage::own_cpu_us()?);
    let mut run = Run::default();
    let pause = Duration::from_secs(1) * scenario.members as u32 / rate;
    for round in 0_u32.. {
        // Each at its time, or as soon as those before it are done.
        let due = pause * round;
        while due > began.elapsed() {
            std::thread::sleep(due - began.elapsed());
        }
        let parts = length.as_millis() / u128::from(CHURN_PARTS);
        while run.memory_by_time.len() < CHURN_PARTS as usize
            && began.elapsed().as_millis() >= parts * (run.memory_by_time.len() as u128 + 1)
        {
            run.memory_by_time.push(usage::pss_bytes(&pids)?);
        }
        if began.elapsed() >= length {
            break;
        }
        let shift = round as usize * scenario.members;
        let shifted = |member: Member| Member {
            user: format!("u{}", member.room + shift),
            room: member.room + shift,
            to: member.to + shift,
            ..member
        };
        let members = scenario.members().into_iter().map(shifted).collect();
        let mut traffic = Traffic::new(system, scenario, members)?;
        let heard = traffic.all_speak()?;
        run.publications += heard.publications;
        run.expected += heard.expected;
        run.received += heard.received;
        run.missing += heard.missing;
        run.surplus += heard.surplus;
        run.closed += traffic.crowd.closed as u64;
        run.clients += traffic.members.len() as u64;
    }
    run.elapsed_s = began.elapsed().as_secs_f64();
    run.cpu_us = usage::cpu_us(&pids)? - cpu;
    run.generator_cpu_us = usage::own_cpu_us()? - own_cpu;
    run.memory_bytes = run.memory_by_time.last().copied();
    run.load = usage::load();
    Ok(run)
}

/// What each member says to get in.
fn entries(
    system: &dyn System,
    members: &[Member],
) -> Result<impl ExactSizeIterator<Item = Entry> + use<>> {
    let addresses = system.addresses();
    let entry = |member: &Member| {
        Ok(Entry { address: addresses[member.node], steps: system.entry(member)? })
    };
    Ok(members.iter().map(entry).collect::<Result<Vec<_>>>()?.into_iter())
}

/// Clients that publish.
struct Traffic<'a> {
    system: &'a dyn System,
    scenario: &'a Scenario,
    members: Vec<Member>,
    crowd: Crowd,
    phase: u16,
    /// Publications so far, over all phases.
    sent: usize,
}

impl<'a> Traffic<'a> {
    fn new(system: &'a dyn System, scenario: &'a Scenario, members: Vec<Member>) -> Result<Self> {
        let crowd = Crowd::enter(entries(system, &members)?)?;
        Ok(Self { system, scenario, members, crowd, phase: 0, sent: 0 })
    }

    /// Work that is measured, behind such that isn't.
    fn measure(&mut self, rate: u32, length: Duration) -> Result<Run> {
        self.reach_everybody()?;
        self.publish(rate, WARM_UP.min(length))?;
        self.publish(rate, length)
    }

    /// The highest rate that is borne; 0 if none is.
    fn saturate(&mut self) -> Result<u32> {
        self.reach_everybody()?;
        let (mut borne, mut rate, mut failed) = (0, SATURATE_FROM, false);
        loop {
            let run = self.publish(rate, SATURATE_STEP)?;
            let quick = run.latency.is_some_and(|latency| latency.p99_us < SATURATED_P99_US);
            if quick && run.missing == 0 {
                (borne, rate, failed) = (rate, rate / 4 * 5, false);
            } else if failed || run.closed > 0 {
                return Ok(borne);
            } else {
                failed = true;
            }
        }
    }

    /// Publishes to every room from each node that it is published to from, until everybody has
    /// got it: nodes tell each other of subscribers behind the answer to a subscription.
    fn reach_everybody(&mut self) -> Result<()> {
        let mut ways = BTreeMap::new();
        for (number, member) in self.members.iter().enumerate() {
            ways.entry((member.to, member.node)).or_insert(number);
        }
        let in_room = |room| self.members.iter().filter(|member| member.room == room).count();
        let all: usize = ways.keys().map(|&(room, _)| in_room(room)).sum();
        for _ in 0..PROBES_MAX {
            self.phase += 1;
            let mut missing = all;
            for &publisher in ways.values() {
                self.send(publisher, self.crowd.now_ns())?;
            }
            let (phase, began) = (self.phase, Instant::now());
            while let Some(left) = PROBE_WAIT.checked_sub(began.elapsed())
                && missing > 0
            {
                self.crowd.receive(left, |each| {
                    missing = missing.saturating_sub(usize::from(each.stamp.phase == phase));
                })?;
            }
            if missing == 0 {
                return Ok(());
            }
        }
        anyhow::bail!("publications still don't reach everybody after {PROBES_MAX} times")
    }

    /// Everybody publishes once.
    fn all_speak(&mut self) -> Result<Run> {
        self.phase += 1;
        let mut tally = Tally::new(self.phase, self.expected(self.members.len()));
        for publisher in 0..self.members.len() {
            self.send(publisher, self.crowd.now_ns())?;
        }
        let began_ns = self.crowd.now_ns();
        while let Some(left) = tally.patience(began_ns, self.crowd.now_ns()) {
            self.crowd.receive(left, |delivery| tally.count(delivery))?;
        }
        Ok(Run { publications: self.members.len() as u64, ..tally.run() })
    }

    /// Publishes at this rate for this long and waits for what comes.
    fn publish(&mut self, rate: u32, length: Duration) -> Result<Run> {
        self.phase += 1;
        let pids = self.system.pids();
        let publications = (u64::from(rate) * length.as_millis() as u64 / 1000) as usize;
        let pause_ns = 1_000_000_000 / u64::from(rate);
        let mut tally = Tally::new(self.phase, self.expected(publications));
        let (cpu, own_cpu, began) = (usage::cpu_us(&pids)?, usage::own_cpu_us()?, Instant::now());
        let first_ns = self.crowd.now_ns() + pause_ns;
        let due = |number: usize| first_ns + pause_ns * number as u64;
        let mut number = 0;
        loop {
            let now = self.crowd.now_ns();
            while number < publications && due(number) <= now {
                let publisher = self.scenario.publisher(number);
                self.send(publisher, due(number))?;
                number += 1;
            }
            let left = if number < publications {
                Duration::from_nanos(due(number) - now)
            } else {
                match tally.patience(due(number), now) {
                    Some(left) => left,
                    None => break,
                }
            };
            self.crowd.receive(left, |delivery| tally.count(delivery))?;
        }
        Ok(Run {
            cpu_us: usage::cpu_us(&pids)? - cpu,
            generator_cpu_us: usage::own_cpu_us()? - own_cpu,
            publications: publications as u64,
            clients: self.members.len() as u64,
            elapsed_s: began.elapsed().as_secs_f64(),
            closed: self.crowd.closed as u64,
            load: usage::load(),
            ..tally.run()
        })
    }

    fn send(&mut self, publisher: usize, due_ns: u64) -> Result<()> {
        let data = Stamp { phase: self.phase, due_ns }.data(DATA_BYTES);
        self.sent += 1;
        let frame = self.system.publication(&self.members[publisher], self.sent, &data);
        self.crowd.send(publisher, &frame)
    }

    /// How many deliveries each member should have of so many publications.
    fn expected(&self, publications: usize) -> Vec<u64> {
        let mut to_room = BTreeMap::new();
        for number in 0..publications {
            let publisher = &self.members[self.scenario.publisher(number)];
            *to_room.entry(publisher.to).or_default() += 1;
        }
        let expected = |member: &Member| to_room.get(&member.room).copied().unwrap_or_default();
        self.members.iter().map(expected).collect()
    }
}

/// The deliveries of a phase.
struct Tally {
    phase: u16,
    /// How many each member still has to get; below zero if it got more.
    due: Vec<i64>,
    wanted: u64,
    received: u64,
    latencies_us: Vec<u32>,
    last_ns: u64,
}

impl Tally {
    fn new(phase: u16, expected: Vec<u64>) -> Self {
        let wanted = expected.iter().sum();
        Self {
            phase,
            due: expected.into_iter().map(|count| count as i64).collect(),
            wanted,
            received: 0,
            latencies_us: Vec::with_capacity(wanted as usize),
            last_ns: 0,
        }
    }

    fn count(&mut self, delivery: Delivery) {
        let Delivery { client, stamp, came_ns } = delivery;
        if stamp.phase == self.phase {
            self.due[client] -= 1;
            self.received += 1;
            self.last_ns = came_ns;
            let took = came_ns.saturating_sub(stamp.due_ns) / 1000;
            self.latencies_us.push(u32::try_from(took).unwrap_or(u32::MAX));
        }
    }

    /// How long to wait for more, when the last publication was due at `since_ns`; `None` = no longer.
    fn patience(&self, since_ns: u64, now_ns: u64) -> Option<Duration> {
        let silent = now_ns.saturating_sub(self.last_ns.max(since_ns));
        let left = SILENCE.checked_sub(Duration::from_nanos(silent))?;
        (self.received < self.wanted).then_some(left)
    }

    fn run(mut self) -> Run {
        self.latencies_us.sort_unstable();
        let at = |per_mille: usize| {
            let last = self.latencies_us.len().checked_sub(1)?;
            self.latencies_us.get(last * per_mille / 1000).copied()
        };
        let latency = at(500).zip(at(990)).zip(at(999));
        let sum = |sign: i64| self.due.iter().map(|due| (due * sign).max(0)).sum::<i64>() as u64;
        Run {
            expected: self.wanted,
            received: self.received,
            missing: sum(1),
            surplus: sum(-1),
            latency: latency.map(|((p50_us, p99_us), p999_us)| Latency { p50_us, p99_us, p999_us }),
            ..Run::default()
        }
    }
}

fn enough_files(clients: usize) -> Result<()> {
    let wanted = clients as u64 + OTHER_FILES;
    let limit = file_limit().unwrap_or(u64::MAX);
    ensure!(
        wanted <= limit,
        "{clients} connections need {wanted} open files, and the limit is {limit}: raise it by \
         `ulimit -n {wanted}`, or take fewer (--connections, --connects)"
    );
    Ok(())
}

/// Where the servers of one run keep what they write.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let name = format!("peers-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("{}", path.display()))?;
        Ok(Self(path))
    }

    fn remove(self) {
        // Leaving it behind does no harm.
        let _ = std::fs::remove_dir_all(self.0);
    }
}
