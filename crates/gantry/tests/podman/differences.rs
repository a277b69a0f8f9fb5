// SPDX-License-Identifier: Apache-2.0
//! Where our documents differ from podman's, and why: the table behind `docs/podman.md`.

/// One kind of difference; patterns in which `*` stands for any text, with ` | ` between several.
#[derive(Debug)]
pub struct Difference {
    /// What podman's document has and ours does not; empty if nothing.
    pub podman: &'static str,
    /// What ours has and podman's does not.
    pub gantry: &'static str,
    /// Why that is right.
    pub why: &'static str,
}

const fn row(podman: &'static str, gantry: &'static str, why: &'static str) -> Difference {
    Difference {
        podman,
        gantry,
        why,
    }
}

#[rustfmt::skip]
pub const DIFFERENCES: &[Difference] = &[
    // The document itself.
    row(".ociVersion = 1.0.2-dev", ".ociVersion = 1.2.0", "the version is asked for: `--oci-version`"),
    row(".root.path = PODMAN/*", ".root.path = rootfs", "podman names its storage, a document that stands alone its bundle: `--rootfs`"),
    row(".linux.cgroupsPath = /libpod_parent/libpod-ID", ".linux.cgroupsPath = /gantry-ID", "each names its own: `--id`, `--cgroup-parent`"),
    row(".annotations.io.podman.* | .annotations.io.container.manager = * | .annotations.io.kubernetes.cri-o.* | .annotations.org.opencontainers.image.*", "", "they are podman's notes to itself; documents of ours have the annotations that were asked for"),
    // The process.
    row(".process.env[] = container=podman", ".process.env[] = container=gantry", "each says who it is"),
    row(".process.env[] = TERM=xterm", "", "without a terminal there is no kind of terminal"),
    row(".process.env[] = HOSTNAME=ID", "", "--unsetenv-all leaves nothing"),
    row(".process.user.umask = 18", "", "it is every runtime's default"),
    row("", ".process.user.additionalGids[] = 0", "a primary group that is not among the supplementary ones could be dropped, and with it what a file denies to it (CVE-2022-2989)"),
    row(".process.capabilities.*[] = CAP_FSETID | .process.capabilities.*[] = CAP_SETFCAP | .process.capabilities.*[] = CAP_SETPCAP | .process.capabilities.*[] = CAP_SYS_CHROOT", "", "the production profile has seven capabilities; `--profile compat` has podman's eleven"),
    row("", ".process.noNewPrivileges = true", "production profile: `--security-opt no-new-privileges=false`"),
    row(".process.rlimits[RLIMIT_NOFILE].*", ".process.rlimits[RLIMIT_NOFILE].*", "podman takes the host's largest number, ours is 1024, 524288 at most, and what this host lets be raised: `--ulimit`"),
    row(".process.rlimits[RLIMIT_NPROC].*", "", "it counts processes of a user on the whole host; a control group counts the container's: `--pids-limit`"),
    row("", ".process.rlimits[RLIMIT_CORE].* | .process.rlimits[RLIMIT_MEMLOCK].*", "production profile: no core files, 64 KiB of locked memory: `--ulimit`"),
    // What is mounted.
    row("", ".root.readonly = true", "production profile: `--writable`"),
    row("", ".mounts[/run].* | .mounts[/tmp].* | .mounts[/var/tmp].*", "memory, where the root cannot be written"),
    row(".mounts[/run].options[] = rw | .mounts[/tmp].options[] = rw | .mounts[/var/tmp].options[] = rw | .mounts[/scratch].options[] = rw | .mounts[/m].options[] = rw", "", "it is the default"),
    row(".mounts[*].options[] = rprivate", "", "it is the default: a container's mounts are its own"),
    row(".mounts[/dev].options[] = noexec", "", "--init is executed there, and the runtime specification has no such flag; nothing in it can be written to and executed that could not elsewhere"),
    row(".mounts[/dev/shm].type = bind | .mounts[/dev/shm].source = PODMAN/* | .mounts[/dev/shm].options[] = bind", ".mounts[/dev/shm].type = tmpfs | .mounts[/dev/shm].source = shm | .mounts[/dev/shm].options[] = mode=1777 | .mounts[/dev/shm].options[] = size=*", "podman mounts it beforehand, so that containers of a pod can share it; here the runtime does"),
    row("", ".mounts[/dev/shm].options[] = rbind", "--ipc host shows what is mounted below, too"),
    row(".mounts[/etc/hostname].*", "", "a document holds no files; `gantry run` makes this one"),
    row(".mounts[/etc/hosts].*", "", "likewise"),
    row(".mounts[/run/.containerenv].*", "", "it tells programs that podman runs them; the variable `container` says so"),
    row("", ".mounts[/etc/hosts].source = /etc/hosts | .mounts[/etc/hosts].options[] = * | .mounts[/etc/resolv.conf].source = /etc/resolv.conf | .mounts[/etc/resolv.conf].options[] = *", "--network host: the host's own files, read-only; podman copies them"),
    row(".mounts[/etc/resolv.conf].source = PODMAN/*", "", "likewise"),
    row("", ".mounts[/host/etc].options[] = no* | .mounts[/mnt].options[] = no* | .mounts[/srv].options[] = no*", "production profile: set-id files and devices of a volume mean nothing: `suid` and `dev` say otherwise"),
    row(".mounts[/scratch].options[] = size=1m | .mounts[/m].options[] = size=1m", ".mounts[/scratch].options[] = size=1048576 | .mounts[/m].options[] = size=1048576", "the same number"),
    row("", ".mounts[/scratch].options[] = mode=1777 | .mounts[/m].options[] = mode=1777", "the kernel's default, said"),
    // Linux.
    row("", ".linux.namespaces[cgroup].type = cgroup", "podman makes none where version 1 of control groups is mounted; a container needs no more of the host's groups there"),
    row(".linux.sysctl.net.ipv4.ping_group_range = 0 0", ".linux.sysctl.net.ipv4.*", "production profile: any user may ping and listen on low ports of the container's own network, which spares two capabilities"),
    row("", ".linux.maskedPaths[] = *", "the profile hides what any engine hides, and kernel internals: `--security-opt unmask=PATH`"),
    row(".linux.readonlyPaths[] = /proc/asound", "", "it is hidden"),
    row("", ".linux.resources.devices[0].*", "--uidmap: podman says nothing about devices to users without rights of the host; here no device may be opened but the defaults, as always"),
    row(".linux.devices[*].fileMode = *", ".linux.devices[*].fileMode = *", "podman's number holds the type of the node, too, which is a member of its own"),
    row(".linux.devices[/dev/ptmx].*", "", "--privileged gives every device of the host, but the container's terminals are its own"),
    row(".linux.resources.pids.limit = 2048", ".linux.resources.pids.limit = 1024", "production profile: `--pids-limit`"),
    row(".linux.resources.pids.limit = 0", "", "no limit is no member"),
    row(".linux.resources.memory.swap = 134217728", ".linux.resources.memory.swap = 67108864", "--memory alone allows no swap; podman as much again: `--memory-swap`"),
    row("", ".linux.resources.memory.swap = -1", "podman leaves out that swap has no limit; a runtime would then take its own default"),
];
