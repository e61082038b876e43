//! A writer of initramfs archives (the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`, "newc").
//!
//! Two archives of the same content are the same bytes: entries are sorted, times and owners are 0, inode numbers count up.

use std::collections::BTreeMap;

/// One entry of the archive.
struct Entry {
    mode: u32,
    data: Vec<u8>,
    major: u32,
    minor: u32,
}

/// An archive in the making. Paths have no leading slash; parent folders come by themselves.
#[derive(Default)]
pub struct Cpio {
    entries: BTreeMap<String, Entry>,
}

impl Cpio {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder (mode 755) and those above it.
    pub fn dir(&mut self, path: &str) {
        if path.is_empty() || self.entries.contains_key(path) {
            return;
        }
        self.parent(path);
        self.add(path, 0o40755, Vec::new(), 0, 0);
    }

    /// Adds a file with permission bits `mode`.
    pub fn file(&mut self, path: &str, mode: u32, data: Vec<u8>) {
        self.parent(path);
        self.add(path, 0o100_000 | mode, data, 0, 0);
    }

    /// Adds a symbolic link to `target`.
    pub fn link(&mut self, path: &str, target: &str) {
        self.parent(path);
        self.add(path, 0o120_777, target.as_bytes().to_vec(), 0, 0);
    }

    /// Adds a character device (mode 600).
    pub fn chardev(&mut self, path: &str, major: u32, minor: u32) {
        self.parent(path);
        self.add(path, 0o20600, Vec::new(), major, minor);
    }

    fn parent(&mut self, path: &str) {
        if let Some((up, _)) = path.rsplit_once('/') {
            self.dir(up);
        }
    }

    fn add(&mut self, path: &str, mode: u32, data: Vec<u8>, major: u32, minor: u32) {
        assert!(!path.starts_with('/'), "archive paths are relative: {path}");
        self.entries.insert(path.to_owned(), Entry { mode, data, major, minor });
    }

    /// The archive's bytes, padded to 512.
    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::new();
        let trailer = Entry { mode: 0, data: Vec::new(), major: 0, minor: 0 };
        let all = self.entries.iter().map(|(n, e)| (n.as_str(), e)).chain([("TRAILER!!!", &trailer)]);
        for (ino, (name, e)) in all.enumerate() {
            let size = e.data.len() as u32;
            let name_size = name.len() as u32 + 1;
            let fields = [ino as u32 + 1, e.mode, 0, 0, 1, 0, size, 0, 0, e.major, e.minor, name_size, 0];
            out.extend_from_slice(b"070701");
            for f in fields {
                out.extend_from_slice(format!("{f:08X}").as_bytes());
            }
            out.extend_from_slice(name.as_bytes());
            out.push(0);
            pad(&mut out, 4);
            out.extend_from_slice(&e.data);
            pad(&mut out, 4);
        }
        pad(&mut out, 512);
        out
    }
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_follows_the_format() {
        let mut c = Cpio::new();
        c.file("a/b", 0o644, b"hello".to_vec());
        c.chardev("dev/console", 5, 1);
        let bytes = c.finish();
        assert_eq!(bytes.len() % 512, 0);
        // The folder `a` comes first, made for the file's sake.
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22], b"000041ED");
        assert_eq!(&bytes[110..112], b"a\0");
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("TRAILER!!!") && text.contains("hello"));
        // Each header starts on a multiple of four.
        assert!(text.match_indices("070701").all(|(at, _)| at % 4 == 0));
    }

    #[test]
    fn order_of_adding_does_not_matter() {
        let make = |names: &[&str]| {
            let mut c = Cpio::new();
            names.iter().for_each(|n| c.file(n, 0o600, n.as_bytes().to_vec()));
            c.finish()
        };
        assert_eq!(make(&["x", "d/y", "d/z"]), make(&["d/z", "x", "d/y"]));
    }
}
