//! The loadable segments of a 32-bit little-endian ARM ELF file.

use object::elf::{EM_ARM, FileHeader32, PT_LOAD};
use object::endian::Endianness;
use object::read::elf::{FileHeader, ProgramHeader};

use super::{BootError, Part, error};

/// The most bytes that an image's segments may have in memory.
const MAX_IMAGE: u64 = 256 << 20;

/// Its segments by physical address, zero-filled to their size in memory, and its entry.
#[allow(clippy::type_complexity)]
pub(super) fn segments(file: &[u8]) -> Result<(Vec<(u64, Vec<u8>)>, u64), BootError> {
    const FIX: &str = "give a 32-bit little-endian ARM executable, linked for the machine's RAM";
    let bad = |e: object::Error| BootError {
        part: Part::Kernel,
        what: format!("the ELF file is damaged: {e}"),
        fix: FIX.into(),
    };
    let header = FileHeader32::<Endianness>::parse(file).map_err(bad)?;
    let endian = header.endian().map_err(bad)?;
    if endian != Endianness::Little || header.e_machine(endian) != EM_ARM {
        return error(Part::Kernel, "the ELF file is not for a little-endian ARM", FIX);
    }
    let mut loads = Vec::new();
    let mut total = 0u64;
    for segment in header.program_headers(endian, file).map_err(bad)? {
        let size = u64::from(segment.p_memsz(endian));
        if segment.p_type(endian) != PT_LOAD || size == 0 {
            continue;
        }
        let data = segment.data(endian, file).map_err(|()| BootError {
            part: Part::Kernel,
            what: "the ELF file is cut short: a segment lies outside it".into(),
            fix: FIX.into(),
        })?;
        total += size;
        if (data.len() as u64) > size || total > MAX_IMAGE {
            return error(Part::Kernel, "the ELF file has impossible segments", FIX);
        }
        let mut bytes = data.to_vec();
        bytes.resize(size as usize, 0);
        loads.push((u64::from(segment.p_paddr(endian)), bytes));
    }
    if loads.is_empty() {
        return error(Part::Kernel, "the ELF file has nothing to load", FIX);
    }
    Ok((loads, u64::from(header.e_entry(endian))))
}
