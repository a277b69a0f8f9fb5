// SPDX-License-Identifier: Apache-2.0
//! Lists that registries give page by page.
//!
//! # Source
//! distribution-spec v1.1 "Listing Tags", "Listing Referrers"; RFC 8288 `Link`.

use std::collections::HashSet;

use http::HeaderMap;
use http::header::LINK;
use reqwest::Url;

use super::error::{RegistryError, printable};
use super::redirect;

/// A walk through the pages of one list: always of the same list at the same registry, never in circles, never without
/// end.
#[derive(Debug)]
pub(super) struct Pages {
    what: String,
    path: String,
    current: Url,
    next: Option<Url>,
    seen: HashSet<Url>,
    most: usize,
}

impl Pages {
    /// A walk that begins at `first` and has at most so many pages.
    pub(super) fn new(what: String, first: Url, most: usize) -> Self {
        Self {
            what,
            path: first.path().to_owned(),
            current: first.clone(),
            next: Some(first),
            seen: HashSet::new(),
            most,
        }
    }

    /// The page to fetch now; none after the last.
    ///
    /// # Errors
    /// It was fetched already, or there are too many.
    pub(super) fn turn(&mut self) -> Result<Option<Url>, RegistryError> {
        let Some(url) = self.next.take() else {
            return Ok(None);
        };
        if !self.seen.insert(url.clone()) || self.seen.len() > self.most {
            return Err(self.refuse(url.as_str(), "its pages go round in circles"));
        }
        self.current = url.clone();
        Ok(Some(url))
    }

    /// Reads from the answer to the page which one comes next.
    ///
    /// # Errors
    /// That is none of this list.
    pub(super) fn follow(&mut self, headers: &HeaderMap) -> Result<(), RegistryError> {
        let Some(next) = next_link(headers) else {
            return Ok(());
        };
        let target = redirect::resolve(&self.current, &next);
        let target = target.map_err(|why| self.refuse(&next, why))?;
        if redirect::Origin::of(&target) != redirect::Origin::of(&self.current)
            || target.path() != self.path
        {
            return Err(self.refuse(&next, "the next page is not of the same list"));
        }
        self.next = Some(target);
        Ok(())
    }

    fn refuse(&self, target: &str, why: &'static str) -> RegistryError {
        RegistryError::Redirect {
            what: self.what.clone(),
            target: printable(target),
            why,
        }
    }
}

/// The target of `Link: <…>; rel="next"`.
fn next_link(headers: &HeaderMap) -> Option<String> {
    headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).find_map(|value| {
        let (target, parameters) = value.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|parameter| {
            matches!(parameter.trim().split_once('='), Some((name, rel))
                if name.trim().eq_ignore_ascii_case("rel") && rel.trim().trim_matches('"').eq_ignore_ascii_case("next"))
        });
        is_next.then(|| target.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_page_is_found_among_other_links() {
        let link = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, value.parse().unwrap());
            next_link(&headers)
        };
        assert_eq!(
            link(r#"</v2/a/tags/list?n=2&last=b>; rel="next""#).as_deref(),
            Some("/v2/a/tags/list?n=2&last=b")
        );
        assert_eq!(link("<x>; title=t; REL=next").as_deref(), Some("x"));
        for value in [
            r#"<x>; rel="prev""#,
            "<x>",
            "x; rel=next",
            "<x; rel=next",
            "",
        ] {
            assert_eq!(link(value), None, "{value}");
        }
    }

    #[test]
    fn pages_are_of_one_list_and_end() {
        let start = || Url::parse("http://r.example/v2/a/referrers/d").unwrap();
        let walk = |most, links: &[&str]| -> Result<usize, String> {
            let mut pages = Pages::new("list".into(), start(), most);
            let mut links = links.iter();
            let mut count = 0;
            while pages.turn().map_err(|error| error.to_string())?.is_some() {
                count += 1;
                let mut headers = HeaderMap::new();
                if let Some(link) = links.next() {
                    let link = format!("<{link}>; rel=\"next\"");
                    headers.insert(LINK, link.parse().unwrap());
                }
                pages.follow(&headers).map_err(|error| error.to_string())?;
            }
            Ok(count)
        };
        assert_eq!(walk(9, &[]), Ok(1));
        assert_eq!(walk(9, &["?p=2", "/v2/a/referrers/d?p=3"]), Ok(3));
        for (most, links) in [
            (9, &["?p=2", "?p=2"][..]),
            (9, &["/v2/a/referrers/other"]),
            (9, &["http://other.example/v2/a/referrers/d?p=2"]),
            (9, &["ftp://r.example/"]),
            (2, &["?p=2", "?p=3"]),
        ] {
            assert!(walk(most, links).is_err(), "{links:?}");
        }
    }
}
