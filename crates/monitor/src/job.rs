// SPDX-License-Identifier: Apache-2.0
//! What is made before a program is started, recorded while it runs, and taken back after it.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gantry_runtime::container::{ExitRecord, Home, ProcessRecord, unix_seconds};
use gantry_runtime::supervise::{ContainerWork, Exit, MonitorPlan, Work};
use gantry_sys::proc::Proc;

use crate::relay::Ending;
use crate::{Failure, quiet, stage};

const READ_ONLY_HINT: &str = "the container's root is read-only: --tmpfs DIR or --volume HOST:DIR give the program \
     a place to write, --writable a layer of its own";

/// One monitor's job.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    plan: &'a MonitorPlan,
    /// A mount that is not needed any more. To end one takes the kernel milliseconds, so it ends with
    /// the process, when nobody waits.
    image: Option<OwnedFd>,
}

impl<'a> Job<'a> {
    pub(crate) fn new(plan: &'a MonitorPlan) -> Self {
        Self { plan, image: None }
    }

    fn home(&self, work: &ContainerWork) -> Home {
        Home {
            state_dir: self.plan.dir.clone(),
            data_dir: work.data_dir.clone(),
        }
    }

    /// Makes what the runtime needs.
    pub(crate) fn prepare(&mut self) -> Result<(), Failure> {
        stage::enter(&self.plan.hidden_mounts)?;
        if let Work::Container(work) = &self.plan.work {
            self.image = Some(stage::stage(work, &self.plan.dir, self.plan.terminal)?);
        }
        Ok(())
    }

    /// Writes which process the container's program is.
    pub(crate) fn record_start(&self, pid: u32) -> Result<(), Failure> {
        let (Work::Container(work), Some(record)) = (&self.plan.work, process_record(pid)) else {
            return Ok(());
        };
        self.home(work)
            .put_process(&record)
            .map_err(|error| Failure::refused("record the container's process", &error))
    }

    /// What a person may want to know about a program that failed.
    pub(crate) fn hint(&self, ending: &Ending) -> Option<String> {
        let Work::Container(work) = &self.plan.work else {
            return None;
        };
        let stopped = ending.met_read_only && !work.draft.writable && ending.exit != Exit::Code(0);
        stopped.then(|| READ_ONLY_HINT.to_owned())
    }

    /// Takes everything back after the program, and writes how it ended if the container stays.
    pub(crate) fn end(&self, exit: Exit) {
        let ended_unix_s = unix_seconds(SystemTime::now());
        let Work::Container(work) = &self.plan.work else {
            self.remove_dir();
            return;
        };
        self.forget_ended(work);
        let home = self.home(work);
        if work.remove {
            home.remove(work.name_link.as_deref()).ok();
        } else {
            // Last: whoever reads it may remove the container. One that cannot be written leaves the
            // container "lost", which is true.
            home.put_exit(&ExitRecord { exit, ended_unix_s }).ok();
        }
    }

    /// Takes everything back where the program never ran, or where nobody can say that it has ended.
    pub(crate) fn fail(&self) {
        let Work::Container(work) = &self.plan.work else {
            self.remove_dir();
            return;
        };
        self.forget_runtime(work);
        self.home(work).remove(work.name_link.as_deref()).ok();
    }

    /// The other monitor's mounts went with it; what the runtime keeps, and its control groups, did not.
    pub(crate) fn clean_up_after_another(&self) {
        match &self.plan.work {
            Work::Container(work) if stage::enter(&self.plan.hidden_mounts).is_ok() => {
                self.forget_ended(work);
            }
            _ => {}
        }
    }

    /// What stays behind is in a directory of the container, and goes with that.
    fn remove_dir(&self) {
        std::fs::remove_dir_all(&self.plan.dir).ok();
    }

    /// Removes what the runtime keeps of a program that has ended, without executing it where its control
    /// group can be removed.
    fn forget_ended(&self, work: &ContainerWork) {
        let group = work.control_group.as_deref();
        let light = group.is_some_and(remove_control_group)
            && std::fs::remove_dir_all(self.runtime_dir()).is_ok();
        if !light {
            self.forget_runtime(work);
        }
    }

    /// Lets the runtime remove what it keeps, killing what runs; goes on after failures. Mounts end with
    /// this process.
    fn forget_runtime(&self, work: &ContainerWork) {
        if self.runtime_dir().exists() {
            quiet(&work.delete).status().ok();
        }
        // A runtime that fails early may leave the group behind.
        work.control_group.as_deref().map(remove_control_group);
    }

    fn runtime_dir(&self) -> PathBuf {
        self.plan.dir.join("oci")
    }
}

/// `None` if it has ended already.
fn process_record(pid: u32) -> Option<ProcessRecord> {
    let start_time = Proc::open().ok()?.start_time(pid).ok()??;
    Some(ProcessRecord {
        pid,
        start_time,
        started_unix_s: unix_seconds(SystemTime::now()),
    })
}

/// Removes a control group from every hierarchy; false if somebody is in it, or below it.
fn remove_control_group(name: &str) -> bool {
    let base = Path::new("/sys/fs/cgroup");
    let below = std::fs::read_dir(base).into_iter().flatten().flatten();
    let mut hierarchies: Vec<_> = below.map(|entry| entry.path()).collect();
    hierarchies.push(base.to_owned());
    hierarchies.iter().fold(true, |all, hierarchy| {
        let group = hierarchy.join(name);
        // crun writes into the place of a hierarchy that was unmounted, as if it were there.
        let removed = if is_memory(hierarchy) {
            std::fs::remove_dir_all(group)
        } else {
            std::fs::remove_dir(group)
        };
        let gone = match removed {
            Ok(()) => true,
            Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        };
        all && gone
    })
}

/// Whether a directory is one of the memory file system on which hierarchies are mounted.
fn is_memory(dir: &Path) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    rustix::fs::statfs(dir).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC)
}
