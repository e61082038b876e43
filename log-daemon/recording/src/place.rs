//! Where recordings are kept and how they are called.

use crate::{Error, MANIFEST_FILE, Result, inputs::temp_name};
use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

const LATEST: &str = "latest";

/// The folder of all recordings: `$REPRISE_DIR`, else `$XDG_DATA_HOME/reprise`, else `~/.local/share/reprise`, else
/// `reprise` in the temp folder.
pub fn recordings_root() -> PathBuf {
    let var = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    root_from(var("REPRISE_DIR"), var("XDG_DATA_HOME"), var("HOME"))
}

/// The rule of [`recordings_root`]. A relative XDG path is to be ignored, says the XDG base directory specification.
fn root_from(reprise: Option<PathBuf>, xdg: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    let data = xdg.filter(|p| p.is_absolute()).or_else(|| home.map(|h| h.join(".local/share")));
    reprise.or_else(|| data.map(|d| d.join("reprise"))).unwrap_or_else(|| env::temp_dir().join("reprise"))
}

/// The civil date and time of day, UTC: year, month, day, hour, minute, second. Times before 1970 count as 1970.
fn civil(time: SystemTime) -> [u64; 6] {
    let secs = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, rest) = (secs / 86400, secs % 86400);
    // Years that begin in March, in eras of 400 years: the leap day comes last and months follow a line.
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    [year, month, day, rest / 3600, rest / 60 % 60, rest % 60]
}

/// A time for the manifest: `2026-11-22T18:30:00Z`.
pub fn utc_text(time: SystemTime) -> String {
    let [y, mo, d, h, mi, s] = civil(time);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}Z")
}

/// A recording's directory name: `vexpress-20261122-183000-1a2b3c4d`, of the machine's name, the time in UTC and the
/// UUID's first eight digits. What does not suit a file name in the machine's name becomes `_`.
pub fn recording_name(machine: &str, time: SystemTime, uuid: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let machine: String = machine.trim_start_matches('.').chars().take(64).map(safe).collect();
    let machine = if machine.is_empty() { "machine" } else { &machine };
    let [y, mo, d, h, mi, s] = civil(time);
    let uuid: String = uuid.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    format!("{machine}-{y:04}{mo:02}{d:02}-{h:02}{mi:02}{s:02}-{uuid}")
}

/// Points `latest` in `root` at a recording; relative if the recording lies in `root`.
///
/// # Errors
/// [`Error::Io`]; the old link is still there then. Also if something other than a link is called `latest`.
pub fn set_latest(root: &Path, recording: &Path) -> Result<()> {
    fs::create_dir_all(root).map_err(Error::io("make", root))?;
    let link = root.join(LATEST);
    if fs::symlink_metadata(&link).is_ok_and(|m| !m.is_symlink()) {
        let taken = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it is no link; move it away");
        return Err(Error::io("replace", link)(taken));
    }
    let target = recording.canonicalize().map_err(Error::io("find", recording))?;
    let root_real = root.canonicalize().map_err(Error::io("find", root))?;
    let target = target.strip_prefix(&root_real).map_or(target.clone(), Path::to_owned);
    let temp = root.join(temp_name());
    std::os::unix::fs::symlink(&target, &temp).map_err(Error::io("make", &temp))?;
    fs::rename(&temp, &link).map_err(|e| {
        let _best_effort = fs::remove_file(&temp);
        Error::io("rename to", link)(e)
    })
}

/// The recording that `latest` in `root` points at.
///
/// # Errors
/// [`Error::NoLatest`] if there is none.
pub fn latest(root: &Path) -> Result<PathBuf> {
    let link = root.join(LATEST);
    link.canonicalize().map_err(|_| Error::NoLatest { path: link })
}

/// The directory that a user means: the one given, as it is or by its name in the recordings' folder, else the latest.
///
/// # Errors
/// [`Error::NoLatest`] if none was given and there is none.
pub fn resolve(given: Option<&Path>) -> Result<PathBuf> {
    let Some(given) = given else { return latest(&recordings_root()) };
    let named = recordings_root().join(given);
    if !given.exists() && named.join(MANIFEST_FILE).exists() { Ok(named) } else { Ok(given.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(secs)
    }

    #[test]
    fn dates_are_right() {
        assert_eq!(utc_text(at(0)), "1970-01-01T00:00:00Z");
        assert_eq!(utc_text(at(951_782_400)), "2000-02-29T00:00:00Z");
        assert_eq!(utc_text(at(1_709_251_199)), "2024-02-29T23:59:59Z");
        assert_eq!(utc_text(at(4_107_542_400)), "2100-03-01T00:00:00Z");
        assert_eq!(utc_text(at(1_795_372_200)), "2026-11-22T18:30:00Z");
    }

    #[test]
    fn names_suit_a_file_system() {
        let uuid = "1a2b3c4d-0000-4000-8000-000000000000";
        assert_eq!(recording_name("vexpress", at(1_795_372_200), uuid), "vexpress-20261122-183000-1a2b3c4d");
        assert_eq!(recording_name("../a b", at(0), uuid), "_a_b-19700101-000000-1a2b3c4d");
        assert_eq!(recording_name("", at(0), uuid), "machine-19700101-000000-1a2b3c4d");
    }

    #[test]
    fn the_root_follows_the_environment() {
        let p = |s: &str| Some(PathBuf::from(s));
        assert_eq!(root_from(p("/r"), p("/x"), p("/h")), Path::new("/r"));
        assert_eq!(root_from(None, p("/x"), p("/h")), Path::new("/x/reprise"));
        assert_eq!(root_from(None, p("x"), p("/h")), Path::new("/h/.local/share/reprise"));
        assert_eq!(root_from(None, None, None), env::temp_dir().join("reprise"));
    }

    #[test]
    fn latest_moves_and_is_relative_inside_the_root() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        assert!(matches!(latest(root.path()), Err(Error::NoLatest { .. })));
        for name in ["a", "b"] {
            fs::create_dir(root.path().join(name)).unwrap();
            set_latest(root.path(), &root.path().join(name)).unwrap();
            assert_eq!(fs::read_link(root.path().join(LATEST)).unwrap(), Path::new(name));
            assert_eq!(latest(root.path()).unwrap(), root.path().canonicalize().unwrap().join(name));
        }
        set_latest(root.path(), outside.path()).unwrap();
        assert_eq!(latest(root.path()).unwrap(), outside.path().canonicalize().unwrap());
        fs::remove_file(root.path().join(LATEST)).unwrap();
        fs::create_dir(root.path().join(LATEST)).unwrap();
        assert!(set_latest(root.path(), outside.path()).is_err());
    }
}
