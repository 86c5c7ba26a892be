//! What the cores want sent, collected in order while an event is handled.
use std::sync::Arc;

use super::audience::Gateways;
use crate::protocol::ids::Incarnation;
use crate::protocol::peer::{Lane, PeerFrame};

/// A frame on its way; one of the receivers may be the sender itself.
#[derive(Debug)]
pub struct Sending {
    /// To whom.
    pub to: Gateways,
    /// On which lane.
    pub lane: Lane,
    /// What.
    pub frame: PeerFrame,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Out {
    /// In order.
    pub sends: Vec<Sending>,
    /// This node has become the learner of nothing: it has all that it will own.
    pub caught_up: bool,
}

impl Out {
    /// Sends a frame to one node.
    pub fn send(&mut self, to: Incarnation, lane: Lane, frame: PeerFrame) {
        self.sends.push(Sending { to: [to].into_iter().collect(), lane, frame });
    }

    /// Sends a frame to several nodes; nothing if there are none.
    pub fn send_all(&mut self, to: &[Incarnation], lane: Lane, frame: PeerFrame) {
        if !to.is_empty() {
            self.sends.push(Sending { to: to.iter().copied().collect(), lane, frame });
        }
    }
}

/// The cluster as the slots need it; replaced as a whole when membership changes.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// All nodes that are alive, members of the view or not, this one included; sorted.
    pub live: Vec<Incarnation>,
    /// The view's members; sorted.
    pub members: Vec<Incarnation>,
    /// Nodes that want to enter the view; sorted.
    pub joining: Vec<Incarnation>,
    /// Where slots belong.
    pub placement: Arc<super::placement::Placement>,
    /// Where they will belong with all of `joining` in the view.
    pub planned: Arc<super::placement::Placement>,
    /// How many nodes must hold what this node acknowledges, itself included; 0 = it may neither
    /// acknowledge nor claim.
    pub required: usize,
}

impl World {
    /// Whether a node is alive.
    pub fn lives(&self, node: Incarnation) -> bool {
        self.live.binary_search(&node).is_ok()
    }
}
