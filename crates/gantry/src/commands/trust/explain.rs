// SPDX-License-Identifier: Apache-2.0
//! `gantry trust explain`.

use std::path::PathBuf;
use std::process::ExitCode;

use gantry_image::{ImageSource, ManifestBytes};
use gantry_transport::inspect::{self, InspectOptions};
use gantry_trust::evaluate::{Outcome as Counted, RequirementVerdict, SignatureVerdict};
use gantry_trust::extra::ConditionVerdict;
use gantry_trust::scope::Matched;
use gantry_trust::{FoundSignature, Verdict};

use crate::admission::{Admission, Evidence};
use crate::commands::container::find::{self, FoundImage};
use crate::commands::image::endpoint::{JudgedSource, PlainArgs, PlatformArgs};
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::{network, output};

/// Say whether an image is admitted, and why.
///
/// Ends with status 0 if it is, 4 if it is not. Nothing but manifests and signatures is fetched.
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// docker://HOST/NAME:TAG, oci:DIRECTORY, oci:DIRECTORY:REF, store:NAME, or a name as run takes it
    image: String,
    /// Look for a name in the tree that another host shares, mounted here, before the own store; may be repeated
    #[arg(long, value_name = "DIRECTORY")]
    share: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Apply the policy of this namespace, too
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Which platform of an index in a registry or a layout.
    #[command(flatten)]
    platform: PlatformArgs,
    /// How the registry is reached.
    #[command(flatten)]
    side: PlainArgs,
}

impl Explain {
    /// The same question of another verb.
    #[must_use]
    pub fn about(image: String, side: PlainArgs) -> Self {
        Self {
            image,
            share: Vec::new(),
            json: false,
            namespace: None,
            platform: PlatformArgs::default(),
            side,
        }
    }

    /// Evaluates and prints.
    pub fn run(self, context: &Context) -> Outcome {
        let (verdict, image) = self.ask(context)?;
        if self.json {
            output::json(&verdict)?;
        } else {
            output::lines(&text(&verdict, &image))?;
        }
        Ok(if verdict.admitted {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(4)
        })
    }

    /// Evaluates: the verdict, and the manifest that it is about.
    ///
    /// # Errors
    /// The image or its signatures cannot be read, or there is no policy.
    pub fn ask(&self, context: &Context) -> Result<(Verdict, ManifestBytes), Failure> {
        let admission = Admission::load(context)?;
        let side = self.side.clone().resolve()?;
        let search = side.conf.unqualified_search();
        let name = match self.image.split_once(':') {
            Some(("docker" | "oci", _)) => self.image.parse()?,
            Some(("store", name)) => {
                let found = find::find_own(context, name, search)?;
                return self.ask_stored(&admission, found, name, context);
            }
            _ => {
                let found = find::find(context, &self.share, &self.image, search)?;
                return self.ask_stored(&admission, found, &self.image, context);
            }
        };
        let JudgedSource {
            subjects, source, ..
        } = side.judged_source(name, context)?;
        let options = InspectOptions::new(self.platform.clone().resolve()?);
        let (top, image, signatures) = network::run(async {
            let (top, image) = inspect::resolve(&*source, &options).await?;
            let signatures = find_signatures(&*source, &top, &image).await?;
            Ok::<_, Failure>((top, image, signatures))
        })?;
        let chosen_from = (top.digest() != image.digest()).then_some(&top);
        let namespace = self.namespace.as_deref();
        let verdict = admission.explain_found(
            &subjects,
            Evidence {
                manifest: &image,
                chosen_from,
                signatures: &signatures,
            },
            namespace,
        );
        Ok((verdict, image))
    }

    fn ask_stored(
        &self,
        admission: &Admission,
        found: Option<FoundImage>,
        name: &str,
        context: &Context,
    ) -> Result<(Verdict, ManifestBytes), Failure> {
        let found = found.ok_or_else(|| find::nowhere(context, &self.share, name))?;
        admission.explain_stored(&found, self.namespace.as_deref())
    }
}

async fn find_signatures(
    source: &dyn ImageSource,
    top: &ManifestBytes,
    image: &ManifestBytes,
) -> Result<Vec<FoundSignature>, Failure> {
    let mut found = Vec::new();
    let mut digests = vec![*image.digest(), *top.digest()];
    digests.dedup();
    for digest in digests {
        for blob in source.signatures(&digest).await? {
            let place = format!("{}, of {digest}", source.describe());
            found.push(FoundSignature { blob, place });
        }
    }
    Ok(found)
}

/// The verdict for people, a line for each thing considered.
pub fn text(verdict: &Verdict, image: &ManifestBytes) -> String {
    let word = if verdict.admitted {
        "admitted"
    } else {
        "refused"
    };
    let mut lines = vec![format!("{word}: manifest {}", image.digest())];
    push_verdict(&mut lines, verdict, "");
    if let Some(namespace) = &verdict.namespace {
        use gantry_trust::evaluate::NamespaceVerdict;
        match &**namespace {
            NamespaceVerdict::Policy(verdict) => {
                lines.push(format!("namespace: {}", yes(verdict.admitted)));
                push_verdict(&mut lines, verdict, "  ");
            }
            NamespaceVerdict::Refused(refusal) => {
                lines.push(format!("namespace: not met: {}", refusal.message));
            }
        }
    }
    lines.join("\n")
}

fn push_verdict(lines: &mut Vec<String>, verdict: &Verdict, indent: &str) {
    let transport = verdict.transport;
    for candidate in &verdict.candidates {
        let (found, end) = match &verdict.matched {
            Matched::Scope(scope) if scope == candidate => ("found", true),
            _ => ("not in the policy", false),
        };
        let name = if candidate.is_empty() {
            format!("all of {transport}")
        } else {
            format!("{transport} {candidate}")
        };
        lines.push(format!("{indent}scope {name}: {found}"));
        if end {
            break;
        }
    }
    if verdict.matched == Matched::Default {
        lines.push(format!("{indent}scope default: found"));
    }
    for requirement in &verdict.requirements {
        push_requirement(lines, requirement, indent);
    }
    for condition in &verdict.conditions {
        push_condition(lines, condition, indent);
    }
}

fn yes(met: bool) -> &'static str {
    if met { "met" } else { "not met" }
}

fn push_requirement(lines: &mut Vec<String>, requirement: &RequirementVerdict, indent: &str) {
    let identity = match requirement.identity {
        Some(identity) => format!(" ({identity})"),
        None => String::new(),
    };
    let why = match (&requirement.refusal, requirement.met) {
        (Some(refusal), _) => format!(": {}", refusal.message),
        (None, false) if requirement.signatures.is_empty() => ": there are no signatures".into(),
        (None, _) => String::new(),
    };
    let (name, met) = (requirement.requirement, yes(requirement.met));
    lines.push(format!("{indent}requirement {name}{identity}: {met}{why}"));
    push_signatures(lines, &requirement.signatures, indent);
}

fn push_condition(lines: &mut Vec<String>, condition: &ConditionVerdict, indent: &str) {
    let file = match &condition.file {
        Some(file) => format!(" of {}", file.display()),
        None => String::new(),
    };
    let why = match &condition.refusal {
        Some(refusal) => format!(": {}", refusal.message),
        None => String::new(),
    };
    let (name, met) = (condition.condition, yes(condition.met));
    lines.push(format!("{indent}condition {name}{file}: {met}{why}"));
    push_signatures(lines, &condition.signatures, indent);
}

fn push_signatures(lines: &mut Vec<String>, signatures: &[SignatureVerdict], indent: &str) {
    for signature in signatures {
        let outcome = match &signature.outcome {
            Counted::Counts(counted) => format!("counts, by {}", counted.signer.id),
            Counted::Refused(refusal) => {
                format!(
                    "does not count ({}): {}",
                    refusal.reason.as_str(),
                    refusal.message
                )
            }
        };
        lines.push(format!(
            "{indent}  signature in {}: {outcome}",
            signature.place
        ));
    }
}
