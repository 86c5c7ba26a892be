//! Server API, health and metrics over HTTP.
