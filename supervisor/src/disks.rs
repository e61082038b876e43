//! The disks of a machine: image files and what they are based on, opened and locked here, as their devices may open nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use reprise_child::control::{DiskImage, DiskJournal, DiskMode, DiskStart, Mode};
use reprise_machine::{Disk, DiskFormat, Machine, Spans};
use reprise_storage::{BLOCK, DiskFile, DiskFiles, Finished, detect, journal_size, look, write_layer};

use crate::children::Descriptors;
use crate::failure::Failure;

/// The most files of a chain in which each is based on the next.
const MAX_CHAIN: usize = 8;

/// A device's disk, open.
#[derive(Debug)]
pub(crate) struct OpenDisk {
    name: String,
    /// The image, then what it is based on.
    images: Vec<(DiskFile, DiskFormat)>,
    mode: DiskMode,
    /// Bytes that the guest sees.
    size: u64,
    overlay: Option<OwnedFd>,
    journal: Option<(OwnedFd, u32)>,
    /// With an overlay: what earlier lives of the machine wrote to theirs. Then the first of the images is the layer that holds it, a bit a block.
    inherited: Option<Vec<u64>>,
}

/// What a machine wrote beside the images of a disk, for its next life.
#[derive(Debug)]
pub(crate) struct Left {
    /// An image to be put on top of the others.
    layer: OwnedFd,
    blocks: Vec<u64>,
    /// Holds the locks: nobody else may write the images meanwhile.
    _images: Vec<(DiskFile, DiskFormat)>,
}

/// What is wrong with a disk, and what to do.
#[derive(Debug, PartialEq)]
struct Fault {
    what: String,
    fix: String,
}

impl Fault {
    fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: fix.into() }
    }
}

/// `what; what to do`, as the errors of images are.
impl From<reprise_storage::StorageError> for Fault {
    fn from(e: reprise_storage::StorageError) -> Self {
        let text = e.to_string();
        let (what, fix) = text.rsplit_once("; ").unwrap_or((&text, "give another image"));
        Self::new(what, fix)
    }
}

/// Opens the disks of all devices, in the machine's order, and notes in the machine where and what they are, so that a recording can be replayed from
/// anywhere. In a replay nothing is written to an image. `slots` is the size of the journals, in blocks of 4 KiB; none: a killed device can't be
/// restarted.
pub(crate) fn open_all(
    machine: &mut Machine,
    spans: Option<&Spans>,
    mode: Mode,
    slots: Option<u32>,
) -> Result<Vec<Option<OpenDisk>>, Failure> {
    let mut disks = Vec::new();
    for (i, device) in machine.devices.iter_mut().enumerate() {
        let Some(disk) = device.disk.as_mut() else {
            disks.push(None);
            continue;
        };
        let opened = OpenDisk::open(&device.name, disk, mode.is_replay(), slots);
        let opened = opened.map_err(|Fault { what, fix }| match spans {
            Some(spans) => spans.disk(i, what, fix).into(),
            None => Failure::recording(format!("{}: {what}; {fix}", device.name)),
        })?;
        disk.format = Some(opened.images[0].1);
        disks.push(Some(opened));
    }
    Ok(disks)
}

/// What a machine that starts anew finds on its disks with overlays, by device. Their processes are gone.
///
/// # Errors
/// There is no memory for it.
pub(crate) fn left(disks: Vec<Option<OpenDisk>>) -> Result<Vec<Option<Left>>, Failure> {
    let left = |disk: Option<OpenDisk>| {
        let Some(disk) = disk else { return Ok(None) };
        let name = disk.name.clone();
        disk.left().with_context(|| format!("{name}: what the guest wrote can't be kept for the machine's next life"))
    };
    Ok(disks.into_iter().map(left).collect::<anyhow::Result<_>>()?)
}

/// Puts what earlier lives have left on the disks of a machine that starts anew.
pub(crate) fn inherit(disks: &mut [Option<OpenDisk>], left: Vec<Option<Left>>) {
    for (disk, left) in disks.iter_mut().zip(left) {
        if let (Some(disk), Some(Left { layer, blocks, .. })) = (disk, left) {
            let name = format!("{} (what the guest wrote before the reset)", disk.name);
            disk.images.insert(0, (DiskFile::new(layer, name), DiskFormat::Qcow2));
            disk.inherited = Some(blocks);
        }
    }
}

impl OpenDisk {
    /// What was written beside its images; none if there is nothing.
    fn left(self) -> anyhow::Result<Option<Left>> {
        let images = self.anew()?;
        let (Some(overlay), Some((journal, slots))) = (self.overlay, self.journal) else { return Ok(None) };
        let layer = memfd_create("reprise-layer", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let to = DiskFile::new(layer.try_clone()?, "the layer");
        let blocks = write_layer(
            Finished {
                images,
                overlay: DiskFile::new(overlay, "the overlay"),
                journal: (DiskFile::new(journal, "the journal"), slots),
                before: self.inherited.unwrap_or_default(),
            },
            &to,
        )?;
        let Some(blocks) = blocks else { return Ok(None) };
        // Its next device only reads it.
        fcntl(&layer, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
        Ok(Some(Left { layer, blocks, _images: self.images }))
    }

    /// It holds what earlier lives of the machine wrote, so that no file holds what the guest finds on it.
    pub(crate) fn is_inherited(&self) -> bool {
        self.inherited.is_some()
    }

    /// The images that were given.
    fn given(&self) -> &[(DiskFile, DiskFormat)] {
        &self.images[usize::from(self.is_inherited())..]
    }

    /// The machine has not begun, and a process that had this disk is dead: what it noted is forgotten.
    pub(crate) fn forget(&self) -> io::Result<()> {
        let Some((journal, _)) = &self.journal else { return Ok(()) };
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let size = nix::sys::stat::fstat(journal)?.st_size;
        Ok(fallocate(journal, mode, 0, size)?)
    }

    fn open(device: &str, disk: &mut Disk, replay: bool, slots: Option<u32>) -> Result<Self, Fault> {
        let mode = match (disk.readonly, disk.snapshot || replay) {
            (true, _) => DiskMode::ReadOnly,
            (_, true) => DiskMode::Snapshot,
            _ => DiskMode::Writable,
        };
        let given = disk.file.display().to_string();
        disk.file = disk.file.canonicalize().map_err(|e| unreadable(&given, &e))?;
        let (images, size) = chain(&disk.file, disk.format, mode)?;
        let overlay = (mode == DiskMode::Snapshot).then(|| memory("reprise-overlay", size.next_multiple_of(BLOCK)));
        let journal = slots.filter(|_| mode != DiskMode::ReadOnly).map(|slots| {
            let fd = memory("reprise-journal", journal_size(size, slots))?;
            Ok::<_, io::Error>((fd, slots))
        });
        let no_memory =
            |e: io::Error| Fault::new(format!("{given}: no memory for what the guest writes: {e}"), "free some");
        Ok(Self {
            name: device.to_owned(),
            images,
            mode,
            size,
            overlay: overlay.transpose().map_err(no_memory)?,
            journal: journal.transpose().map_err(no_memory)?,
            inherited: None,
        })
    }

    /// For tests of others: opens a disk as the command line describes it.
    #[cfg(test)]
    pub(crate) fn for_test(device: &str, text: &str) -> Self {
        let (_, mut disk) = reprise_machine::parse_disk(&format!("{device}={text}")).unwrap();
        Self::open(device, &mut disk, false, None).unwrap()
    }

    /// What the device's process is told, and the descriptors that it gets.
    pub(crate) fn start(&self, descriptors: &mut Descriptors) -> anyhow::Result<DiskStart> {
        let mut images = Vec::new();
        for (file, format) in &self.images {
            let fd = descriptors.add(file.as_fd()).context("dup")?;
            images.push(DiskImage { fd, name: file.name().to_owned(), format: *format });
        }
        let mut add = |fd: &OwnedFd| descriptors.add(fd.as_fd()).context("dup");
        let journal = |(fd, slots): &(OwnedFd, u32)| anyhow::Ok(DiskJournal { fd: add(fd)?, slots: *slots });
        let journal = self.journal.as_ref().map(journal).transpose()?;
        let overlay = self.overlay.as_ref().map(add).transpose()?;
        Ok(DiskStart { name: self.name.clone(), images, mode: self.mode, overlay, journal })
    }

    /// Its files, opened anew, so that whoever gets them can't write.
    fn anew(&self) -> anyhow::Result<Vec<(DiskFile, DiskFormat)>> {
        let image = |(file, format): &(DiskFile, DiskFormat)| {
            let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
            let fd = File::open(&path).with_context(|| format!("opening {} once more", file.name()))?;
            Ok((DiskFile::new(fd.into(), file.name()), *format))
        };
        self.images.iter().map(image).collect()
    }

    /// What reads it, apart from its device.
    pub(crate) fn to_read(&self) -> anyhow::Result<DiskFiles> {
        Ok(DiskFiles::to_read(&self.name, self.anew()?))
    }

    /// What a log-daemon is told of it, which only reads.
    pub(crate) fn start_to_read(&self, descriptors: &mut Descriptors) -> anyhow::Result<DiskStart> {
        let mut images = Vec::new();
        for (file, format) in self.anew()? {
            let fd = descriptors.add(file.as_fd()).context("dup")?;
            images.push(DiskImage { fd, name: file.name().to_owned(), format });
        }
        Ok(DiskStart { name: self.name.clone(), images, mode: DiskMode::ReadOnly, overlay: None, journal: None })
    }

    /// Bytes that the guest sees.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// What its files are called: the image, then what it is based on.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.images.iter().map(|(file, _)| file.name())
    }

    /// What may be done with it.
    pub(crate) fn mode(&self) -> DiskMode {
        self.mode
    }

    /// The format of its image, and whether that holds the disk alone.
    pub(crate) fn format(&self) -> (DiskFormat, bool) {
        (self.given()[0].1, self.images.len() == 1)
    }

    /// Its image.
    pub(crate) fn image(&self) -> &DiskFile {
        &self.given()[0].0
    }

    /// Bytes of the host's disk that its files take.
    pub(crate) fn allocated(&self) -> io::Result<u64> {
        let blocks = |(file, _): &(DiskFile, DiskFormat)| Ok(nix::sys::stat::fstat(file)?.st_blocks as u64 * 512);
        self.images.iter().map(blocks).sum()
    }

    /// BLAKE3 of what the guest finds on it at the machine's start. To be asked for before the device's process is started.
    pub(crate) fn hash(&self, progress: impl FnMut(u64, u64)) -> Result<[u8; 32], Failure> {
        reprise_storage::image_hash(self.to_read()?, progress).map_err(|e| Failure::config(e.to_string()))
    }
}

fn unreadable(file: &str, e: &io::Error) -> Fault {
    Fault::new(format!("{file}: {e}"), "give an image that can be read")
}

/// An image and what it is based on, and the disk's size.
fn chain(file: &Path, format: Option<DiskFormat>, mode: DiskMode) -> Result<(Vec<(DiskFile, DiskFormat)>, u64), Fault> {
    let mut images = Vec::new();
    let (mut path, mut given, mut size) = (file.to_owned(), format, 0);
    loop {
        let writable = mode == DiskMode::Writable && images.is_empty();
        let opened = open(&path, writable)?;
        let format = detect(&opened, given)?;
        let (bytes, backing) = look(&opened, format, writable)?;
        images.push((opened, format));
        if images.len() == 1 {
            size = bytes;
        }
        let Some(backing) = backing else { return Ok((images, size)) };
        if images.len() == MAX_CHAIN {
            let what = format!("{}: more than {MAX_CHAIN} images are based on each other", file.display());
            return Err(Fault::new(what, "merge some with `qemu-img commit` or `qemu-img rebase`"));
        }
        path = backing_path(&path, &backing.file)?;
        given = backing.format;
    }
}

/// Where a backing file lies that an image names.
fn backing_path(image: &Path, name: &str) -> Result<PathBuf, Fault> {
    let local = name.strip_prefix("file:").unwrap_or(name);
    // What has a colon before its first slash names a protocol.
    if local.split('/').next().is_some_and(|start| start.contains(':')) {
        let what = format!("{}: it is based on `{name}`, which is no local file", image.display());
        return Err(Fault::new(what, "copy it to a file and rebase with `qemu-img rebase`"));
    }
    let path = image.parent().unwrap_or(Path::new("")).join(local);
    path.canonicalize().map_err(|e| {
        let what = format!("{}: it is based on {}: {e}", image.display(), path.display());
        Fault::new(what, "bring that file back, or rebase with `qemu-img rebase`")
    })
}

fn open(path: &Path, writable: bool) -> Result<DiskFile, Fault> {
    let name = path.display().to_string();
    // Opening a named pipe must not wait for anyone.
    let mut options = OpenOptions::new();
    options.read(true).write(writable).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if writable => Fault::new(
            format!("{name}: it can't be written: {e}"),
            "use it with snapshot=on or readonly, or make it writable",
        ),
        _ => unreadable(&name, &e),
    })?;
    let kind = file.metadata().map_err(|e| unreadable(&name, &e))?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(Fault::new(format!("{name}: it is neither a file nor a block device"), "give an image"));
    }
    lock(&file, &name, writable)?;
    Ok(DiskFile::new(file.into(), name))
}

/// Locks an image as long as anyone has this descriptor: for one machine that writes, or for many that read. QEMU's locks exclude these and are
/// excluded by them.
fn lock(file: &File, name: &str, writable: bool) -> Result<(), Fault> {
    let kind = if writable { libc::F_WRLCK } else { libc::F_RDLCK };
    let range = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range)) {
        Ok(_) => Ok(()),
        Err(Errno::EAGAIN | Errno::EACCES) if writable => Err(Fault::new(
            format!("{name}: it is in use by another disk or program"),
            "end that, or use the image with snapshot=on or readonly in all of them",
        )),
        Err(Errno::EAGAIN | Errno::EACCES) => Err(Fault::new(
            format!("{name}: another disk or program writes to it"),
            "end that, or give this machine a copy",
        )),
        Err(e) => {
            tracing::warn!("{name}: it can't be locked ({e}): see that nothing else uses it");
            Ok(())
        }
    }
}

/// A memfd of a fixed size, all zero. It takes memory only where it is written.
fn memory(name: &str, bytes: u64) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    nix::unistd::ftruncate(&fd, bytes as i64)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use reprise_storage::testing::{Cluster, Qcow2Builder};

    use super::*;

    fn qcow2(backing: Option<&str>, format: Option<&'static str>) -> Vec<u8> {
        let builder = Qcow2Builder { version: 3, cluster_bits: 12, backing: backing.map(|b| (b.to_owned(), format)) };
        builder.build(&[7; 8192], |_| Cluster::Absent)
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new(files: &[(&str, &[u8])]) -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            files.iter().for_each(|(name, bytes)| std::fs::write(folder.0.path().join(name), bytes).unwrap());
            folder
        }

        fn disk(&self, text: &str) -> Disk {
            let (_, mut disk) = reprise_machine::parse_disk(&format!("sd={text}")).unwrap();
            disk.file = self.0.path().join(disk.file);
            disk
        }

        fn open(&self, text: &str) -> Result<OpenDisk, Fault> {
            OpenDisk::open("sd", &mut self.disk(text), false, Some(64))
        }

        /// What is said to a disk that is refused.
        fn refused(&self, text: &str) -> String {
            let Fault { what, fix } = self.open(text).unwrap_err();
            format!("{what}; {fix}")
        }
    }

    #[test]
    fn a_chain_is_opened_to_its_end() {
        let below = vec![3; 5000];
        let folder = Folder::new(&[
            ("top.qcow2", &qcow2(Some("middle.qcow2"), Some("qcow2"))),
            ("middle.qcow2", &qcow2(Some("below.img"), Some("raw"))),
            ("below.img", &below),
        ]);
        let disk = folder.open("top.qcow2,snapshot=on").unwrap();
        let formats: Vec<_> = disk.images.iter().map(|(_, f)| *f).collect();
        assert_eq!(formats, [DiskFormat::Qcow2, DiskFormat::Qcow2, DiskFormat::Raw]);
        let mut descriptors = Descriptors::default();
        let start = disk.start(&mut descriptors).unwrap();
        assert_eq!(start.images.len(), 3);
        assert!(start.overlay.is_some() && start.journal.is_some());
        let mut contents = below;
        contents.resize(8192, 0);
        assert_eq!(disk.hash(|_, _| ()).unwrap(), *blake3::hash(&contents).as_bytes());
        assert_eq!(folder.open("below.img,readonly").unwrap().hash(|_, _| ()).unwrap(), {
            contents.truncate(5120);
            *blake3::hash(&contents).as_bytes()
        });
    }

    #[test]
    fn an_image_is_written_by_one() {
        let folder = Folder::new(&[("a.img", &[0; 512]), ("top.qcow2", &qcow2(Some("a.img"), Some("raw")))]);
        let writer = folder.open("a.img").unwrap();
        assert!(folder.refused("a.img").contains("a.img: it is in use by another disk or program; end that"));
        assert!(folder.refused("a.img,readonly").contains("another disk or program writes to it"));
        assert!(folder.refused("top.qcow2").contains("a.img: another disk or program writes to it"));
        // It is locked as long as the device has it.
        let inherited = writer.images[0].0.as_fd().try_clone_to_owned().unwrap();
        drop(writer);
        assert!(folder.refused("a.img").contains("in use"));
        drop(inherited);
        let readers = [folder.open("a.img,readonly").unwrap(), folder.open("a.img,snapshot=on").unwrap()];
        assert!(folder.refused("a.img").contains("in use"));
        drop(readers);
        folder.open("a.img").unwrap();
    }

    #[test]
    fn what_can_t_be_used_is_refused_with_advice() {
        let mut encrypted = qcow2(None, None);
        encrypted[35] = 2;
        let folder = Folder::new(&[
            ("attack.img", &qcow2(Some("/etc/passwd"), Some("raw"))),
            ("raw.qcow2", &[0; 512]),
            ("empty.img", &[]),
            ("loop.qcow2", &qcow2(Some("loop.qcow2"), Some("qcow2"))),
            ("net.qcow2", &qcow2(Some("nbd://somewhere/x"), None)),
            ("orphan.qcow2", &qcow2(Some("gone.img"), None)),
            ("vmdk.qcow2", &qcow2(Some("empty.img"), Some("vmdk"))),
            ("encrypted.qcow2", &encrypted),
        ]);
        for (disk, text) in [
            (
                "attack.img",
                "attack.img: it begins like a qcow2 image, but a guest that had it as a raw disk may have written that",
            ),
            ("raw.qcow2", "it is called a qcow2 image, but does not begin like one; say format=raw"),
            ("raw.qcow2,format=qcow2", "this is no qcow2 image; say format=raw"),
            ("empty.img", "a disk of 0 bytes is impossible"),
            ("loop.qcow2,snapshot", "more than 8 images are based on each other; merge"),
            ("net.qcow2", "it is based on `nbd://somewhere/x`, which is no local file"),
            ("orphan.qcow2", "gone.img: No such file or directory (os error 2); bring that file back"),
            ("vmdk.qcow2", "has a format that is not supported; convert the backing file"),
            ("encrypted.qcow2", "encrypted images are not supported; decrypt it"),
            ("nothing.img", "nothing.img: No such file or directory (os error 2); give an image that can be read"),
            (".,readonly", "it is neither a file nor a block device; give an image"),
        ] {
            assert!(folder.refused(disk).contains(text), "{disk}: {}", folder.refused(disk));
        }
        let attack = folder.open("attack.img,format=raw").unwrap();
        assert_eq!(attack.images.len(), 1);
    }
}
