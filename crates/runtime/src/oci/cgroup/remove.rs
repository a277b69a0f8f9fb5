// SPDX-License-Identifier: Apache-2.0
//! The end of a container's groups. Nothing of them needs to be open for it.

use std::time::Duration;

use super::dir::Dir;
use super::group::PATIENCE;
use super::plan::GroupPlan;
use super::{CgroupError, CgroupState};

impl CgroupState {
    /// Removes the groups and those below; waits a moment for processes that are ending.
    ///
    /// # Errors
    /// The kernel's refusal; a group in which something goes on running.
    pub fn delete(&self) -> Result<(), CgroupError> {
        if let Some(unit) = &self.unit {
            unit.stop().map_err(|source| CgroupError::Systemd {
                action: "stop",
                unit: unit.name.clone(),
                source,
            })?;
        }
        let mut first = None;
        for group in &self.groups {
            if let Err(error) = remove(group) {
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }
}

fn remove(group: &GroupPlan) -> Result<(), CgroupError> {
    let (parent, name) = group.path.rsplit_once('/').unwrap_or(("", &group.path));
    let root = Dir::root(&group.mount)?;
    let parent = if parent.is_empty() {
        Some(root)
    } else {
        root.descendant(parent)?
    };
    let Some(parent) = parent else { return Ok(()) };
    let mut waited = Duration::ZERO;
    let mut step = Duration::from_millis(1);
    while !remove_tree(&parent, name)? {
        if waited >= PATIENCE {
            return Err(CgroupError::Stuck {
                action: "remove control group, in which something still runs:",
                path: parent.path.join(name),
            });
        }
        std::thread::sleep(step);
        waited += step;
        step = (step * 2).min(Duration::from_millis(100));
    }
    Ok(())
}

fn remove_tree(parent: &Dir, name: &str) -> Result<bool, CgroupError> {
    if parent.remove_child(name)? {
        return Ok(true);
    }
    let Some(dir) = parent.child(name)? else {
        return Ok(true);
    };
    for child in dir.children()? {
        remove_tree(&dir, &child)?;
    }
    drop(dir);
    parent.remove_child(name)
}
