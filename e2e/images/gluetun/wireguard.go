package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// runWireGuard sets WireGuard up and keeps it until ctx ends, or wireguard-go does.
func runWireGuard(ctx context.Context, settings wireGuardSettings, firewall *firewall, up chan<- struct{}) error {
	log := logger(wireGuard)
	log.info("Using userspace implementation since Kernel support does not exist")
	log.info("Connecting to %s", settings.endpoint)
	if err := firewall.allow("udp", settings.endpoint, tunnel); err != nil {
		return err
	}
	if err := os.MkdirAll("/var/run/wireguard", 0o755); err != nil {
		return err
	}
	process := exec.CommandContext(ctx, "wireguard-go", "--foreground", tunnel)
	process.Cancel = func() error { return process.Process.Signal(syscall.SIGTERM) }
	process.WaitDelay = stopTimeout
	// Its banner is not for users of gluetun, which has WireGuard built in.
	var said strings.Builder
	process.Stdout, process.Stderr = &said, &said
	process.Env = append(os.Environ(), "LOG_LEVEL=error")
	if err := process.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	if err := configureWireGuard(ctx, settings); err != nil {
		_ = process.Cancel()
		<-ended
		return err
	}
	log.info("Wireguard setup is complete. Note Wireguard is a silent protocol and it may or may not work, without giving " +
		"any error message. Typically i/o timeout errors indicate the Wireguard connection is not working.")
	up <- struct{}{}
	err := <-ended
	_, _ = command("ip", "rule", "delete", "priority", wireGuardPriority)
	if ctx.Err() == nil {
		return fmt.Errorf("wireguard-go ended: %v: %s", err, said.String())
	}
	return err
}

func configureWireGuard(ctx context.Context, settings wireGuardSettings) error {
	socket := "/var/run/wireguard/" + tunnel + ".sock"
	for {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if !pauseFor(ctx, 10*time.Millisecond) {
			return ctx.Err()
		}
	}
	key := func(name, value string) (string, error) {
		path := "/var/run/wireguard/" + name
		return path, os.WriteFile(path, []byte(value+"\n"), 0o400)
	}
	private, err := key("private", settings.privateKey)
	if err != nil {
		return err
	}
	defer os.Remove(private)
	arguments := []string{
		"set", tunnel, "fwmark", wireGuardMark, "private-key", private,
		"peer", settings.publicKey, "endpoint", settings.endpoint.String(), "allowed-ips", "0.0.0.0/0",
	}
	if settings.presharedKey != "" {
		preshared, err := key("preshared", settings.presharedKey)
		if err != nil {
			return err
		}
		defer os.Remove(preshared)
		arguments = append(arguments, "preshared-key", preshared)
	}
	commands := [][]string{append([]string{"wg"}, arguments...)}
	for _, address := range settings.addresses {
		commands = append(commands, []string{"ip", "address", "add", address.String(), "dev", tunnel})
	}
	// What is not yet encrypted goes into the tunnel, unless the main table has a route
	// to it that is not the default one.
	commands = append(commands,
		[]string{"ip", "link", "set", tunnel, "up", "mtu", "1320"},
		[]string{"ip", "route", "replace", "default", "dev", tunnel, "table", wireGuardMark},
	)
	for _, words := range commands {
		if _, err := command(words[0], words[1:]...); err != nil {
			return fmt.Errorf("setting up Wireguard: %w", err)
		}
	}
	// Unlike for the other rules, gluetun does not check whether a killed container left this one.
	rule := []string{"not", "fwmark", wireGuardMark, "lookup", wireGuardMark, "priority", wireGuardPriority}
	if _, err := command("ip", append([]string{"rule", "add"}, rule...)...); err != nil {
		if strings.Contains(err.Error(), "File exists") {
			return fmt.Errorf("adding ip rule %s: from all to all table %s: file exists", wireGuardPriority, wireGuardMark)
		}
		return err
	}
	return nil
}
