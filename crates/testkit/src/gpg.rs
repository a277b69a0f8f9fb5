// SPDX-License-Identifier: Apache-2.0
//! GnuPG as a judge of our OpenPGP: keys of every kind, signatures made at any time, and its verdict on them.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::tool;

/// A GnuPG home of its own; its agent ends with the value.
#[derive(Debug)]
pub struct Gpg {
    home: TempDir,
    time: Option<String>,
}

impl Gpg {
    /// An empty home, or `None` where the program is missing.
    ///
    /// # Errors
    /// If no directory can be made.
    pub fn new() -> Result<Option<Self>> {
        if tool::find("gpg").is_none() {
            return Ok(None);
        }
        // The agent's socket lies in it, whose path has to be short.
        let home = tempfile::Builder::new()
            .prefix("gpg")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in("/tmp")?;
        Ok(Some(Self { home, time: None }))
    }

    /// The home directory, for `GNUPGHOME`.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// From now on it is `seconds` after the epoch for this home, and stays so; `None` is the machine's time.
    pub fn set_time(&mut self, seconds: Option<u64>) {
        self.time = seconds.map(|seconds| seconds.to_string());
    }

    /// Makes a key without passphrase, for `usage` (as `--quick-gen-key` takes it), and gives its fingerprint.
    ///
    /// # Errors
    /// If gpg fails.
    pub fn make_key(
        &self,
        user: &str,
        algorithm: &str,
        usage: &str,
        expire: &str,
    ) -> Result<String> {
        self.run(
            &[
                "--passphrase",
                "",
                "--quick-gen-key",
                user,
                algorithm,
                usage,
                expire,
            ],
            b"",
        )?;
        self.fingerprints(user)?
            .first()
            .cloned()
            .context("a key was made but is not listed")
    }

    /// Adds a subkey and gives its fingerprint.
    ///
    /// # Errors
    /// If gpg fails.
    pub fn add_subkey(
        &self,
        key: &str,
        algorithm: &str,
        usage: &str,
        expire: &str,
    ) -> Result<String> {
        self.run(
            &[
                "--passphrase",
                "",
                "--quick-add-key",
                key,
                algorithm,
                usage,
                expire,
            ],
            b"",
        )?;
        self.fingerprints(key)?
            .last()
            .cloned()
            .context("a subkey was made but is not listed")
    }

    /// The fingerprints of a key and its subkeys.
    ///
    /// # Errors
    /// If gpg fails.
    pub fn fingerprints(&self, key: &str) -> Result<Vec<String>> {
        let listing = self.run(
            &[
                "--with-colons",
                "--with-subkey-fingerprint",
                "--list-keys",
                key,
            ],
            b"",
        )?;
        Ok(String::from_utf8_lossy(&listing)
            .lines()
            .filter_map(|line| line.strip_prefix("fpr:"))
            .map(|rest| rest.trim_matches(':').to_owned())
            .collect())
    }

    /// Revokes a key for a reason by its number (0 none, 1 compromised, 2 superseded, 3 no longer used), or its
    /// `subkey`-th subkey.
    ///
    /// # Errors
    /// If gpg fails.
    pub fn revoke(&self, key: &str, subkey: Option<usize>, reason: u8) -> Result<()> {
        let command = ["--command-fd", "0", "--pinentry-mode", "loopback"];
        let answers = format!("y\n{reason}\n\ny\n");
        match subkey {
            None => {
                let revocation = self.run(
                    &[&command[..], &["--output", "-", "--gen-revoke", key]].concat(),
                    answers.as_bytes(),
                )?;
                self.run(&["--import"], &revocation)?;
            }
            Some(position) => {
                let script = format!("key {position}\nrevkey\n{answers}save\n");
                self.run(
                    &[&command[..], &["--edit-key", key]].concat(),
                    script.as_bytes(),
                )?;
            }
        }
        Ok(())
    }

    /// How many keys the home has.
    ///
    /// # Errors
    /// If gpg fails.
    pub fn count(&self) -> Result<usize> {
        let listing = self.run(&["--with-colons", "--list-keys"], b"")?;
        let lines = String::from_utf8_lossy(&listing);
        Ok(lines
            .lines()
            .filter(|line| line.starts_with("pub:"))
            .count())
    }

    /// The public key as others get it, binary.
    ///
    /// # Errors
    /// If gpg fails.
    pub fn export(&self, key: &str) -> Result<Vec<u8>> {
        self.run(&["--export", key], b"")
    }

    /// Signs `text` as a message, with `options` beside.
    ///
    /// # Errors
    /// If gpg fails.
    pub fn sign(&self, key: &str, text: &[u8], options: &[&str]) -> Result<Vec<u8>> {
        self.run(
            &[options, &["--local-user", key, "--output", "-", "--sign"]].concat(),
            text,
        )
    }

    /// Whether gpg, knowing `keys` only, finds `message` to be signed well by a key that is well; and what it read.
    ///
    /// # Errors
    /// If gpg cannot be run.
    pub fn judge(keys: &[u8], message: &[u8], time: Option<u64>) -> Result<Option<Vec<u8>>> {
        let mut judge = Self::new()?.context("gpg is not installed")?;
        judge.set_time(time);
        judge.run(&["--import"], keys)?;
        let output = judge.output(&["--status-fd", "2", "--output", "-", "--decrypt"], message)?;
        let status = String::from_utf8_lossy(&output.stderr);
        let says = |word: &str| {
            status.lines().any(|line| {
                line.strip_prefix("[GNUPG:] ")
                    .is_some_and(|rest| rest.split(' ').next() == Some(word))
            })
        };
        let good = output.status.success() && says("GOODSIG") && says("VALIDSIG");
        Ok(good.then_some(output.stdout))
    }

    /// Runs gpg with `arguments` and `input`, and gives what it printed.
    ///
    /// # Errors
    /// If it fails; with what it said.
    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
        let output = self.output(arguments, input)?;
        ensure!(
            output.status.success(),
            "gpg {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    }

    fn output(&self, arguments: &[&str], input: &[u8]) -> Result<Output> {
        let mut command = Command::new("gpg");
        command.env("GNUPGHOME", self.home()).args([
            "--batch",
            "--yes",
            "--quiet",
            "--no-tty",
            "--disable-dirmngr",
            "--trust-model",
            "always",
        ]);
        if let Some(time) = &self.time {
            command.args(["--faked-system-time", &format!("{time}!")]);
        }
        if arguments.contains(&"--command-fd") {
            // It asks, and is answered by its input.
            command.args(["--no-batch", "--expert"]);
        }
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start gpg")?;
        let mut stdin = child.stdin.take().context("gpg without standard input")?;
        let input = input.to_owned();
        // It may end before it has read everything.
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output()?;
        drop(feeder.join());
        Ok(output)
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let end = Command::new("gpgconf")
            .env("GNUPGHOME", self.home())
            .args(["--kill", "all"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        drop(end);
    }
}
