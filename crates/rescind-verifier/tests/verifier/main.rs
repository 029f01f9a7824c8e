//! Tests of the verifier by its public API. Numbers after `check` are those of docs/security-checks.md.

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
