// SPDX-License-Identifier: Apache-2.0
//! Documents of the OCI and Docker image formats: digests, references, descriptors, manifests, configs.

