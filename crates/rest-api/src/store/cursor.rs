//! Where a page of a listing ended, as opaque text: base64url of version, listing, and the last row's place.

use super::{Result, StoreError};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::page::Page;
use uuid::Uuid;

const VERSION: u8 = 1;

/// What a cursor continues. A cursor of one listing is refused by the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Listing {
    Contexts = 1,
    Items = 2,
    ItemsBackwards = 3,
    Keys = 4,
    Tools = 5,
    Executions = 6,
    Schedules = 7,
    Incidents = 8,
    Upstreams = 9,
    Audit = 10,
}

/// A row's place in a listing that is ordered by a number (a time, a sequence) and an identifier.
pub(crate) type Place = (i64, Uuid);

/// Before the first row of a listing that runs from the newest to the oldest.
pub(crate) const NEWEST: Place = (i64::MAX, Uuid::max());

impl Listing {
    /// The cursor that continues after `place`.
    pub(crate) fn after(self, place: Place) -> String {
        let mut bytes = place.0.to_be_bytes().to_vec();
        bytes.extend(place.1.as_bytes());
        self.encode(&bytes)
    }

    /// The place that `cursor` continues after; `start` without one.
    pub(crate) fn place(self, cursor: Option<&str>, start: Place) -> Result<Place> {
        let Some(cursor) = cursor else { return Ok(start) };
        let bytes = self.decode(cursor)?;
        let (key, id) = bytes.split_first_chunk::<8>().ok_or(StoreError::BadCursor)?;
        let id = Uuid::from_slice(id).map_err(|_| StoreError::BadCursor)?;
        Ok((i64::from_be_bytes(*key), id))
    }

    /// The cursor that continues after `name`.
    pub(crate) fn after_name(self, name: &str) -> String {
        self.encode(name.as_bytes())
    }

    /// The name that `cursor` continues after; the empty one, which comes first, without one.
    pub(crate) fn name(self, cursor: Option<&str>) -> Result<String> {
        let Some(cursor) = cursor else {
            return Ok(String::new());
        };
        let name = String::from_utf8(self.decode(cursor)?).map_err(|_| StoreError::BadCursor)?;
        if name.contains('\0') {
            Err(StoreError::BadCursor)
        } else {
            Ok(name)
        }
    }

    fn encode(self, place: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode([&[VERSION, self as u8], place].concat())
    }

    fn decode(self, cursor: &str) -> Result<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD
            .decode(cursor)
            .map_err(|_| StoreError::BadCursor)?;
        let place = bytes
            .strip_prefix(&[VERSION, self as u8])
            .ok_or(StoreError::BadCursor)?;
        Ok(place.to_vec())
    }
}

/// The page of `limit` rows, where one row more was asked for to learn whether there is a next page.
pub(crate) fn page<T>(mut rows: Vec<T>, limit: u32, cursor: impl FnOnce(&T) -> String) -> Page<T> {
    let limit = limit as usize;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(cursor);
    Page {
        items: rows,
        next_cursor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_understood_by_its_own_listing_alone() {
        let place = (-5, Uuid::now_v7());
        let cursor = Listing::Contexts.after(place);
        assert_eq!(Listing::Contexts.place(Some(&cursor), NEWEST).unwrap(), place);
        assert_eq!(Listing::Contexts.place(None, NEWEST).unwrap(), NEWEST);
        let named = Listing::Tools.after_name("deploy");
        assert_eq!(Listing::Tools.name(Some(&named)).unwrap(), "deploy");
        for bad in [
            "",
            "AQ",
            "not base64!",
            &named,
            &cursor[..8],
            &Listing::Items.after(place),
        ] {
            assert!(
                matches!(
                    Listing::Contexts.place(Some(bad), NEWEST),
                    Err(StoreError::BadCursor)
                ),
                "{bad}"
            );
        }
    }
}
