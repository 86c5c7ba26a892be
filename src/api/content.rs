//! What a caller wants published, checked once and shared by all channels that it goes to.
use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::error::ApiError;
use super::words;
use crate::protocol::message::{DATA_BYTES_MAX, Message, TAG_BYTES_MAX};
use crate::protocol::time::WallClock;

/// Tags of a publication: they travel with every copy of it.
const TAGS_MAX: usize = 32;
/// Bytes of an idempotency key: a UUID with a prefix, several times over.
const KEY_BYTES_MAX: usize = 255;

/// The parts of `publish` and `broadcast` that don't name channels.
pub(super) struct Content {
    pub(super) data: Option<Box<RawValue>>,
    pub(super) b64data: Option<String>,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) skip_history: bool,
    pub(super) idempotency_key: Option<String>,
}

impl Content {
    /// The message and its idempotency key, if they are within the limits.
    pub(super) fn into_message(
        self,
        wall: WallClock,
    ) -> Result<(Arc<Message>, Option<Arc<str>>), ApiError> {
        let key = self.idempotency_key.filter(|key| !key.is_empty());
        if let Some(length) = key.as_ref().map(String::len).filter(|len| *len > KEY_BYTES_MAX) {
            return Err(ApiError::LimitExceeded(format!(
                "`idempotency_key` has {length} bytes; at most {KEY_BYTES_MAX} are allowed"
            )));
        }
        let data = match (self.b64data.filter(|text| !text.is_empty()), self.data) {
            (Some(text), _) => from_base64(&text)?,
            (None, Some(data)) => on_one_line(&data),
            (None, None) => return Err(ApiError::BadRequest("`data` is missing".to_owned())),
        };
        if data.len() > DATA_BYTES_MAX {
            let length = data.len();
            return Err(ApiError::LimitExceeded(format!(
                "`data` has {length} bytes; at most {DATA_BYTES_MAX} are allowed"
            )));
        }
        let tag_bytes: usize = self.tags.iter().map(|(key, value)| key.len() + value.len()).sum();
        if self.tags.len() > TAGS_MAX || tag_bytes > TAG_BYTES_MAX {
            return Err(ApiError::LimitExceeded(format!(
                "at most {TAGS_MAX} tags of together {TAG_BYTES_MAX} bytes are allowed"
            )));
        }
        // For display in clients only.
        let time_ms = u64::try_from(wall().as_millis()).unwrap_or(u64::MAX);
        let message = Message { data, info: None, tags: self.tags, time_ms };
        Ok((Arc::new(message), key.map(Arc::from)))
    }
}

impl From<words::Publish> for Content {
    fn from(call: words::Publish) -> Self {
        let words::Publish { channel: _, data, b64data, tags, skip_history, idempotency_key } =
            call;
        Self { data, b64data, tags, skip_history, idempotency_key }
    }
}

impl From<words::Broadcast> for Content {
    fn from(call: words::Broadcast) -> Self {
        let words::Broadcast { channels: _, data, b64data, tags, skip_history, idempotency_key } =
            call;
        Self { data, b64data, tags, skip_history, idempotency_key }
    }
}

/// Payloads in base64 are for binary clients; JSON ones get every payload inside a JSON frame, so
/// only JSON may be in it.
fn from_base64(text: &str) -> Result<Bytes, ApiError> {
    let bytes = STANDARD
        .decode(text)
        .map_err(|_| ApiError::BadRequest("`b64data` is not base64".to_owned()))?;
    let json: Box<RawValue> = serde_json::from_slice(&bytes).map_err(|_| {
        ApiError::NotAvailable("`b64data` must hold JSON: other payloads are not served".to_owned())
    })?;
    Ok(on_one_line(&json))
}

/// JSON frames to clients end at line breaks, which in JSON text are never more than white space.
pub(super) fn on_one_line(json: &RawValue) -> Bytes {
    let text = json.get();
    if text.contains(['\n', '\r']) {
        Bytes::from(text.replace(['\n', '\r'], " "))
    } else {
        Bytes::copy_from_slice(text.as_bytes())
    }
}
