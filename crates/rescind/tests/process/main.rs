//! The program as its operators meet it: real processes, signals, files and exit codes. Numbers after
//! `check` are the project's checks.

#![cfg(test)]

mod api;
mod cluster;
mod commands;
mod configuration;
mod crash;
mod dev;
mod exit_codes;
mod json;
mod logs;
mod master_key;
#[path = "../fixture/postgres.rs"]
mod postgres;
mod process;
mod restart;
