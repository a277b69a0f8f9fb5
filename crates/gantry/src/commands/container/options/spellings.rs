// SPDX-License-Identifier: Apache-2.0
//! Every option of `docker run` and `podman run`, and what becomes of it here.
//!
//! One table: options that are refused get their sentence from it, options that are taken with some values only are
//! read by it, tests hold the others against the command line and against the two tools, and
//! `docs/options.md` shows it.

use clap::{Arg, ArgAction, ArgMatches, Command};
use gantry_oci::Kind;

use crate::exit::Failure;

/// What becomes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It means the same.
    Taken,
    /// It is taken, and means what the note says.
    Translated,
    /// These values alone are taken, as they are what happens anyway.
    Only(&'static [&'static str]),
    /// It is refused with the note.
    Refused,
}

use Verdict::{Only, Refused, Taken, Translated};

/// One option.
#[derive(Debug, Clone, Copy)]
pub struct Spelling {
    /// Its long name.
    pub name: &'static str,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why, or how.
    pub note: &'static str,
}

const fn row(name: &'static str, verdict: Verdict, note: &'static str) -> Spelling {
    Spelling {
        name,
        verdict,
        note,
    }
}

const NO_NETWORK: &str = "networks beside none, host and those of others are not here yet";
const NO_HEALTH: &str = "nothing looks after a container's health yet";
const PULL: &str = "`gantry pull` takes it; run takes what is in the store";
const ACCOUNTS: &str = "accounts are the image's own; nothing is written into them";
const WINDOWS: &str = "it is about Windows";
const TRUE_FALSE: &[&str] = &["", "true", "false"];

/// All of them, by name.
#[rustfmt::skip]
pub const SPELLINGS: &[Spelling] = &[
    row("add-host", Translated, "`run` writes the line; a document holds no files, so `generate` refuses it; host-gateway is refused"),
    row("annotation", Taken, ""),
    row("arch", Refused, PULL),
    row("attach", Refused, "standard output and error are attached, standard input with --interactive"),
    row("authfile", Refused, PULL),
    row("blkio-weight", Taken, ""),
    row("blkio-weight-device", Taken, ""),
    row("cap-add", Taken, ""),
    row("cap-drop", Taken, ""),
    row("cgroup-conf", Taken, ""),
    row("cgroup-parent", Translated, "a path; slices of systemd are the runtime's --systemd-cgroup"),
    row("cgroupns", Translated, "private, host, ns:PATH, container:NAME"),
    row("cgroups", Only(&["enabled"]), "a container is always in control groups of its own where the host has them"),
    row("chrootdirs", Refused, "programs that change their root bring what they need"),
    row("cidfile", Taken, ""),
    row("conmon-pidfile", Refused, "there is no conmon; `gantry ps` shows the monitor"),
    row("cpu-count", Refused, WINDOWS),
    row("cpu-percent", Refused, WINDOWS),
    row("cpu-period", Taken, ""),
    row("cpu-quota", Taken, ""),
    row("cpu-rt-period", Taken, ""),
    row("cpu-rt-runtime", Taken, ""),
    row("cpu-shares", Taken, ""),
    row("cpus", Taken, ""),
    row("cpuset-cpus", Taken, ""),
    row("cpuset-mems", Taken, ""),
    row("detach", Taken, ""),
    row("detach-keys", Refused, "a terminal is left by ending its program; --detach starts without one"),
    row("device", Translated, "nodes below /dev, and names of CDI"),
    row("device-cgroup-rule", Taken, ""),
    row("device-read-bps", Taken, ""),
    row("device-read-iops", Taken, ""),
    row("device-write-bps", Taken, ""),
    row("device-write-iops", Taken, ""),
    row("disable-content-trust", Only(TRUE_FALSE), "podman ignores it, too: what may run stands in policy.json"),
    row("dns", Translated, "`run` writes the file; a document holds no files, so `generate` refuses it"),
    row("dns-option", Translated, "as --dns; docker's --dns-opt, too"),
    row("dns-search", Translated, "as --dns"),
    row("domainname", Taken, ""),
    row("entrypoint", Taken, ""),
    row("env", Translated, "a name that ends in * is refused"),
    row("env-file", Taken, ""),
    row("env-host", Taken, ""),
    row("env-merge", Refused, "variables of the image are not expanded; --env sets what they shall be"),
    row("expose", Refused, NO_NETWORK),
    row("gidmap", Translated, "numbers; `generate` only, as --userns"),
    row("gpus", Translated, "all and device=NAME,… by the CDI file of nvidia.com/gpu; neither a count nor capabilities"),
    row("group-add", Translated, "not keep-groups: a container is started by root"),
    row("group-entry", Refused, ACCOUNTS),
    row("health-cmd", Only(&["none"]), NO_HEALTH),
    row("health-interval", Refused, NO_HEALTH),
    row("health-on-failure", Only(&["none"]), NO_HEALTH),
    row("health-retries", Refused, NO_HEALTH),
    row("health-start-interval", Refused, NO_HEALTH),
    row("health-start-period", Refused, NO_HEALTH),
    row("health-timeout", Refused, NO_HEALTH),
    row("help", Taken, ""),
    row("hostname", Taken, ""),
    row("hostuser", Refused, ACCOUNTS),
    row("http-proxy", Translated, "off unless asked for; podman's is on"),
    row("image-volume", Translated, "bind is a layer of the container's own; a document has memory instead"),
    row("init", Translated, "catatonit, docker-init or tini-static of this host at /dev/init"),
    row("init-path", Translated, "a program that needs no libraries, since images may have none"),
    row("interactive", Taken, ""),
    row("io-maxbandwidth", Refused, WINDOWS),
    row("io-maxiops", Refused, WINDOWS),
    row("ip", Refused, NO_NETWORK),
    row("ip6", Refused, NO_NETWORK),
    row("ipc", Translated, "private, none, host, ns:PATH, container:NAME; shareable is private, as any container's can be joined"),
    row("isolation", Only(&["", "default"]), WINDOWS),
    row("kernel-memory", Refused, "the kernel has no such limit any more"),
    row("label", Translated, "a document has no labels: `generate` writes an annotation"),
    row("label-file", Translated, "as --label"),
    row("link", Refused, NO_NETWORK),
    row("link-local-ip", Refused, NO_NETWORK),
    row("log-driver", Only(&["k8s-file", "json-file"]), "there is one log, in files of its own format that `gantry logs` reads"),
    row("log-opt", Refused, "the log is turned at 64 MiB, two older files are kept"),
    row("mac-address", Refused, NO_NETWORK),
    row("memory", Translated, "swap is limited to as much, so that none is used; --memory-swap says otherwise"),
    row("memory-reservation", Taken, ""),
    row("memory-swap", Taken, ""),
    row("memory-swappiness", Taken, ""),
    row("mount", Translated, "type=bind and type=tmpfs"),
    row("name", Translated, "names the container of `run`; `generate` takes it as --id"),
    row("network", Translated, "none, host, ns:PATH, container:NAME; docker's --net, too; none unless said"),
    row("network-alias", Refused, NO_NETWORK),
    row("no-healthcheck", Only(TRUE_FALSE), NO_HEALTH),
    row("no-hosts", Taken, ""),
    row("oom-kill-disable", Taken, ""),
    row("oom-score-adj", Taken, ""),
    row("os", Refused, PULL),
    row("passwd", Only(&["false"]), ACCOUNTS),
    row("passwd-entry", Refused, ACCOUNTS),
    row("personality", Taken, ""),
    row("pid", Translated, "private, host, ns:PATH, container:NAME"),
    row("pidfile", Refused, "`gantry ps --json` and `gantry inspect` say it; a file would outlive the process"),
    row("pids-limit", Taken, ""),
    row("platform", Refused, PULL),
    row("pod", Refused, "there are no pods yet; --network, --ipc and --pid join a container's namespaces"),
    row("pod-id-file", Refused, "there are no pods yet"),
    row("preserve-fds", Refused, "the monitor passes standard streams on and nothing else"),
    row("privileged", Taken, ""),
    row("publish", Refused, NO_NETWORK),
    row("publish-all", Refused, NO_NETWORK),
    row("pull", Translated, "missing, always, never; newer is refused"),
    row("quiet", Only(TRUE_FALSE), "progress is shown on a terminal only; --progress says otherwise"),
    row("read-only", Translated, "the production profile's default; --writable is its opposite"),
    row("read-only-tmpfs", Taken, ""),
    row("replace", Refused, "`gantry rm --force NAME` says that a container ends"),
    row("requires", Refused, "an order of containers is their supervisor's: a unit of systemd"),
    row("restart", Only(&["no"]), "starting again is a supervisor's: a unit of systemd"),
    row("rm", Taken, ""),
    row("rmi", Refused, "`gantry rmi` removes images"),
    row("rootfs", Refused, "nothing runs that no policy admitted; `gantry runtime run` runs any bundle"),
    row("runtime", Taken, ""),
    row("sdnotify", Only(&["ignore"]), "readiness is not passed on yet"),
    row("seccomp-policy", Only(&["default"]), "an image does not choose its own filter"),
    row("secret", Refused, "--volume shows a file, and memory keeps it: --mount type=tmpfs"),
    row("security-opt", Translated, "not label=TYPE and proc-opts=…: --help lists what is"),
    row("shm-size", Taken, ""),
    row("sig-proxy", Taken, ""),
    row("stop-signal", Taken, ""),
    row("stop-timeout", Taken, ""),
    row("storage-opt", Refused, "the store has no sizes of single containers"),
    row("subgidname", Refused, "ids are not chosen for you; --gidmap says them"),
    row("subuidname", Refused, "ids are not chosen for you; --uidmap says them"),
    row("sysctl", Taken, ""),
    row("systemd", Only(&["false"]), "system containers are not here yet"),
    row("timeout", Refused, "a supervisor ends what takes too long: RuntimeMaxSec= of systemd, timeout(1)"),
    row("tls-verify", Refused, PULL),
    row("tmpfs", Taken, ""),
    row("tty", Taken, ""),
    row("tz", Refused, "--env TZ=ZONE, and --volume /usr/share/zoneinfo where the image has none"),
    row("uidmap", Translated, "numbers; `generate` only, as --userns"),
    row("ulimit", Translated, "not host: limits are those of the profile"),
    row("umask", Taken, ""),
    row("unsetenv", Taken, ""),
    row("unsetenv-all", Taken, ""),
    row("use-api-socket", Refused, "there is no daemon, and so no socket of one"),
    row("user", Taken, ""),
    row("userns", Translated, "host, ns:PATH, container:NAME, and new users by number; `generate` only: run's images belong to the host's users"),
    row("uts", Translated, "private, host, ns:PATH, container:NAME"),
    row("variant", Refused, PULL),
    row("volume", Translated, "paths; named volumes and the options U, O and idmap are refused"),
    row("volume-driver", Refused, "volumes are paths"),
    row("volumes-from", Refused, "--volume shows the same paths"),
    row("workdir", Taken, ""),
];

/// Short names of options that are refused.
const SHORT: [(&str, char); 4] = [
    ("attach", 'a'),
    ("publish", 'p'),
    ("publish-all", 'P'),
    ("quiet", 'q'),
];

/// Those that no word follows.
const SWITCHES: [&str; 10] = [
    "disable-content-trust",
    "no-healthcheck",
    "passwd",
    "publish-all",
    "quiet",
    "replace",
    "rmi",
    "rootfs",
    "tls-verify",
    "use-api-socket",
];

/// Options that were given and are in the table alone.
#[derive(Debug, Clone, Default)]
pub struct OtherOptions(Vec<(&'static Spelling, String)>);

impl OtherOptions {
    /// Refuses, with the table's sentence.
    ///
    /// # Errors
    /// An option, or a value, that we do not have.
    pub fn check(&self) -> Result<(), Failure> {
        let Some((spelling, value)) = self.0.iter().find(|(spelling, value)| {
            !matches!(spelling.verdict, Only(values) if values.contains(&value.as_str()))
        }) else {
            return Ok(());
        };
        let Spelling { name, note, .. } = spelling;
        let failure = Failure::message(
            Kind::Unsupported,
            match spelling.verdict {
                Only(_) => format!("--{name} {value:?}: {note}"),
                _ => format!("--{name}: {note}"),
            },
        );
        Err(failure.hint("docs/options.md lists what becomes of docker's and podman's options"))
    }
}

fn of_table() -> impl Iterator<Item = &'static Spelling> {
    SPELLINGS
        .iter()
        .filter(|spelling| matches!(spelling.verdict, Refused | Only(_)))
}

fn argument(spelling: &'static Spelling) -> Arg {
    let argument = Arg::new(spelling.name)
        .long(spelling.name)
        .action(ArgAction::Append)
        .hide(true)
        .default_missing_value("");
    let argument = match SHORT.iter().find(|(name, _)| *name == spelling.name) {
        Some((_, letter)) => argument.short(*letter),
        None => argument,
    };
    if SWITCHES.contains(&spelling.name) {
        return argument.num_args(0..=1).require_equals(true);
    }
    argument.num_args(1).allow_hyphen_values(true)
}

impl clap::Args for OtherOptions {
    fn augment_args(command: Command) -> Command {
        of_table().fold(command, |command, spelling| {
            let known = |arg: &Arg| arg.get_long() == Some(spelling.name);
            // oci-runtime-tool has a flag of that name.
            if command.get_arguments().any(known) || spelling.name == "os" {
                command
            } else {
                command.arg(argument(spelling))
            }
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for OtherOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for spelling in of_table().filter(|spelling| spelling.name != "os") {
            let values = matches.get_many::<String>(spelling.name);
            given.extend(
                values
                    .into_iter()
                    .flatten()
                    .map(|value| (spelling, value.clone())),
            );
        }
        Ok(Self(given))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::CommandFactory as _;

    fn of_command(name: &str) -> Vec<String> {
        let command = Cli::command();
        let verb = command.find_subcommand(name).unwrap();
        let arguments = verb
            .get_arguments()
            .filter(|argument| !argument.is_hide_set());
        let names = arguments
            .flat_map(|argument| argument.get_long_and_visible_aliases().unwrap_or_default());
        names.map(str::to_owned).collect()
    }

    #[test]
    fn table_is_sorted_and_what_it_says_of_the_command_line_holds() {
        assert!(SPELLINGS.is_sorted_by_key(|spelling| spelling.name));
        let (run, generate) = (of_command("run"), of_command("generate"));
        for Spelling {
            name,
            verdict,
            note,
        } in SPELLINGS
        {
            let taken = matches!(verdict, Taken | Translated);
            let here = run.iter().any(|known| known == name);
            assert_eq!(here, taken, "{name}");
            assert!(*verdict == Taken || !note.is_empty(), "{name} says nothing");
            // What the container shall be is the same for both; the rest is about running.
            let of_run = ["cidfile", "detach", "pull", "rm", "runtime", "sig-proxy"];
            if taken && !of_run.contains(name) {
                assert!(
                    generate.iter().any(|known| known == name),
                    "generate --{name}"
                );
            }
        }
    }

    /// `GANTRY_BLESS=1` writes it.
    #[test]
    fn page_shows_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/options.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (head, rest) = page.split_once("<!-- table -->\n").unwrap();
        let (old, tail) = rest.split_once("<!-- end -->\n").unwrap();
        let mut new = String::from("| option | here | |\n|---|---|---|\n");
        for Spelling {
            name,
            verdict,
            note,
        } in SPELLINGS
        {
            let word = match verdict {
                Taken => "taken".to_owned(),
                Translated => "translated".to_owned(),
                Only(values) => match values {
                    ["", ..] => "ignored".to_owned(),
                    values => format!("only `{}`", values.join("`, `")),
                },
                Refused => "refused".to_owned(),
            };
            new.push_str(&format!("| `--{name}` | {word} | {note} |\n"));
        }
        if std::env::var_os("GANTRY_BLESS").is_some() {
            let page = format!("{head}<!-- table -->\n{new}<!-- end -->\n{tail}");
            std::fs::write(path, page).unwrap();
        } else {
            assert_eq!(old, new, "run with GANTRY_BLESS=1 and read the diff");
        }
    }

    /// The tools on this machine are the judges of what there is.
    #[test]
    fn table_has_every_option_of_docker_and_podman() {
        let mut judges = 0;
        for tool in ["docker", "podman"] {
            let asked = std::process::Command::new(tool)
                .args(["run", "--help"])
                .output();
            let Ok(output) = asked else { continue };
            judges += usize::from(output.status.success());
            let text = String::from_utf8(output.stdout).unwrap();
            for line in text.lines().map(str::trim_start) {
                let line = line
                    .get(..2)
                    .filter(|short| short.starts_with('-') && *short != "--")
                    .map_or(line, |_| line.get(4..).unwrap_or(""));
                let Some(rest) = line.strip_prefix("--") else {
                    continue;
                };
                let name = rest
                    .split(|c: char| c.is_whitespace() || c == '=')
                    .next()
                    .unwrap();
                assert!(
                    SPELLINGS.iter().any(|spelling| spelling.name == name),
                    "{tool} run --{name} is not in the table"
                );
            }
        }
        if judges == 0 {
            gantry_testkit::skip!("neither docker nor podman is installed");
        }
    }
}
