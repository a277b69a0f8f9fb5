// SPDX-License-Identifier: Apache-2.0
//! Monitors: finding the program, executing it, and telling it to begin.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gantry_oci::Kind;
use gantry_runtime::container::Container;
use gantry_runtime::supervise::{MonitorPlan, PLAN_FILE, Request, encode};
use gantry_sys::lock::OfdLock;
use gantry_sys::socket;

use crate::exit::Failure;

const MONITOR: &str = "gantry-monitor";

/// A monitor that was told to begin.
#[derive(Debug)]
pub struct Launched {
    /// The container's id.
    pub id: String,
    /// Our end of its socket.
    pub control: OwnedFd,
    /// The monitor.
    pub monitor: Child,
    /// What the container reads, if anything reaches it.
    pub input: Option<File>,
}

/// Executes a monitor and tells it to begin. `before` is called in between, while it waits.
///
/// # Errors
/// No monitor can be executed; what `before` says.
pub fn begin(
    program: &Path,
    plan: &MonitorPlan,
    lock: &OfdLock,
    detached: bool,
    before: impl FnOnce(&Child) -> Result<(), Failure>,
) -> Result<Launched, Failure> {
    let path = plan.dir.join(PLAN_FILE);
    let bytes = encode(plan).map_err(|error| Failure::new(Kind::Internal, error))?;
    std::fs::write(&path, bytes)
        .map_err(|error| Failure::from(error).context(format!("write {}", path.display())))?;
    let (monitor, control) = spawn(program, &plan.id)?;
    before(&monitor)?;
    let nothing = || OpenOptions::new().read(true).write(true).open("/dev/null");
    let (stdin, input) = if plan.interactive {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(std::io::Error::from)?;
        (reader, Some(File::from(writer)))
    } else {
        (nothing()?.into(), None)
    };
    let null = nothing()?;
    let (out, err) = (std::io::stdout(), std::io::stderr());
    let (stdout, stderr) = if detached {
        (null.as_fd(), null.as_fd())
    } else {
        (out.as_fd(), err.as_fd())
    };
    let begin = encode(&Request::Begin { plan: path })
        .map_err(|error| Failure::new(Kind::Internal, error))?;
    let fds = [lock.file(), stdin.as_fd(), stdout, stderr];
    socket::send(&control, &begin, &fds)?;
    Ok(Launched {
        id: plan.id.clone(),
        control,
        monitor,
        input,
    })
}

/// A monitor that waits for its first message, and our end of its socket.
fn spawn(program: &Path, id: &str) -> Result<(Child, OwnedFd), Failure> {
    let (control, theirs) = socket::message_pair()?;
    let monitor = Command::new(program)
        .arg(id)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Failure::from(error).context(format!("execute {}", program.display())))?;
    Ok((monitor, control))
}

/// Removes what a monitor that was killed has left of a container whose program has ended; does
/// nothing after one that cleaned up itself.
///
/// # Errors
/// No monitor can be executed.
pub fn clean_up(container: &Container) -> Result<(), Failure> {
    let plan = container.home.state_dir.join(PLAN_FILE);
    if !container.home.state_dir.join("oci").exists() || !plan.exists() {
        return Ok(());
    }
    let (mut monitor, control) = spawn(&find()?, &container.record.id)?;
    let message =
        encode(&Request::CleanUp { plan }).map_err(|error| Failure::new(Kind::Internal, error))?;
    socket::send(&control, &message, &[])?;
    // What it could not remove is found by the caller.
    monitor.wait()?;
    Ok(())
}

/// The monitor stands beside this program, or where packages put helpers.
///
/// # Errors
/// It is in neither place.
pub fn find() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let beside = own.parent().map(|dir| dir.join(MONITOR));
    let libexec = own
        .parent()
        .and_then(Path::parent)
        .map(|prefix| prefix.join("libexec/gantry").join(MONITOR));
    [beside, libexec]
        .into_iter()
        .flatten()
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Failure::message(
                Kind::Unsupported,
                format!("find {MONITOR}: it is not beside {}", own.display()),
            )
            .hint("install both programs in one directory")
        })
}
