//! Server API, health, metrics and demo page over HTTP. The composition root makes an [`Api`] and
//! serves its [`router`]; clients' connections are the gateway's, not ours.
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::config::{Channels, Config, SecretText};
use crate::delivery::event::ShardId;
use crate::delivery::mailbox::{CoreSender, ShardReceiver};
use crate::protocol::time::WallClock;

pub mod asker;
mod call;
mod channels;
mod cluster;
mod content;
mod demo;
pub mod error;
pub mod facts;
mod health;
mod key;
pub mod metrics;
pub mod report;
#[cfg(test)]
mod tests;
mod users;
mod words;

pub use asker::Asker;
pub use call::BATCH_COMMANDS_MAX;
pub use channels::{BROADCAST_CHANNELS_MAX, HISTORY_MAX};
pub use cluster::ClusterStatus;
pub use error::ApiError;
pub use facts::NodeFacts;
pub use health::Readiness;
pub use metrics::ApiMetrics;
pub use report::{Located, NodeRef, NodeReport, NodeState, ServingState};

/// Bytes of a call: room for a batch or broadcast of as many channels as are allowed.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The HTTP side of a node but for clients' connections.
pub struct Api {
    keys: Vec<SecretText>,
    channels: Channels,
    asker: Arc<Asker>,
    facts: Arc<dyn NodeFacts>,
    metrics: ApiMetrics,
    wall: WallClock,
}

impl Api {
    /// Asks `cores` in the name of `shard`.
    pub fn new(
        config: &Config,
        cores: CoreSender,
        shard: ShardId,
        facts: Arc<dyn NodeFacts>,
        metrics: ApiMetrics,
        wall: WallClock,
    ) -> Arc<Self> {
        Arc::new(Self {
            keys: config.api.keys.clone(),
            channels: config.channels.clone(),
            asker: Arc::new(Asker::new(cores, shard)),
            facts,
            metrics,
            wall,
        })
    }

    /// Completes calls as replies arrive in the mailbox of the API's shard; ends with its senders.
    /// To be spawned once.
    pub fn read_replies(
        &self,
        mailbox: ShardReceiver,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.asker.clone().read_replies(mailbox)
    }
}

/// All routes.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/api/{method}", post(method).get(lookup))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/demo", get(demo::page))
        .route("/demo/nodes", get(demo::nodes))
        .with_state(api)
}

/// `POST /api/METHOD`. The key is checked before the body is read.
async fn method(
    State(api): State<Arc<Api>>,
    Path(method): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    key::check_key(&api.keys, request.headers())?;
    let body = to_bytes(request.into_body(), BODY_BYTES_MAX).await;
    let body = body.map_err(|_| ApiError::BodyTooLong(BODY_BYTES_MAX))?;
    Ok(json(&api.reply(&method, &body).await?))
}

/// `GET /api/status` and `GET /api/owner?key=KEY`, for people.
async fn lookup(
    State(api): State<Arc<Api>>,
    Path(method): Path<String>,
    Query(query): Query<Lookup>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    key::check_key(&api.keys, &headers)?;
    let body = match (method.as_str(), query.key) {
        ("status", None) => serde_json::json!({}),
        ("owner", Some(key)) => serde_json::json!({ "key": key }),
        ("owner", None) => return Err(ApiError::BadRequest("`?key=` is missing".to_owned())),
        _ => return Ok(StatusCode::METHOD_NOT_ALLOWED.into_response()),
    };
    Ok(json(&api.reply(&method, body.to_string().as_bytes()).await?))
}

/// The query of a lookup.
#[derive(serde::Deserialize)]
struct Lookup {
    key: Option<String>,
}

fn json(reply: &serde_json::value::RawValue) -> Response {
    let body = Body::from(reply.get().to_owned());
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
