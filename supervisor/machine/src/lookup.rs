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

    /// What a plugin's file is called: `libplugin_pl011.so`.
    pub fn plugin_file(name: &str) -> String {
        format!("libplugin_{}.so", name.replace('-', "_"))
    }

    /// Where a plugin may lie, best first.
    pub fn plugin(&self, name: &str) -> Vec<PathBuf> {
        let file = Self::plugin_file(name);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_files_are_looked_up_in_order() {
        let layout = Layout::of(Path::new("/src/target/debug/supervisor"));
        let xdg = xdg_config(None, Some(Path::new("/home/me")));
        let all = layout.config(Path::new("machines/a.ron"), xdg.as_deref());
        let at =
            |p: &str| all.iter().position(|x| x == Path::new(p)).unwrap_or_else(|| panic!("{p} is not in {all:?}"));
        let order = [
            at("machines/a.ron"),
            at("configs/machines/a.ron"),
            at("/src/configs/machines/a.ron"),
            at("/src/target/debug/../share/reprise/configs/machines/a.ron"),
            at("/home/me/.config/reprise/machines/a.ron"),
        ];
        assert!(order.is_sorted(), "{all:?}");
        assert_eq!(layout.config(Path::new("/a.ron"), xdg.as_deref()), [Path::new("/a.ron")]);
    }

    #[test]
    fn a_relative_xdg_folder_counts_as_unset() {
        let home = Some(Path::new("/h"));
        assert_eq!(xdg_config(Some(Path::new("x")), home).as_deref(), Some(Path::new("/h/.config")));
        assert_eq!(xdg_config(Some(Path::new("/x")), home).as_deref(), Some(Path::new("/x")));
        assert_eq!(xdg_data(None, home).as_deref(), Some(Path::new("/h/.local/share")));
        assert_eq!(xdg_data(None, None), None);
    }

    #[test]
    fn plugins_and_children_lie_beside_the_program_or_in_the_prefix() {
        let layout = Layout::of(Path::new("/usr/bin/supervisor"));
        assert!(
            layout
                .plugin("vexpress-sysreg")
                .contains(&"/usr/bin/../lib/reprise/plugins/libplugin_vexpress_sysreg.so".into())
        );
        assert_eq!(layout.child("cpu-proc")[0], Path::new("/usr/bin/cpu-proc"));
        assert!(layout.child("cpu-proc").contains(&"/usr/bin/../libexec/reprise/cpu-proc".into()));
    }
}
