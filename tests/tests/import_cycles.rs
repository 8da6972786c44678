//! The modules of the published crates import each other without cycles.
//!
//! A re-export of a child module, such as `pub use client::Client`, is no import: it is traced to the module that
//! defines the item.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use syn::{
    Attribute, Item, ItemMod, ItemUse, UseTree, Visibility,
    visit::{self, Visit},
};

/// The path of a module within its crate. Empty for `lib.rs`.
type Module = Vec<String>;

/// Modules that may import each other, in alphabetical order.
const EXCEPTIONS: [(&str, [&str; 2]); 1] = [
    // The error of a proxy contains the error of the connection to it.
    ("sockeye", ["error", "error::proxy"]),
];

#[test]
fn modules_are_imported_without_cycles() {
    for (name, files_min) in [("proto", 30), ("sockeye", 90)] {
        let modules = modules(
            &Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../crates")
                .join(name)
                .join("src"),
        );
        assert!(
            modules.len() > files_min,
            "the sources of {name} are elsewhere than expected"
        );
        let mut imports = imports(&modules);
        for (_, [a, b]) in EXCEPTIONS.iter().filter(|(of, _)| *of == name) {
            let [a, b] = [a, b].map(|path| path.split("::").map(str::to_owned).collect::<Module>());
            let is_needed = imports[&a].contains(&b) && imports[&b].contains(&a);
            assert!(
                is_needed,
                "{name}: {a:?} and {b:?} do not import each other: remove the exception"
            );
            imports.entry(a).or_default().remove(&b);
        }
        if let Some(cycle) = cycle(&imports) {
            let cycle: Vec<_> = cycle.iter().map(|module| module.join("::")).collect();
            panic!("{name} has an import cycle: {}", cycle.join(" -> "));
        }
    }
}

#[test]
fn cycle_is_found() {
    let module = |name: &str| vec![name.to_owned()];
    let mut imports = BTreeMap::from([
        (module("a"), BTreeSet::from([module("b")])),
        (module("b"), BTreeSet::from([module("c")])),
        (module("c"), BTreeSet::new()),
    ]);
    assert_eq!(cycle(&imports), None);
    imports.insert(module("c"), BTreeSet::from([module("a")]));
    assert_eq!(cycle(&imports), Some(["a", "b", "c", "a"].map(module).to_vec()));
}

/// The parsed files below a folder.
fn modules(src: &Path) -> BTreeMap<Module, syn::File> {
    let mut modules = BTreeMap::new();
    let mut folders = vec![src.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let relative = path
                    .strip_prefix(src)
                    .expect("the file is below the folder")
                    .with_extension("");
                let mut module: Module = relative
                    .iter()
                    .map(|part| part.to_string_lossy().into_owned())
                    .collect();
                if module.last().is_some_and(|name| name == "mod" || name == "lib") {
                    module.pop();
                }
                modules.insert(module, file);
            }
        }
    }
    modules
}

/// The modules that each module imports.
fn imports(modules: &BTreeMap<Module, syn::File>) -> BTreeMap<Module, BTreeSet<Module>> {
    let files: BTreeSet<Module> = modules.keys().cloned().collect();
    let mut paths = BTreeMap::new();
    // The modules that define re-exported names.
    let mut definitions = BTreeMap::new();
    for (module, file) in modules {
        let mut collector = Collector {
            module,
            files: &files,
            inline: Vec::new(),
            used: Vec::new(),
            exported: Vec::new(),
        };
        collector.visit_file(file);
        for path in collector.exported {
            let (name, parent) = path.split_last().expect("a path is not empty");
            definitions.insert((module.clone(), name.clone()), parent.to_vec());
        }
        paths.insert(module.clone(), collector.used);
    }
    let target = |path: &[String]| {
        let len = (0..=path.len())
            .rev()
            .find(|len| files.contains(&path[..*len]))
            .expect("lib.rs is a module");
        let mut target = path[..len].to_vec();
        while let Some(definition) = path
            .get(len)
            .and_then(|name| definitions.get(&(target.clone(), name.clone())))
        {
            if !files.contains(definition) {
                break;
            }
            target.clone_from(definition);
        }
        target
    };
    paths
        .into_iter()
        .map(|(module, used)| {
            let targets = used.iter().map(|path| target(path)).filter(|target| *target != module);
            (module.clone(), targets.collect())
        })
        .collect()
}

/// Collects the paths within the crate that a file uses, except in its unit tests.
struct Collector<'a> {
    module: &'a Module,
    files: &'a BTreeSet<Module>,
    /// The modules within the file that surround the current item.
    inline: Module,
    used: Vec<Module>,
    /// Re-exports from children.
    exported: Vec<Module>,
}

impl Collector<'_> {
    /// The path from the root of the crate. `None` for other crates and for names that are in scope already.
    fn resolve(&self, path: &[String]) -> Option<Module> {
        let here: Module = self.module.iter().chain(&self.inline).cloned().collect();
        let (first, rest) = path.split_first()?;
        let (base, rest) = match first.as_str() {
            "crate" => (Module::new(), rest),
            "self" => (here, rest),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                (here[..here.len().checked_sub(ups)?].to_vec(), &path[ups..])
            }
            _ => {
                let child: Module = here.iter().chain([first]).cloned().collect();
                self.files.contains(&child).then_some((child, rest))?
            }
        };
        Some(base.into_iter().chain(rest.iter().cloned()).collect())
    }

    fn is_child(&self, path: &Module) -> bool {
        (self.module.len() + 1..=path.len()).any(|len| self.files.contains(&path[..len]))
            && path.starts_with(self.module)
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[Attribute] = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => &[],
        };
        // Imports for links in the documentation do not count.
        let is_left_out = |attribute: &Attribute| {
            let condition = attribute.meta.require_list().map(|list| list.tokens.to_string());
            attribute.path().is_ident("cfg") && condition.is_ok_and(|tokens| tokens == "test" || tokens == "doc")
        };
        if !attributes.iter().any(is_left_out) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.inline.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.inline.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut paths = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut paths);
        for path in paths {
            let Some(path) = self.resolve(&path) else { continue };
            if !matches!(item.vis, Visibility::Inherited) && self.is_child(&path) {
                self.exported.push(path);
            } else {
                self.used.push(path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if parts.len() > 1 {
            self.used.extend(self.resolve(&parts));
        }
        visit::visit_path(self, path);
    }
}

/// The paths of a `use` declaration.
fn flatten(tree: &UseTree, prefix: &mut Module, paths: &mut Vec<Module>) {
    let mut end = |name: &syn::Ident| paths.push(prefix.iter().cloned().chain([name.to_string()]).collect());
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, paths);
            prefix.pop();
        }
        UseTree::Name(name) if name.ident == "self" => paths.push(prefix.clone()),
        UseTree::Name(name) => end(&name.ident),
        UseTree::Rename(rename) => end(&rename.ident),
        UseTree::Glob(_) => paths.push(prefix.clone()),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, prefix, paths)),
    }
}

/// A cycle, which begins and ends with the same module.
fn cycle(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    fn visit<'a>(
        module: &'a Module,
        imports: &'a BTreeMap<Module, BTreeSet<Module>>,
        path: &mut Vec<&'a Module>,
        done: &mut BTreeSet<&'a Module>,
    ) -> Option<Vec<Module>> {
        if let Some(start) = path.iter().position(|earlier| *earlier == module) {
            return Some(path[start..].iter().copied().chain([module]).cloned().collect());
        }
        if done.contains(module) {
            return None;
        }
        path.push(module);
        let found = imports[module].iter().find_map(|next| visit(next, imports, path, done));
        path.pop();
        done.insert(module);
        found
    }
    let mut done = BTreeSet::new();
    imports
        .keys()
        .find_map(|module| visit(module, imports, &mut Vec::new(), &mut done))
}
