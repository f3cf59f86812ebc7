//! Where each setting comes from. A flag counts before the environment, the environment before the
//! configuration file, and that before the default.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, FromArgMatches};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::environment::{environment, fields_in_environment};
use super::file::{File, Written, suggest, with_suggestion};
use super::mask::{MASK, masked};
use super::options::{Options, argument, is_list, reason, variable};
use super::{ConfigError, Secret};

/// All that an operator has decided, from wherever.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is one value each.
    pub options: Options,
    /// What is more than that.
    pub sections: File,
    /// Every setting by itself, in the order of the help.
    pub list: Vec<Setting>,
}

/// One option or section.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its name in the configuration file.
    pub name: String,
    /// As it stands in the configuration file, secrets masked; behind `#` if it has no value.
    pub text: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether it takes effect without a restart.
    pub live: bool,
    /// What it really is, to see whether it has changed.
    whole: Secret,
}

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An argument of the command.
    Flag(String),
    /// A variable of the environment.
    Environment(String),
    /// The configuration file, and the line there.
    File(PathBuf, usize),
    /// Nobody has decided.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path, line) => write!(f, "{} line {line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Settings {
    /// Gathers them: from the arguments of a command that has the [`Options`], and the environment; and
    /// from the configuration file that these name, which is read now.
    ///
    /// # Errors
    /// In words: the file cannot be read, or what is wrong where.
    pub fn gather(matches: &ArgMatches) -> Result<Self, String> {
        let path = matches.get_one::<PathBuf>("config");
        let written = path.map(|path| Written::read(path)).transpose()?;
        let mut gathering = Gathering { matches, written: written.unwrap_or_default(), path: path.cloned() };
        let (options, mut list) = gathering.options()?;
        let (sections, others) = gathering.sections()?;
        gathering.check_all_known(&list)?;
        list.extend(others);
        list.extend(secrets()?);
        Ok(Self { options, sections, list })
    }

    /// Says where a setting stands that cannot be.
    pub fn place(&self, error: &ConfigError) -> String {
        let name = error.setting.split(['.', '[']).next().unwrap_or_default();
        match self.list.iter().find(|setting| setting.name == name).map(|setting| &setting.origin) {
            // There may be several of these, and the line is that of the first.
            Some(Origin::File(path, _)) if File::names().contains(&name) => format!("{}: {error}", path.display()),
            Some(origin @ Origin::File(..)) => format!("{origin}: {error}"),
            Some(Origin::Environment(variable)) => format!("{variable}: {error}"),
            _ => error.to_string(),
        }
    }

    /// The settings that are not what they were, by name: those that can take effect now, and those that
    /// need a restart.
    pub fn changed_since(&self, before: &Self) -> (Vec<String>, Vec<String>) {
        let value =
            |list: &[Setting], name: &str| list.iter().find(|other| other.name == name).map(|it| it.whole.clone());
        let changed =
            self.list.iter().filter(|setting| value(&before.list, &setting.name).as_ref() != Some(&setting.whole));
        let (live, others): (Vec<_>, Vec<_>) = changed.partition(|setting| setting.live);
        let names = |settings: Vec<&Setting>| settings.into_iter().map(|setting| setting.name.clone()).collect();
        (names(live), names(others))
    }
}

/// What the settings are gathered from.
struct Gathering<'a> {
    matches: &'a ArgMatches,
    /// What has not been taken yet.
    written: Written,
    path: Option<PathBuf>,
}

impl Gathering<'_> {
    /// The options, by their own rules, wherever their values come from: as if all were arguments.
    fn options(&mut self) -> Result<(Options, Vec<Setting>), String> {
        let command = Options::command();
        let (mut arguments, mut list) = (Vec::<OsString>::new(), Vec::new());
        for arg in command.get_arguments() {
            let (values, origin) = self.values(arg)?;
            let given: Vec<OsString> = values.iter().map(|value| argument(arg, value)).collect();
            if let Origin::File(..) = origin {
                // By itself, so that it is clear which value is wrong.
                let alone = command.clone().try_get_matches_from(&given);
                alone.map_err(|error| format!("{origin}: {} {}", arg.get_id(), reason(&error)))?;
            }
            arguments.extend(given);
            list.push(setting(arg, &values, origin));
        }
        let matches = command.try_get_matches_from(arguments).map_err(|error| reason(&error))?;
        let mut options = Options::from_arg_matches(&matches).map_err(|error| reason(&error))?;
        self.resolve(&mut options, &list);
        for (name, path) in [("jwt_secret_file", &options.jwt_secret_file), ("api_key_file", &options.api_key_file)] {
            if let (Some(setting), Some(path)) = (list.iter_mut().find(|it| it.name == name), path) {
                setting.whole = Secret::new(format!("{}{}", setting.whole.reveal(), contents(path)));
            }
        }
        Ok((options, list))
    }

    /// The values of one option.
    fn values(&mut self, arg: &Arg) -> Result<(Vec<String>, Origin), String> {
        let name = arg.get_id().as_str();
        let given = || -> Result<Vec<String>, String> {
            let raw = self.matches.get_raw(name).into_iter().flatten();
            raw.map(|value| value.to_str().map(str::to_owned).ok_or(format!("{name} is not UTF-8"))).collect()
        };
        // Taken, whether it counts or not: what is left is unknown.
        let written = if name == "config" { None } else { self.written.values.remove(name) };
        match self.matches.value_source(name) {
            Some(ValueSource::CommandLine) => Ok((given()?, Origin::Flag(format!("--{}", name.replace('_', "-"))))),
            Some(ValueSource::EnvVariable) => Ok((given()?, Origin::Environment(variable(name)))),
            _ => match written {
                Some((value, line)) => {
                    let origin = Origin::File(self.path.clone().unwrap_or_default(), line);
                    let values = texts(value, is_list(arg)).map_err(|why| format!("{origin}: {name} {why}"))?;
                    Ok((values, origin))
                }
                None => {
                    let defaults = arg.get_default_values().iter();
                    Ok((defaults.map(|value| value.to_string_lossy().into_owned()).collect(), Origin::Default))
                }
            },
        }
    }

    /// Paths that stand in the file are relative to its folder.
    fn resolve(&self, options: &mut Options, list: &[Setting]) {
        let paths = [
            ("jwt_secret_file", &mut options.jwt_secret_file),
            ("api_key_file", &mut options.api_key_file),
            ("state_file", &mut options.state_file),
            ("tls_certificate", &mut options.tls_certificate),
            ("tls_key", &mut options.tls_key),
        ];
        for (name, path) in paths {
            let in_file = list.iter().any(|it| it.name == name && matches!(it.origin, Origin::File(..)));
            if let Some(path) = path.as_mut().filter(|_| in_file) {
                *path = self.written.folder().join(&*path);
            }
        }
    }

    /// The sections. Each may stand in a variable of the environment as well, whole, as an array or table
    /// of TOML; and each field of those that are one table.
    fn sections(&mut self) -> Result<(File, Vec<Setting>), String> {
        let mut sections = self.written.sections()?;
        let mut list = Vec::new();
        for name in File::names() {
            let written = self.written.values.remove(*name);
            let (mut value, mut origin) = match written {
                Some((value, line)) => (Some(value), Origin::File(self.path.clone().unwrap_or_default(), line)),
                None => (None, Origin::Default),
            };
            if let Some(text) = environment(&variable(name))? {
                let read = format!("{name} = {text}").parse::<File>().and_then(|file| Ok((file, parse(&text)?)));
                let (file, whole) = read.map_err(|why| format!("{}: {why}", variable(name)))?;
                (value, origin) = (Some(whole), Origin::Environment(variable(name)));
                sections.take(name, file);
            }
            for (field, text) in fields_in_environment(name)? {
                let table = value.get_or_insert_with(|| Table::new().into());
                let Some(table) = table.as_table_mut() else { continue };
                table.insert(field.to_owned(), parse(&text).unwrap_or(Value::String(text)));
                let named = variable(&format!("{name}_{field}"));
                sections.put(name, table.clone()).map_err(|why| format!("{named}: {why}"))?;
                origin = Origin::Environment(named);
            }
            let whole =
                value.as_ref().map(|value| format!("{value}{}", contents_of_files(value, self.written.folder())));
            let whole = Secret::new(whole.unwrap_or_default());
            let text = value.map_or_else(|| format!("# {name} ="), |value| section(name, masked(value)));
            let live = *name != "backend";
            list.push(Setting { name: (*name).to_owned(), text, origin, live, whole });
        }
        Ok((sections, list))
    }

    /// Whether something is left that nobody knows.
    fn check_all_known(&self, known: &[Setting]) -> Result<(), String> {
        let Some((name, (value, line))) = self.written.values.iter().min_by_key(|(_, (_, line))| *line) else {
            return Ok(());
        };
        let path = self.path.clone().unwrap_or_default();
        let place = Origin::File(path, *line);
        if matches!(name.as_str(), "jwt_secret" | "api_key") {
            let variable = variable(name);
            return Err(format!(
                "{place}: {name} does not stand here: give {name}_file, or {variable} in the environment"
            ));
        }
        let names = known.iter().map(|setting| setting.name.as_str()).chain(File::names().iter().copied());
        match (suggest(name, names), value) {
            (Some(meant), _) => Err(format!("{place}: unknown option `{name}`: did you mean `{meant}`?")),
            (None, Value::Table(_) | Value::Array(_)) => {
                let hint = "options stand at the top, above the first section, without a section of their own";
                Err(format!("{place}: unknown section `{name}`: {hint}"))
            }
            (None, _) => Err(format!("{place}: unknown option `{name}`")),
        }
    }
}

impl File {
    /// Puts one section of another file in the place of this one's.
    fn take(&mut self, name: &str, other: Self) {
        match name {
            "issuers" => self.issuers = other.issuers,
            "rooms" => self.rooms = other.rooms,
            "backend" => self.backend = other.backend,
            "anonymous" => self.anonymous = other.anonymous,
            _ => self.api_keys = other.api_keys,
        }
    }

    /// Puts a section in place that is one table.
    fn put(&mut self, name: &str, table: Table) -> Result<(), String> {
        fn read<T: DeserializeOwned>(table: Table) -> Result<T, String> {
            T::deserialize(Value::from(table)).map_err(|error| with_suggestion(error.message()))
        }
        match name {
            "backend" => self.backend = Some(read(table)?),
            _ => self.anonymous = Some(read(table)?),
        }
        Ok(())
    }
}

/// The secrets that stand in the environment, which are in no file.
fn secrets() -> Result<Vec<Setting>, String> {
    let given = ["jwt_secret", "api_key"].map(|name| Ok((name, environment(&variable(name))?)));
    let given: Result<Vec<_>, String> = given.into_iter().collect();
    let secret = |(name, value): (&str, Option<String>)| {
        let (whole, origin) = (Secret::new(value?), Origin::Environment(variable(name)));
        Some(Setting { name: name.to_owned(), text: format!("# {name} = \"{MASK}\""), origin, live: true, whole })
    };
    Ok(given?.into_iter().filter_map(secret).collect())
}

/// What the files hold that a section names, to see whether they have changed.
fn contents_of_files(value: &Value, folder: &Path) -> String {
    match value {
        Value::Table(table) => {
            let of = |(name, value): (&String, &Value)| match value {
                Value::String(path) if name.ends_with("_file") => contents(&folder.join(path)),
                value => contents_of_files(value, folder),
            };
            table.iter().map(of).collect()
        }
        Value::Array(values) => values.iter().map(|value| contents_of_files(value, folder)).collect(),
        _ => String::new(),
    }
}

/// What a file holds. Whoever needs it says what is wrong if it cannot be read.
fn contents(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A value as it stands behind a name in TOML.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let table: Table = toml::from_str(&format!("value = {text}")).map_err(|error| error.message().to_owned())?;
    table.get("value").cloned().ok_or_else(|| "is not one value".to_owned())
}

/// What stands in the file, as it would stand in an argument.
fn texts(value: Value, list: bool) -> Result<Vec<String>, &'static str> {
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Ok(value.to_string()),
        Value::Array(_) | Value::Table(_) | Value::Datetime(_) => {
            Err("must be one value: a string, a number or a boolean")
        }
    };
    match value {
        Value::Array(values) if list => values.into_iter().map(text).collect(),
        value if list => text(value).map(|one| vec![one]).map_err(|_| "must be a list of strings"),
        value => text(value).map(|one| vec![one]),
    }
}

fn setting(arg: &Arg, values: &[String], origin: Origin) -> Setting {
    let name = arg.get_id().to_string();
    let values: Vec<_> = values.iter().map(|value| in_toml(value)).collect();
    let value = match values.as_slice() {
        [] => None,
        several if is_list(arg) => Some(format!("[{}]", several.join(", "))),
        [one, ..] => Some(one.clone()),
    };
    // What stands in a file cannot say which file it is.
    let mark = if name == "config" { "# " } else { "" };
    let text = value.map_or_else(|| format!("# {name} ="), |value| format!("{mark}{name} = {value}"));
    Setting { live: Options::is_live(&name), name, whole: Secret::new(text.clone()), text, origin }
}

/// A value of an option in TOML: numbers and booleans bare, all else in quotes.
pub(super) fn in_toml(text: &str) -> String {
    match parse(text) {
        Ok(value @ (Value::Integer(_) | Value::Boolean(_))) if value.to_string() == text => text.to_owned(),
        _ => Value::from(text).to_string(),
    }
}

/// A section as it stands in a file.
pub(super) fn section(name: &str, value: Value) -> String {
    let table = Table::from_iter([(name.to_owned(), value)]);
    // What was read can be written.
    toml::to_string(&table).unwrap_or_default().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_they_are_read() {
        for (text, toml) in [("5", "5"), ("true", "true"), ("10s", "\"10s\""), ("0.0.0.0:8080", "\"0.0.0.0:8080\"")] {
            assert_eq!(in_toml(text), toml);
        }
    }
}
