//! Where things lie: machine files, plugins, child programs. Only names are made here; who calls looks whether they exist.

use std::path::{Path, PathBuf};

/// The folders around a running binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The folder that the running binary is in.
    pub bin: PathBuf,
}

impl Layout {
    /// The layout around this executable.
    pub fn of(exe: &Path) -> Self {
        Self { bin: exe.parent().unwrap_or(Path::new("")).to_owned() }
    }

    /// The source checkout, if the binary lies in its `target/<profile>` (or `target/<triple>/<profile>`): any folder above that has `configs/machines`.
    fn checkouts(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.bin.ancestors().skip(1).take(4).map(Path::to_owned)
    }

    /// Where a child program may lie, best first: beside the running binary, or in the prefix's `libexec/reprise`.
    pub fn child(&self, name: &str) -> Vec<PathBuf> {
        vec![self.bin.join(name), self.bin.join("../libexec/reprise").join(name), self.bin.join("..").join(name)]
    }

    /// Where a plugin may lie, best first. `pl011` is the file `libplugin_pl011.so`.
    pub fn plugin(&self, name: &str) -> Vec<PathBuf> {
        let file = format!("libplugin_{}.so", name.replace('-', "_"));
        vec![
            self.bin.join(&file),
            self.bin.join("../lib/reprise/plugins").join(&file),
            self.bin.join("..").join(&file),
            self.bin.join("../deps").join(&file),
        ]
    }

    /// Where a machine file may lie, best first: as given; under `configs/` here, in the source checkout and in the installed prefix's
    /// `share/reprise/configs`; under the XDG configuration folder. An absolute path is looked up only as it is.
    pub fn config(&self, given: &Path, xdg_config: Option<&Path>) -> Vec<PathBuf> {
        let mut all = vec![given.to_owned()];
        if given.is_absolute() {
            return all;
        }
        all.push(Path::new("configs").join(given));
        all.extend(self.checkouts().map(|c| c.join("configs").join(given)));
        all.push(self.bin.join("../share/reprise/configs").join(given));
        all.extend(xdg_config.map(|x| x.join("reprise").join(given)));
        all
    }
}

/// The XDG configuration folder, from the values of `XDG_CONFIG_HOME` and `HOME`.
pub fn xdg_config(xdg_config_home: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
    xdg(xdg_config_home, home, ".config")
}

/// The XDG data folder, from the values of `XDG_DATA_HOME` and `HOME`.
pub fn xdg_data(xdg_data_home: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
    xdg(xdg_data_home, home, ".local/share")
}

/// The XDG rules count a relative path as unset.
fn xdg(var: Option<&Path>, home: Option<&Path>, default: &str) -> Option<PathBuf> {
    let set = var.filter(|p| p.is_absolute()).map(Path::to_owned);
    set.or_else(|| home.filter(|p| p.is_absolute()).map(|h| h.join(default)))
}
