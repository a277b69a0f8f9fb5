// SPDX-License-Identifier: Apache-2.0
//! `create`: everything but the program.

use super::error::RuntimeError;
use super::launch::{Context, CreateOptions, launch};

/// Makes a container whose program waits for `start`.
///
/// # Errors
/// Anything on the way; nothing is left behind.
pub fn create(
    context: &Context<'_>,
    id: &str,
    options: &CreateOptions,
) -> Result<(), RuntimeError> {
    launch(context, id, options, true, None).map(drop)
}
