//! The program as its operators meet it: real processes, signals, files and exit codes. Numbers after
//! `check` are the project's checks.

#![cfg(test)]

mod api;
mod audit;
mod backup;
mod cluster;
mod commands;
mod configuration;
mod crash;
mod database;
mod dev;
mod disk;
mod disk_faults;
mod exit_codes;
mod files;
#[path = "../fixture/postgres.rs"]
mod fixture;
mod history;
mod json;
mod leases;
mod logs;
mod master_key;
mod postgres;
mod power_cut;
mod process;
mod restart;
mod tls;
#[cfg(feature = "otel")]
mod traces;
mod went_back;
