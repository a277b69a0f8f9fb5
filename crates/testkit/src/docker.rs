// SPDX-License-Identifier: Apache-2.0
//! A real Docker daemon with its own data, beside whatever the machine runs.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::tool::{self, find};
use crate::{busybox, subordinate};

/// Debian's `dockerd` in a directory of its own, without networks; ended when dropped, and when this process ends.
#[derive(Debug)]
pub struct Dockerd {
    dir: PathBuf,
    options: Options,
    keeper: Option<Child>,
}

/// What a daemon is started with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The authorization plug-in that it asks about every call.
    pub plugin: Option<String>,
    /// More of its command line.
    pub args: Vec<String>,
    /// What it sees in the files of subordinate ids.
    pub subordinate_ids: Option<String>,
}

/// Starts what its arguments say and ends it when standard input ends.
const KEEPER: &str = r#"trap '' INT TERM HUP
"$@" </dev/null &
read -r _ || :
kill -TERM $!
wait $!"#;

impl Dockerd {
    /// Starts a daemon that asks the authorization plug-in `plugin` about every call, and returns once it answers.
    ///
    /// # Errors
    /// It is not installed, or cannot run here.
    pub fn start(dir: &Path, plugin: Option<&str>) -> Result<Self> {
        let plugin = plugin.map(str::to_owned);
        Self::start_with(
            dir,
            Options {
                plugin,
                ..Options::default()
            },
        )
    }

    /// Starts a daemon as the options say, and returns once it answers.
    ///
    /// # Errors
    /// It is not installed, or cannot run here.
    pub fn start_with(dir: &Path, options: Options) -> Result<Self> {
        ensure!(crate::skip::is_root(), "dockerd needs root");
        std::fs::create_dir_all(dir)?;
        let mut daemon = Self {
            dir: dir.to_owned(),
            options,
            keeper: None,
        };
        daemon.up()?;
        Ok(daemon)
    }

    /// Ends the daemon and starts it again over the same data, with the same or another plug-in.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart(&mut self, plugin: Option<&str>) -> Result<()> {
        self.down();
        self.options.plugin = plugin.map(str::to_owned);
        self.up()
    }

    fn up(&mut self) -> Result<()> {
        let program = find("dockerd").context("dockerd is not installed")?;
        let config = self.dir.join("daemon.json");
        std::fs::write(&config, "{}")?;
        let log = std::fs::File::create(self.log())?;
        let mut command = match &self.options.subordinate_ids {
            Some(ids) => subordinate::command(&self.dir, ids, "sh")?,
            None => Command::new("sh"),
        };
        command
            .args(["-c", KEEPER, "dockerd-keeper"])
            .arg(program)
            .arg("--config-file")
            .arg(&config)
            .arg("--data-root")
            .arg(self.dir.join("data"))
            .arg("--exec-root")
            .arg(self.dir.join("exec"))
            .arg("--pidfile")
            .arg(self.dir.join("pid"))
            .arg("--host")
            .arg(self.host())
            // Nothing of the host's network is touched, and no privilege is needed to be spared by the kernel.
            .args(["--bridge=none", "--iptables=false", "--ip-masq=false"])
            .args(["--storage-driver=vfs", "--oom-score-adjust=0"])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .args(&self.options.args);
        if let Some(plugin) = &self.options.plugin {
            command.arg("--authorization-plugin").arg(plugin);
        }
        let child = command
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start dockerd")?;
        self.keeper = Some(child);
        let begun = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            if begun.elapsed() > Duration::from_secs(60) {
                let log = std::fs::read_to_string(self.log()).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(5).collect();
                bail!("dockerd did not come up: {}", end.join(" | "));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn down(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            drop(keeper.wait());
        }
    }

    /// The socket of its API.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// What it logs.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Docker's client, speaking to this daemon.
    pub fn docker<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        // Another client of this name may come first in a user's path.
        let own = Path::new("/usr/bin/docker");
        let mut command = Command::new(if own.exists() {
            own
        } else {
            Path::new("docker")
        });
        command
            .arg("--host")
            .arg(self.host())
            .args(args)
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT")
            .env("DOCKER_CONFIG", self.dir.join("client"))
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::null());
        command
    }

    /// Runs Docker's client to success and returns its standard output without line breaks around it.
    ///
    /// # Errors
    /// It fails; the error holds what it said.
    pub fn run<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<String> {
        let output = tool::run(&mut self.docker(args))?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Imports an image that holds a static busybox as its programs `sh`, `echo`, `sleep` and `true`, with one file
    /// of the given contents to tell it from others.
    ///
    /// # Errors
    /// busybox is not installed, or the daemon refuses.
    pub fn import_busybox(&self, name: &str, contents: &str) -> Result<String> {
        let archive =
            busybox::archive(&["sh", "echo", "sleep", "true"], &[("contents", contents)])?;
        let mut child = self
            .docker(["import", "-", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child
            .stdin
            .take()
            .context("docker without standard input")?;
        stdin.write_all(&archive)?;
        drop(stdin);
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "import {name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.down();
    }
}
