//! What the verifier promises, tested from outside. Numbers after `check` are the project's checks.

#![cfg(test)]

mod fixture;
mod jwt;
mod mutations;
mod oracle;
mod policy;
mod rules;
