// SPDX-License-Identifier: Apache-2.0
//! The table of oci-runtime-tool's flags, as options of the command line.

use clap::{Arg, ArgAction, ArgMatches, Command};
use gantry_runtime::document::flags::{FLAGS, Flag, Given};

/// The flags that were given, in their order.
#[derive(Debug, Clone, Default)]
pub struct DocumentFlags(pub Vec<Given>);

fn argument(flag: &'static Flag) -> Arg {
    let argument = Arg::new(flag.name)
        .long(flag.name)
        .help(flag.help)
        .action(ArgAction::Append);
    match flag.value {
        Some(name) => argument.value_name(name).allow_hyphen_values(true),
        None => argument
            .value_name("BOOL")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(["true", "false"])
            .hide_possible_values(true),
    }
}

impl clap::Args for DocumentFlags {
    fn augment_args(command: Command) -> Command {
        command
            .next_help_heading("Parts of the document, as oci-runtime-tool names them")
            .args(FLAGS.iter().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for DocumentFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for flag in FLAGS {
            let values = matches.get_many::<String>(flag.name).into_iter().flatten();
            let places = matches.indices_of(flag.name).into_iter().flatten();
            given.extend(places.zip(values).map(|(place, value)| {
                let value = value.clone();
                (place, Given { flag, value })
            }));
        }
        given.sort_by_key(|(place, _)| *place);
        Ok(Self(given.into_iter().map(|(_, given)| given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, FromArgMatches as _};

    #[test]
    fn flags_come_in_the_order_of_the_command_line() {
        let command = DocumentFlags::augment_args(Command::new("x"));
        let words = [
            "x",
            "--process-uid",
            "1",
            "--linux-cpu-quota",
            "-1",
            "--rootfs-readonly",
            "--process-terminal=false",
            "--process-uid=2",
        ];
        let matches = command.try_get_matches_from(words).unwrap();
        let flags = DocumentFlags::from_arg_matches(&matches).unwrap();
        let seen: Vec<_> = flags
            .0
            .iter()
            .map(|given| (given.flag.name, given.value.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("process-uid", "1"),
                ("linux-cpu-quota", "-1"),
                ("rootfs-readonly", "true"),
                ("process-terminal", "false"),
                ("process-uid", "2"),
            ]
        );
    }
}
