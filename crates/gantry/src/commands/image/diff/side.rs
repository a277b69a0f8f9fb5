// SPDX-License-Identifier: Apache-2.0
//! One of the two things that are compared: an image, or a container made of one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use gantry_layer::tree::Tree;
use gantry_oci::Kind as Reason;
use gantry_packages::Package;
use gantry_runtime::container::{Container, ContainerError, Containers};
use gantry_store::contents::container_tree;
use gantry_sys::root::RootDir;
use serde_json::Value;

use super::files::{ContainerFiles, ImageFiles};
use crate::commands::container::find::{self, FoundImage};
use crate::commands::image::endpoint;
use crate::commands::mounts::view::View;
use crate::context::Context;
use crate::exit::Failure;

/// Members of a configuration that say how an image came about, not what it is.
const NOT_COMPARED: [&str; 2] = ["history", "rootfs"];

/// What a side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Container,
}

/// An image, and the container that was made of it if that is what was named.
pub(super) struct Side {
    asked: String,
    image: FoundImage,
    /// What the container wrote; none if it wrote nothing.
    container: Option<Option<View>>,
}

impl Side {
    /// Finds a container of that name or ID, else an image.
    pub(super) fn find(
        context: &Context,
        shares: &[PathBuf],
        asked: &str,
    ) -> Result<Self, Failure> {
        let containers = Containers::new(&context.root, &context.runroot);
        match containers.find(asked) {
            Ok(container) => return Self::of_container(context, shares, asked, &container),
            Err(ContainerError::Unknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let search = endpoint::search_registries()?;
        let image = find::find(context, shares, asked, &search)?.ok_or_else(|| {
            let message = format!("compare {asked}: no image and no container has that name or ID");
            Failure::message(Reason::NotFound, message)
                .hint(format!("bring it: gantry pull {asked}"))
        })?;
        Ok(Self {
            asked: asked.to_owned(),
            image,
            container: None,
        })
    }

    fn of_container(
        context: &Context,
        shares: &[PathBuf],
        asked: &str,
        container: &Container,
    ) -> Result<Self, Failure> {
        let image = find::image_of(context, shares, container)?;
        let view = View::of(context, &image, container)
            .map_err(|failure| failure.context(format!("look at container {asked}")))?;
        Ok(Self {
            asked: asked.to_owned(),
            image,
            container: Some(view),
        })
    }

    /// The image alone, for a container.
    pub(super) fn image_below(&self) -> Result<Self, Failure> {
        if self.container.is_none() {
            let message = format!(
                "compare {}: it is an image, and nothing to compare it with was named",
                self.asked
            );
            return Err(Failure::message(Reason::InvalidInput, message)
                .hint("name a second image or a container"));
        }
        Ok(Self {
            asked: self.image.record.digest.to_string(),
            image: self.image.clone(),
            container: None,
        })
    }

    pub(super) fn describe(&self) -> String {
        self.asked.clone()
    }

    pub(super) fn kind(&self) -> Kind {
        match self.container {
            Some(_) => Kind::Container,
            None => Kind::Image,
        }
    }

    pub(super) fn tree(&self) -> Result<Tree, Failure> {
        let tree = self.image.store.tree(&self.image.record)?;
        match &self.container {
            Some(Some(view)) => {
                let upper = RootDir::open_trusted(&view.upper)?;
                Ok(container_tree(tree, &view.root, &upper)?)
            }
            _ => Ok(tree),
        }
    }

    pub(super) fn packages(&self) -> Result<Vec<Package>, Failure> {
        let read = match &self.container {
            Some(Some(view)) => gantry_packages::read(&ContainerFiles(&view.root)),
            _ => {
                let tree = self.image.store.tree(&self.image.record)?;
                gantry_packages::read(&ImageFiles {
                    tree: &tree,
                    store: &self.image.store,
                })
            }
        };
        read.map_err(|error| {
            Failure::new(error.kind(), error).context(format!("list packages of {}", self.asked))
        })
    }

    /// The configuration's members, by name; variables and labels each by their own.
    pub(super) fn metadata(&self) -> Result<BTreeMap<String, Value>, Failure> {
        let bytes = self.image.store.config_bytes(&self.image.record)?;
        let config: Value =
            serde_json::from_slice(&bytes).map_err(|error| Failure::new(Reason::Corrupt, error))?;
        let mut members = BTreeMap::new();
        if let Value::Object(config) = config {
            for (name, value) in config {
                if !NOT_COMPARED.contains(&name.as_str()) {
                    flatten(name, value, &mut members);
                }
            }
        }
        Ok(members)
    }
}

/// Objects become their members; lists stay whole but for the environment. The nesting is capped where
/// configurations are read.
fn flatten(name: String, value: Value, members: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(inner) => {
            for (key, value) in inner {
                flatten(format!("{name}.{key}"), value, members);
            }
        }
        Value::Array(items) if name == "config.Env" => {
            for item in items {
                let text = item.as_str().unwrap_or_default();
                let (key, value) = text.split_once('=').unwrap_or((text, ""));
                members.insert(format!("{name}.{key}"), value.into());
            }
        }
        Value::Null => {}
        other => {
            members.insert(name, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn variables_and_labels_stand_by_their_own_names() {
        let mut members = BTreeMap::new();
        let config =
            json!({"Env": ["A=1=2", "B"], "Labels": {"x.y": "z"}, "Cmd": ["a", "b"], "User": null});
        flatten("config".to_owned(), config, &mut members);
        assert_eq!(
            members.into_iter().collect::<Vec<_>>(),
            [
                ("config.Cmd".to_owned(), json!(["a", "b"])),
                ("config.Env.A".to_owned(), json!("1=2")),
                ("config.Env.B".to_owned(), json!("")),
                ("config.Labels.x.y".to_owned(), json!("z")),
            ]
        );
    }
}
