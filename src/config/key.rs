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
    slot: Box<dyn Slot<S>>,
}

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
        Key {
            name,
            doc,
            about: kind.about.clone(),
            is_scalar: kind.is_scalar,
            required: None,
            example: None,
            is_live: false,
            is_secretive: false,
            kinds: Vec::new(),
            slot: Box::new(At { kind, get, set }),
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

    /// Reads a value into its place, where it can be used. What is wrong with it is added to `wrong`.
    pub(super) fn read(&self, written: &Written<'_>, wrong: &mut Vec<Wrong>, into: &mut S) {
        self.slot.read(written, wrong, into);
    }

    /// The value as it is written; `None` where it is not set.
    pub(super) fn show(&self, from: &S) -> Option<Value> {
        self.slot.show(from)
    }

    /// Whether the key belongs to this section.
    pub(super) fn belongs_to(&self, section: &S) -> bool {
        self.slot.belongs_to(section)
    }

    /// Whether both have the same value, shown or not.
    pub(super) fn is_same(&self, one: &S, other: &S) -> bool {
        self.slot.is_same(one, other)
    }

    pub(super) fn copy(&self, from: &S, to: &mut S) {
        self.slot.copy(from, to);
    }
}

/// [`Key`] without the type of the value.
trait Slot<S> {
    fn read(&self, written: &Written<'_>, wrong: &mut Vec<Wrong>, into: &mut S);
    fn show(&self, from: &S) -> Option<Value>;
    fn belongs_to(&self, section: &S) -> bool;
    fn is_same(&self, one: &S, other: &S) -> bool;
    fn copy(&self, from: &S, to: &mut S);
}

struct At<S, V> {
    kind: Type<V>,
    get: fn(&S) -> Option<V>,
    set: fn(&mut S, V),
}

impl<S, V: PartialEq + 'static> Slot<S> for At<S, V> {
    fn read(&self, written: &Written<'_>, wrong: &mut Vec<Wrong>, into: &mut S) {
        if let Some(value) = self.kind.read(written, wrong) {
            (self.set)(into, value);
        }
    }

    fn show(&self, from: &S) -> Option<Value> {
        (self.get)(from).and_then(|value| self.kind.print(&value))
    }

    fn belongs_to(&self, section: &S) -> bool {
        (self.get)(section).is_some()
    }

    fn is_same(&self, one: &S, other: &S) -> bool {
        (self.get)(one) == (self.get)(other)
    }

    fn copy(&self, from: &S, to: &mut S) {
        if let Some(value) = (self.get)(from) {
            (self.set)(to, value);
        }
    }
}
