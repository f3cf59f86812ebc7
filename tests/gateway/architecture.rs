//! The tree shows the architecture, and the documents keep their promises.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, from the top. A module imports from lower layers only, and from itself.
const LAYERS: [&[&str]; 9] = [
    &["main"],
    &["dev", "server"],
    &["connection", "api"],
    &["parts"],
    &["revoke", "errand", "inquiry"],
    &["hub", "auth", "backend"],
    &["config"],
    &["protocol", "metrics", "trace"],
    &["clock"],
];

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn layer(module: &str) -> usize {
    let found = LAYERS.iter().position(|layer| layer.contains(&module));
    found.unwrap_or_else(|| panic!("`{module}` has no layer: give it one here, in lib.rs and in ARCHITECTURE.md"))
}

#[test]
fn imports_point_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    for file in rust_files(&src) {
        let inside = file.strip_prefix(&src).unwrap();
        let first = inside.iter().next().unwrap().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        if module == "lib" || module == "main" {
            continue;
        }
        let code = fs::read_to_string(&file).unwrap();
        // What is for tests only may look anywhere.
        let code = code.split("#[cfg(test)]").next().unwrap();
        for used in code.split("crate::").skip(1) {
            let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            let points_down = module == used || layer(used) > layer(module);
            assert!(points_down, "{} imports crate::{used}, which is not below {module}", inside.display());
            seen += 1;
        }
    }
    assert!(seen > 20, "the imports were found: {seen}");
}

#[test]
fn the_hub_waits_for_nothing_and_knows_no_tokens() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&src.join("hub")).into_iter().chain([src.join("hub.rs")]) {
        let code = fs::read_to_string(&file).unwrap();
        for word in ["async fn", ".await", "crate::auth", "tokio::"] {
            assert!(!code.contains(word), "{} has `{word}`", file.display());
        }
    }
}

#[test]
fn every_limit_is_in_its_manual() {
    let config = include_str!("../../src/config/limits.rs");
    let readme = include_str!("../../docs/configuration.md");
    let options = config.split("#[arg(").skip(1).map(|rest| rest.split("pub ").nth(1).unwrap());
    let names: Vec<&str> = options.map(|rest| rest.split(':').next().unwrap()).collect();
    assert!(names.len() > 30, "{names:?}");
    for setting in names {
        assert!(readme.contains(&format!("| `{setting}` |")), "docs/configuration.md does not list {setting}");
    }
}

#[test]
fn the_tour_is_short_and_names_tests_that_exist() {
    let tour = include_str!("../../ARCHITECTURE.md");
    assert!(tour.lines().count() <= 120, "{} lines", tour.lines().count());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = String::new();
    for folder in ["tests", "src"] {
        for file in rust_files(&root.join(folder)) {
            tests += &fs::read_to_string(file).unwrap();
        }
    }
    let named: Vec<&str> = tour.split('`').skip(1).step_by(2).filter(|word| word.matches('_').count() >= 3).collect();
    assert!(named.len() >= 10, "{named:?}");
    for name in named {
        assert!(tests.contains(&format!("fn {name}(")), "ARCHITECTURE.md names the test {name}, which does not exist");
    }
}

/// Two providers would compile, and the library would not know which to take at the first token.
#[test]
fn there_is_one_provider_of_cryptography() {
    let mut tree = std::process::Command::new(env!("CARGO"));
    tree.args(["tree", "--all-features", "--edges", "normal", "--prefix", "none", "--offline", "--locked"]);
    let output = tree.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let crates = String::from_utf8(output.stdout).unwrap();
    let has = |name: &str| crates.lines().any(|line| line.split(' ').next() == Some(name));
    assert!(has("aws-lc-rs") && has("jsonwebtoken") && has("rustls"), "{crates}");
    for other in ["ring", "rsa", "openssl", "native-tls", "ed25519-dalek", "p256", "hmac"] {
        assert!(!has(other), "{other} has come into the build");
    }
}
