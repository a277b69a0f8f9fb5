// SPDX-License-Identifier: Apache-2.0
//! nginx as the lookaside, over https with an authority of its own; two companies sign one image, and both are wanted.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{World, assert_one_sentence, fail, skopeo, succeed};
use gantry_testkit::corpus::bypass::{Family, Maker, Scenes};
use gantry_testkit::tool;

/// nginx over a directory, ended when dropped.
struct Nginx {
    child: Child,
    address: String,
    authority: PathBuf,
}

impl Nginx {
    fn start(maker: &Maker, dir: &Path, root: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        let path = |name: &str| dir.join(name).display().to_string();
        let (authority, key) = (path("ca.pem"), path("server.key"));
        let ca = maker
            .path(&maker.private_key("web-ca").unwrap())
            .display()
            .to_string();
        let public = path("server.pub");
        fs::write(&public, maker.public_pem("web").unwrap()).unwrap();
        fs::copy(maker.path(&maker.private_key("web").unwrap()), &key).unwrap();
        fs::write(path("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        let openssl = |args: &[&str]| drop(maker.openssl(args).unwrap());
        openssl(&[
            "req",
            "-x509",
            "-new",
            "-key",
            &ca,
            "-subj",
            "/CN=company CA",
            "-days",
            "30",
            "-out",
            &authority,
        ]);
        openssl(&[
            "x509",
            "-new",
            "-force_pubkey",
            &public,
            "-subj",
            "/CN=web",
            "-days",
            "30",
            "-CA",
            &authority,
            "-CAkey",
            &ca,
            "-extfile",
            &path("san"),
            "-out",
            &path("server.pem"),
        ]);
        // Nobody else takes a port that was just given away, but for bad luck.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let user = if gantry_testkit::skip::is_root() {
            "user root;"
        } else {
            ""
        };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {};\n", path(what)))
            .concat();
        let config = format!(
            "{user} daemon off; worker_processes 1; pid {}; error_log stderr;\nevents {{}}\nhttp {{ access_log off;\n{temporary}\
             server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {}; ssl_certificate_key {key}; root {}; }} }}\n",
            path("pid"),
            path("server.pem"),
            root.display()
        );
        fs::write(path("nginx.conf"), config).unwrap();
        let mut child = Command::new(tool::find("nginx").unwrap())
            .args(["-e", "stderr", "-p", &path(""), "-c", &path("nginx.conf")])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "nginx ended");
            assert!(
                since.elapsed() < Duration::from_secs(20),
                "nginx did not come up"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Self {
            child,
            address: format!("https://127.0.0.1:{port}"),
            authority: authority.into(),
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Asked, so that it ends its worker; killed, it would leave that.
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        drop(self.child.wait());
    }
}

#[test]
fn two_companies_sign_one_image_in_nginx() {
    needs!(
        [""; 0],
        ["docker-registry", "skopeo", "gpg", "openssl", "nginx"]
    );
    let world = World::new();
    let registry = world.registry("registry");
    let mut maker = Maker::new(registry.address()).unwrap().unwrap();
    let layout = world.dir.join("layout");
    maker.image().write_layout(&layout, "v1").unwrap();
    let name = maker.name();
    let (from, docker) = (
        format!("oci:{}:v1", layout.display()),
        format!("docker://{name}"),
    );
    skopeo(&[
        "copy",
        "-q",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &from,
        &docker,
    ]);

    let mut scene = Scenes::of(Family::Both, &mut maker).unwrap();
    let [first, second] = &std::mem::take(&mut scene.signatures)[..] else {
        panic!("two signatures");
    };
    let dir = world.dir.join("scene");
    scene.write(&dir).unwrap();
    let nginx = Nginx::start(&maker, &world.dir.join("nginx"), &dir.join("lookaside"));
    let places = dir.join("home/.config/containers/registries.d");
    fs::write(
        places.join("test.yaml"),
        format!("default-docker:\n  lookaside: {}\n", nginx.address),
    )
    .unwrap();

    let stores = std::cell::Cell::new(0);
    let ours = |authority: &Path| {
        stores.set(stores.get() + 1);
        let store = world.dir.join(format!("store {}", stores.get()));
        let mut pull = world.command_in(&store, ["pull", "--quiet", "--retry", "0", &name]);
        pull.env("HOME", dir.join("home"))
            .env("CONTAINERS_POLICY_JSON", dir.join("policy.json"))
            .env("SSL_CERT_FILE", authority)
            .env("GANTRY_RUNROOT", world.dir.join("run"));
        pull
    };
    let theirs = |authority: &Path| {
        let mut copy = Command::new("skopeo");
        copy.arg("--policy")
            .arg(dir.join("policy.json"))
            .arg("--registries.d")
            .arg(&places);
        copy.args([
            "copy",
            "-q",
            "--remove-signatures",
            "--src-tls-verify=false",
            &docker,
        ]);
        copy.arg(format!("dir:{}", world.dir.join("theirs").display()));
        copy.env("HOME", dir.join("home"))
            .env("SSL_CERT_FILE", authority);
        copy.output().unwrap().status.success()
    };
    let kept = dir.join(format!(
        "lookaside/team/app@{}",
        scene.digest.replacen(':', "=", 1)
    ));
    for (signatures, admitted) in [
        (vec![], false),
        (vec![first], false),
        (vec![second], false),
        (vec![first, first], false),
        (vec![second, first], true),
    ] {
        for (number, signature) in signatures.iter().enumerate() {
            fs::write(kept.join(format!("signature-{}", number + 1)), signature).unwrap();
        }
        let mut pull = ours(&nginx.authority);
        if admitted {
            succeed(&mut pull);
        } else {
            let (status, said) = fail(&mut pull);
            assert_eq!(status, 4, "{said}");
            assert!(said.contains("is not admitted"), "{said}");
        }
        assert_eq!(
            theirs(&nginx.authority),
            admitted,
            "skopeo, {} signatures",
            signatures.len()
        );
    }
    // Signed by both, but from a server that nobody vouches for. (skopeo, told not to verify the registry, asks neither here.)
    let stranger = maker.path("stranger.pem");
    let key = maker.private_key("stranger").unwrap();
    maker
        .openssl(&[
            "req",
            "-x509",
            "-new",
            "-key",
            &key,
            "-subj",
            "/CN=stranger",
            "-out",
            "stranger.pem",
        ])
        .unwrap();
    let (_, said) = fail(&mut ours(&stranger));
    assert_one_sentence(&said);
    // The server itself refuses: no signature is taken to be absent.
    fs::remove_file(kept.join("signature-2")).unwrap();
    fs::create_dir(kept.join("signature-2")).unwrap();
    fail(&mut ours(&nginx.authority));
}
