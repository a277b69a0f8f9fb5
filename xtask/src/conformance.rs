// SPDX-License-Identifier: Apache-2.0
//! The conformance suite of the distribution specification, run against `gantry registry serve`.
//!
//! The suite is a Go program, built from the Go module proxy on first use and kept in `target/conformance`. Without Go
//! it is skipped, in so many words.
//!
//! The suite's repositories are served with `explode = false`: its images are not images (the configurations state the
//! digest of no bytes at all as every layer's diffID), so a registry that unpacks what it is given must refuse them.
//! Everything else of the protocol is the same code for both treatments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use gantry_testkit::fixtures::workspace_root;
use gantry_testkit::{scratch::scratch, tool};

const MODULE: &str = "github.com/opencontainers/distribution-spec/conformance";
/// The submodule has no tags; the suite of a day, so that two runs ask the same questions.
const VERSION: &str = "v0.0.0-20260831232431-97274622c111";
const CONFIG: &str = "[registry.repository.\"conformance/*\"]\nexplode = false\n";
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Options of the conformance run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The program to examine.
    #[arg(long, default_value = "target/debug/gantry")]
    gantry: PathBuf,
    /// Keep the suite's report (HTML, YAML, JUnit) here.
    #[arg(long, default_value = "target/conformance/results")]
    results: PathBuf,
}

/// Runs the suite and prints `N passed, N failed, N skipped`.
pub fn run(args: &Args) -> Result<()> {
    let Some(go) = tool::find("go")
        .or_else(|| Some("/usr/local/go/bin/go".into()).filter(|go: &PathBuf| go.is_file()))
    else {
        println!("conformance: skipped: Go is not installed (apt-get install golang-go)");
        return Ok(());
    };
    let suite = build(&go)?;
    ensure!(
        args.gantry.is_file(),
        "{} is not built: cargo build -p gantry",
        args.gantry.display()
    );
    let scratch = scratch();
    let server = Server::start(&args.gantry, scratch.path())?;
    fs::create_dir_all(&args.results)?;
    let output = Command::new(suite)
        .current_dir(scratch.path())
        .env("OCI_REGISTRY", format!("127.0.0.1:{}", server.port))
        .env("OCI_TLS", "disabled")
        .env("OCI_VERSION", "1.1")
        .env("OCI_RESULTS_DIR", std::path::absolute(&args.results)?)
        // Optional parts of the specification that we claim.
        .env("OCI_API_BLOBS_UPLOAD_CANCEL", "true")
        .env("OCI_API_BLOBS_DIGEST_HEADER", "true")
        .env("OCI_API_MANIFESTS_DIGEST_HEADER", "true")
        .stdin(Stdio::null())
        .output()
        .context("run the suite")?;
    drop(server);
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text
        .lines()
        .chain(String::from_utf8_lossy(&output.stderr).lines())
    {
        if line.contains("failed test") {
            println!("{}", line.chars().take(400).collect::<String>());
        }
    }
    let count = |name| count(&text, name);
    let (passed, failed, skipped) = (
        count("Pass")?,
        count("FAIL")? + count("Error")?,
        count("Skip")?,
    );
    println!("conformance: {passed} passed, {failed} failed, {skipped} skipped");
    println!("report: {}", args.results.join("report.html").display());
    ensure!(
        failed == 0 && output.status.success(),
        "the registry does not conform"
    );
    Ok(())
}

/// Builds the suite if it is not there; answers its path.
fn build(go: &Path) -> Result<PathBuf> {
    let dir = workspace_root().join("target/conformance").join(VERSION);
    let program = dir.join("conformance");
    if !program.is_file() {
        fs::create_dir_all(&dir)?;
        tool::run(
            Command::new(go)
                .args(["install", &format!("{MODULE}@{VERSION}")])
                .env("GOBIN", &dir),
        )
        .context("build the conformance suite")?;
    }
    Ok(program)
}

/// Reads `Pass......: 12` of the suite's summary.
fn count(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().map(str::trim).find_map(|line| {
        let rest = line.strip_prefix(name)?.trim_start_matches('.');
        rest.strip_prefix(':')?.trim().parse().ok()
    });
    line.with_context(|| format!("the suite printed no count of {name}:\n{text}"))
}

/// `gantry registry serve`; ended when dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(gantry: &Path, dir: &Path) -> Result<Self> {
        let (config, port_file) = (dir.join("gantry.toml"), dir.join("port"));
        fs::write(&config, CONFIG)?;
        let child = Command::new(gantry)
            .arg("--config-file")
            .arg(&config)
            .arg("--root")
            .arg(dir.join("root"))
            .args([
                "registry",
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--port-file",
            ])
            .arg(&port_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("log"))?)
            .spawn()
            .context("start the registry")?;
        let mut server = Self { child, port: 0 };
        let deadline = Instant::now() + START_TIMEOUT;
        while server.port == 0 {
            if let Ok(text) = fs::read_to_string(&port_file) {
                server.port = text.trim().parse()?;
                break;
            }
            if server.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!(
                    "the registry did not start: {}",
                    fs::read_to_string(dir.join("log"))?
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
