//! The harness itself: faults are what they say, and go away again.

#![cfg(test)]

mod postgres;
mod proxy;
