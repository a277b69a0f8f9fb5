// SPDX-License-Identifier: Apache-2.0
//! A registry in this process, and a client that sends exactly what it is told to.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests; each test program uses a part"
)]

pub mod gate;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use gantry_oci::Limits;
use gantry_registry::{Registry, Rules, ServeOptions, Tls, Treatment, serve};
use gantry_store::{CreateOptions, Faces, Store};
use gantry_testkit::image::{Image, digest};
use gantry_testkit::skip::is_root;
use serde_json::Value;
use tokio::sync::oneshot;

/// What is made of images here: trees of foreign owners and devices need root.
pub fn rules() -> Rules {
    let faces = if is_root() {
        Faces::BOTH
    } else {
        Faces::COMPOSEFS
    };
    Rules {
        default: Treatment::Explode(faces),
        repositories: [("kept/*".to_owned(), Treatment::Keep)].into(),
    }
}

/// A registry that serves until it is dropped.
pub struct Server {
    pub store: Store,
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub fn start(root: &Path) -> Self {
        Self::with(root, None, |registry| registry)
    }

    pub fn with(root: &Path, tls: Option<Tls>, change: impl FnOnce(Registry) -> Registry) -> Self {
        let options = CreateOptions {
            shared: true,
            ..CreateOptions::default()
        };
        let store = Store::open_or_create(root, &options).unwrap();
        let registry = Registry::new(store.clone(), rules(), Limits::DEFAULT).unwrap();
        Self::of(store, change(registry), tls)
    }

    pub fn of(store: Store, registry: Registry, tls: Option<Tls>) -> Self {
        let (ready, address) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let options = ServeOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls,
            insecure_http: false,
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(4)
                .enable_all()
                .build()
                .unwrap();
            let ready = move |address| {
                ready.send(address).unwrap();
                Ok(())
            };
            let stop = async move { drop(stopped.await) };
            runtime
                .block_on(serve(Arc::new(registry), &options, ready, stop))
                .unwrap();
            runtime.shutdown_timeout(Duration::from_secs(5));
        });
        Self {
            store,
            address: address.recv_timeout(Duration::from_secs(20)).unwrap(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn connect(&self) -> Connection {
        Connection::to(self.address)
    }

    /// One request on a connection of its own.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.connect().send(method, path, headers, body)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    pub fn head(&self, path: &str) -> Answer {
        self.send("HEAD", path, &[], b"")
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], b"")
    }

    /// Pushes a blob in one piece.
    pub fn push_blob(&self, repository: &str, blob: &[u8]) -> Answer {
        let location = self.start_upload(repository);
        let path = format!("{location}?digest={}", digest(blob));
        self.send("PUT", &path, &[], blob)
    }

    pub fn start_upload(&self, repository: &str) -> String {
        let answer = self.send(
            "POST",
            &format!("/v2/{repository}/blobs/uploads/"),
            &[],
            b"",
        );
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.header("location").unwrap().to_owned()
    }

    pub fn push_blobs(&self, repository: &str, image: &Image) {
        for blob in &image.blobs {
            let answer = self.push_blob(repository, blob);
            assert_eq!(answer.status, 201, "{answer:?}");
        }
    }

    pub fn put_manifest(&self, repository: &str, name: &str, image: &Image) -> Answer {
        let path = format!("/v2/{repository}/manifests/{name}");
        let headers = [("Content-Type", image.media_type.as_str())];
        self.send("PUT", &path, &headers, &image.manifest)
    }

    /// Pushes blobs and manifest; the answer to the latter.
    pub fn push(&self, repository: &str, tag: &str, image: &Image) -> Answer {
        self.push_blobs(repository, image);
        self.put_manifest(repository, tag, image)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        let thread = self.thread.take().unwrap();
        if thread.join().is_err() && !std::thread::panicking() {
            panic!("the server panicked");
        }
    }
}

/// One connection, over which requests go as they are written.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn to(address: SocketAddr) -> Self {
        Self::try_to(address).unwrap()
    }

    pub fn try_to(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Some(Self {
            stream: BufReader::new(stream),
        })
    }

    pub fn write(&mut self, bytes: &[u8]) {
        // A server that has refused already may close before it has read all.
        drop(self.stream.get_mut().write_all(bytes));
    }

    /// Says that nothing more will come, as a client that dies does.
    pub fn shut(&self) {
        let stream = self.stream.get_ref();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Sends the head of a request whose body the caller writes.
    pub fn begin(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        self.write(format!("{head}\r\n").as_bytes());
    }

    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let length = body.len().to_string();
        let mut headers = headers.to_vec();
        if !matches!(method, "GET" | "HEAD") {
            headers.push(("Content-Length", &length));
        }
        self.begin(method, path, &headers);
        self.write(body);
        self.answer(method)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Reads an answer.
    pub fn answer(&mut self, method: &str) -> std::io::Result<Answer> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| std::io::Error::other(format!("no status line but {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        if method == "HEAD" || status == 204 {
            return Ok(answer);
        }
        if let Some(length) = answer.header("content-length") {
            answer.body.resize(length.parse().unwrap(), 0);
            self.stream.read_exact(&mut answer.body)?;
            return Ok(answer);
        }
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let at = answer.body.len();
            answer.body.resize(at + size, 0);
            self.stream.read_exact(&mut answer.body[at..])?;
            self.stream.read_line(&mut line)?;
            if size == 0 {
                return Ok(answer);
            }
        }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The specification's code and the sentence for people.
    pub fn error(&self) -> (String, String) {
        let body = self.json();
        let entry = &body["errors"][0];
        let text = |name: &str| entry[name].as_str().unwrap().to_owned();
        assert_eq!(self.header("content-type"), Some("application/json"));
        (text("code"), text("message"))
    }

    #[track_caller]
    pub fn refuses(&self, status: u16, code: &str) -> String {
        assert!(self.status >= 400, "{self:?}");
        let (found, message) = self.error();
        assert_eq!((self.status, found.as_str()), (status, code), "{message}");
        assert!(
            !message.contains("/gantry-scratch"),
            "leaks a path: {message}"
        );
        message
    }
}

/// What other hosts, and clients, can see of a registry's tree: what a failed push must leave as it was.
/// Blobs are not part of it: they are pushed before the manifest, and nobody sees them without their digest.
pub fn visible(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let relative = path.strip_prefix(root).unwrap().to_owned();
            let private = [
                "locks",
                "staging",
                "blobs",
                "registry/uploads",
                "registry/unpacked",
                "registry/waiting",
                "leases",
            ];
            if private.iter().any(|name| relative.starts_with(name)) {
                continue;
            }
            let marker = relative.parent().is_some_and(|parent| {
                parent.ends_with("blobs") && parent.starts_with("registry/repos")
            });
            let is_dir = path.is_dir() && !path.is_symlink();
            // A repository's directories are made with its first blob.
            let shell = is_dir && relative.starts_with("registry");
            if !(marker || shell) {
                found.push(relative.display().to_string());
            }
            if is_dir && !relative.ends_with("rootfs") {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

/// How much is being staged.
pub fn staged(root: &Path) -> usize {
    let boots = std::fs::read_dir(root.join("staging")).unwrap();
    boots
        .map(|boot| std::fs::read_dir(boot.unwrap().path()).unwrap().count())
        .sum()
}

pub fn assert_sound(store: &Store) {
    let report = store
        .check(&gantry_store::CheckOptions::default(), &|_, _| {})
        .unwrap();
    assert!(report.is_clean(), "{:#?}", report.problems);
}

/// An image of one file, or more layers.
pub fn small_image(text: &str) -> Image {
    use gantry_testkit::{image::Layer, tar};
    let base = tar::join(&[tar::dir("etc/"), tar::file("etc/base", [b'b'; 3000])]);
    let top = tar::join(&[tar::file("etc/text", text)]);
    Image::new(&[Layer::gzip(&base), Layer::gzip(&top)])
}
