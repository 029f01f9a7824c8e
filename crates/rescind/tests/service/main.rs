//! The whole service over HTTP, as clients, proxies, probes and operators meet it. Numbers after
//! `check` are the project's checks.

#![cfg(test)]

mod addresses;
mod admin_api;
mod app;
mod bearer;
mod canary;
mod clock;
mod credentials;
mod envelope;
mod login;
mod logout;
mod malformed;
mod oauth;
mod oauth_client;
mod oauth_form;
mod oauth_introspect;
mod oauth_keys;
mod oauth_metadata;
mod oauth_outage;
mod oauth_revoke;
mod oauth_token;
mod outage;
mod races;
mod raw;
mod refresh;
mod reply;
mod reuse;
mod throttling;
mod verify;
