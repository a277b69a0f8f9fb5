// SPDX-License-Identifier: Apache-2.0
//! A real dockerd that asks us, a real registry, a policy on disk.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Output;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{Mode, Plugin, World};
use gantry_testkit::docker::Dockerd;
use gantry_testkit::gpg::Gpg;
use gantry_testkit::scratch::scratch;
use gantry_testkit::skip;
use serde_json::{Value, json};

/// Ends the test where no daemon can run.
macro_rules! dockerd {
    ($dir:expr, $plugin:expr) => {
        match Dockerd::start($dir, $plugin) {
            Ok(daemon) => daemon,
            Err(error) => skip!("no dockerd here: {error:#}"),
        }
    };
}

/// What the client said.
fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn refused<const N: usize>(daemon: &Dockerd, args: [&str; N]) -> String {
    let output = daemon.docker(args).output().unwrap();
    let said = stderr(&output);
    assert!(!output.status.success(), "{args:?} was allowed");
    assert!(
        said.contains("authorization denied by plugin"),
        "{args:?}: {said}"
    );
    said
}

/// One request as bytes; the status and the body of the answer.
fn raw(daemon: &Dockerd, request: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    // A daemon that refuses may close before all was sent.
    drop(stream.write_all(request.as_bytes()));
    let mut answer = String::new();
    drop(stream.read_to_string(&mut answer));
    let status = answer
        .split(' ')
        .nth(1)
        .map_or(0, |word| word.parse().unwrap());
    (status, answer)
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const JSON: &str = "Content-Type: application/json\r\n";

/// The containers that exist.
fn containers(daemon: &Dockerd) -> usize {
    let all = daemon.run(["ps", "--all", "--quiet"]).unwrap();
    all.lines().count()
}

/// Pushes an image of one file and takes it from the daemon again.
fn publish(daemon: &Dockerd, name: &str, contents: &str) {
    daemon.import_busybox(name, contents).unwrap();
    daemon.run(["push", "--quiet", name]).unwrap();
    daemon.run(["rmi", name]).unwrap();
}

#[test]
fn privileged_a_daemon_runs_only_what_the_policy_admits() {
    let dir = scratch();
    let Some(world) = World::start(dir.path()) else {
        skip!("docker-registry is not installed");
    };
    let plugin = Plugin::start(&world, "first", Mode::Enforce);
    let daemon = dockerd!(&dir.join("docker"), Some(plugin.name()));
    plugin.serve(&daemon.socket());
    let host = world.registry.address();
    let (good, evil) = (format!("{host}/good/app:v1"), format!("{host}/evil/app:v1"));
    publish(&daemon, &good, "good");
    publish(&daemon, &evil, "evil");
    world.accept(&[&format!("{host}/good")]);

    // Pulled by the client when the daemon says that it has none, and then judged.
    let said = daemon
        .run(["run", "--rm", &good, "/bin/echo", "ran"])
        .unwrap();
    assert!(said.ends_with("ran"), "{said}");
    refused(&daemon, ["run", "--rm", &evil, "/bin/echo", "ran"]);

    let inspect = |image: &str, format: &str| {
        daemon
            .run(["image", "inspect", "--format", format, image])
            .unwrap()
    };
    let (good_id, evil_id) = (inspect(&good, "{{.Id}}"), inspect(&evil, "{{.Id}}"));
    let (good_digest, evil_digest) = (
        inspect(&good, "{{index .RepoDigests 0}}"),
        inspect(&evil, "{{index .RepoDigests 0}}"),
    );
    for image in [&good_id, &good_id[7..], &good_id[7..19], &good_digest] {
        daemon.run(["create", image, "/bin/true"]).unwrap();
    }
    let before = containers(&daemon);
    for image in [&evil_id, &evil_id[7..], &evil_id[7..19], &evil_digest] {
        refused(&daemon, ["create", image, "/bin/true"]);
    }

    // A name is no proof.
    for name in [&format!("{host}/good/app:v2"), "busybox", "good/app", &good] {
        daemon.run(["tag", &evil, name]).unwrap();
        refused(&daemon, ["create", name, "/bin/true"]);
    }
    // The tag above was moved to the other image.
    daemon.run(["tag", &good_digest, &good]).unwrap();
    daemon.run(["create", &good, "/bin/true"]).unwrap();

    // What leaves the registry's digest behind leaves its verdict behind.
    daemon
        .run(["create", "--name", "made", &good, "/bin/true"])
        .unwrap();
    daemon
        .run(["commit", "made", &format!("{host}/good/committed:v1")])
        .unwrap();
    refused(
        &daemon,
        ["create", &format!("{host}/good/committed:v1"), "/bin/true"],
    );
    daemon.import_busybox("local", "local").unwrap();
    refused(&daemon, ["create", "local", "/bin/true"]);
    world.accept(&[&format!("{host}/good"), "localhost/docker-daemon"]);
    daemon.run(["create", "local", "/bin/true"]).unwrap();
    refused(&daemon, ["create", &evil, "/bin/true"]);

    let created = containers(&daemon) - before;
    assert_eq!(created, 3);
    let journal = plugin.journal();
    assert!(
        journal
            .iter()
            .any(|line| line.entry == "docker-start" && line.admitted)
    );
    assert!(journal.iter().all(|line| line.allowed == line.admitted));
}

#[test]
fn privileged_a_signature_is_for_an_image_and_a_name() {
    let dir = scratch();
    let Some(world) = World::start(dir.path()) else {
        skip!("docker-registry is not installed");
    };
    let Some(gpg) = Gpg::new().unwrap() else {
        skip!("gpg is not installed");
    };
    let plugin = Plugin::start(&world, "signed", Mode::Enforce);
    let daemon = dockerd!(&dir.join("docker"), Some(plugin.name()));
    plugin.serve(&daemon.socket());
    let host = world.registry.address();
    let name = |tag: &str| format!("{host}/team/app:{tag}");
    let digests: Vec<String> = ["alice", "mallory", "nobody", "older"]
        .into_iter()
        .map(|tag| {
            publish(&daemon, &name(tag), tag);
            daemon.run(["pull", "--quiet", &name(tag)]).unwrap();
            let format = "--format={{index .RepoDigests 0}}";
            daemon
                .run(["image", "inspect", format, &name(tag)])
                .unwrap()
        })
        .collect();
    let digest = |position: usize| digests[position].rsplit_once('@').unwrap().1;
    let key = |user| gpg.make_key(user, "ed25519", "sign", "1y").unwrap();
    let (alice, mallory) = (
        key("alice <alice@example.com>"),
        key("mallory <m@example.com>"),
    );
    world.sign(&gpg, &alice, &name("alice"), digest(0));
    world.sign(&gpg, &mallory, &name("mallory"), digest(1));
    world.sign(&gpg, &alice, &name("older"), digest(3));
    let keys = STANDARD.encode(gpg.export(&alice).unwrap());
    let signed = json!({"type": "signedBy", "keyType": "GPGKeys", "keyData": keys});
    world.write(&json!({
        "default": [{"type": "reject"}],
        "transports": {"docker": {format!("{host}/team"): [signed]}},
    }));

    let said = daemon
        .run(["run", "--rm", &name("alice"), "/bin/echo", "ran"])
        .unwrap();
    assert_eq!(said, "ran");
    daemon.run(["create", &digests[0], "/bin/true"]).unwrap();
    refused(&daemon, ["create", &name("mallory")]);
    refused(&daemon, ["create", &digests[1]]);
    refused(&daemon, ["create", &name("nobody")]);
    // Signed by the right key as another version: good as what it is, and not as the current one.
    daemon.run(["create", &name("older"), "/bin/true"]).unwrap();
    daemon.run(["tag", &name("older"), &name("alice")]).unwrap();
    let said = refused(&daemon, ["create", &name("alice")]);
    assert!(said.contains("older"), "{said}");
    // The other way round: a name of ours on an image of nobody's.
    daemon
        .run(["tag", &name("nobody"), &name("older")])
        .unwrap();
    refused(&daemon, ["create", &name("older")]);
}

#[test]
fn privileged_no_spelling_of_a_request_gets_past() {
    let dir = scratch();
    let Some(world) = World::start(dir.path()) else {
        skip!("docker-registry is not installed");
    };
    let plugin = Plugin::start(&world, "spelling", Mode::Enforce);
    let daemon = dockerd!(&dir.join("docker"), Some(plugin.name()));
    plugin.serve(&daemon.socket());
    let host = world.registry.address();
    let (good, evil) = (format!("{host}/good/app:v1"), format!("{host}/evil/app:v1"));
    for image in [&good, &evil] {
        daemon.import_busybox(image, image).unwrap();
        daemon.run(["push", "--quiet", image]).unwrap();
    }
    world.accept(&[&format!("{host}/good")]);

    let body = |image: &str| json!({"Image": image, "Cmd": ["/bin/true"]}).to_string();
    let (status, answer) = raw(&daemon, &post("/containers/create", JSON, &body(&good)));
    assert_eq!(status, 201, "{answer}");
    let id: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let id = id["Id"].as_str().unwrap().to_owned();
    let before = containers(&daemon);

    let evil_body = body(&evil);
    let padding = format!("\"Labels\":{{\"x\":\"{}\"}}", "x".repeat(5 << 20));
    let mut requests: Vec<(String, String)> = [
        "/containers/create",
        "/v1.24/containers/create",
        "/v1.41/containers/create",
        "/v1.41/containers/%63reate",
        "/v1.41%2Fcontainers%2Fcreate",
        "/v1.41/containers/create?name=x",
        "//containers/create",
        "/containers//create",
        "/x/../containers/create",
        "/./containers/create",
        "http://docker/v1.41/containers/create",
        "/v1.41/containers/create#x",
        "/v1.41/containers/create/",
        "/v1.41/Containers/Create",
    ]
    .map(|path| (path.to_owned(), post(path, JSON, &evil_body)))
    .to_vec();
    for tricky in [
        format!(r#"{{"image":"{evil}"}}"#),
        format!(r#"{{"IMAGE":"{evil}"}}"#),
        format!(r#"{{"Image":"{good}","Image":"{evil}"}}"#),
        format!(r#"{{"Image":"{good}","image":"{evil}"}}"#),
        format!(r#"{{"image":"{evil}","Image":"{good}"}}"#),
        format!(r#"{{"\u0049mage":"{evil}"}}"#),
        format!(r#"{{"Image":"{evil}"}}{{"Image":"{good}"}}"#),
        format!(r#"{{"Image":"{evil}"}} trailing"#),
        format!(r#"{{{padding},"Image":"{evil}"}}"#),
        format!(r#"{{"Image":"{evil}",{padding}}}"#),
        r#"{"Cmd":["/bin/true"]}"#.to_owned(),
        r#"{"Image":null}"#.to_owned(),
        String::new(),
    ] {
        let shown = tricky.chars().take(80).collect();
        requests.push((shown, post("/v1.41/containers/create", JSON, &tricky)));
    }
    for headers in [
        "Content-Type: application/json; charset=utf-8\r\n",
        "Content-Type: APPLICATION/JSON\r\n",
        "Content-Type: text/plain\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: application/json\r\nContent-Type: text/plain\r\n",
        "Content-Type: text/plain\r\nContent-Type: application/json\r\n",
        "",
    ] {
        let request = post("/v1.41/containers/create", headers, &evil_body);
        requests.push((headers.to_owned(), request));
    }
    // Without a length that the daemon could tell the plug-in from.
    for (shown, headers) in [
        ("chunked", "Content-Type: application/json\r\n"),
        ("chunked, no type", ""),
    ] {
        requests.push((
            shown.to_owned(),
            format!(
                "POST /v1.41/containers/create HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n{headers}\
                 Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{evil_body}\r\n0\r\n\r\n",
                evil_body.len()
            ),
        ));
    }
    // Two requests on one connection.
    let innocent = "GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n";
    requests.push((
        "pipelined".to_owned(),
        format!(
            "{innocent}{}",
            post("/v1.41/containers/create", JSON, &evil_body)
        ),
    ));
    for (shown, request) in &requests {
        let (status, answer) = raw(&daemon, request);
        assert!(status != 201, "{shown} was allowed: {answer}");
        assert!(!answer.contains("\"Id\""), "{shown} was allowed: {answer}");
    }
    assert_eq!(containers(&daemon), before, "a container was made");

    // The same spellings are not refused for being spellings.
    for path in ["/v1.24/containers/create", "/v1.41/containers/%63reate"] {
        let (status, answer) = raw(&daemon, &post(path, JSON, &body(&good)));
        assert_eq!(status, 201, "{answer}");
    }
    let (status, answer) = raw(&daemon, &post(&format!("/containers/{id}/start"), "", ""));
    assert_eq!(status, 204, "{answer}");
}

#[test]
fn privileged_what_runs_images_without_asking_is_refused() {
    let dir = scratch();
    let Some(world) = World::start(dir.path()) else {
        skip!("docker-registry is not installed");
    };
    let plugin = Plugin::start(&world, "unasked", Mode::Enforce);
    let mut daemon = dockerd!(&dir.join("docker"), Some(plugin.name()));
    plugin.serve(&daemon.socket());
    daemon.import_busybox("base", "base").unwrap();
    let context = dir.join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM base\nRUN /bin/true\n").unwrap();
    let context = context.to_str().unwrap().to_owned();
    world.accept(&["localhost/docker-daemon"]);

    refused(
        &daemon,
        [
            "build",
            "--network=none",
            "--build-arg=TOKEN=secret",
            &context,
        ],
    );
    assert_eq!(plugin.journal()[0].subject, "POST /v1.41/build");
    refused(&daemon, ["swarm", "init", "--advertise-addr=127.0.0.1"]);
    refused(&daemon, ["service", "create", "base"]);
    let plugins = daemon.docker([
        "plugin",
        "install",
        "--grant-all-permissions",
        "127.0.0.1:1/x",
    ]);
    let mut plugins = plugins;
    assert!(!plugins.output().unwrap().status.success());

    // The same daemon with a plug-in that lets builds pass.
    let lenient = Plugin::start(&world, "builds", Mode::EnforceButBuild);
    lenient.serve(&daemon.socket());
    daemon.restart(Some(lenient.name())).unwrap();
    daemon
        .run(["build", "--network=none", "--tag=built", &context])
        .unwrap();
    world.accept(&[]);
    refused(&daemon, ["create", "built"]);
}

#[test]
fn privileged_a_start_is_judged_again() {
    let dir = scratch();
    let Some(world) = World::start(dir.path()) else {
        skip!("docker-registry is not installed");
    };
    let plugin = Plugin::start(&world, "start", Mode::Enforce);
    let mut daemon = dockerd!(&dir.join("docker"), Some(plugin.name()));
    plugin.serve(&daemon.socket());
    let host = world.registry.address();
    let (good, evil) = (format!("{host}/good/app:v1"), format!("{host}/evil/app:v1"));
    publish(&daemon, &good, "good");
    publish(&daemon, &evil, "evil");
    daemon.run(["pull", "--quiet", &good]).unwrap();
    daemon.run(["pull", "--quiet", &evil]).unwrap();
    world.accept(&[&format!("{host}/good")]);

    // A policy that is tightened later.
    daemon
        .run(["create", "--name=web", &good, "/bin/sleep", "100"])
        .unwrap();
    daemon.run(["start", "web"]).unwrap();
    world.accept(&[]);
    refused(&daemon, ["restart", "--time=0", "web"]);
    daemon.run(["stop", "--time=0", "web"]).unwrap();
    refused(&daemon, ["start", "web"]);
    world.accept(&[&format!("{host}/good")]);
    daemon.run(["start", "web"]).unwrap();
    daemon.run(["rm", "--force", "web"]).unwrap();

    // In audit mode all is allowed and written down; the containers that were made do not start afterwards. So it is
    // with a tag that moved between question and creation: the container has the other image's ID and the good name.
    let audit = Plugin::start(&world, "audit", Mode::Audit);
    audit.serve(&daemon.socket());
    daemon.restart(Some(audit.name())).unwrap();
    daemon
        .run(["run", "--name=evil", &evil, "/bin/true"])
        .unwrap();
    daemon.run(["tag", &evil, &good]).unwrap();
    daemon
        .run(["create", "--name=moved", &good, "/bin/true"])
        .unwrap();
    assert!(
        audit
            .journal()
            .iter()
            .any(|line| line.allowed && !line.admitted)
    );
    daemon.restart(Some(plugin.name())).unwrap();
    for container in ["evil", "moved"] {
        refused(&daemon, ["start", container]);
        refused(&daemon, ["restart", container]);
        let id = daemon
            .run(["container", "inspect", "--format={{.Id}}", container])
            .unwrap();
        refused(&daemon, ["start", &id]);
        refused(&daemon, ["start", &id[..12]]);
    }

    // Nobody there to ask.
    drop(plugin);
    let output = daemon
        .docker(["create", &evil, "/bin/true"])
        .output()
        .unwrap();
    assert!(!output.status.success());
}

#[test]
fn privileged_a_renamed_container_does_not_start_for_another() {
    let dir = scratch();
    let Some(world) = World::start(dir.path()) else {
        skip!("docker-registry is not installed");
    };
    let audit = Plugin::start(&world, "rename-audit", Mode::Audit);
    let mut daemon = dockerd!(&dir.join("docker"), Some(audit.name()));
    audit.serve(&daemon.socket());
    let host = world.registry.address();
    let (good, evil) = (format!("{host}/good/app:v1"), format!("{host}/evil/app:v1"));
    publish(&daemon, &good, "good");
    publish(&daemon, &evil, "evil");
    world.accept(&[&format!("{host}/good")]);
    let create = |image: &str| {
        daemon.run(["pull", "--quiet", image]).unwrap();
        daemon.run(["create", image, "/bin/true"]).unwrap()
    };
    let (good_id, evil_id) = (create(&good), create(&evil));
    let plugin = Plugin::start(&world, "rename", Mode::Enforce);
    plugin.serve(&daemon.socket());
    daemon.restart(Some(plugin.name())).unwrap();

    let rename = |id: &str, name: &str| {
        raw(
            &daemon,
            &post(&format!("/containers/{id}/rename?name={name}"), "", ""),
        )
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                rename(&good_id, "xx");
                rename(&good_id, "yy");
                rename(&evil_id, "xx");
                rename(&evil_id, "zz");
            }
        });
        let begun = Instant::now();
        let (mut started, mut refused) = (0, 0);
        while (started < 3 || refused < 20) && begun.elapsed() < Duration::from_secs(60) {
            match raw(&daemon, &post("/containers/xx/start", "", "")).0 {
                403 => refused += 1,
                _ => started += 1,
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (started, refused)
    });
    let state = |id: &str| {
        let format = "--format={{.State.StartedAt}}";
        daemon.run(["container", "inspect", format, id]).unwrap()
    };
    assert!(
        state(&evil_id).starts_with("0001-"),
        "the other container ran"
    );
    assert!(
        !state(&good_id).starts_with("0001-"),
        "nothing was started: {outcomes:?}"
    );
}
