// SPDX-License-Identifier: Apache-2.0
//! What a host keeps of trust: what was last admitted under a name, and under which names a share's images are judged.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use common::{World, fail, skopeo, succeed};
use gantry_testkit::gpg::Gpg;
use gantry_testkit::image::Image;
use gantry_testkit::{image, tar, tool::DockerRegistry};
use serde_json::json;

/// A day in 2024.
const THEN_S: u64 = 1_717_200_000;

/// A registry, a key, and a lookaside of which this host reads.
struct Host {
    world: World,
    gpg: Gpg,
    key: String,
    registry: DockerRegistry,
}

impl Host {
    fn new() -> Self {
        let world = World::new();
        let mut gpg = Gpg::new().unwrap().unwrap();
        gpg.set_time(Some(THEN_S));
        let key = gpg
            .make_key("a@a.example", "ed25519", "sign,cert", "0")
            .unwrap();
        fs::write(world.dir.join("key.gpg"), gpg.export(&key).unwrap()).unwrap();
        let registry = world.registry("registry");
        let host = Self {
            world,
            gpg,
            key,
            registry,
        };
        host.write(
            ".config/containers/registries.d/test.yaml",
            &format!(
                "docker:\n  {}:\n    lookaside: file://{}\n",
                host.registry.address(),
                host.world.dir.join("lookaside").display()
            ),
        );
        let wanted = json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": host.world.dir.join("key.gpg")}]);
        let scopes = json!({"docker": {host.registry.address(): wanted}});
        let policy = json!({"default": [{"type": "reject"}], "transports": scopes});
        host.world.set_policy(&policy.to_string());
        host
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.world.dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn name(&self) -> String {
        format!("{}/team/app:v1", self.registry.address())
    }

    fn source(&self) -> String {
        format!("docker://{}", self.name())
    }

    /// Puts an image or an index under the name.
    fn push(&self, image: &Image) {
        let layout = self.world.dir.join(image.digest().replace(':', "-"));
        image.write_layout(&layout, "v1").unwrap();
        let from = format!("oci:{}:v1", layout.display());
        let to = self.source();
        skopeo(&["copy", "-q", "--all", "--dest-tls-verify=false", &from, &to]);
    }

    /// Signs an image under the name, so many hours after the key was made.
    fn sign(&mut self, image: &Image, hours: u64) {
        self.gpg.set_time(Some(THEN_S + hours * 3600));
        let payload = json!({
            "critical": {
                "type": "atomic container signature",
                "image": {"docker-manifest-digest": image.digest()},
                "identity": {"docker-reference": self.name()},
            },
            "optional": {},
        });
        let payload = payload.to_string();
        let signature = self.gpg.sign(&self.key, payload.as_bytes(), &[]).unwrap();
        let dir = format!("lookaside/team/app@{}", image.digest().replace(':', "="));
        let dir = self.world.dir.join(dir);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("signature-1"), signature).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(args);
        command.env("GANTRY_RUNROOT", self.world.dir.join("run"));
        command
    }

    fn pull(&self) -> Command {
        self.command(&["pull", "--quiet", &self.source()])
    }

    /// What a start asks before anything is done.
    fn start(&self) -> Command {
        self.command(&["run", "--dry-run", "--pull", "never", &self.name()])
    }
}

fn refused(command: &mut Command, why: &str) {
    let (status, said) = fail(command);
    assert!(matches!(status, 4 | 125), "{said}");
    assert!(said.contains("is not admitted"), "{said}");
    assert!(said.contains(why), "{said}");
}

fn image(contents: &str) -> Image {
    Image::new(&[image::Layer::gzip(&tar::join(&[tar::file("f", contents)]))])
}

#[test]
fn a_replayed_image_is_refused_at_pull_and_at_start() {
    needs!([""; 0], ["docker-registry", "skopeo", "gpg"]);
    let mut host = Host::new();
    let (old, new) = (image("old"), image("new"));
    for (image, hours) in [(&old, 1), (&new, 2)] {
        host.sign(image, hours);
    }
    host.write(
        ".config/gantry/trust.d/a.toml",
        "[[rule]]\nmonotonic = true\n",
    );
    host.push(&old);
    succeed(&mut host.pull());
    succeed(&mut host.start());
    host.push(&new);
    // What is only planned moves nothing.
    succeed(&mut host.command(&["pull", "--dry-run", &host.source()]));
    succeed(&mut host.start());
    succeed(&mut host.pull());
    succeed(&mut host.start());

    // Somebody has the registry, or stands in front of it, and serves what was signed once.
    host.push(&old);
    let stepped_back = "signed before the image that was last admitted";
    refused(&mut host.pull(), stepped_back);
    refused(
        &mut host.command(&["copy", "--quiet", &host.source(), "store:copied"]),
        stepped_back,
    );
    // A tool that asks nobody brings it; it does not start, also after a boot, which forgets all verdicts.
    succeed(&mut host.command(&["--insecure-policy", "pull", "--quiet", &host.source()]));
    refused(&mut host.start(), stepped_back);
    fs::remove_dir_all(host.world.dir.join("run")).unwrap();
    refused(&mut host.start(), stepped_back);
    let explain = host
        .command(&["trust", "explain", &host.name()])
        .output()
        .unwrap();
    let text = String::from_utf8(explain.stdout).unwrap();
    assert_eq!(explain.status.code(), Some(4), "{text}");
    assert!(text.contains("condition monotonic of"), "{text}");
    assert!(text.contains(stepped_back), "{text}");
    // By digest one gets what one asks for.
    let by_digest = format!(
        "docker://{}/team/app@{}",
        host.registry.address(),
        old.digest()
    );
    succeed(&mut host.command(&["pull", "--quiet", &by_digest]));

    // A history that anybody may write to is nobody's, and is not taken for none.
    host.push(&new);
    succeed(&mut host.pull());
    let trust = host.world.root().join("trust");
    let chmod = |mode| fs::set_permissions(&trust, fs::Permissions::from_mode(mode)).unwrap();
    chmod(0o777);
    refused(&mut host.pull(), "admitted before under this name");
    refused(&mut host.start(), "admitted before under this name");
    chmod(0o700);
    succeed(&mut host.start());
    // Signed anew, the older one is the newer one.
    host.sign(&old, 3);
    host.push(&old);
    succeed(&mut host.pull());
    succeed(&mut host.start());
    host.world.assert_clean();
}

#[test]
fn an_index_that_is_signed_admits_its_image_wherever_that_goes() {
    needs!([""; 0], ["docker-registry", "skopeo", "gpg"]);
    let mut host = Host::new();
    let (ours, other) = (image("ours"), image("another machine's"));
    let entry = |image: &Image, architecture: &str| {
        let mut entry = image.entry();
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    };
    let own = gantry_oci::Platform::host().architecture;
    let index = Image::index(
        &[ours.clone(), other.clone()],
        &[entry(&ours, &own), entry(&other, "m68k")],
    );
    host.push(&index);
    refused(&mut host.pull(), "it has no signature");
    host.sign(&index, 1);
    succeed(&mut host.pull());
    // From now on the signatures are here.
    fs::remove_dir_all(host.world.dir.join("lookaside")).unwrap();
    succeed(&mut host.start());
    succeed(&mut host.command(&["trust", "explain", &host.name()]));
    let to = format!("docker://{}/team/copy:v1", host.registry.address());
    let push = ["push", "--quiet", "--remove-signatures", &host.name(), &to];
    succeed(&mut host.command(&push));
    // Without what was said of the index nothing admits the image.
    let digests = host.world.root().join("digests");
    let kept = digests.join(index.digest()).join("signatures");
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 1);
    fs::remove_dir_all(&kept).unwrap();
    refused(&mut host.start(), "it has no signature");
    refused(&mut host.command(&push), "it has no signature");
    host.world.assert_clean();
}

#[test]
fn explain_names_an_image_as_run_does() {
    needs!(["tiny"], [""; 0]);
    let world = World::new();
    let share = world.dir.join("share");
    let tiny = gantry_testkit::fixtures::reference("tiny").unwrap();
    succeed(&mut world.command_in(&share, ["pull", "--quiet", &tiny]));
    let digests = fs::read_dir(share.join("digests")).unwrap();
    let digest = digests
        .map(|entry| entry.unwrap().file_name())
        .next()
        .unwrap();
    fs::create_dir_all(share.join("images/team/app")).unwrap();
    let target = PathBuf::from("../../../digests").join(digest);
    symlink(target, share.join("images/team/app/v1")).unwrap();
    let config = world.dir.join("gantry.toml");
    let text = format!("shares = [{{ path = {share:?}, registry = \"r.example\" }}]");
    fs::write(&config, text).unwrap();
    let path = share.to_str().unwrap().to_owned();
    let accepting = |scope: &str| {
        let scopes = json!({"docker": {scope: [{"type": "insecureAcceptAnything"}]}});
        let policy = json!({"default": [{"type": "reject"}], "transports": scopes});
        world.set_policy(&policy.to_string());
    };
    let same = |options: &[&str], image: &str, scope: &str, admitted: bool| {
        accepting(scope);
        let ask = |verb: &[&str]| {
            let file = ["--config-file", config.to_str().unwrap()];
            let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
            let of_world = world.command([""; 0]);
            command.env_clear().envs(
                of_world
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            );
            command
                .args(["--root", world.dir.join("second").to_str().unwrap()])
                .args([&file[..], verb, options, &[image]].concat())
                .env("GANTRY_RUNROOT", world.dir.join("run"));
            command.output().unwrap()
        };
        let run = ask(&["run", "--dry-run", "--pull", "never"]);
        let explain = ask(&["trust", "explain"]);
        let said = format!("{run:?}\n{explain:?}");
        assert_eq!(run.status.success(), admitted, "{said}");
        assert_eq!(explain.status.success(), admitted, "{said}");
        assert!(admitted || explain.status.code() == Some(4), "{said}");
    };
    same(&[], "team/app:v1", "r.example/team", true);
    same(&[], "team/app:v1", "localhost/team", false);
    same(&[], "r.example/team/app:v1", "r.example/team/app:v1", true);
    same(&["--share", &path], "team/app:v1", "r.example", true);
    same(&["--share", &path], "tiny", "localhost/tiny", true);
    same(&["--share", &path], "tiny", "r.example", false);
}
