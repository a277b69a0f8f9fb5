// SPDX-License-Identifier: Apache-2.0
//! Mending what a check found: one object, one record, one image is brought again, nothing else.
//!
//! ```text
//!  Store::check ─▶ CheckReport ─▶ Store::plan_repair ─▶ RepairPlan ─▶ fetch::repair ─▶ RepairReport
//!                    what is wrong        pure: what to bring            effects
//! ```
//!
//! Bytes come, in this order, from peers (other stores, which give single objects), and from the
//! sources of the images that need them: whole layers, of which only what is damaged is kept.
//! Whatever comes is verified as in a pull: an object by its own digest, a layer by digest, size and
//! diffID, a manifest by its digest. So a repair cannot bring anything in that was not admitted once;
//! and who starts the image asks the policy again.
//!
//! Nothing that can still be read is taken away before its replacement is complete. Containers that
//! run meanwhile keep the damaged file that they have open.

mod fetch;

use crate::error::StoreError;
use crate::fsck::{CheckReport, Damage, Problem};
use crate::open::Store;
use crate::record::Faces;
use gantry_oci::{DiffId, ManifestDigest, ObjectId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use fetch::{Origins, RepairReport, Unmended, repair};

/// What has to be brought or made again. Lists are sorted and name each thing once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RepairPlan {
    /// Objects, with the layers in which they are: any of these will do.
    pub objects: Vec<LostObject>,
    /// Variants to take away; the trees that linked to them are made again.
    pub variants: Vec<String>,
    /// Layers whose records are lost.
    pub layers: Vec<DiffId>,
    /// Images and indexes that are made again, and why.
    pub images: Vec<DamagedImage>,
    /// Files that are no signature of their image any more: to be removed, and asked for again.
    pub signatures: Vec<DamagedSignature>,
    /// What no repair can mend.
    pub beyond: Vec<Problem>,
}

/// An object that is missing or wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LostObject {
    /// Its name.
    pub id: ObjectId,
    /// The layers that have it; none are known if their records are lost, too.
    pub layers: Vec<DiffId>,
}

/// An image or an index that is made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DamagedImage {
    /// Its name.
    pub digest: ManifestDigest,
    /// What is wrong with it.
    pub why: String,
    /// The faces that it had; where its record is lost it gets those that the store's others have.
    pub faces: Option<Faces>,
}

/// A signature whose bytes are not those that its name says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DamagedSignature {
    /// The image.
    pub digest: ManifestDigest,
    /// The file, below the store's root.
    pub path: String,
}

/// What planning needs to know of the store.
#[derive(Debug, Clone, Default)]
struct Facts {
    /// The layers in which each damaged object is.
    layers_of: BTreeMap<ObjectId, BTreeSet<DiffId>>,
    /// Images whose records can be read: their layers and faces.
    images: BTreeMap<ManifestDigest, (Vec<DiffId>, Faces)>,
}

impl RepairPlan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for RepairPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for LostObject { id, layers } in &self.objects {
            match layers.first() {
                Some(layer) => writeln!(f, "bring object {id} (of layer {layer})")?,
                None => writeln!(f, "bring object {id}")?,
            }
        }
        for path in &self.variants {
            writeln!(f, "remove {path}")?;
        }
        for layer in &self.layers {
            writeln!(f, "bring layer {layer}")?;
        }
        for image in &self.images {
            writeln!(f, "make image {} again: {}", image.digest, image.why)?;
        }
        for signature in &self.signatures {
            writeln!(f, "remove {}, and ask for it again", signature.path)?;
        }
        for problem in &self.beyond {
            writeln!(f, "leave {}: {}", problem.path, problem.problem)?;
        }
        Ok(())
    }
}

impl Store {
    /// Plans what it takes to mend what a check found.
    ///
    /// # Errors
    /// The kernel's refusal; what is damaged is not an error.
    pub fn plan_repair(&self, report: &CheckReport) -> Result<RepairPlan, StoreError> {
        Ok(plan(&report.problems, &self.repair_facts(report)?))
    }

    fn repair_facts(&self, report: &CheckReport) -> Result<Facts, StoreError> {
        let mut facts = Facts::default();
        for problem in &report.problems {
            if let Damage::Object(id) = problem.damage {
                facts.layers_of.insert(id, BTreeSet::new());
            }
        }
        if !facts.layers_of.is_empty() {
            for diff_id in self.layers()? {
                // A record that cannot be read is in the report itself.
                for (id, _) in self.layer_objects(&diff_id).ok().flatten().iter().flatten() {
                    if let Some(layers) = facts.layers_of.get_mut(id) {
                        layers.insert(diff_id);
                    }
                }
            }
        }
        for digest in self.digests()? {
            let Ok(Some(record)) = self.image(&digest) else {
                continue;
            };
            if let Some(image) = record.image() {
                let layers = image.layers.iter().map(|layer| layer.diff_id).collect();
                facts.images.insert(digest, (layers, image.faces));
            }
        }
        Ok(facts)
    }
}

fn plan(problems: &[Problem], facts: &Facts) -> RepairPlan {
    let mut lost = BTreeMap::new();
    let mut layers = BTreeSet::new();
    let mut images: BTreeMap<ManifestDigest, String> = BTreeMap::new();
    let mut plan = RepairPlan::default();
    for problem in problems {
        match problem.damage {
            Damage::Object(id) => {
                let of = facts.layers_of.get(&id).cloned().unwrap_or_default();
                relink(facts, &of, &mut images);
                lost.insert(id, of.into_iter().collect());
            }
            Damage::Variant(_) => {
                plan.variants.push(problem.path.clone());
                // Any tree may link to it: only its inode says which.
                let all = facts.images.values().flat_map(|(layers, _)| layers);
                relink(facts, &all.copied().collect(), &mut images);
            }
            Damage::Layer(diff_id) => {
                layers.insert(diff_id);
            }
            Damage::Image(digest) => {
                images.insert(digest, problem.problem.clone());
            }
            Damage::Signature(digest) => plan.signatures.push(DamagedSignature {
                digest,
                path: problem.path.clone(),
            }),
            Damage::Unknown => plan.beyond.push(problem.clone()),
        }
    }
    plan.objects = lost
        .into_iter()
        .map(|(id, layers)| LostObject { id, layers })
        .collect();
    plan.variants.sort();
    plan.layers = layers.into_iter().collect();
    plan.images = images
        .into_iter()
        .map(|(digest, why)| DamagedImage {
            faces: facts.images.get(&digest).map(|(_, faces)| *faces),
            digest,
            why,
        })
        .collect();
    plan
}

/// Hard-link trees have the damaged inode itself: they are made again.
fn relink(facts: &Facts, layers: &BTreeSet<DiffId>, images: &mut BTreeMap<ManifestDigest, String>) {
    for (digest, (of_image, faces)) in &facts.images {
        if faces.hardlink && of_image.iter().any(|layer| layers.contains(layer)) {
            images
                .entry(*digest)
                .or_insert_with(|| "its tree may link to damaged contents".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id<T: std::str::FromStr>(byte: u8) -> T
    where
        T::Err: fmt::Debug,
    {
        format!("sha256:{}", format!("{byte:02x}").repeat(32))
            .parse()
            .unwrap()
    }

    fn problem(damage: Damage) -> Problem {
        Problem {
            path: format!("{damage:?}"),
            problem: "wrong".to_owned(),
            damage,
        }
    }

    fn facts() -> Facts {
        Facts {
            layers_of: BTreeMap::from([
                (id(1), BTreeSet::from([id(10)])),
                (id(2), BTreeSet::new()),
            ]),
            images: BTreeMap::from([
                (id(20), (vec![id(10), id(11)], Faces::COMPOSEFS)),
                (id(21), (vec![id(10)], Faces::BOTH)),
                (id(22), (vec![id(11)], Faces::HARDLINK)),
            ]),
        }
    }

    #[test]
    fn an_object_brings_itself_and_the_trees_that_link_to_it() {
        let plan = plan(&[problem(Damage::Object(id(1)))], &facts());
        assert_eq!(
            plan.objects,
            [LostObject {
                id: id(1),
                layers: vec![id(10)]
            }]
        );
        let images: Vec<_> = plan.images.iter().map(|image| image.digest).collect();
        assert_eq!(images, [id(21)], "no tree but that of layer 10 has it");
        assert!(plan.layers.is_empty() && plan.beyond.is_empty());
    }

    #[test]
    fn a_variant_is_removed_and_every_tree_made_again() {
        let plan = plan(&[problem(Damage::Variant(id(1)))], &facts());
        assert_eq!(plan.variants.len(), 1);
        let images: Vec<_> = plan.images.iter().map(|image| image.digest).collect();
        assert_eq!(images, [id(21), id(22)]);
    }

    #[test]
    fn what_is_said_twice_is_done_once() {
        let problems = [
            problem(Damage::Layer(id(10))),
            problem(Damage::Image(id(20))),
            problem(Damage::Layer(id(10))),
            problem(Damage::Image(id(20))),
            problem(Damage::Image(id(99))),
            problem(Damage::Signature(id(20))),
            problem(Damage::Unknown),
        ];
        let plan = plan(&problems, &facts());
        assert_eq!(plan.layers, [id(10)]);
        let images: Vec<_> = plan.images.iter().map(|image| image.digest).collect();
        assert_eq!(images, [id(20), id(99)]);
        assert_eq!(plan.images[1].faces, None);
        assert_eq!((plan.signatures.len(), plan.beyond.len()), (1, 1));
    }

    #[test]
    fn nothing_wrong_is_nothing_to_do() {
        assert!(plan(&[], &facts()).is_empty());
        let text = plan(&[problem(Damage::Object(id(2)))], &facts()).to_string();
        assert_eq!(text, format!("bring object {}\n", id::<ObjectId>(2)));
    }
}
