// SPDX-License-Identifier: Apache-2.0
//! What is mounted over the rootfs: the kernel's file systems, memory, the
//! image's volumes, the operator's mounts, and the few files that are ours.

use std::path::{Path, PathBuf};

use gantry_oci::ProcessConfig;
use oci_spec::runtime::Mount;

use super::process::INIT_PATH;
use super::{GenerateError, ImageVolume, ManagedFile, Origin, Placement, Report};
use crate::host::HostFacts;
use crate::options::{
    Access, HostEntry, ImageVolumes, MountRequest, Network, Profile, RunOptions, SecurityOption,
    Sharing, Users, normalize_absolute,
};

const DEFAULT_SHM_BYTES: u64 = 64 << 20;

/// The mounts of a document and what they need.
#[derive(Debug)]
pub(super) struct Layout {
    pub mounts: Vec<Mount>,
    pub volumes: Vec<ImageVolume>,
    pub files: Vec<ManagedFile>,
}

fn mount(target: &str, kind: &str, source: impl Into<PathBuf>, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(target.into())
        .set_typ(Some(kind.into()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(ToString::to_string).collect()));
    mount
}

/// The kernel's file systems.
fn base(options: &RunOptions) -> Vec<Mount> {
    let shm = options.shm_size.map_or(DEFAULT_SHM_BYTES, |size| size.0);
    let shm = format!("size={shm}");
    let sys_access = if options.privileged { "rw" } else { "ro" };
    let mut devpts = vec![
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    // A group that the container's users do not have cannot be given.
    if has_group(&options.namespaces.users, 5) {
        devpts.push("gid=5");
    }
    let ipc = &options.namespaces.ipc;
    let of_host = ipc.sharing == Sharing::Host;
    let shown = ["rbind", "nosuid", "noexec", "nodev"];
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount("/dev/pts", "devpts", "devpts", &devpts),
        if of_host {
            mount("/dev/shm", "bind", "/dev/shm", &shown)
        } else {
            let flags = ["nosuid", "noexec", "nodev", "mode=1777", &shm];
            mount("/dev/shm", "tmpfs", "shm", &flags)
        },
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
        mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", sys_access],
        ),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", sys_access],
        ),
    ];
    if ipc.without_shm {
        mounts.retain(|mount| mount.destination() != Path::new("/dev/shm"));
    }
    if let Some(program) = &options.init {
        let flags = ["bind", "ro", "nosuid", "nodev"];
        mounts.push(mount(INIT_PATH, "bind", program.as_path(), &flags));
    }
    mounts
}

fn has_group(users: &Users, id: u32) -> bool {
    match users {
        Users::Mapped { gids, .. } => gids
            .iter()
            .any(|range| range.container <= id && id - range.container < range.size),
        _ => true,
    }
}

/// Memory over the places that every program expects to write, where the root
/// cannot be written. Only `/run` is without execution: interpreters unpack
/// native libraries into `/tmp`.
fn scratch() -> Vec<Mount> {
    let with =
        |mode: &'static str, exec: &'static str| ["nosuid", "nodev", exec, mode, "tmpcopyup"];
    vec![
        mount("/run", "tmpfs", "tmpfs", &with("mode=755", "noexec")),
        mount("/tmp", "tmpfs", "tmpfs", &with("mode=1777", "exec")),
        mount("/var/tmp", "tmpfs", "tmpfs", &with("mode=1777", "exec")),
    ]
}

/// Files of ours, kept out of the image's reach.
fn managed(
    options: &RunOptions,
    host: &HostFacts,
    placement: &Placement,
    hostname: &str,
) -> (Vec<Mount>, Vec<ManagedFile>) {
    let flags = ["bind", "ro", "nosuid", "nodev", "noexec"];
    let file = |name: &str, content: String| ManagedFile {
        name: name.into(),
        content,
    };
    let asked = &options.hosts;
    let of_host = options.network == Network::Host;
    let mut files = vec![file("hostname", format!("{hostname}\n"))];
    let mut shown = Vec::new();
    if asked.leave {
        // The image's own.
    } else if of_host && asked.entries.is_empty() {
        shown.push("/etc/hosts");
    } else {
        files.push(file("hosts", hosts_file(hostname, &asked.entries)));
    }
    match asked.resolver.file() {
        Some(text) => files.push(file("resolv.conf", text)),
        None if of_host && host.resolv_conf => shown.push("/etc/resolv.conf"),
        None => {}
    }
    let mut mounts: Vec<Mount> = files
        .iter()
        .map(|file| {
            let source = placement.state_dir.join(&file.name);
            mount(&format!("/etc/{}", file.name), "bind", source, &flags)
        })
        .collect();
    mounts.extend(shown.iter().map(|path| mount(path, "bind", *path, &flags)));
    (mounts, files)
}

fn hosts_file(hostname: &str, entries: &[HostEntry]) -> String {
    let mut text =
        format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n127.0.0.1\t{hostname}\n");
    for entry in entries {
        text.push_str(&format!("{}\t{}\n", entry.address, entry.names.join(" ")));
    }
    text
}

/// Whether a path is the kernel's, or the root itself.
fn is_reserved(target: &str, roots: &[&str]) -> bool {
    target == "/"
        || roots.iter().any(|root| {
            target
                .strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
}

/// The directories that the image declares as volumes.
fn image_volumes(
    image: &ProcessConfig,
    placement: &Placement,
) -> Result<Vec<ImageVolume>, GenerateError> {
    let mut volumes: Vec<ImageVolume> = Vec::new();
    for text in image.volumes.keys() {
        let refused = || GenerateError::MountTarget {
            origin: "the image",
            target: text.clone(),
        };
        let target = normalize_absolute(text).ok_or_else(refused)?;
        if is_reserved(&target, &["/proc", "/sys", "/dev"]) {
            return Err(refused());
        }
        if volumes.iter().all(|volume| volume.target != target) {
            let dir = placement
                .data_dir
                .join(format!("volumes/{}", volumes.len()));
            volumes.push(ImageVolume { target, dir });
        }
    }
    Ok(volumes)
}

fn requested(
    request: &MountRequest,
    options: &RunOptions,
    host: &HostFacts,
    report: &mut Report,
) -> Result<Mount, GenerateError> {
    let target = request.target();
    if is_reserved(target, &["/proc"]) || ["/sys", "/dev"].contains(&target) && !options.privileged
    {
        return Err(GenerateError::MountTarget {
            origin: "an option",
            target: target.into(),
        });
    }
    let mut flags: Vec<String> = vec!["nosuid".into(), "nodev".into()];
    let put = |flags: &mut Vec<String>, word: &str| {
        // `suid` takes back `nosuid`, and so on.
        let opposite = word
            .strip_prefix("no")
            .map_or_else(|| format!("no{word}"), str::to_owned);
        flags.retain(|flag| *flag != opposite && flag != word);
        flags.push(word.into());
    };
    Ok(match request {
        MountRequest::Tmpfs {
            target,
            options: words,
        } => {
            flags.extend(["mode=1777".into(), "tmpcopyup".into()]);
            for word in words {
                if word.starts_with("mode=") {
                    flags.retain(|flag| !flag.starts_with("mode="));
                }
                put(&mut flags, word);
            }
            flags.retain(|flag| flag != "notmpcopyup");
            report.explain("memory", target, Origin::Option, None);
            mount(target, "tmpfs", "tmpfs", &as_strs(&flags))
        }
        MountRequest::Bind {
            source,
            target,
            access,
            options: words,
        } => {
            if options.profile == Profile::Compat {
                flags.clear();
            }
            for word in words {
                match word.as_str() {
                    "z" | "Z" => {
                        let disabled = options.security.contains(&SecurityOption::LabelDisable);
                        if host.selinux && !disabled {
                            report.note(format!(
                                "{target} is not relabelled: SELinux labels are not supported yet"
                            ));
                        }
                    }
                    word => put(&mut flags, word),
                }
            }
            if !flags.iter().any(|flag| flag == "bind" || flag == "rbind") {
                flags.insert(0, "rbind".into());
            }
            flags.push(match access {
                Access::ReadOnly => "ro".into(),
                Access::ReadWrite => "rw".into(),
            });
            let shown = format!("{} at {target}", source.display());
            report.explain("host path", shown, Origin::Option, None);
            mount(target, "bind", source.as_path(), &as_strs(&flags))
        }
    })
}

fn as_strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Lays out every mount of a container.
///
/// An operator's mount takes the place of a default or a volume at the same
/// target; of two operator's mounts at one target neither is right.
pub(super) fn layout(
    image: &ProcessConfig,
    options: &RunOptions,
    host: &HostFacts,
    placement: &Placement,
    hostname: &str,
    writable: bool,
    report: &mut Report,
) -> Result<Layout, GenerateError> {
    let mut mounts = base(options);
    let (managed, files) = managed(options, host, placement, hostname);
    let mut volumes = if writable {
        // The whole root is a layer of the container's own.
        Vec::new()
    } else {
        if !options.without_scratch {
            mounts.extend(scratch());
            report.explain(
                "memory",
                "/run /tmp /var/tmp",
                Origin::Profile,
                Some("--writable"),
            );
        }
        image_volumes(image, placement)?
    };
    if options.image_volumes == ImageVolumes::Ignore {
        volumes.clear();
    }
    mounts.extend(managed);

    let mut seen: Vec<&str> = Vec::new();
    let mut wanted = Vec::new();
    for request in &options.mounts {
        let target = request.target();
        if seen.contains(&target) {
            return Err(GenerateError::DuplicateMount {
                target: target.into(),
            });
        }
        seen.push(target);
        wanted.push(requested(request, options, host, report)?);
    }
    let replaced = |path: &Path| seen.iter().any(|target| Path::new(target) == path);
    mounts.retain(|mount| !replaced(mount.destination()));
    volumes.retain(|volume| !replaced(Path::new(&volume.target)));
    for volume in &volumes {
        mounts.retain(|mount| mount.destination() != Path::new(&volume.target));
        report.explain("volume", &volume.target, Origin::Image, Some("--volume"));
        if options.image_volumes == ImageVolumes::Tmpfs {
            let flags = ["nosuid", "nodev", "mode=755", "tmpcopyup"];
            mounts.push(mount(&volume.target, "tmpfs", "tmpfs", &flags));
            continue;
        }
        mounts.push(mount(
            &volume.target,
            "bind",
            volume.dir.join("merged"),
            &["bind", "rw", "nosuid", "nodev"],
        ));
    }
    if options.image_volumes == ImageVolumes::Tmpfs {
        volumes.clear();
    }
    mounts.extend(wanted);
    // Parents before children; the order among equals stays.
    mounts.sort_by_key(|mount| mount.destination().components().count());
    Ok(Layout {
        mounts,
        volumes,
        files,
    })
}
