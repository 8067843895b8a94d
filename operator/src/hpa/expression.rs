//! The value of a metric in the simulation.

use exmex::{Express, FlatEx};

use super::{
    meaning::{self, Meaning},
    world::Snapshot,
};

/// What an expression may use, in the order of the alphabet.
const VARIABLES: [&str; 9] =
    ["claimable", "free", "others", "ready", "replicas", "reserve", "slots", "used", "waiting"];

/// A metric that the user defines.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The name.
    pub name: String,
    formula: Formula,
}

/// How to calculate a metric.
#[derive(Clone, Debug)]
pub enum Formula {
    /// A metric of the operator.
    Known(Meaning),
    /// An expression.
    Expression(Box<FlatEx<f64>>),
}

/// Reads `NAME=EXPRESSION`.
///
/// # Errors
/// What was expected.
pub fn parse_definition(text: &str) -> Result<Definition, String> {
    let expected = "expected NAME=EXPRESSION, such as queue_length=40-replicas*2";
    let (name, expression) = text.split_once('=').ok_or(expected)?;
    if name.trim().is_empty() || expression.len() > 1000 {
        return Err(expected.into());
    }
    let parsed = exmex::parse::<f64>(expression).map_err(|error| format!("{expected}: {error}"))?;
    if let Some(unknown) = parsed.var_names().iter().find(|name| !VARIABLES.contains(&name.as_str())) {
        return Err(format!("{unknown:?} is not a variable; there are {}", VARIABLES.join(", ")));
    }
    Ok(Definition { name: name.trim().to_owned(), formula: Formula::Expression(Box::new(parsed)) })
}

/// Returns the formula for a metric.
///
/// # Errors
/// If the name is unknown.
pub fn formula(name: &str, definitions: &[Definition]) -> Result<Formula, String> {
    if let Some(definition) = definitions.iter().find(|definition| definition.name == name) {
        return Ok(definition.formula.clone());
    }
    meaning::meaning(name).map(Formula::Known).ok_or_else(|| {
        format!(
            "the metric {name} is unknown; define it with --metric {name}=EXPRESSION, where the expression may use {}; \
             known are {}",
            VARIABLES.join(", "),
            meaning::names().collect::<Vec<_>>().join(", ")
        )
    })
}

impl Formula {
    /// Returns the value in thousandths.
    ///
    /// # Errors
    /// If an expression has no finite value.
    pub fn milli(&self, at: &Snapshot) -> Result<i64, String> {
        let value = match self {
            Self::Known(Meaning::Total) => at.slots.into(),
            Self::Known(Meaning::Free) => at.free().into(),
            Self::Known(Meaning::Claimable) => at.claimable(),
            Self::Known(Meaning::Demanded) => (at.used() + at.waiting()).into(),
            Self::Known(Meaning::Used) => at.used().into(),
            Self::Known(Meaning::Waiting) => at.waiting().into(),
            Self::Known(Meaning::Remaining) => 1000.0 * f64::from(at.free()),
            Self::Known(Meaning::Available) => 1000.0 * at.fits(),
            Self::Known(Meaning::Fits) => at.fits(),
            Self::Expression(expression) => evaluate(expression, at)?,
        };
        match (value * 1000.0).ceil() {
            milli if milli.is_finite() => Ok(milli as i64),
            _ => Err(format!("the expression gives {value}")),
        }
    }
}

fn evaluate(expression: &FlatEx<f64>, at: &Snapshot) -> Result<f64, String> {
    let variable = |name: &String| match name.as_str() {
        "claimable" => at.claimable(),
        "free" => at.free().into(),
        "others" => at.others.into(),
        "ready" => at.held.into(),
        "replicas" => at.replicas.into(),
        "reserve" => at.reserve.into(),
        "slots" => at.slots.into(),
        "used" => at.used().into(),
        _ => at.waiting().into(),
    };
    let values: Vec<f64> = expression.var_names().iter().map(variable).collect();
    expression.eval(&values).map_err(|error| error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
mod tests {
    use super::*;

    const AT: Snapshot = Snapshot { slots: 20, others: 12, others_held: 12, replicas: 7, pods: 7, held: 6, reserve: 1 };

    #[test]
    fn expressions_use_the_numbers_of_the_simulation() {
        let milli = |text: &str| formula("m", &[parse_definition(text).unwrap()]).unwrap().milli(&AT);
        assert_eq!(milli("m=slots-others-reserve"), Ok(7000));
        assert_eq!(milli("m=max(0, free) * 0.25"), Ok(500));
        assert_eq!(milli("m=used+waiting"), Ok(19_000));
        assert_eq!(milli("m=ceil(40/ready)"), Ok(7000));
        assert!(milli("m=1/(free-2)").unwrap_err().contains("inf"));
        assert!(parse_definition("m=pods*2").unwrap_err().contains("variable"));
        assert!(parse_definition("m=2*").is_err());
        assert!(parse_definition("2*3").unwrap_err().contains("NAME=EXPRESSION"));
        assert!(formula("queue_length", &[]).unwrap_err().contains("--metric queue_length=EXPRESSION"));
    }

    #[test]
    fn metrics_of_the_operator_have_their_meaning() {
        let milli = |name: &str| formula(name, &[]).unwrap().milli(&AT).unwrap();
        assert_eq!(milli("vpno_provider_slots_free"), 2000);
        assert_eq!(milli("claimable_slots"), 7000, "6 held, 2 free, 1 in reserve");
        assert_eq!(milli("vpno_provider_slots_demanded"), 19_000);
        assert_eq!(milli("vpno_provider_slots_used"), 18_000);
        assert_eq!(milli("vpno_masks_waiting"), 1000);
        assert_eq!(milli("cpu_capacity_remaining"), 2_000_000);
        assert_eq!(milli("replicas_that_fit"), 7000);
    }
}
