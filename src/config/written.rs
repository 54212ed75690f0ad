//! The configuration as written: walks the TOML table key by key, and collects what is wrong instead of stopping.
//!
//! Every key that is asked for is known; what is left over when a section is finished is reported with the
//! closest known key. So there is no list of keys to keep in step with the readers.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::scalar::{Scalar, scalar};
use super::{Origin, Origins, Problem};

/// The variables that override settings begin so.
pub(super) const VARIABLE_PREFIX: &str = "SPILLQ_";

/// Keys whose values are not shown in messages: somebody may have written a secret there.
const SECRETIVE: [&str; 4] = ["headers", ".url", ".password", ".env"];

/// A table of the file, or where one could be.
pub(super) struct Section<'a> {
    /// How its keys are called in messages: `disk`, `group.batch`; empty at the top.
    name: String,
    /// How its keys are called in [`Origins`]: like `name`, with the index of a repeated section.
    path: String,
    /// Of the repeated sections none can be named by a variable.
    repeated: bool,
    table: Option<&'a DeTable<'a>>,
    line: Option<usize>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    fn name_of(&self, key: &str) -> String {
        join(&self.name, key)
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table?.get(key)
    }
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

/// Reads sections and keeps what was found on the way.
pub(super) struct Reader<'a> {
    text: &'a str,
    environment: &'a BTreeMap<String, String>,
    variables: Vec<String>,
    pub(super) problems: Vec<Problem>,
    pub(super) origins: Origins,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, environment: &'a BTreeMap<String, String>) -> Reader<'a> {
        Reader { text, environment, variables: Vec::new(), problems: Vec::new(), origins: Origins::default() }
    }

    /// The section that holds all others.
    pub(super) fn top(&self, table: &'a DeTable<'a>) -> Section<'a> {
        Section {
            name: String::new(),
            path: String::new(),
            repeated: false,
            table: Some(table),
            line: None,
            known: Vec::new(),
        }
    }

    /// The section `[key]`; empty where it is not written.
    pub(super) fn section(&mut self, within: &mut Section<'a>, key: &'static str) -> Section<'a> {
        let written = within.value(key);
        let table = written.and_then(|value| value.get_ref().as_table());
        if let (Some(value), None) = (written, table) {
            self.wrong(within.name_of(key), value, format!("expected a section; write it as [{key}]"));
        }
        Section {
            name: within.name_of(key),
            path: within.path_of(key),
            repeated: within.repeated,
            table,
            line: written.map(|value| self.line_of(value)),
            known: Vec::new(),
        }
    }

    /// The sections `[[key]]`, in the order of the file; `None` where there is none.
    pub(super) fn sections(
        &mut self,
        within: &mut Section<'a>,
        key: &'static str,
        most: usize,
    ) -> Option<Vec<Section<'a>>> {
        let written = within.value(key)?;
        let expected = format!("expected repeated sections; write it as [[{key}]]");
        let Some(array) = written.get_ref().as_array() else {
            self.wrong(key.to_owned(), written, expected);
            return None;
        };
        if array.len() > most {
            self.problems.push(Problem {
                line: array.get(most).map(|value| self.line_of(value)),
                key: format!("[[{key}]]"),
                value: Some(format!("{} sections", array.len())),
                expected: format!("at most {most}"),
            });
        }
        let mut sections = Vec::new();
        for (index, value) in array.iter().take(most).enumerate() {
            let Some(table) = value.get_ref().as_table() else {
                self.wrong(key.to_owned(), value, expected.clone());
                continue;
            };
            let path = format!("{key}[{index}]");
            let line = self.line_of(value);
            self.origins.set(path.clone(), Origin::File(line));
            sections.push(Section {
                name: key.to_owned(),
                path,
                repeated: true,
                table: Some(table),
                line: Some(line),
                known: Vec::new(),
            });
        }
        Some(sections)
    }

    /// Reads `key` into `into`, where it is written and `read` takes it. Where `read` does not, it says what it
    /// expects. A variable wins over the file; both are checked. Whether it was written at all is the answer.
    pub(super) fn get<T>(
        &mut self,
        section: &mut Section<'a>,
        key: &'static str,
        into: &mut T,
        read: impl Fn(&Scalar<'_>) -> Result<T, String>,
    ) -> bool {
        let written = section.value(key);
        if let Some(value) = written {
            match read(&scalar(value.get_ref())) {
                Ok(read) => *into = read,
                Err(expected) => self.wrong(section.name_of(key), value, expected),
            }
            let origin = Origin::File(self.line_of(value));
            self.origins.set(section.path_of(key), origin);
        }
        if section.repeated {
            return written.is_some();
        }
        let variable = variable_of(&section.path_of(key));
        let environment = self.environment;
        let set = environment.get(&variable).filter(|text| !text.is_empty());
        if let Some(text) = set {
            match read(&Scalar::Variable(text)) {
                Ok(read) => *into = read,
                Err(expected) => self.problems.push(Problem {
                    line: None,
                    key: variable.clone(),
                    value: Some(format!("{text:?}")),
                    expected,
                }),
            }
            self.origins.set(section.path_of(key), Origin::Environment(variable.clone()));
        }
        self.variables.push(variable);
        written.is_some() || set.is_some()
    }

    /// Reads a list of texts: what `read` does not take is reported by itself.
    pub(super) fn list<T>(
        &mut self,
        section: &mut Section<'a>,
        key: &'static str,
        into: &mut Vec<T>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> bool {
        let Some(value) = section.value(key) else {
            return false;
        };
        let origin = Origin::File(self.line_of(value));
        self.origins.set(section.path_of(key), origin);
        let Some(array) = value.get_ref().as_array() else {
            self.wrong(section.name_of(key), value, format!("not a list; write it as {key} = [\"...\"]"));
            return true;
        };
        into.clear();
        for item in array.iter() {
            let text = item.get_ref().as_str().ok_or_else(|| "not a text".to_owned());
            match text.and_then(&read) {
                Ok(read) => into.push(read),
                Err(expected) => self.wrong(section.name_of(key), item, expected),
            }
        }
        true
    }

    /// Reads a table of texts, each with a name of the writer's choice: what `check` refuses is reported by itself.
    pub(super) fn texts(
        &mut self,
        section: &mut Section<'a>,
        key: &'static str,
        into: &mut BTreeMap<String, String>,
        check: impl Fn(&str, &str) -> Result<(), String>,
    ) {
        let Some(value) = section.value(key) else { return };
        let origin = Origin::File(self.line_of(value));
        self.origins.set(section.path_of(key), origin);
        let Some(table) = value.get_ref().as_table() else {
            let expected = format!("not a table; write it as {key} = {{ NAME = \"value\" }}");
            return self.wrong(section.name_of(key), value, expected);
        };
        for (name, value) in table.iter() {
            let name: &str = name.get_ref();
            let text = value.get_ref().as_str();
            let text = text.ok_or_else(|| format!("{name:?} is not a text; write it in quotes"));
            match text.and_then(|text| check(name, text).map(|()| text)) {
                Ok(text) => drop(into.insert(name.to_owned(), text.to_owned())),
                Err(expected) => self.wrong(section.name_of(key), value, expected),
            }
        }
    }

    /// Reports what `section` lacks.
    pub(super) fn missing(&mut self, section: &Section<'_>, key: &str, expected: impl Into<String>) {
        self.problems.push(Problem {
            line: section.line,
            key: section.name_of(key),
            value: None,
            expected: expected.into(),
        });
    }

    /// Reports a key that does not belong there, where it is written.
    pub(super) fn refuse(&mut self, section: &mut Section<'a>, key: &'static str, why: &str) {
        if let Some(value) = section.value(key) {
            self.wrong(section.name_of(key), value, why.to_owned());
        }
    }

    /// Takes a key for known without looking at it.
    pub(super) fn ignore(&mut self, section: &mut Section<'a>, key: &'static str) {
        section.known.push(key);
    }

    /// Reports the keys of `section` that nobody asked for.
    pub(super) fn finish(&mut self, section: Section<'a>) {
        for (key, value) in section.table.into_iter().flat_map(|table| table.iter()) {
            let name: &str = key.get_ref();
            if section.known.contains(&name) {
                continue;
            }
            let close = closest(name, section.known.iter().copied());
            self.problems.push(Problem {
                line: Some(self.line_at(key.span().start)),
                // As it stands there: one that is empty, or has blanks, has its quotes.
                key: section.name_of(self.text.get(key.span()).unwrap_or(name)),
                value: self.written(value),
                expected: match close {
                    Some(close) => format!("unknown key; did you mean {close:?}?"),
                    None => format!("unknown key; known here: {}", section.known.join(", ")),
                },
            });
        }
    }

    /// Variables that look like a setting misspelt. Others with the prefix are left alone: container hosts and
    /// the service itself, for its commands, set some.
    pub(super) fn suspicious_variables(&self) -> Vec<String> {
        let known = |name: &String| self.variables.contains(name);
        self.environment
            .keys()
            .filter(|name| !known(name))
            .filter_map(|name| {
                let close = closest(name, self.variables.iter().map(String::as_str))?;
                Some(format!("the variable {name} is not a setting and was ignored; did you mean {close}?"))
            })
            .collect()
    }

    fn wrong(&mut self, key: String, value: &Spanned<DeValue<'_>>, expected: String) {
        let may_show = !SECRETIVE.iter().any(|end| key.ends_with(end));
        let value_shown = if may_show { self.written(value) } else { None };
        self.problems.push(Problem { line: Some(self.line_of(value)), key, value: value_shown, expected });
    }

    /// The value as it stands in the file, if that is short, and no URL, which may hold a secret.
    fn written(&self, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = self.text.get(value.span())?;
        let is_shown =
            text.len() <= 80 && !text.contains('\n') && !text.starts_with('[') && !text.contains("://");
        is_shown.then(|| text.to_owned())
    }

    fn line_of(&self, value: &Spanned<DeValue<'_>>) -> usize {
        self.line_at(value.span().start)
    }

    fn line_at(&self, at: usize) -> usize {
        line_and_column(self.text, at).0
    }
}

/// Where byte `at` is, both counted from 1; columns in characters.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count();
    (before.matches('\n').count() + 1, column + 1)
}

fn variable_of(path: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", path.replace('.', "_").to_uppercase())
}

/// The candidate that differs from `name` by few letters, or only by what is before or behind it.
fn closest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let most = (name.len() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters to change, add or remove (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, candidate) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *candidate);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}
