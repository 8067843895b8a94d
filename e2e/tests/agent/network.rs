//! What the process sets up in its container.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use e2e::testing::programs::Program;
use rustix::process::Signal;

use crate::world::{STARTED, World};

/// Lets the agent set up the network.
const REAL_NETWORK: [(&str, &str); 3] = [
    ("--iptables", "iptables"),
    ("--tun-device", "/dev/net/tun"),
    ("--forwarding-setting", "/proc/sys/net/ipv4/ip_forward"),
];

/// Runs a script in the network.
fn inside(world: &World, script: &str) -> String {
    let output = world.inside("sh").args(["-c", script]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

pub fn four_capabilities_are_enough() {
    let world = World::new(0, 2);
    let mut command = world.inside("setpriv");
    command.args(["--bounding-set=-all,+net_admin,+mknod,+setuid,+setgid", "--no-new-privs"]).arg(&world.program);
    let mut agent = Program::start(command.args(world.arguments(&REAL_NETWORK)), &world.path("agent.log"));
    agent.writes(STARTED, 20);
    let _client = world.client("laptop", 10);
    agent.signal(Signal::TERM);
    let (status, took) = agent.end(10);
    assert!(status.success() && took.as_secs() < 5, "{took:?}");
    let log = world.read("agent.log");
    assert!(log.contains("process exiting") && !log.contains("WARN "), "{log}");
}

pub fn rules_and_forwarding_are_set_up_once() {
    let world = World::new(0, 2);
    let settings = world.read("config/agent.json");
    let settings = settings.replace("\"redirectGateway\":true", "\"redirectGateway\":false");
    fs::write(world.path("config/agent.json"), settings.replace("[]", "[\"10.96.0.0/12\"]")).unwrap();
    for turn in 0..2 {
        let mut agent = world.start_agent(&REAL_NETWORK);
        agent.writes(STARTED, 20);
        let rules = inside(&world, "iptables -t nat -S; iptables -S; cat /proc/sys/net/ipv4/ip_forward; ip -o addr");
        for line in [
            "-A POSTROUTING -j VPN-OPERATOR",
            "-A VPN-OPERATOR -s 10.240.0.0/16 ! -o tun0 -j MASQUERADE",
            "-A FORWARD -j VPN-OPERATOR",
            "-A VPN-OPERATOR -o tun0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A VPN-OPERATOR -i tun0 -o tun0 -j DROP",
            "-A VPN-OPERATOR -d 10.96.0.0/12 -i tun0 -j ACCEPT",
            "-A VPN-OPERATOR -i tun0 -j DROP",
            "-A INPUT -j VPN-OPERATOR-IN",
            "-A VPN-OPERATOR-IN -d 10.240.0.1/32 -i tun0 -p tcp -m tcp --dport 9176 -j ACCEPT",
            "1",
        ] {
            assert_eq!(rules.lines().filter(|other| *other == line).count(), 1, "turn {turn}: {line}\n{rules}");
        }
        assert!(rules.contains("10.240.0.1/16"), "{rules}");
        agent.signal(Signal::TERM);
        assert!(agent.end(10).0.success());
    }
}

pub fn the_first_process_of_a_container_waits_for_orphans() {
    let world = World::new(0, 2);
    // An OpenVPN that leaves processes behind, and prints the number of zombies.
    let script = "#!/bin/sh\nfor i in 1 2 3 4 5; do (sleep 0.2 &) ; done\nsleep 2\n\
                  echo zombies $(grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l)\nexit 7\n";
    let path = world.path("orphans");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(&world.program);
    command.args(world.arguments(&[("--openvpn", &path.display().to_string())]));
    let (status, _) = Program::start(&mut command, &world.path("agent.log")).end(10);
    let log = world.read("agent.log");
    assert_eq!(status.code(), Some(7), "{log}");
    assert!(log.contains("zombies 0\n"), "{log}");
}
