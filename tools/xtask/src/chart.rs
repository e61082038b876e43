//! A bar chart as SVG: one group of bars a row, with the range of what was measured and a line at 1.0.

use std::fmt::Write;

/// One bar.
#[derive(Debug, Clone, Copy)]
pub struct Bar {
    /// The value shown.
    pub value: f64,
    /// The smallest measured value.
    pub low: f64,
    /// The largest.
    pub high: f64,
}

/// A row: a name and a bar for each series, or none where it was not measured.
#[derive(Debug, Clone)]
pub struct Row {
    /// What stands at its left.
    pub name: String,
    /// In the series' order.
    pub bars: Vec<Option<Bar>>,
}

const COLOURS: &[&str] = &["#2166ac", "#f4a582", "#5aae61", "#9970ab"];
const LEFT: f64 = 150.0;
const WIDTH: f64 = 640.0;
const RIGHT: f64 = 80.0;
const TOP: f64 = 66.0;
const BAR: f64 = 13.0;
const GAP: f64 = 9.0;
/// Bars are cut here; their numbers still stand beside them.
const MOST: f64 = 2.0;

/// The chart. `series` names the bars of a row; `note` stands below the title.
pub fn svg(title: &str, note: &str, series: &[&str], rows: &[Row]) -> String {
    let values = rows.iter().flat_map(|r| &r.bars).flatten().map(|b| b.value);
    let most = values.fold(1.2, f64::max).min(MOST);
    let x = |v: f64| LEFT + v.min(most) / most * WIDTH;
    let row_height = BAR * series.len() as f64 + GAP;
    let bottom = TOP + row_height * rows.len() as f64 + 4.0;
    let (w, h) = (LEFT + WIDTH + RIGHT, bottom + 34.0 + 18.0 * series.len() as f64);
    let mut s = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{w}\" height=\"{h}\" fill=\"white\"/>\n"
    );
    text(&mut s, 12.0, 24.0, "start", "font-size=\"16\" font-weight=\"bold\"", title);
    text(&mut s, 12.0, 44.0, "start", "fill=\"#555\"", note);
    grid(&mut s, most, bottom, &x);
    for (i, row) in rows.iter().enumerate() {
        let y = TOP + row_height * i as f64 + GAP / 2.0;
        text(&mut s, LEFT - 8.0, y + (row_height - GAP) / 2.0 + 4.0, "end", "", &row.name);
        for (k, bar) in row.bars.iter().enumerate() {
            if let Some(b) = bar {
                draw_bar(&mut s, b, y + BAR * k as f64, COLOURS[k % COLOURS.len()], &x);
            }
        }
    }
    for (k, name) in series.iter().enumerate() {
        let y = bottom + 30.0 + 18.0 * k as f64;
        let colour = COLOURS[k % COLOURS.len()];
        let _ = writeln!(s, "<rect x=\"{LEFT}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>");
        text(&mut s, LEFT + 18.0, y + 10.5, "start", "", name);
    }
    s.push_str("</svg>\n");
    s
}

/// A thin line each 0.2 with its number, and a heavy one at 1.0.
fn grid(s: &mut String, most: f64, bottom: f64, x: &dyn Fn(f64) -> f64) {
    for tenth in (0..=(most * 10.0).floor() as u32).step_by(2) {
        let v = f64::from(tenth) / 10.0;
        let (colour, width) = if tenth == 10 { ("#b2182b", 1.6) } else { ("#ddd", 1.0) };
        let (at, top) = (x(v), TOP - 2.0);
        let _ = writeln!(
            s,
            "<line x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
        );
        text(s, at, bottom + 15.0, "middle", "fill=\"#555\"", &format!("{v:.1}"));
    }
}

fn draw_bar(s: &mut String, b: &Bar, y: f64, colour: &str, x: &dyn Fn(f64) -> f64) {
    let (end, height) = (x(b.value), BAR - 2.0);
    let _ =
        writeln!(s, "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{height}\" fill=\"{colour}\"/>", end - LEFT);
    let (low, high, mid) = (x(b.low), x(b.high), y + height / 2.0);
    let _ = writeln!(
        s,
        "<line x1=\"{low:.1}\" y1=\"{mid:.1}\" x2=\"{high:.1}\" y2=\"{mid:.1}\" stroke=\"#222\" stroke-width=\"1.2\"/>"
    );
    text(s, end.max(high) + 5.0, y + height - 1.5, "start", "font-size=\"11\"", &format!("{:.2}", b.value));
}

fn text(s: &mut String, x: f64, y: f64, anchor: &str, more: &str, what: &str) {
    let what = what.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(s, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{what}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_value_and_a_long_one_is_cut_but_numbered() {
        let bar = |value| Some(Bar { value, low: value, high: value });
        let rows = [
            Row { name: "a<b".into(), bars: vec![bar(0.5), None] },
            Row { name: "c".into(), bars: vec![bar(7.25), bar(1.0)] },
        ];
        let s = svg("t", "n", &["first", "second"], &rows);
        assert!(s.contains("a&lt;b"), "names are escaped");
        // The scale ends at 2.0, so 0.5 is a quarter of the width.
        assert!(s.contains("width=\"160.0\" height=\"11\""), "{s}");
        assert!(s.contains("width=\"640.0\" height=\"11\"") && s.contains(">7.25<"), "{s}");
        assert_eq!(s.matches("#b2182b").count(), 1, "one line at 1.0");
        assert_eq!(s.matches("height=\"11\"").count(), 3, "no bar for what was not measured");
    }
}
