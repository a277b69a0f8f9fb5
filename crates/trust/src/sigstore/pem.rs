// SPDX-License-Identifier: Apache-2.0
//! The text form of keys and certificates.
//!
//! # Source
//! RFC 7468. Text outside of the blocks is allowed where a person keeps a file
//! (a bundle of roots), and refused where a signer wrote the text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One block: its label and its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) label: String,
    pub(super) contents: Vec<u8>,
}

/// Whether text may stand between blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Around {
    /// Blank lines only.
    Nothing,
    /// Anything.
    Text,
}

/// Why a text is not PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// It is not UTF-8.
    #[error("the text is not UTF-8")]
    NotText,
    /// There is text outside of the blocks.
    #[error("there is text outside of the PEM blocks")]
    TextAround,
    /// A block has no end, or one with another label.
    #[error("a PEM block has no end of its own")]
    NoEnd,
    /// The lines of a block are not base64.
    #[error("a PEM block is not base64")]
    NotBase64,
    /// More blocks than expected.
    #[error("there are more than {limit} PEM blocks")]
    TooMany {
        /// How many may be.
        limit: usize,
    },
    /// None at all, or not exactly one.
    #[error("the text is not exactly one PEM block")]
    NotOne,
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// Reads all blocks of a text, at most `limit`.
pub(super) fn parse(text: &[u8], around: Around, limit: usize) -> Result<Vec<Block>, PemError> {
    let text = std::str::from_utf8(text).map_err(|_| PemError::NotText)?;
    let mut lines = text.lines().map(str::trim_end);
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        let label = line
            .strip_prefix(BEGIN)
            .and_then(|rest| rest.strip_suffix(DASHES));
        let Some(label) = label else {
            if around == Around::Nothing && !line.is_empty() {
                return Err(PemError::TextAround);
            }
            continue;
        };
        if blocks.len() == limit {
            return Err(PemError::TooMany { limit });
        }
        let mut base64 = String::new();
        loop {
            let line = lines.next().ok_or(PemError::NoEnd)?;
            match line.strip_prefix(END) {
                Some(rest) if rest.strip_suffix(DASHES) == Some(label) => break,
                Some(_) => return Err(PemError::NoEnd),
                None => base64.push_str(line),
            }
        }
        blocks.push(Block {
            label: label.to_owned(),
            contents: STANDARD.decode(base64).map_err(|_| PemError::NotBase64)?,
        });
    }
    Ok(blocks)
}

/// Reads a text that is one block and nothing else.
pub(super) fn parse_one(text: &[u8]) -> Result<Block, PemError> {
    let mut blocks = parse(text, Around::Nothing, 1).map_err(|error| match error {
        PemError::TooMany { .. } => PemError::NotOne,
        other => other,
    })?;
    blocks.pop().ok_or(PemError::NotOne)
}

/// Writes one block, in lines of 64 characters.
pub(super) fn write(label: &str, contents: &[u8]) -> String {
    let base64 = STANDARD.encode(contents);
    let mut text = format!("{BEGIN}{label}{DASHES}\n");
    for line in base64.as_bytes().chunks(64) {
        // Base64 is ASCII.
        text.extend(line.iter().map(|&byte| char::from(byte)));
        text.push('\n');
    }
    text.push_str(&format!("{END}{label}{DASHES}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let contents: Vec<u8> = (0..=200).collect();
        let text = write("SOME THING", &contents);
        assert!(text.lines().all(|line| line.len() <= 64));
        let block = parse_one(text.as_bytes()).unwrap();
        assert_eq!(
            (block.label.as_str(), block.contents),
            ("SOME THING", contents)
        );
    }

    #[test]
    fn text_around_is_for_files_of_people_only() {
        let text = format!("# a root\n{}", write("A", b"x"));
        assert_eq!(parse(text.as_bytes(), Around::Text, 2).unwrap().len(), 1);
        assert_eq!(
            parse(text.as_bytes(), Around::Nothing, 2),
            Err(PemError::TextAround)
        );
    }

    #[test]
    fn what_is_not_one_block_is_refused() {
        let one = write("A", b"x");
        for (text, error) in [
            (String::new(), PemError::NotOne),
            (format!("{one}{one}"), PemError::NotOne),
            (one.replace("END A", "END B"), PemError::NoEnd),
            (one.replace("-----END A-----\n", ""), PemError::NoEnd),
            (one.replace("eA==", "eA="), PemError::NotBase64),
            (
                one.replace("eA==", "Proc-Type: 4,ENCRYPTED"),
                PemError::NotBase64,
            ),
        ] {
            assert_eq!(parse_one(text.as_bytes()), Err(error), "{text}");
        }
        assert_eq!(parse_one(&[0xFF]), Err(PemError::NotText));
    }
}
