// SPDX-License-Identifier: Apache-2.0
//! Verbs about images, wherever they are.

pub mod copy;
pub mod delete;
pub mod diff;
pub mod endpoint;
pub mod history;
pub mod images;
pub mod inspect;
pub mod list_tags;
pub mod listing;
pub mod pull;
pub mod push;
pub mod rmi;
pub mod tag;
