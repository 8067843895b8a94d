//! The rules of a server's network, as commands for `iptables`.
//!
//! They are in chains of our own, which are flushed and filled again, so applying the rules is idempotent. What
//! clients send is forwarded to declared networks only, unless everything is, and never to other clients. OpenVPN itself
//! forwards between clients if it has the option `client-to-client`, past these rules.

use super::settings::{AgentSettings, EXPORTER_PORT};

/// The chain for what is forwarded, and in table `nat` for masquerading.
pub const CHAIN: &str = "VPN-OPERATOR";
/// The chain for what is sent to the Pod itself.
pub const INPUT_CHAIN: &str = "VPN-OPERATOR-IN";
/// The device of the tunnel.
pub const TUNNEL: &str = "tun0";

/// A call of `iptables`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The arguments.
    pub arguments: Vec<String>,
    /// The arguments of a check. If the check succeeds, there is nothing to do.
    pub unless: Option<Vec<String>>,
}

/// Returns the calls that set up the rules, in their order.
pub fn steps(settings: &AgentSettings) -> Vec<Step> {
    let clients = settings.clients.trunc().to_string();
    let mut nat = Chain::new("nat", CHAIN);
    nat.rule(&["-s", &clients, "!", "-o", TUNNEL, "-j", "MASQUERADE"]);

    let mut forward = Chain::new("filter", CHAIN);
    forward.rule(&["-o", TUNNEL, "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"]);
    forward.rule(&["-i", TUNNEL, "-o", TUNNEL, "-j", "DROP"]);
    if settings.redirect_gateway {
        forward.rule(&["-i", TUNNEL, "-j", "ACCEPT"]);
    } else {
        for route in &settings.routes {
            forward.rule(&["-i", TUNNEL, "-d", &route.trunc().to_string(), "-j", "ACCEPT"]);
        }
        forward.rule(&["-i", TUNNEL, "-j", "DROP"]);
    }

    let mut input = Chain::new("filter", INPUT_CHAIN);
    let (gateway, port) = (settings.gateway().to_string(), EXPORTER_PORT.to_string());
    input.rule(&["-i", TUNNEL, "-d", &gateway, "-p", "tcp", "--dport", &port, "-j", "ACCEPT"]);

    [nat.called_from("POSTROUTING"), forward.called_from("FORWARD"), input.called_from("INPUT")].concat()
}

/// The steps for one chain.
struct Chain {
    table: &'static str,
    name: &'static str,
    steps: Vec<Step>,
}

impl Chain {
    fn new(table: &'static str, name: &'static str) -> Self {
        let mut chain = Self { table, name, steps: Vec::new() };
        let exists = chain.arguments(&["-n", "-L", name]);
        let create = Step { arguments: chain.arguments(&["-N", name]), unless: Some(exists) };
        let empty = Step { arguments: chain.arguments(&["-F", name]), unless: None };
        chain.steps.extend([create, empty]);
        chain
    }

    fn arguments(&self, rest: &[&str]) -> Vec<String> {
        ["--wait", "10", "-t", self.table].iter().chain(rest).map(|part| (*part).to_owned()).collect()
    }

    fn rule(&mut self, rule: &[&str]) {
        let arguments = self.arguments(&[&["-A", self.name], rule].concat());
        self.steps.push(Step { arguments, unless: None });
    }

    /// Adds the call of the chain, which is before all other rules.
    fn called_from(mut self, caller: &str) -> Vec<Step> {
        let is_called = self.arguments(&["-C", caller, "-j", self.name]);
        let call = self.arguments(&["-I", caller, "1", "-j", self.name]);
        self.steps.push(Step { arguments: call, unless: Some(is_called) });
        self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(redirect_gateway: bool, routes: &[&str]) -> AgentSettings {
        let routes = routes.iter().map(|route| format!("\"{route}\"")).collect::<Vec<_>>().join(",");
        let text = format!(
            r#"{{"version":1,"protocol":"UDP","port":1194,"clients":"10.240.0.7/16","routes":[{routes}],
            "redirectGateway":{redirect_gateway},"drainTimeoutSeconds":300,"maxClients":128}}"#
        );
        AgentSettings::parse(&text).expect("valid")
    }

    fn lines(settings: &AgentSettings) -> Vec<String> {
        let line = |arguments: &[String]| arguments.join(" ").replace("--wait 10 -t ", "");
        let unless = |step: &Step| step.unless.as_ref().map(|unless| format!("{} || ", line(unless)));
        steps(settings).iter().map(|step| unless(step).unwrap_or_default() + &line(&step.arguments)).collect()
    }

    #[test]
    fn only_declared_networks_are_reached() {
        let expected = [
            "nat -n -L VPN-OPERATOR || nat -N VPN-OPERATOR",
            "nat -F VPN-OPERATOR",
            "nat -A VPN-OPERATOR -s 10.240.0.0/16 ! -o tun0 -j MASQUERADE",
            "nat -C POSTROUTING -j VPN-OPERATOR || nat -I POSTROUTING 1 -j VPN-OPERATOR",
            "filter -n -L VPN-OPERATOR || filter -N VPN-OPERATOR",
            "filter -F VPN-OPERATOR",
            "filter -A VPN-OPERATOR -o tun0 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            "filter -A VPN-OPERATOR -i tun0 -o tun0 -j DROP",
            "filter -A VPN-OPERATOR -i tun0 -d 10.96.0.0/12 -j ACCEPT",
            "filter -A VPN-OPERATOR -i tun0 -d 192.168.0.0/24 -j ACCEPT",
            "filter -A VPN-OPERATOR -i tun0 -j DROP",
            "filter -C FORWARD -j VPN-OPERATOR || filter -I FORWARD 1 -j VPN-OPERATOR",
            "filter -n -L VPN-OPERATOR-IN || filter -N VPN-OPERATOR-IN",
            "filter -F VPN-OPERATOR-IN",
            "filter -A VPN-OPERATOR-IN -i tun0 -d 10.240.0.1 -p tcp --dport 9176 -j ACCEPT",
            "filter -C INPUT -j VPN-OPERATOR-IN || filter -I INPUT 1 -j VPN-OPERATOR-IN",
        ];
        assert_eq!(lines(&settings(false, &["10.96.0.0/12", "192.168.0.7/24"])), expected);
        let nothing = lines(&settings(false, &[]));
        assert_eq!(nothing.iter().filter(|line| line.contains("-i tun0")).count(), 3);
        assert!(nothing.contains(&"filter -A VPN-OPERATOR -i tun0 -j DROP".to_owned()));
    }

    #[test]
    fn with_a_redirected_gateway_everything_but_other_clients_is_reached() {
        let lines = lines(&settings(true, &["10.96.0.0/12"]));
        let position = |line: &str| lines.iter().position(|other| *other == format!("filter -A VPN-OPERATOR {line}"));
        let (dropped, accepted) = (position("-i tun0 -o tun0 -j DROP"), position("-i tun0 -j ACCEPT"));
        assert!(dropped.is_some() && dropped < accepted, "{lines:?}");
        assert_eq!(lines.iter().filter(|line| line.contains("DROP")).count(), 1, "{lines:?}");
    }
}
