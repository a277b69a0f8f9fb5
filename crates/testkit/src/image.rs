// SPDX-License-Identifier: Apache-2.0
//! Small OCI layouts from a few lines of text.
