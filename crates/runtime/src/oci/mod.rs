// SPDX-License-Identifier: Apache-2.0
//! The parts of an OCI runtime of our own.
//!
//! | module | owns |
//! |---|---|
//! | [`seccomp`] | from the document's filter to a program for the kernel; handing its listener over |

pub mod seccomp;
