//! Manual pages and completions of a program, made by the program itself: only it knows all of its command line. `cargo xtask man` and `cargo xtask
//! completions` ask for them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;

/// What a program's hidden command `generate` makes.
#[derive(Args, Clone, Debug)]
pub struct Generate {
    /// What to make.
    pub what: What,
    /// The folder to make it in.
    pub dir: PathBuf,
}

/// What can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// A manual page for the program and for each of its commands, section 1.
    Man,
    /// Completions for bash, zsh and fish.
    Completions,
}

/// The shells that get completions.
pub const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

impl Generate {
    /// Makes it.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn run(&self, command: Command) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        match self.what {
            What::Man => man(command, &self.dir),
            What::Completions => completions(command, &self.dir),
        }
    }
}

fn man(command: Command, dir: &Path) -> io::Result<()> {
    // What every program has is no page of its own.
    clap_mangen::generate_to(command.disable_help_subcommand(true), dir)
}

fn completions(mut command: Command, dir: &Path) -> io::Result<()> {
    let name = command.get_name().to_owned();
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut command, &name, dir)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Command {
        let hidden = Command::new("secret").hide(true);
        Command::new("tool").about("Does things").subcommand(Command::new("run").about("Runs")).subcommand(hidden)
    }

    #[test]
    fn each_command_has_a_page() {
        let dir = std::env::temp_dir().join(format!("reprise-manual-{}", std::process::id()));
        Generate { what: What::Man, dir: dir.clone() }.run(program()).unwrap();
        Generate { what: What::Completions, dir: dir.clone() }.run(program()).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["_tool", "tool-run.1", "tool.1", "tool.bash", "tool.fish"]);
        assert!(fs::read_to_string(dir.join("tool.1")).unwrap().contains("Does things"));
        fs::remove_dir_all(dir).unwrap();
    }
}
