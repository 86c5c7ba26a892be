//! What happened to the nodes of a run and when: what a report of it is drawn from. Kept in every run,
//! so that one with a report is the same run as one without.
use std::cell::{Ref, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use orbweb::api::{NodeFacts, NodeReport, NodeState, ServingState};
use orbweb::protocol::peer::SlotRange;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::clock::now_ms;
use super::conditions::Conditions;
use super::trace::Trace;
use super::{Nodes, setup};

/// Between two looks at what a node says of itself.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// What a node says of itself, in short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Health {
    pub(crate) state: NodeState,
    pub(crate) serving: ServingState,
    /// Slots that it is to own and does not yet.
    pub(crate) claiming: u32,
    /// Slots that it owns with too few copies.
    pub(crate) short: u32,
}

impl From<&NodeReport> for Health {
    fn from(report: &NodeReport) -> Self {
        Self {
            state: report.state,
            serving: report.serving,
            claiming: report.slots_claiming,
            short: report.slots_under_replicated,
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) enum Mark {
    Started(usize),
    /// Its machine lost its power.
    Killed(usize),
    Leaves(usize),
    Left(usize),
    /// It says something new of itself.
    Says(usize, Health),
    /// It owns other slots than before.
    Owns(usize, Vec<SlotRange>),
    /// The network changed.
    Conditions(Conditions),
    ClientsCut,
    /// A step of a plan, by number.
    Began(usize, String),
    Over(usize),
    /// For people.
    Note(String),
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(node) => write!(f, "{} started", setup::name(*node)),
            Self::Killed(node) => write!(f, "{} lost its power", setup::name(*node)),
            Self::Leaves(node) => write!(f, "{} leaves", setup::name(*node)),
            Self::Left(node) => write!(f, "{} left", setup::name(*node)),
            Self::Says(node, health) => {
                let Health { state, serving, claiming, short } = health;
                let node = setup::name(*node);
                write!(
                    f,
                    "{node} is {state}, serves {serving:?}, claims {claiming}, lacks copies of {short}"
                )
            }
            Self::Owns(node, ranges) => {
                let slots: u32 = ranges.iter().map(|r| u32::from(r.last.0 - r.first.0) + 1).sum();
                write!(f, "{} owns {slots}", setup::name(*node))
            }
            Self::Conditions(Conditions { weather, cuts, slow, still, stopped }) => {
                write!(f, "{weather:?}, cut: {cuts:?}, slow: {slow:?}, still: {still:?}, ")?;
                write!(f, "stopped: {stopped:?}")
            }
            Self::ClientsCut => f.write_str("all clients are cut off"),
            Self::Began(step, what) => write!(f, "step {step}: {what}"),
            Self::Over(step) => write!(f, "step {step} is over"),
            Self::Note(note) => f.write_str(note),
        }
    }
}

/// Each mark with its millisecond, in order; shared by all that tell.
#[derive(Clone, Default)]
pub(crate) struct Story(Rc<RefCell<Vec<(u64, Mark)>>>);

impl Story {
    pub(crate) fn tell(&self, mark: Mark) {
        self.0.borrow_mut().push((now_ms(), mark));
    }

    pub(crate) fn marks(&self) -> Ref<'_, [(u64, Mark)]> {
        Ref::map(self.0.borrow(), Vec::as_slice)
    }
}

/// Tells what a node says of itself, and which slots it owns, whenever that changes, until it is gone.
pub(super) async fn watch(
    (node, nodes): (usize, Nodes),
    facts: Arc<dyn NodeFacts>,
    gone: CancellationToken,
    (trace, story): (Trace, Story),
) {
    let (mut said, mut owned) = (String::new(), Vec::new());
    while gone.run_until_cancelled(sleep(WATCH_EVERY)).await.is_some() {
        let report = facts.report();
        let says = format!(
            "node {} is {}, serves {:?}, owns {}, claims {}, lacks copies of {}, has {} links, view {}",
            setup::name(node),
            report.state,
            report.serving,
            report.slots_owned,
            report.slots_claiming,
            report.slots_under_replicated,
            report.links,
            report.view_hash
        );
        if says != said {
            trace.tell(&says);
            story.tell(Mark::Says(node, Health::from(&report)));
            said = says;
        }
        // One that leaves is no longer among them, and owns what it did until others do.
        let owns = nodes.borrow().get(&node).map(orbweb::node::Node::owned);
        if let Some(owns) = owns.filter(|owns| *owns != owned) {
            story.tell(Mark::Owns(node, owns.clone()));
            owned = owns;
        }
    }
}
