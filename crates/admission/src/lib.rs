// SPDX-License-Identifier: Apache-2.0
//! The admission daemon: the policy's verdict, for programs that start
//! containers themselves.
//!
//! ```text
//!  dockerd ──AuthZReq──▶ docker ──────┐ which image would run,              ┌▶ Judge: manifest, signatures, policy
//!     ▲                    │          ├──▶ Asked ──▶ decision::Clerk ──────┤   (made by the program)
//!     └──GET (read only)───┘          │   reference, digest, image ID      └▶ Journal: one line a decision
//!  kube-apiserver ─Review─▶ kubernetes┘
//! ```
//!
//! What it promises: whatever is not understood, not answered in time, too
//! large, or one too many at once is refused. In audit mode it is allowed and
//! the journal says that it would have been refused.
//!
//! What this crate does not do: it has no command line, reads no environment
//! and makes no async runtime; where policy and registries are ([`Rules`],
//! [`Sources`]) the program says.
//!
//! # Source
//! Docker Engine "Access authorization plugin"; Kubernetes
//! `admission.k8s.io/v1`, `imagepolicy.k8s.io/v1alpha1`.
#![forbid(unsafe_code)]

pub mod decision;
pub mod docker;
pub mod judge;
pub mod kubernetes;
pub mod policy_judge;
pub mod serve;

pub use decision::{Bounds, Clerk, Decision, Journal};
pub use judge::{Asked, Content, Judge, Judgement};
pub use policy_judge::{PolicyJudge, Rules, Sources};
pub use serve::{Listen, ServeError, Service, Tls, serve};
