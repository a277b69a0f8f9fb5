// SPDX-License-Identifier: Apache-2.0
//! What is fuzzed: functions of bytes that panic where something is wrong.
//!
//! ```text
//! TARGETS ── tests/mutations.rs   on stable, bounded: changes of real inputs
//!         └─ fuzz/                libFuzzer, as long as one likes: make fuzz
//! ```
//!
//! Each body feeds one reader with what an attacker may send, and holds what it says to something simpler: reading
//! what was written gives the same, a policy's answer is that of a table, nothing is accepted that another reader
//! would read otherwise. That memory and time are bounded is libFuzzer's to see.

#![forbid(unsafe_code)]
#![allow(clippy::panic, reason = "a body says by a panic what it found")]

mod seeds;
mod table;
mod trust;

pub use seeds::{Seeds, seeds};

/// One thing to fuzz.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What it is called in `fuzz/`.
    pub name: &'static str,
    /// Panics if something is wrong.
    pub body: fn(&[u8]),
}

const fn target(name: &'static str, body: fn(&[u8])) -> Target {
    Target { name, body }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("openpgp", trust::openpgp),
    target("payload", trust::payload),
    target("stored", trust::stored),
    target("policy", trust::policy),
    target("scopes", table::scopes),
    target("identity", table::identity),
    target("trust_d", trust::trust_d),
    target("registries_d", trust::registries_d),
    target("sigstore", trust::sigstore),
    target("keys", trust::keys),
    target("reference", trust::reference),
    target("reviews", trust::reviews),
];

/// Runs a target by its name.
///
/// # Panics
/// There is none of that name, or it found something.
pub fn run(name: &str, data: &[u8]) {
    match TARGETS.iter().find(|target| target.name == name) {
        Some(target) => (target.body)(data),
        None => panic!("no target {name}"),
    }
}
