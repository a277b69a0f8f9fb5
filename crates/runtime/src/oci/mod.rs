// SPDX-License-Identifier: Apache-2.0
//! Our own OCI runtime.
//!
//! | module | owns |
//! |---|---|
//! | [`plan`] | from a document to everything that init does: pure, printable |
//! | `init` | the container's first process, one straight line |
//! | `rootfs`, `cgroupfs`, `terminal`, `label`, `clocks`, `confine`, `filter` | the steps of that line |
//! | `channel` | what runtime and init say to each other |
//! | [`launch`], [`create`], [`start`], [`run`], [`exec`], [`kill`], [`delete`], [`show`], [`pause`], [`update`], [`events`] | the verbs |
//! | [`criu`] | checkpoint and restore |
//! | `foreground` | staying until the end |
//! | [`state`] | containers on disk |
//! | [`hooks`] | programs that the document wants run |
//! | [`cgroup`] | control groups: planned, made, limited, counted, removed |
//! | [`seccomp`] | from the document's filter to a program for the kernel; handing its listener over |
//! | [`seal`] | nobody in a container can write to this program |
//! | `groups`, `resctrl`, `network`, `idmap`, `middle` | control groups, caches, devices, user namespaces, as the verbs need them |
//!
//! What forks has one thread: the verbs are called by a program that has started none.
//!
//! # Source
//! runtime-spec 1.3; the command line and the state document of runc; design 0001.

pub mod cgroup;
mod cgroupfs;
mod channel;
mod clocks;
mod confine;
pub mod create;
pub mod criu;
pub mod delete;
pub mod error;
pub mod events;
pub mod exec;
mod facts;
mod filter;
mod foreground;
mod groups;
pub mod hooks;
mod idmap;
mod init;
pub mod kill;
mod label;
pub mod launch;
mod middle;
mod network;
pub mod pause;
pub mod plan;
mod resctrl;
mod rootfs;
pub mod run;
pub mod seal;
pub mod seccomp;
pub mod show;
pub mod start;
pub mod state;
mod terminal;
pub mod update;

pub use error::RuntimeError;
pub use facts::{is_nested, probe};
pub use launch::{Context, CreateOptions};
