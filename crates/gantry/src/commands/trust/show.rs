// SPDX-License-Identifier: Apache-2.0
//! `gantry trust show`.

use std::path::PathBuf;
use std::process::ExitCode;

use gantry_oci::{Kind, Limits};
use gantry_trust::policy::{Requirement, SigstoreSigners, Source};
use serde::Serialize;

use super::edit::places;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output;
use crate::trust::{Trust, no_policy};

/// Show the policy, and the rules beside it.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// As JSON
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// The policy file, as it is
    #[arg(long)]
    raw: bool,
}

/// What is shown.
#[derive(Serialize)]
struct View<'a> {
    policy: Option<PathBuf>,
    digest: String,
    scopes: Vec<Scope<'a>>,
    rules: Vec<Rule<'a>>,
}

#[derive(Serialize)]
struct Scope<'a> {
    /// None for the policy's default.
    transport: Option<&'a str>,
    scope: &'a str,
    requirements: &'a [Requirement],
}

#[derive(Serialize)]
struct Rule<'a> {
    file: &'a std::path::Path,
    transport: &'a str,
    scope: &'a str,
    asks: Vec<String>,
}

impl Show {
    /// Prints it.
    pub fn run(self, context: &Context) -> Outcome {
        if self.raw {
            let found = places(context)?.load(&Limits::DEFAULT);
            let (_, policy) = found.map_err(no_policy)?;
            output::exact(policy.text())?;
            return Ok(ExitCode::SUCCESS);
        }
        let trust = Trust::load(context)?;
        let view = view(&trust);
        if self.json {
            output::json(&view)?;
        } else {
            view.print()?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn view(trust: &Trust) -> View<'_> {
    let policy = trust.policy.policy();
    let default = Scope {
        transport: None,
        scope: "",
        requirements: policy.default_requirements(),
    };
    let scoped = policy.transports().iter().flat_map(|(transport, scopes)| {
        scopes.iter().map(|(scope, requirements)| Scope {
            transport: Some(transport),
            scope,
            requirements,
        })
    });
    View {
        policy: trust.path.clone(),
        digest: trust.policy.digest().to_string(),
        scopes: std::iter::once(default).chain(scoped).collect(),
        rules: trust.extra.rules().iter().map(rule).collect(),
    }
}

fn rule(rule: &gantry_trust::extra::Rule) -> Rule<'_> {
    let mut asks = Vec::new();
    if let Some(signers) = &rule.signers {
        let among = signers.rule.keys.len() + signers.rule.sigstore_keys.len();
        let wanted = signers.rule.at_least;
        asks.push(format!("signers {wanted} of the keys in {among} files"));
    }
    if rule.not_before.is_some() {
        asks.push("not-before".into());
    }
    if let Some(age) = rule.max_age {
        asks.push(format!("max-age {} s", age.as_secs()));
    }
    if rule.monotonic {
        asks.push("monotonic".into());
    }
    for attestation in &rule.attestations {
        asks.push(format!("attestation {}", attestation.rule.predicate_type));
    }
    if let Some(severity) = rule.max_severity {
        asks.push(format!("max-severity {severity:?}").to_lowercase());
    }
    Rule {
        file: &rule.file,
        transport: &rule.transport,
        scope: &rule.scope,
        asks,
    }
}

impl View<'_> {
    fn print(&self) -> Result<(), Failure> {
        let mut rows = Vec::new();
        for scope in &self.scopes {
            for requirement in scope.requirements {
                rows.push(vec![
                    scope.transport.unwrap_or("default").to_owned(),
                    shown(scope.scope),
                    requirement.type_name().to_owned(),
                    identity(requirement)?,
                    keys(requirement),
                ]);
            }
        }
        output::table(&["TRANSPORT", "SCOPE", "TYPE", "IDENTITY", "KEYS"], &rows)?;
        if self.rules.is_empty() {
            return Ok(());
        }
        let rows: Vec<Vec<String>> = self
            .rules
            .iter()
            .map(|rule| {
                vec![
                    rule.transport.to_owned(),
                    shown(rule.scope),
                    rule.asks.join(", "),
                    rule.file.display().to_string(),
                ]
            })
            .collect();
        output::line("")?;
        output::table(&["TRANSPORT", "SCOPE", "ASKS BESIDES", "FILE"], &rows)
    }
}

fn shown(scope: &str) -> String {
    if scope.is_empty() {
        "*".into()
    } else {
        scope.into()
    }
}

/// The rule as `set --identity` takes it.
fn identity(requirement: &Requirement) -> Result<String, Failure> {
    let identity = match requirement {
        Requirement::SignedBy(signed_by) => &signed_by.identity,
        Requirement::SigstoreSigned(sigstore) => &sigstore.identity,
        _ => return Ok(String::new()),
    };
    let value =
        serde_json::to_value(identity).map_err(|error| Failure::new(Kind::Internal, error))?;
    let members = [
        "type",
        "dockerReference",
        "dockerRepository",
        "prefix",
        "signedPrefix",
    ];
    let words = members.iter().filter_map(|name| value[name].as_str());
    Ok(words.collect::<Vec<_>>().join("="))
}

fn keys(requirement: &Requirement) -> String {
    let source = match requirement {
        Requirement::SignedBy(signed_by) => &signed_by.keys,
        Requirement::SigstoreSigned(sigstore) => match &sigstore.signers {
            SigstoreSigners::Keys(source) => source,
            SigstoreSigners::Fulcio {
                oidc_issuer,
                subject_email,
                ..
            } => return format!("{subject_email} by {oidc_issuer}"),
            SigstoreSigners::Pki {
                subject_hostname,
                subject_email,
                ..
            } => {
                let subjects = [subject_hostname, subject_email];
                let subjects = subjects.into_iter().flatten();
                return subjects.cloned().collect::<Vec<_>>().join(" ");
            }
        },
        _ => return String::new(),
    };
    match source {
        Source::Files(paths) => {
            let paths = paths.iter().map(|path| path.display().to_string());
            paths.collect::<Vec<_>>().join(" ")
        }
        Source::Inline(_) => "in the policy".into(),
    }
}
