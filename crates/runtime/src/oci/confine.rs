// SPDX-License-Identifier: Apache-2.0
//! The last steps before a process is the container's: the same for the first one and for `exec`.
//!
//! The order is the kernel's: limits while they may be raised, the bounding set while it may be shrunk,
//! ids while they may be taken, then the capabilities that remain, then the filter.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use gantry_sys::Errno;
use gantry_sys::task::{self, Words};
use rustix::fs::{Access, Mode, OFlags};
use rustix::process::{Gid, Rlimit, Uid, setrlimit};
use rustix::thread::{CapabilitySet as Bits, CapabilitySets};

use super::error::{Doing as _, RuntimeError};
use super::plan::{CapabilityMasks, ProcessPlan, RlimitStep};
use crate::capability::CapabilitySet;
use crate::rlimit::resource;

/// The hard limit of this process; the largest number where there is none.
pub(super) fn hard_limit(name: &str) -> Option<u64> {
    resource(name).map(|resource| {
        rustix::process::getrlimit(resource)
            .maximum
            .unwrap_or(u64::MAX)
    })
}

fn set_limit(step: &RlimitStep) -> Result<(), RuntimeError> {
    let doing = || format!("set {} to {} of {}", step.name, step.soft, step.hard);
    let resource = resource(&step.name).ok_or(Errno::INVAL).doing(doing)?;
    let limit = |value: u64| (value != u64::MAX).then_some(value);
    let limits = Rlimit {
        current: limit(step.soft),
        maximum: limit(step.hard),
    };
    setrlimit(resource, limits).doing(doing)
}

/// Limits and everything else that needs no identity yet.
pub(super) fn limit(process: &ProcessPlan) -> Result<(), RuntimeError> {
    process.rlimits.iter().try_for_each(set_limit)?;
    if let Some((class, level)) = process.io_priority {
        task::set_io_priority(class, level).doing(|| "set the I/O priority")?;
    }
    if let Some(scheduling) = &process.scheduling {
        task::set_scheduling(scheduling).doing(|| "set the scheduler")?;
    }
    if let Some(persona) = process.personality {
        task::set_personality(persona).doing(|| "set the personality")?;
    }
    if let Some(policy) = &process.memory_policy {
        match task::set_memory_policy(policy.mode, &policy.nodes) {
            Err(error) if error.is(Errno::NOSYS) => {
                return Err(error).doing(|| {
                    "set the memory policy (.linux.memoryPolicy): this kernel knows no memory nodes"
                });
            }
            other => other.doing(|| "set the memory policy (.linux.memoryPolicy)")?,
        }
    }
    Ok(())
}

/// Sets the processors that the calling process may use.
pub(super) fn set_affinity(processors: &[u32]) -> Result<(), RuntimeError> {
    let mut set = rustix::thread::CpuSet::new();
    for processor in processors {
        let index = usize::try_from(*processor).unwrap_or(usize::MAX);
        if index < rustix::thread::CpuSet::MAX_CPU {
            set.set(index);
        }
    }
    rustix::thread::sched_setaffinity(None, &set).doing(|| "set the processors")
}

fn bits(set: CapabilitySet) -> Bits {
    Bits::from_bits_retain(set.mask())
}

/// Becomes the user, with the capabilities of the document and no more.
pub(super) fn become_user(process: &ProcessPlan, deny_groups: bool) -> Result<(), RuntimeError> {
    let doing = || format!("become {}:{}", process.uid, process.gid);
    let own = rustix::thread::capabilities(None).doing(|| "read capabilities")?;
    if let Some(masks) = &process.capabilities {
        drop_bounding(masks)?;
        rustix::thread::set_keep_capabilities(true).doing(|| "keep capabilities")?;
    }
    let gid = Gid::from_raw(process.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).doing(doing)?;
    let groups: Vec<Gid> = process.groups.iter().copied().map(Gid::from_raw).collect();
    if !deny_groups {
        rustix::thread::set_thread_groups(&groups)
            .doing(|| format!("join groups {:?}", process.groups))?;
    } else if !groups.is_empty() {
        return Err(Errno::PERM).doing(|| "join groups: this user namespace does not allow it");
    }
    let uid = Uid::from_raw(process.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).doing(doing)?;
    if let Some(masks) = &process.capabilities {
        rustix::thread::set_keep_capabilities(false).doing(|| "keep capabilities")?;
        set_capabilities(masks, own.permitted)?;
    }
    rustix::process::umask(Mode::from_raw_mode(process.umask));
    Ok(())
}

fn drop_bounding(masks: &CapabilityMasks) -> Result<(), RuntimeError> {
    for number in 0..64_u32 {
        let bit = Bits::from_bits_retain(1 << number);
        if bits(masks.bounding).contains(bit) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(bit) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno).doing(|| "shrink the bounding set"),
        }
    }
    Ok(())
}

/// What the runtime itself lacks cannot be given.
fn set_capabilities(masks: &CapabilityMasks, own: Bits) -> Result<(), RuntimeError> {
    let permitted = bits(masks.permitted) & own;
    let inheritable = bits(masks.inheritable) & own;
    let sets = CapabilitySets {
        effective: bits(masks.effective) & permitted,
        permitted,
        inheritable,
    };
    rustix::thread::set_capabilities(None, sets).doing(|| "set capabilities")?;
    rustix::thread::clear_ambient_capability_set().doing(|| "clear ambient capabilities")?;
    for bit in (bits(masks.ambient) & permitted & inheritable).iter() {
        rustix::thread::configure_capability_in_ambient_set(bit, true)
            .doing(|| "raise ambient capabilities")?;
    }
    Ok(())
}

/// Enters the working directory, and proves that it lies in the container's root: a descriptor of
/// the host's in a path of the document would lead out (CVE-2024-21626).
pub(super) fn enter_directory(cwd: &Path) -> Result<(), RuntimeError> {
    let doing = || format!("enter directory {}", cwd.display());
    rustix::process::chdir(cwd).doing(doing)?;
    let found = rustix::process::getcwd(Vec::new()).doing(doing)?;
    if found.as_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err(Errno::XDEV).doing(|| {
        format!(
            "enter directory {}: it is not in the container",
            cwd.display()
        )
    })
}

/// Finds the program by the container's own `PATH`.
pub(super) fn find_program(process: &ProcessPlan) -> Result<CString, RuntimeError> {
    let name = process.args.first().map_or("", String::as_str);
    let refused = |reason: &str| RuntimeError::Program {
        program: name.to_owned(),
        reason: reason.to_owned(),
    };
    let checked = |path: &Path| -> Result<CString, Errno> {
        let stat = rustix::fs::stat(path)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(Errno::ACCESS);
        }
        rustix::fs::accessat(
            rustix::fs::CWD,
            path,
            Access::EXEC_OK,
            rustix::fs::AtFlags::EACCESS,
        )?;
        CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)
    };
    let reason = |errno: Errno| match errno {
        Errno::NOENT => "no such file or directory".to_owned(),
        Errno::ACCESS => "permission denied".to_owned(),
        other => std::io::Error::from(other).to_string(),
    };
    if name.contains('/') {
        return checked(name.as_ref()).map_err(|errno| refused(&reason(errno)));
    }
    let search = process
        .env
        .iter()
        .rev()
        .find_map(|variable| variable.strip_prefix("PATH="))
        .unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut denied = false;
    for dir in search.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        match checked(&Path::new(dir).join(name)) {
            Ok(path) if !name.is_empty() => return Ok(path),
            Err(Errno::ACCESS) => denied = true,
            _ => {}
        }
    }
    Err(if denied {
        refused("permission denied")
    } else {
        refused("executable file not found in $PATH")
    })
}

/// The program's words, ready before anything is given up.
#[derive(Debug)]
pub(super) struct Program {
    path: CString,
    args: Words,
    env: Words,
}

impl Program {
    pub(super) fn new(
        process: &ProcessPlan,
        path: CString,
        extra: Vec<String>,
    ) -> Result<Self, RuntimeError> {
        let words = |list: &mut dyn Iterator<Item = String>| {
            list.map(|word| CString::new(word).map_err(std::io::Error::from))
                .collect::<Result<Vec<_>, _>>()
                .map(Words::new)
                .doing(|| "read the program's arguments")
        };
        Ok(Self {
            path,
            args: words(&mut process.args.iter().cloned())?,
            env: words(&mut process.env.iter().cloned().chain(extra))?,
        })
    }

    /// Becomes the program.
    pub(super) fn execute(&self) -> RuntimeError {
        let error = task::execute(&self.path, &self.args, &self.env);
        let reason = match error.errno() {
            Errno::NOENT => "no such file or directory".to_owned(),
            Errno::ACCESS => "permission denied".to_owned(),
            Errno::NOEXEC => "exec format error".to_owned(),
            other => std::io::Error::from(other).to_string(),
        };
        RuntimeError::Program {
            program: self.path.to_string_lossy().into_owned(),
            reason,
        }
    }
}

/// `HOME` of the user as the container's own accounts tell it, when the document does not.
pub(super) fn home(process: &ProcessPlan) -> Option<String> {
    const PASSWD_MAX_BYTES: u64 = 1 << 20;
    use std::io::Read as _;
    if process
        .env
        .iter()
        .any(|variable| variable.starts_with("HOME="))
    {
        return None;
    }
    let mut text = String::new();
    // O_NONBLOCK: a fifo in the place of the file must not hang us.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open("/etc/passwd", flags, Mode::empty()) {
        let file = std::fs::File::from(file);
        // What cannot be read says nothing.
        file.take(PASSWD_MAX_BYTES).read_to_string(&mut text).ok();
    }
    let home = text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let uid: u32 = fields.get(2)?.parse().ok()?;
        let home = fields.get(5).filter(|home| home.starts_with('/'))?;
        (uid == process.uid).then(|| (*home).to_owned())
    });
    Some(format!("HOME={}", home.as_deref().unwrap_or("/")))
}
