package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	openVPNConfig = "/etc/openvpn/target.ovpn"
	openVPNAuth   = "/etc/openvpn/auth.conf"
)

// replaced are options of the user's file that are set here.
var replaced = []string{"up", "down", "verb", "auth-user-pass", "user", "proto", "remote", "dev"}

// runOpenVPN runs openvpn until it ends; each time its tunnel comes up it says so on up.
func runOpenVPN(ctx context.Context, settings openVPNSettings, firewall *firewall, up chan<- struct{}) error {
	if err := writeOpenVPNConfig(settings); err != nil {
		return err
	}
	if err := firewall.allow(settings.protocol, settings.endpoint, tunnel); err != nil {
		return err
	}
	process := exec.CommandContext(ctx, "openvpn", "--config", openVPNConfig)
	process.Cancel = func() error { return process.Process.Signal(syscall.SIGTERM) }
	process.WaitDelay = stopTimeout
	output, err := process.StdoutPipe()
	if err != nil {
		return err
	}
	process.Stderr = process.Stdout
	if err := process.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		level, text := openVPNLine(lines.Text())
		logLine(level, openVPN, text)
		if text == "Initialization Sequence Completed" {
			up <- struct{}{}
		}
	}
	return process.Wait()
}

func writeOpenVPNConfig(settings openVPNSettings) error {
	var lines []string
	for _, line := range settings.lines {
		words := strings.Fields(line)
		if len(words) == 0 || !slices.Contains(replaced, words[0]) {
			lines = append(lines, strings.TrimRight(line, "\r"))
		}
	}
	protocol := settings.protocol
	if protocol == "tcp" {
		protocol = "tcp-client"
	}
	lines = append(lines,
		"dev "+tunnel, "dev-type tun", "proto "+protocol,
		fmt.Sprintf("remote %s %d", settings.endpoint.Addr(), settings.endpoint.Port()),
		"mute-replay-warnings", "auth-nocache", "auth-retry nointeract", "suppress-timestamps", "verb 1",
		`pull-filter ignore "auth-token"`, `pull-filter ignore "route-ipv6"`, `pull-filter ignore "ifconfig-ipv6"`)
	if settings.user != "" {
		lines = append(lines, "auth-user-pass "+openVPNAuth)
	}
	if err := os.MkdirAll("/etc/openvpn", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(openVPNAuth, []byte(settings.user+"\n"+settings.password+"\n"), 0o400); err != nil {
		return err
	}
	return os.WriteFile(openVPNConfig, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// openVPNLine returns the level that gluetun assigns to a line of openvpn, and the text.
func openVPNLine(line string) (level, string) {
	for prefix, level := range map[string]level{
		"NOTE: ": levelInfo, "WARNING: ": levelWarn, "ERROR: ": levelError, "Options error: ": levelError,
	} {
		if text, found := strings.CutPrefix(line, prefix); found {
			return level, text
		}
	}
	switch {
	case line == "AUTH: Received control message: AUTH_FAILED":
		return levelError, line + "\n\nYour credentials might be wrong\n"
	case strings.Contains(line, "TLS key negotiation failed to occur within 60 seconds"):
		return levelWarn, line
	}
	return levelInfo, line
}

// pauseFor waits, unless ctx ends before.
func pauseFor(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}
