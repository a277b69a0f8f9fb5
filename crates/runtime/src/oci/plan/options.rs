// SPDX-License-Identifier: Apache-2.0
//! Mount options, as words and as what the kernel is told.
//!
//! # Source
//! runtime-spec 1.2 "Linux mount options"; `mount(8)`, `mount_setattr(2)`.

use gantry_sys::mount::{MountAttrFlags, Propagation};
use serde::{Serialize, Serializer};

/// Attributes of a mount that are set and cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Set.
    pub set: MountAttrFlags,
    /// Cleared.
    pub clear: MountAttrFlags,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            set: MountAttrFlags::empty(),
            clear: MountAttrFlags::empty(),
        }
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:?} -{:?}", self.set, self.clear))
    }
}

impl Attributes {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.clear.is_empty()
    }

    fn apply(&mut self, (bit, on): (MountAttrFlags, bool)) {
        const TIMES: MountAttrFlags = MountAttrFlags::MOUNT_ATTR__ATIME;
        if TIMES.contains(bit) {
            // The three ways of access times are one choice, whose default is zero.
            self.set.remove(TIMES);
            self.clear.insert(TIMES);
            if on {
                self.set.insert(bit);
            }
        } else if on {
            self.set.insert(bit);
            self.clear.remove(bit);
        } else {
            self.set.remove(bit);
            self.clear.insert(bit);
        }
    }
}

/// What the words of one mount mean together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MountOptions {
    /// A bind, and whether of everything below it.
    pub bind: Option<bool>,
    /// Of the mount itself.
    pub attributes: Attributes,
    /// Of it and everything below it.
    pub recursive: Attributes,
    /// In order; the second member says whether below it too.
    pub propagation: Vec<(Propagation, bool)>,
    /// What was there is copied into the new file system.
    pub copy_up: bool,
    /// Owners are shown through a mapping, and whether below it too.
    pub id_mapped: Option<bool>,
    /// Changes a mount that is there.
    pub remount: bool,
    /// Options of the file system itself.
    pub data: Vec<String>,
}

/// Finds a propagation by the word without `r`.
pub(super) fn propagation(word: &str) -> Option<Propagation> {
    Some(match word {
        "shared" => Propagation::Shared,
        "slave" => Propagation::Slave,
        "private" => Propagation::Private,
        "unbindable" => Propagation::Unbindable,
        _ => return None,
    })
}

fn attribute(word: &str) -> Option<(MountAttrFlags, bool)> {
    use MountAttrFlags as A;
    Some(match word {
        "ro" => (A::MOUNT_ATTR_RDONLY, true),
        "rw" => (A::MOUNT_ATTR_RDONLY, false),
        "nosuid" => (A::MOUNT_ATTR_NOSUID, true),
        "suid" => (A::MOUNT_ATTR_NOSUID, false),
        "nodev" => (A::MOUNT_ATTR_NODEV, true),
        "dev" => (A::MOUNT_ATTR_NODEV, false),
        "noexec" => (A::MOUNT_ATTR_NOEXEC, true),
        "exec" => (A::MOUNT_ATTR_NOEXEC, false),
        "nodiratime" => (A::MOUNT_ATTR_NODIRATIME, true),
        "diratime" => (A::MOUNT_ATTR_NODIRATIME, false),
        "nosymfollow" => (A::MOUNT_ATTR_NOSYMFOLLOW, true),
        "symfollow" => (A::MOUNT_ATTR_NOSYMFOLLOW, false),
        "noatime" => (A::MOUNT_ATTR_NOATIME, true),
        "strictatime" => (A::MOUNT_ATTR_STRICTATIME, true),
        // To be without one way is to be with the kernel's own, which is the third.
        "atime" => (A::MOUNT_ATTR_NOATIME, false),
        "nostrictatime" => (A::MOUNT_ATTR_STRICTATIME, false),
        "relatime" | "norelatime" => (A::MOUNT_ATTR_NOATIME, false),
        _ => return None,
    })
}

impl MountOptions {
    /// Reads the words, the last of contradicting ones winning.
    pub(super) fn parse(words: &[String]) -> Self {
        let mut options = Self::default();
        for word in words {
            options.add(word);
        }
        options
    }

    fn add(&mut self, word: &str) {
        let recursive = word.strip_prefix('r');
        if let Some(change) = attribute(word) {
            self.attributes.apply(change);
        } else if let Some(change) = recursive.and_then(attribute) {
            self.recursive.apply(change);
        } else if let Some(kind) = propagation(word) {
            self.propagation.push((kind, false));
        } else if let Some(kind) = recursive.and_then(propagation) {
            self.propagation.push((kind, true));
        } else {
            match word {
                "bind" => self.bind = Some(self.bind.unwrap_or(false)),
                "rbind" => self.bind = Some(true),
                "tmpcopyup" => self.copy_up = true,
                "idmap" => self.id_mapped = Some(false),
                "ridmap" => self.id_mapped = Some(true),
                "remount" => self.remount = true,
                // What a new mount is anyway, or what the kernel does not keep.
                "" | "defaults" | "async" | "nomand" | "mand" | "loud" | "silent"
                | "noiversion" | "nolazytime" | "nodirsync" => {}
                data => self.data.push(data.to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MountAttrFlags as A;

    fn parse(words: &[&str]) -> MountOptions {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        MountOptions::parse(&words)
    }

    #[test]
    fn every_word_of_the_specification_means_what_it_says() {
        for (word, bit, on) in [
            ("ro", A::MOUNT_ATTR_RDONLY, true),
            ("nosuid", A::MOUNT_ATTR_NOSUID, true),
            ("suid", A::MOUNT_ATTR_NOSUID, false),
            ("nodev", A::MOUNT_ATTR_NODEV, true),
            ("exec", A::MOUNT_ATTR_NOEXEC, false),
            ("nosymfollow", A::MOUNT_ATTR_NOSYMFOLLOW, true),
        ] {
            let expected = Attributes {
                set: if on { bit } else { A::empty() },
                clear: if on { A::empty() } else { bit },
            };
            assert_eq!(parse(&[word]).attributes, expected, "{word}");
            let recursive = parse(&[&format!("r{word}")]);
            assert_eq!(recursive.recursive, expected, "r{word}");
            assert!(recursive.attributes.is_empty(), "r{word}");
        }
        assert_eq!(
            parse(&["rw", "ro", "rw"]).attributes.clear,
            A::MOUNT_ATTR_RDONLY
        );
        assert_eq!(parse(&["rbind", "bind"]).bind, Some(true));
        assert_eq!(
            parse(&["rprivate", "shared"]).propagation,
            [(Propagation::Private, true), (Propagation::Shared, false)]
        );
        assert_eq!(
            parse(&["size=64k", "mode=755"]).data,
            ["size=64k", "mode=755"]
        );
        assert_eq!(parse(&["ridmap"]).id_mapped, Some(true));
    }

    #[test]
    fn access_times_are_one_choice() {
        for (words, set) in [
            (["noatime", "strictatime"], A::MOUNT_ATTR_STRICTATIME),
            (["strictatime", "noatime"], A::MOUNT_ATTR_NOATIME),
            (["noatime", "relatime"], A::empty()),
        ] {
            let attributes = parse(&words).attributes;
            assert_eq!(attributes.set, set, "{words:?}");
            assert!(attributes.clear.contains(A::MOUNT_ATTR__ATIME));
        }
    }
}
