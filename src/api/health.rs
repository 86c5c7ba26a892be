//! What load balancers, orchestrators and Prometheus ask. No key needed: nothing here names users or
//! channels.
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::Api;

/// Content type of the Prometheus text that `prometheus-client` writes.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Body of `/readyz`.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether clients should be sent here.
    pub ready: bool,
    /// Why not.
    #[serde(default)]
    pub reasons: Vec<String>,
}

/// `/healthz`: the process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `/readyz`: in the ring, links up; 503 with the reasons if not.
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> (StatusCode, Json<Readiness>) {
    match api.facts.ready().await {
        Ok(()) => (StatusCode::OK, Json(Readiness { ready: true, reasons: Vec::new() })),
        Err(reasons) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(Readiness { ready: false, reasons }))
        }
    }
}

/// `/metrics`.
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &api.facts.metrics()) {
        Ok(()) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
