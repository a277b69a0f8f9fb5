// SPDX-License-Identifier: Apache-2.0
//! Key material that is read at most once and prepared at most once, both when
//! it is first asked for.
//!
//! Whether a remembered admission is still in force depends on the *bytes* of
//! the keys, so these are read and digested each time. What they mean is found
//! out only where signatures are to be checked: that is what takes time.
//!
//! A file is known by its bytes, not by device, inode, size and times: a write
//! within one tick of the kernel's clock, a file system on another host or a
//! restored backup can leave all of these as they were, and reading the few
//! kilobytes of a key costs some microseconds.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use gantry_oci::Digester;

use crate::policy::Source;
use crate::prepared::Mechanisms;
use crate::refusal::Refusal;

/// The contents of key material, in the order of its [`Source`]; what could not be read says why.
pub type Material = Result<Vec<Bytes>, Refusal>;

/// The keys of one requirement or rule, and what becomes of them.
pub(crate) struct Keys<T> {
    sources: Vec<Source>,
    mechanisms: Arc<dyn Mechanisms>,
    material: OnceLock<Vec<Material>>,
    prepared: OnceLock<T>,
}

impl<T> Keys<T> {
    /// Nothing is read yet.
    pub(crate) fn new(sources: Vec<Source>, mechanisms: &Arc<dyn Mechanisms>) -> Self {
        Self {
            sources,
            mechanisms: Arc::clone(mechanisms),
            material: OnceLock::new(),
            prepared: OnceLock::new(),
        }
    }

    /// What the sources hold, in their order.
    fn material(&self) -> &[Material] {
        self.material.get_or_init(|| {
            let sources = self.sources.iter();
            sources.map(|source| self.load(source)).collect()
        })
    }

    fn load(&self, source: &Source) -> Material {
        match source {
            Source::Inline(contents) => Ok(contents.clone()),
            Source::Files(paths) => paths
                .iter()
                .map(|path| self.mechanisms.read(path))
                .collect(),
        }
    }

    /// Adds the bytes to a digest.
    pub(crate) fn absorb(&self, digester: &mut Digester) {
        for material in self.material() {
            absorb_material(digester, material);
        }
    }

    /// What was made of the keys, made now if it was not yet.
    pub(crate) fn prepared(&self, prepare: impl FnOnce(&[Material], &dyn Mechanisms) -> T) -> &T {
        let prepare = || prepare(self.material(), &*self.mechanisms);
        self.prepared.get_or_init(prepare)
    }
}

impl<T: fmt::Debug> fmt::Debug for Keys<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("sources", &self.sources)
            .field("prepared", &self.prepared.get())
            .finish_non_exhaustive()
    }
}

/// Lengths in front keep two texts from being mistaken for others with the same joint.
pub(crate) fn absorb(digester: &mut Digester, bytes: &[u8]) {
    digester.update(&(bytes.len() as u64).to_le_bytes());
    digester.update(bytes);
}

fn absorb_material(digester: &mut Digester, material: &Material) {
    match material {
        Ok(contents) => {
            digester.update(b"+");
            digester.update(&(contents.len() as u64).to_le_bytes());
            for content in contents {
                absorb(digester, content);
            }
        }
        Err(_) => digester.update(b"-"),
    }
}
