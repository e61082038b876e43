//! Builds the machine and lays it out so that its parts find each other.

use crate::paths;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that a user calls.
const BIN: &[&str] = &["supervisor", "reprise-log", "vmctl"];
/// Programs that only the supervisor starts.
const LIBEXEC: &[&str] = &["cpu-proc", "log-daemon", "device-proc", "backend-proc"];

/// `cargo build --release` of everything a user runs. Debug builds are too slow to boot a kernel.
///
/// # Errors
/// The build fails.
pub fn build() -> Result<()> {
    let status = cargo().args(["build", "--release"]).status().context("starting cargo")?;
    ensure!(status.success(), "the build failed");
    Ok(())
}

/// The same of the programs that a user calls.
///
/// # Errors
/// The build fails.
pub fn build_programs() -> Result<()> {
    let packages = BIN.iter().flat_map(|name| ["-p", name]);
    let status = cargo().args(["build", "--release"]).args(packages).status().context("starting cargo")?;
    ensure!(status.success(), "the build failed");
    Ok(())
}

/// What the programs say of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manual {
    /// Manual pages.
    Pages,
    /// Completions for shells.
    Completions,
}

impl Manual {
    fn name(self) -> &'static str {
        match self {
            Self::Pages => "man",
            Self::Completions => "completions",
        }
    }

    /// Where they are made unless the user says otherwise.
    pub fn default_dir(self) -> PathBuf {
        paths::target_dir().join(self.name())
    }

    /// Lets each program make its own in `dir`.
    ///
    /// # Errors
    /// One was not built, or `dir` can't be written.
    pub fn make(self, dir: &Path) -> Result<()> {
        for program in BIN {
            let path = paths::release_dir().join(program);
            let status = Command::new(&path).args(["generate", self.name()]).arg(dir).status();
            let status = status.with_context(|| format!("starting {}; was it built?", path.display()))?;
            ensure!(status.success(), "{program} could not make its {}", self.name());
        }
        Ok(())
    }
}

/// A cargo command in the workspace's root.
pub fn cargo() -> Command {
    let mut c = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    c.current_dir(paths::root());
    c
}

/// Copies what was built to `prefix`: `bin`, `libexec/reprise`, `lib/reprise/plugins`, `share/reprise/configs`, and where manual pages and completions
/// are looked for.
///
/// # Errors
/// Something was not built, or `prefix` can't be written.
pub fn install(prefix: &Path) -> Result<()> {
    let release = paths::release_dir();
    for (names, to) in [(BIN, "bin"), (LIBEXEC, "libexec/reprise")] {
        for name in names {
            place(&release.join(name), &prefix.join(to).join(name))?;
        }
    }
    for plugin in plugins()? {
        let name = plugin.file_name().expect("plugins have names").to_owned();
        place(&plugin, &prefix.join("lib/reprise/plugins").join(name))?;
    }
    copy_tree(&paths::root().join("configs"), &prefix.join("share/reprise/configs"))?;
    install_manuals(&prefix.join("share"))
}

fn install_manuals(share: &Path) -> Result<()> {
    let made = tempfile::tempdir().context("a temporary folder")?;
    Manual::Pages.make(made.path())?;
    copy_tree(made.path(), &share.join("man/man1"))?;
    let made = tempfile::tempdir().context("a temporary folder")?;
    Manual::Completions.make(made.path())?;
    for name in BIN {
        place(&made.path().join(format!("{name}.bash")), &share.join("bash-completion/completions").join(name))?;
        place(&made.path().join(format!("_{name}")), &share.join("zsh/site-functions").join(format!("_{name}")))?;
        let fish = format!("{name}.fish");
        place(&made.path().join(&fish), &share.join("fish/vendor_completions.d").join(&fish))?;
    }
    Ok(())
}

/// Builds, and installs into a folder of the target directory; returns that prefix. Tests, demo and benchmarks run from there.
///
/// # Errors
/// As [`build`] and [`install`].
pub fn stage() -> Result<PathBuf> {
    build()?;
    let prefix = paths::target_dir().join("stage");
    install(&prefix)?;
    Ok(prefix)
}

/// Builds the version of a plugin that is newer than the installed one (`tests/plugins`), for the tests of plugins that are replaced.
///
/// # Errors
/// The build fails.
pub fn newer_plugin(name: &str) -> Result<PathBuf> {
    let package = format!("plugin-{name}-v2");
    let status = cargo().args(["build", "--release", "--quiet", "-p", &package]).status().context("starting cargo")?;
    ensure!(status.success(), "{package} does not build");
    Ok(paths::release_dir().join(format!("libplugin_{}_v2.so", name.replace('-', "_"))))
}

/// The plugins that were built: one shared object for each folder in `plugins/` that makes one.
fn plugins() -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(paths::root().join("plugins"))? {
        let entry = entry?;
        // What several plugins share is a library of its own.
        let makes_one = |manifest: String| manifest.contains("\"cdylib\"");
        if fs::read_to_string(entry.path().join("Cargo.toml")).is_ok_and(makes_one) {
            let name = entry.file_name().to_string_lossy().replace('-', "_");
            all.push(paths::release_dir().join(format!("libplugin_{name}.so")));
        }
    }
    all.sort();
    Ok(all)
}

/// Copies a file with its permissions, replacing what is there in one step: a running program keeps its old file.
fn place(from: &Path, to: &Path) -> Result<()> {
    let dir = to.parent().expect("a file in a folder");
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let part = to.with_extension("part");
    fs::copy(from, &part).with_context(|| format!("copying {} to {}; was it built?", from.display(), to.display()))?;
    fs::rename(&part, to).with_context(|| format!("writing {}", to.display()))
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            place(&entry.path(), &target)?;
        }
    }
    Ok(())
}
