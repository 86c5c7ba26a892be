//! Lines of a stream that parted and are one again: what gateways hand on, and what their clients
//! are told of where they stand.
use super::*;

#[test]
fn what_was_seen_before_a_split_does_not_come_again_behind_what_the_other_side_took() {
    for meets in [true, false] {
        let mut mesh = Mesh::with_copies(1);
        let [owner, successor, gateway] = mesh.roles();
        mesh.attach(gateway, 1);
        ["1", "2", "3"].into_iter().for_each(|data| mesh.publish(owner, data));
        // Who takes the slot over knows nothing of that, and begins the stream anew. The gateway asks it
        // for what came between, or doesn't meet it before the first owner is back.
        let mut out = vec![owner];
        out.extend((!meets).then_some(gateway));
        let cores = out.iter().map(|node| (*node, mesh.cores.remove(node).expect("a node")));
        let cores: Vec<_> = cores.collect();
        let left: Vec<Incarnation> = mesh.cores.keys().copied().collect();
        mesh.see(&left);
        mesh.run(1_000);
        mesh.publish(successor, "4");
        mesh.cores.extend(cores);
        mesh.see(&[owner, successor, gateway]);
        mesh.run(2_000);
        let heard = |mesh: &mut Mesh| {
            let heard = std::mem::take(&mut mesh.heard).into_iter();
            heard.map(|(_, _, text)| text).collect::<Vec<_>>()
        };
        assert_eq!(heard(&mut mesh), ["1", "2", "3", "4"], "{meets}");
        assert_eq!(mesh.history(owner), Ok(4));
        let reached = std::mem::take(&mut mesh.reached);
        assert!(matches!(reached[..], [Position { offset: 4, .. }]), "{reached:?}");
        let turns = std::mem::take(&mut mesh.turns);
        assert_eq!(turns, 1, "to the line of the other side");
        mesh.publish(owner, "5");
        assert_eq!((heard(&mut mesh), mesh.turns), (vec!["5".to_owned()], 1), "and from it");
        mesh.publish(owner, "6");
        assert_eq!((heard(&mut mesh), mesh.turns), (vec!["6".to_owned()], 1));
    }
}
