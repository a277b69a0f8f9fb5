// SPDX-License-Identifier: Apache-2.0
//! Registries, OCI layouts, and the engine that copies between them.
