// SPDX-License-Identifier: Apache-2.0
//! From an image and options to a monitor that runs.
//!
//! ```text
//! plan ──► (printed by --dry-run) ──► directories, lock, name ──► monitor spawned ──► lease ──► Begin
//! ```

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::SystemTime;

use gantry_oci::Kind;
use gantry_runtime::container::{ContainerRecord, Containers, unix_seconds};
use gantry_runtime::driver::{self, RuntimePlaces};
use gantry_runtime::host::probe_host;
use gantry_runtime::options::{ContainerName, RunOptions, Users};
use gantry_runtime::spec::{Explanation, Placement, generate};
use gantry_runtime::supervise::{ContainerWork, LogPlan, MonitorPlan, WindowSize, Work};
use gantry_store::{DigestChoice, FaceChoice, Owner, RootfsUpper, Store};

use super::monitor::{self, Launched};
use crate::admission::RunnableImage;
use crate::context::Context;
use crate::exit::Failure;

const STOP_TIMEOUT_S: u64 = 10;
const LOG_FILE_MAX_BYTES: u64 = 64 << 20;
const LOG_OLDER_FILES: u32 = 2;

/// What `run` asks beside the container's own options.
#[derive(Debug, Clone)]
pub struct LaunchOptions {
    /// As the operator spelled it.
    pub image: String,
    /// The container's name.
    pub name: Option<ContainerName>,
    /// Leave nothing behind.
    pub remove: bool,
    /// Nobody is attached.
    pub detached: bool,
    /// The OCI runtime, by name or path.
    pub runtime: Option<String>,
    /// Which face serves the root.
    pub face: FaceChoice,
    /// The terminal's first size.
    pub size: Option<WindowSize>,
}

/// A container that could be started.
#[derive(Debug)]
pub struct Launch {
    /// What the monitor will be told.
    pub plan: MonitorPlan,
    /// Where each part of the runtime document came from.
    pub explanations: Vec<Explanation>,
    /// What had to be left out or lowered.
    pub notes: Vec<String>,
    record: ContainerRecord,
    containers: Containers,
    on_disk: bool,
}

/// Decides everything; touches nothing. Only an admitted image comes this far.
///
/// # Errors
/// Options that make no sense for this image on this host.
pub fn plan(
    context: &Context,
    image: &RunnableImage,
    options: &RunOptions,
    launch: &LaunchOptions,
) -> Result<Launch, Failure> {
    if options.namespaces.users != Users::Host {
        return Err(Failure::message(
            Kind::Unsupported,
            "--userns, --uidmap, --gidmap: the files of images belong to the host's users",
        )
        .hint("gantry generate makes such documents"));
    }
    let host = probe_host();
    let search = search_path();
    // Where the program was replaced meanwhile, another runtime has to serve.
    let own = std::env::current_exe().ok().filter(|path| path.is_file());
    let wanted = launch.runtime.as_ref().or(context.config.runtime.as_ref());
    let runtime = driver::find_runtime(wanted.map(String::as_str), &search, own)
        .map_err(|error| Failure::new(error.kind(), error).hint("apt-get install crun"))?;
    let id = random_id()?;
    let containers = Containers::new(&context.root, &context.runroot);
    let places = containers.home(&id, true);
    let data_dir = places.data_dir.clone().unwrap_or_default();
    let placement = Placement {
        id: id.clone(),
        state_dir: places.state_dir.clone(),
        data_dir: data_dir.clone(),
        rootfs: containers.rootfs_dir(),
        limits: runtime.limits(&host),
    };
    let config = image.store().config(image.record())?;
    let generated = generate(&config, options, &host, &placement).map_err(|error| {
        let hint = error.hint();
        let failure = Failure::new(error.kind(), error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    let draft = generated.draft;
    let notes = draft.notes.clone();
    let upper = draft.writable.then(|| RootfsUpper {
        upper: data_dir.join("upper"),
        work: data_dir.join("work"),
    });
    let on_disk = !launch.remove || launch.detached || draft.writable || !draft.volumes.is_empty();
    let rootfs =
        image
            .store()
            .rootfs_plan(image.record(), launch.face, DigestChoice::Best, upper)?;
    let bundle = RuntimePlaces {
        id: id.clone(),
        bundle: places.state_dir.clone(),
    };
    let record = ContainerRecord {
        id: id.clone(),
        name: launch.name.clone(),
        image: launch.image.clone(),
        digest: image.proof().manifest_digest().to_string(),
        reference: image.proof().reference().map(ToString::to_string),
        command: options.args.clone(),
        created_unix_s: unix_seconds(SystemTime::now()),
        remove: launch.remove,
        stop_signal: draft.stop_signal.0,
        stop_timeout_s: options
            .stop_timeout
            .map_or(STOP_TIMEOUT_S, |timeout| timeout.as_secs()),
    };
    let keeps_log = launch.detached || !launch.remove;
    let work = ContainerWork {
        data_dir: on_disk.then(|| data_dir.clone()),
        name_link: launch.name.as_ref().map(|name| containers.name_link(name)),
        remove: launch.remove,
        rootfs,
        rootfs_dir: containers.rootfs_dir(),
        scaffold_dir: containers.scaffold_dir(),
        features: image.store().features().clone(),
        delete: runtime.delete(&bundle, &host),
        // Elsewhere, and with hooks, the runtime alone knows what remains.
        control_group: runtime
            .control_group(&bundle)
            .filter(|_| options.resources.cgroup_parent.is_none() && options.hooks.is_empty()),
        draft,
    };
    let plan = MonitorPlan {
        id,
        dir: places.state_dir,
        hidden_mounts: runtime.hidden_mounts(&host),
        run: runtime.run(&bundle, &host, options.terminal),
        terminal: options
            .terminal
            .then(|| launch.size.unwrap_or(WindowSize::DEFAULT)),
        interactive: options.interactive && !launch.detached,
        log: keeps_log.then(|| LogPlan {
            path: data_dir.join("log"),
            file_max_bytes: LOG_FILE_MAX_BYTES,
            older_files: LOG_OLDER_FILES,
        }),
        work: Work::Container(Box::new(work)),
    };
    for note in &notes {
        tracing::info!("{note}");
    }
    Ok(Launch {
        plan,
        explanations: generated.explanations,
        notes,
        record,
        containers,
        on_disk,
    })
}

impl Launch {
    /// Makes the container and tells a monitor to begin.
    ///
    /// # Errors
    /// A name that is taken, the kernel's refusal; nothing is left behind then.
    pub fn begin(self, image: &RunnableImage, detached: bool) -> Result<Launched, Failure> {
        let program = monitor::find()?;
        let new = self.containers.create(&self.record, self.on_disk)?;
        let begun = monitor::begin(&program, &self.plan, &new.lock, detached, |monitor| {
            if image.is_shared() {
                return Ok(());
            }
            lease(image, monitor, &self.record)
        });
        if begun.is_err() {
            // The first failure is the one to tell.
            new.home.remove(new.name_link.as_deref()).ok();
        }
        begun
    }
}

/// Keeps the image from being collected as long as the monitor lives.
fn lease(image: &RunnableImage, monitor: &Child, record: &ContainerRecord) -> Result<(), Failure> {
    let store = match Store::open(image.store().path()) {
        // On a read-only file system nobody collects either.
        Err(error) if error.kind() == Kind::Unsupported => return Ok(()),
        other => other?,
    };
    if !store.is_writable() {
        return Ok(());
    }
    let owner = Owner {
        label: format!("container {}", record.short_id()),
        pid: monitor.id(),
    };
    store.lease(&image.record().digest, owner, None)?;
    Ok(())
}

/// Where runtimes are looked for: the caller's path, then where Debian puts them.
fn search_path() -> Vec<PathBuf> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&own)
        .filter(|dir| dir.is_absolute())
        .collect();
    for dir in ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"] {
        if !dirs.iter().any(|known| known == Path::new(dir)) {
            dirs.push(dir.into());
        }
    }
    dirs
}

/// 64 hexadecimal digits that nobody else has.
///
/// # Errors
/// The kernel's refusal.
pub fn random_id() -> Result<String, Failure> {
    use std::fmt::Write as _;
    let mut bytes = [0_u8; 32];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| Failure::from(std::io::Error::from(errno)).context("make an id"))?;
    if filled != bytes.len() {
        return Err(Failure::message(Kind::Internal, "too few random bytes"));
    }
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    }))
}
