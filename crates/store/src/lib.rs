// SPDX-License-Identifier: Apache-2.0
//! The content-addressed store: objects, images, refs, leases, faces, mounts.
