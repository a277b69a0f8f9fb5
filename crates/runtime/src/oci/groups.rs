// SPDX-License-Identifier: Apache-2.0
//! The container's control groups, as the verbs need them.

use oci_spec::runtime::Spec;
use serde::Deserialize as _;

use super::cgroup::{self, Cgroup, CgroupPlan, CgroupState, Entrance, HostCgroups};
use super::error::{Doing as _, RuntimeError};
use super::launch::Context;
use super::plan::Facts;
use super::state::Record;

/// The control groups of one container, planned or made.
#[derive(Debug)]
pub(super) enum Groups {
    Planned(CgroupPlan),
    Made(Cgroup),
}

/// Decides which groups there will be; none where the caller manages them.
pub(super) fn plan(
    spec: &Spec,
    id: &str,
    context: &Context<'_>,
    facts: &Facts,
) -> Result<Option<Groups>, RuntimeError> {
    let Some(driver) = &context.cgroups else {
        return Ok(None);
    };
    let host = HostCgroups::probe().doing(|| "look at control groups")?;
    let plan = cgroup::plan(spec, id, &host, driver, facts.rootless || facts.nested)?;
    Ok(Some(Groups::Planned(plan)))
}

impl Groups {
    /// What to remember: enough to find the groups before they are made, too.
    pub(super) fn to_json(&self) -> Result<serde_json::Value, RuntimeError> {
        let state = match self {
            Self::Made(cgroup) => cgroup.state().clone(),
            Self::Planned(plan) => plan.expected(),
        };
        serde_json::to_value(state)
            .map_err(std::io::Error::from)
            .doing(|| "describe the control groups")
    }

    /// Makes them.
    pub(super) fn create(self) -> Result<Self, RuntimeError> {
        Ok(match self {
            Self::Planned(plan) => Self::Made(plan.create()?),
            made @ Self::Made(_) => made,
        })
    }

    /// What is remembered of a container's groups.
    pub(super) fn remembered(record: &Record) -> Result<Option<CgroupState>, RuntimeError> {
        let Some(state) = &record.cgroup else {
            return Ok(None);
        };
        let state = CgroupState::deserialize(state)
            .map_err(std::io::Error::from)
            .doing(|| "read what is known of the control groups")?;
        let is_none = state.groups.is_empty() && state.unit.is_none();
        Ok((!is_none).then_some(state))
    }

    /// The same, found again.
    pub(super) fn from_record(record: &Record) -> Result<Option<Cgroup>, RuntimeError> {
        Ok(Self::remembered(record)?
            .map(|state| Cgroup::open(&state))
            .transpose()?)
    }

    /// The way of the first process into them.
    pub(super) fn entrance(&self) -> Result<Entrance, RuntimeError> {
        match self {
            Self::Made(cgroup) => Ok(cgroup.entrance(None)?),
            Self::Planned(_) => Ok(Entrance::Told),
        }
    }

    /// Puts the first process into those that it cannot enter itself.
    pub(super) fn join(&mut self, pid: u32) -> Result<(), RuntimeError> {
        match self {
            Self::Made(cgroup) => Ok(cgroup.join(pid)?),
            Self::Planned(_) => Ok(()),
        }
    }

    /// What is done without.
    pub(super) fn notes(&self) -> &[String] {
        match self {
            Self::Made(cgroup) => &cgroup.notes,
            Self::Planned(_) => &[],
        }
    }

    pub(super) fn delete(&self) -> Result<(), RuntimeError> {
        match self {
            Self::Made(cgroup) => Ok(cgroup.delete()?),
            Self::Planned(_) => Ok(()),
        }
    }
}
