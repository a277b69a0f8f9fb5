// SPDX-License-Identifier: Apache-2.0
//! The kernel: mounts, confined paths, publishing, locks, fs-verity, loop devices, probes.
//!
//! The only crate with unsafe code, which is denied by default and allowed per module, each block
//! with a JUSTIFICATION (why no existing safe wrapper serves) and a SAFETY note.
//!
//! | module | owns |
//! |---|---|
//! | [`root`] | operations confined to a directory (`openat2`), with a walker where that call is missing |
//! | [`publish`] | making staged things visible: no-replace rename, atomic files and symlinks, syncing |
//! | [`lock`] | open file description locks |
//! | [`mount`] | EROFS, loop devices, overlay, bind, tmpfs, private mount namespaces |
//! | [`rootfs`] | the plan of a container's root file system and its application |
//! | [`verity`] | fs-verity: enable, measure |
//! | [`reflink`] | sharing or copying file contents |
//! | [`xattr`] | extended attributes by directory descriptor and name |
//! | [`clone`] | processes in new namespaces; joining namespaces |
//! | [`task`] | what a process sets of itself, and the program that it becomes |
//! | [`probe`] | what this kernel can do, as one value |
//! | [`bpf`] | programs that decide on a control group's use of devices |
//! | [`proc`] | the few facts read from `/proc` |
//! | [`seccomp`] | installing system call filters |
//! | [`signal`] | signals as something to read; signals to a pidfd |
//! | [`socket`] | messages and descriptors between our processes |
//!
//! Every failure is a [`SysError`]: the call, its arguments, the errno. Nothing here decides policy
//! or falls back silently: planners read [`probe::KernelFeatures`] and choose.

pub mod bpf;
pub mod clone;
pub mod error;
pub mod lock;
pub mod mount;
pub mod mounted;
pub mod netlink;
pub mod probe;
pub mod proc;
pub mod publish;
pub mod reflink;
pub mod root;
pub mod rootfs;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod task;
pub mod verity;
pub mod xattr;

pub use error::{Result, SysError};
pub use rustix::io::Errno;
