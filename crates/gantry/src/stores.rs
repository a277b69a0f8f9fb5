// SPDX-License-Identifier: Apache-2.0
//! The stores that a command uses: its own, and the trees that other hosts share.

use std::path::PathBuf;

use gantry_oci::{Host, Kind};
use gantry_store::Store;

use crate::config::ShareConfig;
use crate::context::Context;
use crate::exit::Failure;

/// A tree of another host, read-only here.
#[derive(Debug)]
pub struct Share {
    /// Where it is mounted.
    pub path: PathBuf,
    /// The registry whose images its own names are, by this host's word.
    pub registry: Option<Host>,
    /// The store in it.
    pub store: Store,
}

/// The own store, for reading only; `None` if nothing was pulled yet.
///
/// # Errors
/// The store is there and cannot be read.
pub fn own(context: &Context) -> Result<Option<Store>, Failure> {
    match Store::open_read_only(&context.root) {
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        other => Ok(Some(other?)),
    }
}

/// The registry whose images the own names of the own store are: this host's configuration knows, or the store's
/// marker, which this host wrote.
pub fn own_registry(context: &Context, own: &Store) -> Option<Host> {
    let configured = context.config.registry.name.as_ref();
    configured.or(own.registry()).cloned()
}

/// The trees of `named`, then those of the configuration.
///
/// # Errors
/// One of `named` cannot be read. One of the configuration that cannot is left out with a warning: its server may be
/// down, and the other places are still good.
pub fn shares(context: &Context, named: &[PathBuf]) -> Result<Vec<Share>, Failure> {
    let mut shares = Vec::new();
    for path in named {
        let path = std::path::absolute(path)?;
        let store = Store::open_read_only(&path)?;
        let configured = context.config.shares.iter();
        let registry = configured
            .filter(|share| share.path == path)
            .find_map(|share| share.registry.clone());
        shares.push(Share {
            path,
            registry,
            store,
        });
    }
    for ShareConfig { path, registry } in &context.config.shares {
        if shares.iter().any(|share| share.path == *path) {
            continue;
        }
        match Store::open_read_only(path) {
            Ok(store) => shares.push(Share {
                path: path.clone(),
                registry: registry.clone(),
                store,
            }),
            Err(error) => {
                let sentence = Failure::from(error).sentence();
                crate::output::error_line(&format!("left out: {sentence}"));
            }
        }
    }
    Ok(shares)
}
