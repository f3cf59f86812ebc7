//! `wsgate man`: the pages of the manual, made from the definitions of the arguments.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Command;
use clap_mangen::Man;

use super::command_line;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A folder to write all pages into, one for each command; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // A page for each `help` would only repeat the others.
    let mut command = described(command_line().disable_help_subcommand(true));
    command.build();
    let Some(dir) = &arguments.dir else {
        let mut text = Vec::new();
        page(&command).render(&mut text)?;
        return Ok(io::stdout().write_all(&text)?);
    };
    let written = std::fs::create_dir_all(dir).and_then(|()| write(&command, dir));
    written.with_context(|| format!("cannot write the manual into {}", dir.display()))
}

/// The same command, where options that are left out of the short help keep their words: a page would leave out
/// what is in the short help alone.
fn described(command: Command) -> Command {
    let command = command.mut_args(|arg| match (arg.get_long_help(), arg.get_help().cloned()) {
        (None, Some(help)) => arg.long_help(help),
        _ => arg,
    });
    command.mut_subcommands(described)
}

/// Writes the page of a command, and those of the commands below it.
fn write(command: &Command, dir: &Path) -> io::Result<()> {
    command.get_subcommands().try_for_each(|command| write(command, dir))?;
    page(command).generate_to(dir).map(drop)
}

fn page(command: &Command) -> Man {
    let title = command.get_display_name().unwrap_or_else(|| command.get_name()).to_uppercase();
    let version = concat!("wsgate ", env!("CARGO_PKG_VERSION"));
    // No date, so that the same source makes the same page. It goes out as it stands here: of
    // nothing at all would be left nothing, and the version would take its place.
    Man::new(command.clone()).title(title).date(r#""""#).source(version).manual("The manual of wsgate")
}
