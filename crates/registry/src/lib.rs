// SPDX-License-Identifier: Apache-2.0
//! The registry daemon: receive, explode, publish.
