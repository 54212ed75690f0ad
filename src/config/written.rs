//! The configuration as written: walks the TOML table key by key, and collects what is wrong instead of stopping.
//!
//! Every key that is asked for is known; what is left when a section is finished is reported with the closest known key.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::key::Key;
use super::problem::Problem;
use super::settings::SECTIONS_MAX;
use super::sources::{Origin, Origins, Sources, VARIABLE_PREFIX};
use super::types::{Raw, Written, Wrong, quoted};

/// A table of the file, or the place where one could be.
#[derive(Default)]
pub(super) struct Section<'a> {
    /// Its name in messages: `disk`, `group.batch`; empty at the top.
    name: String,
    /// Its name in [`Origins`]: like `name`, with the index of a repeated section.
    path: String,
    /// No variable can name a setting in a repeated section.
    is_repeated: bool,
    table: Option<&'a DeTable<'a>>,
    line: Option<usize>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    fn name_of(&self, key: &str) -> String {
        join(&self.name, key)
    }

    fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table?.get(key)
    }

    /// Takes a key for known without looking at it.
    pub(super) fn ignore(&mut self, key: &'static str) {
        self.known.push(key);
    }
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

/// Reads sections and collects what was found on the way.
pub(super) struct Reader<'a> {
    text: &'a str,
    /// Paths in the file are relative to this.
    pub(super) folder: &'a Path,
    sources: &'a Sources,
    variables: Vec<String>,
    pub(super) problems: Vec<Problem>,
    pub(super) origins: Origins,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, folder: &'a Path, sources: &'a Sources) -> Reader<'a> {
        Reader {
            text,
            folder,
            sources,
            variables: Vec::new(),
            problems: Vec::new(),
            origins: Origins::default(),
        }
    }

    /// The section that contains all others.
    pub(super) fn top(&self, table: &'a DeTable<'a>) -> Section<'a> {
        Section { table: Some(table), ..Section::default() }
    }

    /// The table `key` of a section; empty if it is not written.
    fn table(&mut self, section: &mut Section<'a>, key: &'static str) -> Section<'a> {
        let written = section.value(key);
        let table = written.and_then(|value| value.get_ref().as_table());
        if let (Some(value), None) = (written, table) {
            let expected = format!("expected a section; write it as [{key}]");
            self.wrong(section.name_of(key), value.span(), false, expected);
        }
        Section {
            name: section.name_of(key),
            path: section.path_of(key),
            is_repeated: section.is_repeated,
            table,
            line: written.map(|value| self.line_of(value)),
            known: Vec::new(),
        }
    }

    /// The sections `[[key]]`, in the order of the file; `None` if there are none.
    pub(super) fn sections(&mut self, top: &mut Section<'a>, key: &'static str) -> Option<Vec<Section<'a>>> {
        let written = top.value(key)?;
        let expected = format!("expected repeated sections; write it as [[{key}]]");
        let Some(array) = written.get_ref().as_array() else {
            self.wrong(key.to_owned(), written.span(), false, expected);
            return None;
        };
        if array.len() > SECTIONS_MAX {
            self.problems.push(Problem {
                line: array.get(SECTIONS_MAX).map(|value| self.line_of(value)),
                key: format!("[[{key}]]"),
                value: Some(format!("{} sections", array.len())),
                expected: format!("at most {SECTIONS_MAX}"),
            });
        }
        let mut sections = Vec::new();
        for (index, value) in array.iter().take(SECTIONS_MAX).enumerate() {
            let Some(table) = value.get_ref().as_table() else {
                self.wrong(key.to_owned(), value.span(), false, expected.clone());
                continue;
            };
            let path = format!("{key}[{index}]");
            let line = self.line_of(value);
            self.origins.set(path.clone(), Origin::File(line));
            sections.push(Section {
                name: key.to_owned(),
                path,
                is_repeated: true,
                table: Some(table),
                line: Some(line),
                known: Vec::new(),
            });
        }
        Some(sections)
    }

    /// Reads sections that have only these keys.
    pub(super) fn each<S: 'static>(
        &mut self,
        sections: Vec<Section<'a>>,
        keys: &[Key<S>],
        default: impl Fn() -> S,
    ) -> Vec<S> {
        let read = |mut section| {
            let mut into = default();
            self.keys(&mut section, keys, &mut into);
            self.finish(section);
            into
        };
        sections.into_iter().map(read).collect()
    }

    /// Reads these keys of a section into `into`, and returns those that were set to a usable value.
    pub(super) fn keys<S: 'static>(
        &mut self,
        section: &mut Section<'a>,
        keys: &[Key<S>],
        into: &mut S,
    ) -> Vec<&'static str> {
        let mut tables: BTreeMap<&str, Section<'a>> = BTreeMap::new();
        let mut set = Vec::new();
        for key in keys {
            let (at, name) = match key.name.split_once('.') {
                None => (&mut *section, key.name),
                Some((table, name)) => {
                    let at = tables.entry(table).or_insert_with(|| self.table(section, table));
                    (at, name)
                }
            };
            if (key.belongs_to)(into) {
                let before = self.problems.len();
                if self.key(at, name, key, into) && self.problems.len() == before {
                    set.push(key.name);
                }
            } else if let Some(value) = at.value(name) {
                let same = || keys.iter().filter(|other| other.name == key.name);
                let is_first = same().next().is_some_and(|first| std::ptr::eq(first, key));
                if is_first && !same().any(|other| (other.belongs_to)(into)) {
                    let kinds = quoted(same().flat_map(|other| other.kinds.iter().copied()));
                    let (name, expected) = (at.name_of(name), format!("belongs to kind = {kinds}"));
                    self.wrong(name, value.span(), key.is_secretive, expected);
                }
            }
        }
        tables.into_values().for_each(|table| self.finish(table));
        set
    }

    /// Reads one key. A variable overrides the file; both are checked. Returns whether it was written at all.
    fn key<S: 'static>(
        &mut self,
        section: &mut Section<'a>,
        name: &'static str,
        key: &Key<S>,
        into: &mut S,
    ) -> bool {
        let path = section.path_of(name);
        let file = section.value(name);
        let mut wrong = Vec::new();
        if let Some(value) = file {
            let written = Written { key: name, value: Raw::File(value), base: self.folder };
            (key.read)(&written, &mut wrong, into);
            let is_empty =
                || (key.show)(into).is_some_and(|shown| shown.as_array().is_some_and(Vec::is_empty));
            if let Some(required) = key.required.as_ref().filter(|_| wrong.is_empty() && is_empty()) {
                wrong.push(Wrong { at: None, expected: required.clone() });
            }
            for Wrong { at, expected } in wrong.drain(..) {
                let at = at.unwrap_or_else(|| value.span());
                self.wrong(section.name_of(name), at, key.is_secretive, expected);
            }
            let origin = Origin::File(self.line_of(value));
            self.origins.set(path.clone(), origin);
        }
        let mut is_set = file.is_some();
        if !section.is_repeated && key.is_scalar {
            let variable = variable_of(&path);
            let Sources { environment, working_dir, .. } = self.sources;
            if let Some(text) = environment.get(&variable).filter(|text| !text.is_empty()) {
                is_set = true;
                (key.read)(
                    &Written { key: name, value: Raw::Variable(text), base: working_dir },
                    &mut wrong,
                    into,
                );
                self.problems.extend(wrong.into_iter().map(|Wrong { expected, .. }| Problem {
                    line: None,
                    key: variable.clone(),
                    value: Some(format!("{text:?}")),
                    expected,
                }));
                self.origins.set(path, Origin::Environment(variable.clone()));
            }
            self.variables.push(variable);
        }
        if let Some(required) = key.required.as_ref().filter(|_| !is_set) {
            let (line, key) = (section.line, section.name_of(name));
            self.problems.push(Problem { line, key, value: None, expected: required.clone() });
        }
        is_set
    }

    /// Reports the keys of `section` that are not known.
    pub(super) fn finish(&mut self, mut section: Section<'a>) {
        section.known.sort_unstable();
        section.known.dedup();
        for (key, value) in section.table.into_iter().flat_map(|table| table.iter()) {
            let name: &str = key.get_ref();
            if section.known.contains(&name) {
                continue;
            }
            let close = closest(name, section.known.iter().copied());
            self.problems.push(Problem {
                line: Some(self.line_at(key.span().start)),
                // As it is written there: an empty one, or one with blanks, has its quotes.
                key: section.name_of(self.text.get(key.span()).unwrap_or(name)),
                value: self.short(value.span()),
                expected: match close {
                    Some(close) => format!("unknown key; did you mean {close:?}?"),
                    None => format!("unknown key; known here: {}", section.known.join(", ")),
                },
            });
        }
    }

    /// Variables that look like a misspelt setting. Others with the prefix are left alone: container hosts set some, and
    /// so does the service itself for its commands.
    pub(super) fn suspicious_variables(&self) -> Vec<String> {
        let names = self.sources.environment.keys().filter(|name| !self.variables.contains(name));
        names
            .filter_map(|name| {
                let close = closest(name, self.variables.iter().map(String::as_str))?;
                Some(format!("the variable {name} is not a setting and was ignored; did you mean {close}?"))
            })
            .collect()
    }

    fn wrong(&mut self, key: String, at: Range<usize>, is_secretive: bool, expected: String) {
        let line = Some(self.line_at(at.start));
        let value = if is_secretive { None } else { self.short(at) };
        self.problems.push(Problem { line, key, value, expected });
    }

    /// The bytes of the file, if they are few. A list is left out, and so is a URL, which may contain a secret.
    fn short(&self, at: Range<usize>) -> Option<String> {
        let text = self.text.get(at)?;
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

/// The candidate that differs from `name` by the fewest letters, if those are few.
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
