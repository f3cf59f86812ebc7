//! A configuration file to begin with: every option with its default, and every section as an example.

use clap::Arg;

use super::options::{Options, is_list};
use super::settings::in_toml;

/// What stands at the top.
const ABOUT: &str = "\
# wsgate's configuration: every option with its default. What is commented out has none.
#
# Each of these is a flag of `wsgate serve` too, and a variable of the environment: `max_rooms` is
# --max-rooms and WSGATE_MAX_ROOMS. A flag counts before the environment, and that before this file.
# On SIGHUP, or POST /v1/reload, this file is read again; `wsgate config check` says whether it can be.
#
# The secret that tokens are signed with and the key of backends do not stand here: they are
# WSGATE_JWT_SECRET and WSGATE_API_KEY in the environment, or in files of their own.
";

/// The sections, each line behind `# `: what they mean is in the manuals.
const SECTIONS: &str = include_str!("sections.toml");

/// A configuration file that changes nothing, with all that can be said in one.
pub fn example() -> String {
    let mut text = ABOUT.to_owned();
    let mut heading = None;
    for arg in Options::command().get_arguments().filter(|arg| arg.get_id() != "config") {
        if arg.get_help_heading() != heading {
            heading = arg.get_help_heading();
            text += &format!("\n\n## {}\n", heading.unwrap_or_default());
        }
        text += &option(arg);
    }
    text + "\n\n" + SECTIONS
}

fn option(arg: &Arg) -> String {
    let name = arg.get_id().as_str();
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut text = String::from("\n");
    for line in wrap(&format!("{help}.")) {
        text += &format!("# {line}\n");
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| in_toml(&value.to_string_lossy())).collect();
    match defaults.first() {
        Some(default) => text += &format!("{name} = {default}\n"),
        None if is_list(arg) => text += &format!("# {name} = [{}]\n", placeholder(arg)),
        None => text += &format!("# {name} = {}\n", placeholder(arg)),
    }
    text
}

/// What stands where a value is to be: in quotes, but for numbers.
fn placeholder(arg: &Arg) -> String {
    let name = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
    if name == "NUMBER" { name } else { format!("\"{name}\"") }
}

/// Breaks a text into lines that fit beside `# `.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= 98 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::file::{File, fields};
    use super::super::{Anonymous, ApiKey, Backend, Issuer, RoomRule};
    use super::*;

    #[test]
    fn the_example_says_all_there_is_and_nothing_else_than_the_defaults() {
        let text = example();
        let table: BTreeMap<String, toml::Value> = toml::from_str(&text).unwrap();
        for arg in Options::command().get_arguments().filter(|arg| arg.get_id() != "config") {
            let name = arg.get_id().as_str();
            let default = arg.get_default_values().first().map(|value| in_toml(&value.to_string_lossy()));
            assert_eq!(table.get(name).map(ToString::to_string), default, "{name}");
            assert!(text.contains(&format!("\n{name} =")) || text.contains(&format!("\n# {name} =")), "{name}");
        }
        assert!(table.keys().all(|name| Options::command().get_arguments().any(|arg| arg.get_id() == name.as_str())));
        assert!(text.lines().all(|line| line.len() <= 120));
    }

    #[test]
    fn the_sections_of_the_example_are_right_and_have_every_field() {
        let bare = |line: &str| line.strip_prefix("# ").unwrap_or_default().to_owned();
        let text: Vec<_> = SECTIONS.lines().filter(|line| !line.starts_with("##")).map(bare).collect();
        let file: File = text.join("\n").parse().unwrap_or_else(|error| panic!("{error}"));
        assert!(
            !file.issuers.is_empty() && !file.rooms.is_empty() && file.backend.is_some() && file.anonymous.is_some()
        );
        let all =
            [fields::<Issuer>(), fields::<Backend>(), fields::<Anonymous>(), fields::<ApiKey>(), fields::<RoomRule>()];
        for field in all.into_iter().flatten().filter(|field| **field != "line") {
            assert!(
                text.iter().any(|line| line.contains(&format!("{field} =")))
                    || SECTIONS.contains(&format!("{field}]]")),
                "{field}"
            );
        }
    }
}
