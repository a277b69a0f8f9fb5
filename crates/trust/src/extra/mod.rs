// SPDX-License-Identifier: Apache-2.0
//! What policy.json cannot say, in files of our own that only tighten.

/// The rules of `trust.d`.
#[derive(Debug, Clone, Default)]
pub struct Extra {}
