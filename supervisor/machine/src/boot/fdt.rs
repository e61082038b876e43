//! Changes a device tree blob: the memory that there is, the command line, the initial RAM disk. All else stays: nodes, properties, phandles and
//! reservations, in their order (Devicetree Specification v0.4, chapter 5).
//!
//! The blob is read here, with every offset checked, and written by `vm-fdt`.

use vm_fdt::{FdtReserveEntry, FdtWriter};

use super::{BootError, MAX_DTB, Part, error, panel};
use crate::machine::Panel;

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;
/// How deep nodes may nest.
const MAX_DEPTH: usize = 32;

const FIX: &str = "give the board's .dtb, as dtc or a kernel build makes it";

/// What is to be changed.
pub(super) struct Change<'a> {
    /// RAM: (base, size).
    pub(super) memory: (u64, u64),
    /// Memory that the kernel must leave alone: (base, size).
    pub(super) reserve: Option<(u64, u64)>,
    /// The command line, if it is to replace the tree's own.
    pub(super) bootargs: Option<&'a str>,
    /// The initial RAM disk: (first byte, one past the last).
    pub(super) initrd: Option<(u64, u64)>,
    /// Virtio devices that are to be found: (first address, size, SPI).
    pub(super) virtio: Vec<(u64, u64, u32)>,
    /// Displays that have a panel: (first address, panel).
    pub(super) panels: Vec<(u64, Panel)>,
}

/// A node of the tree.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) properties: Vec<(String, Vec<u8>)>,
    pub(super) children: Vec<Node>,
}

/// To make trees.
impl Node {
    pub(super) fn new(name: impl Into<String>) -> Self {
        Node { name: name.into(), ..Self::default() }
    }

    /// A property without a value.
    pub(super) fn flag(mut self, name: &str) -> Self {
        self.set(name, Vec::new());
        self
    }

    /// A property of strings.
    pub(super) fn strings(mut self, name: &str, values: &[&str]) -> Self {
        self.set(name, values.iter().flat_map(|v| v.bytes().chain([0])).collect());
        self
    }

    /// A property of 32-bit cells.
    pub(super) fn cells_of(mut self, name: &str, values: &[u32]) -> Self {
        self.set(name, values.iter().flat_map(|v| v.to_be_bytes()).collect());
        self
    }

    /// `reg` with two cells for each address and size.
    pub(super) fn reg(mut self, ranges: &[(u64, u64)]) -> Self {
        self.set("reg", ranges.iter().flat_map(|(at, size)| [at.to_be_bytes(), size.to_be_bytes()].concat()).collect());
        self
    }

    pub(super) fn child(mut self, child: Node) -> Self {
        self.children.push(child);
        self
    }

    /// The blob of the tree whose root this is.
    pub(super) fn blob(&self) -> Result<Vec<u8>, BootError> {
        write(self, &[], 0).map_err(unwritable)
    }
}

fn unwritable(e: vm_fdt::Error) -> BootError {
    BootError { part: Part::Dtb, what: format!("the device tree can't be written: {e}"), fix: FIX.into() }
}

impl Node {
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        self.properties.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    /// A property of one cell.
    pub(super) fn cell(&self, name: &str) -> Option<u32> {
        self.get(name).and_then(|v| v.try_into().ok()).map(u32::from_be_bytes)
    }

    /// The largest phandle of it and all below it.
    pub(super) fn last_phandle(&self) -> u32 {
        let below = self.children.iter().map(Node::last_phandle).max().unwrap_or(0);
        below.max(self.cell("phandle").unwrap_or(0))
    }

    /// The node that these names lead to.
    pub(super) fn descendant(&mut self, names: &[&str]) -> Option<&mut Node> {
        names.iter().try_fold(self, |node, name| node.children.iter_mut().find(|c| c.name == *name))
    }

    pub(super) fn set(&mut self, name: &str, value: Vec<u8>) {
        match self.properties.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => self.properties.push((name.to_owned(), value)),
        }
    }

    fn cells(&self, name: &str, default: u32) -> Result<u32, BootError> {
        match self.get(name).map(|v| <[u8; 4]>::try_from(v).map(u32::from_be_bytes)) {
            None => Ok(default),
            Some(Ok(n @ 1..=2)) => Ok(n),
            Some(_) => error(Part::Dtb, format!("the device tree's {name} is not 1 or 2"), FIX),
        }
    }

    /// Whether it or a node below it has this name.
    fn names(&self, name: &str) -> bool {
        self.name == name || self.children.iter().any(|c| c.names(name))
    }

    fn is_memory(&self) -> bool {
        self.get("device_type") == Some(b"memory\0") || self.name == "memory" || self.name.starts_with("memory@")
    }
}

/// The changed tree.
pub(super) fn patch(dtb: &[u8], change: &Change<'_>) -> Result<Vec<u8>, BootError> {
    let (mut root, mut reservations, boot_cpu) = read(dtb)?;
    reservations.extend(change.reserve.filter(|r| !reservations.contains(r)));
    let (address, size) = (root.cells("#address-cells", 2)?, root.cells("#size-cells", 1)?);
    set_memory(&mut root, change.memory, address, size);
    add_virtio(&mut root, &change.virtio, address, size);
    panel::add(&mut root, &change.panels);
    if !root.children.iter().any(|c| c.name == "chosen") {
        root.children.push(Node { name: "chosen".into(), ..Node::default() });
    }
    let chosen = root.children.iter_mut().find(|c| c.name == "chosen").expect("just made");
    if let Some(text) = change.bootargs {
        chosen.set("bootargs", [text.as_bytes(), b"\0"].concat());
    }
    chosen.properties.retain(|(n, _)| n != "linux,initrd-start" && n != "linux,initrd-end");
    if let Some((start, end)) = change.initrd {
        chosen.set("linux,initrd-start", cell(start, address));
        chosen.set("linux,initrd-end", cell(end, address));
    }
    let bytes = write(&root, &reservations, boot_cpu).map_err(unwritable)?;
    if bytes.len() > MAX_DTB {
        return error(Part::Dtb, "the device tree is too large", "at most 2 MiB");
    }
    Ok(bytes)
}

/// A device tree without the cores that a machine of `cores` cores leaves out. Their nodes stay, as others may refer to them (interrupt
/// affinities, `cpu-map`), but a kernel does not take them for cores any more. A tree that names no such core stays as it is.
///
/// # Errors
/// The bytes are no device tree.
pub fn trim(dtb: &[u8], cores: u32) -> Result<Vec<u8>, BootError> {
    let (mut root, reservations, boot_cpu) = read(dtb)?;
    let mut absent = false;
    let is_cpu = |n: &Node| n.get("device_type") == Some(b"cpu\0") || n.name == "cpu" || n.name.starts_with("cpu@");
    for cpu in root.children.iter_mut().filter(|n| n.name == "cpus").flat_map(|n| &mut n.children).filter(|n| is_cpu(n))
    {
        // The affinity fields of MPIDR; the cores of a machine are numbers 0 and up of cluster 0.
        let number = cpu.get("reg").and_then(|reg| reg.last_chunk()).map_or(0, |reg| u32::from_be_bytes(*reg));
        if number >= cores {
            absent = true;
            cpu.name = format!("absent-{}", cpu.name);
            cpu.properties.retain(|(name, _)| name != "device_type");
            cpu.set("status", b"disabled\0".to_vec());
        }
    }
    if absent { write(&root, &reservations, boot_cpu).map_err(unwritable) } else { Ok(dtb.to_vec()) }
}

/// A device tree as source text (Devicetree Specification v0.4, chapter 6), to be read. The types of values are not in a blob, so
/// they are guessed: printable text, else cells, else bytes.
///
/// # Errors
/// The bytes are no device tree.
pub fn text(dtb: &[u8]) -> Result<String, BootError> {
    let (root, reservations, _) = read(dtb)?;
    let mut out = String::from("/dts-v1/;\n");
    for (at, size) in reservations {
        out.push_str(&format!("/memreserve/ {at:#x} {size:#x};\n"));
    }
    root.print(0, &mut out);
    Ok(out)
}

impl Node {
    fn print(&self, depth: usize, out: &mut String) {
        let tabs = "\t".repeat(depth);
        out.push_str(&format!("{tabs}{} {{\n", if depth == 0 { "/" } else { &self.name }));
        for (name, value) in &self.properties {
            let equals = if value.is_empty() { "" } else { " = " };
            out.push_str(&format!("{tabs}\t{name}{equals}{};\n", value_text(value)));
        }
        self.children.iter().for_each(|c| c.print(depth + 1, out));
        out.push_str(&format!("{tabs}}};\n"));
    }
}

fn value_text(value: &[u8]) -> String {
    let strings = value.strip_suffix(b"\0").map(|v| v.split(|b| *b == 0));
    let printable = |s: &[u8]| !s.is_empty() && s.iter().all(|b| (b' '..=b'~').contains(b));
    if let Some(strings) = strings.filter(|s| s.clone().all(printable)) {
        let quoted = |s: &[u8]| format!("{:?}", String::from_utf8_lossy(s));
        return strings.map(quoted).collect::<Vec<_>>().join(", ");
    }
    if value.is_empty() {
        return String::new();
    }
    if value.len() % 4 != 0 {
        return format!("[{}]", value.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "));
    }
    let cell = |c: &[u8]| format!("{:#x}", u32::from_be_bytes(c.try_into().expect("4 bytes")));
    format!("<{}>", value.chunks_exact(4).map(cell).collect::<Vec<_>>().join(" "))
}

/// The first memory node gets the machine's RAM, others go.
fn set_memory(root: &mut Node, (base, bytes): (u64, u64), address: u32, size: u32) {
    let mut reg = cell(base, address);
    reg.extend(cell(bytes, size));
    let first = root.children.iter().position(Node::is_memory);
    let at = first.unwrap_or_else(|| {
        root.children.push(Node { name: format!("memory@{base:x}"), ..Node::default() });
        root.children.len() - 1
    });
    let node = &mut root.children[at];
    node.set("device_type", b"memory\0".to_vec());
    node.set("reg", reg);
    let mut index = 0;
    root.children.retain(|c| {
        index += 1;
        index - 1 <= at || !c.is_memory()
    });
}

/// Adds a node for each virtio device that the board's own tree doesn't name, as no real board has one (binding `virtio,mmio`). Its interrupt is one of the root's
/// interrupt controller, a GIC: SPI, number, level-sensitive.
fn add_virtio(root: &mut Node, devices: &[(u64, u64, u32)], address: u32, size: u32) {
    for &(at, bytes, spi) in devices {
        let name = format!("virtio@{at:x}");
        if root.get("interrupt-parent").is_none() || root.names(&name) {
            continue;
        }
        let mut node = Node { name, ..Node::default() };
        node.set("compatible", b"virtio,mmio\0".to_vec());
        node.set("reg", [cell(at, address), cell(bytes, size)].concat());
        node.set("interrupts", [0, spi, 4].iter().flat_map(|c: &u32| c.to_be_bytes()).collect());
        node.set("dma-coherent", Vec::new());
        root.children.push(node);
    }
}

fn cell(value: u64, cells: u32) -> Vec<u8> {
    match cells {
        1 => (value as u32).to_be_bytes().to_vec(),
        _ => value.to_be_bytes().to_vec(),
    }
}

type Tree = (Node, Vec<(u64, u64)>, u32);

/// Reads a blob.
fn read(dtb: &[u8]) -> Result<Tree, BootError> {
    if dtb.len() > MAX_DTB {
        return error(Part::Dtb, format!("the device tree has {} bytes", dtb.len()), "at most 2 MiB");
    }
    let word = |at: usize| {
        at.checked_add(4).and_then(|end| dtb.get(at..end)).map(|b| u32::from_be_bytes(b.try_into().expect("4 bytes")))
    };
    if word(0) != Some(MAGIC) {
        return error(Part::Dtb, "this is no device tree blob", FIX);
    }
    let field = |n: usize| word(n * 4).map(|v| v as usize).ok_or(());
    let header = || -> Result<_, ()> {
        Ok((field(1)?, field(2)?, field(3)?, field(4)?, field(6)?, field(7)?, field(8)?, field(9)?))
    };
    let Ok((total, structure, strings, reserve, last_compatible, boot_cpu, strings_size, structure_size)) = header()
    else {
        return error(Part::Dtb, "the device tree is cut short", FIX);
    };
    if total > dtb.len() || last_compatible > 17 {
        return error(
            Part::Dtb,
            format!("the device tree says {total} bytes and has {}, or is of an unknown version", dtb.len()),
            FIX,
        );
    }
    let part = |at: usize, size: usize| at.checked_add(size).and_then(|end| dtb.get(at..end));
    let (Some(structure), Some(strings), Some(reserve)) =
        (part(structure, structure_size), part(strings, strings_size), dtb.get(reserve..))
    else {
        return error(Part::Dtb, "the device tree's blocks lie outside it", FIX);
    };
    let mut reader = Reader { structure, strings, at: 0 };
    Ok((reader.tree()?, reservations(reserve)?, boot_cpu as u32))
}

fn reservations(block: &[u8]) -> Result<Vec<(u64, u64)>, BootError> {
    let mut all = Vec::new();
    for entry in block.chunks_exact(16) {
        let (at, size) = entry.split_at(8);
        let entry = (
            u64::from_be_bytes(at.try_into().expect("8 bytes")),
            u64::from_be_bytes(size.try_into().expect("8 bytes")),
        );
        if entry == (0, 0) {
            return Ok(all);
        }
        all.push(entry);
    }
    error(Part::Dtb, "the device tree's reservations have no end", FIX)
}

/// Walks the structure block.
struct Reader<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn damaged<T>(&self) -> Result<T, BootError> {
        error(Part::Dtb, format!("the device tree is damaged at byte {} of its structure", self.at), FIX)
    }

    fn word(&mut self) -> Result<u32, BootError> {
        let Some(bytes) = self.structure.get(self.at..self.at + 4) else { return self.damaged() };
        self.at += 4;
        Ok(u32::from_be_bytes(bytes.try_into().expect("4 bytes")))
    }

    fn text(&self, block: &[u8], at: usize) -> Result<String, BootError> {
        let text = block.get(at..).and_then(|b| b.split(|&c| c == 0).next().filter(|t| t.len() < b.len()));
        match text.and_then(|t| std::str::from_utf8(t).ok()) {
            Some(text) => Ok(text.to_owned()),
            None => self.damaged(),
        }
    }

    fn tree(&mut self) -> Result<Node, BootError> {
        let mut open: Vec<Node> = Vec::new();
        loop {
            match self.word()? {
                NOP => {}
                BEGIN_NODE if open.len() < MAX_DEPTH => {
                    let name = self.text(self.structure, self.at)?;
                    self.at = (self.at + name.len() + 1).next_multiple_of(4);
                    open.push(Node { name, ..Node::default() });
                }
                PROP => {
                    let (len, name) = (self.word()? as usize, self.word()? as usize);
                    let name = self.text(self.strings, name)?;
                    let value = self.at.checked_add(len).and_then(|end| self.structure.get(self.at..end));
                    let (Some(value), Some(node)) = (value, open.last_mut()) else { return self.damaged() };
                    node.properties.push((name, value.to_vec()));
                    self.at = (self.at + len).next_multiple_of(4);
                }
                END_NODE => {
                    let Some(node) = open.pop() else { return self.damaged() };
                    match open.last_mut() {
                        Some(parent) => parent.children.push(node),
                        None => return self.finish(node),
                    }
                }
                _ => return self.damaged(),
            }
        }
    }

    /// After the root only the end may come.
    fn finish(&mut self, root: Node) -> Result<Node, BootError> {
        loop {
            match self.word()? {
                NOP => {}
                END => return Ok(root),
                _ => return self.damaged(),
            }
        }
    }
}

fn write(root: &Node, reservations: &[(u64, u64)], boot_cpu: u32) -> Result<Vec<u8>, vm_fdt::Error> {
    let entries: Result<Vec<_>, _> = reservations.iter().map(|(at, size)| FdtReserveEntry::new(*at, *size)).collect();
    let mut writer = FdtWriter::new_with_mem_reserv(&entries?)?;
    writer.set_boot_cpuid_phys(boot_cpu);
    write_node(&mut writer, root)?;
    writer.finish()
}

fn write_node(writer: &mut FdtWriter, node: &Node) -> Result<(), vm_fdt::Error> {
    let open = writer.begin_node(&node.name)?;
    for (name, value) in &node.properties {
        writer.property(name, value)?;
    }
    for child in &node.children {
        write_node(writer, child)?;
    }
    writer.end_node(open)
}
