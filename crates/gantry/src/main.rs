// SPDX-License-Identifier: Apache-2.0
//! The gantry command.
fn main() {}
