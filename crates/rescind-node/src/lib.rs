//! One process of Rescind: what it holds in memory in step with the store, its place among others, and its configuration.

pub mod app;
pub mod audit;
pub mod cluster;
pub mod config;
pub mod limits;
pub mod memory;
pub mod usage;
