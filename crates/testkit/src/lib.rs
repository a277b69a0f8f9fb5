// SPDX-License-Identifier: Apache-2.0
//! Fixtures and helpers that the tests of every crate share. Never part of a release.

