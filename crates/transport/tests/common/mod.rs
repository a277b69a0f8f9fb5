// SPDX-License-Identifier: Apache-2.0
//! What the tests of this crate share: small images, and a registry that
//! does as it is told.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::let_underscore_must_use,
    reason = "helpers of tests; each test file uses a part"
)]

pub mod image;
pub mod server;

use std::sync::Arc;
use std::time::Duration;

use gantry_transport::copy::{CopyError, CopyOptions, CopyReport, Silent};
use gantry_transport::registry::{Options, Pace, RetryPolicy};

/// Options under which every wait is short.
pub fn quick() -> Options {
    Options {
        retry: RetryPolicy {
            attempts: 3,
            delay: Duration::from_millis(5),
            longest_delay: Duration::from_secs(1),
        },
        pace: Pace {
            answer: Duration::from_millis(1500),
            commit: Duration::from_secs(3),
            small_body: Duration::from_millis(1500),
            window: Duration::from_millis(300),
            window_bytes: 4096,
            token_pause: Duration::from_millis(10),
        },
        ..Options::default()
    }
}

/// Runs a future on a runtime like that of the command.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Options for a copy with short waits.
pub fn copy_options() -> CopyOptions {
    CopyOptions {
        retry: quick().retry,
        ..CopyOptions::new(gantry_oci::Platform::new("linux", "amd64"))
    }
}

/// Copies without a gate and without listeners.
pub async fn copy(
    source: &dyn gantry_image::ImageSource,
    destination: &dyn gantry_image::ImageDestination,
    options: &CopyOptions,
) -> Result<CopyReport, CopyError> {
    gantry_transport::copy::run(source, destination, options, None, Arc::new(Silent)).await
}

/// An error and all its causes, as a person would read them.
pub fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
