// SPDX-License-Identifier: Apache-2.0
//! `gantry runtime`, and `gantry-runtime`: our own OCI runtime, with runc's command line.
//!
//! `main` hands over before anything else is started: what clones into containers has one thread.

mod create;
mod criu;
mod events;
mod exec;
mod features;
mod log;
mod show;
mod spec;
mod update;
mod verbs;
mod words;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gantry_runtime::oci::cgroup::Driver;
use gantry_runtime::oci::cgroup::systemd::BusAddress;
use gantry_runtime::oci::{Context, RuntimeError, delete, is_nested, kill, pause, seal, start};

use crate::exit::Outcome;
use log::Log;
use verbs::{GLOBAL, VERBS, Verb};
use words::{Flag, Words};

/// The name by which the program is the runtime alone.
pub const NAME: &str = "gantry-runtime";
/// runc's status for every failure.
const FAILED: u8 = 1;

/// Be the OCI runtime: the command line of runc, for podman, containerd, CRI-O, Docker and people.
///
/// `gantry runtime --help` lists the verbs. The same program called as gantry-runtime (by a link or a copy of that
/// name) is the runtime alone: `podman --runtime /usr/local/bin/gantry-runtime`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Runtime {
    /// A verb with its flags and words
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "VERB"
    )]
    words: Vec<OsString>,
}

impl Runtime {
    /// Hands over.
    pub fn run(self) -> Outcome {
        Ok(main(&self.words))
    }
}

/// What a verb answers: the status to end with, or a sentence.
type Answer = Result<u8, Failure>;

/// Why a verb failed.
#[derive(Debug)]
enum Failure {
    /// The words make no sense.
    Usage(String),
    /// It could not be done.
    Runtime(RuntimeError),
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        Self::Runtime(error)
    }
}

impl From<String> for Failure {
    fn from(sentence: String) -> Self {
        Self::Usage(sentence)
    }
}

impl Failure {
    fn sentence(&self) -> String {
        match self {
            Self::Usage(sentence) => sentence.clone(),
            Self::Runtime(error) => error.sentence(),
        }
    }
}

/// The whole command: words after the name in, exit status out.
#[must_use]
pub fn main(args: &[OsString]) -> ExitCode {
    let global = match Words::parse(args, GLOBAL) {
        Ok(global) => global,
        Err(sentence) => return complain(&sentence),
    };
    if global.has("version") {
        let version = env!("CARGO_PKG_VERSION");
        return print(&format!("{NAME} version {version}\nspec: 1.3.0\n"));
    }
    let Some((name, words)) = global.rest.split_first().filter(|_| !global.has("help")) else {
        return print(&usage());
    };
    let Some(verb) = VERBS.iter().find(|verb| *name == *verb.name) else {
        return complain(&format!(
            "{:?} is no verb; --help lists them",
            name.to_string_lossy()
        ));
    };
    let log = match Log::new(&global) {
        Ok(log) => log.sharing_streams(verb.sealed),
        Err(sentence) => return complain(&sentence),
    };
    let answer = Words::parse(words, verb.flags)
        .map_err(Failure::Usage)
        .and_then(|words| act(verb, &global, &words, &log));
    match answer {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            log.fail(&failure.sentence());
            ExitCode::from(FAILED)
        }
    }
}

fn act(verb: &Verb, global: &Words, words: &Words, log: &Log) -> Answer {
    if words.has("help") {
        print(&usage_of(verb));
        return Ok(0);
    }
    if verb.sealed {
        seal::ensure_sealed()?;
    }
    let warn = |sentence: &str| log.warn(sentence);
    let context = Context {
        root: root(global),
        cgroups: driver(global)?,
        rootless: match global.text("rootless")? {
            None | Some("auto") => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(other) => return Err(Failure::Usage(format!("--rootless: {other:?}"))),
        },
        warn: &warn,
    };
    match verb.name {
        "create" => create::create(&context, words),
        "run" => create::run(&context, words),
        "plan" => create::plan(&context, words),
        "start" => start::start(&context, one_id(words)?)
            .map(|()| 0)
            .map_err(Into::into),
        "exec" => exec::exec(&context, words),
        "kill" => {
            let (id, rest) = id_and_rest(words)?;
            let number = match rest {
                [] => 15,
                [signal] => kill::parse_signal(&signal.to_string_lossy())?,
                _ => return Err(too_many(words)),
            };
            kill::kill(&context, id, number, words.has("all"))?;
            Ok(0)
        }
        "delete" => {
            id_and_rest(words)?;
            for id in &words.rest {
                delete::delete(&context, text(id)?, words.has("force"))?;
            }
            Ok(0)
        }
        "checkpoint" => criu::checkpoint(&context, global, words),
        "restore" => criu::restore(&context, global, words),
        "pause" => pause::pause(&context, one_id(words)?)
            .map(|()| 0)
            .map_err(Into::into),
        "resume" => pause::resume(&context, one_id(words)?)
            .map(|()| 0)
            .map_err(Into::into),
        "update" => update::update(&context, words),
        "events" => events::events(&context, words),
        "state" => show::state(&context, one_id(words)?),
        "list" => show::list(&context, words),
        "ps" => show::ps(&context, words),
        "spec" => spec::spec(words),
        _ => features::features(),
    }
}

fn driver(global: &Words) -> Result<Option<Driver>, Failure> {
    let by_systemd = match global.text("cgroup-manager")? {
        Some("disabled") => return Ok(None),
        None | Some("cgroupfs") => global.has("systemd-cgroup"),
        Some("systemd") => true,
        Some(other) => return Err(Failure::Usage(format!("--cgroup-manager: {other:?}"))),
    };
    if !by_systemd {
        return Ok(Some(Driver::Files));
    }
    if !serves_user() {
        return Ok(Some(Driver::Systemd(BusAddress::system())));
    }
    let variable = |name| std::env::var(name).ok();
    let (bus, dir) = (
        variable("DBUS_SESSION_BUS_ADDRESS"),
        variable("XDG_RUNTIME_DIR"),
    );
    let user = BusAddress::user(bus.as_deref(), dir.as_deref()).ok_or_else(|| {
        Failure::Usage("--systemd-cgroup: no bus of a user's systemd is known".to_owned())
    })?;
    Ok(Some(Driver::Systemd(user)))
}

/// Sockets that the caller was activated with, which the program inherits: how many, and what it is told.
fn socket_activation() -> (u32, Vec<String>) {
    let count = std::env::var("LISTEN_FDS")
        .ok()
        .and_then(|text| text.parse::<u16>().ok())
        .map_or(0, u32::from);
    let mut env = Vec::new();
    if count > 0 {
        env.push(format!("LISTEN_FDS={count}"));
        env.push("LISTEN_PID=1".to_owned());
        if let Ok(names) = std::env::var("LISTEN_FDNAMES") {
            env.push(format!("LISTEN_FDNAMES={names}"));
        }
    }
    (count, env)
}

fn root(global: &Words) -> PathBuf {
    if let Some(root) = global.get("root").filter(|root| !root.is_empty()) {
        return std::path::absolute(root).unwrap_or_else(|_| root.into());
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match own {
        Some(dir) if serves_user() => Path::new(&dir).join(NAME),
        _ => Path::new("/run").join(NAME),
    }
}

/// Whether the containers are a user's, who has directories and a systemd of the own: runc's rule. Below podman of a user we
/// are root, of a user namespace.
fn serves_user() -> bool {
    !rustix::process::geteuid().is_root()
        || is_nested() && std::env::var_os("USER").is_none_or(|name| name != "root")
}

fn text(word: &OsString) -> Result<&str, Failure> {
    word.to_str()
        .ok_or_else(|| Failure::Usage("an id is not UTF-8".to_owned()))
}

fn id_and_rest(words: &Words) -> Result<(&str, &[OsString]), Failure> {
    let (id, rest) = words
        .rest
        .split_first()
        .ok_or_else(|| Failure::Usage("a container's id is missing".to_owned()))?;
    Ok((text(id)?, rest))
}

fn one_id(words: &Words) -> Result<&str, Failure> {
    match id_and_rest(words)? {
        (id, []) => Ok(id),
        _ => Err(too_many(words)),
    }
}

fn too_many(words: &Words) -> Failure {
    Failure::Usage(format!("{} words are too many", words.rest.len()))
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}

fn complain(sentence: &str) -> ExitCode {
    // There is nobody else to tell.
    writeln!(std::io::stderr(), "gantry runtime: error: {sentence}").ok();
    ExitCode::from(FAILED)
}

fn table(flags: &[Flag]) -> String {
    flags.iter().fold(String::new(), |text, flag| {
        let mut names: Vec<String> = flag
            .names
            .iter()
            .map(|name| match name.len() {
                1 => format!("-{name}"),
                _ => format!("--{name}"),
            })
            .collect();
        names.reverse();
        let left = format!("{} {}", names.join(", "), flag.value.unwrap_or(""));
        format!("{text}  {left:<32} {}\n", flag.help)
    })
}

fn usage() -> String {
    let verbs = VERBS.iter().fold(String::new(), |text, verb| {
        format!("{text}  {:<10} {}\n", verb.name, verb.help)
    });
    format!(
        "An OCI runtime with the command line of runc.\n\n\
         Usage: gantry runtime [FLAG]... VERB [FLAG]... [WORD]...\n\nVerbs:\n{verbs}\nFlags:\n{}",
        table(GLOBAL)
    )
}

fn usage_of(verb: &Verb) -> String {
    let Verb {
        name,
        words,
        help,
        flags,
        ..
    } = verb;
    format!(
        "{name}: {help}\n\nUsage: gantry runtime {name} [FLAG]... {words}\n\nFlags:\n{}",
        table(flags)
    )
}
