//! Generates the API reference, `crds/README.md`, from the schemas and the documentation of the types.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use vpn_types::{
    CERTIFICATES_VALID, FIELD_MANAGER, FINALIZER, MaskConsumerPhase, MaskPhase, MaskProviderPhase,
    MaskReservationPhase, OWNER_LABEL, OpenVPNClientPhase, OpenVPNServerPhase, READY, RESERVATION_ANNOTATION, Reason,
    SERVER_LABEL, SHARED_CREDENTIALS, SHARED_FIELD_MANAGER, SLOT_ASSIGNED, SOURCE_HASH_ANNOTATION, VERIFIED,
    VERIFIES_ANNOTATION, VERIFY_LABEL,
    inject::{INJECT_LABEL, INJECTED_ANNOTATION, SLOT_GATE},
};

const BEGIN: &str = "\
# API reference

<!-- Generated from types/src; do not edit. To generate it again:
     UPDATE_CRDS=1 cargo test -p vpn-types --test crds_up_to_date -->

All custom resources belong to the API group `vpn.beebs.dev`, version `v1`, and are namespaced. `kubectl explain` shows
the same descriptions, and `kubectl get vpn` lists the objects of all of them. See the
[chart](../chart/README.md#custom-resource-definitions) for how to install and upgrade the CustomResourceDefinitions in
this directory, and the [README](../README.md#use-a-slot) and [your own VPN](../operator/docs/openvpn.md) for examples.

| custom resource | created by | namespace | purpose |
|---|---|---|---|
| [MaskProvider](#maskprovider) | administrator | of the account | a VPN account: its Secret, number of slots, tags, and the namespaces that may use it |
| [Mask](#mask) | user or controller | of the workload | requests one slot |
| [MaskConsumer](#maskconsumer) | operator | of the workload | holds the slot; has the name and namespace of the Mask |
| [MaskReservation](#maskreservation) | operator | of the account | locks one slot; its name is `<provider>-<slot>`, and a name exists only once |
| [OpenVPNServer](#openvpnserver) | administrator | of its own | an OpenVPN server in the cluster, and optionally a MaskProvider for it |
| [OpenVPNClient](#openvpnclient) | user, administrator or operator | of the OpenVPNServer | a device or a slot that may connect to an OpenVPNServer |
";

const CONDITIONS: &str = "\
## Conditions

| type | on | meaning |
|---|---|---|
";

const REASONS: &str = "
The `reason` of a condition says why it has its status. The operator also emits an Event with the same reason; some
reasons appear on Events only. `kubectl describe` shows both, for a waiting slot on the Mask. The
[runbook](../operator/RUNBOOK.md) says what to do.

| reason | on | meaning |
|---|---|---|
";

/// Returns the whole document.
pub fn document() -> String {
    let mut text = BEGIN.to_owned();
    for kind in ["MaskProvider", "Mask", "MaskConsumer", "MaskReservation", "OpenVPNServer", "OpenVPNClient"] {
        let crd = vpn_types::crds().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
        resource(&mut text, &crd);
    }
    text.push('\n');
    text.push_str(CONDITIONS);
    let all = "all";
    row(
        &mut text,
        &[
            &code(READY),
            all,
            "The slot is assigned (Mask, MaskConsumer, MaskReservation), slots can be assigned (MaskProvider), a replica \
             accepts clients (OpenVPNServer), or the certificate is valid (OpenVPNClient).",
        ],
    );
    row(
        &mut text,
        &[&code(VERIFIED), "MaskProvider", "Result of the last verification. Absent with `spec.verify.skip`."],
    );
    let shared = "`True` while another MaskProvider has the same credentials, or slots of this one have the same WireGuard \
                  key. Absent otherwise.";
    row(&mut text, &[&code(SHARED_CREDENTIALS), "MaskProvider", shared]);
    let valid = "`False` when a certificate is about to end that the operator cannot renew.";
    row(&mut text, &[&code(CERTIFICATES_VALID), "OpenVPNServer", valid]);
    let slot = "On a Pod with the label `vpn.beebs.dev/inject`: whether it has a slot, and if not, what it waits for.";
    row(&mut text, &[&code(SLOT_ASSIGNED), "Pod", slot]);
    text.push_str(REASONS);
    for reason in Reason::ALL {
        let (on, meaning) = on_and_meaning(reason.description());
        row(&mut text, &[&code(reason.as_str()), on, meaning]);
    }
    marks(&mut text);
    text
}

fn resource(text: &mut String, crd: &CustomResourceDefinition) {
    let kind = &crd.spec.names.kind;
    let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
    let short = crd.spec.names.short_names.iter().flatten().cloned().collect::<Vec<_>>().join("`, `");
    write!(text, "\n## {kind}\n\nPlural `{}`, short name `{short}`.\n\n", crd.spec.names.plural).unwrap();
    for paragraph in schema.description.as_deref().unwrap_or_default().split("\n\n") {
        write!(text, "{}\n\n", wrap(paragraph)).unwrap();
    }
    text.push_str("| field | type | default | description |\n|---|---|---|---|\n");
    for part in ["spec", "status"] {
        let Some(schema) = schema.properties.as_ref().and_then(|fields| fields.get(part)) else { continue };
        // `spec` is optional if all its fields have defaults.
        fields(text, part, schema);
    }
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        let message = rule.message.as_deref().unwrap_or(&rule.rule);
        write!(text, "\n{}\n", wrap(&format!("Validation: {message}."))).unwrap();
    }
    text.push_str("\n| phase | meaning |\n|---|---|\n");
    for (phase, meaning) in phases(kind) {
        row(text, &[&code(phase), meaning]);
    }
}

fn phases(kind: &str) -> Vec<(&'static str, &'static str)> {
    match kind {
        "Mask" => MaskPhase::ALL.iter().map(|phase| (phase.as_str(), phase.description())).collect(),
        "MaskConsumer" => MaskConsumerPhase::ALL.iter().map(|phase| (phase.as_str(), phase.description())).collect(),
        "MaskProvider" => MaskProviderPhase::ALL.iter().map(|phase| (phase.as_str(), phase.description())).collect(),
        "MaskReservation" => {
            MaskReservationPhase::ALL.iter().map(|phase| (phase.as_str(), phase.description())).collect()
        }
        "OpenVPNServer" => OpenVPNServerPhase::ALL.iter().map(|phase| (phase.as_str(), phase.description())).collect(),
        "OpenVPNClient" => OpenVPNClientPhase::ALL.iter().map(|phase| (phase.as_str(), phase.description())).collect(),
        other => panic!("{other} has no phases"),
    }
}

/// Adds a row for each field, followed by rows for its nested fields.
fn fields(text: &mut String, path: &str, schema: &JSONSchemaProps) {
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        let required = schema.required.iter().flatten().any(|required| required == name);
        let type_ = type_of(name, field) + if required { ", required" } else { "" };
        let (description, default) = without_default(field.description.as_deref().unwrap_or_default());
        row(text, &[&code(&path), &type_, &default, &description]);
        // Kubernetes documents conditions.
        if name == "conditions" {
            continue;
        }
        match &field.items {
            Some(JSONSchemaPropsOrArray::Schema(items)) => fields(text, &format!("{path}[]"), items),
            _ => fields(text, &path, field),
        }
    }
}

fn type_of(name: &str, schema: &JSONSchemaProps) -> String {
    if name == "conditions" {
        return "list of [Condition](#conditions)".to_owned();
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        return format!("[]{}", type_of("", items));
    }
    let type_ = schema.type_.clone().unwrap_or_default();
    let values: Vec<String> = schema.enum_.iter().flatten().filter_map(|value| value.0.as_str().map(code)).collect();
    match schema.format.as_deref() {
        // Phases have their own table.
        _ if !values.is_empty() && name != "phase" => format!("{type_}: {}", values.join(", ")),
        Some("date-time") => "date-time".to_owned(),
        _ => type_,
    }
}

/// Splits the default off a description.
fn without_default(description: &str) -> (String, String) {
    match description.split_once(" Default: ") {
        Some((text, default)) => (text.to_owned(), default.trim_end_matches('.').to_owned()),
        None => (description.to_owned(), String::new()),
    }
}

/// Splits the documentation of a reason into the custom resources that it appears on and the rest.
fn on_and_meaning(description: &'static str) -> (&'static str, &'static str) {
    let on =
        ["Mask", "MaskConsumer", "MaskReservation", "MaskProvider", "OpenVPNServer", "OpenVPNClient", "Pod", "Event"];
    match description.split_once(": ") {
        Some((kinds, meaning)) if kinds.split(", ").all(|kind| on.contains(&kind)) => (kinds, meaning),
        _ => ("all", description),
    }
}

/// Adds a section on what the operator writes on objects besides their spec and status.
fn marks(text: &mut String) {
    text.push_str("\n## Names, labels and annotations\n\n| object | name |\n|---|---|\n");
    for (object, name) in [
        ("MaskConsumer of a Mask", "the name of the Mask"),
        ("MaskReservation of a slot", "`<provider>-<slot>`"),
        ("Secret with the copied credentials", "`spec.secretName` of the Mask, or `<mask>-<UID of the MaskProvider>`"),
        ("Mask and Secret of a labeled Pod", "the name of the Pod, or its `generateName`, and a random suffix"),
        ("Mask and Pod of a verification", "`<provider>-verify`"),
        (
            "Deployment, Service, PodDisruptionBudget and MaskProvider of an OpenVPNServer",
            "the name of the OpenVPNServer",
        ),
        (
            "Secret with the certificate authority, and with the revoked certificates",
            "`<server>-ca`, `<server>-revoked`",
        ),
        ("OpenVPNClient and Secret of a slot of an OpenVPNServer", "`<server>-slot-<slot>`"),
        ("Secret with the profile of an OpenVPNClient", "the name of the OpenVPNClient"),
    ] {
        row(text, &[object, name]);
    }
    text.push_str("\n| key | what | on | meaning |\n|---|---|---|---|\n");
    for (key, what, on, meaning) in [
        (
            FINALIZER,
            "finalizer",
            "MaskProvider, MaskConsumer, MaskReservation, OpenVPNServer, OpenVPNClient",
            "The operator has to release or revoke something before the object goes.",
        ),
        (INJECT_LABEL, "label", "Pod", "`true`: the Pod gets a slot. See [Pods](../operator/docs/pods.md)."),
        (SLOT_GATE, "scheduling gate", "Pod", "The Pod waits for its slot."),
        (INJECTED_ANNOTATION, "annotation", "Pod", "What the webhook decided, as JSON."),
        (SERVER_LABEL, "label", "Pods and other objects of an OpenVPNServer", "Name of the OpenVPNServer."),
        (OWNER_LABEL, "label", "copied Secret, MaskReservation", "UID of the MaskProvider."),
        (VERIFY_LABEL, "label", "Mask of a verification", "UID of the MaskProvider."),
        (RESERVATION_ANNOTATION, "annotation", "copied Secret", "UID of the MaskReservation that it was copied for."),
        (SOURCE_HASH_ANNOTATION, "annotation", "copied Secret", "Hash of the source data."),
        (
            VERIFIES_ANNOTATION,
            "annotation",
            "Mask of a verification",
            "UID and resourceVersion of the Secret and the fingerprint of `spec.verify.overrides`.",
        ),
    ] {
        row(text, &[&code(key), what, on, meaning]);
    }
    write!(text, "\nThe field manager of every write is `{FIELD_MANAGER}`. When `spec.replicas` of an OpenVPNServer is removed,\n")
        .unwrap();
    writeln!(text, "`{SHARED_FIELD_MANAGER}` keeps the number of replicas of the Deployment.").unwrap();
}

fn row(text: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    writeln!(text, "| {} |", cells.join(" | ")).unwrap();
}

fn code(text: impl AsRef<str>) -> String {
    format!("`{}`", text.as_ref())
}

/// Wraps a paragraph at 120 characters.
fn wrap(paragraph: &str) -> String {
    let mut lines = vec![String::new()];
    for word in paragraph.split_whitespace() {
        let line = lines.last_mut().unwrap();
        if !line.is_empty() && line.len() + 1 + word.len() > 120 {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}
