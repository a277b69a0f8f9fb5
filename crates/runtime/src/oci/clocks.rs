// SPDX-License-Identifier: Apache-2.0
//! Time namespaces: made by whoever has the children that shall be in them, since only later children
//! (and, from Linux 6.2 on, later programs) are.

use gantry_sys::clone::{self, Namespace};

use super::error::{Doing as _, RuntimeError};
use super::plan::NamespacePlan;

/// Makes a time namespace for the children of this process and sets its clocks.
pub(super) fn make(plan: &NamespacePlan) -> Result<(), RuntimeError> {
    let doing = || "make a time namespace";
    clone::unshare([Namespace::Time].into_iter().collect()).doing(doing)?;
    if plan.time_offsets.is_empty() {
        return Ok(());
    }
    let text: String = plan
        .time_offsets
        .iter()
        .map(|offset| format!("{} {} {}\n", offset.clock, offset.secs, offset.nanosecs))
        .collect();
    std::fs::write("/proc/self/timens_offsets", text)
        .doing(|| "set the clocks of the time namespace")
}

/// Runs `act` with children in a new time namespace, and with the namespaces of before afterwards.
pub(super) fn around<T>(
    plan: &NamespacePlan,
    act: impl FnOnce() -> Result<T, RuntimeError>,
) -> Result<T, RuntimeError> {
    let doing = || "return to the host's clocks";
    let before = clone::open_namespace("/proc/self/ns/time".as_ref()).doing(doing)?;
    make(plan)?;
    let outcome = act();
    clone::join(&before, Namespace::Time).doing(doing)?;
    outcome
}
