//! The plugins of a machine: found, read, and held as sealed memfds, so that what is recorded is what runs.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Context;
use reprise_machine::lookup::Layout;
use reprise_machine::{Machine, Spans};

use crate::failure::Failure;
use crate::images;

/// The largest plugin.
const MAX_PLUGIN: u64 = 256 << 20;

/// One plugin file, shared by all devices that use it.
#[derive(Debug)]
pub(crate) struct PluginFile {
    /// Where it is from, for messages.
    pub(crate) origin: String,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    fd: OwnedFd,
}

impl AsFd for PluginFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PluginFile {
    /// Reads a plugin.
    pub(crate) fn read(path: &std::path::Path) -> anyhow::Result<Rc<Self>> {
        let name = || path.display().to_string();
        let meta = path.metadata().with_context(name)?;
        anyhow::ensure!(meta.is_file() && meta.len() <= MAX_PLUGIN, "{} is no plugin", name());
        Self::new(name(), std::fs::read(path).with_context(name)?)
    }

    pub(crate) fn new(origin: String, bytes: Vec<u8>) -> anyhow::Result<Rc<Self>> {
        let fd = images::sealed("reprise-plugin", &[&bytes])?;
        Ok(Rc::new(Self { origin, bytes, fd }))
    }
}

/// The plugin of each device, in the machine's order.
pub(crate) fn find(machine: &Machine, spans: &Spans, layout: &Layout) -> Result<Vec<Rc<PluginFile>>, Failure> {
    let mut known: HashMap<&str, Rc<PluginFile>> = HashMap::new();
    let mut all = Vec::new();
    for (i, device) in machine.devices.iter().enumerate() {
        let file = match known.get(device.plugin.as_str()) {
            Some(file) => file.clone(),
            None => {
                let path = locate(&device.plugin, layout).map_err(|looked| {
                    spans.plugin(
                        i,
                        format!("there is no plugin \"{}\"", device.plugin),
                        format!("build or install it: looked for {looked}"),
                    )
                })?;
                let size = path.metadata().map_or(0, |m| m.len());
                let bytes =
                    if size > MAX_PLUGIN { Err(std::io::ErrorKind::FileTooLarge.into()) } else { std::fs::read(&path) };
                let bytes = bytes
                    .map_err(|e| spans.plugin(i, format!("{}: {e}", path.display()), "build or install it again"))?;
                let file = PluginFile::new(path.display().to_string(), bytes)?;
                known.insert(&device.plugin, file.clone());
                file
            }
        };
        all.push(file);
    }
    Ok(all)
}

/// Folders of the user's own plugins, looked into first: a list with colons.
const FOLDERS: &str = "REPRISE_PLUGINS";

fn locate(name: &str, layout: &Layout) -> Result<PathBuf, String> {
    let own = std::env::var_os(FOLDERS).unwrap_or_default();
    let own = std::env::split_paths(&own).filter(|p| !p.as_os_str().is_empty());
    let mut places: Vec<PathBuf> = own.map(|folder| folder.join(Layout::plugin_file(name))).collect();
    places.extend(layout.plugin(name));
    match places.iter().find(|p| p.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")),
    }
}
