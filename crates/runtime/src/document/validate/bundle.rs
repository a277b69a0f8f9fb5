// SPDX-License-Identifier: Apache-2.0
//! What a bundle adds to a document: there must be a root.

use std::path::Path;

use serde_json::Value;

use super::{Document, Finding, JsonPath, Severity};

/// Checks that the root that the document names is a directory.
#[must_use]
pub fn check_root(document: &Value, bundle: &Path) -> Option<Finding> {
    let text = Document::new(document)
        .text("/root/path")
        .filter(|text| !text.is_empty() && !text.contains('\0'))?;
    let root = bundle.join(text);
    let problem = match std::fs::metadata(&root) {
        Ok(metadata) if metadata.is_dir() => return None,
        Ok(_) => format!("{} is not a directory", root.display()),
        Err(error) => format!("{}: {error}", root.display()),
    };
    Some(Finding {
        severity: Severity::Error,
        path: JsonPath::of_pointer("/root/path"),
        problem,
        rule: "config.md, Root",
    })
}
