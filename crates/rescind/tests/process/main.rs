//! Tests of the program as operators use it: processes, signals, files and exit codes. Numbers after
//! `check` are those of docs/security-checks.md.

#![cfg(test)]

mod administrators;
mod api;
mod audit;
mod audit_chain;
mod backup;
#[expect(dead_code, reason = "other tests look at pages more closely")]
#[path = "../fixture/browser.rs"]
mod browser;
mod canary;
mod cluster;
mod commands;
mod completions;
mod configuration;
mod copied_back;
mod crash;
mod database;
mod database_tls;
mod dev;
mod disk;
mod disk_faults;
mod doors;
mod exit_codes;
mod files;
#[path = "../../../rescind-store/tests/fixture/postgres.rs"]
mod fixture;
mod full_output;
mod history;
mod json;
mod leases;
mod logs;
mod master_key;
mod operating;
mod operators;
mod pepper;
mod permissions;
mod postgres;
mod power_cut;
mod process;
mod restart;
mod secret_files;
mod secrets;
mod servers;
mod signals;
mod slow_database;
mod tls;
#[cfg(feature = "otel")]
mod traces;
mod went_back;
