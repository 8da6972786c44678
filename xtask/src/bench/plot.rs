//! Charts as SVG, drawn by plotters: panels of bars, and curves.

use anyhow::Result;
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

/// Bar charts side by side, all on one scale.
#[derive(Debug)]
pub(super) struct BarChart {
    pub(super) title: String,
    /// What the x axes of all panels show, written once below them.
    pub(super) axis: String,
    pub(super) panels: Vec<Panel>,
    /// A value that every panel marks with a line.
    pub(super) mark: Option<f64>,
    /// The number of panels in a row.
    pub(super) columns: usize,
    pub(super) format: fn(f64) -> String,
}

/// One bar chart of a [`BarChart`].
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) bars: Vec<Bar>,
}

/// A labelled value, optionally with a second value below it.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) role: Role,
    pub(super) value: f64,
    pub(super) second: Option<f64>,
}

/// The kind of server that a bar or curve belongs to; it determines the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Sockeye,
    Baseline,
    Peer,
}

/// Curves over a common x axis, with a logarithmic y axis.
#[derive(Debug)]
pub(super) struct CurveChart {
    pub(super) title: String,
    pub(super) x_axis: String,
    pub(super) y_axis: String,
    pub(super) curves: Vec<Curve>,
}

/// A labelled line through points.
#[derive(Debug)]
pub(super) struct Curve {
    pub(super) label: String,
    pub(super) role: Role,
    pub(super) points: Vec<(f64, f64)>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);
const GRID: RGBColor = RGBColor(0xd0, 0xd7, 0xde);
const ORANGE: RGBColor = RGBColor(0xc2, 0x41, 0x0c);

/// Replaces the colours of the light theme, which plotters writes as attributes, where the reader prefers a dark one.
const DARK_THEME: &str = "<style>@media(prefers-color-scheme:dark){\
    [fill=\"#FFFFFF\"]{fill:#0d1117}[fill=\"#24292F\"]{fill:#e6edf3}[fill=\"#C2410C\"]{fill:#ff922b}\
    [stroke=\"#24292F\"]{stroke:#e6edf3}[stroke=\"#D0D7DE\"]{stroke:#30363d}[stroke=\"#C2410C\"]{stroke:#ff922b}}\
    </style>";

// In pixels.
const PANEL_WIDTH: usize = 340;
const PANEL_FRAME_HEIGHT: usize = 58;
const BAR_HEIGHT: usize = 17;
const LABEL_WIDTH: u32 = 130;
const CURVES_SIZE: (u32, u32) = (820, 460);

impl BarChart {
    pub(super) fn to_svg(&self) -> Result<String> {
        let columns = self.columns.min(self.panels.len()).max(1);
        let rows = self.panels.len().div_ceil(columns);
        let lines = |bar: &Bar| 1 + usize::from(bar.second.is_some());
        let heights = self
            .panels
            .iter()
            .map(|panel| panel.bars.iter().map(lines).sum::<usize>());
        let panel_height = PANEL_FRAME_HEIGHT + BAR_HEIGHT * heights.max().unwrap_or(0);
        let size = ((columns * PANEL_WIDTH) as u32, (rows * panel_height + 54) as u32);
        let max = self.max();
        draw(size, &self.title, |area| {
            let (area, foot) = area.split_vertically((rows * panel_height) as u32);
            foot.titled(&self.axis, font(11).color(&INK))?;
            for (area, panel) in area.split_evenly((rows, columns)).iter().zip(&self.panels) {
                self.panel(area, panel, max)?;
            }
            Ok(())
        })
    }

    fn max(&self) -> f64 {
        let bars = self.panels.iter().flat_map(|panel| &panel.bars);
        let values = bars.flat_map(|bar| [Some(bar.value), bar.second]).flatten();
        values.chain(self.mark).fold(f64::MIN_POSITIVE, f64::max)
    }

    fn panel(&self, area: &Area<'_>, panel: &Panel, max: f64) -> Result<()> {
        // A bar takes one unit of the y axis; the first is at the top. The room on the right is for the values.
        let rows = panel.bars.len() as f64;
        let mut chart = ChartBuilder::on(area)
            .caption(&panel.title, font(13).style(FontStyle::Bold).color(&INK))
            .margin(4)
            .x_label_area_size(22)
            .y_label_area_size(LABEL_WIDTH)
            .build_cartesian_2d(0.0..max * 1.4, 0.0..rows)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(font(11).color(&INK))
            .x_labels(5)
            .x_label_formatter(&|value| (self.format)(*value))
            .draw()?;
        let plot = chart.plotting_area();
        for (idx, bar) in panel.bars.iter().enumerate() {
            let top = rows - idx as f64;
            let middle = top - 0.5;
            let rectangle = |value: f64, top: f64, bottom: f64, opacity: f64| {
                let style = bar.role.color().mix(opacity).filled();
                plot.draw(&Rectangle::new([(0.0, top), (value, bottom)], style))
            };
            let mut text = (self.format)(bar.value);
            match bar.second {
                Some(second) => {
                    rectangle(bar.value, top - 0.1, middle, 1.0)?;
                    rectangle(second, middle, top - 0.9, 0.55)?;
                    text += &format!(" / {}", (self.format)(second));
                }
                None => rectangle(bar.value, top - 0.15, top - 0.85, 1.0)?,
            }
            // To the right of the mark, so that the line does not cross the text.
            let end = bar.value.max(bar.second.unwrap_or(0.0)).max(self.mark.unwrap_or(0.0));
            let style = |position| bar.role.text_style().pos(Pos::new(position, VPos::Center));
            plot.draw(&(EmptyElement::at((end, middle)) + Text::new(text, (5, 0), style(HPos::Left))))?;
            plot.draw(&(EmptyElement::at((0.0, middle)) + Text::new(bar.label.clone(), (-6, 0), style(HPos::Right))))?;
        }
        if let Some(mark) = self.mark {
            plot.draw(&PathElement::new([(mark, 0.0), (mark, rows)], INK))?;
        }
        Ok(())
    }
}

impl CurveChart {
    pub(super) fn to_svg(&self) -> Result<String> {
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let x_max = points().map(|(x, _)| *x).fold(f64::MIN_POSITIVE, f64::max);
        let low = points().map(|(_, y)| *y).fold(f64::MAX, f64::min).max(1e-9);
        let high = points().map(|(_, y)| *y).fold(low, f64::max);
        // Whole powers of ten.
        let y_range = 10_f64.powf(low.log10().floor())..10_f64.powf(high.log10().ceil());
        draw(CURVES_SIZE, &self.title, |area| {
            // The room on the right is for the legend.
            let mut chart = ChartBuilder::on(area)
                .margin(12)
                .x_label_area_size(40)
                .y_label_area_size(60)
                .build_cartesian_2d(0.0..x_max * 1.3, y_range.log_scale())?;
            chart
                .configure_mesh()
                .light_line_style(TRANSPARENT)
                .bold_line_style(GRID)
                .axis_style(GRID)
                .label_style(font(12).color(&INK))
                .x_label_formatter(&|x| format!("{}k", x / 1000.0))
                .x_desc(&self.x_axis)
                .y_desc(&self.y_axis)
                .draw()?;
            // The curve of Sockeye comes last, above the others.
            let mut curves: Vec<_> = self.curves.iter().filter(|curve| !curve.points.is_empty()).collect();
            curves.sort_by_key(|curve| curve.role == Role::Sockeye);
            for (idx, curve) in curves.into_iter().enumerate() {
                let (color, width) = match curve.role {
                    Role::Sockeye => (ORANGE, 3),
                    Role::Baseline | Role::Peer => {
                        let (red, green, blue) = Palette99::pick(idx).rgb();
                        (RGBColor(red, green, blue), 1)
                    }
                };
                let style = color.stroke_width(width);
                let line = LineSeries::new(curve.points.iter().copied(), style).point_size(3);
                chart
                    .draw_series(line)?
                    .label(&curve.label)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            }
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .background_style(WHITE)
                .border_style(GRID)
                .label_font(font(12).color(&INK))
                .draw()?;
            Ok(())
        })
    }
}

impl Role {
    fn color(self) -> RGBColor {
        match self {
            Self::Sockeye => ORANGE,
            Self::Baseline => RGBColor(0x4a, 0x7f, 0xc1),
            Self::Peer => RGBColor(0x9a, 0xa4, 0xb2),
        }
    }

    fn text_style(self) -> TextStyle<'static> {
        match self {
            Self::Sockeye => font(11).style(FontStyle::Bold).color(&ORANGE),
            Self::Baseline | Self::Peer => font(11).color(&INK),
        }
    }
}

/// A font of this size in pixels; plotters writes the size that it is given divided by 1.24.
fn font(size: u32) -> FontDesc<'static> {
    FontDesc::from(("system-ui,sans-serif", f64::from(size) * 1.24))
}

/// A titled drawing with the colours of both themes.
fn draw(size: (u32, u32), title: &str, body: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    body(&root.titled(title, font(15).style(FontStyle::Bold).color(&INK))?)?;
    root.present()?;
    drop(root);
    Ok(svg.replacen(">\n", &format!(">\n{DARK_THEME}\n"), 1))
}

#[cfg(test)]
mod tests {
    use super::{Bar, BarChart, Curve, CurveChart, DARK_THEME, Panel, Role};

    /// The widths of the rectangles of a colour.
    fn widths(svg: &str, color: &str) -> Vec<f64> {
        let bars = svg
            .lines()
            .filter(|line| line.starts_with("<rect") && line.contains(color));
        let width = |line: &str| line.split_once(" width=\"")?.1.split('"').next()?.parse().ok();
        bars.filter_map(width).collect()
    }

    #[test]
    fn bars_have_labels_and_proportional_widths() {
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
                bars: vec![bar("first", Role::Sockeye, 0.5), bar("second", Role::Peer, 1.0)],
            }],
            mark: None,
            columns: 3,
            format: |value| format!("{value:.2}"),
        };
        let svg = chart.to_svg().expect("a chart can be drawn");
        for text in ["a &lt; b", "first", "second", "0.50", "1.00", DARK_THEME] {
            assert!(svg.contains(text), "no {text} in {svg}");
        }
        let (half, whole) = (widths(&svg, "#C2410C"), widths(&svg, "#9AA4B2"));
        assert!((2.0 * half[0] - whole[0]).abs() <= 2.0, "{half:?} {whole:?}");
    }

    #[test]
    fn curves_have_labels_and_points() {
        let chart = CurveChart {
            title: "t".into(),
            x_axis: "x".into(),
            y_axis: "y".into(),
            curves: vec![Curve {
                label: "first".into(),
                role: Role::Sockeye,
                points: vec![(50.0, 0.1), (100.0, 10.0)],
            }],
        };
        let svg = chart.to_svg().expect("a chart can be drawn");
        assert!(svg.contains("first"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2, "{svg}");
    }
}
