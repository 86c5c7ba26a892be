//! The WebSocket codec against tungstenite in both directions, and against frames by hand.
use std::io::{Cursor, Read, Write};

use proptest::prelude::*;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use super::*;

/// Owned form of what came in.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(u16),
}

fn own(incoming: Incoming<'_>) -> Got {
    match incoming {
        Incoming::Text(text) => Got::Text(text.to_owned()),
        Incoming::Binary(bytes) => Got::Binary(bytes.to_vec()),
        Incoming::Ping(bytes) => Got::Ping(bytes.to_vec()),
        Incoming::Pong => Got::Pong,
        Incoming::Close(code) => Got::Close(code),
    }
}

fn read_in(pieces: &[&[u8]]) -> Result<Vec<Got>, WsError> {
    let mut decoder = Decoder::default();
    let mut got = Vec::new();
    for piece in pieces {
        decoder.feed(&mut piece.to_vec(), |incoming| {
            got.push(own(incoming));
            Flow::Continue
        })?;
    }
    Ok(got)
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        middle @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    frame
}

/// A stream that a tungstenite client writes to and reads from.
#[derive(Default)]
struct Wire {
    written: Vec<u8>,
    to_read: Cursor<Vec<u8>>,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.to_read.read(buffer)? {
            0 => Err(std::io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.written.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn tungstenite_client(to_read: Vec<u8>) -> WebSocket<Wire> {
    let wire = Wire { to_read: Cursor::new(to_read), ..Wire::default() };
    WebSocket::from_raw_socket(wire, Role::Client, Some(WebSocketConfig::default()))
}

fn any_message() -> impl Strategy<Value = Message> {
    let sizes = prop_oneof![0..200usize, 0..70_000usize, Just(125), Just(126), Just(65_535)];
    prop_oneof![
        3 => ".{0,60}".prop_map(Message::text),
        1 => sizes.prop_map(|n| Message::binary(vec![n as u8; n.min(MESSAGE_BYTES_MAX)])),
        1 => prop::collection::vec(any::<u8>(), 0..=125).prop_map(|b| Message::Ping(b.into())),
        1 => Just(Message::Pong(Bytes::new())),
    ]
}

fn expected(message: &Message) -> Got {
    match message {
        Message::Text(text) => Got::Text(text.as_str().to_owned()),
        Message::Binary(bytes) => Got::Binary(bytes.to_vec()),
        Message::Ping(bytes) => Got::Ping(bytes.to_vec()),
        Message::Pong(_) => Got::Pong,
        other => panic!("not generated: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn reads_what_tungstenite_writes_however_it_is_cut(
        messages in prop::collection::vec(any_message(), 1..8),
        cuts in prop::collection::vec(1..5000usize, 1..6),
    ) {
        let mut client = tungstenite_client(Vec::new());
        for message in &messages {
            client.send(message.clone()).expect("an unbounded wire");
        }
        let written = &client.get_ref().written;
        let (mut pieces, mut at) = (Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let end = (at + cut).min(written.len());
            pieces.push(&written[at..end]);
            at = end;
            if at == written.len() { break }
        }
        let wanted: Vec<Got> = messages.iter().map(expected).collect();
        prop_assert_eq!(read_in(&pieces).expect("valid frames"), wanted);
    }

    #[test]
    fn tungstenite_reads_what_we_write(text_payload in ".{0,3000}", ping in prop::collection::vec(any::<u8>(), 0..=125)) {
        let mut wire = text(text_payload.as_bytes()).to_vec();
        wire.extend(pong(&ping));
        wire.extend(close(3012, "no pong"));
        let mut client = tungstenite_client(wire);
        prop_assert_eq!(client.read().expect("text"), Message::text(text_payload));
        prop_assert_eq!(client.read().expect("pong"), Message::Pong(ping.into()));
        let Message::Close(Some(frame)) = client.read().expect("close") else { panic!("no close") };
        prop_assert_eq!(u16::from(frame.code), 3012);
        prop_assert_eq!(frame.reason.as_str(), "no pong");
    }

    #[test]
    fn noise_never_panics_and_holds_little(noise in prop::collection::vec(any::<u8>(), 0..4000)) {
        let mut decoder = Decoder::default();
        for piece in noise.chunks(37) {
            if decoder.feed(&mut piece.to_vec(), |_| Flow::Continue).is_err() { break }
        }
        prop_assert!(decoder.held() <= 2 * 4000);
    }
}

#[test]
fn fragments_make_one_message_with_control_frames_between() {
    let frames = [
        masked(0x01, "sch\u{f6}n".as_bytes().get(..4).expect("inside the o umlaut")),
        masked(0x89, b"hi"),
        masked(0x00, &"sch\u{f6}n".as_bytes()[4..]),
        masked(0x80, b"!"),
    ]
    .concat();
    let got = read_in(&[&frames]).expect("valid");
    assert_eq!(got, [Got::Ping(b"hi".to_vec()), Got::Text("sch\u{f6}n!".into())]);
}

#[test]
fn framing_rules() {
    let broken: [(&str, Vec<u8>); 11] = [
        ("unmasked", vec![0x81, 0x00]),
        ("reserved bit", masked(0xc1, b"")),
        ("unknown opcode", masked(0x83, b"")),
        ("unknown control", masked(0x8b, b"")),
        ("fragmented ping", masked(0x09, b"")),
        ("long ping", masked(0x89, &[0; 126])),
        ("continuation of nothing", masked(0x80, b"")),
        ("text in text", [masked(0x01, b"a"), masked(0x81, b"b")].concat()),
        ("long form of a short length", vec![0x81, 0xfe, 0, 5]),
        ("one byte of close code", masked(0x88, &[3])),
        ("close code 1005", masked(0x88, &1005u16.to_be_bytes())),
    ];
    for (name, frame) in broken {
        let error = read_in(&[&frame]).expect_err(name);
        assert_eq!(error.code(), 1002, "{name}: {error}");
    }
}

#[test]
fn text_must_be_utf8() {
    assert_eq!(read_in(&[&masked(0x81, &[0xff])]), Err(WsError::NotUtf8));
    let reason = [&4000u16.to_be_bytes()[..], &[0xff]].concat();
    assert_eq!(read_in(&[&masked(0x88, &reason)]), Err(WsError::NotUtf8));
}

#[test]
fn size_limits_hold_before_the_bytes_arrive() {
    let most = masked(0x81, &vec![b'x'; MESSAGE_BYTES_MAX]);
    assert_eq!(read_in(&[&most]).expect("the most allowed").len(), 1);
    let over = (MESSAGE_BYTES_MAX as u64 + 1).to_be_bytes();
    let header = [&[0x81, 0xff][..], &over].concat();
    assert_eq!(read_in(&[&header]), Err(WsError::TooBig), "of {} bytes", header.len());
    let half = vec![b'x'; MESSAGE_BYTES_MAX / 2 + 1];
    let fragments = [masked(0x01, &half), masked(0x80, &half)].concat();
    assert_eq!(read_in(&[&fragments]), Err(WsError::TooBig));
    let mut empty = masked(0x01, b"");
    for _ in 0..FRAGMENTS_MAX {
        empty.extend(masked(0x00, b""));
    }
    assert_eq!(read_in(&[&empty]), Err(WsError::TooBig));
}

#[test]
fn nothing_is_read_behind_a_close() {
    let frames = [masked(0x88, &1000u16.to_be_bytes()), masked(0x81, b"late")].concat();
    assert_eq!(read_in(&[&frames]), Ok(vec![Got::Close(1000)]));
    assert_eq!(read_in(&[&masked(0x88, b"")]), Ok(vec![Got::Close(1005)]));
}

#[test]
fn long_reasons_are_cut_at_a_character() {
    let frame = close(4000, &"\u{f6}".repeat(100));
    assert!(frame.len() <= 2 + CONTROL_BYTES_MAX);
    assert!(std::str::from_utf8(&frame[4..]).is_ok());
    assert_eq!(&close(3001, "shutdown")[4..], b"shutdown");
}

#[test]
fn nothing_is_held_between_messages() {
    let mut decoder = Decoder::default();
    let mut frame = masked(0x81, &[b'x'; 5000]);
    let (head, tail) = frame.split_at_mut(1000);
    decoder.feed(head, |_| panic!("not complete")).expect("valid");
    assert!(decoder.held() >= 1000);
    decoder.feed(tail, |_| Flow::Continue).expect("valid");
    assert_eq!(decoder.held(), 0);
}
