// SPDX-License-Identifier: Apache-2.0
//! From options and an image to an OCI runtime document, a bundle and a running container.
