//! Turns the instruction tables in `isa/` into a matcher, operand structs, calls of the semantic functions and a coverage list.
//!
//! The format is described in `docs/isa-tables.md`. The build fails on a malformed line and on two lines that match one encoding without
//! standing in one `{ }` group.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The encoding spaces: name, width in bits, and the bits that select a bucket.
const SPACES: [(&str, u32, &[u32]); 3] = [
    ("a32", 32, &[4, 5, 6, 7, 20, 21, 22, 23, 24, 25, 26, 27]),
    ("t32", 32, &[4, 5, 6, 7, 15, 20, 21, 22, 23, 24, 25, 26, 27]),
    ("t16", 16, &[6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
];

/// One format: the operand struct that lines fill.
struct Format {
    name: String,
    fields: Vec<(String, String)>,
}

/// One line of a table, for one space.
struct Line {
    name: String,
    at: String,
    group: Option<usize>,
    mask: u32,
    value: u32,
    /// Letter -> bit numbers, most significant first.
    letters: BTreeMap<char, Vec<u32>>,
    constraints: Vec<String>,
    format: String,
    args: Vec<(String, String)>,
    sem: String,
    asm: String,
    /// Has a condition field (A32), or takes its condition from the IT block.
    conditional: bool,
}

fn main() {
    let dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("isa");
    println!("cargo::rerun-if-changed=isa");
    println!("cargo::rerun-if-changed=build.rs");
    let mut files: Vec<PathBuf> = fs::read_dir(&dir)
        .expect("isa/ is there")
        .map(|e| e.expect("readable").path())
        .filter(|p| p.extension().is_some_and(|x| x == "decode"))
        .collect();
    files.sort();
    let mut t = Tables::default();
    for f in &files {
        t.file(f);
    }
    t.check_overlaps();
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it")).join("isa.rs");
    fs::write(out, t.generate()).expect("OUT_DIR is writable");
}

/// Everything read from the tables.
#[derive(Default)]
struct Tables {
    formats: BTreeMap<String, Format>,
    uses: Vec<String>,
    lines: BTreeMap<&'static str, Vec<Line>>,
    groups: usize,
}

/// Splits `text` at `sep` outside brackets.
fn split_top(text: &str, sep: char) -> Vec<String> {
    let (mut depth, mut cur, mut out) = (0i32, String::new(), Vec::new());
    for c in text.chars() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            _ => {}
        }
        if c == sep && depth == 0 {
            out.push(cur.trim().to_string());
            cur.clear();
        } else {
            cur.push(c);
        }
    }
    if !cur.trim().is_empty() {
        out.push(cur.trim().to_string());
    }
    out
}

/// The columns of a line: at most six, separated by `|` outside brackets.
fn columns(text: &str) -> Vec<String> {
    let (mut depth, mut out) = (0i32, vec![String::new()]);
    for c in text.chars() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            _ => {}
        }
        if c == '|' && depth == 0 && out.len() < 6 {
            out.push(String::new());
        } else {
            out.last_mut().expect("never empty").push(c);
        }
    }
    out.iter().map(|c| c.trim().to_string()).collect()
}

/// The name and the inside of the braces of `Name { inside }`.
fn braced<'a>(text: &'a str, at: &str) -> (&'a str, &'a str) {
    let (name, rest) =
        text.split_once('{').unwrap_or_else(|| panic!("{at}: expected `Name {{ ... }}`, found `{text}`"));
    let inside = rest.trim_end().strip_suffix('}').unwrap_or_else(|| panic!("{at}: `}}` is missing in `{text}`"));
    (name.trim(), inside.trim())
}

/// The T32 form of an A32 pattern of the coprocessor and SIMD spaces (ARM DDI 0406C A6.3.18, A7.4, A7.7).
fn to_t32(pattern: &str, at: &str) -> String {
    if let Some(rest) = pattern.strip_prefix("cccc") {
        format!("1110{rest}")
    } else if let Some(rest) = pattern.strip_prefix("1111001") {
        format!("111{}1111{}", &rest[..1], &rest[1..])
    } else if let Some(rest) = pattern.strip_prefix("11110100") {
        format!("11111001{rest}")
    } else {
        assert!(pattern.starts_with("1111"), "{at}: no T32 form of this A32 pattern is known");
        pattern.to_string()
    }
}

impl Tables {
    fn file(&mut self, path: &Path) {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let text = fs::read_to_string(path).expect("readable");
        let (mut spaces, mut group): (Vec<&'static str>, Option<usize>) = (Vec::new(), None);
        for (no, raw) in text.lines().enumerate() {
            let at = format!("isa/{name}:{}", no + 1);
            let line = raw.split("##").next().unwrap_or("").trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(rest) = line.strip_prefix("use ") {
                self.uses.push(rest.trim().trim_end_matches(';').to_string());
            } else if let Some(rest) = line.strip_prefix("spaces ") {
                spaces = rest
                    .split_whitespace()
                    .map(|w| {
                        let s = SPACES.iter().find(|s| s.0 == w);
                        s.unwrap_or_else(|| panic!("{at}: unknown space `{w}`")).0
                    })
                    .collect();
            } else if let Some(rest) = line.strip_prefix("format ") {
                self.format(rest, &at);
            } else if line == "{" {
                assert!(group.is_none(), "{at}: groups do not nest");
                self.groups += 1;
                group = Some(self.groups);
            } else if line == "}" {
                assert!(group.take().is_some(), "{at}: no group is open");
            } else {
                assert!(!spaces.is_empty(), "{at}: say `spaces ...` first");
                for (i, s) in spaces.iter().enumerate() {
                    let derive = i > 0;
                    // A group that is declared once stands for one group in each space; numbers need not differ across spaces.
                    let l = Self::line(line, &at, s, derive, group);
                    self.lines.entry(s).or_default().push(l);
                }
            }
        }
        assert!(group.is_none(), "isa/{name}: a group is left open");
    }

    fn format(&mut self, text: &str, at: &str) {
        let (name, inside) = braced(text, at);
        let fields = split_top(inside, ',')
            .iter()
            .map(|f| {
                let (n, t) = f.split_once(':').unwrap_or_else(|| panic!("{at}: field `{f}` has no type"));
                (n.trim().to_string(), t.trim().to_string())
            })
            .collect();
        let old = self.formats.insert(name.to_string(), Format { name: name.to_string(), fields });
        assert!(old.is_none(), "{at}: format {name} is declared twice");
    }

    fn line(text: &str, at: &str, space: &str, derive: bool, group: Option<usize>) -> Line {
        // Semantic expressions may hold `|`, so columns are separated by ` | ` outside brackets; the syntax column comes last.
        let cols = columns(text);
        let [name, pattern, constraints, args, sem, asm] = <[String; 6]>::try_from(cols).unwrap_or_else(|c| {
            panic!(
                "{at}: 6 columns `name | pattern | constraints | Format {{..}} | function | syntax`, found {}",
                c.len()
            )
        });
        let mut pattern: String = pattern.chars().filter(|c| !c.is_whitespace() && *c != '_').collect();
        let width = SPACES.iter().find(|s| s.0 == space).expect("known").1;
        assert!(
            pattern.len() == width as usize,
            "{at}: pattern of {name} has {} bits, {space} has {width}",
            pattern.len()
        );
        if derive {
            pattern = to_t32(&pattern, at);
        }
        let conditional = space != "a32" || pattern.starts_with("cccc");
        let (mut mask, mut value, mut letters) = (0u32, 0u32, BTreeMap::<char, Vec<u32>>::new());
        for (i, ch) in pattern.chars().enumerate() {
            let bit = width - 1 - i as u32;
            match ch {
                '0' | '1' => {
                    mask |= 1 << bit;
                    value |= u32::from(ch == '1') << bit;
                }
                '.' => {}
                c if c.is_ascii_alphabetic() => letters.entry(c).or_default().push(bit),
                c => panic!("{at}: `{c}` in a pattern"),
            }
        }
        let mut constraints = if constraints == "-" { Vec::new() } else { split_top(&constraints, ',') };
        if space == "a32" && conditional {
            constraints.push("c != 15".into());
        }
        let (format, inside) = braced(&args, at);
        let args = split_top(inside, ',')
            .iter()
            .map(|f| match f.split_once(':') {
                Some((n, e)) => (n.trim().to_string(), e.trim().to_string()),
                None => (f.clone(), f.clone()),
            })
            .collect();
        let (format, at) = (format.to_string(), at.to_string());
        Line { name, at, group, mask, value, letters, constraints, format, args, sem, asm, conditional }
    }

    fn check_overlaps(&self) {
        for (space, lines) in &self.lines {
            for (i, a) in lines.iter().enumerate() {
                for b in &lines[i + 1..] {
                    let grouped = a.group.is_some() && a.group == b.group;
                    if !grouped && overlap(a, b) {
                        panic!(
                            "{space}: `{}` ({}) and `{}` ({}) match one encoding: add a constraint or put both in one {{ }} group",
                            a.name, a.at, b.name, b.at
                        );
                    }
                }
            }
        }
    }

    fn generate(&self) -> String {
        let mut o = String::from("// Made by build.rs from isa/*.decode.\n");
        for u in self.uses.iter().collect::<std::collections::BTreeSet<_>>() {
            let _ = writeln!(o, "#[allow(unused_imports)] use {u};");
        }
        for f in self.formats.values() {
            let _ = writeln!(
                o,
                "/// Operands of the format `{}`.\n#[derive(Debug, Clone, Copy)] pub struct {} {{",
                f.name, f.name
            );
            for (n, t) in &f.fields {
                let _ = writeln!(o, "    /// Operand `{n}`.\n    pub {n}: {t},");
            }
            o.push_str("}\n");
        }
        for (space, width, key) in SPACES {
            let none = Vec::new();
            self.space(&mut o, space, width, key, self.lines.get(space).unwrap_or(&none));
        }
        o
    }

    fn space(&self, o: &mut String, space: &str, width: u32, key: &[u32], lines: &[Line]) {
        for (i, l) in lines.iter().enumerate() {
            self.line_fns(o, &format!("{space}_{i}"), l);
        }
        let up = space.to_uppercase();
        let _ = writeln!(o, "static {up}_LINES: [Line; {}] = [", lines.len());
        for (i, l) in lines.iter().enumerate() {
            let _ = writeln!(
                o,
                "Line {{ name: {:?}, mask: {:#x}, value: {:#x}, conditional: {}, check: check_{space}_{i}, run: run_{space}_{i}, asm: asm_{space}_{i} }},",
                l.name, l.mask, l.value, l.conditional
            );
        }
        o.push_str("];\n");
        let (mut index, mut list) = (vec![0u16], Vec::<u16>::new());
        let key_mask = key.iter().fold(0u32, |m, b| m | 1 << b);
        for k in 0..1u32 << key.len() {
            let bits = key.iter().enumerate().fold(0u32, |v, (i, b)| v | (k >> i & 1) << b);
            for (i, l) in lines.iter().enumerate() {
                if (bits ^ l.value) & l.mask & key_mask == 0 {
                    list.push(u16::try_from(i).expect("few lines"));
                }
            }
            index.push(u16::try_from(list.len()).expect("bucket lists stay below 64 Ki entries"));
        }
        let _ = writeln!(o, "static {up}_INDEX: [u16; {}] = {index:?};", index.len());
        let _ = writeln!(o, "static {up}_LIST: [u16; {}] = {list:?};", list.len());
        let shift = key.iter().enumerate().map(|(i, b)| format!("(w >> {b} & 1) << {i}")).collect::<Vec<_>>();
        let key_expr = compact_key(key).unwrap_or_else(|| shift.join(" | "));
        let _ = writeln!(o, "fn {space}_key(w: u32) -> usize {{ ({key_expr}) as usize }}");
        let _ = writeln!(
            o,
            "/// The {width}-bit encoding space `{space}`.\npub static {up}: Space = Space {{ name: {space:?}, lines: &{up}_LINES, index: &{up}_INDEX, list: &{up}_LIST, key: {space}_key }};"
        );
    }

    fn line_fns(&self, o: &mut String, id: &str, l: &Line) {
        let f = self.formats.get(&l.format).unwrap_or_else(|| panic!("{}: no format `{}`", l.at, l.format));
        let lets = l.letters.iter().fold(String::new(), |mut s, (c, bits)| {
            let _ = write!(s, "let {c}: u32 = {}; ", extract(bits));
            s
        });
        let check = if l.constraints.is_empty() {
            "true".to_string()
        } else {
            l.constraints.iter().map(|c| format!("({c})")).collect::<Vec<_>>().join(" && ")
        };
        let allow = "#[allow(unused_variables, non_snake_case, unused_parens, clippy::all)]";
        let _ = writeln!(o, "{allow} fn check_{id}(word: u32) -> bool {{ {lets} {check} }}");
        let mut init = String::new();
        for (n, t) in &f.fields {
            let e = l
                .args
                .iter()
                .find(|a| &a.0 == n)
                .unwrap_or_else(|| panic!("{}: operand `{n}` of {} is not given", l.at, f.name));
            let e = match t.as_str() {
                "Reg" => format!("Reg(({}) as u8)", e.1),
                "bool" => match e.1.as_str() {
                    "true" | "false" => e.1.clone(),
                    _ => format!("({}) != 0", e.1),
                },
                "u8" => format!("({}) as u8", e.1),
                _ => e.1.clone(),
            };
            let _ = write!(init, "{n}: {e}, ");
        }
        for a in &l.args {
            assert!(f.fields.iter().any(|x| x.0 == a.0), "{}: format {} has no operand `{}`", l.at, f.name, a.0);
        }
        let make = format!("{} {{ {init} }}", f.name);
        let _ = writeln!(o, "{allow} fn run_{id}(word: u32, bld: &mut Builder) {{ {lets} {}(bld, &{make}); }}", l.sem);
        let _ = writeln!(
            o,
            "{allow} fn asm_{id}(word: u32, cond: &str, out: &mut String) {{ {lets} let args = {make}; {} }}",
            asm_code(&l.asm, &l.at)
        );
    }
}

/// `w >> lo & mask` pieces for a bucket key whose bits are two contiguous runs, which they are for every space.
fn compact_key(key: &[u32]) -> Option<String> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &b in key {
        match runs.last_mut() {
            Some((lo, n)) if *lo + *n == b => *n += 1,
            _ => runs.push((b, 1)),
        }
    }
    let mut at = 0;
    let parts: Vec<String> = runs
        .iter()
        .map(|(lo, n)| {
            let s = format!("w >> {lo} & {:#x}", (1u32 << n) - 1);
            let s = if at == 0 { s } else { format!("({s}) << {at}") };
            at += n;
            s
        })
        .collect();
    Some(parts.join(" | "))
}

/// An expression for the value of a field from its bit numbers, most significant first.
fn extract(bits: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &b in bits {
        match runs.last_mut() {
            Some((lo, n)) if *lo == b + 1 => {
                *lo = b;
                *n += 1;
            }
            _ => runs.push((b, 1)),
        }
    }
    let mut below: u32 = bits.len() as u32;
    let parts: Vec<String> = runs
        .iter()
        .map(|(lo, n)| {
            below -= n;
            format!("(word >> {lo} & {:#x}) << {below}", (1u64 << n) - 1)
        })
        .collect();
    parts.join(" | ")
}

/// Code that prints the assembler syntax: `{c}` condition, `{x}` operand, `{x?text:other}` text if the bool operand is set,
/// else the other (or nothing).
fn asm_code(asm: &str, at: &str) -> String {
    let (mut code, mut rest) = (String::new(), asm);
    while let Some((lit, tail)) = rest.split_once('{') {
        let (hole, after) = tail.split_once('}').unwrap_or_else(|| panic!("{at}: `}}` is missing in the syntax"));
        if !lit.is_empty() {
            let _ = write!(code, "out.push_str({lit:?}); ");
        }
        if hole == "c" {
            code.push_str("out.push_str(cond); ");
        } else if let Some((name, text)) = hole.split_once('?') {
            let (set, clear) = text.split_once(':').unwrap_or((text, ""));
            let _ = write!(code, "out.push_str(if args.{name} {{ {set:?} }} else {{ {clear:?} }}); ");
        } else {
            let _ = write!(code, "Operand::asm(&args.{hole}, out); ");
        }
        rest = after;
    }
    if !rest.is_empty() {
        let _ = write!(code, "out.push_str({rest:?}); ");
    }
    code
}

/// Whether some word matches both lines. Constraints `x == k` and `x != k` are evaluated exactly where the other line fixes the bits of
/// `x`; any other constraint counts as satisfiable.
fn overlap(a: &Line, b: &Line) -> bool {
    if (a.value ^ b.value) & a.mask & b.mask != 0 {
        return false;
    }
    let (mut mask, mut value) = (a.mask | b.mask, a.value | b.value);
    // Equalities fix more bits; twice, as one can enable another.
    for _ in 0..2 {
        for l in [a, b] {
            for c in &l.constraints {
                let Some((field, eq, k)) = simple(c, l) else { continue };
                let n = field.len();
                for (i, bit) in field.iter().enumerate() {
                    let want = k >> (n - 1 - i) & 1;
                    if eq {
                        if mask >> bit & 1 == 1 && value >> bit & 1 != want {
                            return false;
                        }
                        mask |= 1 << bit;
                        value |= want << bit;
                    }
                }
                if !eq && field.iter().all(|bit| mask >> bit & 1 == 1) {
                    let v = field.iter().fold(0u32, |v, bit| v << 1 | (value >> bit & 1));
                    if v == k {
                        return false;
                    }
                }
            }
        }
    }
    true
}

/// A constraint of the form `x == k` or `x != k`.
fn simple<'a>(c: &str, l: &'a Line) -> Option<(&'a Vec<u32>, bool, u32)> {
    let (lhs, eq, rhs) = if let Some((x, y)) = c.split_once("!=") {
        (x, false, y)
    } else {
        let (x, y) = c.split_once("==")?;
        (x, true, y)
    };
    let lhs = lhs.trim();
    let mut chars = lhs.chars();
    let (ch, None) = (chars.next()?, chars.next()) else { return None };
    Some((l.letters.get(&ch)?, eq, rhs.trim().parse().ok()?))
}
