// SPDX-License-Identifier: Apache-2.0
//! One file for each verb, in a folder for each noun.

pub mod container;
pub mod image;
pub mod mounts;
pub mod registry;
pub mod runtime;
pub mod signature;
pub mod store;
pub mod system;
pub mod trust;

use crate::args::Command;
use crate::context::Context;
use crate::exit::Outcome;

/// Calls the verb.
pub fn dispatch(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Completion(verb) => verb.run(),
        Command::Man(verb) => verb.run(),
        Command::Copy(verb) => verb.run(context),
        Command::Delete(verb) => verb.run(),
        Command::Diff(verb) => verb.run(context),
        Command::Generate(verb) => verb.run(context),
        Command::History(verb) => verb.run(context),
        Command::Images(verb) => verb.run(context),
        Command::Info(verb) => verb.run(context),
        Command::Inspect(verb) => verb.run(context),
        Command::ListTags(verb) => verb.run(),
        Command::Pull(verb) => verb.run(context),
        Command::Push(verb) => verb.run(context),
        Command::Registry(command) => command.run(context),
        Command::Rmi(verb) => verb.run(context),
        Command::Runtime(verb) => verb.run(),
        Command::Sign(verb) => verb.run(context),
        Command::Verify(verb) => verb.run(context),
        Command::StandaloneSign(verb) => verb.run(),
        Command::StandaloneVerify(verb) => verb.run(),
        Command::ManifestDigest(verb) => verb.run(),
        Command::GenerateSigstoreKey(verb) => verb.run(),
        Command::Store(command) => command.run(context),
        Command::Tag(verb) => verb.run(context),
        Command::Mount(verb) => verb.run(context),
        Command::Unmount(verb) => verb.run(context),
        Command::Run(verb) => verb.run(context),
        Command::Exec(verb) => verb.run(context),
        Command::Ps(verb) => verb.run(context),
        Command::Rm(verb) => verb.run(context),
        Command::Stop(verb) => verb.run(context),
        Command::Kill(verb) => verb.run(context),
        Command::Wait(verb) => verb.run(context),
        Command::Logs(verb) => verb.run(context),
        Command::Trust(command) => command.run(context),
        Command::Validate(verb) => verb.run(),
        Command::Version(verb) => verb.run(),
    }
}
