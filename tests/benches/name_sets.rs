//! Names of nodes for the figures of the ring: used by its bench and by the tests of placements.

/// Sets of names.
pub(crate) const SETS: usize = 20;

/// Names as operators choose them, and some that they don't.
pub(crate) fn name(set: usize, node: usize) -> String {
    match set {
        0 => format!("node-{node}"),
        1 => format!("orbweb-{node}"),
        2 => format!("n{}", node + 1),
        3 => format!("node{:02}", node + 1),
        4 => format!("10.0.0.{}", node + 1),
        5 => format!("ip-172-31-{}-{}", node / 16, node * 7 % 251),
        6 => format!("eu-west-1{}-{}", ["a", "b", "c"][node % 3], node / 3),
        7 => format!("chat-{node:03}.example.org"),
        8 => format!("{:08x}", (node as u32 + 1).wrapping_mul(0x9e37_79b9)),
        9 => format!("orbweb-{}.orbweb.default.svc.cluster.local", node),
        _ => format!("set{set}-node{node}"),
    }
}
