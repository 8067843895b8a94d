//! A simulation as a picture.

use super::{
    autoscaler::Autoscaler,
    plot::{clock, line},
    simulate::Run,
    verdict::Verdict,
    world::Snapshot,
};

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 50.0;
const TOP: f64 = 40.0;

/// Draws a simulation.
pub fn svg(autoscaler: &Autoscaler, run: &Run, verdict: &Verdict) -> String {
    let provider = autoscaler.target.is_provider();
    let top = run.seconds.iter().map(|at| at.replicas.max(line(at, provider))).max().unwrap_or(0).max(1);
    let last = (run.seconds.len() - 1).max(1) as f64;
    let x = |second: usize| LEFT + second as f64 / last * WIDTH;
    let y = |value: u32| TOP + HEIGHT - f64::from(value) / f64::from(top) * HEIGHT;
    let path = |of: &dyn Fn(&Snapshot) -> u32| {
        let mut text = String::new();
        let mut before = None;
        for (second, at) in run.seconds.iter().enumerate() {
            let value = of(at);
            match before {
                None => text += &format!("M{:.1} {:.1}", x(second), y(value)),
                Some(old) if old != value => text += &format!("H{:.1}V{:.1}", x(second), y(value)),
                Some(_) => {}
            }
            before = Some(value);
        }
        text + &format!("H{:.1}", x(run.seconds.len() - 1))
    };
    let (width, height, bottom) = (LEFT + WIDTH + 20.0, TOP + HEIGHT + 50.0, TOP + HEIGHT);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\">{}: {verdict}</text>\n",
        escape(&autoscaler.name)
    );
    for step in 0..=4 {
        let value = (f64::from(top) * f64::from(step) / 4.0).round() as u32;
        let (at, label) = (y(value), LEFT - 8.0);
        text += &format!(
            "<path d=\"M{LEFT} {at:.1}h{WIDTH}\" stroke=\"#ddd\"/>\n<text x=\"{label}\" y=\"{:.1}\" \
             text-anchor=\"end\">{value}</text>\n",
            at + 4.0
        );
        let second = (run.seconds.len() - 1) * step as usize / 4;
        let time = clock(second as u64);
        text += &format!("<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{time}</text>\n", x(second), bottom + 20.0);
    }
    let slots = path(&|at| line(at, provider));
    let replicas = path(&|at| at.replicas);
    let legend = if provider { "slots demanded" } else { "slots that others leave" };
    text + &format!(
        "<path d=\"{slots}\" fill=\"none\" stroke=\"#999\" stroke-width=\"2\" stroke-dasharray=\"6 4\"/>\n\
         <path d=\"{replicas}\" fill=\"none\" stroke=\"#0969da\" stroke-width=\"2\"/>\n\
         <text x=\"{LEFT}\" y=\"{legend_y}\"><tspan fill=\"#0969da\">— replicas</tspan> \
         <tspan fill=\"#777\">- - {legend}</tspan></text>\n</svg>\n",
        legend_y = bottom + 40.0
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
