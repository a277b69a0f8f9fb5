// SPDX-License-Identifier: Apache-2.0
//! `create`, `run` and `plan`.

use gantry_runtime::oci::plan::plan as decide;
use gantry_runtime::oci::run::RunMode;
use gantry_runtime::oci::{Context, CreateOptions, create as make, launch, probe, run as go};

use super::words::Words;
use super::{Answer, Failure, one_id, socket_activation};
use crate::output;

pub(super) fn options(words: &Words) -> Result<CreateOptions, Failure> {
    let bundle = words.get("bundle").unwrap_or(".".as_ref());
    let absolute = |path: &std::ffi::OsStr| {
        std::path::absolute(path).map_err(|error| Failure::Usage(format!("{path:?}: {error}")))
    };
    let (sockets, extra_env) = socket_activation();
    Ok(CreateOptions {
        bundle: absolute(bundle)?,
        config: words.get("config").map(absolute).transpose()?,
        console_socket: words
            .get("console-socket")
            .filter(|path| !path.is_empty())
            .map(Into::into),
        pid_file: words
            .get("pid-file")
            .filter(|path| !path.is_empty())
            .map(Into::into),
        preserve_fds: words.number("preserve-fds")?.unwrap_or(0) + sockets,
        extra_env,
        no_pivot: words.has("no-pivot"),
        no_new_keyring: words.has("no-new-keyring"),
    })
}

/// `create`.
pub(super) fn create(context: &Context<'_>, words: &Words) -> Answer {
    make::create(context, one_id(words)?, &options(words)?)?;
    Ok(0)
}

/// `run`.
pub(super) fn run(context: &Context<'_>, words: &Words) -> Answer {
    Ok(go::run(
        context,
        one_id(words)?,
        &options(words)?,
        mode(words),
    )?)
}

pub(super) fn mode(words: &Words) -> RunMode {
    RunMode {
        detach: words.has("detach"),
        keep: words.has("keep"),
    }
}

/// `plan`.
pub(super) fn plan(context: &Context<'_>, words: &Words) -> Answer {
    let options = options(words)?;
    let path = options
        .config
        .clone()
        .unwrap_or_else(|| options.bundle.join("config.json"));
    let document = launch::read_document(&path)?;
    let facts = probe(document.spec.process().as_ref(), context.rootless)?;
    let plan = decide(&document.spec, &options.bundle, &facts)
        .map_err(gantry_runtime::oci::RuntimeError::from)?;
    let failed = |failure: crate::exit::Failure| Failure::Usage(failure.sentence());
    if words.has("json") {
        output::json(&plan).map_err(failed)?;
    } else {
        for line in plan.lines() {
            output::line(output::escape_controls(&line)).map_err(failed)?;
        }
        for warning in &plan.warnings {
            (context.warn)(warning);
        }
    }
    Ok(0)
}
