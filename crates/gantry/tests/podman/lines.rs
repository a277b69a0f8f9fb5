// SPDX-License-Identifier: Apache-2.0
//! Command lines that podman and Gantry are both given: options, then the program.

/// `create OPTIONS IMAGE PROGRAM` of podman, `generate OPTIONS --image IMAGE -- PROGRAM` of Gantry.
#[derive(Debug)]
pub struct Line {
    pub options: &'static [&'static str],
    pub program: &'static [&'static str],
}

const fn line(options: &'static [&'static str]) -> Line {
    Line {
        options,
        program: &[],
    }
}

const fn with(options: &'static [&'static str], program: &'static [&'static str]) -> Line {
    Line { options, program }
}

#[rustfmt::skip]
pub const LINES: [Line; 62] = [
    line(&[]),
    line(&["--profile=compat"]),
    with(&[], &["sh", "-c", "echo hello"]),
    line(&["--entrypoint", "/bin/sh"]),
    line(&["--entrypoint", "[\"sh\",\"-c\"]"]),
    with(&["--entrypoint", ""], &["id"]),
    line(&["-e", "A=1", "-e", "B=x y"]),
    line(&["-e", "PATH=/bin"]),
    line(&["--unsetenv", "PATH"]),
    line(&["--unsetenv-all", "-e", "A=1"]),
    line(&["-t"]),
    line(&["-i", "-t", "-e", "TERM=vt100"]),
    line(&["-w", "/bin"]),
    line(&["-u", "0:0"]),
    line(&["-u", "1000"]),
    line(&["-u", "1000:2000"]),
    line(&["-u", "1000", "--cap-add", "NET_RAW"]),
    line(&["--group-add", "44", "--group-add", "100"]),
    line(&["--read-only"]),
    line(&["--read-only", "--read-only-tmpfs=false"]),
    line(&["--hostname", "web"]),
    line(&["--cap-add", "SYS_PTRACE"]),
    line(&["--cap-drop", "ALL"]),
    line(&["--cap-drop", "ALL", "--cap-add", "NET_BIND_SERVICE"]),
    line(&["--cap-drop", "CHOWN"]),
    line(&["--cap-add", "ALL"]),
    line(&["--privileged"]),
    line(&["--security-opt", "no-new-privileges"]),
    line(&["--security-opt", "seccomp=unconfined"]),
    line(&["--security-opt", "mask=/etc/passwd"]),
    line(&["--security-opt", "unmask=/proc/kcore"]),
    line(&["--security-opt", "unmask=ALL"]),
    line(&["--security-opt", "label=disable"]),
    line(&["--memory", "64m"]),
    line(&["--memory", "64m", "--memory-swap", "128m"]),
    line(&["--memory", "64m", "--memory-swap", "-1"]),
    line(&["--memory", "64m", "--memory-reservation", "32m"]),
    line(&["--memory-swappiness", "10"]),
    line(&["--oom-kill-disable", "--memory", "64m"]),
    line(&["--oom-score-adj", "100"]),
    line(&["--cpus", "1.5"]),
    line(&["--cpu-shares", "512"]),
    line(&["--cpu-period", "50000", "--cpu-quota", "25000"]),
    line(&["--cpuset-cpus", "0"]),
    line(&["--cpuset-mems", "0"]),
    line(&["--pids-limit", "100"]),
    line(&["--pids-limit", "-1"]),
    line(&["--ulimit", "nofile=1024:2048", "--ulimit", "core=0"]),
    line(&["--shm-size", "1m"]),
    line(&["--tmpfs", "/scratch"]),
    line(&["--tmpfs", "/scratch:size=1m,mode=700"]),
    line(&["-v", "/etc:/host/etc:ro"]),
    line(&["-v", "/srv:/srv"]),
    line(&["--mount", "type=bind,src=/etc,dst=/mnt,ro"]),
    line(&["--mount", "type=tmpfs,dst=/m,tmpfs-size=1m"]),
    line(&["--device", "/dev/null:/dev/nothing:rw"]),
    line(&["--device-cgroup-rule", "c 10:* rw"]),
    line(&["--sysctl", "net.core.somaxconn=1024"]),
    line(&["--pid", "host", "--uts", "host", "--ipc", "host", "--cgroupns", "host"]),
    line(&["--network", "host"]),
    line(&["--ipc", "none", "--umask", "077", "--personality", "LINUX32"]),
    line(&["--annotation", "org.example=x", "--uidmap", "0:100000:65536"]),
];
