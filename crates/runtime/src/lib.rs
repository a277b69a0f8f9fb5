// SPDX-License-Identifier: Apache-2.0
//! From options and an image to an OCI runtime document, a bundle and a running container.
//!
//! | module | owns |
//! |---|---|
//! | [`options`] | what an operator may ask, as checked values |
//! | [`host`] | what this host can do, as one value |
//! | [`spec`] | the runtime document: pure, reproducible, explained |
//! | [`identity`] | users and groups against the rootfs, strictly |
//! | [`capability`] | capability sets |
//! | [`cdi`] | devices that bring more than a node |
//! | [`driver`] | OCI runtimes, through their command lines |
//! | [`prepare`], [`volume`] | what a mounted rootfs tells, what it lacks, what volumes begin with |
//! | [`exec`] | one more program in a container that runs |
//! | [`supervise`] | what the command and the monitor say to each other |
//! | [`container`] | containers on disk |
//! | [`oci`] | our own OCI runtime |
//! | [`document`] | documents as JSON: judged, compared, edited |
#![forbid(unsafe_code)]

pub mod capability;
pub mod cdi;
pub mod container;
pub mod document;
pub mod driver;
pub mod exec;
pub mod host;
pub mod identity;
pub mod oci;
pub mod options;
pub mod prepare;
mod rlimit;
pub mod spec;
pub mod supervise;
pub mod volume;
