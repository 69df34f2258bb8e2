//! The rooms and what may pass between them, as ARCHITECTURE.md's code map says.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Room → the rooms it may import.
const MAY_IMPORT: [(&str, &[&str]); 10] = [
    ("domain", &[]),
    ("sql", &["domain"]),
    ("filemap", &[]),
    ("store", &["domain", "filemap"]),
    ("chassis", &["domain", "filemap"]),
    ("transcoder", &["domain"]),
    ("api", &["domain", "sql", "store", "chassis"]),
    ("streamserver", &["domain", "sql", "filemap", "store", "chassis"]),
    ("scheduler", &["domain", "sql", "store", "chassis"]),
    ("sluice", &["domain", "sql", "store", "chassis", "api", "streamserver", "scheduler", "transcoder"]),
];

/// Library → the only room that may name it.
const OWNED_ALONE: [(&str, &str); 6] = [
    ("sqlx", "sql"),
    ("hyper", "chassis"),
    ("hyper-util", "chassis"),
    ("governor", "chassis"),
    ("ffmpeg-next", "transcoder"),
    ("image", "transcoder"),
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .other_options(["--locked".to_owned()])
        .exec()
        .expect("cargo metadata")
}

fn linked_names(package: &Package) -> impl Iterator<Item = &str> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind == DependencyKind::Normal)
        .map(|dependency| dependency.name.as_str())
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let metadata = metadata();
    let table: BTreeMap<&str, &[&str]> = MAY_IMPORT.into_iter().collect();
    let rooms: BTreeSet<&str> = metadata.workspace_packages().iter().map(|p| p.name.as_str()).collect();
    assert_eq!(rooms, table.keys().copied().collect(), "every room stands in the table");
    for package in metadata.workspace_packages() {
        let allowed = table[package.name.as_str()];
        for name in linked_names(package).filter(|name| table.contains_key(name)) {
            assert!(allowed.contains(&name), "{} must not import {name}", package.name);
        }
    }
}

#[test]
fn libraries_stay_with_their_owners() {
    for package in metadata().workspace_packages() {
        for name in linked_names(package) {
            for (library, owner) in OWNED_ALONE {
                assert!(
                    name != library || package.name.as_str() == owner,
                    "{} names {library}, which belongs to {owner}",
                    package.name
                );
            }
        }
    }
}

#[test]
fn services_build_without_ffmpeg() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().expect("resolved graph");
    let name_of: BTreeMap<_, _> = metadata.packages.iter().map(|p| (&p.id, p.name.as_str())).collect();
    for service in ["api", "streamserver", "scheduler"] {
        let mut reached = BTreeSet::new();
        let mut open: Vec<_> =
            resolve.nodes.iter().filter(|node| name_of[&node.id] == service).map(|node| &node.id).collect();
        while let Some(id) = open.pop() {
            if !reached.insert(name_of[id]) {
                continue;
            }
            let node = resolve.nodes.iter().find(|node| &node.id == id).expect("node of the graph");
            let linked = node
                .deps
                .iter()
                .filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
            open.extend(linked.map(|dep| &dep.pkg));
        }
        assert!(reached.contains("domain"), "the walk reaches something");
        assert!(!reached.iter().any(|name| name.starts_with("ffmpeg")), "{service} links FFmpeg");
    }
}

/// Keeps C++ and cmake out of the build: one TLS library, ring.
#[test]
fn no_second_crypto_library() {
    let metadata = metadata();
    for banned in ["aws-lc-sys", "openssl-sys"] {
        assert!(!metadata.packages.iter().any(|p| p.name.as_str() == banned), "{banned} is in the graph");
    }
}
