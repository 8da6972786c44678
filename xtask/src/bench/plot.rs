//! Plots as SVG, by hand: panels of bars, and curves. They carry their colours for light and dark, and their
//! background.

use std::fmt::Write;

/// Many small charts of bars side by side, all on one scale.
#[derive(Debug)]
pub(super) struct BarChart {
    pub(super) title: String,
    /// What the axis of every panel is.
    pub(super) axis: String,
    pub(super) panels: Vec<Panel>,
    /// A value that is marked in all panels.
    pub(super) mark: Option<f64>,
    /// How many panels stand side by side.
    pub(super) columns: usize,
    pub(super) format: fn(f64) -> String,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) bars: Vec<Bar>,
}

/// A named value, and perhaps a second one below.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) role: Role,
    pub(super) value: f64,
    pub(super) second: Option<f64>,
}

/// Whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Ours,
    Baseline,
    Peer,
}

/// Curves over a common axis; time goes up in powers of ten.
#[derive(Debug)]
pub(super) struct CurveChart {
    pub(super) title: String,
    pub(super) x_axis: String,
    pub(super) y_axis: String,
    pub(super) curves: Vec<Curve>,
}

/// A named line through points.
#[derive(Debug)]
pub(super) struct Curve {
    pub(super) label: String,
    pub(super) role: Role,
    pub(super) points: Vec<(f64, f64)>,
}

const STYLE: &str = "<style>\
    text{font:12px system-ui,sans-serif;fill:#24292f}\
    .title{font-size:15px;font-weight:600}.head{font-weight:600}.ours-text{font-weight:700;fill:#c2410c}\
    .bg{fill:#fff}.grid{stroke:#d0d7de}.mark{stroke:#24292f;stroke-dasharray:3 3}\
    .ours{fill:#e8590c}.baseline{fill:#4a7fc1}.peer{fill:#9aa4b2}.second{opacity:.55}\
    .line{fill:none;stroke-width:1.5}.line.ours{stroke:#e8590c;stroke-width:3}\
    .line.baseline{stroke:#4a7fc1;stroke-dasharray:6 3}.line.peer{stroke:#9aa4b2}\
    @media(prefers-color-scheme:dark){\
    text{fill:#e6edf3}.ours-text{fill:#ff922b}.bg{fill:#0d1117}.grid{stroke:#30363d}.mark{stroke:#e6edf3}\
    .ours{fill:#ff922b}.baseline{fill:#6ea8fe}.peer{fill:#768390}\
    .line.ours{stroke:#ff922b}.line.baseline{stroke:#6ea8fe}.line.peer{stroke:#768390}.line{fill:none}}\
    </style>";

// In pixels.
const MARGIN: f64 = 16.0;
const TITLE_HEIGHT: f64 = 34.0;
const LABEL_WIDTH: f64 = 130.0;
const BAR_WIDTH: f64 = 150.0;
const VALUE_WIDTH: f64 = 60.0;
const ROW_HEIGHT: f64 = 17.0;
const PANEL_HEAD: f64 = 24.0;
const PANEL_FOOT: f64 = 26.0;

impl BarChart {
    pub(super) fn to_svg(&self) -> String {
        let columns = self.columns.min(self.panels.len()).max(1);
        let panel_width = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH;
        let rows: Vec<_> = self.panels.chunks(columns).collect();
        let height_of = |panel: &Panel| PANEL_HEAD + panel.bars.iter().map(Bar::height).sum::<f64>() + PANEL_FOOT;
        let heights: Vec<_> = rows
            .iter()
            .map(|row| row.iter().map(height_of).fold(0.0, f64::max))
            .collect();
        let width = 2.0 * MARGIN + columns as f64 * panel_width;
        let height = 2.0 * MARGIN + TITLE_HEIGHT + heights.iter().sum::<f64>();
        let max = self.max();
        let mut svg = start(width, height, &self.title);
        let mut top = MARGIN + TITLE_HEIGHT;
        for (row, row_height) in rows.iter().zip(&heights) {
            for (idx, panel) in row.iter().enumerate() {
                self.panel(&mut svg, panel, MARGIN + idx as f64 * panel_width, top, max);
            }
            top += row_height;
        }
        text(&mut svg, width - MARGIN, height - 8.0, "end", "", &self.axis);
        svg.push_str("</svg>\n");
        svg
    }

    fn max(&self) -> f64 {
        let bars = self.panels.iter().flat_map(|panel| &panel.bars);
        let values = bars.flat_map(|bar| [Some(bar.value), bar.second]).flatten();
        values.chain(self.mark).fold(f64::MIN_POSITIVE, f64::max)
    }

    fn panel(&self, svg: &mut String, panel: &Panel, left: f64, top: f64, max: f64) {
        let zero = left + LABEL_WIDTH;
        let x = |value: f64| zero + value / max * BAR_WIDTH;
        let bars_top = top + PANEL_HEAD;
        let bottom = bars_top + panel.bars.iter().map(Bar::height).sum::<f64>();
        text(svg, left + 8.0, top + 14.0, "start", "head", &panel.title);
        for tick in ticks(max) {
            line(svg, "grid", (x(tick), bars_top), (x(tick), bottom));
            text(svg, x(tick), bottom + 14.0, "middle", "", &(self.format)(tick));
        }
        let mut y = bars_top;
        for bar in &panel.bars {
            let middle = y + bar.height() / 2.0 + 4.0;
            let class = bar.role.class();
            text(svg, zero - 6.0, middle, "end", bar.role.text_class(), &bar.label);
            rectangle(svg, class, (zero, y + 3.0), (x(bar.value) - zero, 11.0));
            let mut told = (self.format)(bar.value);
            if let Some(second) = bar.second {
                rectangle(
                    svg,
                    &format!("{class} second"),
                    (zero, y + 15.0),
                    (x(second) - zero, 11.0),
                );
                let _ = write!(told, " / {}", (self.format)(second));
            }
            // Not across the mark.
            let end = x(bar.value.max(bar.second.unwrap_or(0.0)).max(self.mark.unwrap_or(0.0))) + 5.0;
            text(svg, end, middle, "start", bar.role.text_class(), &told);
            y += bar.height();
        }
        if let Some(mark) = self.mark {
            line(svg, "mark", (x(mark), bars_top), (x(mark), bottom));
        }
    }
}

impl Bar {
    fn height(&self) -> f64 {
        if self.second.is_some() {
            ROW_HEIGHT + 12.0
        } else {
            ROW_HEIGHT
        }
    }
}

/// Where the values of a chart of curves lie.
struct Plane {
    x_max: f64,
    /// Powers of ten, between which all values are.
    low: f64,
    high: f64,
}

impl Plane {
    // In pixels.
    const WIDTH: f64 = 820.0;
    const HEIGHT: f64 = 460.0;
    const LEFT: f64 = 70.0;
    const RIGHT: f64 = 650.0;
    const TOP: f64 = 60.0;
    const BOTTOM: f64 = 400.0;

    /// What is less has no power of ten worth telling.
    const VALUE_MIN: f64 = 1e-9;

    fn of(curves: &[Curve]) -> Self {
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let lowest = points().map(|(_, y)| *y).fold(f64::MAX, f64::min);
        let highest = points().map(|(_, y)| *y).fold(f64::MIN_POSITIVE, f64::max);
        Self {
            x_max: points().map(|(x, _)| *x).fold(f64::MIN_POSITIVE, f64::max),
            low: lowest.max(Self::VALUE_MIN).log10().floor(),
            high: highest.log10().ceil(),
        }
    }

    fn x(&self, value: f64) -> f64 {
        Self::LEFT + value / self.x_max * (Self::RIGHT - Self::LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value.max(Self::VALUE_MIN).log10() - self.low) / (self.high - self.low).max(1.0);
        Self::BOTTOM - share * (Self::BOTTOM - Self::TOP)
    }

    fn point(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (self.x(x), self.y(y))
    }

    fn grid(&self, svg: &mut String) {
        for tick in ticks(self.x_max) {
            let x = self.x(tick);
            line(svg, "grid", (x, Self::TOP), (x, Self::BOTTOM));
            text(svg, x, Self::BOTTOM + 16.0, "middle", "", &thousands(tick));
        }
        for power in self.low as i32..=self.high as i32 {
            let value = 10_f64.powi(power);
            let y = self.y(value);
            line(svg, "grid", (Self::LEFT, y), (Self::RIGHT, y));
            text(svg, Self::LEFT - 6.0, y + 4.0, "end", "", &format!("{value}"));
        }
    }

    /// A line with a dot at each point.
    fn curve(&self, svg: &mut String, curve: &Curve) {
        let class = curve.role.class();
        let points: Vec<_> = curve.points.iter().map(|point| self.point(*point)).collect();
        let path: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(svg, r#"<polyline class="line {class}" points="{}"/>"#, path.join(" "));
        for (x, y) in points {
            let _ = write!(svg, r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="3"/>"#);
        }
    }

    /// Each label at the end of its curve, and none upon another.
    fn labels(&self, svg: &mut String, curves: &[&Curve]) {
        let end_of = |curve: &&Curve| curve.points.last().map(|point| self.point(*point));
        let mut ends: Vec<_> = curves
            .iter()
            .filter_map(|curve| Some((end_of(curve)?, *curve)))
            .collect();
        ends.sort_by(|((_, one), _), ((_, other), _)| one.total_cmp(other));
        let mut free = Self::TOP - 20.0;
        for ((x, y), curve) in ends {
            let at = y.max(free);
            free = at + 15.0;
            line(svg, "grid", (x + 4.0, y), (Self::RIGHT + 8.0, at));
            let class = curve.role.text_class();
            text(svg, Self::RIGHT + 12.0, at + 4.0, "start", class, &curve.label);
        }
    }
}

impl CurveChart {
    pub(super) fn to_svg(&self) -> String {
        let plane = Plane::of(&self.curves);
        let mut svg = start(Plane::WIDTH, Plane::HEIGHT, &self.title);
        plane.grid(&mut svg);
        let middle = (Plane::LEFT + Plane::RIGHT) / 2.0;
        text(&mut svg, middle, Plane::BOTTOM + 38.0, "middle", "", &self.x_axis);
        text(
            &mut svg,
            Plane::LEFT - 40.0,
            Plane::TOP - 12.0,
            "start",
            "",
            &self.y_axis,
        );
        // Ours above all others.
        let mut curves: Vec<_> = self.curves.iter().filter(|curve| !curve.points.is_empty()).collect();
        curves.sort_by_key(|curve| curve.role == Role::Ours);
        for curve in &curves {
            plane.curve(&mut svg, curve);
        }
        plane.labels(&mut svg, &curves);
        svg.push_str("</svg>\n");
        svg
    }
}

impl Role {
    fn class(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Baseline => "baseline",
            Self::Peer => "peer",
        }
    }

    fn text_class(self) -> &'static str {
        if self == Self::Ours { "ours-text" } else { "" }
    }
}

/// Round numbers from 0 up to the largest value, three to five of them.
fn ticks(max: f64) -> Vec<f64> {
    let power = 10_f64.powf(max.log10().floor());
    let step = [0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0]
        .map(|step| step * power)
        .into_iter()
        .find(|step| max / step <= 4.0)
        .unwrap_or(max);
    (0..=4)
        .map(|count| f64::from(count) * step)
        .take_while(|tick| *tick <= max * 1.0001)
        .collect()
}

fn thousands(value: f64) -> String {
    if value >= 1000.0 {
        format!("{}k", value / 1000.0)
    } else {
        format!("{value}")
    }
}

fn start(width: f64, height: f64, title: &str) -> String {
    let title = escape(title);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {height:.0}" width="{width:.0}" role="img">"#
    );
    let _ = write!(
        svg,
        r#"<title>{title}</title>{STYLE}<rect class="bg" width="100%" height="100%"/>"#
    );
    let _ = write!(svg, r#"<text class="title" x="{MARGIN}" y="26">{title}</text>"#);
    svg
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
    let text = escape(text);
    let class = if class.is_empty() {
        String::new()
    } else {
        format!(r#" class="{class}""#)
    };
    let _ = writeln!(
        svg,
        r#"<text{class} x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
    );
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        r#"<line class="{class}" x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}"/>"#,
        from.0, from.1, to.0, to.1
    );
}

fn rectangle(svg: &mut String, class: &str, at: (f64, f64), size: (f64, f64)) {
    let _ = writeln!(
        svg,
        r#"<rect class="{class}" x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}"/>"#,
        at.0,
        at.1,
        size.0.max(1.0),
        size.1
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{Bar, BarChart, Curve, CurveChart, Panel, Role, ticks};

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(1.0), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(ticks(1.3), [0.0, 0.5, 1.0]);
        assert_eq!(ticks(120_000.0), [0.0, 50_000.0, 100_000.0]);
    }

    #[test]
    fn every_bar_and_curve_is_there_with_its_name() {
        let bar = |label: &str, role, value| Bar {
            label: label.into(),
            role,
            value,
            second: None,
        };
        let chart = BarChart {
            title: "a < b".into(),
            axis: "ratio".into(),
            panels: vec![Panel {
                title: "one".into(),
                bars: vec![bar("ours", Role::Ours, 0.5), bar("peer", Role::Peer, 1.0)],
            }],
            mark: None,
            columns: 3,
            format: |value| format!("{value:.2}"),
        };
        let svg = chart.to_svg();
        assert!(svg.contains("a &lt; b"));
        // Half as long as the longest, which fills its room.
        assert!(svg.contains(r#"class="ours" x="146.0" y="77.0" width="75.0""#), "{svg}");
        assert!(
            svg.contains(r#"class="peer" x="146.0" y="94.0" width="150.0""#),
            "{svg}"
        );
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());

        let chart = CurveChart {
            title: "t".into(),
            x_axis: "x".into(),
            y_axis: "y".into(),
            curves: vec![Curve {
                label: "ours".into(),
                role: Role::Ours,
                points: vec![(50.0, 0.1), (100.0, 10.0)],
            }],
        };
        // From 0.1 at the bottom to 10 at the top.
        let svg = chart.to_svg();
        assert!(svg.contains(r#"points="360.0,400.0 650.0,60.0""#), "{svg}");
    }
}
