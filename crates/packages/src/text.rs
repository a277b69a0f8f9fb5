// SPDX-License-Identifier: Apache-2.0
//! Databases that are paragraphs of lines.

/// The paragraphs of a file: lines between empty lines.
pub(crate) fn paragraphs(bytes: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let mut lines = bytes.split(|byte| *byte == b'\n').peekable();
    std::iter::from_fn(move || {
        while lines.next_if(|line| line.is_empty()).is_some() {}
        let mut paragraph = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.is_empty()) {
            paragraph.push(line);
        }
        (!paragraph.is_empty()).then_some(paragraph)
    })
}

/// The value of the first line `NAME` + `separator`, without the spaces around it.
pub(crate) fn field(paragraph: &[&[u8]], name: &str) -> Option<String> {
    paragraph.iter().find_map(|line| {
        let (key, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        key.eq_ignore_ascii_case(name.as_bytes())
            .then(|| String::from_utf8_lossy(value.trim_ascii()).into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_parted_by_any_number_of_empty_lines() {
        let text = b"\n\na: 1\nb: 2\n\n\n\nc: 3";
        let found: Vec<usize> = paragraphs(text).map(|lines| lines.len()).collect();
        assert_eq!(found, [2, 1]);
    }

    #[test]
    fn fields_have_any_case_and_a_colon() {
        let lines: Vec<&[u8]> = vec![b"Packages: no", b"PACKAGE:  yes "];
        assert_eq!(field(&lines, "Package").as_deref(), Some("yes"));
        assert_eq!(field(&lines, "Version"), None);
    }
}
