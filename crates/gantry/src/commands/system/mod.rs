// SPDX-License-Identifier: Apache-2.0
//! Verbs about the program and the machine.

pub mod completion;
pub mod info;
pub mod man;
pub mod version;
