// SPDX-License-Identifier: Apache-2.0
//! Who the process is: `USER` and `--user` against the rootfs's own
//! `etc/passwd` and `etc/group`.
//!
//! There is one parser of user and group ids in Gantry, and it is this one. It
//! is strict on purpose: every lenient reading of these few bytes that was ever
//! shipped became a way to run as root.
//!
//! - A number is ASCII decimal without sign, space or leading zero, at most
//!   2^32 - 2. A number out of range is an error; it is never tried as a name.
//! - Anything that starts with a digit is a number or an error.
//! - A name is looked up in the files and nowhere else. A name that is not
//!   there is an error.
//! - Lines of the files that are malformed are passed over; the first line that
//!   fits wins, as in the C library.
//!
//! The module is pure: it is given the two files' bytes. Whoever reads them
//! (the monitor, inside the mounted rootfs) reads regular files only, confined
//! to the rootfs, and no more than [`MAX_FILE_BYTES`].
//!
//! # Source
//! `passwd(5)`, `group(5)`; image-spec v1.1 "config.User".

use std::fmt;
use std::str::FromStr;

use gantry_oci::Kind;
use serde::{Deserialize, Serialize};

/// The most that is read of `etc/passwd` or `etc/group`.
pub const MAX_FILE_BYTES: u64 = 10 << 20;
/// The most lines that are looked at in either file.
const MAX_LINES: usize = 100_000;
/// The longest line that is looked at.
const MAX_LINE_BYTES: usize = 64 << 10;
/// The largest id: one below the kernel's "no id".
const MAX_ID: u32 = u32::MAX - 1;
/// The most supplementary groups (the kernel's `NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;
/// The longest name of a user or group.
const MAX_NAME_BYTES: usize = 256;

/// A user or group as written: by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdOrName {
    /// A number; no file is asked for it.
    Id(u32),
    /// A name, to be found in the rootfs.
    Name(String),
}

/// Why a text names no user or group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIdError {
    /// Nothing before or after the colon.
    #[error("user or group is empty in {text:?}")]
    Empty {
        /// The whole text.
        text: String,
    },
    /// Starts like a number and is none that we accept.
    #[error("{text:?} is not an id: decimal without sign or leading zero, at most {MAX_ID}")]
    Number {
        /// The offending part.
        text: String,
    },
    /// Holds bytes that no account name has.
    #[error("{text:?} is not a user or group name")]
    Name {
        /// The offending part.
        text: String,
    },
}

impl ParseIdError {
    /// Always `InvalidInput`.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::InvalidInput
    }
}

/// Parses a strict decimal id.
fn parse_id(text: &[u8]) -> Option<u32> {
    let canonical = match text {
        [] => false,
        [b'0'] => true,
        [first, rest @ ..] => {
            (b'1'..=b'9').contains(first) && rest.len() <= 9 && rest.iter().all(u8::is_ascii_digit)
        }
    };
    if !canonical {
        return None;
    }
    let value = text
        .iter()
        .fold(0u64, |value, digit| value * 10 + u64::from(digit - b'0'));
    u32::try_from(value).ok().filter(|id| *id <= MAX_ID)
}

impl FromStr for IdOrName {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bytes = text.as_bytes();
        match bytes.first() {
            None => Err(ParseIdError::Empty { text: text.into() }),
            Some(first) if first.is_ascii_digit() => parse_id(bytes)
                .map(Self::Id)
                .ok_or_else(|| ParseIdError::Number { text: text.into() }),
            Some(first) if first.is_ascii_alphabetic() || *first == b'_' => {
                let (body, last) = bytes.split_at(bytes.len() - 1);
                let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
                let fits = bytes.len() <= MAX_NAME_BYTES
                    && body.iter().all(inner)
                    && (inner(&last[0]) || last[0] == b'$');
                if fits {
                    Ok(Self::Name(text.into()))
                } else {
                    Err(ParseIdError::Name { text: text.into() })
                }
            }
            Some(_) => Err(ParseIdError::Name { text: text.into() }),
        }
    }
}

impl fmt::Display for IdOrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// `user[:group]` as the image or the operator wrote it, checked for form only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRequest {
    /// The user.
    pub user: IdOrName,
    /// The group, if one was named.
    pub group: Option<IdOrName>,
}

impl Default for UserRequest {
    /// The user 0 with the groups that the rootfs gives it.
    fn default() -> Self {
        Self {
            user: IdOrName::Id(0),
            group: None,
        }
    }
}

impl FromStr for UserRequest {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let empty = |error| match error {
            ParseIdError::Empty { .. } => ParseIdError::Empty { text: text.into() },
            other => other,
        };
        Ok(match text.split_once(':') {
            None => Self {
                user: text.parse().map_err(empty)?,
                group: None,
            },
            Some((user, group)) => Self {
                user: user.parse().map_err(empty)?,
                group: Some(group.parse().map_err(empty)?),
            },
        })
    }
}

impl fmt::Display for UserRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            None => write!(f, "{}", self.user),
            Some(group) => write!(f, "{}:{group}", self.user),
        }
    }
}

/// Ids that were resolved against a rootfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, sorted; the primary group is always one of them,
    /// so that permissions *denied* to a group hold for it too.
    pub groups: Vec<u32>,
    /// The home directory: that of the account, else `/`.
    pub home: String,
}

impl Identity {
    /// The same in the runtime document's words.
    #[must_use]
    pub fn to_oci(&self) -> oci_spec::runtime::User {
        let mut user = oci_spec::runtime::User::default();
        user.set_uid(self.uid)
            .set_gid(self.gid)
            .set_umask(None)
            .set_additional_gids(Some(self.groups.clone()));
        user
    }
}

/// Why a user could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveIdentityError {
    /// The name is in no line of `etc/passwd`.
    #[error("find user {name:?} in the image's /etc/passwd")]
    UnknownUser {
        /// The name.
        name: String,
    },
    /// The name is in no line of `etc/group`.
    #[error("find group {name:?} in the image's /etc/group")]
    UnknownGroup {
        /// The name.
        name: String,
    },
    /// The file has more lines, or longer ones, than anybody's.
    #[error("the image's /etc/{file} has too many lines or too long ones")]
    TooLarge {
        /// `passwd` or `group`.
        file: &'static str,
    },
    /// More supplementary groups than the kernel allows.
    #[error("user belongs to more than {MAX_GROUPS} groups")]
    TooManyGroups,
}

impl ResolveIdentityError {
    /// `NotFound` for names, `Unsafe` for sizes.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::UnknownUser { .. } | Self::UnknownGroup { .. } => Kind::NotFound,
            Self::TooLarge { .. } | Self::TooManyGroups => Kind::Unsafe,
        }
    }
}

/// One usable line of `etc/passwd`.
#[derive(Debug, PartialEq, Eq)]
struct Account<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

/// One usable line of `etc/group`.
#[derive(Debug, PartialEq, Eq)]
struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

/// Splits a file into lines, refusing absurd ones.
fn lines<'a>(
    bytes: &'a [u8],
    file: &'static str,
) -> impl Iterator<Item = Result<&'a [u8], ResolveIdentityError>> {
    bytes
        .split(|byte| *byte == b'\n')
        .enumerate()
        .map(move |(index, line)| {
            if index >= MAX_LINES || line.len() > MAX_LINE_BYTES {
                Err(ResolveIdentityError::TooLarge { file })
            } else {
                Ok(line)
            }
        })
}

fn parse_account(line: &[u8]) -> Option<Account<'_>> {
    let mut fields = line.split(|byte| *byte == b':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let _password = fields.next()?;
    let uid = parse_id(fields.next()?)?;
    let gid = parse_id(fields.next()?)?;
    let _comment = fields.next();
    let home = fields.next().unwrap_or_default();
    Some(Account {
        name,
        uid,
        gid,
        home,
    })
}

fn parse_group(line: &[u8]) -> Option<Group<'_>> {
    let mut fields = line.split(|byte| *byte == b':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let _password = fields.next()?;
    let gid = parse_id(fields.next()?)?;
    let members = fields.next().unwrap_or_default();
    Some(Group { name, gid, members })
}

fn find_account<'a>(
    passwd: &'a [u8],
    user: &IdOrName,
) -> Result<Option<Account<'a>>, ResolveIdentityError> {
    for line in lines(passwd, "passwd") {
        let Some(account) = parse_account(line?) else {
            continue;
        };
        let fits = match user {
            IdOrName::Id(id) => account.uid == *id,
            IdOrName::Name(name) => account.name == name.as_bytes(),
        };
        if fits {
            return Ok(Some(account));
        }
    }
    Ok(None)
}

fn find_gid(group: &[u8], wanted: &IdOrName) -> Result<u32, ResolveIdentityError> {
    let name = match wanted {
        IdOrName::Id(id) => return Ok(*id),
        IdOrName::Name(name) => name,
    };
    for line in lines(group, "group") {
        if let Some(found) = parse_group(line?).filter(|found| found.name == name.as_bytes()) {
            return Ok(found.gid);
        }
    }
    Err(ResolveIdentityError::UnknownGroup { name: name.clone() })
}

/// The gids of the groups that list the account as a member.
fn list_memberships(group: &[u8], name: &[u8]) -> Result<Vec<u32>, ResolveIdentityError> {
    let mut gids = Vec::new();
    for line in lines(group, "group") {
        let Some(found) = parse_group(line?) else {
            continue;
        };
        if found
            .members
            .split(|byte| *byte == b',')
            .any(|member| member == name)
        {
            gids.push(found.gid);
            if gids.len() > MAX_GROUPS {
                return Err(ResolveIdentityError::TooManyGroups);
            }
        }
    }
    Ok(gids)
}

/// A home directory that may stand in an environment.
fn usable_home(home: &[u8]) -> String {
    match std::str::from_utf8(home) {
        Ok(home) if home.starts_with('/') && !home.contains(|c: char| c.is_control()) => {
            home.into()
        }
        _ => "/".into(),
    }
}

/// Resolves a request, and extra groups, against the two files of a rootfs.
///
/// A file that does not exist is an empty one: then only numbers resolve. A
/// user by number without an account gets group 0 and home `/`, as with docker
/// and podman. Memberships count only when no group was named.
///
/// # Errors
/// [`Kind::NotFound`] for a name that is not there, [`Kind::Unsafe`] for files
/// of absurd shape.
pub fn resolve_identity(
    request: &UserRequest,
    extra_groups: &[IdOrName],
    passwd: &[u8],
    group: &[u8],
) -> Result<Identity, ResolveIdentityError> {
    let account = find_account(passwd, &request.user)?;
    let uid = match (&request.user, &account) {
        (IdOrName::Id(id), _) => *id,
        (IdOrName::Name(_), Some(account)) => account.uid,
        (IdOrName::Name(name), None) => {
            return Err(ResolveIdentityError::UnknownUser { name: name.clone() });
        }
    };
    let gid = match &request.group {
        Some(wanted) => find_gid(group, wanted)?,
        None => account.as_ref().map_or(0, |account| account.gid),
    };
    let mut groups = match (&request.group, &account) {
        (None, Some(account)) => list_memberships(group, account.name)?,
        _ => Vec::new(),
    };
    groups.push(gid);
    for wanted in extra_groups {
        groups.push(find_gid(group, wanted)?);
    }
    groups.sort_unstable();
    groups.dedup();
    if groups.len() > MAX_GROUPS {
        return Err(ResolveIdentityError::TooManyGroups);
    }
    Ok(Identity {
        uid,
        gid,
        groups,
        home: account.map_or_else(|| "/".into(), |account| usable_home(account.home)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        # a comment\n\
        1000:x:0:0::/:/bin/sh\n\
        0x0:x:0:0::/:/bin/sh\n\
        app:x:1000:1001::/srv/app:/bin/false\n\
        app:x:0:0::/root:/bin/sh\n\
        big:x:4294967295:0::/:\n\
        wrap:x:4294967296:0::/:\n\
        neg:x:-1:0::/:\n\
        lead:x:00:0::/:\n\
        short:x:7:8\n\
        weird:x:9:9::relative:\n\
        nohome:x:10:10:::\n";
    const GROUP: &[u8] = b"root:x:0:\n\
        app:x:1001:\n\
        audio:x:29:app,other\n\
        video:x:44:other,app\n\
        almost:x:45:application\n\
        bad:x:99999999999:app\n";

    fn resolve(user: &str) -> Result<Identity, String> {
        let request: UserRequest = user.parse().map_err(|error| format!("{error}"))?;
        resolve_identity(&request, &[], PASSWD, GROUP).map_err(|error| error.to_string())
    }

    #[test]
    fn user_texts_resolve_exactly_or_not_at_all() {
        type Ids = (u32, u32, &'static [u32], &'static str);
        let table: &[(&str, Option<Ids>)] = &[
            ("0", Some((0, 0, &[0], "/root"))),
            ("root", Some((0, 0, &[0], "/root"))),
            ("app", Some((1000, 1001, &[29, 44, 1001], "/srv/app"))),
            ("app:29", Some((1000, 29, &[29], "/srv/app"))),
            ("app:audio", Some((1000, 29, &[29], "/srv/app"))),
            // A number is a number even where an account has that name.
            ("1000", Some((1000, 1001, &[29, 44, 1001], "/srv/app"))),
            ("1", Some((1, 0, &[0], "/"))),
            ("1:2", Some((1, 2, &[2], "/"))),
            ("7", Some((7, 8, &[8], "/"))),
            ("weird", Some((9, 9, &[9], "/"))),
            ("nohome", Some((10, 10, &[10], "/"))),
            ("4294967294", Some((u32::MAX - 1, 0, &[0], "/"))),
            ("", None),
            (":", None),
            (":2", None),
            ("1:", None),
            ("1:2:3", None),
            ("01", None),
            ("00", None),
            ("000", None),
            ("1 ", None),
            (" 1", None),
            ("+1", None),
            ("-1", None),
            ("٣", None),
            ("1\n", None),
            ("root\n", None),
            ("0x0", None),
            ("1e9", None),
            ("4294967295", None),
            ("4294967296", None),
            ("18446744073709551616", None),
            ("1:4294967296", None),
            ("big", None),
            ("wrap", None),
            ("neg", None),
            ("lead", None),
            ("nobody", None),
            ("app:nogroup", None),
            ("app:bad", None),
            ("../root", None),
        ];
        for (text, expected) in table {
            let found = resolve(text).ok();
            let expected = expected.map(|(uid, gid, groups, home)| Identity {
                uid,
                gid,
                groups: groups.to_vec(),
                home: home.into(),
            });
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn extra_groups_are_added_to_the_primary_one() {
        let request: UserRequest = "1:2".parse().unwrap();
        let extra = ["audio".parse().unwrap(), "5".parse().unwrap()];
        let identity = resolve_identity(&request, &extra, PASSWD, GROUP).unwrap();
        assert_eq!(identity.groups, [2, 5, 29]);
    }

    #[test]
    fn absurd_files_are_refused() {
        let request: UserRequest = "nobody".parse().unwrap();
        let long = vec![b'a'; MAX_LINE_BYTES + 1];
        let many = b"x:x:1:1::/:\n".repeat(MAX_LINES + 1);
        for passwd in [&long, &many] {
            let error = resolve_identity(&request, &[], passwd, b"").unwrap_err();
            assert_eq!(error.kind(), Kind::Unsafe);
        }
    }

    #[test]
    fn home_with_control_characters_is_not_used() {
        let request: UserRequest = "a".parse().unwrap();
        let identity =
            resolve_identity(&request, &[], b"a:x:1:1::/home/a\rroot:/bin/sh\n", b"").unwrap();
        assert_eq!(identity.home, "/");
    }
}
