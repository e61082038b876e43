//! Puts a panel at a display that the board's device tree has, in the place of what leads from it to a monitor's socket.
//!
//! On the Versatile Express that is a DVI transmitter, which today's drivers of the kernel's frame buffer don't look behind: `amba-clcd` takes the
//! screen from a directly connected panel alone (binding `panel-dpi`, with the timing of `panel-timing`). So the display's endpoint is led
//! there. The picture then lies in RAM: video RAM of its own (`memory-region`) no machine here has.

use super::fdt::Node;
use crate::machine::Panel;

/// Addresses below a bus: a range of its own, where it begins in the bus above it.
#[derive(Debug, Clone, Copy)]
struct Window {
    child: u128,
    parent: u128,
    size: u128,
}

/// Gives the displays at these addresses their panels. One that the tree doesn't have, or that leads nowhere in it, gets none.
pub(super) fn add(root: &mut Node, panels: &[(u64, Panel)]) {
    for &(at, panel) in panels {
        if root.children.iter().any(|c| c.name == name(at)) {
            continue;
        }
        let free = root.last_phandle().saturating_add(1);
        let Some(way) = find(root, at, &mut Vec::new()) else { continue };
        let display = way.iter().fold(&mut *root, |node, i| &mut node.children[*i]);
        let Some(endpoint) = display.descendant(&["port", "endpoint"]) else { continue };
        let own = endpoint.cell("phandle").unwrap_or(free + 1);
        endpoint.set("phandle", own.to_be_bytes().to_vec());
        endpoint.set("remote-endpoint", free.to_be_bytes().to_vec());
        display.properties.retain(|(name, _)| name != "memory-region");
        root.children.extend(node(at, panel, free, own));
    }
}

fn name(at: u64) -> String {
    format!("panel-{at:x}")
}

fn node(at: u64, panel: Panel, phandle: u32, display: u32) -> Option<Node> {
    let timing = panel.timing()?;
    let ([front, sync, back], [v_front, v_sync, v_back]) = (timing.horizontal, timing.vertical);
    let numbers = [
        ("clock-frequency", timing.clock_hz),
        ("hactive", panel.width),
        ("hfront-porch", front),
        ("hsync-len", sync),
        ("hback-porch", back),
        ("vactive", panel.height),
        ("vfront-porch", v_front),
        ("vsync-len", v_sync),
        ("vback-porch", v_back),
    ];
    let timing = numbers.iter().fold(Node::new("panel-timing"), |node, (name, n)| node.cells_of(name, &[*n]));
    let endpoint = Node::new("endpoint").cells_of("remote-endpoint", &[display]).cells_of("phandle", &[phandle]);
    let panel = Node::new(name(at)).strings("compatible", &["panel-dpi"]);
    Some(panel.child(Node::new("port").child(endpoint)).child(timing))
}

/// The way, by the places of children, to the display whose registers begin at this address.
fn find(node: &Node, at: u64, buses: &mut Vec<Vec<Window>>) -> Option<Vec<usize>> {
    let address = node.cell("#address-cells").unwrap_or(2);
    for (i, child) in node.children.iter().enumerate() {
        let own = child.get("reg").and_then(|reg| number(reg, 0, address));
        let here = own.and_then(|own| translate(own, buses)) == Some(at.into());
        if here && child.children.iter().any(|c| c.name == "port") {
            return Some(vec![i]);
        }
        // Empty `ranges` are the same addresses; a node without is no bus of memory.
        let Some(ranges) = child.get("ranges") else { continue };
        buses.push(windows(child, ranges, address));
        let below = find(child, at, buses);
        buses.pop();
        if let Some(way) = below {
            return Some([vec![i], way].concat());
        }
    }
    None
}

/// The ranges of a bus; `above`: cells of an address of the bus above it.
fn windows(bus: &Node, ranges: &[u8], above: u32) -> Vec<Window> {
    let own = bus.cell("#address-cells").unwrap_or(2);
    let length = bus.cell("#size-cells").unwrap_or(1);
    let entry = own.saturating_add(above).saturating_add(length).max(1) as usize;
    let window = |n: usize| {
        let at = n * entry;
        Some(Window {
            child: number(ranges, at, own)?,
            parent: number(ranges, at + own as usize, above)?,
            size: number(ranges, at + (own + above) as usize, length)?,
        })
    };
    (0..ranges.len() / 4 / entry).map_while(window).collect()
}

/// A number of up to four cells, from a cell of a property on.
fn number(value: &[u8], from: usize, cells: u32) -> Option<u128> {
    let bytes = value.get(from * 4..(from + cells.min(5) as usize) * 4)?;
    (cells <= 4).then(|| bytes.iter().fold(0, |all, b| all << 8 | u128::from(*b)))
}

/// An address of the innermost bus as the CPU sees it.
fn translate(own: u128, buses: &[Vec<Window>]) -> Option<u128> {
    buses.iter().rev().try_fold(own, |at, windows| match windows.as_slice() {
        [] => Some(at),
        some => some.iter().find_map(|w| w.parent.checked_add(at.checked_sub(w.child).filter(|o| *o < w.size)?)),
    })
}
