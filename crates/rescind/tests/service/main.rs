//! The whole service over HTTP, as clients, proxies, probes and operators meet it. Numbers after
//! `check` are the project's checks.

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
mod edge_http2;
mod edge_limits;
mod edge_slow;
mod edge_tls;
mod edge_waiting;
mod envelope;
#[path = "../fixture/postgres.rs"]
mod fixture;
mod follow;
mod follow_ask;
mod follow_cut;
mod follow_exact;
mod follow_exact_cut;
mod follow_exact_race;
mod follow_fake;
mod follow_feed;
mod follow_flood;
mod follow_keys;
mod follow_proxy;
mod follow_race;
mod follow_sequence;
mod frames;
mod leases;
mod login;
mod logout;
mod malformed;
mod metrics;
mod oauth;
mod oauth_allowlist;
mod oauth_client;
mod oauth_form;
mod oauth_introspect;
mod oauth_keys;
mod oauth_metadata;
mod oauth_outage;
mod oauth_revoke;
mod oauth_token;
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
