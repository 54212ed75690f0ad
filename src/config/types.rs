//! The types of settings: how a value is read, printed and described. Where a type refuses a value, it says what it
//! expects.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;
use toml::{Spanned, Value};

use super::paths;
use super::value::{duration_text, parse_duration, parse_size, size_text};

/// The highest bound: TOML has no larger integers.
pub(super) const UNBOUNDED: u64 = i64::MAX as u64;

/// A type of settings whose values are `V` in the program.
pub(super) struct Type<V> {
    /// For the documentation: `size, 1MiB to 1GiB`.
    pub(super) about: String,
    /// Whether it is one value, so that a variable can hold it; otherwise a list or a table.
    pub(super) is_scalar: bool,
    /// The value, where it can be used. What is wrong with it is added to the list.
    pub(super) read: Read<V>,
    /// The value as it is written; `None` where it is not set.
    pub(super) print: Print<V>,
}

type Read<V> = Box<dyn Fn(&Written<'_>, &mut Vec<Wrong>) -> Option<V>>;
type Print<V> = Box<dyn Fn(&V) -> Option<Value>>;

/// A value as written, its key, and the folder that relative paths in it start from.
pub(super) struct Written<'w> {
    pub(super) key: &'static str,
    pub(super) value: Raw<'w>,
    pub(super) base: &'w Path,
}

/// Where a value is written.
pub(super) enum Raw<'w> {
    File(&'w Spanned<DeValue<'w>>),
    /// In the environment, where everything is text.
    Variable(&'w str),
}

/// Why a value is refused.
pub(super) struct Wrong {
    /// Which bytes of the file, when it is not the whole value.
    pub(super) at: Option<Range<usize>>,
    pub(super) expected: String,
}

impl<V: 'static> Type<V> {
    /// A type of one value.
    fn scalar(
        about: impl Into<String>,
        read: impl Fn(&Written<'_>) -> Result<V, String> + 'static,
        print: impl Fn(&V) -> Value + 'static,
    ) -> Type<V> {
        Type {
            about: about.into(),
            is_scalar: true,
            read: Box::new(move |written, wrong| {
                read(written).map_err(|expected| wrong.push(Wrong { at: None, expected })).ok()
            }),
            print: Box::new(move |value| Some(print(value))),
        }
    }

    /// The same type for a setting that need not be set and has no default.
    pub(super) fn optional(self) -> Type<Option<V>> {
        let Type { about, is_scalar, read, print } = self;
        Type {
            about,
            is_scalar,
            read: Box::new(move |written, wrong| read(written, wrong).map(Some)),
            print: Box::new(move |value| value.as_ref().and_then(&print)),
        }
    }

    /// The same type for a setting that is stored in another form.
    pub(super) fn map<W: 'static>(self, to: fn(V) -> W, from: fn(&W) -> V) -> Type<W> {
        let Type { about, is_scalar, read, print } = self;
        Type {
            about,
            is_scalar,
            read: Box::new(move |written, wrong| read(written, wrong).map(to)),
            print: Box::new(move |value| print(&from(value))),
        }
    }

    /// The same type with one check more, of a value without another fault.
    pub(super) fn checked(self, check: impl Fn(V, &Path) -> Result<V, String> + 'static) -> Type<V> {
        let read = self.read;
        let checked = move |written: &Written<'_>, wrong: &mut Vec<Wrong>| {
            let before = wrong.len();
            let value = read(written, wrong)?;
            if wrong.len() > before {
                return Some(value);
            }
            check(value, written.base).map_err(|expected| wrong.push(Wrong { at: None, expected })).ok()
        };
        Type { read: Box::new(checked), ..self }
    }
}

impl Written<'_> {
    fn text(&self) -> Option<&str> {
        match self.value {
            Raw::File(value) => value.get_ref().as_str(),
            Raw::Variable(text) => Some(text),
        }
    }

    fn integer(&self) -> Option<u64> {
        match self.value {
            Raw::File(value) => match value.get_ref() {
                DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
                _ => None,
            },
            Raw::Variable(text) => text.trim().parse().ok(),
        }
    }

    fn boolean(&self) -> Option<bool> {
        match self.value {
            Raw::File(value) => value.get_ref().as_bool(),
            Raw::Variable(text) => text.parse().ok(),
        }
    }
}

/// `true` or `false`.
pub(super) fn boolean() -> Type<bool> {
    let read =
        |written: &Written<'_>| written.boolean().ok_or("expected true or false, without quotes".to_owned());
    Type::scalar("`true` or `false`", read, |value| Value::from(*value))
}

/// A size in bytes.
pub(super) fn size(bounds: RangeInclusive<u64>) -> Type<u64> {
    let about = about("size", &bounds, &(0..=UNBOUNDED), |bytes| size_text(*bytes));
    let read = move |written: &Written<'_>| {
        let bytes = match written.value {
            Raw::File(_) => written.integer().or_else(|| written.text().and_then(parse_size)),
            Raw::Variable(text) => parse_size(text),
        };
        let bytes = bytes.ok_or("not a size; write it as \"50GiB\"")?;
        within(bytes, &bounds, |bytes| format!("{:?}", size_text(*bytes)))
    };
    Type::scalar(about, read, |bytes| Value::from(size_text(*bytes)))
}

/// A duration.
pub(super) fn duration(bounds: RangeInclusive<Duration>) -> Type<Duration> {
    let about = about("duration", &bounds, &(Duration::ZERO..=Duration::MAX), |value| duration_text(*value));
    let read = move |written: &Written<'_>| {
        let value = written.text().and_then(parse_duration);
        let value = value.ok_or("not a duration; write it as \"30s\", \"200ms\" or \"1h 30m\"")?;
        within(value, &bounds, |value| format!("{:?}", duration_text(*value)))
    };
    Type::scalar(about, read, |value| Value::from(duration_text(*value)))
}

/// A whole number. `bounds` must fit into `N`.
pub(super) fn number<N: Copy + TryFrom<u64> + TryInto<i64> + 'static>(
    bounds: RangeInclusive<u64>,
) -> Type<N> {
    let about = about("number", &bounds, &(0..=UNBOUNDED), u64::to_string);
    let read = move |written: &Written<'_>| {
        let expected = || format!("not a number from {} to {}, without quotes", bounds.start(), bounds.end());
        let number = written.integer().ok_or_else(expected)?;
        within(number, &bounds, u64::to_string)?.try_into().map_err(|_| expected())
    };
    Type::scalar(about, read, |number: &N| Value::from((*number).try_into().unwrap_or(i64::MAX)))
}

/// One of these words.
pub(super) fn one_of<V: Copy + PartialEq + 'static>(words: &'static [(&'static str, V)]) -> Type<V> {
    let all = quoted(words.iter().map(|(word, _)| *word));
    let about = all.clone();
    let read = move |written: &Written<'_>| {
        let text = written.text().unwrap_or_default();
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| format!("expected {all}"))
    };
    Type::scalar(about, read, move |value| {
        Value::from(words.iter().find(|(_, other)| other == value).map_or("", |(word, _)| *word))
    })
}

/// `"a", "b" or "c"`.
pub(super) fn quoted<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let mut words: Vec<String> = words.map(|word| format!("{word:?}")).collect();
    let last = words.pop().unwrap_or_default();
    if words.is_empty() { last } else { format!("{} or {last}", words.join(", ")) }
}

/// A text, which may be empty.
pub(super) fn any_text<V: 'static>(
    about: impl Into<String>,
    read: impl Fn(&str, &Path) -> Result<V, String> + 'static,
    print: impl Fn(&V) -> String + 'static,
) -> Type<V> {
    let read = move |written: &Written<'_>| {
        read(written.text().ok_or("not a text; write it in quotes")?, written.base)
    };
    Type::scalar(about, read, move |value| Value::from(print(value)))
}

/// A text that is not empty.
pub(super) fn text<V: 'static>(
    about: impl Into<String>,
    read: impl Fn(&str, &Path) -> Result<V, String> + 'static,
    print: impl Fn(&V) -> String + 'static,
) -> Type<V> {
    let read = move |text: &str, base: &Path| match text {
        "" => Err("is empty".to_owned()),
        text => read(text, base),
    };
    any_text(about, read, print)
}

/// A path. Relative ones start from the folder of the file, in a variable from the working directory.
pub(super) fn path() -> Type<PathBuf> {
    text(
        "path",
        |text, base| paths::path(base, text),
        |path| match path.to_string_lossy() {
            own if own.is_empty() => ".".to_owned(),
            shown => shown.into_owned(),
        },
    )
}

/// A list of texts. `what` names its items; of more than `most` all are refused.
pub(super) fn list<T: 'static>(
    what: &'static str,
    most: usize,
    read: impl Fn(&str, &Path) -> Result<T, String> + 'static,
    print: impl Fn(&T) -> String + 'static,
) -> Type<Vec<T>> {
    let read = move |written: &Written<'_>, wrong: &mut Vec<Wrong>| {
        let items = match written.value {
            Raw::File(value) => value.get_ref().as_array(),
            Raw::Variable(_) => None,
        };
        let Some(items) = items else {
            wrong.push(Wrong {
                at: None,
                expected: format!("not a list; write it as {} = [\"...\"]", written.key),
            });
            return None;
        };
        let mut values = Vec::new();
        for item in items.iter() {
            let text = item.get_ref().as_str().ok_or_else(|| "not a text".to_owned());
            match text.and_then(|text| read(text, written.base)) {
                Ok(value) => values.push(value),
                Err(expected) => wrong.push(Wrong { at: Some(item.span()), expected }),
            }
        }
        too_many(items.len(), what, most, wrong);
        Some(values)
    };
    Type {
        about: format!("list of {what}{}", at_most(most)),
        is_scalar: false,
        read: Box::new(read),
        print: Box::new(move |values| {
            Some(Value::Array(values.iter().map(|v| Value::from(print(v))).collect()))
        }),
    }
}

/// A table of texts with names of the writer's choice. It is printed as the list of names, without the values: read
/// back it is refused, instead of running without the values.
pub(super) fn named_texts(
    what: &'static str,
    most: usize,
    check: fn(&str, &str) -> Result<(), String>,
) -> Type<BTreeMap<String, String>> {
    let read = move |written: &Written<'_>, wrong: &mut Vec<Wrong>| {
        let table = match written.value {
            Raw::File(value) => value.get_ref().as_table(),
            Raw::Variable(_) => None,
        };
        let Some(table) = table else {
            let expected = format!("not a table; write it as {} = {{ NAME = \"value\" }}", written.key);
            wrong.push(Wrong { at: None, expected });
            return None;
        };
        let mut values = BTreeMap::new();
        for (name, value) in table.iter() {
            let name: &str = name.get_ref();
            let text =
                value.get_ref().as_str().ok_or_else(|| format!("{name:?} is not a text; write it in quotes"));
            match text.and_then(|text| check(name, text).map(|()| text)) {
                Ok(text) => drop(values.insert(name.to_owned(), text.to_owned())),
                Err(expected) => wrong.push(Wrong { at: Some(value.span()), expected }),
            }
        }
        too_many(table.len(), what, most, wrong);
        Some(values)
    };
    let print = |values: &BTreeMap<String, String>| {
        let names = values.keys().map(|name| Value::from(name.as_str()));
        (!values.is_empty()).then(|| Value::Array(names.collect()))
    };
    let about = format!("table of {what}{}", at_most(most));
    Type { about, is_scalar: false, read: Box::new(read), print: Box::new(print) }
}

fn too_many(count: usize, what: &str, most: usize, wrong: &mut Vec<Wrong>) {
    if count > most {
        wrong.push(Wrong { at: None, expected: format!("{count} {what}, at most {most}") });
    }
}

fn at_most(most: usize) -> String {
    if most == usize::MAX { String::new() } else { format!(", at most {most}") }
}

fn within<T: PartialOrd>(
    value: T,
    bounds: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Result<T, String> {
    if value < *bounds.start() {
        Err(format!("too small; at least {}", show(bounds.start())))
    } else if value > *bounds.end() {
        Err(format!("too large; at most {}", show(bounds.end())))
    } else {
        Ok(value)
    }
}

/// The name of a type with its bounds, as far as they are narrower than `all`.
fn about<T: PartialEq>(
    name: &str,
    bounds: &RangeInclusive<T>,
    all: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> String {
    let (low, high) = (show(bounds.start()), show(bounds.end()));
    match (bounds.start() == all.start(), bounds.end() == all.end()) {
        (true, true) => name.to_owned(),
        (false, true) => format!("{name}, at least {low}"),
        (true, false) => format!("{name}, at most {high}"),
        (false, false) => format!("{name}, {low} to {high}"),
    }
}
