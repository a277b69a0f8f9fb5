// SPDX-License-Identifier: Apache-2.0
//! `gantry mount`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gantry_oci::Kind;
use gantry_runtime::container::{Container, ContainerError, Containers, ProcessRecord};
use gantry_store::{DigestChoice, MountRecord, MountRequest, Mounted, Mounts, RootfsUpper, Store};
use gantry_sys::mount::set_read_only;
use gantry_sys::mounted;
use serde::Serialize;

use super::scratch::{Scratch, Snapshot};
use crate::admission::Admission;
use crate::commands::container::find;
use crate::commands::container::run::FaceArg;
use crate::commands::image::endpoint;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output;

/// Mount an image or a container, to look at it; without arguments, list what is mounted.
///
/// An image is mounted read-only; nothing is unpacked or copied. Of a container that has ended, what it wrote is there
/// too. Of a container that runs, a snapshot is mounted, or with --live the root as its programs see it: what is
/// written here shows there. Without DIR a place is chosen and printed, and mounting the same image again only counts.
#[derive(Debug, clap::Args)]
pub struct Mount {
    /// The root of a running container as its programs see it
    #[arg(long, requires = "what")]
    live: bool,
    /// IMAGE|CONTAINER is an image, though a container has that name
    #[arg(long, conflicts_with = "container", requires = "what")]
    image: bool,
    /// IMAGE|CONTAINER is a container
    #[arg(long, requires = "what")]
    container: bool,
    /// Look for the image in this tree of another host first
    #[arg(long, value_name = "DIR")]
    share: Vec<PathBuf>,
    /// Which view of the image is mounted
    #[arg(long, value_enum, default_value_t = FaceArg::Best)]
    face: FaceArg,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Name, ID or digest of an image; name or ID of a container
    #[arg(value_name = "IMAGE|CONTAINER")]
    what: Option<String>,
    /// Where to mount it: an existing directory
    #[arg(value_name = "DIR")]
    target: Option<PathBuf>,
}

/// A mount as it is listed.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    record: &'a MountRecord,
    kind: &'static str,
}

impl Mount {
    /// Mounts, or lists.
    pub fn run(self, context: &Context) -> Outcome {
        let mounts = Mounts::new(&context.runroot);
        let Some(what) = self.what.clone() else {
            return list(&mounts, self.json);
        };
        if !rustix::process::geteuid().is_root() {
            let message = format!("mount {what}: it takes root to mount");
            return Err(Failure::message(Kind::Denied, message).hint("use sudo"));
        }
        let target = self.target.as_deref().map(existing_dir).transpose()?;
        let record = match self.find_container(context, &what)? {
            Some(container) if self.live => {
                self.live(context, &mounts, &container, target.as_deref())
            }
            Some(container) => self.ended(context, &mounts, &container, target.as_deref()),
            None if self.live => {
                let message = format!("mount {what}: no container has that name or ID");
                return Err(Failure::message(Kind::NotFound, message));
            }
            None => self.image(context, &mounts, &what, target.as_deref()),
        }?;
        if self.json {
            output::json(&listed(&record))?;
        } else {
            output::line(record.target.display())?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn find_container(&self, context: &Context, what: &str) -> Result<Option<Container>, Failure> {
        if self.image {
            return Ok(None);
        }
        let containers = Containers::new(&context.root, &context.runroot);
        match containers.find(what) {
            Ok(container) => Ok(Some(container)),
            Err(ContainerError::Unknown { .. }) if !self.container && !self.live => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn image(
        &self,
        context: &Context,
        mounts: &Mounts,
        what: &str,
        target: Option<&Path>,
    ) -> Result<MountRecord, Failure> {
        let search = endpoint::search_registries()?;
        let found = find::find(context, &self.share, what, &search)?;
        let found = found.ok_or_else(|| {
            let message = format!("mount {what}: no image and no container has that name or ID");
            Failure::message(Kind::NotFound, message).hint(format!("bring it: gantry pull {what}"))
        })?;
        let image = Admission::load(context)?.runnable(found)?;
        let mounted = Mounted::Image(image.record().digest);
        let mut locked = mounts.lock()?;
        if target.is_none() {
            if let Some(record) = locked.again(&mounted)? {
                return Ok(record);
            }
        }
        let scratch = Scratch::new(context)?;
        let mount = image
            .store()
            .mount(image.record(), self.face.into(), Some(scratch.path()))?;
        let store = own_for_leases(image.store(), image.is_shared())?;
        let request = MountRequest {
            asked: what,
            what: mounted,
            store: &store,
            image: image.record().digest,
            target,
            scratch: None,
        };
        Ok(locked.attach(&mount, &request)?)
    }

    /// The root of a container with what it wrote, read-only. Its image must be admitted still.
    fn ended(
        &self,
        context: &Context,
        mounts: &Mounts,
        container: &Container,
        target: Option<&Path>,
    ) -> Result<MountRecord, Failure> {
        let found = find::image_of(context, &self.share, container)?;
        let image = Admission::load(context)?.runnable(found)?;
        let mut locked = mounts.lock()?;
        let snapshot = Snapshot::of(container).map_err(|failure| {
            failure.context(format!("mount container {}", container.record.short_id()))
        })?;
        let upper = snapshot.as_ref().map(|snapshot| RootfsUpper {
            upper: snapshot.upper().to_owned(),
            work: snapshot.work(),
        });
        let scratch = Scratch::new(context)?;
        let mount = image
            .store()
            .rootfs_plan(image.record(), self.face.into(), DigestChoice::Best, upper)?
            .mount(image.store().features(), Some(scratch.path()))?;
        set_read_only(&mount)?;
        let store = own_for_leases(image.store(), image.is_shared())?;
        let request = MountRequest {
            asked: self.what.as_deref().unwrap_or_default(),
            what: Mounted::Container(container.record.id.clone()),
            store: &store,
            image: image.record().digest,
            target,
            scratch: snapshot.as_ref().map(|snapshot| snapshot.dir().to_owned()),
        };
        let record = locked.attach(&mount, &request)?;
        if let Some(snapshot) = snapshot {
            snapshot.keep();
        }
        Ok(record)
    }

    /// The root of a container that runs. No image is mounted, so the policy is not asked: who looks into a container
    /// that should not run must not be kept out.
    fn live(
        &self,
        context: &Context,
        mounts: &Mounts,
        container: &Container,
        target: Option<&Path>,
    ) -> Result<MountRecord, Failure> {
        let not_running = || {
            let id = container.record.short_id();
            let message = format!("mount container {id} as it runs: it does not run");
            Failure::message(Kind::Busy, message).hint("without --live it can be looked at")
        };
        let process = container.status()?.process().ok_or_else(not_running)?;
        let namespace = namespace_of(&process, not_running)?;
        let mount = mounted::clone_root_of(&namespace)?;
        let found = find::image_of(context, &self.share, container)?;
        let store = own_for_leases(&found.store, found.shared)?;
        let request = MountRequest {
            asked: self.what.as_deref().unwrap_or_default(),
            what: Mounted::Live(container.record.id.clone()),
            store: &store,
            image: found.record.digest,
            target,
            scratch: None,
        };
        Ok(mounts.lock()?.attach(&mount, &request)?)
    }
}

/// The mount namespace of a container's program.
fn namespace_of(
    process: &ProcessRecord,
    not_running: impl Fn() -> Failure,
) -> Result<File, Failure> {
    let path = format!("/proc/{}/ns/mnt", process.pid);
    let namespace =
        File::open(&path).map_err(|error| Failure::from(error).context(format!("open {path}")))?;
    // Asked after opening: the number may have been given to another process before.
    if process.is_alive()? {
        Ok(namespace)
    } else {
        Err(not_running())
    }
}

/// The store to write a lease into: the image's own where it may be written.
fn own_for_leases(store: &Store, shared: bool) -> Result<Store, Failure> {
    if shared {
        return Ok(store.clone());
    }
    match Store::open(store.path()) {
        // On a read-only file system nobody collects either.
        Err(error) if error.kind() == Kind::Unsupported => Ok(store.clone()),
        other => Ok(other?),
    }
}

fn existing_dir(path: &Path) -> Result<PathBuf, Failure> {
    let failed =
        |error| Failure::from(error).context(format!("use {} as mount point", path.display()));
    let target = super::resolve_dir(path).map_err(failed)?;
    if target.is_dir() {
        return Ok(target);
    }
    let message = format!("use {} as mount point: it is no directory", path.display());
    Err(Failure::message(Kind::InvalidInput, message))
}

fn listed(record: &MountRecord) -> Listed<'_> {
    Listed {
        record,
        kind: match record.what {
            Mounted::Image(_) => "image",
            Mounted::Container(_) => "container",
            Mounted::Live(_) => "live",
        },
    }
}

fn list(mounts: &Mounts, json: bool) -> Outcome {
    let records = mounts.list()?;
    let listed: Vec<_> = records.iter().map(listed).collect();
    if json {
        output::json(&listed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = listed
        .iter()
        .map(|listed| {
            let record = listed.record;
            let what = match &record.what {
                Mounted::Image(digest) => digest.to_string(),
                Mounted::Container(id) | Mounted::Live(id) => id.chars().take(12).collect(),
            };
            vec![
                listed.kind.to_owned(),
                record.asked.clone(),
                what,
                record.count.to_string(),
                record.target.display().to_string(),
            ]
        })
        .collect();
    output::table(&["KIND", "NAME", "ID", "USES", "DIRECTORY"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
