// SPDX-License-Identifier: Apache-2.0
//! Network devices that move into the container.

use oci_spec::runtime::Spec;

use super::error::RuntimeError;

pub(super) fn move_devices(spec: &Spec, _pid: u32) -> Result<(), RuntimeError> {
    let devices = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.net_devices().as_ref());
    match devices.filter(|devices| !devices.is_empty()) {
        None => Ok(()),
        Some(_) => Err(RuntimeError::Usage(
            ".linux.netDevices: not supported yet".to_owned(),
        )),
    }
}
