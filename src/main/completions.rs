//! `wsgate completions`: what a shell needs to complete the arguments, made from their definitions.

use std::io::Write;

use clap_complete::{Shell, generate};

use super::command_line;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // Into memory first: `generate` panics if it cannot write.
    let mut script = Vec::new();
    generate(arguments.shell, &mut command_line(), "wsgate", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}
