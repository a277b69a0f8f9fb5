// SPDX-License-Identifier: Apache-2.0
//! Network devices through rtnetlink: found by name, moved to another network namespace with their
//! addresses, switched on.
//!
//! Messages are bytes in the host's order, and so are attributes: a header of length and kind, the value,
//! padding to four bytes. Answers come from the kernel alone; what is too short to be one is refused all the
//! same.
//!
//! # Source
//! `rtnetlink(7)`, `netlink(7)`.

use crate::error::{Context, Result, SysError, describe_fd};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

const NEWLINK: u16 = 16;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const GETADDR: u16 = 22;
const ERROR: u16 = 2;
const DONE: u16 = 3;

const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE_NEW: u16 = 0x400 | 0x200;

/// Of a link.
const LINK_NAME: u16 = 3;
const LINK_NAMESPACE: u16 = 28;
const UP: u32 = 1;

/// Of an address.
const ADDRESS_LABEL: u16 = 3;
const ADDRESS_CACHE: u16 = 6;
const ADDRESS_FLAGS: u16 = 8;
const PERMANENT: u32 = 0x80;
/// Those of the flags that are somebody's choice: no duplicate detection, temporary ones managed, no route.
const CHOSEN: u32 = 0x02 | 0x100 | 0x200;
const SCOPE_UNIVERSE: u8 = 0;

/// The longest name of a device.
const NAME_MAX: usize = 15;
/// What the kernel takes as the name of a device.
#[must_use]
pub fn is_device_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && ![".", ".."].contains(&name)
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
}

const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

/// A network device, in the namespace in which it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
}

/// A permanent address that others may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// A socket to the kernel, for the namespace in which it was made.
#[derive(Debug)]
pub struct Route {
    socket: OwnedFd,
}

/// A message in the making.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | flags).to_ne_bytes());
        // One request at a time: the number never matters, nor does the sender's.
        bytes.extend([0; 8]);
        bytes.extend(body);
        Self(bytes)
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

fn link_body(index: u32, flags: u32) -> [u8; LINK_HEADER] {
    let mut body = [0; LINK_HEADER];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&flags.to_ne_bytes());
    body
}

fn number_2(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn number_4(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The attributes of a message, from `at` on.
fn attributes(message: &[u8], at: usize) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = message.get(at..).unwrap_or_default();
    while let (Some(length), Some(kind)) = (number_2(rest, 0), number_2(rest, 2)) {
        let length = usize::from(length);
        let Some(value) = rest.get(4..length) else {
            break;
        };
        found.push((kind & 0x3fff, value.to_vec()));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn parse_link(message: &[u8]) -> Option<Link> {
    let list = attributes(message, LINK_HEADER);
    let (_, name) = list.iter().find(|(kind, _)| *kind == LINK_NAME)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    Some(Link {
        index: number_4(message, 4)?,
        name: String::from_utf8_lossy(name).into_owned(),
    })
}

/// An address of that device that is to be kept.
fn parse_address(message: &[u8], index: u32) -> Option<Address> {
    let header = message.get(..ADDRESS_HEADER)?;
    let mut list = attributes(message, ADDRESS_HEADER);
    let long = list
        .iter()
        .find(|(kind, _)| *kind == ADDRESS_FLAGS)
        .and_then(|(_, value)| number_4(value, 0));
    let flags = long.unwrap_or_else(|| u32::from(header[2]));
    let kept = flags & PERMANENT != 0 && header[3] == SCOPE_UNIVERSE;
    // The label is made of the name, and how long it lives is for ever.
    list.retain(|(kind, _)| ![ADDRESS_LABEL, ADDRESS_CACHE, ADDRESS_FLAGS].contains(kind));
    (kept && number_4(header, 4)? == index).then(|| Address {
        family: header[0],
        prefix: header[1],
        flags: flags & CHOSEN,
        attributes: list,
    })
}

impl Route {
    /// Opens one in the namespace of this process.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open() -> Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is 0, the family's default.
            None,
        )
        .call("socket", || "AF_NETLINK, NETLINK_ROUTE".to_owned())?;
        Ok(Self { socket })
    }

    /// Asks, and answers every message of the given kind.
    fn ask(
        &self,
        message: Message,
        wanted: u16,
        what: &dyn Fn() -> String,
    ) -> Result<Vec<Vec<u8>>> {
        let kernel = SocketAddrNetlink::new(0, 0);
        let bytes = message.finish();
        rustix::net::sendto(&self.socket, &bytes, SendFlags::empty(), &kernel)
            .call("sendto", what)?;
        let broken = || SysError::new("recv", what(), Errno::PROTO);
        let mut found = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let received = rustix::io::retry_on_intr(|| {
                rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())
            });
            let (length, _) = received.call("recv", what)?;
            let mut rest = buffer.get(..length).ok_or_else(broken)?;
            while !rest.is_empty() {
                let length = number_4(rest, 0)
                    .map(|length| length as usize)
                    .ok_or_else(broken)?;
                let body = rest.get(HEADER..length).ok_or_else(broken)?;
                match number_2(rest, 4).ok_or_else(broken)? {
                    DONE => return Ok(found),
                    ERROR => {
                        let code = number_4(body, 0).ok_or_else(broken)?;
                        let code = i32::from_ne_bytes(code.to_ne_bytes());
                        return match code {
                            0 => Ok(found),
                            _ => Err(SysError::new(
                                "rtnetlink",
                                what(),
                                Errno::from_raw_os_error(-code),
                            )),
                        };
                    }
                    kind if kind == wanted => found.push(body.to_vec()),
                    _ => {}
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    /// Every device.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn links(&self) -> Result<Vec<Link>> {
        let message = Message::new(GETLINK, DUMP, &link_body(0, 0));
        let found = self.ask(message, NEWLINK, &|| "GETLINK".to_owned())?;
        Ok(found
            .iter()
            .filter_map(|message| parse_link(message))
            .collect())
    }

    /// The addresses of a device that go with it: permanent ones that others may reach.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn addresses(&self, link: &Link) -> Result<Vec<Address>> {
        let message = Message::new(GETADDR, DUMP, &[0; ADDRESS_HEADER]);
        let found = self.ask(message, NEWADDR, &|| format!("GETADDR, {:?}", link.name))?;
        let parsed = found
            .iter()
            .filter_map(|message| parse_address(message, link.index));
        Ok(parsed.collect())
    }

    /// Moves a device to another namespace, where it has this name; `%d` in it is a number that the kernel chooses.
    /// It is switched off and loses its addresses by that.
    ///
    /// # Errors
    /// The kernel's refusal; `EINVAL` for a device that belongs to its namespace, as loopback does.
    pub fn send_away(&self, link: &Link, namespace: BorrowedFd<'_>, name: &str) -> Result<()> {
        let mut text = name.as_bytes().to_vec();
        text.push(0);
        let message = Message::new(NEWLINK, ACKNOWLEDGE, &link_body(link.index, 0))
            .attribute(LINK_NAMESPACE, &namespace.as_raw_fd().to_ne_bytes())
            .attribute(LINK_NAME, &text);
        let what = || {
            let to = describe_fd(namespace.as_fd());
            format!("NEWLINK, {:?} to {to} as {name:?}", link.name)
        };
        self.ask(message, NEWLINK, &what).map(drop)
    }

    /// Gives a device an address.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn add_address(&self, link: &Link, address: &Address) -> Result<()> {
        let mut body = [0; ADDRESS_HEADER];
        body[0] = address.family;
        body[1] = address.prefix;
        body[4..8].copy_from_slice(&link.index.to_ne_bytes());
        let message = Message::new(NEWADDR, ACKNOWLEDGE | CREATE_NEW, &body)
            .attribute(ADDRESS_FLAGS, &address.flags.to_ne_bytes());
        let message = address
            .attributes
            .iter()
            .fold(message, |message, (kind, value)| {
                message.attribute(*kind, value)
            });
        self.ask(message, NEWADDR, &|| format!("NEWADDR, {:?}", link.name))
            .map(drop)
    }

    /// Switches a device on.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn switch_on(&self, link: &Link) -> Result<()> {
        let message = Message::new(NEWLINK, ACKNOWLEDGE, &link_body(link.index, UP));
        self.ask(message, NEWLINK, &|| format!("NEWLINK, {:?} up", link.name))
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_and_what_is_absent_is_an_error() {
        let route = Route::open().unwrap();
        let links = route.links().unwrap();
        let loopback = links.iter().find(|link| link.name == "lo").unwrap();
        assert!(loopback.index > 0);
        // Its addresses are of the host alone.
        assert_eq!(route.addresses(loopback).unwrap(), []);
        let absent = Link {
            index: 0x7fff_ffff,
            name: "none".into(),
        };
        let namespace = std::fs::File::open("/proc/self/ns/net").unwrap();
        let refused = route.send_away(&absent, namespace.as_fd(), "none");
        assert!(refused.unwrap_err().is(Errno::NODEV));
    }

    #[test]
    fn messages_are_padded_and_say_their_length() {
        let bytes = Message::new(NEWLINK, 0, &[])
            .attribute(LINK_NAME, b"abc\0\0")
            .finish();
        assert_eq!(bytes.len(), HEADER + 12);
        assert_eq!(number_4(&bytes, 0), Some(28));
        assert_eq!(
            attributes(&bytes, HEADER),
            [(LINK_NAME, b"abc\0\0".to_vec())]
        );
        // What claims more than there is ends the list.
        assert_eq!(attributes(&[255, 0, 3, 0, 1], 0), []);
    }
}
