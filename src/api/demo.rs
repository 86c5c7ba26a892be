//! The demo page: only in development mode, everything in one file, nothing fetched from elsewhere.
use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Api;
use super::report::NodeState;

/// The page with its style and script put in.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    include_str!("demo/page.html")
        .replace("/*STYLE*/", include_str!("demo/page.css"))
        .replace("/*SCRIPT*/", include_str!("demo/page.js"))
});
/// The page runs its own script and style, and talks to nodes: another one when its own is gone.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self' http: https: ws: wss:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HEADERS: [(HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::CACHE_CONTROL, "no-store"),
];

/// A node that the page links to.
#[derive(Serialize)]
struct Neighbour {
    name: String,
    url: String,
    state: NodeState,
}

/// `/demo`.
pub(super) async fn page(State(api): State<Arc<Api>>) -> Response {
    if !api.channels.dev {
        return (StatusCode::NOT_FOUND, "the demo page needs development mode: orbweb --dev\n")
            .into_response();
    }
    (HEADERS, PAGE.as_str()).into_response()
}

/// `/demo/nodes`: names and URLs, this node first. Pages of other nodes may read them.
pub(super) async fn nodes(State(api): State<Arc<Api>>) -> Response {
    if !api.channels.dev {
        return StatusCode::NOT_FOUND.into_response();
    }
    let neighbours = api.facts.cluster().await.into_iter().map(|node| Neighbour {
        name: node.name.to_string(),
        url: node.client_url,
        state: node.state,
    });
    let anywhere = [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
    (anywhere, Json(neighbours.collect::<Vec<_>>())).into_response()
}
