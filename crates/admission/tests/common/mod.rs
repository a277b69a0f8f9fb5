// SPDX-License-Identifier: Apache-2.0
//! A registry, a policy file, and our servers over them.
#![allow(
    dead_code,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "helpers of tests; each test file uses a part"
)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_admission::docker::{DockerAuthz, Options};
use gantry_admission::{
    Bounds, Clerk, Decision, Journal, Listen, PolicyJudge, Rules, Service, Sources,
};
use gantry_image::{
    BlobStream, EndpointError, ImageSource, SignatureBlob, UnverifiedManifest, Wanted,
};
use gantry_oci::{Descriptor, Limits, ManifestDigest, Platform, Reference};
use gantry_testkit::gpg::Gpg;
use gantry_testkit::tool::{self, DockerRegistry};
use gantry_transport::registry::RegistrySource;
use gantry_transport::registry::mirrors::RegistriesConf;
use gantry_trust::{Authority, Extra, NoMemory, Policy, StoredSignature, simple};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

#[derive(Debug)]
pub struct PolicyFile(pub PathBuf);

impl Rules for PolicyFile {
    fn load(&self) -> Result<Authority, String> {
        let text = std::fs::read(&self.0).map_err(|error| error.to_string())?;
        let policy = Policy::parse(Bytes::from(text), &Limits::DEFAULT)
            .map_err(|error| error.to_string())?;
        let policy = policy.load_keys(&Limits::DEFAULT);
        Ok(Authority::new(policy, Extra::default()))
    }
}

/// Registries, and beside them a directory with signatures: a directory for each digest.
#[derive(Debug)]
pub struct Registries(pub PathBuf);

impl Sources for Registries {
    fn open(&self, reference: &Reference) -> Result<Box<dyn ImageSource>, EndpointError> {
        let source = RegistrySource::new(
            reference.clone(),
            &gantry_transport::registry::Options::default(),
            &RegistriesConf::default(),
        )?;
        Ok(Box::new(Signed {
            source,
            signatures: self.0.clone(),
        }))
    }
}

#[derive(Debug)]
struct Signed {
    source: RegistrySource,
    signatures: PathBuf,
}

#[async_trait]
impl ImageSource for Signed {
    fn describe(&self) -> String {
        self.source.describe()
    }

    async fn manifest(&self, wanted: Wanted<'_>) -> Result<UnverifiedManifest, EndpointError> {
        self.source.manifest(wanted).await
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, EndpointError> {
        self.source.blob(descriptor).await
    }

    async fn signatures(
        &self,
        digest: &ManifestDigest,
    ) -> Result<Vec<SignatureBlob>, EndpointError> {
        let Ok(files) = std::fs::read_dir(self.signatures.join(digest.hex())) else {
            return Ok(Vec::new());
        };
        let blob = |file: std::io::Result<std::fs::DirEntry>| {
            let bytes = Bytes::from(std::fs::read(file.unwrap().path()).unwrap());
            StoredSignature::parse(&bytes).unwrap().to_blob()
        };
        Ok(files.map(blob).collect())
    }
}

/// A registry and a policy that rejects everything.
pub struct World {
    pub registry: DockerRegistry,
    pub policy: PathBuf,
}

impl World {
    pub fn start(dir: &Path) -> Option<Self> {
        tool::find("docker-registry")?;
        let world = Self {
            registry: DockerRegistry::start(&dir.join("registry")).unwrap(),
            policy: dir.join("policy.json"),
        };
        world.accept(&[]);
        Some(world)
    }

    /// Rewrites the policy: these scopes are accepted, all else is rejected.
    pub fn accept(&self, scopes: &[&str]) {
        let accept = json!([{"type": "insecureAcceptAnything"}]);
        let scopes: Map<String, Value> = scopes
            .iter()
            .map(|&scope| (scope.to_owned(), accept.clone()))
            .collect();
        self.write(&json!({"default": [{"type": "reject"}], "transports": {"docker": scopes}}));
    }

    pub fn write(&self, policy: &Value) {
        let staged = self.policy.with_extension("new");
        std::fs::write(&staged, policy.to_string()).unwrap();
        std::fs::rename(staged, &self.policy).unwrap();
    }

    fn signatures(&self) -> PathBuf {
        self.policy.with_file_name("signatures")
    }

    /// Signs a manifest under a reference.
    pub fn sign(&self, gpg: &Gpg, key: &str, reference: &str, digest: &str) {
        let digest: ManifestDigest = digest.parse().unwrap();
        let reference = Reference::parse_normalized(reference).unwrap();
        let payload = simple::make_payload(&reference, &digest, "test", SystemTime::now());
        let signed = gpg.sign(key, &payload, &[]).unwrap();
        let directory = self.signatures().join(digest.hex());
        std::fs::create_dir_all(&directory).unwrap();
        let count = std::fs::read_dir(&directory).unwrap().count();
        std::fs::write(directory.join(count.to_string()), signed).unwrap();
    }

    pub fn judge(&self) -> PolicyJudge {
        PolicyJudge {
            rules: Arc::new(PolicyFile(self.policy.clone())),
            memory: Arc::new(NoMemory),
            sources: Box::new(Registries(self.signatures())),
            platforms: vec![Platform::host()],
            limits: Limits::DEFAULT,
        }
    }
}

#[derive(Debug, Default)]
pub struct Kept(pub Mutex<Vec<Decision>>);

impl Journal for Kept {
    fn record(&self, decision: &Decision) {
        self.0.lock().unwrap().push(decision.clone());
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    EnforceButBuild,
    Audit,
}

/// A plug-in under a name of its own, in the directory where dockerd looks for it.
pub struct Plugin {
    name: String,
    path: PathBuf,
    clerk: Arc<Clerk>,
    journal: Arc<Kept>,
    mode: Mode,
    running: Mutex<Option<Server>>,
}

impl Plugin {
    pub fn start(world: &World, name: &str, mode: Mode) -> Self {
        let name = format!("gantry-test-{}-{name}", std::process::id());
        let journal = Arc::new(Kept::default());
        let clerk = Clerk::new(
            Arc::new(world.judge()),
            Arc::clone(&journal) as Arc<dyn Journal>,
            Bounds::default(),
            mode == Mode::Audit,
        );
        Self {
            path: Path::new("/run/docker/plugins").join(format!("{name}.sock")),
            name,
            clerk: Arc::new(clerk),
            journal,
            mode,
            running: Mutex::new(None),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn journal(&self) -> Vec<Decision> {
        self.journal.0.lock().unwrap().clone()
    }

    /// Serves a daemon, until dropped.
    pub fn serve(&self, daemon: &Path) {
        let options = Options {
            daemon: daemon.to_owned(),
            builds: self.mode == Mode::EnforceButBuild,
        };
        let service = Arc::new(DockerAuthz::new(Arc::clone(&self.clerk), options));
        let listen = Listen::Socket(self.path.clone());
        let server = Server::start(service, listen, *self.clerk.bounds());
        *self.running.lock().unwrap() = Some(server);
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        drop(self.running.lock().unwrap().take());
        assert!(!self.path.exists(), "the socket was left behind");
    }
}

/// One of our servers in a thread of its own; stopped, and waited for, when dropped.
pub struct Server {
    address: Option<SocketAddr>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Server {
    pub fn start(service: Arc<dyn Service>, listen: Listen, bounds: Bounds) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let ready = |address| {
                ready.send(address).unwrap();
                Ok(())
            };
            let stopped = async {
                stopped.await.ok();
            };
            let served = gantry_admission::serve(service, &listen, &bounds, ready, stopped);
            runtime.block_on(served).unwrap();
        });
        Self {
            address: is_ready.recv().unwrap(),
            running: Some((stop, thread)),
        }
    }

    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            stop.send(()).ok();
            thread.join().unwrap();
        }
    }
}
