// SPDX-License-Identifier: Apache-2.0
//! A machine to run the command on: a directory, a registry, and no configuration of the host's.
#![allow(
    dead_code,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "helpers of tests; each test file uses a part"
)]

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use gantry_testkit::scratch::{Scratch, scratch};
use gantry_testkit::tool::{self, DockerRegistry};
use serde_json::Value;

/// Ends the test unless these fixtures and programs are here.
#[macro_export]
macro_rules! needs {
    ($fixtures:expr, $tools:expr) => {
        let missing = gantry_testkit::tool::missing(&$tools);
        if !missing.is_empty() {
            gantry_testkit::skip!("{} not installed", missing.join(", "));
        }
        for fixture in $fixtures {
            if let Err(error) = gantry_testkit::fixtures::layout(fixture) {
                gantry_testkit::skip!("{error}");
            }
        }
    };
}

pub struct World {
    pub dir: Scratch,
}

impl World {
    pub fn new() -> Self {
        let world = Self { dir: scratch() };
        world.set_policy(r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
        world
    }

    /// The policy of this world; everything is admitted until a test says otherwise.
    pub fn set_policy(&self, text: &str) {
        std::fs::write(self.policy_file(), text).unwrap();
    }

    pub fn policy_file(&self) -> PathBuf {
        self.dir.join("admitted.json")
    }

    /// What the configuration file of every later command says.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.dir.join("gantry.toml"), text).unwrap();
    }

    fn config_file(&self) -> PathBuf {
        let written = Some(self.dir.join("gantry.toml"));
        written
            .filter(|file| file.exists())
            .unwrap_or_else(|| "/dev/null".into())
    }

    pub fn root(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// The command, with the store of this world.
    pub fn command<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Command {
        self.command_in(&self.root(), args)
    }

    /// The command, with another store.
    pub fn command_in<I: AsRef<OsStr>>(
        &self,
        root: &Path,
        args: impl IntoIterator<Item = I>,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
        command
            .arg("--root")
            .arg(root)
            .arg("--config-file")
            .arg(self.config_file())
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.dir.path())
            .env("CONTAINERS_REGISTRIES_CONF", "/dev/null")
            .env("CONTAINERS_POLICY_JSON", self.policy_file())
            .stdin(Stdio::null());
        command
    }

    /// Runs the command to success and returns its standard output without the last line break.
    pub fn gantry<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> String {
        succeed(&mut self.command(args))
    }

    /// The same as JSON.
    pub fn json<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Value {
        serde_json::from_str(&self.gantry(args)).unwrap()
    }

    /// Runs the command to a failure; its status, and what it said.
    pub fn fails<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> (i32, String) {
        fail(&mut self.command(args))
    }

    /// The events of a copy or a pull.
    pub fn events<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Vec<Value> {
        let output = self
            .command(args)
            .args(["--progress", "json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// No damage, and nothing that anybody left behind.
    pub fn assert_clean(&self) {
        let report = self.json(["store", "check", "--json"]);
        assert_eq!(report["problems"], serde_json::json!([]));
    }

    pub fn registry(&self, name: &str) -> DockerRegistry {
        DockerRegistry::start(&self.dir.join(name)).unwrap()
    }
}

pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim_end_matches('\n').to_owned()
}

pub fn fail(command: &mut Command) -> (i32, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success(), "{command:?}: {stdout:?} {stderr}");
    (status.code().unwrap_or(-1), stderr)
}

/// One sentence, and perhaps a hint.
pub fn assert_one_sentence(stderr: &str) {
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(
        matches!(lines.as_slice(), [one] if one.starts_with("gantry: "))
            || matches!(lines.as_slice(), [one, hint] if one.starts_with("gantry: ") && hint.starts_with("hint: ")),
        "{stderr}"
    );
}

pub fn skopeo(args: &[&str]) -> String {
    tool::text("skopeo", [&["--insecure-policy"], args].concat()).unwrap()
}

/// Pushes a fixture with skopeo.
pub fn skopeo_push(fixture: &str, to: &str, options: &[&str]) {
    let from = gantry_testkit::fixtures::reference(fixture).unwrap();
    let args = [
        &["copy", "-q", "--dest-tls-verify=false"],
        options,
        &[&from, to],
    ]
    .concat();
    skopeo(&args);
}

/// What kinds of events there were, without repetitions of the same in a row.
pub fn kinds(events: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    kinds.dedup();
    kinds
}

/// Our own registry on a free port, ended when dropped.
pub struct OurRegistry {
    child: Child,
    pub address: String,
    pub root: PathBuf,
}

impl OurRegistry {
    pub fn start(world: &World) -> Self {
        Self::start_with(world, "")
    }

    /// With a configuration file of this text.
    pub fn start_with(world: &World, config: &str) -> Self {
        Self::start_options(world, config, &[])
    }

    /// The same, with more options.
    pub fn start_options(world: &World, config: &str, options: &[&str]) -> Self {
        let root = world.dir.join("registry");
        let file = world.dir.join("registry.toml");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_gantry"))
            .args(["registry", "serve", "--listen", "127.0.0.1:0", "--root"])
            .arg(&root)
            .arg("--config-file")
            .arg(&file)
            .args(options)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = log
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("serving http://")?.1.to_owned()))
            .unwrap();
        // A server whose log nobody reads would block on it.
        std::thread::spawn(move || log.for_each(drop));
        Self {
            child,
            address,
            root,
        }
    }
}

impl Drop for OurRegistry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Python's web server over a directory, ended when dropped.
pub struct Web {
    child: Child,
    pub address: String,
}

impl Web {
    pub fn start(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let mut child = Command::new("python3")
            .args([
                "-u",
                "-m",
                "http.server",
                "0",
                "--bind",
                "127.0.0.1",
                "--directory",
            ])
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line
            .split(' ')
            .skip_while(|word| *word != "port")
            .nth(1)
            .unwrap();
        Self {
            child,
            address: format!("http://127.0.0.1:{port}"),
        }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Another tool as a user of its own, with this home and GnuPG's.
pub fn foreign(program: &str, home: &Path, gnupg: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .env("HOME", home)
        .env("GNUPGHOME", gnupg)
        .env_remove("XDG_CONFIG_HOME");
    command
}

/// podman with a store of its own below `home`; `runroot` must be a short path.
pub fn podman(home: &Path, runroot: &Path, gnupg: &Path, args: &[&str]) -> Command {
    let (root, run) = (
        home.join("podman").display().to_string(),
        runroot.display().to_string(),
    );
    let fixed = [
        "--root",
        &root,
        "--runroot",
        &run,
        "--storage-driver",
        "vfs",
    ];
    foreign("podman", home, gnupg, &[&fixed[..], args].concat())
}
