// SPDX-License-Identifier: Apache-2.0
//! `gantry run` and its kin, with the OCI runtimes that are installed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{World, assert_one_sentence, fail, succeed};
use gantry_testkit::image::{Image, Layer, config};
use gantry_testkit::{tar, tool};
use serde_json::{Value, json};

/// Ends the test unless containers can be run here.
macro_rules! needs_containers {
    () => {
        if !gantry_testkit::skip::is_root() {
            gantry_testkit::skip!("containers need root");
        }
        needs!(["tiny"], ["crun"]);
        let beside = Path::new(env!("CARGO_BIN_EXE_gantry")).with_file_name("gantry-monitor");
        assert!(
            beside.is_file(),
            "no {}: run `cargo build --workspace`",
            beside.display()
        );
    };
}

/// A world whose store has the fixture `tiny`, and a run root of its own.
struct Host {
    world: World,
}

impl Host {
    fn new() -> Self {
        let host = Self {
            world: World::new(),
        };
        let tiny = gantry_testkit::fixtures::reference("tiny").unwrap();
        host.gantry(&["pull", "--quiet", "--faces", "both", &tiny]);
        host
    }

    fn runroot(&self) -> PathBuf {
        self.world.dir.join("run")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(args);
        command.env("GANTRY_RUNROOT", self.runroot());
        command
    }

    fn gantry(&self, args: &[&str]) -> String {
        succeed(&mut self.command(args))
    }

    /// Runs to an end with this status, and answers standard output and error.
    fn run(&self, status: i32, args: &[&str]) -> (String, String) {
        let output = self
            .command(&[&["run", "--rm"], args].concat())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert_eq!(
            output.status.code(),
            Some(status),
            "{args:?}: {stdout}{stderr}"
        );
        (stdout, stderr)
    }

    /// What `sh -c SCRIPT` prints in the image tiny.
    fn sh(&self, options: &[&str], script: &str) -> String {
        self.run(0, &[options, &["tiny", "sh", "-c", script]].concat())
            .0
    }

    /// Starts in the foreground and waits for the first line, which must be "ready".
    fn start(&self, args: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
        let mut child = self
            .command(&[&["run"], args].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        (child, stdout)
    }

    fn ps(&self) -> Vec<Value> {
        serde_json::from_str(&self.gantry(&["ps", "--all", "--json"])).unwrap()
    }

    /// A store with an image of one layer more than tiny's, and this configuration.
    fn add_image(&self, name: &str, extra: &[Vec<u8>], configure: Value) {
        let layout = gantry_testkit::fixtures::layout("tiny").unwrap();
        let blob =
            |digest: &str| fs::read(layout.join("blobs").join(digest.replace(':', "/"))).unwrap();
        let read = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        let index = read(fs::read(layout.join("index.json")).unwrap());
        let manifest = read(blob(index["manifests"][0]["digest"].as_str().unwrap()));
        let below = read(blob(manifest["config"]["digest"].as_str().unwrap()));
        let mut layers: Vec<Layer> = Vec::new();
        for (at, layer) in manifest["layers"].as_array().unwrap().iter().enumerate() {
            let mut found = Layer::plain(Vec::new());
            found.blob = blob(layer["digest"].as_str().unwrap());
            found.media_type = layer["mediaType"].as_str().unwrap().to_owned();
            found.diff_id = below["rootfs"]["diff_ids"][at].as_str().unwrap().to_owned();
            layers.push(found);
        }
        if !extra.is_empty() {
            layers.push(Layer::gzip(&tar::join(extra)));
        }
        let mut document = read(config(&layers));
        document["config"] = configure;
        let image = Image::with_config(&layers, document.to_string().as_bytes());
        let dir = self.world.dir.join(format!("layout-{name}"));
        image.write_layout(&dir, "latest").unwrap();
        let from = format!("oci:{}:latest", dir.display());
        self.gantry(&["copy", "--quiet", &from, &format!("store:{name}")]);
    }

    /// Nothing is left of containers: no file, no mount, no control group, no process.
    fn assert_nothing_left(&self) {
        let left = |dir: PathBuf| -> Vec<_> {
            fs::read_dir(dir)
                .into_iter()
                .flatten()
                .map(|entry| entry.unwrap().path())
                .filter(|path| {
                    !["names", "rootfs", "scaffold"]
                        .iter()
                        .any(|own| path.ends_with(own))
                })
                .collect()
        };
        let state = left(self.runroot().join("containers"));
        let data = left(self.world.root().join("containers"));
        assert!(state.is_empty() && data.is_empty(), "{state:?} {data:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.runroot().display().to_string();
        assert!(!mounts.contains(&here), "{mounts}");
    }
}

fn send(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}

fn runtimes() -> Vec<&'static str> {
    ["gantry", "crun", "runc"]
        .into_iter()
        .filter(|name| *name == "gantry" || tool::find(name).is_some())
        .collect()
}

#[test]
fn privileged_statuses_are_podmans() {
    needs_containers!();
    let host = Host::new();
    for runtime in runtimes() {
        let with = ["--runtime", runtime, "tiny"];
        let run = |status, args: &[&str]| host.run(status, &[&with[..], args].concat());
        run(0, &["true"]);
        run(1, &["false"]);
        assert_eq!(
            run(7, &["sh", "-c", "echo out; echo err >&2; exit 7"]),
            ("out\n".into(), "err\n".into())
        );
        // A shell that is not process 1 can be killed.
        run(137, &["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]);
        for (status, program, what) in [
            (
                127,
                "nope",
                "find program \"nope\" in the image, searching /bin",
            ),
            (127, "/bin/nope", "find program \"/bin/nope\" in the image"),
            (
                126,
                "/bin",
                "execute \"/bin\" of the image: it is a directory",
            ),
        ] {
            let (_, stderr) = run(status, &[program]);
            assert_eq!(stderr, format!("gantry: {what}\n"));
        }
    }
    for (args, what) in [
        (
            vec!["--user", "nobody", "tiny", "true"],
            "find user \"nobody\"",
        ),
        (
            vec!["--runtime", "/nowhere/crun", "tiny", "true"],
            "find OCI runtime",
        ),
        (
            vec!["--pull", "never", "missing", "true"],
            "find image missing",
        ),
        (
            vec!["--volume", "/nowhere:/x", "tiny", "true"],
            "mount /nowhere",
        ),
        (vec!["--cap-add", "NOPE", "tiny", "true"], "cap-add"),
        (vec!["--no-such-option", "tiny"], "--no-such-option"),
    ] {
        let (_, stderr) = host.run(125, &args);
        assert!(stderr.contains(what), "{stderr}");
    }
    host.assert_nothing_left();
}

#[test]
fn privileged_image_configuration_is_honoured() {
    needs_containers!();
    let host = Host::new();
    let passwd = tar::file(
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/srv:/bin/sh\n",
    );
    let group = tar::file("etc/group", "app:x:1001:\nextra:x:2000:app\n");
    let configure = json!({
        "User": "app", "WorkingDir": "/srv/made", "Env": ["PATH=/bin", "A=image", "B=image"],
        "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["id; pwd; echo $A $B $HOME; stat -c %u:%g ."],
    });
    host.add_image("configured", &[passwd, group], configure);
    let (stdout, _) = host.run(0, &["--env", "B=option", "configured"]);
    assert_eq!(
        stdout,
        "uid=1000(app) gid=1001(app) groups=1001(app),2000(extra)\n/srv/made\nimage option /srv\n1000:1001\n"
    );
    let run = |args: &[&str]| host.run(0, args).0;
    assert_eq!(run(&["configured", "echo replaced"]), "replaced\n");
    assert_eq!(
        run(&["--entrypoint", "echo", "configured", "a", "b"]),
        "a b\n"
    );
    assert_eq!(
        run(&["--entrypoint", r#"["echo","x"]"#, "configured", "y"]),
        "x y\n"
    );
    assert_eq!(run(&["--workdir", "/tmp", "configured", "pwd"]), "/tmp\n");
    assert_eq!(
        run(&["--user", "0:2000", "configured", "id"]),
        "uid=0(root) gid=2000(extra) groups=2000(extra)\n"
    );
    assert_eq!(
        run(&[
            "--hostname",
            "named",
            "--entrypoint",
            "cat",
            "configured",
            "/etc/hostname"
        ]),
        "named\n"
    );
    host.assert_nothing_left();
}

#[test]
fn privileged_users_are_exact_or_refused() {
    needs_containers!();
    let host = Host::new();
    let passwd = tar::file(
        "etc/passwd",
        "root:x:0:0::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n",
    );
    host.add_image("users", &[passwd], json!({"Env": ["PATH=/bin"]}));
    for (user, ids) in [
        ("1", "1 0"),
        ("1000", "1000 0"),
        ("1:2", "1 2"),
        ("root", "0 0"),
    ] {
        let (stdout, _) = host.run(
            0,
            &[
                "--user",
                user,
                "users",
                "sh",
                "-c",
                "echo $(id -u) $(id -g)",
            ],
        );
        assert_eq!(stdout.trim(), ids, "{user}");
    }
    for user in [
        "1:",
        ":2",
        "01",
        "+1",
        "1 ",
        "٣",
        "4294967295",
        "-1",
        "",
        "nobody",
    ] {
        let argument = format!("--user={user}");
        host.run(125, &[&argument, "users", "true"]);
    }
    host.assert_nothing_left();
}

#[test]
fn privileged_production_profile_confines() {
    needs_containers!();
    let host = Host::new();
    for runtime in runtimes() {
        let with = ["--runtime", runtime];
        let status = host.sh(&with, "cat /proc/self/status");
        let field = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.trim().to_owned()
        };
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Seccomp:"), "2");
        assert_eq!(field("CapInh:"), "0000000000000000");
        assert_eq!(field("CapAmb:"), "0000000000000000");
        // CHOWN DAC_OVERRIDE FOWNER KILL SETGID SETUID NET_BIND_SERVICE
        let seven = (1 << 0) | (1 << 1) | (1 << 3) | (1 << 5) | (1 << 6) | (1 << 7) | (1 << 10);
        assert_eq!(field("CapEff:"), format!("{seven:016x}"));
        let (_, stderr) = host.run(1, &[&with[..], &["tiny", "touch", "/new"]].concat());
        assert!(stderr.contains("Read-only file system"), "{stderr}");
        assert_eq!(
            host.sh(&with, "touch /tmp/a /run/b /var/tmp/c && echo ok"),
            "ok\n"
        );
        // Descriptors of ours, or of the runtime, do not leak; 3 is ls's own.
        assert_eq!(host.sh(&with, "ls /proc/self/fd"), "0\n1\n2\n3\n");
        for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
            let script = format!("[ ! -e {path} ] || wc -c < {path}");
            let read = host.sh(&with, &script);
            assert!(matches!(read.trim(), "" | "0"), "{path}: {read}");
        }
        let mounts = host.sh(&with, "cat /proc/self/mountinfo");
        assert!(!mounts.contains(" shared:"), "{mounts}");
    }
    assert_eq!(
        host.sh(&["--profile", "compat"], "touch /new && echo ok"),
        "ok\n"
    );
    host.assert_nothing_left();
}

#[test]
fn privileged_bytes_pass_both_ways() {
    needs_containers!();
    let host = Host::new();
    let mut child = host
        .command(&["run", "--rm", "-i", "tiny", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let sent: Vec<u8> = (0..20_000_000_u32)
        .map(|i| u8::try_from(i.wrapping_mul(2_654_435_761) >> 24).unwrap())
        .collect();
    let mut stdin = child.stdin.take().unwrap();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy).unwrap());
    let mut got = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    assert!(child.wait().unwrap().success());
    // Without -i nothing reaches the container.
    let output = host
        .command(&["run", "--rm", "tiny", "cat"])
        .stdin(fs::File::open("/etc/passwd").unwrap())
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"");
    host.assert_nothing_left();
}

#[test]
fn privileged_reader_that_goes_away_does_not_hang_anything() {
    needs_containers!();
    let host = Host::new();
    let (mut child, stdout) = host.start(&[
        "--rm", "tiny", "sh", "-c",
        "echo ready; i=0; while [ $i -lt 20000 ]; do echo a line of output that nobody reads; i=$((i+1)); done",
    ]);
    drop(stdout);
    child.wait().unwrap();
    host.assert_nothing_left();
}

#[test]
fn privileged_signals_reach_the_program() {
    needs_containers!();
    use rustix::process::Signal;
    let host = Host::new();
    let script =
        "trap 'echo got; exit 9' TERM INT USR1 HUP; echo ready; while :; do sleep 0.02; done";
    for signal in [Signal::TERM, Signal::INT, Signal::USR1, Signal::HUP] {
        let (mut child, mut stdout) = host.start(&["--rm", "tiny", "sh", "-c", script]);
        send(&child, signal);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(
            (rest.as_str(), child.wait().unwrap().code()),
            ("got\n", Some(9))
        );
    }
    host.assert_nothing_left();
}

#[test]
fn privileged_killing_the_command_leaves_the_container() {
    needs_containers!();
    let host = Host::new();
    let script = "echo ready; while [ ! -e /tmp/x/stop ]; do sleep 0.02; done";
    let dir = host.world.dir.join("shared");
    fs::create_dir(&dir).unwrap();
    let volume = format!("{}:/tmp/x", dir.display());
    let (mut child, _stdout) = host.start(&[
        "--rm", "--name", "left", "--volume", &volume, "tiny", "sh", "-c", script,
    ]);
    child.kill().unwrap();
    child.wait().unwrap();
    let listed = host.ps();
    assert_eq!(listed[0]["Names"], json!(["left"]));
    assert_eq!(listed[0]["State"], "running");
    fs::write(dir.join("stop"), "").unwrap();
    host.wait_until_gone("left");
    host.assert_nothing_left();
}

impl Host {
    fn wait_until_gone(&self, name: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.ps().iter().any(|row| row["Names"] == json!([name])) {
            assert!(Instant::now() < deadline, "{name} is still there");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn privileged_killed_monitor_leaves_what_rm_removes() {
    needs_containers!();
    let host = Host::new();
    let (mut child, _stdout) = host.start(&[
        "--rm",
        "--name",
        "orphan",
        "tiny",
        "sh",
        "-c",
        "echo ready; exec sleep 1000",
    ]);
    let row = host.ps().remove(0);
    let id = row["Id"].as_str().unwrap().to_owned();
    let monitor = find_monitor(&id);
    rustix::process::kill_process(monitor, rustix::process::Signal::KILL).unwrap();
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(125));
    assert_one_sentence(&stderr);
    assert_eq!(host.ps()[0]["State"], "unwatched");
    let (status, stderr) = fail(&mut host.command(&["rm", "orphan"]));
    assert_eq!(status, 9, "{stderr}");
    let (status, _) = fail(&mut host.command(&["run", "--rm", "--name", "orphan", "tiny", "true"]));
    assert_eq!(status, 125, "its name is taken while it runs");
    host.gantry(&["rm", "--force", "orphan"]);
    host.assert_nothing_left();
    for controller in ["memory", "pids", "unified", ""] {
        let group = Path::new("/sys/fs/cgroup")
            .join(controller)
            .join(format!("gantry-{id}"));
        assert!(!group.exists(), "{}", group.display());
    }
    host.gantry(&["run", "--rm", "--name", "orphan", "tiny", "true"]);
}

/// The monitor of a container, by its arguments.
fn find_monitor(id: &str) -> rustix::process::Pid {
    let is_it = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words
            .next()
            .is_some_and(|word| word.ends_with(b"gantry-monitor"))
            && words.next() == Some(id.as_bytes())
    };
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let pid = pids.into_iter().find(is_it).unwrap();
    rustix::process::Pid::from_raw(pid).unwrap()
}

#[test]
fn privileged_detached_container_is_listed_logged_stopped_removed() {
    needs_containers!();
    let host = Host::new();
    let script =
        "trap 'echo bye; exit 3' TERM; echo hello; echo oops >&2; while :; do sleep 0.02; done";
    let id = host.gantry(&[
        "run", "--detach", "--name", "web", "tiny", "sh", "-c", script,
    ]);
    assert_eq!(id.len(), 64);
    let (status, stderr) = fail(&mut host.command(&["run", "--name", "web", "tiny", "true"]));
    assert_eq!(status, 125);
    assert!(stderr.contains("the name is in use"), "{stderr}");
    let (status, _) = fail(&mut host.command(&["rm", "web"]));
    assert_eq!(status, 9);
    let follower = host
        .command(&["logs", "--follow", "web"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The trap stands once the first line is out.
    let deadline = Instant::now() + Duration::from_secs(30);
    while host.gantry(&["logs", "web"]) != "hello" {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(host.gantry(&["stop", "web"]), id);
    let followed = follower.wait_with_output().unwrap();
    assert_eq!(followed.stdout, b"hello\nbye\n");
    assert_eq!(followed.stderr, b"oops\n");
    assert_eq!(host.gantry(&["logs", "--tail", "1", "web"]), "bye");
    let row = &host.ps()[0];
    assert_eq!(
        (&row["State"], &row["ExitCode"]),
        (&json!("exited"), &json!(3))
    );
    assert_eq!(host.gantry(&["wait", &id[..10]]), "3");
    assert_eq!(host.gantry(&["ps", "--quiet"]), "");
    host.gantry(&["rm", "web"]);
    host.assert_nothing_left();
}

#[test]
fn privileged_programs_are_executed_in_a_container_that_runs() {
    needs_containers!();
    let host = Host::new();
    let passwd = tar::file(
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/srv:/bin/sh\n",
    );
    host.add_image("exec", &[passwd], json!({"Env": ["PATH=/bin", "A=image"]}));
    for runtime in runtimes() {
        let id = host.gantry(&["run", "-d", "--runtime", runtime, "exec", "sleep", "1000"]);
        let exec = |args: &[&str]| host.gantry(&[&["exec"], args].concat());
        let script = "echo $A $HOME $(id -u) $(pwd)";
        assert_eq!(exec(&[&id, "sh", "-c", script]), "image /root 0 /");
        assert_eq!(
            exec(&[
                "-u", "app", "-e", "A=new", "-w", "/tmp", &id, "sh", "-c", script
            ]),
            "new /srv 1000 /tmp"
        );
        let status = exec(&[&id, "cat", "/proc/self/status"]);
        for line in [
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "CapInh:\t0000000000000000",
            "CapAmb:\t0000000000000000",
        ] {
            assert!(status.contains(line), "{line}: {status}");
        }
        let of_other = exec(&["-u", "1", &id, "cat", "/proc/self/status"]);
        assert!(of_other.contains("CapEff:\t0000000000000000"), "{of_other}");
        for (status, program) in [(127, "nope"), (126, "/bin")] {
            let (code, stderr) = fail(&mut host.command(&["exec", &id, program]));
            assert_eq!(code, status, "{stderr}");
            assert_one_sentence(&stderr);
        }
        let (code, _) = fail(&mut host.command(&["exec", &id, "sh", "-c", "exit 9"]));
        assert_eq!(code, 9);
        let mut cat = host
            .command(&["exec", "-i", &id, "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        cat.stdin.take().unwrap().write_all(b"through").unwrap();
        assert_eq!(cat.wait_with_output().unwrap().stdout, b"through");
        let mut terminal = Terminal::open(31, 99);
        // Older runtimes let the program begin before its terminal has a size.
        let script =
            "while [ \"$(stty size 2>&1)\" != '31 99' ]; do sleep 0.01; done; stty size; exit 5";
        let command = host.command(&["exec", "-it", &id, "sh", "-c", script]);
        let mut child = terminal.spawn(command);
        terminal.expect("31 99");
        assert_eq!(child.wait().unwrap().code(), Some(5));
        host.gantry(&["exec", "-d", &id, "touch", "/tmp/touched"]);
        let deadline = Instant::now() + Duration::from_secs(30);
        while exec(&[&id, "ls", "/tmp"]) != "touched" {
            assert!(Instant::now() < deadline);
        }
        host.gantry(&["rm", "--force", &id]);
        let (code, stderr) = fail(&mut host.command(&["exec", &id, "true"]));
        assert_eq!(code, 125, "{stderr}");
    }
    host.assert_nothing_left();
}

#[test]
fn privileged_limits_are_set_or_refused() {
    needs_containers!();
    let host = Host::new();
    let memory = Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    let unified = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    if !memory.exists() && !unified.contains("memory") {
        let (_, stderr) = host.run(125, &["--memory", "64m", "tiny", "true"]);
        assert!(stderr.contains("--memory cannot be enforced"), "{stderr}");
        gantry_testkit::skip!("no memory controller here: only the refusal was tested");
    }
    for runtime in runtimes() {
        let id = host.gantry(&[
            "run",
            "--detach",
            "--runtime",
            runtime,
            "--memory",
            "64m",
            "--pids-limit",
            "20",
            "--name",
            runtime,
            "tiny",
            "sleep",
            "1000",
        ]);
        let base = Path::new("/sys/fs/cgroup");
        let read = |paths: [String; 2]| {
            let found = paths
                .iter()
                .find_map(|path| fs::read_to_string(base.join(path)).ok());
            found.unwrap().trim().to_owned()
        };
        assert_eq!(
            read([
                format!("memory/gantry-{id}/memory.limit_in_bytes"),
                format!("gantry-{id}/memory.max")
            ]),
            "67108864"
        );
        assert_eq!(
            read([
                format!("pids/gantry-{id}/pids.max"),
                format!("gantry-{id}/pids.max")
            ]),
            "20"
        );
        host.gantry(&["rm", "--force", runtime]);
        assert!(!base.join(format!("memory/gantry-{id}")).exists());
    }
    host.assert_nothing_left();
}

#[test]
fn privileged_writable_layer_is_the_containers_own() {
    needs_containers!();
    let host = Host::new();
    for face in ["composefs", "hardlink"] {
        let with = ["--writable", "--face", face];
        let made = host.sh(&with, "echo more >> /bin/busybox; rm /bin/true; mkdir /new; ls -d /new; [ ! -e /bin/true ] && echo gone");
        assert_eq!(made, "/new\ngone\n", "{face}");
        assert_eq!(
            host.sh(
                &["--face", face],
                "ls -d /new 2>/dev/null; true && echo there"
            ),
            "there\n"
        );
    }
    host.assert_nothing_left();
    host.world.assert_clean();
}

#[test]
fn privileged_volumes_begin_with_the_images_files() {
    needs_containers!();
    let host = Host::new();
    let layer = [
        tar::owner(tar::mode(tar::dir("data"), 0o750), 5, 6),
        tar::file("data/seed", "seed"),
    ];
    host.add_image(
        "volumes",
        &layer,
        json!({"Env": ["PATH=/bin"], "Volumes": {"/data": {}, "/fresh": {}}}),
    );
    let script = "stat -c %a:%u:%g /data; cat /data/seed; touch /data/a /fresh/b && echo ' ok'; touch /c || echo no";
    let (stdout, _) = host.run(0, &["volumes", "sh", "-c", script]);
    assert_eq!(stdout, "750:5:6\nseed ok\nno\n");
    host.assert_nothing_left();
}

#[test]
fn privileged_mounts_of_the_host_are_read_write_or_read_only() {
    needs_containers!();
    let host = Host::new();
    let dir = host.world.dir.join("host");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(dir.join("file"), "of the host").unwrap();
    let volume = |options: &str| format!("{}:/mnt/deep/er{options}", dir.display());
    assert_eq!(
        host.sh(
            &["--volume", &volume("")],
            "cat /mnt/deep/er/file; echo new > /mnt/deep/er/new"
        ),
        "of the host"
    );
    assert_eq!(fs::read_to_string(dir.join("new")).unwrap(), "new\n");
    let script = "touch /mnt/deep/er/x 2>/dev/null || echo read-only";
    assert_eq!(
        host.sh(&["--volume", &volume(":ro")], script),
        "read-only\n"
    );
    assert_eq!(
        host.sh(&["--tmpfs", "/mnt/t:size=1m"], "touch /mnt/t/x && echo ok"),
        "ok\n"
    );
    host.assert_nothing_left();
}

/// An image's symlinks in the places that a runtime mounts over or writes to.
#[test]
fn privileged_hostile_roots_touch_nothing_outside() {
    needs_containers!();
    let host = Host::new();
    let canary = host.world.dir.join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    let before = gantry_testkit::tree::snapshot(&canary).unwrap();
    let up = "../".repeat(12);
    for place in ["proc", "sys", "dev", "etc", "tmp", "run", "srv"] {
        for target in [
            canary.display().to_string(),
            format!("{up}{}", canary.display()),
        ] {
            let name = format!("hostile-{place}");
            let configure = json!({"Env": ["PATH=/bin"], "WorkingDir": "/srv/work/dir", "Volumes": {"/srv/data": {}}});
            let remove = tar::file(format!(".wh.{place}"), "");
            host.add_image(&name, &[remove, tar::symlink(place, &target)], configure);
            for runtime in runtimes() {
                // It may be refused or run; it may not reach what the link names.
                host.command(&["run", "--rm", "--runtime", runtime, &name, "true"])
                    .output()
                    .unwrap();
                let after = gantry_testkit::tree::snapshot(&canary).unwrap();
                assert_eq!(before, after, "{place} -> {target}, {runtime}");
            }
        }
    }
    host.assert_nothing_left();
}

#[test]
fn privileged_share_is_run_from_and_nothing_is_copied() {
    needs_containers!();
    let host = Host::new();
    let (share, second) = (host.world.dir.join("share"), host.world.dir.join("second"));
    fs::create_dir(&share).unwrap();
    let mount = |args: &[&str]| tool::run(Command::new("mount").args(args)).unwrap();
    let (from, to) = (
        host.world.root().display().to_string(),
        share.display().to_string(),
    );
    mount(&["--bind", &from, &to]);
    mount(&["-o", "remount,bind,ro", &to]);
    for face in ["composefs", "hardlink"] {
        let args = [
            "run", "--rm", "--share", &to, "--face", face, "tiny", "echo", "shared",
        ];
        let mut command = host.world.command_in(&second, args);
        assert_eq!(
            succeed(command.env("GANTRY_RUNROOT", host.runroot())),
            "shared"
        );
    }
    let files: Vec<_> = gantry_testkit::tree::snapshot(&second)
        .map(|tree| tree.0.into_keys().collect())
        .unwrap_or_default();
    assert!(
        files
            .iter()
            .all(|path: &PathBuf| path.starts_with("containers") || path.as_os_str().is_empty()),
        "{files:?}"
    );
    tool::run(Command::new("umount").arg(&share)).unwrap();
    host.assert_nothing_left();
}

#[test]
fn privileged_many_at_once() {
    needs_containers!();
    let host = Host::new();
    let children: Vec<_> = (0..24)
        .map(|number| {
            let child = host
                .command(&["run", "--rm", "tiny", "echo", &number.to_string()])
                .stdout(Stdio::piped())
                .spawn();
            child.unwrap()
        })
        .collect();
    let printed: BTreeSet<String> = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        })
        .collect();
    assert_eq!(
        printed,
        (0..24).map(|number: i32| number.to_string()).collect()
    );
    host.assert_nothing_left();
}

#[test]
fn privileged_terminal_is_the_programs() {
    needs_containers!();
    let host = Host::new();
    for runtime in runtimes() {
        let mut terminal = Terminal::open(33, 101);
        let mut child = terminal.spawn(host.command(&[
            "run",
            "--rm",
            "-it",
            "--runtime",
            runtime,
            "tiny",
            "sh",
            "-c",
            "stty size; read line; echo got $line; while [ \"$(stty size)\" = '33 101' ]; do sleep 0.01; done; stty size; exit 4",
        ]));
        terminal.expect("33 101");
        terminal.set_size(44, 77);
        send(&child, rustix::process::Signal::WINCH);
        terminal.write("words\r");
        terminal.expect("got words");
        terminal.expect("44 77");
        assert_eq!(child.wait().unwrap().code(), Some(4));
        assert!(!terminal.is_raw(), "the caller's terminal is as before");
    }
    let mut terminal = Terminal::open(24, 80);
    let mut child = terminal.spawn(host.command(&["run", "--rm", "tiny", "touch", "/new"]));
    terminal.expect("Read-only file system");
    terminal.expect("--writable");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    host.assert_nothing_left();
}

/// A terminal of the caller's.
struct Terminal {
    master: fs::File,
    slave: fs::File,
    seen: String,
}

impl Terminal {
    fn open(rows: u16, columns: u16) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(name)
            .unwrap();
        let terminal = Self {
            master: master.into(),
            slave,
            seen: String::new(),
        };
        terminal.set_size(rows, columns);
        terminal
    }

    fn spawn(&self, mut command: Command) -> Child {
        let end = || Stdio::from(self.slave.try_clone().unwrap());
        command
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap()
    }

    fn set_size(&self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&self.slave, size).unwrap();
    }

    fn is_raw(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.slave).unwrap().local_modes;
        !modes.contains(rustix::termios::LocalModes::ICANON)
    }

    fn write(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until `text` has come.
    fn expect(&mut self, text: &str) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut buffer = [0; 4096];
        while !self.seen.contains(text) {
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            let patience = Timespec {
                tv_sec: 30,
                tv_nsec: 0,
            };
            assert_eq!(
                poll(&mut fds, Some(&patience)).unwrap(),
                1,
                "{text:?} did not come: {:?}",
                self.seen
            );
            let count = self.master.read(&mut buffer).unwrap();
            self.seen
                .push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        let end = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..end);
    }
}

#[test]
fn privileged_plans_are_printed_and_nothing_is_made() {
    needs_containers!();
    let host = Host::new();
    let plan = host.run(0, &["--dry-run", "tiny", "true"]).0;
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(
        plan["work"]["container"]["draft"]["spec"]["process"]["args"],
        json!(["true"])
    );
    // Whatever stands behind the image is the program's.
    let behind = ["--insecure-policy", "--rm", "-d", "--", "--policy=x"];
    let plan = host
        .run(0, &[&["--dry-run", "tiny"][..], &behind].concat())
        .0;
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let draft = &plan["work"]["container"]["draft"];
    assert_eq!(draft["spec"]["process"]["args"], json!(behind));
    let explained = host.run(0, &["--explain", "tiny", "true"]).0;
    assert!(explained.contains("--writable"), "{explained}");
    assert!(!host.runroot().exists(), "nothing was made");
}

#[test]
fn privileged_namespaces_are_shared_as_asked() {
    needs_containers!();
    let host = Host::new();
    let own = |kind: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        link.to_str().unwrap().to_owned()
    };
    let seen = |options: &[&str], kind: &str| {
        let script = format!("readlink /proc/self/ns/{kind}");
        host.sh(options, &script).trim().to_owned()
    };
    for (option, kind) in [
        ("--pid", "pid"),
        ("--ipc", "ipc"),
        ("--uts", "uts"),
        ("--cgroupns", "cgroup"),
        ("--network", "net"),
    ] {
        assert_eq!(seen(&[option, "host"], kind), own(kind), "{option}");
        let path = format!("ns:/proc/{}/ns/{kind}", std::process::id());
        assert_eq!(seen(&[option, &path], kind), own(kind), "{option}");
        assert_ne!(seen(&[], kind), own(kind), "{option}");
    }
    let (mut first, _stdout) = host.start(&[
        "--name",
        "first",
        "tiny",
        "sh",
        "-c",
        "echo ready; exec sleep 600",
    ]);
    let script = "readlink /proc/1/ns/net";
    let of_first = host.gantry(&["exec", "first", "sh", "-c", script]);
    assert_eq!(seen(&["--network", "container:first"], "net"), of_first);
    let both = ["--pid", "container:first", "--ipc", "container:first"];
    assert!(host.sh(&both, "cat /proc/1/cmdline").contains("sleep"));
    host.gantry(&["rm", "--force", "first"]);
    first.wait().unwrap();
    let (_, said) = host.run(125, &["--pid", "container:first", "tiny", "true"]);
    assert_one_sentence(&said);
    let (_, said) = host.run(125, &["--uidmap", "0:1000:1", "tiny", "true"]);
    assert!(said.contains("gantry generate"), "{said}");
    host.assert_nothing_left();
}

#[test]
fn privileged_docker_options_reach_the_program() {
    needs_containers!();
    let host = Host::new();
    for (options, script, said) in [
        (&["--umask", "077"][..], "umask", "0077"),
        (
            &["--oom-score-adj", "500"],
            "cat /proc/self/oom_score_adj",
            "500",
        ),
        (
            &["--unsetenv", "container"],
            "echo ${container-none}",
            "none",
        ),
        (
            &["--add-host", "db;x:10.0.0.7"],
            "grep db /etc/hosts",
            "10.0.0.7\tdb x",
        ),
        (
            &["--dns", "10.0.0.1", "--dns-search", "a.example"],
            "cat /etc/resolv.conf",
            "search a.example\nnameserver 10.0.0.1",
        ),
        (
            &["--domainname", "example"],
            "cat /proc/sys/kernel/domainname",
            "example",
        ),
        (&["--ipc", "none"], "test -d /dev/shm || echo none", "none"),
        (
            &["--read-only-tmpfs=false"],
            "touch /tmp/x 2>/dev/null || echo none",
            "none",
        ),
        (
            &["--cpu-shares", "512", "--memory-reservation", "32m"],
            "echo fine",
            "fine",
        ),
        (&["--security-opt", "mask=/etc/hosts"], "cat /etc/hosts", ""),
        (
            &["--restart", "no", "--quiet", "--systemd=false"],
            "echo taken",
            "taken",
        ),
    ] {
        let wanted = options.join(" ");
        if let Some(reason) = gantry_testkit::skip::is_root()
            .then(|| missing_controller(&wanted))
            .flatten()
        {
            gantry_testkit::skip::report(&wanted, &reason);
            continue;
        }
        assert_eq!(host.sh(options, script).trim_end(), said, "{wanted}");
    }
    for (options, word) in [
        (&["--publish", "80:80"][..], "networks"),
        (&["--restart=always"], "systemd"),
        (&["-P"], "networks"),
        (&["--rootfs"], "policy"),
    ] {
        let (_, said) = host.run(125, &[options, &["tiny", "true"]].concat());
        assert!(
            said.contains(word) && said.contains("docs/options.md"),
            "{said}"
        );
    }
    host.assert_nothing_left();
}

/// A limit can be tested where its controller is.
fn missing_controller(options: &str) -> Option<String> {
    let facts = gantry_runtime::host::probe_host();
    let needed = [("--cpu-shares", "cpu"), ("--memory", "memory")];
    let missing = needed
        .iter()
        .find(|(option, controller)| options.contains(option) && !facts.cgroups.has(controller));
    missing.map(|(_, controller)| format!("no usable {controller} controller"))
}

#[test]
fn privileged_first_process_reaps_what_is_left_to_it() {
    needs_containers!();
    let host = Host::new();
    let init = [
        "/usr/libexec/podman/catatonit",
        "/usr/bin/catatonit",
        "/usr/bin/docker-init",
        "/usr/bin/tini-static",
    ];
    if !init.iter().any(|path| Path::new(path).exists()) {
        gantry_testkit::skip!("neither catatonit nor tini-static is installed");
    }
    let script = "tr '\\0' ' ' < /proc/1/cmdline; (sleep 0.1 & ); sleep 0.5; cat /proc/[0-9]*/stat | grep -c ' Z ' ; exit 7";
    let (said, _) = host.run(7, &["--init", "tiny", "sh", "-c", script]);
    assert!(said.starts_with("/dev/init -- "), "{said}");
    assert!(said.ends_with("0\n"), "{said}");
    host.assert_nothing_left();
}
