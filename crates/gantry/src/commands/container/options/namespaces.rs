// SPDX-License-Identifier: Apache-2.0
//! Options that say with whom the container shares what it sees.

use std::path::PathBuf;

use gantry_oci::Kind;
use gantry_runtime::container::Containers;
use gantry_runtime::options::{IdRange, Ipc, Namespaces, Network, Sharing, Users};

use crate::context::Context;
use crate::exit::Failure;

/// With whom the container shares what.
#[derive(Debug, Clone, clap::Args)]
pub struct NamespaceArgs {
    /// Which network the container sees: none, host, ns:PATH or container:NAME
    #[arg(
        long,
        visible_alias = "net",
        value_name = "NETWORK",
        default_value = "none"
    )]
    network: Network,
    /// Whose processes it sees: private, host, ns:PATH or container:NAME
    #[arg(long, value_name = "WHOSE", default_value = "private", hide_default_value = true, value_parser = Sharing::parse_pid)]
    pid: Sharing,
    /// Whose message queues and shared memory it sees: as --pid; none is private without /dev/shm
    #[arg(
        long,
        value_name = "WHOSE",
        default_value = "private",
        hide_default_value = true
    )]
    ipc: Ipc,
    /// Whose machine name it has: as --pid
    #[arg(long, value_name = "WHOSE", default_value = "private", hide_default_value = true, value_parser = Sharing::parse_uts)]
    uts: Sharing,
    /// Whose control groups it sees: as --pid
    #[arg(long, value_name = "WHOSE", default_value = "private", hide_default_value = true, value_parser = Sharing::parse_cgroupns)]
    cgroupns: Sharing,
    /// Whose users it has: host, ns:PATH, container:NAME, or private with --uidmap (not `run`)
    #[arg(long, value_name = "WHOSE")]
    userns: Option<String>,
    /// Users of the container that are users of the host; may be repeated (not `run`)
    #[arg(long, value_name = "CONTAINER:HOST:SIZE")]
    uidmap: Vec<IdRange>,
    /// Likewise groups
    #[arg(long, value_name = "CONTAINER:HOST:SIZE")]
    gidmap: Vec<IdRange>,
}

impl NamespaceArgs {
    /// Looks other containers up.
    pub(super) fn resolve(self, context: &Context) -> Result<(Network, Namespaces), Failure> {
        let find = |name: &str, link: &str| find_namespace(context, name, link);
        let sharing = |asked: Sharing, link: &str| match asked {
            Sharing::Container(name) => find(&name, link).map(Sharing::Path),
            other => Ok(other),
        };
        let network = match self.network {
            Network::Container(name) => Network::Path(find(&name, "net")?),
            other => other,
        };
        let users = Users::of_options(self.userns.as_deref(), &self.uidmap, &self.gidmap)
            .map_err(|error| Failure::new(error.kind(), error))?;
        let namespaces = Namespaces {
            pid: sharing(self.pid, "pid")?,
            ipc: Ipc {
                sharing: sharing(self.ipc.sharing, "ipc")?,
                without_shm: self.ipc.without_shm,
            },
            uts: sharing(self.uts, "uts")?,
            cgroup: sharing(self.cgroupns, "cgroup")?,
            users: match users {
                Users::Container(name) => Users::Path(find(&name, "user")?),
                other => other,
            },
        };
        Ok((network, namespaces))
    }
}

/// The namespace of a container that runs.
fn find_namespace(context: &Context, name: &str, link: &str) -> Result<PathBuf, Failure> {
    let said = |failure: Failure| failure.context(format!("share with container {name}"));
    let containers = Containers::new(&context.root, &context.runroot);
    let found = containers.find(name).map_err(|error| said(error.into()))?;
    let process = found
        .status()
        .map_err(|error| said(error.into()))?
        .process();
    match process {
        Some(process) => Ok(format!("/proc/{}/ns/{link}", process.pid).into()),
        None => Err(said(Failure::message(Kind::NotFound, "it does not run"))),
    }
}
