// SPDX-License-Identifier: Apache-2.0
//! Hostile images, each a named case with the verdict that it must get, at every way into a store.
//!
//! ```text
//! layers     S symlinks · H hard links · N names · W whiteouts · P headers and extensions ·
//!            M metadata · B compression and bombs · C what looks hostile and must work
//! documents  J manifests, indexes, configurations
//! ```
//!
//! A case is bytes made by code and a [`Verdict`]: the tree that it makes, or the kind of error. [`run`] brings each
//! case in through every [`EntryPoint`] and holds them to the same verdict: nothing outside the root changes (the
//! canary), nothing is published after a refusal, memory stays bounded.
//!
//! A new case goes to the end of its group; its id is its name for ever. A new entry point is one implementation.

pub mod bypass;
pub mod documents;
pub mod layers;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use gantry_oci::{Kind, Limits};

use crate::image::Image;
use crate::tree;

/// Contents up to this size are spelled out in a tree's lines.
const SHOWN_BYTES: u64 = 40;
/// What bringing in one case may add to the process's memory.
const MEMORY_MAX_MIB: u64 = 160;

/// What must become of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted; the tree as [`lines`] renders it.
    Accept(&'static [&'static str]),
    /// Refused, for this coarse reason.
    Reject(Kind),
}

/// One case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name for ever.
    pub id: &'static str,
    /// What it tries.
    pub what: &'static str,
    /// What must become of it.
    pub verdict: Verdict,
    /// Makes the bytes.
    pub build: fn(&Context) -> Image,
}

/// What the cases know of the world that they attack.
#[derive(Debug, Clone)]
pub struct Context {
    /// A directory that none of them may touch; it holds `secret` and `dir/`.
    pub canary: PathBuf,
}

impl Context {
    /// Makes the canary in `dir`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(dir: &Path) -> Result<Self> {
        let canary = dir.join("canary");
        fs::create_dir_all(canary.join("dir"))?;
        fs::write(canary.join("secret"), "canary")?;
        fs::write(canary.join("dir/file"), "canary")?;
        Ok(Self { canary })
    }

    /// The canary's path as text.
    #[must_use]
    pub fn path(&self) -> String {
        self.canary.display().to_string()
    }
}

/// Caps that let a bomb go off early; otherwise those of every day.
#[must_use]
pub fn limits() -> Limits {
    Limits {
        ratio_floor_bytes: 4 << 20,
        layer_bytes: 64 << 20,
        file_bytes: 32 << 20,
        layer_logical_bytes: 128 << 20,
        entries: 20_000,
        members: 1000,
        ..Limits::DEFAULT
    }
}

/// What an entry point did with an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is there now.
    Accepted,
    /// It is not.
    Rejected {
        /// The coarse reason, where the entry point tells.
        kind: Option<Kind>,
        /// The sentence for people.
        sentence: String,
    },
}

/// A way into a store.
pub trait EntryPoint {
    /// What to call it in a report.
    fn name(&self) -> &str;

    /// Whether this way is one for such an image.
    fn takes(&self, image: &Image) -> bool {
        let _any = image;
        true
    }

    /// Brings the image in under `tag`.
    fn bring(&mut self, tag: &str, image: &Image) -> Outcome;

    /// The [`lines`] of the tree of what was accepted under `tag`; `None` if trees cannot be looked at here.
    ///
    /// # Errors
    /// The tree cannot be read.
    fn lines(&self, tag: &str, context: &Context) -> Result<Option<Vec<String>>>;

    /// All that others can see.
    fn visible(&self) -> Vec<String>;
}

/// Brings every case in through every entry point; the error lists all that went otherwise than the table says.
///
/// # Errors
/// A case got another verdict, made another tree, left something visible, touched the canary, or took too much memory.
pub fn run(cases: &[Case], entries: &mut [&mut dyn EntryPoint], context: &Context) -> Result<()> {
    let canary = tree::snapshot(&context.canary)?;
    let mut wrong = Vec::new();
    for case in cases {
        let image = (case.build)(context);
        for entry in entries.iter_mut().filter(|entry| entry.takes(&image)) {
            // What an index names is brought in before it, and stays.
            let looks = matches!(case.verdict, Verdict::Reject(_)) && image.children.is_empty();
            let before = looks.then(|| entry.visible());
            let memory = Memory::begin();
            let outcome = entry.bring(case.id, &image);
            let used_mib = memory.used_mib();
            let mut complain = |what: String| {
                wrong.push(format!(
                    "{} ({}) by {}: {what}",
                    case.id,
                    case.what,
                    entry.name()
                ));
            };
            if let Some(used) = used_mib.filter(|used| *used > MEMORY_MAX_MIB) {
                complain(format!("took {used} MiB"));
            }
            match (case.verdict, outcome) {
                (Verdict::Accept(wanted), Outcome::Accepted) => {
                    if let Some(found) = entry.lines(case.id, context)? {
                        if found != wanted {
                            complain(format!("made {found:#?} instead of {wanted:#?}"));
                        }
                    }
                }
                (Verdict::Reject(wanted), Outcome::Rejected { kind, sentence }) => {
                    if kind.is_some_and(|kind| kind != wanted) {
                        complain(format!(
                            "was refused as {kind:?} instead of {wanted:?}: {sentence}"
                        ));
                    }
                    if before.is_some_and(|before| entry.visible() != before) {
                        complain("left something visible".to_owned());
                    }
                }
                (wanted, found) => complain(format!("got {found:?} instead of {wanted:?}")),
            }
            if tree::snapshot(&context.canary)? != canary {
                complain("CHANGED THE CANARY".to_owned());
            }
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} verdicts are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

/// A tree as text, a line a name: `/d/`, `/f "contents"`, `/l -> target`, with mode, owner, time and xattrs where they
/// are not the plain ones, in the order of their paths. `CANARY` stands for the canary's path; names of one inode are not told from copies: equal files may share one.
///
/// # Errors
/// The tree cannot be read.
pub fn lines(rootfs: &Path, context: &Context) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (path, entry) in tree::snapshot(rootfs)?.0 {
        // Directories on the way to where the canary would be are nobody's point.
        let way = context
            .canary
            .strip_prefix("/")
            .is_ok_and(|canary| canary != path && canary.starts_with(&path));
        if way {
            continue;
        }
        let mut line = format!("/{}", path.as_os_str().as_bytes().escape_ascii());
        let plain_mode = match &entry.kind {
            tree::Kind::Directory => {
                line.push('/');
                0o755
            }
            tree::Kind::File { size_bytes, .. } if *size_bytes <= SHOWN_BYTES => {
                let bytes = fs::read(rootfs.join(&path)).context("read a file of a tree")?;
                write!(line, " \"{}\"", bytes.escape_ascii())?;
                0o644
            }
            tree::Kind::File { size_bytes, .. } => {
                write!(line, " of {size_bytes}")?;
                0o644
            }
            tree::Kind::Symlink(target) => {
                write!(line, " -> {}", target.as_os_str().as_bytes().escape_ascii())?;
                0o777
            }
            tree::Kind::CharDevice(device) => {
                write!(
                    line,
                    " c {}:{}",
                    rustix::fs::major(*device),
                    rustix::fs::minor(*device)
                )?;
                0o644
            }
            tree::Kind::BlockDevice(device) => {
                write!(
                    line,
                    " b {}:{}",
                    rustix::fs::major(*device),
                    rustix::fs::minor(*device)
                )?;
                0o644
            }
            tree::Kind::Fifo => {
                line.push_str(" p");
                0o644
            }
            tree::Kind::Socket => {
                line.push_str(" s");
                0o644
            }
        };
        if entry.mode != plain_mode {
            write!(line, " {:o}", entry.mode)?;
        }
        if (entry.uid, entry.gid) != (0, 0) {
            write!(line, " {}:{}", entry.uid, entry.gid)?;
        }
        if entry.mtime != (0, 0) && !matches!(entry.kind, tree::Kind::Directory) {
            write!(line, " @{}.{}", entry.mtime.0, entry.mtime.1)?;
        }
        for (name, value) in &entry.xattrs {
            let shown = &value[..value.len().min(24)];
            write!(
                line,
                " {}={}",
                name.as_bytes().escape_ascii(),
                shown.escape_ascii()
            )?;
        }
        lines.push(line.replace(&context.path().trim_start_matches('/').to_owned(), "CANARY"));
    }
    Ok(lines)
}

/// The memory that this process takes at its peak from here on; nothing where the kernel does not tell.
struct Memory {
    before_kib: Option<u64>,
}

impl Memory {
    fn begin() -> Self {
        // 5: the peak begins anew.
        let reset = fs::write("/proc/self/clear_refs", "5").is_ok();
        Self {
            before_kib: reset.then(peak_kib).flatten(),
        }
    }

    fn used_mib(&self) -> Option<u64> {
        Some(peak_kib()?.saturating_sub(self.before_kib?) >> 10)
    }
}

fn peak_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

fn accept(
    id: &'static str,
    what: &'static str,
    build: fn(&Context) -> Image,
    tree: &'static [&'static str],
) -> Case {
    Case {
        id,
        what,
        verdict: Verdict::Accept(tree),
        build,
    }
}

fn reject(id: &'static str, what: &'static str, kind: Kind, build: fn(&Context) -> Image) -> Case {
    Case {
        id,
        what,
        verdict: Verdict::Reject(kind),
        build,
    }
}
