//! Secret parts of a file in a credentials Secret: the content of key and credential blocks, and the arguments of
//! credential options. Any other file, such as `client.key` or one with a user name and a password, is secret except for
//! certificates.

/// Public blocks of an OpenVPN configuration. All others are secret, known or not.
const PUBLIC_BLOCKS: [&str; 8] =
    ["ca", "cert", "extra-certs", "dh", "connection", "crl-verify", "peer-fingerprint", "verify-hash"];

/// Options of an OpenVPN configuration that take credentials.
const CREDENTIAL_OPTIONS: [&str; 7] =
    ["auth-user-pass", "auth-token", "auth-token-user", "askpass", "http-proxy-user-pass", "username", "password"];

/// Whether a text is a profile of OpenVPN or WireGuard: it has a section of WireGuard, a block of OpenVPN, or an option of
/// OpenVPN with its argument, of which each profile has one. A file with a user name and a password has none of them.
pub fn is_profile(content: &str) -> bool {
    content.lines().any(|line| {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("[Interface]" | "[Peer]") => true,
            Some("remote" | "dev" | "proto") => words.next().is_some(),
            Some(block) => block.starts_with('<') && block.ends_with('>'),
            None => false,
        }
    })
}

/// Whether a line is a PEM delimiter.
pub fn is_pem_delimiter(line: &str) -> bool {
    line.starts_with("-----BEGIN") || line.starts_with("-----END")
}

/// Returns the secret parts of a file, line by line.
pub fn secrets_of(name: &str, content: &str) -> Vec<String> {
    let is_configuration = name.ends_with(".ovpn") || is_profile(content);
    let mut secrets = Vec::new();
    // Whether the block or the PEM section of the current line is secret.
    let (mut block, mut section): (Option<bool>, Option<bool>) = (None, None);
    for line in content.lines().map(str::trim) {
        if let Some(what) = line.strip_prefix("-----BEGIN") {
            section = Some(!what.contains("CERTIFICATE"));
        } else if line.starts_with("-----END") {
            section = None;
        } else if let Some(tag) = line.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
            block = (!tag.starts_with('/')).then(|| !PUBLIC_BLOCKS.contains(&tag));
        } else if section.or(block).unwrap_or(!is_configuration && !name.ends_with(".crt")) {
            secrets.push(line.to_owned());
        } else if section.is_none() && block != Some(true) {
            secrets.extend(after_credential_option(line));
        }
    }
    secrets
}

/// Returns the arguments of a credential option of OpenVPN, or the value of a private key in a WireGuard configuration.
fn after_credential_option(line: &str) -> Vec<String> {
    if let Some((name, value)) = line.split_once('=') {
        let name = name.trim().to_ascii_lowercase();
        let is_secret = name.ends_with("key") && name != "publickey";
        if is_secret {
            let without_comment = value.split(['#', ';']).next().unwrap_or_default();
            return vec![value.trim().to_owned(), without_comment.trim().to_owned()];
        }
    }
    let mut words = line.split_whitespace();
    match words.next() {
        Some(option) if CREDENTIAL_OPTIONS.contains(&option) => {
            let values = words.map(|word| word.trim_matches(['"', '\'']));
            // They may also name a file.
            values.filter(|word| !word.starts_with('/')).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_and_credentials_of_a_configuration_are_secret() {
        let file = "client\nremote 198.51.100.7 1194\nauth-user-pass me secret\n<ca>\n-----BEGIN CERTIFICATE-----\nMIIC\n\
                    -----END CERTIFICATE-----\n</ca>\n<tls-crypt>\n0123abcd\n</tls-crypt>\n<unheard-of>\nwhat\n</unheard-of>\n";
        assert_eq!(secrets_of("custom.conf", file), ["me", "secret", "0123abcd", "what"]);
        let wireguard =
            "[Interface]\nPrivateKey = abc=\nAddress = 10.0.0.2/32\n[Peer]\nPublicKey = def=\nPresharedKey=ghi=\n";
        assert_eq!(secrets_of("wg0.conf", wireguard), ["abc=", "abc=", "ghi=", "ghi="]);
        let comment = "[Interface]\nPrivateKey = abc= # of the laptop\n";
        assert_eq!(secrets_of("wg0.conf", comment), ["abc= # of the laptop", "abc="]);
        let path = "client\nauth-user-pass /gluetun/auth.txt\naskpass /gluetun/pass\n";
        assert!(secrets_of("custom.ovpn", path).is_empty());
    }

    #[test]
    fn a_file_with_user_name_and_password_is_no_profile() {
        assert_eq!(secrets_of("auth.conf", "me\nsecret\n"), ["me", "secret"]);
        assert_eq!(secrets_of("auth.conf", "client\nremote\n"), ["client", "remote"]);
        assert!(secrets_of("custom.ovpn", "client\n").is_empty());
        assert!(secrets_of("custom.conf", "# from the provider\nclient\ndev tun\n").is_empty());
    }

    #[test]
    fn key_files_are_secret_and_certificates_are_not() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n";
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n";
        assert_eq!(secrets_of("client.key", key), ["MIIE"]);
        assert_eq!(secrets_of("both.pem", &format!("{certificate}{key}")), ["MIIE"]);
        assert!(secrets_of("ca.crt", certificate).is_empty());
        assert_eq!(secrets_of("odd.key", "raw"), ["raw"]);
    }
}
