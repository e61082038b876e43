//! Makes the Linux test guest out of Debian's packages, as an ordinary user and without touching the system's package state.
//!
//! apt runs with a state, cache and configuration of its own in the guest folder, for the foreign architecture `armhf`, from the archive that
//! this system's own sources name. Packages are unpacked with `dpkg -x`, never installed.

use crate::cpio::Cpio;
use crate::paths;
use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The files of a finished guest.
#[derive(Debug, Clone)]
pub struct Guest {
    /// The folder that holds everything else.
    pub dir: PathBuf,
    /// Debian's unmodified `linux-image-armmp` kernel, a zImage.
    pub kernel: PathBuf,
    /// The same kernel with long translation descriptors, `linux-image-armmp-lpae`; made only on request ([`ensure_lpae`]). It boots with
    /// the same initramfs, whose modules are those of the other kernel.
    pub kernel_lpae: Option<PathBuf>,
    /// Device tree of the Cortex-A15 Versatile Express.
    pub dtb: PathBuf,
    /// Device tree of the Cortex-A9 Versatile Express.
    pub dtb_a9: PathBuf,
    /// busybox, our `/init` and a few kernel modules.
    pub initrd: PathBuf,
    /// The same with the modules for virtio devices, SD cards, network cards, and file systems on disks. In a file of its own, so that it costs a plain boot nothing.
    pub virtio_initrd: PathBuf,
    /// The initramfs with `kbench`; made only on request, as it needs a cross compiler.
    pub bench_initrd: Option<PathBuf>,
}

/// Applets that get a link in the guest's `/bin`.
const APPLETS: &str = "sh ash cat ls cp mv rm mkdir mount umount echo dmesg uname grep sed awk cut head tail sort tr wc md5sum sha256sum dd \
    sleep sync poweroff reboot halt modprobe insmod lsmod ps kill true false test [ date time hexdump od seq free top vi less more find xargs \
    stty printf env expr touch chmod df du id clear yes devmem setsid cttyhack hwclock nproc cmp tee ifconfig route udhcpc ping nc";

/// Kernel modules that go along, with what they depend on; underscores, no dashes.
const MODULES: &[&str] = &["sp805_wdt", "ambakmi", "psmouse", "evdev", "i2c_versatile", "at24"];

/// What the initramfs for disks and networks has besides.
const VIRTIO_MODULES: &[&str] = &[
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "virtio_console",
    "armmmci",
    "smsc911x",
    "smsc",
    "ext4",
    "crc32c_generic",
];

/// Part of the cache key: raise it when the layout of the initramfs changes.
const LAYOUT: &str = "1";

impl Guest {
    fn at(dir: &Path) -> Self {
        let bench = dir.join("initramfs-bench.cpio");
        let lpae = dir.join("zImage-lpae");
        Self {
            dir: dir.to_owned(),
            kernel: dir.join("zImage"),
            kernel_lpae: lpae.exists().then_some(lpae),
            dtb: dir.join("vexpress-v2p-ca15-tc1.dtb"),
            dtb_a9: dir.join("vexpress-v2p-ca9.dtb"),
            initrd: dir.join("initramfs.cpio"),
            virtio_initrd: dir.join("initramfs-virtio.cpio"),
            bench_initrd: bench.exists().then_some(bench),
        }
    }

    fn complete(&self, bench: bool) -> bool {
        let stamp = self.dir.join("stamp");
        [&self.kernel, &self.dtb, &self.dtb_a9, &self.initrd, &self.virtio_initrd].iter().all(|p| p.is_file())
            && (!bench || self.bench_initrd.is_some())
            && fs::read_to_string(stamp).is_ok_and(|s| s == cache_key())
    }
}

/// Where the guest is cached unless the user says otherwise: `guest` in cargo's target folder.
pub fn default_dir() -> PathBuf {
    paths::target_dir().join("guest")
}

/// Whether this system can make a guest at all, that is, has apt and dpkg.
pub fn possible() -> bool {
    ["apt-get", "apt-cache", "apt-config", "dpkg"].iter().all(|t| paths::tool(t).is_some())
}

/// The cached guest in `dir`, made first if it is missing or older than the scripts it holds. `bench` adds `kbench`.
///
/// # Errors
/// No apt, no Debian archive in its sources, or a download that failed; the message says what to do.
pub fn ensure(dir: &Path, bench: bool) -> Result<Guest> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let dir = &dir.canonicalize()?;
    // Held to the end of the function: two runs at once make the guest once.
    let _lock = lock(dir)?;
    let guest = Guest::at(dir);
    if guest.complete(bench) {
        return Ok(guest);
    }
    can_be_made()?;
    let apt = Apt::new(dir)?;
    let kernel_package = apt.fetch(Flavour::Plain, &["busybox-static"])?;
    build(dir, &apt, &kernel_package, bench)?;
    fs::write(dir.join("stamp"), cache_key())?;
    Ok(Guest::at(dir))
}

/// As [`ensure`] without `bench`, with the kernel that uses long descriptors as well.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_lpae(dir: &Path) -> Result<Guest> {
    let guest = ensure(dir, false)?;
    let dir = &guest.dir;
    let _lock = lock(dir)?;
    let guest = Guest::at(dir);
    if guest.kernel_lpae.is_some() {
        return Ok(guest);
    }
    can_be_made()?;
    let apt = Apt::new(dir)?;
    let package = apt.fetch(Flavour::Lpae, &[])?;
    let (image, _) = vmlinuz(&apt.unpack(&package)?)?;
    place(&image, &dir.join("zImage-lpae"))?;
    fs::remove_dir_all(apt.work.join("unpacked"))?;
    write_atomically(&dir.join("MANIFEST"), manifest(dir)?.as_bytes())?;
    Ok(Guest::at(dir))
}

fn lock(dir: &Path) -> Result<Flock<fs::File>> {
    let file = fs::File::create(dir.join(".lock"))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| anyhow!("locking {}: {e}", dir.display()))
}

fn can_be_made() -> Result<()> {
    ensure!(
        possible(),
        "the Linux guest is made from Debian's packages and this system has no apt and dpkg; `cargo xtask demo` runs the built-in \
         bare-metal guest instead"
    );
    Ok(())
}

/// Which of Debian's kernels for ARMv7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flavour {
    /// Short translation descriptors.
    Plain,
    /// Long ones.
    Lpae,
}

impl Flavour {
    /// The package that depends on the current kernel of this flavour.
    fn meta(self) -> &'static str {
        match self {
            Flavour::Plain => "linux-image-armmp",
            Flavour::Lpae => "linux-image-armmp-lpae",
        }
    }

    /// Whether a real package, `linux-image-VERSION-FLAVOUR`, is of this flavour.
    fn owns(self, package: &str) -> bool {
        package.starts_with("linux-image-") && package.ends_with("-lpae") == (self == Flavour::Lpae)
    }
}

/// The kernel image of an unpacked package, and its release.
fn vmlinuz(package: &Path) -> Result<(PathBuf, String)> {
    let image = list(&package.join("boot"))?
        .into_iter()
        .find(|n| n.starts_with("vmlinuz-"))
        .context("the kernel package holds no vmlinuz")?;
    let release = image.trim_start_matches("vmlinuz-").to_owned();
    Ok((package.join("boot").join(image), release))
}

/// What the initramfs depends on in this repository.
fn cache_key() -> String {
    let mut h = blake3::Hasher::new();
    for part in
        [LAYOUT.as_bytes(), APPLETS.as_bytes(), MODULES.join(" ").as_bytes(), VIRTIO_MODULES.join(" ").as_bytes()]
    {
        h.update(part);
    }
    for name in ["init", "run", "kbench.c"] {
        h.update(&fs::read(scripts().join(name)).unwrap_or_default());
    }
    h.finalize().to_hex().to_string()
}

/// The guest's own scripts and programs.
fn scripts() -> PathBuf {
    paths::root().join("tests/guests/linux")
}

/// A private apt: lists, cache and status below the guest folder.
struct Apt {
    work: PathBuf,
    debs: PathBuf,
    conf: PathBuf,
}

impl Apt {
    fn new(dir: &Path) -> Result<Self> {
        let work = dir.join("apt");
        let debs = dir.join("debs");
        for d in ["etc/preferences.d", "etc/apt.conf.d", "lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(work.join(d))?;
        }
        fs::create_dir_all(&debs)?;
        fs::write(work.join("status"), "")?;
        fs::write(work.join("etc/sources.list"), sources()?)?;
        let conf = work.join("apt.conf");
        let w = work.display();
        // The system's ways to reach its archive (proxies, timeouts) hold here too; its hooks and state do not.
        let acquire = output(Command::new("apt-config").arg("dump"))?;
        let acquire = acquire
            .lines()
            .filter(|l| l.starts_with("Acquire::") && !l.ends_with("\"\";"))
            .collect::<Vec<_>>()
            .join("\n");
        fs::write(
            &conf,
            format!(
                "{acquire}\nDir::Etc \"{w}/etc\";\nDir::Etc::Trusted \"/etc/apt/trusted.gpg\";\nDir::Etc::TrustedParts \"/etc/apt/trusted.gpg.d\";\n\
                 Dir::State \"{w}\";\nDir::State::lists \"{w}/lists\";\nDir::State::status \"{w}/status\";\nDir::Cache \"{w}/cache\";\n\
                 APT::Architecture \"armhf\";\nAPT::Architectures {{ \"armhf\"; }};\nAPT::Sandbox::User \"root\";\n\
                 Acquire::Languages \"none\";\nAcquire::Retries \"3\";\n"
            ),
        )?;
        Ok(Self { work, debs, conf })
    }

    fn command(&self, tool: &str) -> Command {
        let mut c = Command::new(tool);
        c.env("APT_CONFIG", &self.conf).env("LC_ALL", "C").current_dir(&self.debs);
        c
    }

    /// Downloads the current kernel of a flavour and what else is named, as far as it is not there yet; the name of the kernel's real package.
    fn fetch(&self, flavour: Flavour, others: &[&str]) -> Result<String> {
        let there = self.kernel_on_disk(flavour).filter(|_| others.iter().all(|p| self.deb(p).is_some()));
        if let Some(kernel) = there {
            return Ok(kernel);
        }
        eprintln!("guest: reading the package lists of Debian armhf");
        run(self.command("apt-get").args(["-qq", "update"]))?;
        let meta = flavour.meta();
        let depends = output(self.command("apt-cache").args(["depends", meta]))?;
        let kernel = depends
            .lines()
            .filter_map(|l| l.trim().strip_prefix("Depends: "))
            .find(|p| flavour.owns(p))
            .with_context(|| format!("this system's archive has no {meta} for armhf; a Debian archive is needed"))?
            .to_owned();
        let missing: Vec<&str> =
            [kernel.as_str()].into_iter().chain(others.iter().copied()).filter(|p| self.deb(p).is_none()).collect();
        if !missing.is_empty() {
            eprintln!("guest: downloading {}", missing.join(", "));
            run(self.command("apt-get").args(["-qq", "download"]).args(&missing))?;
        }
        self.kernel_on_disk(flavour).context("apt downloaded no kernel package")
    }

    fn kernel_on_disk(&self, flavour: Flavour) -> Option<String> {
        let names = list(&self.debs).ok()?;
        let mut kernels: Vec<String> = names
            .iter()
            .filter_map(|n| n.split_once('_'))
            .map(|(p, _)| p.to_owned())
            .filter(|p| flavour.owns(p))
            .collect();
        kernels.sort();
        kernels.pop()
    }

    /// The downloaded file of a package.
    fn deb(&self, package: &str) -> Option<PathBuf> {
        let prefix = format!("{package}_");
        let name = list(&self.debs).ok()?.into_iter().find(|n| n.starts_with(&prefix) && n.ends_with(".deb"))?;
        Some(self.debs.join(name))
    }

    /// Unpacks a package (afresh) and returns the folder.
    fn unpack(&self, package: &str) -> Result<PathBuf> {
        let deb = self.deb(package).with_context(|| format!("{package} was not downloaded"))?;
        let to = self.work.join("unpacked").join(package);
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        fs::create_dir_all(&to)?;
        run(Command::new("dpkg").arg("-x").arg(deb).arg(&to))?;
        Ok(to)
    }
}

/// A sources list for armhf: the first archive of this system's sources that looks like a Debian release.
fn sources() -> Result<String> {
    let targets = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
        "Created-By: Packages",
    ]))?;
    let (uri, release) = targets
        .lines()
        .filter_map(|l| {
            let mut f = l.split('|');
            Some((f.next()?, f.next()?, f.next()?))
        })
        // `bookworm`, not `bookworm-updates` or `bookworm-security`: one list is enough, and a release has it all.
        .find(|(_, release, component)| *component == "main" && !release.contains('-'))
        .map(|(uri, release, _)| (uri.to_owned(), release.to_owned()))
        .context("apt's sources on this system name no Debian release (`main` of, say, bookworm)")?;
    let key = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
    let signed = if key.exists() { format!("signed-by={} ", key.display()) } else { String::new() };
    Ok(format!("deb [{signed}arch=armhf] {uri} {release} main\n"))
}

/// Unpacks the packages and writes the guest's files.
fn build(dir: &Path, apt: &Apt, kernel_package: &str, bench: bool) -> Result<()> {
    let guest = Guest::at(dir);
    eprintln!("guest: unpacking {kernel_package} and busybox");
    let kernel = apt.unpack(kernel_package)?;
    let busybox = apt.unpack("busybox-static")?;
    let (image, release) = vmlinuz(&kernel)?;
    place(&image, &guest.kernel)?;
    let dtbs = kernel.join("usr/lib").join(kernel_package);
    for board in ["vexpress-v2p-ca15-tc1.dtb", "vexpress-v2p-ca9.dtb"] {
        let from = find(&dtbs, OsStr::new(board))?.with_context(|| format!("the kernel package holds no {board}"))?;
        place(&from, &dir.join(board))?;
    }
    let bb = ["bin/busybox", "usr/bin/busybox"].map(|p| busybox.join(p)).into_iter().find(|p| p.is_file());
    let bb = fs::read(bb.context("the busybox package holds no busybox")?)?;
    let with_virtio = modules(&kernel, &release, &[MODULES, VIRTIO_MODULES].concat())?;
    let modules = modules(&kernel, &release, MODULES)?;
    write_atomically(&guest.initrd, &initramfs(bb.clone(), &modules, None)?)?;
    write_atomically(&guest.virtio_initrd, &initramfs(bb.clone(), &with_virtio, None)?)?;
    let with_kbench = dir.join("initramfs-bench.cpio");
    if bench {
        write_atomically(&with_kbench, &initramfs(bb, &modules, Some(kbench(dir)?))?)?;
    } else if with_kbench.exists() {
        // It is older than the scripts.
        fs::remove_file(with_kbench)?;
    }
    fs::remove_dir_all(apt.work.join("unpacked"))?;
    write_atomically(&dir.join("MANIFEST"), manifest(dir)?.as_bytes())
}

/// Kernel modules and what they need: path inside the guest -> content, with `modules.dep`.
fn modules(kernel: &Path, release: &str, list: &[&str]) -> Result<BTreeMap<String, Vec<u8>>> {
    let root = [format!("lib/modules/{release}"), format!("usr/lib/modules/{release}")]
        .map(|p| kernel.join(p))
        .into_iter()
        .find(|p| p.is_dir());
    let Some(root) = root else { return Ok(BTreeMap::new()) };
    let mut index = BTreeMap::new();
    index_modules(&root, &mut index)?;
    let mut wanted: Vec<String> = list.iter().map(|m| (*m).to_owned()).collect();
    let mut seen = BTreeSet::new();
    let mut out = BTreeMap::new();
    // Each module's file, and the modules that it needs itself.
    let mut needs: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    while let Some(m) = wanted.pop() {
        if !seen.insert(m.clone()) {
            continue;
        }
        let path = index.get(&m).with_context(|| format!("the kernel package has no module {m}"))?;
        let data = fs::read(path)?;
        let inside = path.strip_prefix(&root)?.display().to_string();
        wanted.extend(depends(&data));
        needs.insert(m, (inside.clone(), depends(&data)));
        out.insert(format!("lib/modules/{release}/{inside}"), data);
    }
    let deps: String = needs.keys().map(|m| format!("{}: {}\n", needs[m].0, load_order(m, &needs).join(" "))).collect();
    out.insert(format!("lib/modules/{release}/modules.dep"), deps.into_bytes());
    for empty in ["modules.alias", "modules.symbols"] {
        out.insert(format!("lib/modules/{release}/{empty}"), Vec::new());
    }
    Ok(out)
}

/// The files of all modules that `module` needs, by whatever way: what modules.dep says. The last one is loaded first.
fn load_order(module: &str, needs: &BTreeMap<String, (String, Vec<String>)>) -> Vec<String> {
    let mut order: Vec<&String> = Vec::new();
    let mut todo: Vec<&String> = needs[module].1.iter().collect();
    while let Some(m) = todo.pop() {
        // What is needed again is loaded earlier.
        order.retain(|o| *o != m);
        order.push(m);
        todo.extend(&needs[m].1);
    }
    order.into_iter().map(|m| needs[m].0.clone()).collect()
}

/// The `depends=` entry of a module's `.modinfo` section.
fn depends(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|w| w == key) else { return Vec::new() };
    let rest = &module[at + key.len()..];
    let end = rest.iter().position(|b| *b == 0).unwrap_or(0);
    String::from_utf8_lossy(&rest[..end]).split(',').filter(|s| !s.is_empty()).map(|s| s.replace('-', "_")).collect()
}

fn index_modules(dir: &Path, into: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            index_modules(&entry.path(), into)?;
        } else if let Some(stem) = name.strip_suffix(".ko") {
            into.insert(stem.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

fn initramfs(busybox: Vec<u8>, modules: &BTreeMap<String, Vec<u8>>, kbench: Option<Vec<u8>>) -> Result<Vec<u8>> {
    let mut c = Cpio::new();
    for d in ["bin", "sbin", "dev", "proc", "sys", "tmp", "run", "root", "etc", "bench"] {
        c.dir(d);
    }
    c.chardev("dev/console", 5, 1);
    c.chardev("dev/null", 1, 3);
    c.file("bin/busybox", 0o755, busybox);
    for applet in APPLETS.split_whitespace() {
        c.link(&format!("bin/{applet}"), "busybox");
    }
    c.link("sbin/modprobe", "../bin/busybox");
    for (name, path) in [("init", "init"), ("run", "bench/run")] {
        c.file(path, 0o755, fs::read(scripts().join(name)).with_context(|| format!("reading the guest's {name}"))?);
    }
    c.file("etc/passwd", 0o644, b"root::0:0:root:/tmp:/bin/sh\n".to_vec());
    c.file("etc/group", 0o644, b"root:x:0:\n".to_vec());
    for (path, data) in modules {
        c.file(path, 0o644, data.clone());
    }
    if let Some(k) = kbench {
        c.file("bin/kbench", 0o755, k);
    }
    Ok(c.finish())
}

/// Builds the CPU benchmark for the guest with the cross compiler.
fn kbench(dir: &Path) -> Result<Vec<u8>> {
    let gcc = "arm-linux-gnueabihf-gcc";
    ensure!(
        paths::tool(gcc).is_some(),
        "`--bench` compiles kbench for the guest and needs {gcc}: install the packages gcc-arm-linux-gnueabihf and libc6-dev-armhf-cross"
    );
    let out = dir.join("kbench");
    let flags = "-O2 -march=armv7-a -mfpu=neon -mfloat-abi=hard -mthumb -ffast-math -ftree-vectorize -static -s -o";
    run(Command::new(gcc).args(flags.split_whitespace()).arg(&out).arg(scripts().join("kbench.c")))?;
    Ok(fs::read(out)?)
}

/// Packages and files of the guest, with sizes and hashes.
fn manifest(dir: &Path) -> Result<String> {
    let mut text = String::new();
    for name in list(&dir.join("debs"))? {
        text.push_str(&format!("{name}\n"));
    }
    for name in list(dir)? {
        let path = dir.join(&name);
        if path.is_file() && !["MANIFEST", "stamp", ".lock"].contains(&name.as_str()) {
            let data = fs::read(&path)?;
            text.push_str(&format!("{} {:>9} {name}\n", blake3::hash(&data).to_hex(), data.len()));
        }
    }
    Ok(text)
}

fn list(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn find(dir: &Path, name: &OsStr) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        if entry.file_name() == name {
            return Ok(Some(entry.path()));
        }
        if entry.file_type()?.is_dir() {
            if let Some(hit) = find(&entry.path(), name)? {
                return Ok(Some(hit));
            }
        }
    }
    Ok(None)
}

fn place(from: &Path, to: &Path) -> Result<()> {
    write_atomically(to, &fs::read(from).with_context(|| format!("reading {}", from.display()))?)
}

fn write_atomically(to: &Path, data: &[u8]) -> Result<()> {
    let part = to.with_extension("part");
    fs::write(&part, data).with_context(|| format!("writing {}", part.display()))?;
    fs::rename(&part, to)?;
    Ok(())
}

fn run(c: &mut Command) -> Result<()> {
    let status = c.status().with_context(|| format!("starting {:?}", c.get_program()))?;
    if !status.success() {
        bail!("{:?} failed ({status})", c.get_program());
    }
    Ok(())
}

fn output(c: &mut Command) -> Result<String> {
    let out = c.output().with_context(|| format!("starting {:?}", c.get_program()))?;
    if !out.status.success() {
        bail!("{:?} failed ({}): {}", c.get_program(), out.status, String::from_utf8_lossy(&out.stderr));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
