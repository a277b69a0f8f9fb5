// SPDX-License-Identifier: Apache-2.0
//! The container's control groups, as the verbs need them.

use std::os::fd::BorrowedFd;

use oci_spec::runtime::Spec;

use super::error::RuntimeError;
use super::launch::Context;
use super::plan::Facts;
use super::state::Record;

/// The control groups of one container.
#[derive(Debug)]
pub(super) struct Groups {}

pub(super) fn plan(
    _spec: &Spec,
    _id: &str,
    _context: &Context<'_>,
    _facts: &Facts,
) -> Result<Groups, RuntimeError> {
    Ok(Groups {})
}

impl Groups {
    pub(super) fn to_json(&self) -> Option<serde_json::Value> {
        None
    }

    pub(super) fn create(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    pub(super) fn clone_target(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    pub(super) fn join(&self, _pid: u32) -> Result<(), RuntimeError> {
        Ok(())
    }

    pub(super) fn join_below(&self, _pid: u32, _below: Option<&str>) -> Result<(), RuntimeError> {
        Ok(())
    }

    pub(super) fn from_record(_record: &Record) -> Result<Option<Self>, RuntimeError> {
        Ok(None)
    }

    pub(super) fn kill(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    pub(super) fn signal(&self, _number: u8) -> Result<(), RuntimeError> {
        Ok(())
    }

    pub(super) fn pids(&self) -> Result<Vec<u32>, RuntimeError> {
        Ok(Vec::new())
    }

    pub(super) fn is_frozen(&self) -> Result<bool, RuntimeError> {
        Ok(false)
    }

    pub(super) fn delete(&self) -> Result<(), RuntimeError> {
        Ok(())
    }
}
