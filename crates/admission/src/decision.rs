// SPDX-License-Identifier: Apache-2.0
//! From several judgements to one answer: bounded in number and time, and
//! written down.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Semaphore;

use crate::judge::{Asked, Content, Judge, Judgement};

/// What those who ask may take, whatever they ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at once; more wait to be accepted.
    pub connections: usize,
    /// One request's body.
    pub body_bytes: usize,
    /// Images judged at once.
    pub judgements: usize,
    /// Requests for a verdict at once, those included that wait for others; more are refused.
    pub requests: usize,
    /// Different images in one request; more are refused.
    pub images: usize,
    /// Until when a verdict must be there; a later one is a refusal.
    pub deadline: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 1024,
            // Docker hands over bodies of 4 MiB in base64, beside the answer's; etcd holds objects of 1.5 MiB.
            body_bytes: 16 << 20,
            judgements: 32,
            requests: 256,
            images: 256,
            // Kubernetes waits ten seconds unless told otherwise.
            deadline: Duration::from_secs(8),
        }
    }
}

/// One image of a [`Decision`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JudgedImage {
    /// Under which reference it was judged.
    pub reference: String,
    /// The manifest or index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The daemon's image ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// The scope of the policy that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The verdict.
    pub admitted: bool,
    /// Its grounds.
    pub reason: String,
}

/// What was decided on one request; a line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Which door was knocked at: `docker-create`, `admission-review` …
    pub entry: &'static str,
    /// What was asked for, in the asker's words.
    pub subject: String,
    /// Who asked, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The namespace of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Whether the policy admits all of it.
    pub admitted: bool,
    /// Whether it was allowed; differs from `admitted` in audit mode only.
    pub allowed: bool,
    /// One sentence.
    pub reason: String,
    /// Each image.
    pub images: Vec<JudgedImage>,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// Where decisions are written down.
pub trait Journal: Send + Sync + fmt::Debug {
    /// Writes one line. The time of it is the program's to add.
    fn record(&self, decision: &Decision);
}

/// The request that a decision is about, as far as the journal needs it.
#[derive(Debug, Clone)]
pub struct Case {
    /// The door.
    pub entry: &'static str,
    /// What was asked for.
    pub subject: String,
    /// Who asked.
    pub user: Option<String>,
    /// The namespace of the cluster.
    pub namespace: Option<String>,
}

/// The verdict on a request: what of it was judged, or why nothing was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Alternatives for each image: one admitted alternative admits the image, every image must be admitted.
    Judged(Vec<Vec<Asked>>),
    /// No image runs by this request, or none that the daemon has.
    Harmless(String),
    /// Not understood, or never allowed.
    Refused(String),
}

/// An answer to whoever asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether it may happen.
    pub allowed: bool,
    /// Whether the policy admits it; differs in audit mode.
    pub admitted: bool,
    /// One sentence.
    pub reason: String,
}

/// Puts cases before the judge, keeps the bounds and writes the journal.
#[derive(Debug)]
pub struct Clerk {
    judge: Arc<dyn Judge>,
    journal: Arc<dyn Journal>,
    bounds: Bounds,
    audit: bool,
    judging: Semaphore,
    requests: AtomicUsize,
}

/// Counts a request until it is answered.
struct Seat<'a>(&'a AtomicUsize);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Clerk {
    /// With `audit`, refusals are written down and not enforced.
    #[must_use]
    pub fn new(
        judge: Arc<dyn Judge>,
        journal: Arc<dyn Journal>,
        bounds: Bounds,
        audit: bool,
    ) -> Self {
        Self {
            judge,
            journal,
            bounds,
            audit,
            judging: Semaphore::new(bounds.judgements),
            requests: AtomicUsize::new(0),
        }
    }

    /// The bounds.
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Decides a case: `find` says which images it is about. Both must be done within the deadline.
    pub async fn decide(&self, case: Case, find: impl Future<Output = Finding>) -> Answer {
        let begun = Instant::now();
        let mut images = Vec::new();
        let judged = match self.seat() {
            Some(_seat) => {
                let judging = async {
                    let finding = find.await;
                    self.judge_all(finding, &mut images).await
                };
                tokio::time::timeout(self.bounds.deadline, judging)
                    .await
                    .unwrap_or_else(|_| {
                        let seconds = self.bounds.deadline.as_secs_f32();
                        Err(format!("there was no verdict within {seconds} s"))
                    })
            }
            None => Err("too many requests wait for a verdict; try again".to_owned()),
        };
        let admitted = judged.is_ok();
        let (Ok(reason) | Err(reason)) = judged;
        let decision = Decision {
            entry: case.entry,
            subject: case.subject,
            user: case.user,
            namespace: case.namespace,
            admitted,
            allowed: admitted || self.audit,
            reason,
            images,
            elapsed_ms: millis(begun.elapsed()),
        };
        self.journal.record(&decision);
        Answer {
            allowed: decision.allowed,
            admitted,
            reason: decision.reason,
        }
    }

    fn seat(&self) -> Option<Seat<'_>> {
        let seat = Seat(&self.requests);
        // Taken first and given back by the drop, so that two cannot take the last one.
        (self.requests.fetch_add(1, Ordering::Relaxed) < self.bounds.requests).then_some(seat)
    }

    async fn judge_all(
        &self,
        finding: Finding,
        judged: &mut Vec<JudgedImage>,
    ) -> Result<String, String> {
        let images = match finding {
            Finding::Judged(images) => images,
            Finding::Harmless(reason) => return Ok(reason),
            Finding::Refused(reason) => return Err(reason),
        };
        let mut seen = BTreeSet::new();
        let images: Vec<_> = images
            .into_iter()
            .filter(|alternatives| seen.insert(format!("{alternatives:?}")))
            .collect();
        let count: usize = images.iter().map(Vec::len).sum();
        if count > self.bounds.images {
            let most = self.bounds.images;
            return Err(format!(
                "{count} images are more than the {most} that one request may name"
            ));
        }
        let judgements = images
            .iter()
            .map(|alternatives| self.judge_one(alternatives));
        let mut refused = None;
        for (admitted, tried) in futures_util::future::join_all(judgements).await {
            if !admitted && refused.is_none() {
                refused = Some(why_none(&tried));
            }
            judged.extend(tried);
        }
        match refused {
            Some(reason) => Err(reason),
            None => Ok(match judged.as_slice() {
                [] => "no image is named".to_owned(),
                [one] => format!("{} is admitted: {}", one.reference, one.reason),
                many => format!("all {} images are admitted", many.len()),
            }),
        }
    }

    /// The first alternative that is admitted decides; the ones before it are reported too.
    async fn judge_one(&self, alternatives: &[Asked]) -> (bool, Vec<JudgedImage>) {
        let mut tried = Vec::new();
        for asked in alternatives {
            let judgement = match self.judging.acquire().await {
                Ok(_permit) => self.judge.judge(asked).await,
                Err(_) => Judgement::refused("the server is stopping"),
            };
            let admitted = judgement.admitted;
            tried.push(JudgedImage::new(asked, judgement));
            if admitted {
                return (true, tried);
            }
        }
        (false, tried)
    }
}

impl JudgedImage {
    fn new(asked: &Asked, judgement: Judgement) -> Self {
        let (held, image) = match &asked.content {
            Content::Served => (None, None),
            Content::Held { manifest, image } => (Some(*manifest), Some(image.to_string())),
            Content::Local { image } => (None, Some(image.to_string())),
        };
        Self {
            reference: asked.reference.to_string(),
            digest: judgement.digest.or(held).map(|digest| digest.to_string()),
            image_id: image,
            scope: judgement.scope,
            admitted: judgement.admitted,
            reason: judgement.reason,
        }
    }
}

fn why_none(tried: &[JudgedImage]) -> String {
    if tried.is_empty() {
        return "nothing says where the image comes from".to_owned();
    }
    let each = tried
        .iter()
        .map(|image| format!("{}: {}", image.reference, image.reason));
    each.collect::<Vec<_>>().join("; ")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
