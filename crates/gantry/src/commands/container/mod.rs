// SPDX-License-Identifier: Apache-2.0
//! Verbs about containers.

mod accounts;
mod attach;
pub mod exec;
pub(crate) mod find;
mod flags;
pub mod generate;
pub(crate) mod launch;
pub mod logs;
mod monitor;
mod options;
pub mod ps;
pub mod rm;
pub mod run;
pub mod stop;
pub mod validate;
pub mod wait;
