//! JSON written field by field, leaving out what is empty or zero, as the protocol does.
//! Payloads go out as they came in, so nothing is parsed again.
use crate::protocol::message::ClientInfo;

/// An object being written.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    pub(super) fn close(self) {
        self.out.push(b'}');
    }

    /// Starts a field whose value the caller writes.
    pub(super) fn field(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Starts a field whose name comes from outside and may need escapes.
    fn foreign(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        text(self.out, name);
        self.out.push(b':');
        self.out
    }

    /// A nested object under a name from outside.
    pub(super) fn named(&mut self, name: &str, write: impl FnOnce(&mut Object<'_>)) {
        object(self.foreign(name), write);
    }

    /// A text, even an empty one, under a name from outside.
    pub(super) fn named_text(&mut self, name: &str, value: &str) {
        text(self.foreign(name), value);
    }

    /// A nested object.
    pub(super) fn object(&mut self, name: &str, write: impl FnOnce(&mut Object<'_>)) {
        object(self.field(name), write);
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            text(self.field(name), value);
        }
    }

    pub(super) fn number(&mut self, name: &str, value: u64) {
        if value != 0 {
            number(self.field(name), value);
        }
    }

    pub(super) fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.field(name).extend_from_slice(b"true");
        }
    }

    /// A value that is JSON already.
    pub(super) fn raw(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            raw(self.field(name), value);
        }
    }

    pub(super) fn display(&mut self, name: &str, value: impl std::fmt::Display) {
        use std::io::Write as _;
        let out = self.field(name);
        // Only for identifiers without characters that need escapes; a Vec takes all.
        let written = write!(out, "\"{value}\"");
        debug_assert!(written.is_ok(), "a Vec refused bytes");
    }

    pub(super) fn info(&mut self, name: &str, info: &ClientInfo) {
        self.object(name, |object| client_info(object, info));
    }
}

/// Writes one object.
pub(super) fn object(out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    let mut object = Object::open(out);
    write(&mut object);
    object.close();
}

/// Writes an array.
pub(super) fn array<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (n, item) in items.into_iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

pub(super) fn client_info(object: &mut Object<'_>, info: &ClientInfo) {
    object.text("user", &info.user);
    object.display("client", info.client);
    object.raw("conn_info", &info.conn_info);
    object.raw("chan_info", &info.chan_info);
}

pub(super) fn text(out: &mut Vec<u8>, value: &str) {
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok(), "a Vec refused bytes");
}

fn number(out: &mut Vec<u8>, value: u64) {
    use std::io::Write as _;
    let written = write!(out, "{value}");
    debug_assert!(written.is_ok(), "a Vec refused bytes");
}

/// Line feeds separate the messages of a frame, and in JSON they can stand only where a space can.
fn raw(out: &mut Vec<u8>, value: &[u8]) {
    let start = out.len();
    out.extend_from_slice(value);
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}
