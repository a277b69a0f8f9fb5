// SPDX-License-Identifier: Apache-2.0
//! Verbs about images, wherever they are.

pub mod copy;
pub mod delete;
pub mod endpoint;
pub mod inspect;
pub mod list_tags;
pub mod pull;
