//! The dashboard over HTTP, as a browser uses it without scripts.

pub(crate) mod browser;
mod clients;
mod enrolment;
mod forms;
mod handover;
mod pages;
mod security;
