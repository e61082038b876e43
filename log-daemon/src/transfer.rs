//! Transfers between devices and guest memory as they are recorded: references to disk images, and hashes of what devices read.

use std::collections::BTreeMap;
use std::os::fd::{FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use reprise_child::control::LogDisk;
use reprise_device::device::DmaRange;
use reprise_device::dma::{self, Origin};
use reprise_recording::dma::{DIGEST, MAX_RANGES, Packed, REFERENCES, Source, Write, digest, finish};
use reprise_recording::{Message, message};
use reprise_storage::{Disk, DiskFiles};

const _: () = assert!(MAX_RANGES == dma::MAX_RANGES);

/// Shorter data of a DMA-done request is recorded as it is: a hash would be no shorter.
const SHORTEST_DIGEST: usize = 32;

/// A transfer as it is recorded: bytes that a device says it has from a disk's image become a reference, if all of them are what `same` finds
/// there. Else the message stays as it is.
pub fn pack(m: Message, mut same: impl FnMut(Origin, &[u8]) -> bool) -> Message {
    if m.kind != message::DMA || m.data.is_empty() {
        return m;
    }
    let Ok(request) = dma::decode(&m.data) else { return m };
    if request.writes.iter().all(|w| w.origin.is_none()) {
        return m;
    }
    let mut hasher = blake3::Hasher::new();
    let mut writes = Vec::with_capacity(request.writes.len());
    for w in &request.writes {
        let from = match w.origin.map(|o| (o, o.to_bits())) {
            None => Source::Bytes(w.data.to_vec()),
            Some((origin, Some(bits))) if same(origin, w.data) => {
                hasher.update(w.data);
                Source::Image(bits)
            }
            Some(_) => return m,
        };
        writes.push(Write { addr: w.addr, len: w.data.len() as u64, from });
    }
    let reads = request.reads.iter().map(|r| (r.addr, r.len)).collect();
    let packed = Packed { tag: request.tag, reads, writes, digest: finish(&hasher.finalize()) };
    Message { flags: m.flags | REFERENCES, data: packed.encode(), ..m }
}

/// What a device read from guest memory, as it is recorded: its hash.
pub fn hash_read(m: Message) -> Message {
    if m.kind != message::DMA_DONE || m.data.len() < SHORTEST_DIGEST {
        return m;
    }
    Message { flags: m.flags | DIGEST, value: m.data.len() as u64, data: digest(&m.data).to_vec(), ..m }
}

/// A message as it would be recorded in the form that `like` has.
#[must_use]
pub fn in_form_of(like: &Message, m: Message) -> Message {
    match like.flags & (REFERENCES | DIGEST) {
        REFERENCES => pack(m, |_, _| true),
        DIGEST => hash_read(m),
        _ => m,
    }
}

/// The message that was recorded as `m`, with its bytes. `read` reads a disk as it was at the machine's start.
///
/// # Errors
/// The recorded form makes no sense, the disk can't be read, or holds something else.
pub fn unpack(m: &Message, mut read: impl FnMut(Origin, &mut [u8]) -> Result<(), String>) -> Result<Message, String> {
    if m.flags & REFERENCES == 0 {
        return Ok(m.clone());
    }
    let packed = Packed::decode(&m.data)?;
    let lens = || packed.writes.iter().map(|w| DmaRange { addr: w.addr, len: w.len });
    let reads: Vec<_> = packed.reads.iter().map(|&(addr, len)| DmaRange { addr, len }).collect();
    // Before anything is allocated for it.
    dma::check_ranges(reads.iter().copied(), lens().collect::<Vec<_>>().into_iter()).map_err(|e| e.to_string())?;
    let mut hasher = blake3::Hasher::new();
    let mut bytes = Vec::with_capacity(packed.writes.len());
    for w in packed.writes {
        bytes.push(match w.from {
            Source::Bytes(bytes) => (w.addr, bytes, None),
            Source::Image(bits) => {
                let origin = Origin::from_bits(bits).ok_or("a reference that no transfer can have")?;
                let mut data = vec![0; w.len as usize];
                read(origin, &mut data)?;
                hasher.update(&data);
                (w.addr, data, Some(origin))
            }
        });
    }
    if finish(&hasher.finalize()) != packed.digest {
        return Err("what the disk's image holds is not what was recorded".into());
    }
    let writes: Vec<_> =
        bytes.iter().map(|(addr, data, origin)| dma::Write { addr: *addr, data, origin: *origin }).collect();
    let data = dma::encode(packed.tag, &reads, &writes).map_err(|e| e.to_string())?;
    Ok(Message { flags: m.flags & !REFERENCES, data, ..m.clone() })
}

/// A disk at the machine's start.
#[derive(Debug)]
enum Image {
    /// Its files, which nobody has looked into.
    Files(Box<DiskFiles>),
    Open(Box<Disk>),
    /// It can't be read, and why.
    Broken(String),
}

/// The images of the devices' disks, as far as this process has them.
#[derive(Debug, Default)]
pub struct Images {
    disks: BTreeMap<(u16, u32), Image>,
    buffer: Vec<u8>,
}

impl Images {
    /// Takes the descriptors. What is in them is looked at later, in the sandbox.
    ///
    /// # Errors
    /// The start message makes no sense.
    pub fn new(disks: &[LogDisk]) -> Result<Self> {
        let mut images = Self::default();
        for d in disks {
            // SAFETY: the supervisor made this descriptor for this process and names it once; nothing else here owns it.
            let own = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
            let files = DiskFiles::new(&d.start, own).with_context(|| format!("the disk of {}", d.start.name))?;
            images.disks.insert((d.channel, d.disk), Image::Files(Box::new(files)));
        }
        Ok(images)
    }

    fn open(&mut self, channel: u16, disk: u32) -> Result<&mut Disk, String> {
        let none = || format!("there is no image of disk {disk} of this device");
        let image = self.disks.get_mut(&(channel, disk)).ok_or_else(none)?;
        if let Image::Files(_) = image {
            let Image::Files(files) = std::mem::replace(image, Image::Broken(String::new())) else { unreachable!() };
            *image = match Disk::open(*files) {
                Ok(disk) => Image::Open(Box::new(disk)),
                Err(e) => {
                    tracing::warn!("{e}");
                    Image::Broken(e.to_string())
                }
            };
        }
        match image {
            Image::Open(disk) => Ok(disk),
            Image::Broken(why) => Err(why.clone()),
            Image::Files(_) => unreachable!("just opened"),
        }
    }

    /// Reads from a disk as it was at the machine's start.
    ///
    /// # Errors
    /// There is no image, or it can't be read.
    pub fn read(&mut self, channel: u16, from: Origin, to: &mut [u8]) -> Result<(), String> {
        self.open(channel, from.disk)?.read(from.offset, to).map_err(|e| e.to_string())
    }

    /// Whether these bytes stand there. An image that this process does not have, or that was written to since, is no fault: the bytes are
    /// recorded then.
    pub fn same(&mut self, channel: u16, from: Origin, bytes: &[u8]) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(bytes.len(), 0);
        let same = self.read(channel, from, &mut buffer).is_ok() && buffer == bytes;
        self.buffer = buffer;
        same
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The contents of a made-up image.
    pub(crate) fn image(offset: u64, to: &mut [u8]) {
        for (i, b) in to.iter_mut().enumerate() {
            let n = offset + i as u64;
            *b = (n ^ n >> 8 ^ n >> 16) as u8;
        }
    }

    /// A read of `len` bytes at `offset` to guest memory, as a block device makes it, with a status byte.
    pub(crate) fn disk_read(number: u64, offset: u64, len: usize) -> Message {
        let mut data = vec![0; len];
        image(offset, &mut data);
        let origin = Some(Origin { disk: 0, offset });
        let writes = [
            dma::Write { addr: 0x8000_0000, data: &data, origin },
            dma::Write { addr: 0x9000_0000, data: b"\0", origin: None },
        ];
        let reads = [DmaRange { addr: 0x8100_0000, len: 16 }];
        let data = dma::encode(7, &reads, &writes).unwrap();
        Message { number, cause: number, kind: message::DMA, arg: 7, data, ..Message::default() }
    }

    fn same(origin: Origin, bytes: &[u8]) -> bool {
        let mut there = vec![0; bytes.len()];
        image(origin.offset, &mut there);
        there == bytes
    }

    fn read(origin: Origin, to: &mut [u8]) -> Result<(), String> {
        image(origin.offset, to);
        Ok(())
    }

    #[test]
    fn what_stands_in_the_image_is_a_reference() {
        let m = disk_read(3, 8192, 65536);
        let packed = pack(m.clone(), same);
        assert!(packed.data.len() < 100, "{} bytes", packed.data.len());
        assert_eq!(unpack(&packed, read).unwrap(), m);
        assert_eq!(in_form_of(&packed, m.clone()), packed);
        assert_eq!(pack(packed.clone(), same), packed, "packed twice");
        let other = unpack(&packed, |_, to| {
            to.fill(1);
            Ok(())
        });
        assert!(other.unwrap_err().contains("not what was recorded"));
        assert_eq!(unpack(&packed, |_, _| Err("gone".into())).unwrap_err(), "gone");
    }

    #[test]
    fn a_device_that_lies_gets_its_bytes_recorded() {
        let mut m = disk_read(3, 8192, 4096);
        let last = m.data.len() - 2;
        m.data[last] ^= 1;
        assert_eq!(pack(m.clone(), same), m);
        assert_eq!(unpack(&m, read).unwrap(), m);
    }

    #[test]
    fn what_devices_read_is_a_hash() {
        let done = |len: usize| Message { kind: message::DMA_DONE, arg: 1, data: vec![9; len], ..Message::default() };
        let short = hash_read(done(4096));
        assert_eq!((short.data.len(), short.value, short.flags), (16, 4096, DIGEST));
        assert_eq!(in_form_of(&short, done(4096)), short);
        let mut other = done(4096);
        other.data[77] ^= 1;
        assert_ne!(in_form_of(&short, other), short);
        assert_ne!(in_form_of(&short, done(4095)), short);
        assert_eq!(hash_read(done(20)), done(20));
    }

    #[test]
    fn a_forged_reference_is_an_error() {
        let packed = pack(disk_read(0, 0, 4096), same);
        for i in 0..packed.data.len() {
            let mut bad = packed.clone();
            bad.data[i] ^= 0x40;
            if let Ok(m) = unpack(&bad, read) {
                assert!(dma::decode(&m.data).is_ok());
            }
        }
        let large =
            Packed { writes: vec![Write { addr: 0, len: u64::MAX, from: Source::Image(0) }], ..Packed::default() };
        assert!(unpack(&Message { data: large.encode(), ..packed }, read).is_err());
    }

    /// 64 MiB from a file, as a guest's page cache reads them: in requests of 128 KiB, to pages all over its memory.
    #[test]
    fn reading_an_unchanged_image_takes_a_hundredth_of_it() {
        use reprise_child::control::{DiskImage, DiskMode, DiskStart};
        use reprise_recording::{Chunk, Writer, WriterOptions};
        use std::io::Write as _;
        use std::os::fd::IntoRawFd;
        const REQUEST: usize = 128 << 10;
        let mut file = tempfile::tempfile().unwrap();
        let mut bytes = vec![0; 64 << 20];
        image(0, &mut bytes);
        file.write_all(&bytes).unwrap();
        let image =
            DiskImage { fd: file.into_raw_fd(), name: "image".into(), format: reprise_machine::DiskFormat::Raw };
        let mode = DiskMode::ReadOnly;
        let start = DiskStart { name: "vda".into(), images: vec![image], mode, overlay: None, journal: None };
        let mut images = Images::new(&[LogDisk { channel: 0, disk: 0, start }]).unwrap();
        let (mut time, mut chunk) = (std::time::Duration::ZERO, Chunk::default());
        for (n, data) in bytes.chunks(REQUEST).enumerate() {
            let page = |(i, data)| {
                let page = (n * 32 + i) as u64;
                // A permutation of the guest's pages.
                let addr = 0x8000_0000 + (page * 7919 % 262_144) * 4096;
                dma::Write { addr, data, origin: Some(Origin { disk: 0, offset: page * 4096 }) }
            };
            let mut writes: Vec<_> = data.chunks(4096).enumerate().map(page).collect();
            writes.push(dma::Write { addr: 0x8800_0000, data: b"\0", origin: None });
            let data = dma::encode(n as u64, &[DmaRange { addr: 0x8800_0010, len: 16 }], &writes).unwrap();
            let m = Message { number: n as u64, kind: message::DMA, arg: n as u32, data, ..Message::default() };
            let began = std::time::Instant::now();
            let packed = pack(m, |from, bytes| images.same(0, from, bytes));
            time += began.elapsed();
            assert_ne!(packed.flags & REFERENCES, 0);
            chunk.channel(0).effects.push(packed);
        }
        let dir = tempfile::tempdir().unwrap();
        let manifest = reprise_recording::testing::manifest(&[(0, "vda")]);
        let stored = Writer::create(dir.path(), &manifest, WriterOptions::default())
            .unwrap()
            .append(&chunk)
            .unwrap()
            .stored_bytes;
        println!("64 MiB: {stored} bytes, {:.0} MiB/s", 64.0 / time.as_secs_f64());
        assert!(stored * 100 < bytes.len() as u64, "{stored} bytes");
    }
}
