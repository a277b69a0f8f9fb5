// SPDX-License-Identifier: Apache-2.0
//! As much of D-Bus as it takes to ask systemd for a unit.
//!
//! Five methods and one signal are needed, by a program with one thread that lives for milliseconds. The libraries were
//! looked at: zbus brings an executor and starts threads, dbus links a C library, rustbus a second nix; this is a page of
//! marshalling and one blocking socket.
//!
//! # Source
//! D-Bus Specification 0.42, "Authentication Protocol", "Message Protocol", "Type system".

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use gantry_oci::Kind;
use serde::{Deserialize, Serialize};

/// A value of a property.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    F64(f64),
    /// `s`
    Text(String),
    /// `as`
    Texts(Vec<String>),
    /// `au`
    U32s(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::F64(_) => "d",
            Self::Text(_) => "s",
            Self::Texts(_) => "as",
            Self::U32s(_) => "au",
            Self::Bytes(_) => "ay",
        }
    }
}

/// Why the bus did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// Nobody listens.
    #[error("connect to the bus at {path}")]
    Connect {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or nothing came in time.
    #[error("talk to the bus")]
    Io(#[source] io::Error),
    /// The other side does not speak as the specification says.
    #[error("talk to the bus: {0}")]
    Protocol(&'static str),
    /// The answer is an error.
    #[error("{method}: {name}: {message}")]
    Refused {
        /// What was called.
        method: String,
        /// The error's name.
        name: String,
        /// Its sentence.
        message: String,
    },
    /// The unit's job ended otherwise.
    #[error("the job ended as {result:?}")]
    Job {
        /// systemd's word.
        result: String,
    },
}

impl BusError {
    /// The reason, coarsely.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Connect { source, .. } | Self::Io(source) => Kind::of_io(source),
            Self::Protocol(_) => Kind::Unsupported,
            Self::Refused { name, .. }
                if name.ends_with("AccessDenied") || name.ends_with("AuthorizationRequired") =>
            {
                Kind::Denied
            }
            Self::Refused { .. } => Kind::Unsupported,
            Self::Job { .. } => Kind::Unavailable,
        }
    }

    pub(super) fn is_named(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { name, .. } if name == wanted)
    }
}

/// How long the bus may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than systemd ever says here.
const MESSAGE_MAX: usize = 1 << 20;
const ENDIAN: u8 = if cfg!(target_endian = "little") {
    b'l'
} else {
    b'B'
};

/// A connection to a bus.
#[derive(Debug)]
pub(super) struct Bus {
    socket: UnixStream,
    serial: u32,
    /// Signals that came while an answer was awaited.
    signals: Vec<Message>,
}

/// What came over the bus.
#[derive(Debug)]
pub(super) struct Message {
    kind: u8,
    reply_to: u32,
    member: String,
    error: String,
    body: Vec<u8>,
}

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Whom a method is called on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) destination: &'static str,
    pub(super) path: &'static str,
    pub(super) interface: &'static str,
}

const DAEMON: Target = Target {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

impl Bus {
    pub(super) fn connect(path: &std::path::Path) -> Result<Self, BusError> {
        let failed = |source| BusError::Connect {
            path: path.to_owned(),
            source,
        };
        let mut socket = UnixStream::connect(path).map_err(failed)?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        socket.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        // Without a name the daemon takes the one that the kernel says, which in a user namespace is the right one.
        socket.write_all(b"\0AUTH EXTERNAL\r\n").map_err(failed)?;
        let mut line = read_line(&mut socket)?;
        if line.starts_with("DATA") {
            socket.write_all(b"DATA\r\n").map_err(failed)?;
            line = read_line(&mut socket)?;
        }
        if !line.starts_with("OK ") {
            return Err(BusError::Protocol("it does not accept who we are"));
        }
        socket.write_all(b"BEGIN\r\n").map_err(failed)?;
        let mut bus = Self {
            socket,
            serial: 0,
            signals: Vec::new(),
        };
        bus.call(DAEMON, "Hello", "", &Body::default())?;
        Ok(bus)
    }

    /// Asks for the signals that match a rule.
    pub(super) fn listen(&mut self, rule: &str) -> Result<(), BusError> {
        let mut body = Body::default();
        body.text(rule);
        self.call(DAEMON, "AddMatch", "s", &body).map(|_| ())
    }

    /// Calls a method and waits for its answer's body.
    pub(super) fn call(
        &mut self,
        target: Target,
        member: &str,
        signature: &str,
        body: &Body,
    ) -> Result<Message, BusError> {
        self.serial += 1;
        let serial = self.serial;
        let message = encode(target, member, signature, body, serial);
        self.socket.write_all(&message).map_err(BusError::Io)?;
        loop {
            let message = self.receive()?;
            match message.kind {
                RETURN if message.reply_to == serial => return Ok(message),
                ERROR if message.reply_to == serial => {
                    return Err(BusError::Refused {
                        method: member.to_owned(),
                        message: Reader::new(&message.body).text().unwrap_or_default(),
                        name: message.error,
                    });
                }
                SIGNAL => self.signals.push(message),
                _ => {}
            }
        }
    }

    /// Waits for a signal of which `wanted` makes something.
    pub(super) fn signal<T>(
        &mut self,
        member: &str,
        wanted: impl Fn(&Message) -> Option<T>,
    ) -> Result<T, BusError> {
        let came = std::mem::take(&mut self.signals);
        for message in came.into_iter().filter(|message| message.member == member) {
            if let Some(found) = wanted(&message) {
                return Ok(found);
            }
        }
        loop {
            let message = self.receive()?;
            if message.kind == SIGNAL
                && message.member == member
                && let Some(found) = wanted(&message)
            {
                return Ok(found);
            }
        }
    }

    fn receive(&mut self) -> Result<Message, BusError> {
        let mut fixed = [0; 16];
        self.socket.read_exact(&mut fixed).map_err(BusError::Io)?;
        let number = |at: usize| {
            u32::from_ne_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        if fixed[0] != ENDIAN || fixed[3] != 1 {
            return Err(BusError::Protocol(
                "a message of another byte order or version",
            ));
        }
        let length = |number: u32| {
            usize::try_from(number)
                .ok()
                .filter(|length| *length <= MESSAGE_MAX)
        };
        let (Some(body), Some(fields)) = (length(number(4)), length(number(12))) else {
            return Err(BusError::Protocol("a message that is too long"));
        };
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.socket.read_exact(&mut rest).map_err(BusError::Io)?;
        let body = rest.split_off(fields.next_multiple_of(8));
        rest.truncate(fields);
        decode(fixed[1], &rest, body).ok_or(BusError::Protocol("a message that cannot be read"))
    }
}

fn read_line(socket: &mut UnixStream) -> Result<String, BusError> {
    const LINE_MAX: usize = 1024;
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        if line.len() > LINE_MAX {
            return Err(BusError::Protocol("a line that does not end"));
        }
        socket.read_exact(&mut byte).map_err(BusError::Io)?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn encode(target: Target, member: &str, signature: &str, body: &Body, serial: u32) -> Vec<u8> {
    let mut header = Body(vec![ENDIAN, CALL, 0, 1]);
    header.u32(length(body.0.len()));
    header.u32(serial);
    let mut fields = vec![
        (1, "o", target.path),
        (2, "s", target.interface),
        (3, "s", member),
        (6, "s", target.destination),
    ];
    if !signature.is_empty() {
        fields.push((8, "g", signature));
    }
    header.array(8, |header| {
        for (code, kind, value) in fields {
            header.align(8);
            header.0.push(code);
            header.signature(kind);
            if kind == "g" {
                header.signature(value)
            } else {
                header.text(value)
            }
        }
    });
    header.align(8);
    header.0.extend_from_slice(&body.0);
    header.0
}

fn decode(kind: u8, fields: &[u8], body: Vec<u8>) -> Option<Message> {
    let mut message = Message {
        kind,
        reply_to: 0,
        member: String::new(),
        error: String::new(),
        body,
    };
    // The fields begin at byte 16, which all alignments divide.
    let mut reader = Reader::new(fields);
    while !reader.is_at_end() {
        reader.align(8);
        let code = reader.byte()?;
        let signature = reader.signature()?;
        match (code, signature.as_str()) {
            (3, "s") => message.member = reader.text()?,
            (4, "s") => message.error = reader.text()?,
            (5, "u") => message.reply_to = reader.u32()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "u") => drop(reader.u32()?),
            (_, "g") => drop(reader.signature()?),
            _ => return None,
        }
    }
    Some(message)
}

impl Message {
    pub(super) fn read(&self) -> Reader<'_> {
        Reader::new(&self.body)
    }
}

fn length(length: usize) -> u32 {
    u32::try_from(length).expect("what we send is short")
}

/// Values on their way out, each aligned to its size.
#[derive(Debug, Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, number: u32) {
        self.align(4);
        self.0.extend_from_slice(&number.to_ne_bytes());
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u32(value.into());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.u32(length(text.len()));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0
            .push(u8::try_from(text.len()).expect("signatures are short"));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    /// An array whose elements are aligned to `to`; the alignment before the first does not count.
    fn array(&mut self, to: usize, fill: impl FnOnce(&mut Self)) {
        self.u32(0);
        let at = self.0.len() - 4;
        self.align(to);
        let start = self.0.len();
        fill(self);
        let bytes = length(self.0.len() - start);
        self.0[at..at + 4].copy_from_slice(&bytes.to_ne_bytes());
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Bool(value) => self.bool(*value),
            Value::I32(number) => {
                self.align(4);
                self.0.extend_from_slice(&number.to_ne_bytes());
            }
            Value::U32(number) => self.u32(*number),
            Value::I64(number) => {
                self.align(8);
                self.0.extend_from_slice(&number.to_ne_bytes());
            }
            Value::U64(number) => {
                self.align(8);
                self.0.extend_from_slice(&number.to_ne_bytes());
            }
            Value::F64(number) => {
                self.align(8);
                self.0.extend_from_slice(&number.to_ne_bytes());
            }
            Value::Text(text) => self.text(text),
            Value::Texts(texts) => {
                self.array(4, |body| texts.iter().for_each(|text| body.text(text)))
            }
            Value::U32s(numbers) => self.array(4, |body| {
                numbers.iter().for_each(|number| body.u32(*number))
            }),
            Value::Bytes(bytes) => self.array(1, |body| body.0.extend_from_slice(bytes)),
        }
    }

    /// `a(sv)`
    pub(super) fn properties(&mut self, properties: &[(String, Value)]) {
        self.array(8, |body| {
            for (name, value) in properties {
                body.align(8);
                body.text(name);
                body.variant(value);
            }
        });
    }

    /// `a(sa(sv))`, of nothing.
    pub(super) fn no_auxiliary_units(&mut self) {
        self.array(8, |_| {});
    }
}

/// Values on their way in.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.align(4);
        self.take(4)
            .map(|bytes| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Text, or an object's path.
    pub(super) fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.u32()?).ok()?;
        let text = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        self.byte()?;
        Some(text)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?;
        let text = String::from_utf8(self.take(length.into())?.to_vec()).ok()?;
        self.byte()?;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::process::{Child, Command, Stdio};

    #[test]
    fn properties_are_marshalled_as_the_specification_says() {
        let mut body = Body::default();
        body.text("u");
        body.properties(&[
            ("PIDs".to_owned(), Value::U32s(vec![7])),
            ("Delegate".to_owned(), Value::Bool(true)),
            ("MemoryMax".to_owned(), Value::U64(1 << 33)),
        ]);
        body.no_auxiliary_units();
        let mut reader = Reader::new(&body.0);
        assert_eq!(reader.text().unwrap(), "u");
        let bytes = reader.u32().unwrap();
        reader.align(8);
        let start = reader.at;
        assert_eq!(
            (reader.text().unwrap(), reader.signature().unwrap()),
            ("PIDs".into(), "au".into())
        );
        assert_eq!((reader.u32().unwrap(), reader.u32().unwrap()), (4, 7));
        reader.align(8);
        assert_eq!(
            (reader.text().unwrap(), reader.signature().unwrap()),
            ("Delegate".into(), "b".into())
        );
        assert_eq!(reader.u32().unwrap(), 1);
        reader.align(8);
        assert_eq!(
            (reader.text().unwrap(), reader.signature().unwrap()),
            ("MemoryMax".into(), "t".into())
        );
        reader.align(8);
        let number: [u8; 8] = reader.take(8).unwrap().try_into().unwrap();
        assert_eq!(u64::from_ne_bytes(number), 1 << 33);
        assert_eq!(usize::try_from(bytes).unwrap(), reader.at - start);
        assert_eq!(reader.u32().unwrap(), 0);
    }

    struct Daemon {
        child: Child,
        _dir: tempfile::TempDir,
        path: PathBuf,
    }

    impl Drop for Daemon {
        fn drop(&mut self) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }

    /// Other people's bus.
    fn daemon() -> Option<Daemon> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bus");
        let mut child = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address=1"])
            .arg(format!("--address=unix:path={}", path.display()))
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        // It prints its address when it listens.
        let mut byte = [0];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut byte)
            .unwrap();
        Some(Daemon {
            child,
            _dir: dir,
            path,
        })
    }

    #[test]
    fn the_reference_daemon_understands_us() {
        let Some(daemon) = daemon() else {
            gantry_testkit::skip!("dbus-daemon is not installed");
        };
        let mut bus = Bus::connect(&daemon.path).unwrap();
        bus.listen("type='signal',member='NameAcquired'").unwrap();
        let mut body = Body::default();
        body.text("org.example.Gantry");
        body.u32(0);
        let answer = bus.call(DAEMON, "RequestName", "su", &body).unwrap();
        assert_eq!(answer.read().u32(), Some(1));
        let own = |message: &Message| {
            message
                .read()
                .text()
                .filter(|name| name == "org.example.Gantry")
        };
        assert_eq!(
            bus.signal("NameAcquired", own).unwrap(),
            "org.example.Gantry"
        );
        let refused = bus
            .call(DAEMON, "NoSuchMethod", "", &Body::default())
            .unwrap_err();
        assert!(
            refused.is_named("org.freedesktop.DBus.Error.UnknownMethod"),
            "{refused}"
        );
    }

    #[test]
    fn who_speaks_otherwise_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bus");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            for answer in [
                &b"REJECTED\r\n"[..],
                b"OK 1\r\nB\x02\0\x01aaaaaaaaaaaa",
                b"OK 1\r\nl\x02\0\x01\xff\xff\xff\xffaaaaaaaa",
            ] {
                let (mut socket, _) = listener.accept().unwrap();
                socket.write_all(answer).unwrap();
            }
        });
        for _ in 0..3 {
            let error = Bus::connect(&path).unwrap_err();
            assert!(
                matches!(
                    error,
                    BusError::Protocol(_) | BusError::Io(_) | BusError::Connect { .. }
                ),
                "{error:?}"
            );
        }
        server.join().unwrap();
        assert!(matches!(
            Bus::connect(&dir.path().join("none")),
            Err(BusError::Connect { .. })
        ));
    }
}
