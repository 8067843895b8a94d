// gluetun-entrypoint stands in for gluetun v3.41.3 (https://github.com/qdm12/gluetun)
// in tests that have no registry to get its image from. It is a program of its own,
// around Debian's openvpn and wireguard-go, so that what fails, fails for real. It
// keeps the interface that an operator and its users rely on:
//
//   - `gluetun-entrypoint` runs the VPN, `gluetun-entrypoint healthcheck` asks the
//     health server of the running one and exits with 0 or 1;
//   - the environment variables of the provider `custom`, for OpenVPN and WireGuard,
//     and those of the health check, the firewall and the public address; of other
//     providers it knows the names but no servers;
//   - everything but the VPN, loopback and the network on the link is dropped, from
//     the start;
//   - /tmp/gluetun/ip, the health server on 127.0.0.1:9999, the control server on
//     127.0.0.1:8000;
//   - the log lines by which a person, or an operator, tells what is wrong, and the
//     exit code: 1 for settings that cannot be used, 0 after SIGTERM. A VPN that does
//     not come up is tried again for ever.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	if len(os.Args) > 1 {
		os.Exit(subcommand(os.Args[1]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := run(ctx)
	switch {
	case ctx.Err() != nil:
		logLine(levelInfo, "", "Shutdown successful")
	case err != nil:
		logLine(levelError, "", err.Error())
		logLine(levelInfo, "", "Shutdown successful")
		os.Exit(1)
	}
}

func subcommand(name string) int {
	if name != "healthcheck" {
		logLine(levelError, "", "command is unknown: "+name)
		return 1
	}
	if err := askHealth(env("HEALTH_SERVER_ADDRESS", "127.0.0.1:9999")); err != nil {
		logLine(levelError, "", err.Error())
		return 1
	}
	return 0
}

// run returns an error when the settings cannot be used; else it returns when ctx ends.
func run(ctx context.Context) error {
	fmt.Println("gluetun stand-in: the interface of gluetun v3.41.3 for tests")
	network, err := readNetwork()
	if err != nil {
		return err
	}
	log := logger("routing")
	log.info("default route found: interface %s, gateway %s, assigned IP %s and family v4",
		network.link, network.gateway, network.address)
	log.info("local ipnet found: %s", network.local)
	if err := requireNetAdmin(); err != nil {
		return err
	}
	firewall := firewall{network: network, log: logger("firewall")}
	if env("FIREWALL", "on") == "on" {
		if err := firewall.enable(); err != nil {
			return err
		}
	}
	settings, err := readSettings(network)
	if err != nil {
		return err
	}
	logLine(levelInfo, "", settings.summary())
	if err := firewall.addRoutes(settings.outboundSubnets); err != nil {
		return err
	}
	defer firewall.removeRoutes()
	if err := ensureTun(); err != nil {
		return err
	}
	health := newHealth(settings)
	if err := health.serve(); err != nil {
		return err
	}
	serveControl(settings)
	loop := loop{settings: settings, firewall: &firewall, health: health}
	loop.run(ctx)
	logLine(levelWarn, "", "Caught OS signal terminated, shutting down")
	return nil
}

// requireNetAdmin looks at the effective capabilities of this process.
func requireNetAdmin() error {
	const netAdmin = 12
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		value, found := strings.CutPrefix(line, "CapEff:")
		if !found {
			continue
		}
		effective, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			return err
		}
		if effective&(1<<netAdmin) == 0 {
			return errors.New("NET_ADMIN capability is missing: iptables: Permission denied (you must be root)")
		}
		return nil
	}
	return errors.New("/proc/self/status has no line CapEff")
}

// ensureTun makes the device file that the VPN needs.
func ensureTun() error {
	const path = "/dev/net/tun"
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		return file.Close()
	}
	logLine(levelInfo, "", "TUN device is not available: "+err.Error()+"; creating it...")
	if err := os.MkdirAll("/dev/net", 0o751); err != nil {
		return fmt.Errorf("creating tun device: %w", err)
	}
	const major, minor = 10, 200
	if err := syscall.Mknod(path, syscall.S_IFCHR|0o600, major<<8|minor); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("creating tun device: %w", err)
	}
	file, err = os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("unix opening TUN device file: %w", err)
	}
	return file.Close()
}

// env returns an environment variable, or a default if it is absent or empty.
func env(name, absent string) string {
	if value := strings.TrimSpace(os.Getenv(name)); value != "" {
		return value
	}
	return absent
}
