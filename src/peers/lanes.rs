//! The streams of a link: four long-lived ones each way (its own, control, data, bulk), so that
//! neither a backlog nor a snapshot nor a slow core delays gossip or a ping. Runs a link from the
//! moment that both hellos were accepted to its last event; one that is stuck blocks nobody else.
use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use tokio::task::JoinSet;

use super::frames::{FrameError, FrameReader, LANE_BYTES_MAX, LaneFrame, decode};
use super::link::{Link, LinkEnd};
use super::outbox::{Bounds, Outbox};
use super::{Mesh, PeerEvent};
use crate::protocol::ids::Incarnation;
use crate::protocol::link::{CloseCode, LinkFrame};
use crate::protocol::peer::{Lane, PeerFrame};

/// The lanes and the first byte of their streams; [`LINK_STREAM`] is the link's own.
pub(super) const LANES: [(Lane, u8, Bounds); 3] = [
    (Lane::Control, 1, Bounds::CONTROL),
    (Lane::Data, 2, Bounds::DATA),
    (Lane::Bulk, 3, Bounds::BULK),
];
/// First byte of the link's own stream.
pub(super) const LINK_STREAM: u8 = 0;

/// The streams over which the hellos went.
pub(super) struct OwnStream {
    pub(super) send: SendStream,
    pub(super) receive: FrameReader,
}

/// Runs a link to its end. `before` is the link before it to the same name: its `Down` comes before
/// our `Up`.
pub(super) async fn run(
    mesh: Arc<Mesh>,
    link: Arc<Link>,
    own: OwnStream,
    before: Option<Arc<Link>>,
) {
    let mut tasks = JoinSet::new();
    let writer = link.clone();
    tasks.spawn(async move { write(&writer, &writer.own, own.send).await });
    tasks.spawn(read_own(mesh.clone(), link.clone(), own.receive));
    let up = PeerEvent::Up { id: link.id.clone(), address: link.address, url: link.url.clone() };
    let told = tokio::select! {
        told = announce(&mesh, before.as_deref(), up) => told,
        _ = link.connection.closed() => false,
    };
    let why = if told {
        tracing::info!(peer = %link.id, address = %link.address, dialled = link.dialled, "link.up");
        tasks.spawn(write_lanes(link.clone()));
        tasks.spawn(accept_lanes(mesh.clone(), link.clone()));
        first_end(&mut tasks, &link).await
    } else {
        LinkEnd::Closed
    };
    let why = link.given_up().cloned().unwrap_or(why);
    if let LinkEnd::Invalid(error) = &why {
        tracing::warn!(peer = %link.id, error, "link.invalid");
        link.close(CloseCode::Invalid);
    } else {
        link.close(CloseCode::Shutdown);
    }
    tasks.shutdown().await;
    mesh.registry.remove(&link);
    if told {
        tracing::info!(peer = %link.id, %why, "link.down");
        let down = PeerEvent::Down { id: link.id.clone(), why };
        mesh.event(down).await;
    }
    end_of(before.as_deref()).await; // it may still wait if this link never got to a word
    mesh.registry.forget(&link);
    link.ended.cancel();
}

async fn announce(mesh: &Mesh, before: Option<&Link>, up: PeerEvent) -> bool {
    end_of(before).await;
    mesh.event(up).await
}

async fn end_of(before: Option<&Link>) {
    if let Some(before) = before {
        before.ended.cancelled().await;
    }
}

/// The first reason to end; the connection's own reason if it has one.
async fn first_end(tasks: &mut JoinSet<Result<(), LinkEnd>>, link: &Link) -> LinkEnd {
    loop {
        let end = match tasks.join_next().await {
            Some(Ok(Ok(()))) => continue,
            Some(Ok(Err(end))) => end,
            Some(Err(error)) => LinkEnd::Lost(error.to_string()),
            None => LinkEnd::Lost("no stream is left".to_owned()),
        };
        return match (end, link.connection.close_reason()) {
            (LinkEnd::Lost(_), Some(reason)) => reason.into(),
            (end, _) => end,
        };
    }
}

async fn write(link: &Link, outbox: &Outbox, mut stream: SendStream) -> Result<(), LinkEnd> {
    loop {
        let (mut chunks, frames) = outbox.drain().await;
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        stream.write_all_chunks(&mut chunks).await?;
        link.counters.sent_frames.add(frames as u64);
        link.counters.sent_bytes.add(bytes as u64);
    }
}

/// Opens a stream whose first byte says what it carries. Control before data before bulk.
pub(super) async fn open(connection: &Connection, kind: u8) -> Result<SendStream, LinkEnd> {
    let mut stream = connection.open_uni().await?;
    let priority = 10 * (LANES.len() as i32 - i32::from(kind));
    stream.set_priority(priority).map_err(|e| LinkEnd::Lost(e.to_string()))?;
    stream.write_all(&[kind]).await?;
    Ok(stream)
}

async fn write_lanes(link: Arc<Link>) -> Result<(), LinkEnd> {
    let mut writers = JoinSet::new();
    for (lane, (_, kind, _)) in LANES.into_iter().enumerate() {
        let stream = open(&link.connection, kind).await?;
        let link = link.clone();
        writers.spawn(async move { write(&link, &link.lanes[lane], stream).await });
    }
    Err(first_end(&mut writers, &link).await)
}

/// Reads each lane in its own task: one whose frames wait for a core holds up no other.
async fn accept_lanes(mesh: Arc<Mesh>, link: Arc<Link>) -> Result<(), LinkEnd> {
    let mut readers = JoinSet::new();
    let mut seen = [false; LANES.len()];
    loop {
        tokio::select! {
            stream = link.connection.accept_uni() => {
                let mut stream = stream?;
                let kind = first_byte(&mut stream).await?;
                let Some(index) = LANES.iter().position(|(_, k, _)| *k == kind) else {
                    continue; // a kind of a later version: dropping the stream stops it
                };
                if std::mem::replace(&mut seen[index], true) {
                    return Err(LinkEnd::Invalid(format!("a second stream of kind {kind}")));
                }
                readers.spawn(read_lane(mesh.clone(), link.clone(), LANES[index].0, stream));
            }
            end = first_end(&mut readers, &link), if !readers.is_empty() => return Err(end),
        }
    }
}

pub(super) async fn first_byte(stream: &mut RecvStream) -> Result<u8, FrameError> {
    let mut byte = [0];
    match stream.read(&mut byte).await? {
        Some(_) => Ok(byte[0]),
        None => Err(FrameError::Ended),
    }
}

async fn read_lane(
    mesh: Arc<Mesh>,
    link: Arc<Link>,
    lane: Lane,
    stream: RecvStream,
) -> Result<(), LinkEnd> {
    let mut reader = FrameReader::new(stream, LANE_BYTES_MAX);
    let mut contents = Vec::new();
    loop {
        reader.batch(&mut contents).await?;
        link.received(&contents);
        let mut direct = Vec::with_capacity(contents.len());
        let mut relayed: Vec<(Incarnation, Vec<PeerFrame>)> = Vec::new();
        for content in contents.drain(..) {
            match LaneFrame::read(content)? {
                LaneFrame::Direct(frame) => direct.push(frame),
                LaneFrame::Relay { to, origin, frame } if to == mesh.me() => {
                    let frame = decode(&frame)?;
                    match relayed.iter_mut().find(|(from, _)| *from == origin) {
                        Some((_, frames)) => frames.push(frame),
                        None => relayed.push((origin, vec![frame])),
                    }
                }
                LaneFrame::Relay { to, origin, frame } => {
                    mesh.pass_on(&link, lane, to, origin, frame);
                }
            }
        }
        if !direct.is_empty() {
            mesh.event(PeerEvent::Frames { from: link.id.incarnation, frames: direct }).await;
        }
        for (from, frames) in relayed {
            mesh.event(PeerEvent::Frames { from, frames }).await;
        }
    }
}

/// Pings, pongs and gossip. Never waits for a core, so that a busy node still answers.
async fn read_own(
    mesh: Arc<Mesh>,
    link: Arc<Link>,
    mut reader: FrameReader,
) -> Result<(), LinkEnd> {
    let mut contents = Vec::new();
    loop {
        reader.batch(&mut contents).await?;
        link.received(&contents);
        for content in contents.drain(..) {
            match LinkFrame::decode(&content) {
                Ok(LinkFrame::Ping { number }) => {
                    // A pong that finds no room belongs to a link that is stuck.
                    let _ = link.push_control(&LinkFrame::Pong { number });
                }
                Ok(LinkFrame::Pong { number }) => {
                    link.pongs.send_modify(|pong| *pong = number.max(*pong));
                }
                Ok(LinkFrame::Gossip(message)) => mesh.gossip_came(link.address, message),
                Ok(LinkFrame::Hello(_) | LinkFrame::Accept(_)) => {
                    return Err(LinkEnd::Invalid("a second hello".to_owned()));
                }
                Err(error) => tracing::debug!(peer = %link.id, %error, "link.unknown_frame"),
            }
        }
    }
}
