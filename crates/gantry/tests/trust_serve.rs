// SPDX-License-Identifier: Apache-2.0
//! `gantry trust serve` as a process: before a real dockerd, and as a webhook.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::World;
use gantry_testkit::docker::Dockerd;
use gantry_testkit::skip;
use serde_json::{Value, json};

/// A server in a process of its own; killed when dropped without having been stopped.
struct Serving(Child);

impl Serving {
    fn start(world: &World, policy: &Path, args: &[&str], ready: &Path) -> Self {
        let mut command = world.command(["trust", "serve"]);
        let child = command
            .args(args)
            .env("CONTAINERS_POLICY_JSON", policy)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let serving = Self(child);
        let begun = Instant::now();
        while !ready.exists() {
            assert!(begun.elapsed() < Duration::from_secs(30), "nothing serves");
            std::thread::sleep(Duration::from_millis(20));
        }
        serving
    }

    /// Asks it to end, and returns the lines that it wrote.
    fn stop(mut self) -> Vec<Value> {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        let mut text = String::new();
        let mut stdout = self.0.stdout.take().unwrap();
        stdout.read_to_string(&mut text).unwrap();
        assert!(self.0.wait().unwrap().success());
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn write_policy(path: &Path, local: &str) {
    let policy = json!({
        "default": [{"type": "reject"}],
        "transports": {"docker": {"localhost/docker-daemon": [{"type": local}]}},
    });
    let staged = path.with_extension("new");
    std::fs::write(&staged, policy.to_string()).unwrap();
    std::fs::rename(staged, path).unwrap();
}

#[test]
fn privileged_dockerd_asks_the_command() {
    let world = World::new();
    let policy = world.dir.join("policy.json");
    write_policy(&policy, "insecureAcceptAnything");
    let name = format!("gantry-command-{}", std::process::id());
    let socket = Path::new("/run/docker/plugins").join(format!("{name}.sock"));
    let daemon = match Dockerd::start(&world.dir.join("docker"), Some(&name)) {
        Ok(daemon) => daemon,
        Err(error) => skip!("no dockerd here: {error:#}"),
    };
    let (at, api) = (socket.display().to_string(), daemon.socket());
    let args = [
        "--docker-authz",
        "--socket",
        &at,
        "--docker-socket",
        api.to_str().unwrap(),
    ];
    let serving = Serving::start(&world, &policy, &args, &socket);
    daemon.import_busybox("local", "x").unwrap();
    let run = || {
        let args = ["run", "--rm", "local", "/bin/echo", "ran"];
        daemon.docker(args).output().unwrap()
    };
    let output = run();
    assert!(output.stdout == b"ran\n", "{output:?}");
    write_policy(&policy, "reject");
    let output = run();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("authorization denied by plugin"), "{said}");
    assert!(
        !output.status.success() && said.contains("rejects"),
        "{said}"
    );

    let lines = serving.stop();
    assert!(!socket.exists(), "the socket was left behind");
    assert!(!daemon.docker(["ps"]).output().unwrap().status.success());
    let outcomes: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line["entry"].as_str().unwrap(),
                line["allowed"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            ("docker-create", true),
            ("docker-start", true),
            ("docker-create", false)
        ]
    );
    assert!(lines[0]["time_ms"].as_u64().unwrap() > 0);
    assert_eq!(
        lines[0]["images"][0]["reference"],
        "localhost/docker-daemon:latest"
    );
}

#[test]
fn a_cluster_asks_the_command() {
    let world = World::new();
    let policy = world.dir.join("policy.json");
    write_policy(&policy, "reject");
    let port_file = world.dir.join("port");
    let file = port_file.display().to_string();
    let args = [
        "--admission",
        "--listen=127.0.0.1:0",
        "--port-file",
        &file,
        "--audit",
    ];
    let serving = Serving::start(&world, &policy, &args, &port_file);
    let port = std::fs::read_to_string(&port_file).unwrap();
    let review = json!({
        "apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview",
        "spec": {"containers": [{"image": "registry.example/app:v1"}], "namespace": "shop"},
    })
    .to_string();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{}", port.trim())).unwrap();
    write!(
        stream,
        "POST /image-policy HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{review}",
        review.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\"allowed\":true"), "{answer}");
    let lines = serving.stop();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["admitted"], false);
    assert_eq!(lines[0]["allowed"], true);
    assert_eq!(lines[0]["namespace"], "shop");
}

#[test]
fn what_cannot_serve_says_so() {
    let world = World::new();
    let policy = world.dir.join("policy.json");
    let serve = |args: &[&str]| {
        let mut command = world.command(["trust", "serve"]);
        command.args(args).env("CONTAINERS_POLICY_JSON", &policy);
        common::fail(&mut command)
    };
    let (status, said) = serve(&["--admission"]);
    assert!(status == 4 && said.contains("policy"), "{said}");
    std::fs::write(&policy, "{}").unwrap();
    assert_eq!(serve(&["--admission"]).0, 2);
    write_policy(&policy, "reject");
    let (status, said) = serve(&["--admission", "--listen=0.0.0.0:0"]);
    assert!(status == 4 && said.contains("plain HTTP"), "{said}");
    let taken = world.dir.join("taken").display().to_string();
    std::fs::write(&taken, "").unwrap();
    assert_eq!(serve(&["--docker-authz", "--socket", &taken]).0, 9);
    for args in [
        &[][..],
        &["--admission", "--docker-authz"],
        &["--admission", "--allow-builds"],
    ] {
        assert_eq!(serve(args).0, 2, "{args:?}");
    }
}
