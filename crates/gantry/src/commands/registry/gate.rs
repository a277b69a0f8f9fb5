// SPDX-License-Identifier: Apache-2.0
//! What the registry's gate asks of this host: the policy, and signatures that lie beside registries.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_oci::{Host, Kind, ManifestDigest, Reference, Repository};
use gantry_registry::{
    Authorities, GateOptions, Lookasides, PolicyRules, PushPolicy, WaitingLimits,
};
use gantry_transport::registry::Registry;
use gantry_trust::Authority;
use gantry_trust::lookaside::Base;

use crate::commands::image::endpoint::{PlainArgs, Side};
use crate::config::{DurationText, PushPolicyText, RegistryConfig};
use crate::context::Context;
use crate::exit::Failure;
use crate::lookup;
use crate::trust::Trust;

/// How often what waits is judged again where the configuration does not say.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The gate that the configuration asks for; none if no repository asks the policy.
///
/// # Errors
/// Nobody said what clients call the registry: a policy would be asked about names that nobody pulls by.
pub fn options(
    config: &RegistryConfig,
    name: Option<&Host>,
) -> Result<Option<GateOptions>, Failure> {
    let own = config.repository.iter();
    let rules = PolicyRules {
        default: config.policy.map_or(PushPolicy::Off, push_policy),
        repositories: own
            .filter_map(|(pattern, rule)| Some((pattern.clone(), push_policy(rule.policy?))))
            .collect(),
    };
    if !rules.any() {
        return Ok(None);
    }
    let Some(name) = name else {
        let message =
            "ask the policy about pushed images: nobody said what clients call this registry";
        return Err(Failure::message(Kind::InvalidInput, message)
            .hint("give --name HOST[:PORT], or name in the [registry] table of gantry.toml"));
    };
    let (waiting, limits) = (&config.waiting, WaitingLimits::default());
    let span = |text: Option<DurationText>, otherwise| text.map_or(otherwise, |text| text.0);
    Ok(Some(GateOptions {
        name: name.clone(),
        rules,
        waiting: WaitingLimits {
            per_repository: waiting.per_repository.unwrap_or(limits.per_repository),
            in_all: waiting.in_all.unwrap_or(limits.in_all),
            age: span(waiting.max_age, limits.age),
        },
        look_every: span(waiting.look_every, LOOK_EVERY),
    }))
}

fn push_policy(text: PushPolicyText) -> PushPolicy {
    match text {
        PushPolicyText::Off => PushPolicy::Off,
        PushPolicyText::Enforce => PushPolicy::Enforce,
        PushPolicyText::Staged => PushPolicy::Staged,
    }
}

/// The policy of this host, read anew for each question.
#[derive(Debug)]
pub struct OwnPolicy(pub Context);

impl Authorities for OwnPolicy {
    fn load(&self) -> Result<Authority, String> {
        let trust = Trust::load(&self.0).map_err(|failure| failure.sentence())?;
        Ok(trust.authority())
    }
}

/// Lookasides, read as a client of this registry does.
#[derive(Debug)]
pub struct Beside {
    context: Context,
    side: Side,
    registry: Registry,
}

impl Beside {
    /// Reads no lookaside yet.
    ///
    /// # Errors
    /// The configuration of registries cannot be read.
    pub fn new(context: &Context, name: Option<&Host>) -> Result<Self, Failure> {
        let side = PlainArgs::default().resolve()?;
        let host = match name {
            Some(name) => name.clone(),
            None => lookup::LOCALHOST
                .parse()
                .map_err(|error| Failure::new(Kind::Internal, error))?,
        };
        Ok(Self {
            context: context.clone(),
            registry: Registry::new(host, side.options.clone()),
            side,
        })
    }
}

#[async_trait]
impl Lookasides for Beside {
    fn place_of(&self, reference: &Reference) -> Result<Option<Base>, String> {
        let options = self.side.registry_options(&self.context);
        let options = options.map_err(|failure| failure.sentence())?;
        Ok(options.lookaside.reads(reference).cloned())
    }

    async fn read(
        &self,
        base: &Base,
        repository: &Repository,
        digest: &ManifestDigest,
    ) -> Result<Vec<Bytes>, String> {
        let place = self.registry.repository(repository.clone());
        let found = place.lookaside_signatures(base, digest).await;
        let found = found.map_err(|error| Failure::from(error).sentence())?;
        Ok(found.into_iter().map(|signature| signature.bytes).collect())
    }
}
