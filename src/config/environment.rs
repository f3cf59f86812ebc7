//! Variables of the environment: what is in them, and which are none of ours.

use clap::Arg;

use super::file::{File, fields, suggest};
use super::options::{Options, PREFIX, argument, reason, variable};
use super::{Anonymous, Backend};

/// A variable of the environment; an empty one counts as none.
pub(super) fn environment(name: &str) -> Result<Option<String>, String> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(format!("{name} is not UTF-8")),
    }
}

/// The fields of a section that stand in the environment, if it is one table.
pub(super) fn fields_in_environment(section: &str) -> Result<Vec<(&'static str, String)>, String> {
    // What is read from another variable is named there.
    let values =
        fields_of(section).iter().map(|field| Ok((*field, environment(&variable(&format!("{section}_{field}")))?)));
    let values: Result<Vec<_>, String> = values.collect();
    Ok(values?.into_iter().filter_map(|(field, value)| Some((field, value?))).collect())
}

/// The names of a section's fields, if it is one table.
fn fields_of(section: &str) -> &'static [&'static str] {
    match section {
        "backend" => fields::<Backend>(),
        "anonymous" => fields::<Anonymous>(),
        _ => &[],
    }
}

/// The first variable of the environment whose value its option cannot have, and why: those who read it
/// would only name the option.
pub fn wrong_variable() -> Option<String> {
    let command = Options::command();
    let wrong = |arg: &Arg| {
        let name = variable(arg.get_id().as_str());
        let value = environment(&name).transpose()?;
        let parsed = value.and_then(|value| {
            command.clone().try_get_matches_from([argument(arg, &value)]).map_err(|error| reason(&error))
        });
        parsed.err().map(|why| format!("{name} {why}"))
    };
    command.get_arguments().find_map(wrong)
}

/// The names of all variables of the environment that are heeded.
fn variables() -> Vec<String> {
    let options = Options::command();
    let options = options.get_arguments().map(|arg| arg.get_id().to_string());
    let sections = File::names().iter().flat_map(|section| {
        std::iter::once((*section).to_owned())
            .chain(fields_of(section).iter().map(move |field| format!("{section}_{field}")))
    });
    let secrets = ["jwt_secret", "api_key"].map(str::to_owned);
    options.chain(sections).chain(secrets).map(|name| variable(&name)).collect()
}

/// Variables of the environment that look like ours and are none, each with what was probably meant.
pub(super) fn misspelt_variables() -> Vec<(String, String)> {
    let known = variables();
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown = names.filter(|name| name.starts_with(PREFIX) && !known.contains(name));
    let meant =
        |name: String| suggest(&name, known.iter().map(String::as_str)).map(|meant| (name.clone(), meant.to_owned()));
    // Those that resemble none are somebody else's, as what Kubernetes says of a service of this name.
    unknown.filter_map(meant).collect()
}
