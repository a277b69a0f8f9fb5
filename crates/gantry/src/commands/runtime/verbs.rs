// SPDX-License-Identifier: Apache-2.0
//! Every verb with its flags.

use super::words::{Flag, switch, value};

/// A verb.
#[derive(Debug, Clone, Copy)]
pub struct Verb {
    /// Its name.
    pub name: &'static str,
    /// What follows its flags.
    pub words: &'static str,
    /// One line.
    pub help: &'static str,
    /// Its flags.
    pub flags: &'static [Flag],
    /// It clones into containers, so it runs from a file that they cannot write to.
    pub sealed: bool,
}

const fn plain(
    name: &'static str,
    words: &'static str,
    help: &'static str,
    flags: &'static [Flag],
) -> Verb {
    Verb {
        name,
        words,
        help,
        flags,
        sealed: false,
    }
}

const fn cloning(
    name: &'static str,
    words: &'static str,
    help: &'static str,
    flags: &'static [Flag],
) -> Verb {
    Verb {
        name,
        words,
        help,
        flags,
        sealed: true,
    }
}

/// Before the verb.
pub const GLOBAL: &[Flag] = &[
    value(
        &["root"],
        "DIR",
        "where containers are kept [default: /run/gantry-runtime, or below XDG_RUNTIME_DIR]",
    ),
    value(
        &["log"],
        "FILE",
        "where failures and warnings are written, too",
    ),
    value(&["log-format"], "FORMAT", "text or json [default: text]"),
    switch(&["systemd-cgroup"], "let systemd make control groups"),
    value(
        &["cgroup-manager"],
        "WHO",
        "cgroupfs, systemd or disabled, in crun's words",
    ),
    value(&["rootless"], "BOOL", "true, false or auto [default: auto]"),
    value(&["criu"], "FILE", "CRIU [default: criu of the search path]"),
    switch(&["debug"], "say more"),
    value(&["log-level"], "LEVEL", "accepted for crun's callers"),
    switch(&["version", "v"], "print the version"),
    switch(&["help", "h"], "print this"),
];

const BUNDLE: Flag = value(&["bundle", "b"], "DIR", "the bundle [default: .]");
const CONFIG: Flag = value(
    &["config", "f"],
    "FILE",
    "the document, where it is not the bundle's config.json",
);
const CONSOLE: Flag = value(&["console-socket"], "SOCKET", "who gets the terminal");
const PID_FILE: Flag = value(&["pid-file"], "FILE", "where the pid is written");
const PRESERVE: Flag = value(
    &["preserve-fds"],
    "N",
    "descriptors from 3 on that the program gets",
);
const NO_PIVOT: Flag = switch(
    &["no-pivot"],
    "the root is an initial ramdisk, which cannot be pivoted",
);
const KEYRING: Flag = switch(&["no-new-keyring"], "keep the caller's session keyring");
const DETACH: Flag = switch(&["detach", "d"], "return once the program runs");
const SUBREAPER: Flag = switch(&["no-subreaper"], "accepted for runc's callers");
const HELP: Flag = switch(&["help", "h"], "print this");

const IMAGES: Flag = value(&["image-path"], "DIR", "the files [default: checkpoint]");
const WORK: Flag = value(
    &["work-path"],
    "DIR",
    "logs and statistics [default: as --image-path]",
);
const TCP: Flag = switch(&["tcp-established"], "keep connections of TCP");
const IN_FLIGHT: Flag = switch(
    &["tcp-skip-in-flight"],
    "pass over connections that are being made",
);
const UNIX: Flag = switch(
    &["ext-unix-sk"],
    "let Unix sockets have their other end outside",
);
const SHELL_JOB: Flag = switch(
    &["shell-job"],
    "let session and process group be somebody else's",
);
const LOCKS: Flag = switch(&["file-locks"], "keep locks of files");
const LAZY: Flag = switch(&["lazy-pages"], "fetch memory when it is needed");
const CGROUPS_MODE: Flag = value(
    &["manage-cgroups-mode"],
    "MODE",
    "ignore (they are the runtime's), or soft, full, strict, props of CRIU [default: ignore]",
);
const DEDUP: Flag = switch(
    &["auto-dedup"],
    "take out of an earlier image what a later one has",
);
const EMPTY_NS: Flag = value(&["empty-ns"], "KIND", "network: keep it empty");

/// All of them.
pub const VERBS: &[Verb] = &[
    cloning(
        "create",
        "ID",
        "make a container whose program waits for start",
        &[
            BUNDLE, CONFIG, CONSOLE, PID_FILE, PRESERVE, NO_PIVOT, KEYRING, HELP,
        ],
    ),
    plain(
        "start",
        "ID",
        "let the program of a created container run",
        &[HELP],
    ),
    cloning(
        "run",
        "ID",
        "create and start a container, and stay until it ends",
        &[
            BUNDLE,
            CONFIG,
            CONSOLE,
            PID_FILE,
            PRESERVE,
            NO_PIVOT,
            KEYRING,
            DETACH,
            SUBREAPER,
            switch(&["keep"], "keep the container when its program has ended"),
            HELP,
        ],
    ),
    cloning(
        "exec",
        "ID [PROGRAM [ARG]...]",
        "run one more process in a container",
        &[
            CONSOLE,
            PID_FILE,
            PRESERVE,
            DETACH,
            SUBREAPER,
            value(&["process", "p"], "FILE", "the process as a document"),
            value(&["cwd"], "DIR", "its directory"),
            value(&["env", "e"], "NAME=VALUE", "a variable; may be repeated"),
            switch(&["tty", "t"], "give it a terminal"),
            value(&["user", "u"], "UID[:GID]", "who it is"),
            value(
                &["additional-gids", "g"],
                "GID",
                "a supplementary group; may be repeated",
            ),
            value(&["process-label"], "LABEL", "its SELinux label"),
            value(&["apparmor"], "PROFILE", "its AppArmor profile"),
            switch(&["no-new-privs"], "let it gain no privileges"),
            value(
                &["cap", "c"],
                "CAPABILITY",
                "one more capability; may be repeated",
            ),
            value(&["cgroup"], "PATH", "a group below the container's own"),
            switch(&["ignore-paused"], "in a paused container, too"),
            HELP,
        ],
    ),
    plain(
        "kill",
        "ID [SIGNAL]",
        "send a signal to a container's first process [default: TERM]",
        &[switch(&["all", "a"], "to all of its processes"), HELP],
    ),
    plain(
        "delete",
        "ID...",
        "remove containers that have ended",
        &[switch(&["force", "f"], "end them first"), HELP],
    ),
    plain(
        "pause",
        "ID",
        "let every process of a container stand still",
        &[HELP],
    ),
    plain("resume", "ID", "let them go on", &[HELP]),
    plain(
        "update",
        "ID",
        "change the limits of a container",
        &[
            value(
                &["resources", "r"],
                "FILE",
                "limits as in linux.resources of a document; - for standard input",
            ),
            value(&["blkio-weight"], "N", "share of block devices, 10 to 1000"),
            value(&["cpu-period"], "US", "the period of the quota"),
            value(
                &["cpu-quota"],
                "US",
                "processor time in each period; -1 for no limit",
            ),
            value(&["cpu-burst"], "US", "what may be saved up"),
            value(&["cpu-share"], "N", "share of processors, 2 to 262144"),
            value(
                &["cpu-rt-period"],
                "US",
                "the period for real-time processes",
            ),
            value(&["cpu-rt-runtime"], "US", "their time in each"),
            value(&["cpu-idle"], "N", "1 for only what others leave"),
            value(&["cpuset-cpus"], "LIST", "processors"),
            value(&["cpuset-mems"], "LIST", "memory nodes"),
            value(&["memory"], "BYTES", "memory; -1 for no limit"),
            value(
                &["memory-reservation"],
                "BYTES",
                "memory that is left when it becomes scarce",
            ),
            value(
                &["memory-swap"],
                "BYTES",
                "memory and swap together; -1 for no limit",
            ),
            value(&["pids-limit"], "N", "processes; -1 for no limit"),
            HELP,
        ],
    ),
    plain(
        "checkpoint",
        "ID",
        "write a container's processes into files, through CRIU; it ends by that",
        &[
            IMAGES,
            WORK,
            TCP,
            IN_FLIGHT,
            UNIX,
            SHELL_JOB,
            LOCKS,
            LAZY,
            CGROUPS_MODE,
            DEDUP,
            EMPTY_NS,
            value(
                &["parent-path"],
                "DIR",
                "an earlier image, relative to --image-path",
            ),
            switch(&["leave-running"], "the container goes on"),
            switch(
                &["pre-dump"],
                "memory only, in advance; the container goes on",
            ),
            switch(&["link-remap"], "link removed files again meanwhile"),
            value(
                &["page-server"],
                "ADDRESS:PORT",
                "send memory there instead",
            ),
            HELP,
        ],
    ),
    plain(
        "restore",
        "ID",
        "make a container's processes of such files",
        &[
            BUNDLE,
            CONFIG,
            CONSOLE,
            PID_FILE,
            NO_PIVOT,
            DETACH,
            SUBREAPER,
            switch(&["keep"], "keep the container when its program has ended"),
            IMAGES,
            WORK,
            TCP,
            IN_FLIGHT,
            UNIX,
            SHELL_JOB,
            LOCKS,
            LAZY,
            CGROUPS_MODE,
            DEDUP,
            EMPTY_NS,
            value(
                &["lsm-profile"],
                "KIND:NAME",
                "a profile in place of the one of the files",
            ),
            value(
                &["lsm-mount-context"],
                "CONTEXT",
                "a context of SELinux for mounts likewise",
            ),
            HELP,
        ],
    ),
    plain(
        "events",
        "ID",
        "print what a container uses, line by line",
        &[
            value(&["interval"], "TIME", "how often [default: 5s]"),
            switch(&["stats"], "once, and end"),
            HELP,
        ],
    ),
    plain("state", "ID", "print what a container is", &[HELP]),
    plain(
        "list",
        "",
        "print all containers",
        &[
            value(&["format", "f"], "FORMAT", "table or json [default: table]"),
            switch(&["quiet", "q"], "ids only"),
            HELP,
        ],
    ),
    plain(
        "ps",
        "ID [OPTION...]",
        "print the processes of a container",
        &[
            value(&["format", "f"], "FORMAT", "table or json [default: table]"),
            HELP,
        ],
    ),
    plain(
        "plan",
        "",
        "print what would be done for a bundle, step by step, and do nothing",
        &[BUNDLE, CONFIG, switch(&["json"], "as JSON"), HELP],
    ),
    plain(
        "spec",
        "",
        "write a document to begin with, config.json",
        &[
            BUNDLE,
            switch(&["rootless"], "for a user without root's rights"),
            HELP,
        ],
    ),
    plain("features", "", "print what this runtime can do", &[HELP]),
];
