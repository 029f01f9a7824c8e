//! Rescind: a token service for APIs whose callers are machines. ARCHITECTURE.md has the map.

pub mod admin;
pub mod app;
pub mod audit;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod files;
pub mod http;
pub mod ksuid;
pub mod limits;
pub mod memory;
pub mod model;
pub mod random;
pub mod secret;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod usage;
pub mod webhooks;
