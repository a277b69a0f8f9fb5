// SPDX-License-Identifier: Apache-2.0
//! Fixtures and helpers that the tests of every crate share. Never part of a release.
//!
//! - [`scratch`]: a temporary directory on a stock ext4, whatever the machine's own file system does;
//! - [`tree`]: what a directory tree holds, and how two of them differ;
//! - [`image`] and [`tar`]: small images from a few lines, well formed or hostile;
//! - [`corpus`]: hostile images by name, and the verdicts that they must get everywhere;
//! - [`cosign`]: the judge of sigstore signatures, in two versions;
//! - [`tool`]: other people's programs: finding them, running them, a `docker-registry` on a free port;
//! - [`busybox`]: a root file system of one program;
//! - [`dice`]: numbers that look random and come again;
//! - [`docker`]: a real Docker daemon with its own data;
//! - [`subordinate`]: users that have subordinate ids, and a home, for one command only;
//! - [`gpg`]: a GnuPG home with keys of any kind, at any time;
//! - [`openpgp`]: messages and keys taken apart into packets;
//! - [`faults`]: a program whose system calls fail one by one;
//! - [`fixtures`]: the images that `make fixtures` builds from Debian packages;
//! - [`skip!`]: ends a test that cannot run here and says why, past the test harness's capture.
//!
//! Errors are `anyhow`: every caller is a test or a developer's program.
#![forbid(unsafe_code)]

pub mod busybox;
pub mod corpus;
pub mod cosign;
pub mod dice;
pub mod docker;
pub mod faults;
pub mod fixtures;
pub mod gpg;
pub mod image;
pub mod openpgp;
pub mod scratch;
pub mod skip;
pub mod subordinate;
pub mod tar;
pub mod tool;
pub mod tree;
