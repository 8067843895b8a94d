package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

const (
	openVPN   = "openvpn"
	wireGuard = "wireguard"
	custom    = "custom"
	// wireGuardFile is read where the environment has no value.
	wireGuardFile = "/gluetun/wireguard/wg0.conf"
)

// providers are the names that gluetun knows.
var providers = []string{
	"airvpn", custom, "cyberghost", "expressvpn", "fastestvpn", "giganews", "hidemyass", "ipvanish", "ivpn",
	"mullvad", "nordvpn", "perfect privacy", "privado", "private internet access", "privatevpn", "protonvpn",
	"purevpn", "slickvpn", "surfshark", "torguard", "vpn unlimited", "vpnsecure", "vyprvpn", "windscribe",
}

type settings struct {
	provider, vpnType string
	openVPN           openVPNSettings
	wireGuard         wireGuardSettings
	outboundSubnets   []netip.Prefix
	healthAddress     string
	healthTargets     []string
	publicIPAPI       string
	publicIPFile      string
}

type openVPNSettings struct {
	user, password, protocol string
	endpoint                 netip.AddrPort
	lines                    []string
}

type wireGuardSettings struct {
	privateKey, presharedKey, publicKey string
	addresses                           []netip.Prefix
	endpoint                            netip.AddrPort
}

// readSettings reads and checks the environment.
func readSettings(network network) (settings, error) {
	read := settings{
		provider:      strings.ToLower(env("VPN_SERVICE_PROVIDER", env("VPNSP", "private internet access"))),
		vpnType:       strings.ToLower(env("VPN_TYPE", openVPN)),
		healthAddress: env("HEALTH_SERVER_ADDRESS", "127.0.0.1:9999"),
		healthTargets: list("HEALTH_TARGET_ADDRESSES", env("HEALTH_TARGET_ADDRESS", "cloudflare.com:443,github.com:443")),
		publicIPAPI:   env("PUBLICIP_API", "ipinfo"),
		publicIPFile:  env("PUBLICIP_FILE", "/tmp/gluetun/ip"),
	}
	if !slices.Contains([]string{openVPN, wireGuard}, read.vpnType) {
		return read, fmt.Errorf("VPN settings: VPN type is not valid: value is not one of the possible choices: "+
			"%s must be one of openvpn or wireguard", read.vpnType)
	}
	if !slices.Contains(providers, read.provider) {
		return read, fmt.Errorf("VPN settings: provider settings: VPN provider name is not valid for %s: value is "+
			"not one of the possible choices: %s must be one of %s", read.vpnType, read.provider,
			strings.Join(providers, ", "))
	}
	for _, subnet := range list("FIREWALL_OUTBOUND_SUBNETS", "") {
		prefix, err := netip.ParsePrefix(subnet)
		if err != nil {
			return read, fmt.Errorf("firewall settings: environment variable FIREWALL_OUTBOUND_SUBNETS: %w", err)
		}
		read.outboundSubnets = append(read.outboundSubnets, prefix)
	}
	var err error
	if read.vpnType == openVPN {
		read.openVPN, err = readOpenVPN(read.provider)
	} else {
		read.wireGuard, err = readWireGuard(read.provider, network)
	}
	if err != nil {
		return read, fmt.Errorf("VPN settings: %w", err)
	}
	return read, nil
}

func readOpenVPN(provider string) (openVPNSettings, error) {
	read := openVPNSettings{
		user:     env("OPENVPN_USER", os.Getenv("USER")),
		password: env("OPENVPN_PASSWORD", os.Getenv("PASSWORD")),
		protocol: strings.ToLower(env("OPENVPN_PROTOCOL", "udp")),
	}
	if !slices.Contains([]string{"udp", "tcp"}, read.protocol) {
		return read, fmt.Errorf("provider settings: server selection: OpenVPN server selection settings: network "+
			"protocol: value is not one of the possible choices: %s must be one of udp or tcp", read.protocol)
	}
	if provider != custom {
		switch {
		case read.user == "":
			return read, errors.New("OpenVPN settings: user is empty")
		case read.password == "":
			return read, errors.New("OpenVPN settings: password is empty")
		}
		return read, nil
	}
	path := env("OPENVPN_CUSTOM_CONFIG", "")
	if path == "" {
		return read, errors.New("OpenVPN settings: custom configuration file: filepath not specified")
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return read, fmt.Errorf("provider settings: server selection: OpenVPN server selection settings: "+
			"configuration file: file does not exist: %s", path)
	} else if err != nil {
		return read, fmt.Errorf("OpenVPN settings: custom configuration file: %w", err)
	}
	read.lines = strings.Split(string(text), "\n")
	if err := read.extract(); err != nil {
		return read, fmt.Errorf("OpenVPN settings: extracting information from custom configuration file: %w", err)
	}
	return read, nil
}

// extract finds the server in the configuration; the environment goes before.
func (s *openVPNSettings) extract() error {
	address, port := env("OPENVPN_ENDPOINT_IP", ""), env("OPENVPN_ENDPOINT_PORT", "")
	for _, line := range s.lines {
		words := strings.Fields(line)
		switch {
		case len(words) > 1 && words[0] == "proto" && os.Getenv("OPENVPN_PROTOCOL") == "":
			s.protocol = strings.TrimRight(strings.TrimSuffix(words[1], "-client"), "46")
		case len(words) > 1 && words[0] == "remote":
			if address == "" {
				address = words[1]
			}
			if port == "" && len(words) > 2 {
				port = words[2]
			}
		}
	}
	if address == "" {
		return errors.New("remote line not found")
	}
	host, err := netip.ParseAddr(address)
	if err != nil {
		return fmt.Errorf("remote line: host is not an IP address: %s", address)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return fmt.Errorf("remote line: port is not valid: %q", port)
	}
	s.endpoint = netip.AddrPortFrom(host, uint16(number))
	return nil
}

func readWireGuard(provider string, network network) (wireGuardSettings, error) {
	file := wireGuardFromFile()
	value := func(variable, key string) string { return env(variable, file[key]) }
	read := wireGuardSettings{
		privateKey:   value("WIREGUARD_PRIVATE_KEY", "PrivateKey"),
		presharedKey: value("WIREGUARD_PRESHARED_KEY", "PresharedKey"),
		publicKey:    value("WIREGUARD_PUBLIC_KEY", "PublicKey"),
	}
	if read.privateKey == "" {
		return read, errors.New("Wireguard settings: private key is not set")
	}
	for _, key := range []struct{ name, value string }{{"private key", read.privateKey}, {"pre-shared key", read.presharedKey}} {
		if err := checkKey(key.value); key.value != "" && err != nil {
			return read, fmt.Errorf("Wireguard settings: %s is not valid: %w", key.name, err)
		}
	}
	addresses := value("WIREGUARD_ADDRESSES", "Address")
	if addresses == "" {
		return read, errors.New("Wireguard settings: interface address is not set")
	}
	for part := range strings.SplitSeq(addresses, ",") {
		part = strings.TrimSpace(part)
		if !strings.Contains(part, "/") {
			part += "/32"
		}
		prefix, err := netip.ParsePrefix(part)
		if err != nil {
			return read, fmt.Errorf("Wireguard settings: environment variable WIREGUARD_ADDRESSES: %w", err)
		}
		if prefix.Addr().Is6() && !network.hasIPv6 {
			return read, fmt.Errorf("Wireguard settings: interface address is IPv6 but IPv6 is not supported: %s", prefix)
		}
		read.addresses = append(read.addresses, prefix)
	}
	if provider != custom {
		return read, nil
	}
	if read.publicKey == "" {
		return read, errors.New("provider settings: server selection: Wireguard server selection settings: public key is not set")
	}
	if err := checkKey(read.publicKey); err != nil {
		return read, fmt.Errorf("provider settings: server selection: Wireguard server selection settings: public key is not valid: %w", err)
	}
	return read, read.endpointFrom(file["Endpoint"])
}

func (s *wireGuardSettings) endpointFrom(file string) error {
	host, port, _ := strings.Cut(file, ":")
	host = env("WIREGUARD_ENDPOINT_IP", env("VPN_ENDPOINT_IP", host))
	port = env("WIREGUARD_ENDPOINT_PORT", env("VPN_ENDPOINT_PORT", port))
	address, err := netip.ParseAddr(host)
	if err != nil {
		return fmt.Errorf("provider settings: server selection: Wireguard server selection settings: endpoint: host is not an IP address: %s", host)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return fmt.Errorf("provider settings: server selection: Wireguard server selection settings: endpoint port is not valid: %q", port)
	}
	s.endpoint = netip.AddrPortFrom(address, uint16(number))
	return nil
}

// wireGuardFromFile reads the keys of wg0.conf, whatever their section.
func wireGuardFromFile() map[string]string {
	values := map[string]string{}
	text, err := os.ReadFile(wireGuardFile)
	if err != nil {
		return values
	}
	for line := range strings.Lines(string(text)) {
		if key, value, found := strings.Cut(line, "="); found {
			values[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return values
}

func checkKey(key string) error {
	const size = 32
	bytes, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return fmt.Errorf("wgtypes: failed to parse base64-encoded key: %w", err)
	}
	if len(bytes) != size {
		return fmt.Errorf("wgtypes: incorrect key size: %d", len(bytes))
	}
	return nil
}

func list(name, absent string) (values []string) {
	for value := range strings.SplitSeq(env(name, absent), ",") {
		if value = strings.TrimSpace(value); value != "" {
			values = append(values, value)
		}
	}
	return values
}

// summary has no secret in it.
func (s settings) summary() string {
	set := func(value string) string {
		if value == "" {
			return "[not set]"
		}
		return "[set]"
	}
	text := "Settings summary:\n├── VPN settings:\n|   ├── VPN provider: " + s.provider + "\n|   └── VPN type: " + s.vpnType
	if s.vpnType == openVPN {
		return text + "\n|       ├── User: " + set(s.openVPN.user) + "\n|       └── Password: " + set(s.openVPN.password)
	}
	return text + "\n|       ├── Private key: " + set(s.wireGuard.privateKey) + "\n|       └── Addresses: " +
		fmt.Sprint(s.wireGuard.addresses)
}
