//! From the name of a method and a JSON body to a JSON result; alone or many in a batch.
use futures_util::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeMap;

use super::Api;
use super::error::ApiError;
use super::words::{self, ResultReply};
use crate::protocol::codes::ErrorCode;

/// Commands of one batch: as many as channels of one broadcast.
pub const BATCH_COMMANDS_MAX: usize = super::channels::BROADCAST_CHANNELS_MAX;
/// The methods served; others count as `unknown` in the metrics.
const METHODS: [&str; 14] = [
    "publish",
    "broadcast",
    "presence",
    "presence_stats",
    "history",
    "subscribe",
    "unsubscribe",
    "session_set",
    "session_get",
    "session_delete",
    "user_status",
    "info",
    "status",
    "owner",
];

/// Replies of a batch, one a command: an object of one field, the method's name or `error`.
#[derive(Serialize)]
struct BatchReply {
    replies: Vec<BTreeMap<String, Box<RawValue>>>,
}

impl Api {
    /// Calls a method and wraps its result as a reply.
    pub(super) async fn reply(&self, method: &str, body: &[u8]) -> Result<Box<RawValue>, ApiError> {
        if method == "batch" {
            return self.batch(read(body)?).await;
        }
        Ok(raw(&ResultReply { result: self.call(method, body).await? }))
    }

    /// Calls a method and counts the call.
    async fn call(&self, method: &str, body: &[u8]) -> Result<Box<RawValue>, ApiError> {
        let result = self.dispatch(method, body).await;
        let known = METHODS.iter().find(|known| **known == method).unwrap_or(&"unknown");
        self.metrics.count(known, result.as_ref().err().map_or(0, |error| error.code().code()));
        result
    }

    async fn dispatch(&self, method: &str, body: &[u8]) -> Result<Box<RawValue>, ApiError> {
        match method {
            "publish" => self.publish(read(body)?).await.map(|it| raw(&it)),
            "broadcast" => self.broadcast(read(body)?).await.map(|it| raw(&it)),
            "presence" => self.presence(read(body)?).await.map(|it| raw(&it)),
            "presence_stats" => self.presence_stats(read(body)?).await.map(|it| raw(&it)),
            "history" => self.history(read(body)?).await.map(|it| raw(&it)),
            "subscribe" => self.subscribe(read(body)?).await.map(|it| raw(&it)),
            "unsubscribe" => self.unsubscribe(read(body)?).await.map(|it| raw(&it)),
            "session_set" => self.session_set(read(body)?).await.map(|it| raw(&it)),
            "session_get" => self.session_get(read(body)?).await.map(|it| raw(&it)),
            "session_delete" => self.session_delete(read(body)?).await.map(|it| raw(&it)),
            "user_status" => self.user_status(read(body)?).await.map(|it| raw(&it)),
            "info" => self.info(read(body)?).await.map(|it| raw(&it)),
            "status" => self.status(read(body)?).await.map(|it| raw(&it)),
            "owner" => self.owner(read(body)?).await.map(|it| raw(&it)),
            other => Err(ApiError::MethodNotFound(other.chars().take(64).collect())),
        }
    }

    async fn batch(&self, batch: words::Batch) -> Result<Box<RawValue>, ApiError> {
        let given = batch.commands.len();
        if given > BATCH_COMMANDS_MAX {
            return Err(ApiError::LimitExceeded(format!(
                "{given} commands; at most {BATCH_COMMANDS_MAX} are allowed"
            )));
        }
        let mut replies = Vec::with_capacity(given);
        if batch.parallel {
            replies = join_all(batch.commands.iter().map(|command| self.command(command))).await;
        } else {
            for command in &batch.commands {
                replies.push(self.command(command).await);
            }
        }
        Ok(raw(&BatchReply { replies }))
    }

    async fn command(
        &self,
        command: &BTreeMap<String, Box<RawValue>>,
    ) -> BTreeMap<String, Box<RawValue>> {
        let mut fields = command.iter();
        let result = match (fields.next(), fields.next()) {
            (Some((method, body)), None) => {
                let result = self.call(method, body.get().as_bytes()).await;
                result.map(|result| (method.clone(), result))
            }
            _ => Err(ApiError::BadRequest("a command is an object of one field".to_owned())),
        };
        let error = |error: ApiError| ("error".to_owned(), raw(&error.body()));
        BTreeMap::from([result.unwrap_or_else(error)])
    }
}

/// Reads what a method takes; an empty body is an empty object.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        if error.is_data() {
            ApiError::BadRequest(error.to_string())
        } else {
            ApiError::Malformed(format!("the body is not JSON: {error}"))
        }
    })
}

fn raw<T: Serialize>(value: &T) -> Box<RawValue> {
    to_raw_value(value).unwrap_or_else(|error| {
        // Our own types have text keys and no failing fields.
        tracing::error!(code = ErrorCode::Internal.code(), %error, "api.result.unserialisable");
        RawValue::NULL.to_owned()
    })
}
