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
mod edge;
mod envelope;
#[path = "../fixture/postgres.rs"]
mod fixture;
mod follow;
mod frames;
mod leases;
mod login;
mod logout;
mod malformed;
mod metrics;
mod oauth;
mod outage;
mod quotas;
mod races;
mod raw;
mod refresh;
mod reply;
mod reuse;
mod throttling;
mod upgrade;
mod verify;
