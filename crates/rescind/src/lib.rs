//! Rescind: a token service for APIs whose callers are machines. ARCHITECTURE.md has the map.

pub mod admin;
pub mod app;
pub mod audit;
pub mod auth;
pub mod caching;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod data_folder;
pub mod door;
pub mod feed;
pub mod http;
pub mod issuer;
pub mod limiter;
pub mod metrics;
pub mod model;
pub mod oauth;
pub mod quota;
pub mod random;
pub mod registry;
pub mod secret;
pub mod server;
pub mod signer;
pub mod store;
pub mod traces;
