//! What the verifier promises, tested from outside. Numbers after `check` are the project's checks.

#![cfg(test)]

#[cfg(feature = "asymmetric")]
mod algorithms;
mod fixture;
mod jwt;
#[cfg(feature = "tower")]
mod layer;
#[cfg(feature = "asymmetric")]
mod mutants;
mod oracle;
mod policy;
mod rules;
