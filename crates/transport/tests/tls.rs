// SPDX-License-Identifier: Apache-2.0
//! Registries with certificates: `certs.d`, client certificates, and what is
//! refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{block_on, quick, sentence};
use gantry_oci::{Kind, Reference};
use gantry_testkit::{skip, tool};
use gantry_transport::registry::tls::CertificatePlaces;
use gantry_transport::registry::{Options, Registry, RegistryError, TlsVerify};

macro_rules! needs_peers {
    () => {
        let missing = tool::missing(&["openssl", "docker-registry"]);
        if !missing.is_empty() {
            skip!("{} not installed", missing.join(", "));
        }
    };
}

fn openssl(dir: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    tool::run(command.current_dir(dir).args(arguments.split_whitespace())).unwrap();
}

/// A CA, and a certificate of it for 127.0.0.1 that serves either end.
fn certificates(dir: &Path) {
    std::fs::write(
        dir.join("ext"),
        "subjectAltName=IP:127.0.0.1,DNS:localhost\n",
    )
    .unwrap();
    openssl(
        dir,
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=test-ca",
    );
    openssl(
        dir,
        "req -newkey rsa:2048 -nodes -keyout end.key -out end.csr -subj /CN=end",
    );
    openssl(
        dir,
        "x509 -req -in end.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out end.crt -days 2 -extfile ext",
    );
}

/// docker-registry with TLS; ended when dropped.
struct Secure {
    child: Child,
    address: String,
}

impl Secure {
    fn start(dir: &Path, extra_tls: &str, extra: &str) -> Self {
        let at = dir.display();
        let config = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {at}/data}}}}\n\
             http:\n  addr: \"127.0.0.1:0\"\n  tls:\n    certificate: {at}/end.crt\n    key: {at}/end.key\n{extra_tls}{extra}"
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new(tool::find("docker-registry").unwrap())
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(
                log.read_line(&mut line).unwrap() > 0,
                "docker-registry ended"
            );
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split([' ', '"', ',']).next().unwrap().to_owned();
            }
        };
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address }
    }

    /// Asks for the tags of a repository that is not there: `NotFound` means
    /// that the registry was reached.
    fn ask(&self, options: Options) -> (Kind, String) {
        self.ask_as(&self.address, options)
    }

    fn ask_as(&self, address: &str, options: Options) -> (Kind, String) {
        let reference = Reference::parse_normalized(&format!("{address}/app:v1")).unwrap();
        let registry = Registry::new(reference.host, options);
        let error: RegistryError =
            block_on(registry.repository(reference.repository).tags()).unwrap_err();
        (error.kind(), sentence(&error))
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn options(dir: Option<PathBuf>, tls_verify: TlsVerify) -> Options {
    let certificates = CertificatePlaces {
        dir,
        roots: Vec::new(),
    };
    let mut options = Options {
        certificates,
        tls_verify,
        ..quick()
    };
    options.retry.attempts = 1;
    options
}

#[test]
fn certificate_is_checked_unless_told_otherwise() {
    needs_peers!();
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let server = Secure::start(dir.path(), "", "");
    let (kind, text) = server.ask(options(None, TlsVerify::Required));
    assert!(
        kind == Kind::Unavailable || kind == Kind::InvalidInput,
        "{text}"
    );
    assert!(text.contains("certificate"), "{text}");
    assert_eq!(server.ask(options(None, TlsVerify::Off)).0, Kind::NotFound);
    let roots = dir.path().join("certs");
    std::fs::create_dir(&roots).unwrap();
    std::fs::copy(dir.path().join("ca.crt"), roots.join("ca.crt")).unwrap();
    for verify in [TlsVerify::Required, TlsVerify::Default] {
        let (kind, text) = server.ask(options(Some(roots.clone()), verify));
        assert_eq!(kind, Kind::NotFound, "{text}");
    }
    // By host and port, as certs.d has it.
    let by_host = dir.path().join("certs.d");
    std::fs::create_dir_all(by_host.join(&server.address)).unwrap();
    std::fs::copy(
        dir.path().join("ca.crt"),
        by_host.join(&server.address).join("x.crt"),
    )
    .unwrap();
    let mut searched = options(None, TlsVerify::Required);
    searched.certificates.roots = vec![dir.path().join("absent"), by_host];
    assert_eq!(server.ask(searched).0, Kind::NotFound);
}

#[test]
fn client_certificate_opens_what_needs_one() {
    needs_peers!();
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let server = Secure::start(
        dir.path(),
        &format!("    clientcas: [{}/ca.crt]\n", dir.path().display()),
        "",
    );
    let roots = dir.path().join("certs");
    std::fs::create_dir(&roots).unwrap();
    std::fs::copy(dir.path().join("ca.crt"), roots.join("ca.crt")).unwrap();
    let (kind, text) = server.ask(options(Some(roots.clone()), TlsVerify::Required));
    assert_eq!(kind, Kind::Unavailable, "{text}");
    std::fs::copy(dir.path().join("end.crt"), roots.join("me.cert")).unwrap();
    let (kind, text) = server.ask(options(Some(roots.clone()), TlsVerify::Required));
    assert_eq!(kind, Kind::InvalidInput);
    assert!(text.contains("me.key is missing"), "{text}");
    std::fs::copy(dir.path().join("end.key"), roots.join("me.key")).unwrap();
    let (kind, text) = server.ask(options(Some(roots), TlsVerify::Required));
    assert_eq!(kind, Kind::NotFound, "{text}");
}

#[test]
fn plain_realm_of_a_tls_registry_is_refused() {
    needs_peers!();
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let realm =
        common::server::Server::start(|_| common::server::answer(200, &[], b"{\"token\":\"x\"}"));
    let auth = format!(
        "auth:\n  token:\n    realm: http://{}/token\n    service: test\n    issuer: test\n    rootcertbundle: {}/ca.crt\n",
        realm.address(),
        dir.path().display()
    );
    let server = Secure::start(dir.path(), "", &auth);
    let (kind, text) = server.ask(options(None, TlsVerify::Off));
    assert_eq!(kind, Kind::Unsafe, "{text}");
    assert!(
        text.contains("plain HTTP although the registry has TLS"),
        "{text}"
    );
    assert!(realm.requests().is_empty());
}
