// SPDX-License-Identifier: Apache-2.0
//! One program for all targets: `GANTRY_FUZZ_TARGET` names which.
#![no_main]

use std::sync::LazyLock;

use gantry_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("GANTRY_FUZZ_TARGET").unwrap_or_default();
    let known = TARGETS.iter().find(|target| target.name == name);
    *known.unwrap_or_else(|| panic!("GANTRY_FUZZ_TARGET={name:?} is no target"))
});

fuzz_target!(|data: &[u8]| (TARGET.body)(data));
