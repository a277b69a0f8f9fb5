// SPDX-License-Identifier: Apache-2.0
//! The kernel: mounts, confined paths, publishing, locks, fs-verity, loop devices, probes.
