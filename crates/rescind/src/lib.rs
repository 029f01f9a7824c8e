//! Rescind: a token service for APIs whose callers are machines. ARCHITECTURE.md has the map.

pub mod auth;
pub mod cli;
pub mod http;
pub mod server;
pub mod traces;
pub mod webhooks;
