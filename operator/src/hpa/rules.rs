//! `behavior` with the defaults of the API server.

use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

use super::{
    autoscaler::{Behavior, Policy, Rules, Select},
    quantity,
};

/// Fills in what is absent.
pub fn behavior(from: HorizontalPodAutoscalerBehavior, path: &str) -> Result<Behavior, String> {
    let defaults = Behavior::default();
    Ok(Behavior {
        up: rules(from.scale_up, defaults.up, &format!("{path}.scaleUp"))?,
        down: rules(from.scale_down, defaults.down, &format!("{path}.scaleDown"))?,
    })
}

fn rules(from: Option<HPAScalingRules>, defaults: Rules, path: &str) -> Result<Rules, String> {
    let Some(HPAScalingRules { policies, select_policy, stabilization_window_seconds, tolerance }) = from else {
        return Ok(defaults);
    };
    let policies = policies.map(|all| {
        let policy = |(index, policy): (usize, k8s_openapi::api::autoscaling::v2::HPAScalingPolicy)| {
            let percent = match policy.type_.as_str() {
                "Pods" => false,
                "Percent" => true,
                other => {
                    return Err(format!(
                        "{path}.policies[{index}].type: expected Pods or Percent, but found {other:?}"
                    ));
                }
            };
            Ok(Policy { percent, value: policy.value, period: policy.period_seconds })
        };
        all.into_iter().enumerate().map(policy).collect::<Result<Vec<_>, _>>()
    });
    let tolerance = tolerance.map(|it| {
        quantity::float(&it.0).ok_or_else(|| format!("{path}.tolerance: {:?} is not a quantity such as 0.05", it.0))
    });
    Ok(Rules {
        window: stabilization_window_seconds.or(defaults.window),
        select: match select_policy.as_deref() {
            None => defaults.select,
            Some("Max") => Select::Max,
            Some("Min") => Select::Min,
            Some("Disabled") => Select::Disabled,
            Some(other) => {
                return Err(format!("{path}.selectPolicy: expected Max, Min or Disabled, but found {other:?}"));
            }
        },
        policies: policies.transpose()?.unwrap_or(defaults.policies),
        tolerance: tolerance.transpose()?.or(defaults.tolerance),
    })
}
