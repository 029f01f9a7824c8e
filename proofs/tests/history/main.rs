//! The checker of histories: what is certain is reported, and nothing else.

#![cfg(test)]

mod build;
mod model;
mod naive;
mod planted;
mod program;
mod reading;
