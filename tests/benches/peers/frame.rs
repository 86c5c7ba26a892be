//! WebSocket frames of a client, and the stamp by which a delivery is known in whatever a system
//! wraps around it.
use memchr::memmem::Finder;

const MARK: &[u8] = b"~owb~";
/// The mark, the number of the phase and a time in nanoseconds, both in hexadecimal.
pub(crate) const STAMP_BYTES: usize = 5 + 4 + 16;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What a frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Opcode {
    Text = 1,
    Binary = 2,
}

/// What a stamp says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    /// The part of a run that it belongs to.
    pub(crate) phase: u16,
    /// When it was due, in nanoseconds of the generator's clock.
    pub(crate) due_ns: u64,
}

impl Stamp {
    /// Data of this many bytes with the stamp in it: a JSON string.
    pub(crate) fn data(self, bytes: usize) -> Vec<u8> {
        let stamp = format!("\"~owb~{:04x}{:016x}", self.phase, self.due_ns);
        let mut data = stamp.into_bytes();
        data.resize(bytes - 1, b'x');
        data.push(b'"');
        data
    }
}

/// Finds stamps in what is read.
pub(crate) struct Stamps {
    finder: Finder<'static>,
}

impl Stamps {
    pub(crate) fn new() -> Self {
        Self { finder: Finder::new(MARK) }
    }

    /// Tells each whole stamp; returns how many bytes at the end may be the beginning of one.
    pub(crate) fn each(&self, read: &[u8], mut tell: impl FnMut(Stamp)) -> usize {
        let mut from = 0;
        while let Some(found) = self.finder.find(&read[from..]) {
            let begin = from + found;
            let Some(stamp) = read.get(begin..begin + STAMP_BYTES) else {
                return read.len() - begin;
            };
            let (phase, due) = stamp[MARK.len()..].split_at(4);
            if let (Some(phase), Some(due_ns)) = (hexadecimal(phase), hexadecimal(due)) {
                tell(Stamp { phase: phase as u16, due_ns });
            }
            from = begin + STAMP_BYTES;
        }
        (read.len() - from).min(MARK.len() - 1)
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// A masked frame, whole and final, as clients send them.
pub(crate) fn client_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    head(&mut frame, opcode, 0x80, payload.len());
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A frame as servers send them.
pub(crate) fn server_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    head(&mut frame, Opcode::Text, 0, payload.len());
    frame.extend_from_slice(payload);
    frame
}

fn head(frame: &mut Vec<u8>, opcode: Opcode, masked: u8, length: usize) {
    frame.push(0x80 | opcode as u8);
    match length {
        0..=125 => frame.push(masked | length as u8),
        126..=0xffff => {
            frame.push(masked | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            frame.push(masked | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// The request that makes a connection a WebSocket. Its key is always the same: the answer's isn't
/// looked at.
pub(crate) fn upgrade(path: &str, protocol: Option<&str>) -> Vec<u8> {
    let protocol = protocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
    format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{}\r\n",
        protocol.unwrap_or_default()
    )
    .into_bytes()
}
