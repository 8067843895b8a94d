package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
)

// Priorities of the routing rules, and their tables, as gluetun has them. They stay in
// the network namespace of the Pod when the container is killed.
const (
	outboundTable, outboundPriority = "199", "99"
	inboundTable, inboundPriority   = "200", "100"
	localPriority                   = "98"
	// wireGuardMark is the table, the priority and the mark of packets that are encrypted already.
	wireGuardMark, wireGuardPriority = "51820", "101"
)

// network is the network that the container has when it starts.
type network struct {
	link             string
	address, gateway netip.Addr
	local            netip.Prefix
	hasIPv6          bool
}

func readNetwork() (network, error) {
	output, err := command("ip", "-4", "route", "show", "default")
	if err != nil {
		return network{}, fmt.Errorf("getting default route: %w", err)
	}
	var found network
	words := strings.Fields(output)
	for i := range len(words) - 1 {
		switch words[i] {
		case "via":
			found.gateway, err = netip.ParseAddr(words[i+1])
		case "dev":
			found.link = words[i+1]
		}
		if err != nil {
			return network{}, err
		}
	}
	if found.link == "" || !found.gateway.IsValid() {
		return network{}, errors.New("default route not found")
	}
	link, err := net.InterfaceByName(found.link)
	if err != nil {
		return network{}, err
	}
	addresses, err := link.Addrs()
	if err != nil {
		return network{}, err
	}
	for _, address := range addresses {
		prefix, err := netip.ParsePrefix(address.String())
		switch {
		case err != nil:
			return network{}, err
		case prefix.Addr().Is4():
			found.address, found.local = prefix.Addr(), prefix.Masked()
		case !prefix.Addr().IsLinkLocalUnicast():
			found.hasIPv6 = true
		}
	}
	return found, nil
}

type firewall struct {
	network network
	log     logger
	allowed netip.AddrPort
	tunnel  bool
}

// enable drops everything but loopback, answers, and the network on the link.
func (f *firewall) enable() error {
	f.log.info("enabling...")
	link, local := f.network.link, f.network.local.String()
	for _, rule := range []string{
		"-P INPUT DROP", "-P OUTPUT DROP", "-P FORWARD DROP",
		"-A INPUT -i lo -j ACCEPT", "-A OUTPUT -o lo -j ACCEPT",
		"-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
		"-A OUTPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
		"-A OUTPUT -o " + link + " -s " + f.network.address.String() + " -d " + local + " -j ACCEPT",
		"-A INPUT -i " + link + " -d " + local + " -j ACCEPT",
	} {
		if err := iptables(rule); err != nil {
			return fmt.Errorf("enabling firewall: %w", err)
		}
	}
	f.log.info("enabled successfully")
	return nil
}

// allow lets packets to the VPN server out, and everything into the tunnel.
func (f *firewall) allow(protocol string, server netip.AddrPort, tunnel string) error {
	f.log.info("allowing VPN connection...")
	if !f.tunnel {
		if err := iptables("-A OUTPUT -o " + tunnel + " -j ACCEPT"); err != nil {
			return err
		}
		f.tunnel = true
	}
	if f.allowed == server {
		return nil
	}
	f.allowed = server
	return iptables(fmt.Sprintf("-A OUTPUT -d %s -o %s -p %s -m %s --dport %d -j ACCEPT",
		server.Addr(), f.network.link, protocol, protocol, server.Port()))
}

// addRoutes keeps answers to what came from outside on the link, and leads the subnets
// that go round the VPN there.
func (f *firewall) addRoutes(outbound []netip.Prefix) error {
	link, gateway, address := f.network.link, f.network.gateway.String(), f.network.address.String()
	if err := ensureRule("from", address, "lookup", inboundTable, "priority", inboundPriority); err != nil {
		return fmt.Errorf("cannot setup routing: %w", err)
	}
	if _, err := command("ip", "route", "replace", "default", "via", gateway, "dev", link, "table", inboundTable); err != nil {
		return fmt.Errorf("cannot setup routing: %w", err)
	}
	if err := ensureRule("to", f.network.local.String(), "lookup", "main", "priority", localPriority); err != nil {
		return fmt.Errorf("cannot setup routing: %w", err)
	}
	for _, subnet := range outbound {
		to := subnet.String()
		if err := iptables("-A OUTPUT -o " + link + " -s " + address + " -d " + to + " -j ACCEPT"); err != nil {
			return err
		}
		if _, err := command("ip", "route", "replace", to, "via", gateway, "dev", link, "table", outboundTable); err != nil {
			return fmt.Errorf("adding outbound subnet: %w", err)
		}
		if err := ensureRule("to", to, "lookup", outboundTable, "priority", outboundPriority); err != nil {
			return fmt.Errorf("adding outbound subnet: %w", err)
		}
	}
	return nil
}

// ensureRule adds a rule, unless a container that was killed has left it here.
func ensureRule(rule ...string) error {
	_, err := command("ip", append([]string{"rule", "add"}, rule...)...)
	if err != nil && !strings.Contains(err.Error(), "File exists") {
		return err
	}
	return nil
}

func (f *firewall) removeRoutes() {
	logger("routing").info("routing cleanup...")
	for _, priority := range []string{localPriority, outboundPriority, inboundPriority, wireGuardPriority} {
		for {
			if _, err := command("ip", "rule", "delete", "priority", priority); err != nil {
				break
			}
		}
	}
}

func iptables(rule string) error {
	_, err := command("iptables", append([]string{"--wait"}, strings.Fields(rule)...)...)
	return err
}

// command runs a program and returns its output. On failure, the output is the error.
func command(name string, args ...string) (string, error) {
	output, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("command failed: %s %s: %s: %w", name, strings.Join(args, " "), strings.TrimSpace(string(output)), err)
	}
	return string(output), nil
}
