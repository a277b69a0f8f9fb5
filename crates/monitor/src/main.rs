// SPDX-License-Identifier: Apache-2.0
//! The per-container supervisor program.
fn main() {}
