//! What is known of one key: its name, meaning, type and default, and whether a reload can change it. Reading, printing,
//! comparing and documenting all work from this.

use toml::Value;

use super::types::{Type, Written, Wrong};

/// A key of a section whose settings are an `S`.
pub(super) struct Key<S> {
    /// A key can be in a table of its section: `batch.lines`.
    pub(super) name: &'static str,
    /// What it does: lines, with an empty one between paragraphs.
    doc: &'static str,
    /// Its type and bounds.
    pub(super) about: String,
    /// Whether a variable can hold it.
    pub(super) is_scalar: bool,
    /// What to write when it is missing, if it has to be set.
    pub(super) required: Option<String>,
    /// A value, in TOML, when there is no default to show.
    pub(super) example: Option<&'static str>,
    /// Whether a reload changes it; otherwise it takes effect at the next start.
    pub(super) is_live: bool,
    /// Whether its value may hold a secret, so that messages leave it out.
    pub(super) is_secretive: bool,
    /// The kinds of processors that have it; empty if it belongs to every section.
    pub(super) kinds: Vec<&'static str>,
    /// Reads a value into its place, where it can be used. What is wrong with it is added to the list.
    pub(super) read: Read<S>,
    /// The value as it is written; `None` where it is not set.
    pub(super) show: Show<S>,
    /// Whether the key belongs to this section.
    pub(super) belongs_to: Box<dyn Fn(&S) -> bool>,
    /// Whether both have the same value, shown or not.
    pub(super) is_same: Compare<S>,
    /// Sets the value of the second to that of the first.
    pub(super) copy: CopyInto<S>,
}

type Read<S> = Box<dyn Fn(&Written<'_>, &mut Vec<Wrong>, &mut S)>;
type Show<S> = Box<dyn Fn(&S) -> Option<Value>>;
type Compare<S> = Box<dyn Fn(&S, &S) -> bool>;
type CopyInto<S> = Box<dyn Fn(&S, &mut S)>;

impl<S: 'static> Key<S> {
    /// A key of type `kind` whose value is where `get` and `set` say. `get` has no answer for a section that the key does
    /// not belong to.
    pub(super) fn new<V: PartialEq + 'static>(
        name: &'static str,
        doc: &'static str,
        kind: Type<V>,
        get: fn(&S) -> Option<V>,
        set: fn(&mut S, V),
    ) -> Key<S> {
        let Type { about, is_scalar, read, print } = kind;
        Key {
            name,
            doc,
            about,
            is_scalar,
            required: None,
            example: None,
            is_live: false,
            is_secretive: false,
            kinds: Vec::new(),
            read: Box::new(move |written, wrong, into| {
                if let Some(value) = read(written, wrong) {
                    set(into, value);
                }
            }),
            show: Box::new(move |from| print(&get(from)?)),
            belongs_to: Box::new(move |section| get(section).is_some()),
            is_same: Box::new(move |one, other| get(one) == get(other)),
            copy: Box::new(move |from, to| {
                if let Some(value) = get(from) {
                    set(to, value);
                }
            }),
        }
    }

    /// It takes effect at the next start.
    pub(super) fn restart(self) -> Key<S> {
        Key { is_live: false, ..self }
    }

    /// A reload changes it.
    pub(super) fn live(self) -> Key<S> {
        Key { is_live: true, ..self }
    }

    /// It has to be set: `missing` says what the section lacks without it.
    pub(super) fn required(self, missing: &str, example: &'static str) -> Key<S> {
        let required = format!("{missing}; write it as {} = {example}", self.name);
        Key { required: Some(required), example: Some(example), ..self }
    }

    /// It has to be set to one of the words of its type.
    pub(super) fn required_choice(self, example: &'static str) -> Key<S> {
        let required = format!("is missing; write {}", self.about);
        Key { required: Some(required), example: Some(example), ..self }
    }

    pub(super) fn example(self, example: &'static str) -> Key<S> {
        Key { example: Some(example), ..self }
    }

    pub(super) fn secretive(self) -> Key<S> {
        Key { is_secretive: true, ..self }
    }

    pub(super) fn of_kinds(self, kinds: Vec<&'static str>) -> Key<S> {
        Key { kinds, ..self }
    }

    /// The paragraphs of its documentation, each in one line.
    pub(super) fn paragraphs(&self) -> Vec<String> {
        let in_one_line = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        self.doc.split("\n\n").map(in_one_line).collect()
    }
}
