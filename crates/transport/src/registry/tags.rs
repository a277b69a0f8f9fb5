// SPDX-License-Identifier: Apache-2.0
//! The tags of a repository, page by page.

use http::{Method, StatusCode};
use serde::Deserialize;

use super::client::{Repository, Request};
use super::error::RegistryError;
use super::pages::Pages;

/// One page's body.
const PAGE_BYTES: u64 = 8 << 20;
/// Tags in all; a list that is longer is of no use to anybody.
const MOST_TAGS: usize = 1_000_000;
/// Pages in all.
const MOST_PAGES: usize = 10_000;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Repository {
    /// Lists all tags, in the registry's order.
    ///
    /// # Errors
    /// [`RegistryError`]; its kind is `NotFound` if there is no such
    /// repository, `Unsafe` for a list without end.
    pub async fn tags(&self) -> Result<Vec<String>, RegistryError> {
        let what = format!("list tags of {}", self.full_name());
        let url = self.url("tags/list").await?;
        let mut pages = Pages::new(what.clone(), url, MOST_PAGES);
        let mut tags = Vec::new();
        while let Some(url) = pages.turn()? {
            let request = Request::new(what.clone(), Method::GET, url, self.scope("pull"));
            let response = self.registry.send(&request).await?;
            if response.status() != StatusCode::OK {
                return Err(self.registry.status_error(response, &what).await);
            }
            pages.follow(response.headers())?;
            let body = self
                .registry
                .read_small(response, PAGE_BYTES, &what)
                .await?;
            let page: Page =
                serde_json::from_slice(&body).map_err(|error| RegistryError::Malformed {
                    what: what.clone(),
                    why: format!("the answer is not a tag list ({error})"),
                })?;
            tags.extend(page.tags.unwrap_or_default());
            if tags.len() > MOST_TAGS {
                return Err(RegistryError::TooLarge {
                    what,
                    limit_bytes: PAGE_BYTES,
                });
            }
        }
        Ok(tags)
    }
}

/// Seconds since some fixed day of an HTTP date (`Sun, 06 Nov 1994 08:49:37
/// GMT`); differences between two are what it is for.
pub(crate) fn http_date_seconds(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words[..] else {
        return None;
    };
    let number = |text: &str| text.parse::<u64>().ok();
    let month = u64::try_from(MONTHS.iter().position(|name| *name == month)?).ok()? + 1;
    let (day, year) = (
        number(day).filter(|day| (1..=31).contains(day))?,
        number(year).filter(|y| (1900..=9999).contains(y))?,
    );
    let mut clock = time.split(':').map(number);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if clock.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1 March of year 0, months counted from March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_differ_by_seconds() {
        let of = |text| http_date_seconds(text).unwrap();
        let day = 24 * 3600;
        assert_eq!(
            of("Tue, 01 Mar 2016 00:00:00 GMT") - of("Sun, 28 Feb 2016 00:00:00 GMT"),
            2 * day
        );
        assert_eq!(
            of("Sat, 01 Jan 2000 00:00:00 GMT") - of("Fri, 31 Dec 1999 23:59:59 GMT"),
            1
        );
        assert_eq!(
            of("Thu, 01 Jan 1970 00:00:00 GMT") - of("Wed, 01 Jan 1969 00:00:00 GMT"),
            365 * day
        );
        for garbage in [
            "",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 99 Nov 1994 08:49:37 GMT",
            "a b c d e GMT",
        ] {
            assert_eq!(http_date_seconds(garbage), None);
        }
    }
}
