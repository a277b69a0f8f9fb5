// SPDX-License-Identifier: Apache-2.0
//! `gantry exec`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gantry_oci::Kind;
use gantry_runtime::container::{Container, Containers};
use gantry_runtime::driver::{OciRuntime as _, PROCESS_FILE, RuncLike, RuntimePlaces};
use gantry_runtime::exec::{ExecOptions, describe};
use gantry_runtime::host::probe_host;
use gantry_runtime::identity::UserRequest;
use gantry_runtime::prepare;
use gantry_runtime::supervise::{MonitorPlan, PLAN_FILE, WindowSize, Work, decode};
use gantry_sys::lock::{LockMode, OfdLock};
use gantry_sys::root::RootDir;
use oci_spec::runtime::Spec;

use super::attach;
use super::launch::random_id;
use super::monitor;
use super::options::environment;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output;

/// The status of Gantry's own failures, as podman's and docker's users know it.
const OURS: u8 = 125;

/// Run one more program in a container that runs.
///
/// It is confined as the container is. Exit statuses are those of run.
#[derive(Debug, clap::Args)]
pub struct Exec {
    /// Keep standard input open
    #[arg(long, short)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(long, short)]
    tty: bool,
    /// Return once the program runs
    #[arg(long, short)]
    detach: bool,
    /// Set a variable; NAME alone takes this shell's value
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set the variables that a file lists
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Start the program in this directory
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// Run the program as this user of the image, or by number
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<UserRequest>,
    /// The container's name, ID, or the beginning of its ID; then the program with its arguments
    // One argument, so that whatever stands behind the container is the program's.
    #[arg(required = true, trailing_var_arg = true, value_names = ["CONTAINER", "PROGRAM"], num_args = 2..)]
    words: Vec<String>,
}

impl Exec {
    fn container(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Executes it.
    pub fn run(self, context: &Context) -> Outcome {
        self.execute(context)
            .map_err(|failure| failure.or_status(OURS))
    }

    fn execute(self, context: &Context) -> Outcome {
        let container = Containers::new(&context.root, &context.runroot).find(self.container())?;
        let plan = self.plan(&container)?;
        let signals = attach::block_signals()?;
        let made = std::fs::create_dir(&plan.dir)
            .map_err(|error| Failure::from(error).context("prepare the program"))
            .and_then(|()| self.begin(&container, &plan));
        let launched = made.inspect_err(|_| {
            // The first failure is the one to tell.
            std::fs::remove_dir_all(&plan.dir).ok();
        })?;
        if self.detach {
            attach::wait_for_start(&launched)?;
            output::line(&launched.id)?;
            return Ok(ExitCode::SUCCESS);
        }
        let exit = attach::attach(launched, &signals, self.tty, true)?;
        Ok(ExitCode::from(exit.status()))
    }

    /// The monitor's plan, after the one by which the container was started.
    fn plan(&self, container: &Container) -> Result<MonitorPlan, Failure> {
        let state_dir = &container.home.state_dir;
        let first: MonitorPlan = read_json(&state_dir.join(PLAN_FILE))?;
        let runtime = RuncLike::of(&first.run);
        let places = RuntimePlaces {
            id: container.record.id.clone(),
            bundle: state_dir.clone(),
        };
        let dir = state_dir.join(format!("exec-{}", &random_id()?[..16]));
        let run = runtime.exec(&places, &dir, &probe_host(), self.tty);
        Ok(MonitorPlan {
            dir,
            run,
            terminal: self.terminal(),
            interactive: self.interactive && !self.detach,
            log: None,
            work: Work::Exec,
            ..first
        })
    }

    fn terminal(&self) -> Option<WindowSize> {
        self.tty
            .then(|| attach::window_size().unwrap_or(WindowSize::DEFAULT))
    }

    fn begin(
        &self,
        container: &Container,
        plan: &MonitorPlan,
    ) -> Result<monitor::Launched, Failure> {
        let process = self.process(container)?;
        let path = plan.dir.join(PROCESS_FILE);
        let bytes =
            serde_json::to_vec(&process).map_err(|error| Failure::new(Kind::Internal, error))?;
        std::fs::write(&path, bytes)
            .map_err(|error| Failure::from(error).context(format!("write {}", path.display())))?;
        let lock = std::fs::File::create(plan.dir.join("lock"))?;
        let lock = OfdLock::lock(lock.into(), LockMode::Exclusive)?;
        monitor::begin(&monitor::find()?, plan, &lock, self.detach, |_| Ok(()))
    }

    fn process(&self, container: &Container) -> Result<oci_spec::runtime::Process, Failure> {
        let options = ExecOptions {
            args: self.words.iter().skip(1).cloned().collect(),
            env: environment(&self.env_file, &self.env)?,
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            terminal: self.terminal(),
        };
        let spec: Spec = read_json(&container.home.state_dir.join("config.json"))?;
        let root = root_of(container)?;
        let identity = match &options.user {
            Some(user) => Some(
                prepare::find_identity(&root, user, &[])
                    .map_err(|error| Failure::new(error.kind(), error))?,
            ),
            None => None,
        };
        let process = describe(&spec, &options, identity.as_ref())
            .map_err(|error| Failure::new(error.kind(), error))?;
        // Seen through the program's own root, every mount is in place: what is not there is nowhere.
        let mut alone = Spec::default();
        alone.set_process(Some(process.clone())).set_mounts(None);
        prepare::find_program(&root, &alone).map_err(|error| {
            let status = error.status().unwrap_or(OURS);
            Failure::new(error.kind(), error).status(status)
        })?;
        Ok(process)
    }
}

/// The root as the container's program sees it.
fn root_of(container: &Container) -> Result<RootDir, Failure> {
    let not_running = || {
        let id = container.record.short_id();
        Failure::message(
            Kind::Busy,
            format!("execute a program in container {id}: it does not run"),
        )
    };
    let process = container.status()?.process().ok_or_else(not_running)?;
    let root = RootDir::open_trusted(Path::new(&format!("/proc/{}/root", process.pid)))?;
    // Asked after opening: the number may have been given to another process before.
    if process.is_alive()? {
        Ok(root)
    } else {
        Err(not_running())
    }
}

fn read_json<T: for<'a> serde::Deserialize<'a>>(path: &Path) -> Result<T, Failure> {
    let context = |failure: Failure| failure.context(format!("read {}", path.display()));
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::message(
                Kind::Busy,
                "execute a program: the container does not run",
            ));
        }
        other => other.map_err(|error| context(error.into()))?,
    };
    decode(&bytes).map_err(|error| context(Failure::new(Kind::Corrupt, error)))
}
