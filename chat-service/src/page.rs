//! Pages of lists: how many items, after which one, and how the next page is asked for.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use parlance_proto::chat;
use service_kit::fault::Fault;

use crate::error::Result;

/// Items of a page when the caller does not say.
const DEFAULT: i64 = 50;
/// Most items of a page.
const MOST: i64 = 200;
/// Longest cursor that is looked at, in characters. Ours stay far below.
const LONGEST: usize = 1024;

/// Which part of a list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// How many items, 1 to 200.
    pub(crate) limit: i64,
    /// The text given to [`cursor`] for the last item of the page before; none for the first page.
    pub(crate) after: Option<String>,
}

impl Page {
    /// Reads the page of a call; absent or 0 stands for the default.
    ///
    /// # Errors
    /// `bad_request` naming `limit` when it is not 1 to 200, or `cursor` when it is not one that [`cursor`] has made.
    pub(crate) fn from_wire(page: Option<chat::Page>) -> Result<Self> {
        let page = page.unwrap_or_default();
        let limit = match page.limit {
            0 => DEFAULT,
            limit @ 1..=MOST => limit,
            _ => return Err(Fault::bad_request(format!("limit: must be 1 to {MOST}")).into()),
        };
        let after = if page.cursor.is_empty() { None } else { Some(decode(&page.cursor).ok_or_else(not_a_cursor)?) };
        Ok(Self { limit, after })
    }

    /// What the page comes after, as a `T`: an id, for most lists.
    ///
    /// # Errors
    /// `bad_request` naming `cursor` when it belongs to another kind of list.
    pub(crate) fn after<T: std::str::FromStr>(&self) -> Result<Option<T>> {
        let parse = |text: &String| text.parse().map_err(|_| not_a_cursor().into());
        self.after.as_ref().map(parse).transpose()
    }

    /// Cuts rows, of which one more than `limit` was read, to the page, and makes the cursor for the next one from the
    /// last row; none at the end of the list.
    pub(crate) fn cut<T>(&self, rows: &mut Vec<T>, text: impl FnOnce(&T) -> String) -> Option<String> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        if rows.len() <= limit {
            return None;
        }
        rows.truncate(limit);
        rows.last().map(|row| cursor(&text(row)))
    }
}

/// The opaque cursor that stands for a short text, which must not hold U+0000.
pub(crate) fn cursor(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn decode(cursor: &str) -> Option<String> {
    if cursor.len() > LONGEST {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    // PostgreSQL takes no U+0000 in a text; none of our cursors holds one.
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty() && !text.contains('\0'))
}

/// What a call is told whose cursor was not made by the list that it asks for.
pub(crate) fn not_a_cursor() -> Fault {
    Fault::bad_request("cursor: is not one that this list has given")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(limit: i64, cursor: &str) -> Result<Page> {
        Page::from_wire(Some(chat::Page { limit, cursor: cursor.to_owned() }))
    }

    #[test]
    fn a_cursor_gives_back_its_text() {
        let read = page(7, &cursor("maja@1|x")).unwrap();
        assert_eq!(read, Page { limit: 7, after: Some("maja@1|x".to_owned()) });
        assert_eq!(Page::from_wire(None).unwrap(), Page { limit: DEFAULT, after: None });
        assert_eq!(page(0, "").unwrap().limit, DEFAULT);
        assert_eq!(page(MOST, "").unwrap().limit, MOST);
    }

    #[test]
    fn what_is_not_a_page_is_refused_by_its_field() {
        for (limit, text, field) in [
            (MOST + 1, String::new(), "limit"),
            (-1, String::new(), "limit"),
            (1, "no cursor!".to_owned(), "cursor"),
            (1, cursor("a\0b"), "cursor"),
            (1, URL_SAFE_NO_PAD.encode([0xff, 0xfe]), "cursor"),
            (1, "A".repeat(LONGEST + 4), "cursor"),
        ] {
            let error = page(limit, &text).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
        assert!(page(1, &cursor("not a number")).unwrap().after::<i64>().is_err());
        assert_eq!(page(1, &cursor("41")).unwrap().after::<i64>().unwrap(), Some(41));
    }

    #[test]
    fn a_page_is_cut_only_when_there_is_more() {
        let page = Page { limit: 2, after: None };
        let mut rows = vec![1, 2];
        assert_eq!(page.cut(&mut rows, i32::to_string), None);
        rows.push(3);
        assert_eq!(page.cut(&mut rows, i32::to_string), Some(cursor("2")));
        assert_eq!(rows, [1, 2]);
    }
}
