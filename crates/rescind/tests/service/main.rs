//! Tests of the whole service over HTTP, as clients, proxies, probes and operators use it. Numbers after
//! `check` are those of docs/security-checks.md.

#![cfg(test)]

mod addresses;
mod admin_api;
mod app;
mod audit;
mod bearer;
mod canary;
mod client_certificates;
mod clock;
mod credentials;
mod dashboard;
mod denials;
mod edge;
mod envelope;
mod exposition;
#[path = "../../../rescind-store/tests/fixture/postgres.rs"]
mod fixture;
mod follow;
mod frames;
mod leaks;
mod leases;
mod login;
mod logout;
mod malformed;
mod management;
mod metrics;
mod oauth;
mod operators;
mod outage;
mod pepper;
mod proxy_protocol;
mod quotas;
mod races;
mod raw;
mod refresh;
mod reply;
mod reuse;
mod sweep;
mod throttling;
mod trends;
mod upgrade;
mod usage;
mod verify;
mod webhooks;
