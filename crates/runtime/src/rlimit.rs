// SPDX-License-Identifier: Apache-2.0
//! The kernel's resource limits: the one table of their names.

use rustix::process::Resource;

/// Documents' name, options' name, and the kernel's number.
const TABLE: [(&str, &str, Resource); 16] = [
    ("RLIMIT_AS", "as", Resource::As),
    ("RLIMIT_CORE", "core", Resource::Core),
    ("RLIMIT_CPU", "cpu", Resource::Cpu),
    ("RLIMIT_DATA", "data", Resource::Data),
    ("RLIMIT_FSIZE", "fsize", Resource::Fsize),
    ("RLIMIT_LOCKS", "locks", Resource::Locks),
    ("RLIMIT_MEMLOCK", "memlock", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", "msgqueue", Resource::Msgqueue),
    ("RLIMIT_NICE", "nice", Resource::Nice),
    ("RLIMIT_NOFILE", "nofile", Resource::Nofile),
    ("RLIMIT_NPROC", "nproc", Resource::Nproc),
    ("RLIMIT_RSS", "rss", Resource::Rss),
    ("RLIMIT_RTPRIO", "rtprio", Resource::Rtprio),
    ("RLIMIT_RTTIME", "rttime", Resource::Rttime),
    ("RLIMIT_SIGPENDING", "sigpending", Resource::Sigpending),
    ("RLIMIT_STACK", "stack", Resource::Stack),
];

/// The names of all of them, as documents spell them.
pub(crate) const NAMES: [&str; TABLE.len()] = {
    let mut names = [""; TABLE.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = TABLE[at].0;
        at += 1;
    }
    names
};

/// Whether options know a limit by this name, `nofile` for `RLIMIT_NOFILE`.
pub(crate) fn is_option(name: &str) -> bool {
    TABLE.iter().any(|(_, option, _)| *option == name)
}

/// The names of all of them, as options spell them, each with the kernel's number.
pub(crate) fn options() -> impl Iterator<Item = (&'static str, Resource)> {
    TABLE
        .iter()
        .map(|(_, option, resource)| (*option, *resource))
}

/// The kernel's number of a limit as documents spell it.
pub(crate) fn resource(name: &str) -> Option<Resource> {
    let found = TABLE.iter().find(|(known, ..)| *known == name);
    found.map(|(_, _, resource)| *resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_options_are_those_of_documents() {
        for ((document, option, _), name) in TABLE.iter().zip(NAMES) {
            assert_eq!(format!("RLIMIT_{}", option.to_ascii_uppercase()), *document);
            assert_eq!(name, *document);
        }
        assert!(TABLE.is_sorted_by_key(|(document, ..)| document));
    }
}
