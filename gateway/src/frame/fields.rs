//! Reads the fields of a JSON object or of a query, one by one, so that each refusal begins with the field's name.
//! Fields that nobody asks for are ignored. An optional field that is null counts as absent. The checks that do not depend on
//! how a value was written are functions of their own, for binary frames too.

use std::{borrow::Cow, collections::HashSet, ops::RangeInclusive};

use serde_json::{Map, Value};
use service_kit::{fault::Fault, id::UserId};
use uuid::Uuid;

use super::Mentions;

/// Most characters of a name from the client that a refusal repeats.
const ECHOED: usize = 64;
/// Length of a UUID as the contract writes it: hyphenated.
const UUID_LEN: usize = uuid::fmt::Hyphenated::LENGTH;
/// Whatever fits: for texts whose length the contract does not state. The body's own bound holds.
pub const ANY_LENGTH: RangeInclusive<usize> = 0..=usize::MAX;

/// The fields of one object.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// Put before each name in refusals: `settings.`.
    path: &'a str,
    /// From a query string: numbers and flags are written as text.
    query: bool,
}

/// `bad_request`, naming the field.
pub fn refuse(field: &str, problem: impl std::fmt::Display) -> Fault {
    let field: String = field.chars().take(ECHOED).collect();
    Fault::bad_request(format!("{field}: {problem}"))
}

/// The value of a field that has to be there.
///
/// # Errors
/// `bad_request` naming it, when it is not.
pub fn required<T>(field: &str, value: Option<T>) -> Result<T, Fault> {
    value.ok_or_else(|| refuse(field, "is missing"))
}

/// Whether a text has so many characters, and no U+0000.
///
/// # Errors
/// `bad_request` naming the field, when it does not.
pub fn check_text(field: &str, text: &str, length: &RangeInclusive<usize>) -> Result<(), Fault> {
    if text.contains('\0') {
        return Err(refuse(field, "must not hold U+0000"));
    }
    if *length != ANY_LENGTH && !length.contains(&text.chars().count()) {
        let (least, most) = (length.start(), length.end());
        return Err(refuse(field, format_args!("must have {least} to {most} characters")));
    }
    Ok(())
}

/// The number, when it is there and in the range.
///
/// # Errors
/// `bad_request` naming the field, when it is not.
pub fn check_int(field: &str, number: Option<i64>, range: &RangeInclusive<i64>) -> Result<i64, Fault> {
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        let (least, most) = (range.start(), range.end());
        if *most == i64::MAX {
            refuse(field, format_args!("must be an integer of at least {least}"))
        } else {
            refuse(field, format_args!("must be an integer from {least} to {most}"))
        }
    })
}

/// The ids of a list of at most so many items, each once, in the order given. An item that is no id is none.
///
/// # Errors
/// `bad_request` naming the field, when it is too long or something in it is no UUID.
pub fn check_ids<I>(field: &str, items: I, most: usize) -> Result<Vec<Uuid>, Fault>
where
    I: ExactSizeIterator<Item = Option<Uuid>>,
{
    if items.len() > most {
        return Err(refuse(field, format_args!("must hold at most {most}")));
    }
    let mut seen = HashSet::with_capacity(items.len());
    let mut ids = Vec::with_capacity(items.len());
    for (index, id) in items.enumerate() {
        let id = id.ok_or_else(|| refuse(field, format_args!("item {index} is not a UUID")))?;
        if seen.insert(id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// Reads a UUID as the contract writes it, and no other form.
#[must_use]
pub fn read_uuid(text: &str) -> Option<Uuid> {
    (text.len() == UUID_LEN).then(|| Uuid::try_parse(text).ok()).flatten()
}

/// Whether U+0000 is anywhere in a JSON value, its keys included.
pub(super) fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

impl<'a> Fields<'a> {
    /// The fields of a JSON object.
    #[must_use]
    pub fn of(map: &'a Map<String, Value>) -> Self {
        Self { map, path: "", query: false }
    }

    /// The parameters of a query, all of them texts.
    #[must_use]
    pub fn of_query(map: &'a Map<String, Value>) -> Self {
        Self { map, path: "", query: true }
    }

    fn refuse(&self, name: &str, problem: impl std::fmt::Display) -> Fault {
        refuse(&self.field(name), problem)
    }

    /// What a field is called in refusals.
    fn field<'n>(&self, name: &'n str) -> Cow<'n, str> {
        if self.path.is_empty() { Cow::Borrowed(name) } else { Cow::Owned(format!("{}{name}", self.path)) }
    }

    fn found(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, Fault> {
        required(&self.field(name), value)
    }

    /// Whether the field is there and null: in a PATCH, what asks for its removal.
    #[must_use]
    pub fn is_null(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(Value::is_null)
    }

    /// Whether the field is there and not null, whatever it holds.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.found(name).is_some()
    }

    /// An object inside this one. `path` is its name with a dot, for refusals.
    ///
    /// # Errors
    /// `bad_request` when it is something else.
    pub fn opt_object(&self, name: &str, path: &'a str) -> Result<Option<Self>, Fault> {
        match self.found(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self { map, path, query: false })),
            Some(_) => Err(self.refuse(name, "must be an object")),
        }
    }

    /// An object as it is.
    ///
    /// # Errors
    /// `bad_request` when it is something else, or holds U+0000.
    pub fn opt_map(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, Fault> {
        match self.found(name) {
            None => Ok(None),
            Some(value) if holds_nul(value) => Err(self.refuse(name, "must not hold U+0000")),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(self.refuse(name, "must be an object")),
        }
    }

    /// A text of so many characters.
    ///
    /// # Errors
    /// `bad_request` when it is missing, no text, too short or long, or holds U+0000.
    pub fn text(&self, name: &str, length: RangeInclusive<usize>) -> Result<String, Fault> {
        let value = self.opt_text(name, length)?;
        self.required(name, value)
    }

    /// A text of so many characters, or nothing.
    ///
    /// # Errors
    /// As [`Fields::text`], when it is there.
    pub fn opt_text(&self, name: &str, length: RangeInclusive<usize>) -> Result<Option<String>, Fault> {
        let text = match self.found(name) {
            None => return Ok(None),
            Some(Value::String(text)) => text,
            Some(_) => return Err(self.refuse(name, "must be a text")),
        };
        check_text(&self.field(name), text, &length)?;
        Ok(Some(text.clone()))
    }

    /// A UUID.
    ///
    /// # Errors
    /// `bad_request` when it is missing or not one.
    pub fn uuid(&self, name: &str) -> Result<Uuid, Fault> {
        let value = self.opt_uuid(name)?;
        self.required(name, value)
    }

    /// A UUID, or nothing.
    ///
    /// # Errors
    /// `bad_request` when it is not one.
    pub fn opt_uuid(&self, name: &str) -> Result<Option<Uuid>, Fault> {
        let Some(value) = self.found(name) else { return Ok(None) };
        let id = value.as_str().and_then(read_uuid);
        id.map(Some).ok_or_else(|| self.refuse(name, "must be a UUID"))
    }

    /// A list of at most so many UUIDs, each once, in the order given; absent is empty.
    ///
    /// # Errors
    /// `bad_request` when it is no list, too long, or something in it is no UUID.
    pub fn uuids(&self, name: &str, most: usize) -> Result<Vec<Uuid>, Fault> {
        match self.found(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                check_ids(&self.field(name), items.iter().map(|item| item.as_str().and_then(read_uuid)), most)
            }
            Some(_) => Err(self.refuse(name, "must be a list of UUIDs")),
        }
    }

    /// The users that are mentioned, or `all`.
    ///
    /// # Errors
    /// `bad_request` when it is no list, too long, or something in it is neither.
    pub fn mentions(&self, name: &str, most: usize) -> Result<Mentions, Fault> {
        let items = match self.found(name) {
            None => return Ok(Mentions::default()),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(self.refuse(name, "must be a list of users")),
        };
        if items.len() > most {
            return Err(self.refuse(name, format_args!("must hold at most {most}")));
        }
        let mut mentions = Mentions::default();
        for (index, item) in items.iter().enumerate() {
            match item.as_str().map(|text| (text == "all", read_uuid(text).map(UserId))) {
                Some((true, _)) => mentions.all = true,
                Some((_, Some(user))) if mentions.users.contains(&user) => {}
                Some((_, Some(user))) => mentions.users.push(user),
                _ => return Err(self.refuse(name, format_args!("item {index} is neither a UUID nor \"all\""))),
            }
        }
        Ok(mentions)
    }

    /// Users separated by commas, as a query has them.
    ///
    /// # Errors
    /// `bad_request` when it is missing, holds too many, or something in it is no UUID.
    pub fn users_in_query(&self, name: &str, most: usize) -> Result<Vec<UserId>, Fault> {
        let text = self.text(name, ANY_LENGTH)?;
        let mut users = Vec::new();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let user =
                read_uuid(item).map(UserId).ok_or_else(|| self.refuse(name, "must be UUIDs, with commas between"))?;
            if !users.contains(&user) {
                users.push(user);
            }
            if users.len() > most {
                return Err(self.refuse(name, format_args!("must hold at most {most}")));
            }
        }
        Ok(users)
    }

    /// An integer in a range.
    ///
    /// # Errors
    /// `bad_request` when it is missing, no integer, or outside.
    pub fn int(&self, name: &str, range: RangeInclusive<i64>) -> Result<i64, Fault> {
        let value = self.opt_int(name, range)?;
        self.required(name, value)
    }

    /// An integer in a range, or nothing.
    ///
    /// # Errors
    /// `bad_request` when it is no integer, or outside.
    pub fn opt_int(&self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Fault> {
        let Some(value) = self.found(name) else { return Ok(None) };
        let number = if self.query { value.as_str().and_then(|text| text.parse().ok()) } else { value.as_i64() };
        check_int(&self.field(name), number, &range).map(Some)
    }

    /// True or false.
    ///
    /// # Errors
    /// `bad_request` when it is missing or neither.
    pub fn flag(&self, name: &str) -> Result<bool, Fault> {
        let value = self.opt_flag(name)?;
        self.required(name, value)
    }

    /// True, false, or nothing.
    ///
    /// # Errors
    /// `bad_request` when it is neither.
    pub fn opt_flag(&self, name: &str) -> Result<Option<bool>, Fault> {
        let flag = match self.found(name) {
            None => return Ok(None),
            Some(Value::String(text)) if self.query => text.parse().ok(),
            Some(value) => value.as_bool(),
        };
        flag.map(Some).ok_or_else(|| self.refuse(name, "must be true or false"))
    }

    /// One of some words.
    ///
    /// # Errors
    /// `bad_request` when it is missing or none of them.
    pub fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<T, Fault> {
        let value = self.opt_word(name, words)?;
        self.required(name, value)
    }

    /// One of some words, or nothing.
    ///
    /// # Errors
    /// `bad_request` when it is none of them.
    pub fn opt_word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Fault> {
        let Some(value) = self.found(name) else { return Ok(None) };
        let meant = value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
        meant.map(|(_, meaning)| Some(*meaning)).ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.refuse(name, format_args!("must be one of {}", words.join(", ")))
        })
    }
}
