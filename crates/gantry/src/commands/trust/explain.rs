// SPDX-License-Identifier: Apache-2.0
//! `gantry trust explain`.

use std::process::ExitCode;
use std::time::SystemTime;

use gantry_image::{ImageSource, ManifestBytes};
use gantry_store::Store;
use gantry_transport::ImageName;
use gantry_transport::inspect::{self, InspectOptions};
use gantry_trust::evaluate::{Outcome as Counted, RequirementVerdict, SignatureVerdict};
use gantry_trust::extra::{Circumstances, ConditionVerdict};
use gantry_trust::scope::Matched;
use gantry_trust::{FoundSignature, Question, Verdict, evaluate};

use crate::commands::image::endpoint::{PlainArgs, PlatformArgs, Side};
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::trust::{self, Trust};
use crate::{lookup, network, output};

/// Say whether an image is admitted, and why.
///
/// Ends with status 0 if it is, 4 if it is not. Nothing but manifests and signatures is fetched.
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// docker://HOST/NAME:TAG, oci:DIRECTORY, oci:DIRECTORY:REF, store:NAME, or a name in the store
    image: String,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Apply the policy of this namespace, too
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Which platform of an index.
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
        let name = match self.image.split_once(':') {
            Some(("docker" | "oci" | "store", _)) => self.image.parse()?,
            _ => ImageName::Store(self.image.clone()),
        };
        let trust = Trust::load(context)?;
        let side = self.side.clone().resolve()?;
        let stored = stored_name(&name, &side, context)?;
        let subject = trust::subject(&name, stored.as_ref())?;
        let source = side.source(name, context)?;
        let options = InspectOptions::new(self.platform.clone().resolve()?);
        let (top, image, signatures) = network::run(async {
            let (top, image) = inspect::resolve(&*source, &options).await?;
            let signatures = find_signatures(&*source, &top, &image).await?;
            Ok::<_, Failure>((top, image, signatures))
        })?;
        let question = Question {
            subject: &subject,
            manifest: &image,
            chosen_from: (top.digest() != image.digest()).then_some(&top),
            signatures: &signatures,
            now: SystemTime::now(),
            circumstances: Circumstances {
                namespace: self.namespace.as_deref(),
                ..Circumstances::default()
            },
        };
        let verdict = evaluate(&trust.policy, &trust.extra, &question);
        Ok((verdict, image))
    }
}

fn stored_name(
    name: &ImageName,
    side: &Side,
    context: &Context,
) -> Result<Option<gantry_store::ImageName>, Failure> {
    let ImageName::Store(text) = name else {
        return Ok(None);
    };
    let store = Store::open_read_only(&context.root)?;
    Ok(lookup::find(&store, text, side.conf.unqualified_search())?.name)
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
