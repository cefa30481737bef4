//! The shape of the code: how long files and functions are, that a name means one thing, and how comments read.

use std::collections::{BTreeMap, BTreeSet};

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItemFn, ItemEnum, ItemFn, ItemMod, ItemStruct, ItemTrait, ItemType, Macro, TraitItemFn};

use crate::workspace::{Source, members, metadata, production, sources};

/// Most lines of a file in a crate's `src`: one idea, read in one go.
const MOST_LINES: usize = 500;

/// Files that are longer, and why.
const LONGER_FILES: &[(&str, &str)] = &[
    ("export/src/rows.rs", "one list of all columns of all tables; a little above the limit"),
    ("tests/src/world.rs", "one small world in virtual time; to be divided"),
];

/// Most lines of a function, from its name to its last brace.
const MOST_FUNCTION_LINES: usize = 80;

/// Functions that are longer, and why.
const LONGER_FUNCTIONS: &[(&str, &str)] = &[];

/// Names of types that more than one crate defines, and why.
const SHARED_NAMES: &[(&str, &str)] = &[];

/// Most documentation of three words or fewer: it says no more than the name that it stands on.
const MOST_SHORT_DOCS: usize = 200;

/// Most of all documentation, in percent, that opens with a question word: "What it cost" is no sentence. The aim is 7.
const MOST_QUESTIONS: usize = 17;

/// Words that mean something else outside of this project, and what to write.
const BANNED_WORDS: &[(&str, &str)] = &[
    ("law", "the field says distribution"),
    ("laws", "the field says distributions"),
    ("epoch", "in machine learning it is a pass over the data: say rejections"),
];

/// Where a banned word stays, because other programs know it.
const KEPT_WORDS: &[(&str, &str)] = &[("export/src/rows.rs", "epoch")];

/// Fails if `found` is not what `excused` lists, once each: an entry that excuses nothing has to go.
fn compare_with_list(found: &BTreeMap<String, String>, excused: &[(&str, &str)], list: &str, advice: &str) {
    let listed: BTreeSet<&str> = excused.iter().map(|(name, _)| *name).collect();
    let new: Vec<&String> =
        found.iter().filter(|(name, _)| !listed.contains(name.as_str())).map(|(_, what)| what).collect();
    assert!(new.is_empty(), "{advice}, or list it in {list} with the reason (tests/tests/tidy/shape.rs): {new:#?}");
    let gone: Vec<&&str> = listed.iter().filter(|name| !found.contains_key(**name)).collect();
    assert!(gone.is_empty(), "{list} excuses what is in order by now: take it off: {gone:#?}");
}

/// What one file defines, without its tests.
#[derive(Default)]
struct Shape {
    types: Vec<String>,
    /// Name and lines.
    functions: Vec<(String, usize)>,
    /// What stands in `matches!(…)`.
    matched: Vec<String>,
}

impl Shape {
    fn of(source: &Source) -> Shape {
        let mut shape = Shape::default();
        let file = syn::parse_file(&source.text).unwrap_or_else(|error| panic!("{}: {error}", source.path));
        shape.visit_file(&file);
        shape
    }

    fn function(&mut self, name: &syn::Ident, whole: proc_macro2::Span) {
        self.functions.push((name.to_string(), whole.end().line + 1 - name.span().start().line));
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|what| what == "test")
    })
}

impl<'ast> Visit<'ast> for Shape {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        self.types.push(item.ident.to_string());
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        self.types.push(item.ident.to_string());
        visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast ItemTrait) {
        self.types.push(item.ident.to_string());
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast ItemType) {
        self.types.push(item.ident.to_string());
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if !is_test(&item.attrs) {
            self.function(&item.sig.ident, item.span());
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.function(&item.sig.ident, item.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        self.function(&item.sig.ident, item.span());
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        if item.path.is_ident("matches") {
            self.matched.push(item.tokens.to_string());
        }
    }
}

/// Test modules that are files of their own.
fn is_test_file(source: &Source) -> bool {
    source.path.ends_with("/tests.rs") || source.path.ends_with("_tests.rs")
}

fn code() -> Vec<Source> {
    production().into_iter().filter(|source| !is_test_file(source)).collect()
}

#[test]
fn files_stay_small() {
    let folders: Vec<String> = members(&metadata()).into_values().map(|folder| format!("{folder}/src")).collect();
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    let mut long = BTreeMap::new();
    for Source { path, text, .. } in sources(&folders) {
        let lines = text.lines().count();
        if lines > MOST_LINES {
            long.insert(path.clone(), format!("{path} has {lines} lines, more than {MOST_LINES}"));
        }
    }
    compare_with_list(&long, LONGER_FILES, "LONGER_FILES", "Divide it by ideas");
}

#[test]
fn functions_stay_short() {
    let mut long = BTreeMap::new();
    for source in code() {
        for (name, lines) in Shape::of(&source).functions {
            if lines > MOST_FUNCTION_LINES {
                let place = format!("{}::{name}", source.path);
                let what = format!("{place} has {lines} lines, more than {MOST_FUNCTION_LINES}");
                long.insert(place, what);
            }
        }
    }
    compare_with_list(&long, LONGER_FUNCTIONS, "LONGER_FUNCTIONS", "Divide it into steps that have names");
}

#[test]
fn a_types_name_is_that_of_one_crate() {
    let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in code() {
        let owner = source.path.split('/').next().unwrap_or_default();
        for name in Shape::of(&source).types {
            owners.entry(name).or_default().insert(owner.to_owned());
        }
    }
    let shared = owners.into_iter().filter(|(_, crates)| crates.len() > 1);
    let shared = shared.map(|(name, crates)| (name.clone(), format!("{name}: {crates:?}"))).collect();
    compare_with_list(&shared, SHARED_NAMES, "SHARED_NAMES", "Give the type a name of its own");
}

#[test]
fn what_a_source_means_is_decided_in_the_core() {
    let home = "engine/src/record.rs";
    let variants = ["Skipped", "Accepted", "Replaced", "Bonus", "Verifier", "Fallback", "Refused"];
    let mut seen = 0;
    for source in code() {
        let decides =
            |matched: &&String| variants.iter().any(|variant| matched.contains(&format!("Source :: {variant}")));
        let found: Vec<String> = Shape::of(&source).matched.iter().filter(decides).cloned().collect();
        if source.path == home {
            seen += found.len();
        } else {
            assert!(
                found.is_empty(),
                "{}: matches!({}): ask the record (`is_judged_draft`, `answered_upload`, …), or add a question to {home}",
                source.path,
                found.join("; ")
            );
        }
    }
    assert!(seen > 0, "{home} decides nothing: the rule looks for the wrong thing");
}

/// The documentation in a source: consecutive lines of `///`, joined.
fn docs(source: &Source) -> Vec<String> {
    let mut docs = Vec::new();
    let mut open: Option<String> = None;
    for line in source.text.lines() {
        match line.trim_start().strip_prefix("///") {
            Some(more) => {
                let doc = open.get_or_insert_default();
                doc.push_str(more);
            }
            None => docs.extend(open.take()),
        }
    }
    docs.extend(open);
    docs
}

#[test]
fn documentation_says_more_than_the_name() {
    let docs: Vec<String> = code().iter().flat_map(docs).collect();
    let short = docs.iter().filter(|doc| doc.split_whitespace().count() <= 3).count();
    let question = ["What", "How", "Whose", "Who", "Why", "Which", "Where"];
    let opens = |doc: &&String| doc.split_whitespace().next().is_some_and(|word| question.contains(&word));
    let questions = docs.iter().filter(opens).count();
    let elsewhere = docs.iter().filter(|doc| doc.contains("See the module")).count();
    assert!(docs.len() > 1_000, "only {} pieces of documentation were found", docs.len());
    let says = format!(
        "of {} pieces of documentation {short} have three words or fewer, {questions} open with a question word, {elsewhere} \
         say \"See the module\"",
        docs.len()
    );
    assert!(short <= MOST_SHORT_DOCS, "{says}: leave out what the name says, or say what a reader cannot know");
    assert!(questions * 100 <= MOST_QUESTIONS * docs.len(), "{says}: write sentences that say what the thing is");
    assert_eq!(elsewhere, 0, "{says}: say it where it is needed");
    println!("{says}");
}

#[test]
fn words_are_those_of_the_field() {
    let mut found = Vec::new();
    for source in code() {
        for (number, line) in source.text.lines().enumerate() {
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            for word in words {
                let kept = KEPT_WORDS.iter().any(|(path, kept)| *path == source.path && *kept == word);
                if let Some((_, instead)) =
                    BANNED_WORDS.iter().find(|(banned, _)| !kept && word.eq_ignore_ascii_case(banned))
                {
                    found.push(format!("{}:{}: `{word}`: {instead}", source.path, number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{} words:\n{}", found.len(), found.join("\n"));
}

// ---- the rules' own tools ------------------------------------------------------------------------------------------

#[test]
fn shapes_are_seen_without_their_tests() {
    let text = "struct A;\nimpl A {\n    fn long(\n        &self,\n    ) {\n        let _ = matches!(x, Source::Skipped);\n    }\n}\n\
                #[cfg(test)]\nmod tests {\n    struct B;\n    #[test]\n    fn c() {}\n}\n";
    let source = Source { path: "a.rs".to_owned(), text: text.to_owned(), code: String::new() };
    let shape = Shape::of(&source);
    assert_eq!((shape.types, shape.functions), (vec!["A".to_owned()], vec![("long".to_owned(), 5)]));
    assert_eq!(shape.matched, ["x , Source :: Skipped"]);
}

/// Public items without documentation. Fields and variants need none where their name says what they are.
#[derive(Default)]
struct Undocumented(Vec<String>);

impl Undocumented {
    fn item(&mut self, visibility: &syn::Visibility, attributes: &[Attribute], name: &syn::Ident) {
        let documented = attributes.iter().any(|attribute| attribute.path().is_ident("doc"));
        if matches!(visibility, syn::Visibility::Public(_)) && !documented {
            self.0.push(name.to_string());
        }
    }
}

impl<'ast> Visit<'ast> for Undocumented {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        self.item(&item.vis, &item.attrs, &item.ident);
    }

    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        self.item(&item.vis, &item.attrs, &item.ident);
    }

    fn visit_item_trait(&mut self, item: &'ast ItemTrait) {
        self.item(&item.vis, &item.attrs, &item.ident);
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.item(&item.vis, &item.attrs, &item.sig.ident);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        // What a trait asks for is documented there.
        if item.trait_.is_none() {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.item(&item.vis, &item.attrs, &item.sig.ident);
    }
}

#[test]
fn public_items_are_documented() {
    let mut found = Vec::new();
    for source in code() {
        let mut undocumented = Undocumented::default();
        undocumented.visit_file(&syn::parse_file(&source.text).expect("it was parsed before"));
        found.extend(undocumented.0.into_iter().map(|name| format!("{}: {name}", source.path)));
    }
    assert!(found.is_empty(), "say what these are:\n{}", found.join("\n"));
}
