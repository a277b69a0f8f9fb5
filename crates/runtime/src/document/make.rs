// SPDX-License-Identifier: Apache-2.0
//! From options, an image and flags to a document that stands alone.
//!
//! ```text
//!  options, image ──► spec::generate ──► finish ──► alone ──┐ wanted
//!  the profile ─────► spec::generate ──► finish ──► alone ──┤ base
//!                                        template ──────────┴─► merge ──► flags ──► document
//! ```
//!
//! `run` has a monitor that mounts, makes small files and keeps volumes; whoever is handed a
//! document has none. So what refers to these is put differently (`alone`): names are the
//! runtime's business, and volumes are memory.
//!
//! Pure: same input, same bytes. There is no clock and no random number; the host is a value.

use gantry_oci::{ImageConfig, Kind};
use serde_json::{Value, json};

use super::flags::{self, FlagError, Given};
use super::merge::merge;
use super::path::JsonPath;
use crate::host::HostFacts;
use crate::identity::{Identity, ResolveIdentityError, resolve_identity};
use crate::options::RunOptions;
use crate::prepare::Accounts;
use crate::spec::{
    Draft, Explanation, GenerateError, LimitSupport, Origin, Placement, RootfsFacts, generate,
    to_bytes,
};

/// The version of the specification that documents follow unless another is asked for.
pub const DEFAULT_VERSION: &str = "1.2.0";
/// The root unless another is named: beside the document.
pub const DEFAULT_ROOT: &str = "rootfs";
/// What the container is called unless it has an id.
const DEFAULT_NAME: &str = "container";
/// The program where neither image nor operator names one.
const DEFAULT_PROGRAM: &str = "sh";
/// Places of `run`; no option can spell the NUL.
const STATE: &str = "/\0state";
const DATA: &str = "/\0data";

/// All that a document is made from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The image's configuration.
    pub image: Option<&'a ImageConfig>,
    /// Options in the spelling of docker.
    pub options: &'a RunOptions,
    /// Flags in the spelling of oci-runtime-tool.
    pub flags: &'a [Given],
    /// What the host can do.
    pub host: &'a HostFacts,
    /// The container's id: its control group and, unless it has one, its host name.
    pub id: Option<&'a str>,
    /// What the document says of the root; [`DEFAULT_ROOT`], or the template's.
    pub rootfs: Option<&'a str>,
    /// The rootfs's users and groups; without them only numbers can be resolved.
    pub accounts: Option<&'a Accounts>,
    /// What stands in place of the profile's own document.
    pub template: Option<&'a Value>,
    /// The version that the document says it follows; [`DEFAULT_VERSION`], or the template's.
    pub version: Option<&'a str>,
}

/// A document with its explanation.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// The document.
    pub document: Value,
    /// Where each part came from and what relaxes it.
    pub explanations: Vec<Explanation>,
    /// What had to be left out or put differently, a sentence each.
    pub notes: Vec<String>,
}

/// Why no document can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError {
    /// Options that make no sense for this image and host.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A user or group by name, and no file that has it.
    #[error("decide who runs the program")]
    Identity(#[from] ResolveIdentityError),
    /// A flag whose value makes no sense.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// The template is some other JSON.
    #[error("the template is not a JSON object")]
    Template,
    /// The document does not serialise; a bug.
    #[error("serialise the runtime document")]
    Serialize(#[source] serde_json::Error),
}

impl MakeError {
    /// What an edge branches on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Generate(error) => error.kind(),
            Self::Identity(error) => error.kind(),
            Self::Flag(_) | Self::Template => Kind::InvalidInput,
            Self::Serialize(_) => Kind::Internal,
        }
    }

    /// What the operator may try.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Generate(GenerateError::Limit { .. }) => {
                Some("--host-facts describes the host that the document is for")
            }
            Self::Generate(error) => error.hint(),
            Self::Identity(_) => {
                Some("--rootfs DIR says where names can be looked up; numbers need no look-up")
            }
            _ => None,
        }
    }
}

/// Makes a document.
///
/// # Errors
/// As [`generate`]; a name that cannot be resolved; a flag that makes no sense.
pub fn make(inputs: &Inputs<'_>) -> Result<Made, MakeError> {
    let nothing = ImageConfig::default();
    let image = inputs.image.unwrap_or(&nothing);
    let mut options = inputs.options.clone();
    if inputs.image.is_none() && options.args.is_empty() && options.entrypoint.is_none() {
        options.args = vec![DEFAULT_PROGRAM.into()];
    }
    let mut made = draw(inputs, image, &options)?;
    if let Some(template) = inputs.template {
        if !template.is_object() {
            return Err(MakeError::Template);
        }
        let plain = RunOptions {
            profile: options.profile,
            args: vec![DEFAULT_PROGRAM.into()],
            ..RunOptions::default()
        };
        let base = draw(inputs, &nothing, &plain)?.document;
        let mut document = template.clone();
        merge(&mut document, &base, &made.document);
        made.document = document;
    } else {
        made.document["root"]["path"] = DEFAULT_ROOT.into();
        made.document["ociVersion"] = DEFAULT_VERSION.into();
    }
    let document = &mut made.document;
    for (pointer, wanted) in [
        ("/root/path", inputs.rootfs),
        ("/ociVersion", inputs.version),
    ] {
        if let Some(text) = wanted {
            flags::set(document, pointer, text)?;
        }
    }
    flags::apply(&mut made.document, inputs.flags)?;
    for Given { flag, value } in inputs.flags {
        made.explanations.push(Explanation {
            control: JsonPath::of_pointer(flag.pointer).to_string(),
            value: value.clone(),
            origin: Origin::Option,
            relaxed_by: Some(format!("--{}", flag.name)),
        });
    }
    Ok(made)
}

/// The document of options alone.
fn draw(inputs: &Inputs<'_>, image: &ImageConfig, options: &RunOptions) -> Result<Made, MakeError> {
    let placement = Placement {
        id: inputs.id.unwrap_or(DEFAULT_NAME).into(),
        state_dir: STATE.into(),
        data_dir: DATA.into(),
        rootfs: DEFAULT_NAME.into(),
        limits: LimitSupport::of_host(inputs.host),
    };
    check_files(options)?;
    let generated = generate(image, options, inputs.host, &placement)?;
    let draft = generated.draft;
    let mut notes = draft.notes.clone();
    let identity = who(inputs, &draft, &mut notes)?;
    let volumes: Vec<_> = draft.volumes.iter().map(|v| v.target.clone()).collect();
    let mounts = draft.spec().mounts().as_deref().unwrap_or_default();
    // What lies below is not known here, so memory begins with it wherever it may.
    let occupied = mounts
        .iter()
        .map(|mount| mount.destination().to_string_lossy().into_owned())
        .collect();
    let facts = RootfsFacts {
        identity: identity.clone(),
        occupied,
    };
    let bytes = to_bytes(&draft.finish(&facts))?;
    let mut document = serde_json::from_slice(&bytes).map_err(MakeError::Serialize)?;
    alone(&mut document, &volumes, &identity, &mut notes);
    if inputs.id.is_none()
        && options.resources.cgroup_parent.is_none()
        && let Some(linux) = document["linux"].as_object_mut()
    {
        linux.remove("cgroupsPath");
    }
    if !options.labels.is_empty() {
        let labels = options.labels.iter();
        for label in labels {
            document["annotations"][&label.key] = label.value.as_str().into();
        }
    }
    Ok(Made {
        document,
        explanations: generated.explanations,
        notes,
    })
}

/// Files with contents are made by whoever runs the container.
fn check_files(options: &RunOptions) -> Result<(), GenerateError> {
    let asked = &options.hosts;
    let why = "a document holds no files; `gantry run` makes them, --volume shows one of yours";
    let refused = [
        ("--add-host", !asked.entries.is_empty()),
        ("--dns", asked.resolver.file().is_some()),
    ];
    match refused.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(GenerateError::Conflict { option, why }),
        None => Ok(()),
    }
}

fn who(
    inputs: &Inputs<'_>,
    draft: &Draft,
    notes: &mut Vec<String>,
) -> Result<Identity, ResolveIdentityError> {
    let none = Accounts::default();
    let accounts = inputs.accounts.unwrap_or(&none);
    let identity = resolve_identity(
        draft.user(),
        draft.extra_groups(),
        &accounts.passwd,
        &accounts.group,
    )?;
    if inputs.accounts.is_none() && identity.uid != 0 {
        notes.push(format!(
            "the accounts of the root are not known: user {} gets group {} and home {}",
            identity.uid, identity.gid, identity.home
        ));
    }
    Ok(identity)
}

/// Takes out what only `run` provides.
fn alone(document: &mut Value, volumes: &[String], identity: &Identity, notes: &mut Vec<String>) {
    let Some(mounts) = document["mounts"].as_array_mut() else {
        return;
    };
    let text = |mount: &Value, member: &str| mount[member].as_str().unwrap_or_default().to_owned();
    mounts.retain(|mount| !text(mount, "source").starts_with(STATE));
    for mount in mounts {
        let target = text(mount, "destination");
        if !text(mount, "source").starts_with(DATA) || !volumes.contains(&target) {
            continue;
        }
        let (uid, gid) = (
            format!("uid={}", identity.uid),
            format!("gid={}", identity.gid),
        );
        *mount = json!({
            "destination": target, "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "nodev", "mode=755", uid, gid, "tmpcopyup"],
        });
        notes.push(format!(
            "the image's volume {target} is memory, which ends with the container; --volume puts a directory there"
        ));
    }
}

#[cfg(test)]
mod tests;
