// SPDX-License-Identifier: Apache-2.0
//! Other people's programs: finding them, running them, and a `docker-registry` of our own.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// Finds a program in `PATH` and the system directories that a user's `PATH` may lack.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// The names of those of `names` that are not installed.
pub fn missing<'a>(names: &[&'a str]) -> Vec<&'a str> {
    names
        .iter()
        .copied()
        .filter(|name| find(name).is_none())
        .collect()
}

/// Runs a command to its end; anything but success is an error that holds what it printed.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output)
}

/// Runs `program` with `args` to its successful end and returns its standard output without the last line break.
pub fn text<I: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = I>) -> Result<String> {
    let program = find(program).with_context(|| format!("{program} is not installed"))?;
    let output = run(Command::new(program).args(args))?;
    let mut text = String::from_utf8(output.stdout).context("read the output as UTF-8")?;
    text.truncate(text.trim_end_matches('\n').len());
    Ok(text)
}

/// Debian's `docker-registry` (the reference server) on a free loopback port; ended when dropped.
#[derive(Debug)]
pub struct DockerRegistry {
    child: Child,
    address: String,
}

impl DockerRegistry {
    /// Starts a registry that keeps its data in `dir`, and returns once it listens.
    pub fn start(dir: &Path) -> Result<Self> {
        let program = find("docker-registry").context("docker-registry is not installed")?;
        std::fs::create_dir_all(dir)?;
        let config = dir.join("registry.yml");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n\
                 storage: {{filesystem: {{rootdirectory: {}, maxthreads: 100}}, delete: {{enabled: true}}}}\n\
                 http: {{addr: \"127.0.0.1:0\"}}\n",
                dir.join("data").display()
            ),
        )?;
        let mut child = Command::new(program)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start docker-registry")?;
        let stderr = child
            .stderr
            .take()
            .context("docker-registry without standard error")?;
        let mut registry = Self {
            child,
            address: String::new(),
        };
        registry.address = listening_address(stderr)?;
        Ok(registry)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Reads the log until the line that names the address, then goes on reading so that the server never blocks on it.
fn listening_address(log: impl std::io::Read + Send + 'static) -> Result<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("listening on ") {
                let address = rest.split([' ', '"', ',']).next().unwrap_or_default();
                drop(sender.send(address.to_owned()));
            }
        }
    });
    let address = receiver
        .recv_timeout(Duration::from_secs(20))
        .context("docker-registry did not come up")?;
    ensure!(
        address.contains(':'),
        "docker-registry listens on {address:?}"
    );
    Ok(address)
}
