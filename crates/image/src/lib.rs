// SPDX-License-Identifier: Apache-2.0
//! Where images come from and go to, and the step from an allegation to a verified image.
