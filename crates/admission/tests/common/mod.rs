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

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use gantry_admission::docker::{DockerAuthz, Options};
use gantry_admission::{
    Bounds, Clerk, Decision, Journal, Listen, Loaded, PolicyJudge, Rules, Sources,
};
use gantry_image::{EndpointError, ImageSource};
use gantry_oci::{Limits, Platform, Reference};
use gantry_testkit::tool::{self, DockerRegistry};
use gantry_transport::registry::RegistrySource;
use gantry_transport::registry::mirrors::RegistriesConf;
use gantry_trust::{Extra, Policy};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

#[derive(Debug)]
pub struct PolicyFile(pub PathBuf);

impl Rules for PolicyFile {
    fn load(&self) -> Result<Loaded, String> {
        let text = std::fs::read(&self.0).map_err(|error| error.to_string())?;
        let policy = Policy::parse(Bytes::from(text), &Limits::DEFAULT)
            .map_err(|error| error.to_string())?;
        Ok(Loaded {
            policy: policy.load_keys(&Limits::DEFAULT),
            extra: Extra::default(),
        })
    }
}

#[derive(Debug)]
pub struct Registries;

impl Sources for Registries {
    fn open(&self, reference: &Reference) -> Result<Box<dyn ImageSource>, EndpointError> {
        let conf = RegistriesConf::default();
        let source = RegistrySource::new(
            reference.clone(),
            &gantry_transport::registry::Options::default(),
            &conf,
        )?;
        Ok(Box::new(source))
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

    pub fn judge(&self) -> PolicyJudge {
        PolicyJudge {
            rules: Arc::new(PolicyFile(self.policy.clone())),
            sources: Box::new(Registries),
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
    running: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
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
        let (listen, bounds) = (Listen::Socket(self.path.clone()), *self.clerk.bounds());
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let served = gantry_admission::serve(
                service,
                &listen,
                &bounds,
                |_| {
                    ready.send(()).unwrap();
                    Ok(())
                },
                async {
                    stopped.await.ok();
                },
            );
            runtime.block_on(served).unwrap();
        });
        is_ready.recv().unwrap();
        *self.running.lock().unwrap() = Some((stop, thread));
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let running = self.running.lock().unwrap().take();
        if let Some((stop, thread)) = running {
            stop.send(()).ok();
            thread.join().unwrap();
        }
        assert!(!self.path.exists(), "the socket was left behind");
    }
}
