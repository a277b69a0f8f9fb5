// SPDX-License-Identifier: Apache-2.0
//! Webhooks of a Kubernetes API server.
//!
//! | path | what asks | what it covers |
//! |---|---|---|
//! | `/validate` | a `ValidatingWebhookConfiguration` | pods and what holds pods: containers of all three sorts, image volumes |
//! | `/image-policy` | the `ImagePolicyWebhook` admission plug-in | the containers of pods |
//! | `/healthz` | probes | says that it serves |
//!
//! The node pulls by name after the review. A tag may have moved by then; a
//! digest cannot, and [`Options::require_digest`] wants one.

pub mod objects;
pub mod review;

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use gantry_oci::Reference;
use http::{Method, Request, Response, StatusCode};

use crate::decision::{Answer, Case, Clerk, Finding};
use crate::judge::{Asked, Content};
use crate::serve::{Service, json, plain};
use review::Review;

/// How to judge reviews.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Whether an image must be named by its digest.
    pub require_digest: bool,
}

/// The webhooks.
#[derive(Debug)]
pub struct Webhooks {
    clerk: Arc<Clerk>,
    options: Options,
}

impl Webhooks {
    /// Webhooks over a clerk.
    #[must_use]
    pub fn new(clerk: Arc<Clerk>, options: Options) -> Self {
        Self { clerk, options }
    }

    async fn decide(&self, entry: &'static str, review: Review) -> Answer {
        let case = Case {
            entry,
            subject: review.subject,
            user: review.user,
            namespace: review.namespace.clone(),
        };
        let finding = review
            .images
            .and_then(|images| self.asked(&images, review.namespace.as_deref()))
            .map_or_else(Finding::Refused, Finding::Judged);
        self.clerk.decide(case, async { finding }).await
    }

    fn asked(&self, images: &[String], namespace: Option<&str>) -> Result<Vec<Vec<Asked>>, String> {
        let one = |image: &String| {
            let reference =
                Reference::parse_normalized(image).map_err(|error| error.to_string())?;
            if self.options.require_digest && reference.digest.is_none() {
                return Err(format!(
                    "{image} is not named by its digest, so another image could run under this name"
                ));
            }
            Ok(vec![Asked {
                reference: reference.or_latest(),
                content: Content::Served,
                namespace: namespace.map(str::to_owned),
            }])
        };
        images.iter().map(one).collect()
    }
}

#[async_trait]
impl Service for Webhooks {
    async fn answer(&self, request: Request<Bytes>) -> Response<Body> {
        let (method, path) = (request.method(), request.uri().path());
        let not_a_review = || {
            plain(
                StatusCode::BAD_REQUEST,
                "this is no review that is known here",
            )
        };
        match (method, path) {
            (&Method::GET, "/healthz") => plain(StatusCode::OK, "ok"),
            (&Method::POST, "/image-policy") => match review::read_image_review(request.body()) {
                Ok(review) => {
                    let answer = self.decide("image-review", review).await;
                    json("application/json", &review::answer_image_review(&answer))
                }
                Err(error) => {
                    tracing::warn!("read an image review: {error}");
                    not_a_review()
                }
            },
            (&Method::POST, "/validate") => match review::read_admission_review(request.body()) {
                Ok(review) => {
                    let uid = review.uid.clone().unwrap_or_default();
                    let answer = self.decide("admission-review", review).await;
                    let answer = review::answer_admission_review(&uid, &answer);
                    json("application/json", &answer)
                }
                Err(error) => {
                    tracing::warn!("read an admission review: {error}");
                    not_a_review()
                }
            },
            (_, "/healthz" | "/image-policy" | "/validate") => {
                plain(StatusCode::METHOD_NOT_ALLOWED, "not with this method")
            }
            _ => plain(StatusCode::NOT_FOUND, "nothing is here"),
        }
    }
}
