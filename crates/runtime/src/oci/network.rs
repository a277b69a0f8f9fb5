// SPDX-License-Identifier: Apache-2.0
//! Network devices that move into the container.
//!
//! ```text
//! host:      look: is there a device? ── addresses ── send away
//! container:        look: is the name free?              find it ── addresses ── switch on
//! ```
//!
//! What moves loses its addresses and is switched off, so both are given back. Nothing is done when the container ends:
//! the kernel returns physical devices to the host and destroys the others.
//!
//! # Source
//! runtime-spec 1.3 "Network Devices".

use std::os::fd::{AsFd as _, OwnedFd};

use gantry_sys::Errno;
use gantry_sys::clone::{self, Namespace};
use gantry_sys::netlink::{Link, Route};

use super::error::{Doing as _, RuntimeError};
use super::plan::{NetDeviceStep, Plan, PlanError};

/// Moves what the plan names into the network namespace of the container, whose first process has this pid.
pub(super) fn move_devices(plan: &Plan, pid: u32) -> Result<(), RuntimeError> {
    if plan.net_devices.is_empty() {
        return Ok(());
    }
    let joined = plan
        .namespaces
        .joined()
        .find(|(kind, _)| *kind == Namespace::Network);
    // A namespace that is joined may not be the process's yet.
    let path = joined.map_or_else(
        || format!("/proc/{pid}/ns/net").into(),
        |(_, path)| path.clone(),
    );
    let namespace = clone::open_namespace(&path).doing(|| "open the container's network")?;
    let here = Route::open().doing(|| "ask for network devices")?;
    let there = open_in(&namespace)?;
    for step in &plan.net_devices {
        let (link, name) = check(step, &here, &there)?;
        let doing = || format!("move network device {} into the container", step.host);
        let addresses = here.addresses(&link).doing(doing)?;
        let before = there.links().doing(doing)?;
        here.send_away(&link, namespace.as_fd(), name)
            .doing(doing)?;
        let after = there.links().doing(doing)?;
        let is_new = |link: &&Link| before.iter().all(|held| held.index != link.index);
        let moved = after.iter().find(is_new).ok_or(Errno::NODEV).doing(doing)?;
        for address in &addresses {
            there.add_address(moved, address).doing(doing)?;
        }
        there.switch_on(moved).doing(doing)?;
    }
    Ok(())
}

/// Nothing moves where the kernel would leave it half-way: it is there, and its name is free.
fn check<'a>(
    step: &'a NetDeviceStep,
    here: &Route,
    there: &Route,
) -> Result<(Link, &'a str), RuntimeError> {
    let refuse = |rule: String| RuntimeError::from(PlanError::new(step.reason.clone(), rule));
    let doing = || format!("look for network device {}", step.host);
    let mut links = here.links().doing(doing)?.into_iter();
    let link = links
        .find(|link| link.name == step.host)
        .ok_or_else(|| refuse("there is no such network device".to_owned()))?;
    let taken = there
        .links()
        .doing(doing)?
        .into_iter()
        .any(|link| link.name == step.name);
    if taken {
        return Err(refuse(format!(
            "the container has a network device {} already",
            step.name
        )));
    }
    Ok((link, &step.name))
}

/// A socket for another network namespace; this process, which has one thread, looks in for a moment.
fn open_in(namespace: &OwnedFd) -> Result<Route, RuntimeError> {
    let doing = || "look into the container's network";
    let own = clone::open_namespace("/proc/self/ns/net".as_ref()).doing(doing)?;
    clone::join(namespace, Namespace::Network).doing(doing)?;
    let route = Route::open().doing(doing);
    clone::join(&own, Namespace::Network).doing(|| "return to the host's network")?;
    route
}
