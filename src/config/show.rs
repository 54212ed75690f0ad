//! The settings in force as text: TOML that can be read back, and JSON of the same shape.

use std::fmt::Write as _;

use serde_json::json;
use toml::Value;

use super::key::Key;
use super::keys;
use super::load::Loaded;
use super::settings::Settings;
use super::sources::Origin;

/// A section with its settings.
pub(super) struct Part {
    /// Without brackets; empty for the keys above all sections.
    pub(super) name: &'static str,
    /// Its place among the sections of this name, if there can be several.
    index: Option<usize>,
    /// The keys that are set, without the name of the section. A key can contain a dot: `batch.lines`.
    pub(super) rows: Vec<(&'static str, Value)>,
}

impl Part {
    pub(super) fn is_repeated(&self) -> bool {
        self.index.is_some()
    }

    /// The path of a key in [`Origins`](super::sources::Origins).
    fn path(&self, key: &str) -> String {
        match (self.name, self.index) {
            ("", _) => key.to_owned(),
            (name, None) => format!("{name}.{key}"),
            (name, Some(index)) => format!("{name}[{index}].{key}"),
        }
    }
}

/// TOML, each line with where its value came from. Read back in the same environment it gives the same settings; but
/// the query of a URL and the values of `env`, which may contain a secret, are left out, and then the text is refused.
#[must_use]
pub fn as_toml(loaded: &Loaded) -> String {
    let mut text = String::new();
    for part in parts(&loaded.settings) {
        let name = part.name;
        // Writing to a string cannot fail.
        let _ = match part.is_repeated() {
            _ if name.is_empty() => Ok(()),
            false => writeln!(text, "\n[{name}]"),
            true => writeln!(text, "\n[[{name}]]"),
        };
        for (key, value) in &part.rows {
            let origin = loaded.origins.of(&part.path(key));
            let _ = writeln!(text, "{:<52} # {origin}", format!("{key} = {value}"));
        }
    }
    text
}

/// `{"settings": {...}, "origins": {"disk.limit": "file, line 3"}}`; what is not in `origins` is a default.
#[must_use]
pub fn as_json(loaded: &Loaded) -> serde_json::Value {
    let mut settings = json!({ "follow": [], "group": [], "processor": [] });
    let mut origins = json!({});
    for part in parts(&loaded.settings) {
        if let (Some(_), Some(sections)) = (part.index, settings[part.name].as_array_mut()) {
            sections.push(json!({}));
        }
        let section = match (part.name, part.index) {
            ("", _) => &mut settings,
            (name, None) => &mut settings[name],
            (name, Some(index)) => &mut settings[name][index],
        };
        for (key, value) in &part.rows {
            let slot = match key.split_once('.') {
                Some((outer, inner)) => &mut section[outer][inner],
                None => &mut section[*key],
            };
            *slot = json!(value);
            let path = part.path(key);
            let origin = loaded.origins.of(&path);
            if origin != Origin::Default {
                origins[path] = json!(origin.to_string());
            }
        }
    }
    json!({ "settings": settings, "origins": origins })
}

/// The sections in the order of the documented file: `[[follow]]` comes directly after the keys above all sections.
pub(super) fn parts(settings: &Settings) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for key in keys::settings() {
        let (name, own) = key.name.split_once('.').unwrap_or(("", key.name));
        if parts.last().is_none_or(|part| part.name != name) {
            parts.push(Part { name, index: None, rows: Vec::new() });
        }
        if let (Some(part), Some(value)) = (parts.last_mut(), (key.show)(settings)) {
            part.rows.push((own, value));
        }
    }
    parts.splice(1..1, repeated("follow", &settings.follow, &keys::follow()));
    parts.extend(repeated("group", &settings.groups, &keys::group()));
    parts.extend(repeated("processor", &settings.processors, &keys::processor()));
    parts
}

fn repeated<S: 'static>(name: &'static str, sections: &[S], keys: &[Key<S>]) -> Vec<Part> {
    let rows = |section| keys.iter().filter_map(|key| Some((key.name, (key.show)(section)?))).collect();
    let part = |(index, section)| Part { name, index: Some(index), rows: rows(section) };
    sections.iter().enumerate().map(part).collect()
}
