// SPDX-License-Identifier: Apache-2.0
//! A registry that does as it is told, on a free loopback port.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// How many came to this target before.
    pub earlier: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    /// First byte asked for.
    pub fn range(&self) -> usize {
        let range = self
            .header("range")
            .and_then(|range| range.strip_prefix("bytes="));
        range
            .and_then(|range| range.strip_suffix('-'))
            .map_or(0, |first| first.parse().unwrap())
    }
}

/// What is done on the connection.
#[derive(Debug, Clone)]
pub enum Step {
    Send(Vec<u8>),
    Wait(Duration),
}

pub type Reply = Vec<Step>;

/// An answer with a body of known length.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut head = format!(
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    vec![Step::Send([head.into_bytes(), body.to_vec()].concat())]
}

/// An answer whose head is written by hand.
pub fn raw(head: &str, body: &[u8]) -> Reply {
    let head = head.replace('\n', "\r\n");
    vec![Step::Send(
        [format!("{head}\r\n\r\n").into_bytes(), body.to_vec()].concat(),
    )]
}

pub fn not_found() -> Reply {
    answer(
        404,
        &[],
        br#"{"errors":[{"code":"BLOB_UNKNOWN","message":"no such thing"}]}"#,
    )
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// The running server; its thread ends with the process.
pub struct Server {
    address: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let log: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (handler, requests): (Arc<Handler>, _) = (Arc::new(handler), log.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, requests) = (handler.clone(), requests.clone());
                std::thread::spawn(move || drop(serve(stream, &*handler, &requests)));
            }
        });
        Self { address, log }
    }

    /// A well-behaved read-only registry of one repository, but for what
    /// `special` wants to answer itself.
    pub fn registry(
        images: Vec<super::image::Image>,
        special: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |request| {
            special(request).unwrap_or_else(|| serve_images(&images, request))
        })
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// Requests whose path contains a text.
    pub fn count(&self, part: &str) -> usize {
        self.requests()
            .iter()
            .filter(|request| request.target.contains(part))
            .count()
    }

    /// Everything that it was sent, as text.
    pub fn transcript(&self) -> String {
        format!("{:?}", self.requests()).to_lowercase()
    }
}

/// Answers like a registry: the first image is `latest`.
pub fn serve_images(images: &[super::image::Image], request: &Request) -> Reply {
    let path = request.path();
    if path == "/v2/" {
        return answer(200, &[], b"{}");
    }
    if let Some(name) = path.strip_prefix("/v2/app/manifests/") {
        let found = images
            .iter()
            .find(|image| image.digest().to_string() == name);
        let found = found.or_else(|| images.first().filter(|_| name == "latest"));
        return found.map_or_else(not_found, |image| {
            answer(
                200,
                &[("Content-Type", image.media_type.as_str())],
                &image.manifest,
            )
        });
    }
    if let Some(name) = path.strip_prefix("/v2/app/blobs/") {
        let blobs = images.iter().flat_map(super::image::Image::blobs);
        let blob = blobs
            .into_iter()
            .find(|(digest, _)| digest.to_string() == name);
        return blob.map_or_else(not_found, |(_, blob)| ranged(request, &blob));
    }
    not_found()
}

/// A blob, from where it was asked for.
pub fn ranged(request: &Request, blob: &[u8]) -> Reply {
    match request.range() {
        0 => answer(200, &[], blob),
        first if first >= blob.len() => answer(416, &[], b""),
        first => {
            let range = format!("bytes {first}-{}/{}", blob.len() - 1, blob.len());
            answer(206, &[("Content-Range", &range)], &blob[first..])
        }
    }
}

/// Cuts an answer after so many bytes of its body.
pub fn cut(reply: Reply, body_bytes: usize) -> Reply {
    reply
        .into_iter()
        .map(|step| match step {
            Step::Send(data) => {
                let head = data.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
                Step::Send(data[..data.len().min(head + body_bytes)].to_vec())
            }
            other => other,
        })
        .collect()
}

fn serve(stream: TcpStream, handler: &Handler, log: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some(mut request) = read_request(&mut reader)? else {
        return Ok(());
    };
    {
        let mut log = log.lock().unwrap();
        request.earlier = log
            .iter()
            .filter(|other| other.target == request.target && other.method == request.method)
            .count();
        log.push(request.clone());
    }
    let mut stream = stream;
    for step in handler(&request) {
        match step {
            Step::Send(data) => stream.write_all(&data)?,
            Step::Wait(time) => std::thread::sleep(time),
        }
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // Read what the client still sends, so that it sees the answer and no reset.
    std::io::copy(&mut reader, &mut std::io::sink())?;
    Ok(())
}

fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [method, target, ..] = words[..] else {
        return Ok(None);
    };
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request {
        method,
        target,
        headers,
        body: Vec::new(),
        earlier: 0,
    };
    if let Some(length) = request
        .header("content-length")
        .and_then(|length| length.parse::<u64>().ok())
    {
        let mut body = Vec::new();
        reader.take(length).read_to_end(&mut body)?;
        request.body = body;
    } else if request.header("transfer-encoding") == Some("chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let Ok(size) = u64::from_str_radix(size.trim(), 16) else {
                break;
            };
            reader.take(size).read_to_end(&mut request.body)?;
            let mut end = String::new();
            reader.read_line(&mut end)?;
            if size == 0 {
                break;
            }
        }
    }
    Ok(Some(request))
}
