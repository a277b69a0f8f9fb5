// SPDX-License-Identifier: Apache-2.0
//! Network devices of the host that the container gets.

use std::collections::BTreeMap;

use gantry_sys::clone::Namespace;
use gantry_sys::netlink::is_device_name;
use oci_spec::runtime::Spec;
use serde::Serialize;

use super::{NamespacePlan, PlanError};

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetDeviceStep {
    /// Its name on the host.
    pub host: String,
    /// Its name in the container; `%d` stands for a number that the kernel chooses.
    pub name: String,
    /// Where the document says so.
    pub reason: String,
}

pub(super) fn plan(
    spec: &Spec,
    namespaces: &NamespacePlan,
) -> Result<Vec<NetDeviceStep>, PlanError> {
    let listed = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.net_devices().as_ref());
    let mut steps = Vec::new();
    // In an order that is always the same: the document's own is none.
    let listed: BTreeMap<_, _> = listed.into_iter().flatten().collect();
    for (host, device) in listed {
        let reason = format!(".linux.netDevices[{host:?}]");
        let name = device
            .name()
            .as_deref()
            .filter(|name| !name.is_empty())
            .unwrap_or(host);
        if !is_device_name(host) || host.contains('%') || !is_device_name(name) {
            return Err(PlanError::new(reason, "is no name of a network device"));
        }
        if name.contains('%') && (name.matches('%').count() != 1 || !name.contains("%d")) {
            return Err(PlanError::new(reason, "%d is the one pattern of a name"));
        }
        steps.push(NetDeviceStep {
            host: host.clone(),
            name: name.to_owned(),
            reason,
        });
    }
    let own = namespaces.is_private(Namespace::Network) || namespaces.is_joined(Namespace::Network);
    if let Some(step) = steps.first().filter(|_| !own) {
        let rule = "needs a network namespace that is not the host's";
        return Err(PlanError::new(&step.reason, rule));
    }
    let twice = steps.iter().enumerate().find(|(index, step)| {
        !step.name.contains('%') && steps[..*index].iter().any(|other| other.name == step.name)
    });
    match twice {
        Some((_, step)) => Err(PlanError::new(
            &step.reason,
            format!("a second device {}", step.name),
        )),
        None => Ok(steps),
    }
}
