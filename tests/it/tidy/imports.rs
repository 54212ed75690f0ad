//! Which file of a crate uses which: what the rules on layers and circles are checked against.
//!
//! A path in code is resolved to the file that defines what it names: `use` aliases and re-exports are followed, code
//! of tests is left out. Method calls name no file and are not seen.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, Macro, Path, UseTree, Visibility};

type Segments = Vec<String>;

/// The files of one crate, and what each uses.
pub struct Imports {
    /// From a file to the files that it uses, each with the names.
    uses: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    /// From a file to the crates that it names.
    crates: BTreeMap<String, BTreeSet<String>>,
}

/// A file as it was read.
struct Module {
    file: String,
    /// The modules that it declares outside of tests.
    children: BTreeSet<String>,
    /// Every name that a `use` brings, with the path that it stands for.
    aliases: BTreeMap<String, Segments>,
    /// Those that are not re-exported: each is a use by itself.
    private: Vec<Segments>,
    /// Paths in code.
    paths: Vec<Segments>,
}

impl Imports {
    /// Of the crate whose root is the file `root` in `folder`. `sources`: every file below `folder` with its text.
    pub fn of(folder: &str, root: &str, sources: &[(String, String)]) -> Imports {
        let texts: BTreeMap<_, _> =
            sources.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
        let mut modules = BTreeMap::new();
        // Only what is declared outside of tests is reached.
        let mut open = vec![Segments::new()];
        while let Some(at) = open.pop() {
            let below = at.join("/");
            let names = if at.is_empty() {
                vec![format!("{folder}/{root}")]
            } else {
                vec![format!("{folder}/{below}.rs"), format!("{folder}/{below}/mod.rs")]
            };
            let Some((file, text)) = names.iter().find_map(|name| texts.get_key_value(name.as_str())) else {
                panic!("no file for module {at:?}: looked for {names:?}");
            };
            let module = Module::read(file, text, &at);
            for child in &module.children {
                open.push(at.iter().chain([child]).cloned().collect());
            }
            modules.insert(at, module);
        }
        let mut uses: BTreeMap<_, BTreeMap<_, BTreeSet<_>>> = BTreeMap::new();
        let mut crates: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (at, module) in &modules {
            let used = uses.entry(module.file.clone()).or_default();
            let named = crates.entry(module.file.clone()).or_default();
            for path in module.paths.iter().chain(&module.private) {
                match resolve(&modules, at, path, 0) {
                    Found::In(file, _) if file == module.file => {}
                    Found::In(file, name) => {
                        used.entry(file).or_default().insert(name);
                    }
                    Found::Crate(name) => {
                        named.insert(name);
                    }
                    Found::Nothing => {}
                }
            }
        }
        Imports { uses, crates }
    }

    /// Every file that uses another: `(file, used, names)`.
    pub fn edges(&self) -> impl Iterator<Item = (&str, &str, &BTreeSet<String>)> {
        self.uses.iter().flat_map(|(file, used)| {
            used.iter().map(move |(other, names)| (file.as_str(), other.as_str(), names))
        })
    }

    /// Every file with the first name of each path that leads to no file of the crate: other crates, and names in scope.
    pub fn crates(&self) -> impl Iterator<Item = (&str, &str)> {
        self.crates
            .iter()
            .flat_map(|(file, names)| names.iter().map(move |name| (file.as_str(), name.as_str())))
    }

    /// Groups of files each of which leads to all others of its group.
    pub fn circles(&self) -> Vec<BTreeSet<&str>> {
        let reach: BTreeMap<_, _> =
            self.uses.keys().map(|file| (file.as_str(), self.reached(file))).collect();
        let mut circles = Vec::new();
        let mut seen = BTreeSet::new();
        for (file, reached) in &reach {
            if seen.contains(file) || !reached.contains(file) {
                continue;
            }
            let circle: BTreeSet<_> =
                reached.iter().copied().filter(|other| reach[other].contains(file)).collect();
            seen.extend(circle.iter().copied());
            circles.push(circle);
        }
        circles
    }

    fn reached(&self, file: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![file];
        while let Some(file) = open.pop() {
            for next in self.uses.get(file).into_iter().flat_map(BTreeMap::keys) {
                if reached.insert(next.as_str()) {
                    open.push(next);
                }
            }
        }
        reached
    }

    /// A circle as people need it: who uses what of whom.
    pub fn describe(&self, circle: &BTreeSet<&str>) -> String {
        let inside = self.edges().filter(|(file, used, _)| circle.contains(file) && circle.contains(used));
        let lines: Vec<_> = inside
            .map(|(file, used, names)| {
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                format!("  {file} -> {used} ({})", names.join(", "))
            })
            .collect();
        lines.join("\n")
    }
}

impl Module {
    fn read(file: &str, text: &str, at: &[String]) -> Module {
        let code = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut module = Module {
            file: file.to_owned(),
            children: BTreeSet::new(),
            aliases: BTreeMap::new(),
            private: Vec::new(),
            paths: Vec::new(),
        };
        Reader { module: &mut module, at: at.to_vec() }.visit_file(&code);
        module
    }
}

enum Found {
    /// What it names is in this file.
    In(String, String),
    /// The path begins with no name of the crate.
    Crate(String),
    /// A module alone: what is used of it is seen where it is used.
    Nothing,
}

/// Where `path`, written in the module `at`, leads. Names are followed through `use` to a depth that no code has.
fn resolve(modules: &BTreeMap<Segments, Module>, at: &[String], path: &[String], depth: usize) -> Found {
    let Some(first) = path.first() else {
        return Found::Nothing;
    };
    assert!(depth < 32, "{path:?} in {at:?} leads in a circle of `use`");
    let module = &modules[at];
    let from_root = first == "crate";
    if !from_root && !module.children.contains(first) {
        return match module.aliases.get(first) {
            // `use memchr::memchr;`
            Some(alias) if alias.first() == Some(first) => Found::Crate(first.clone()),
            Some(alias) => {
                let whole: Segments = alias.iter().chain(&path[1..]).cloned().collect();
                resolve(modules, at, &whole, depth + 1)
            }
            None => Found::Crate(first.clone()),
        };
    }
    // As deep as modules go; what follows is a name in the last of them.
    let mut inside: Segments = if from_root { Vec::new() } else { at.to_vec() };
    let mut rest = if from_root { &path[1..] } else { path };
    while let Some((next, behind)) = rest.split_first() {
        if !modules[&inside].children.contains(next) {
            break;
        }
        inside.push(next.clone());
        rest = behind;
    }
    let Some(name) = rest.first() else {
        return Found::Nothing;
    };
    match modules[&inside].aliases.get(name) {
        Some(_) if inside != at => resolve(modules, &inside, rest, depth + 1),
        _ => Found::In(modules[&inside].file.clone(), name.clone()),
    }
}

/// Reads the code of one file.
struct Reader<'m> {
    module: &'m mut Module,
    at: Segments,
}

impl Reader<'_> {
    /// A path as written, from the root of the crate where it says `crate`, `self` or `super`.
    fn absolute(&self, path: Segments) -> Segments {
        let supers = path.iter().take_while(|segment| *segment == "super").count();
        let is_self = path.first().is_some_and(|first| first == "self");
        if supers == 0 && !is_self {
            return path;
        }
        let up = self.at.len().saturating_sub(supers);
        let rest = path.into_iter().skip(supers.max(usize::from(is_self)));
        std::iter::once("crate".to_owned()).chain(self.at[..up].iter().cloned()).chain(rest).collect()
    }

    fn use_tree(&mut self, tree: &UseTree, before: &Segments, private: bool) {
        let with = |name: String| before.iter().cloned().chain([name]).collect::<Segments>();
        let (name, path) = match tree {
            UseTree::Path(path) => {
                return self.use_tree(&path.tree, &with(path.ident.to_string()), private);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.use_tree(tree, before, private));
            }
            // All of a file: the file is used.
            UseTree::Glob(_) => ("*".to_owned(), with("*".to_owned())),
            UseTree::Name(name) if name.ident == "self" => {
                (before.last().cloned().unwrap_or_default(), before.clone())
            }
            UseTree::Name(name) => (name.ident.to_string(), with(name.ident.to_string())),
            UseTree::Rename(rename) => (rename.rename.to_string(), with(rename.ident.to_string())),
        };
        let path = self.absolute(path);
        if private {
            self.module.private.push(path.clone());
        }
        if name != "*" && name != "_" {
            self.module.aliases.insert(name, path);
        }
    }

    fn path(&mut self, path: Segments) {
        let path = self.absolute(path);
        self.module.paths.push(path);
    }

    /// Paths in the tokens of a macro.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = Segments::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 && !path.is_empty() {
                        self.path(std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    if !path.is_empty() {
                        self.path(std::mem::take(&mut path));
                    }
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        if !path.is_empty() {
            self.path(path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[Attribute] = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Const(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            _ => &[],
        };
        if !attributes.iter().any(is_for_tests) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        match &item.content {
            None => {
                self.module.children.insert(item.ident.to_string());
            }
            Some(_) => visit::visit_item_mod(self, item),
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let private = matches!(item.vis, Visibility::Inherited);
        self.use_tree(&item.tree, &Segments::new(), private);
    }

    fn visit_path(&mut self, path: &'ast Path) {
        self.path(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        visit::visit_macro(self, called);
        self.tokens(called.tokens.clone());
    }
}

/// `#[cfg(test)]`, alone or with other conditions.
fn is_for_tests(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.meta.require_list().is_ok_and(|list| {
            let words = list.tokens.to_string();
            words == "test" || words.starts_with("all (test") || words.starts_with("all(test")
        })
}
