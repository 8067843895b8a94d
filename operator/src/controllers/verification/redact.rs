//! Redacts secret values of a Secret from messages.
//!
//! Secret values are those of all keys except gluetun's public settings, and the keys and credentials in files.
//! Everything else stays readable: a provider's name, a path or the word `client` is not secret.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;

use super::secrets_in_files::{self, is_profile};
use crate::gluetun::{is_file, is_public};

const MARK: &str = "***";
/// Shorter values (`on`, `443`) are redacted as whole words only: inside words they reveal nothing, and the text would
/// become unreadable.
const WORDS_ONLY_BELOW: usize = 4;

/// Returns the text without the secret values of the Secret: whole values, and each line of multi-line values.
pub fn redact(text: &str, secret: &BTreeMap<String, ByteString>) -> String {
    let mut values: Vec<String> = secret.iter().flat_map(|(key, value)| secrets_of(key, value)).collect();
    // As Go programs quote it.
    let quoted: Vec<_> = values.iter().map(|value| value.replace('\\', "\\\\").replace('"', "\\\"")).collect();
    values.extend(quoted);
    // Longest first: one value may be part of another.
    values.sort_by(|one, other| other.len().cmp(&one.len()).then(one.cmp(other)));
    values.dedup();
    values.iter().fold(text.to_owned(), |text, value| {
        if value.len() >= WORDS_ONLY_BELOW { text.replace(value, MARK) } else { replace_words(&text, value) }
    })
}

/// Returns the secret parts of the value of one key, trimmed, without empty ones.
fn secrets_of(key: &str, value: &ByteString) -> Vec<String> {
    let value = String::from_utf8_lossy(&value.0);
    let mut secrets: Vec<String> = match key {
        _ if is_public(key) && !is_misplaced(key, &value) => Vec::new(),
        _ if is_file(key) || is_profile(&value) => secrets_in_files::secrets_of(key, &value),
        _ => value.lines().map(str::to_owned).chain([value.to_string()]).collect(),
    };
    secrets.iter_mut().for_each(|secret| *secret = secret.trim().to_owned());
    secrets.retain(|secret| !secret.is_empty() && !secrets_in_files::is_pem_delimiter(secret));
    secrets
}

/// Whether the value of a public setting is not what the setting is for: the content of a file, or a secret itself, where
/// its path belongs.
fn is_misplaced(key: &str, value: &str) -> bool {
    value.trim().contains('\n') || (key.ends_with("_SECRETFILE") && !value.trim().starts_with('/'))
}

fn replace_words(text: &str, word: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, from) = rest.split_at(at);
        let after = &from[word.len()..];
        let joins = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let inside = joins(before.chars().next_back().or(out.chars().next_back())) || joins(after.chars().next());
        out.push_str(before);
        out.push_str(if inside { word } else { MARK });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(values: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
        values.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect()
    }

    #[test]
    fn long_values_go_everywhere_and_short_ones_as_words() {
        let secret = secret(&[("A", "hunter2"), ("B", "on"), ("C", "-----BEGIN\nline of a key\n")]);
        assert_eq!(redact("user=hunter2x on connection", &secret), "user=***x *** connection");
        assert_eq!(redact("bad: line of a key!", &secret), "bad: ***!");
    }

    #[test]
    fn public_settings_stay_readable() {
        let secret = secret(&[
            ("VPN_SERVICE_PROVIDER", "custom"),
            ("OPENVPN_PROCESS_USER", "root"),
            ("OPENVPN_CUSTOM_CONFIG", "/gluetun/custom.conf"),
            ("OPENVPN_PASSWORD", "hunter\"2"),
            ("custom.conf", "client\ndev tun\n<auth-user-pass>\nme-myself\nopen-sesame\n</auth-user-pass>\n"),
        ]);
        for text in [
            "for VPN service provider custom",
            "file does not exist: /gluetun/custom.conf",
            "No client-side authentication method is specified",
            "user root, dev tun",
        ] {
            assert_eq!(redact(text, &secret), text);
        }
        assert_eq!(redact("me-myself open-sesame hunter\"2", &secret), "*** *** ***");
        assert_eq!(redact(r#"password "hunter\"2""#, &secret), "password \"***\"");
    }

    #[test]
    fn a_secret_in_the_place_of_a_path_is_redacted() {
        let secret = secret(&[
            ("OPENVPN_PASSWORD_SECRETFILE", "hunter2hunter2"),
            ("OPENVPN_USER_SECRETFILE", "/run/secrets/user"),
            ("OPENVPN_CUSTOM_CONFIG", "client\nremote a.example 1194\n<key>\nMIIE\n</key>\n"),
            ("profile", "client\nremote b.example 1194\n<key>\nMIIF\n</key>\n"),
            ("auth.conf", "me-myself\nopen-sesame\n"),
        ]);
        let text = "open hunter2hunter2, /run/secrets/user: client of a.example: MIIE MIIF me-myself open-sesame";
        let shown = "open ***, /run/secrets/user: client of a.example: *** *** *** ***";
        assert_eq!(redact(text, &secret), shown);
    }

    proptest! {
        #[test]
        fn no_secret_is_left_and_no_public_word_lost(
            secrets in proptest::collection::vec("[a-m0-4]{4,12}", 1..5),
            public in proptest::collection::vec("[n-z5-9]{1,12}", 1..5),
            gaps in proptest::collection::vec("[ =:]{1,3}", 1..8),
        ) {
            let mut data = BTreeMap::new();
            let names = ["OPENVPN_USER", "OPENVPN_PASSWORD", "WIREGUARD_PRIVATE_KEY", "UNKNOWN"];
            for (name, value) in names.iter().zip(&secrets) {
                data.insert((*name).to_owned(), ByteString(value.as_bytes().to_vec()));
            }
            let names = ["VPN_SERVICE_PROVIDER", "SERVER_COUNTRIES", "OPENVPN_PROCESS_USER", "LOG_LEVEL"];
            for (name, value) in names.iter().zip(&public) {
                data.insert((*name).to_owned(), ByteString(value.as_bytes().to_vec()));
            }
            let file = format!("client\n{}\n<key>\n{}\n</key>\n", public.join(" "), secrets.join("\n"));
            data.insert("custom.conf".to_owned(), ByteString(file.into_bytes()));
            let words = secrets.iter().zip(public.iter().cycle());
            let text: String = words.zip(gaps.iter().cycle()).map(|((secret, word), gap)| format!("{gap}{secret}{gap}{word}")).collect();
            let shown = redact(&text, &data);
            for secret in &secrets {
                prop_assert!(!shown.contains(secret), "{shown} shows {secret}");
            }
            let is_public = |c: char| ('n'..='z').contains(&c) || ('5'..='9').contains(&c);
            let kept = |text: &str| text.chars().filter(|c| is_public(*c)).collect::<String>();
            prop_assert_eq!(kept(&shown), kept(&text));
        }
    }
}
