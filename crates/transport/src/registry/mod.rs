// SPDX-License-Identifier: Apache-2.0
//! Registries: the OCI distribution protocol, from the client's side.
//!
//! ```text
//!  RegistrySource / RegistryDestination     what the copy engine sees
//!      │          mirrors                   which places to try for a name
//!      ▼
//!  Repository     manifests · blobs · upload · tags · signatures · attachments
//!      │
//!      ▼
//!  Registry       client: one request with retries, redirects, authorisation
//!      ├── auth         challenge → token, bound to registry and repository
//!      ├── credentials  auth.json and helpers
//!      └── tls          certs.d
//! ```
//!
//! # What is promised
//! Credentials are sent to the registry's own origin (scheme, host, port), to
//! paths of the repository that they are used for, and to a token service
//! that is the registry's own; nowhere else, whatever a redirect, a
//! `Location`, a realm or a foreign URL says. Everything that a registry sends
//! has a cap in bytes and must make progress in time.
//!
//! # Plain HTTP
//! A registry on a loopback address may speak plain HTTP: it is tried first,
//! without credentials, and TLS if that fails, as Docker does. Any other
//! registry needs TLS unless the caller turned verification off.
//!
//! # Source
//! distribution-spec v1.1; RFC 9110 (authentication, ranges, `Retry-After`).

mod attachments;
pub mod auth;
pub mod blobs;
mod challenge;
pub mod client;
pub mod credentials;
pub mod endpoint;
pub mod error;
pub mod manifests;
pub mod mirrors;
mod pages;
mod redirect;
mod signatures;
pub mod tags;
pub mod tls;
mod upload;

pub use client::{LookasidePlaces, Options, Pace, Registry, Repository, RetryPolicy, TlsVerify};
pub use credentials::{Credentials, Environment};
pub use endpoint::{RegistryDestination, RegistrySource};
pub use error::RegistryError;
pub use signatures::add_to_lookaside;
