package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	startupTimeout = 6 * time.Second
	checkPeriod    = time.Minute
)

// health is the state that the health server reports: unhealthy until a connection
// through the tunnel succeeds.
type health struct {
	settings settings
	log      logger
	mutex    sync.Mutex
	err      error
}

func newHealth(settings settings) *health {
	return &health{settings: settings, log: "healthcheck", err: errors.New("healthcheck did not run yet")}
}

func (h *health) set(err error) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.err = err
}

// serve starts the health server.
func (h *health) serve() error {
	listener, err := net.Listen("tcp", h.settings.healthAddress)
	if err != nil {
		return fmt.Errorf("health server: %w", err)
	}
	h.log.info("listening on %s", h.settings.healthAddress)
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h.mutex.Lock()
		defer h.mutex.Unlock()
		if h.err != nil {
			http.Error(w, h.err.Error(), http.StatusInternalServerError)
		}
	}))
	return nil
}

// check dials the targets until one answers; to port 443 it shakes hands too.
func (h *health) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startupTimeout)
	defer cancel()
	var last error
	for _, target := range h.settings.healthTargets {
		if !strings.Contains(target, ":") {
			target += ":443"
		}
		connection, err := new(net.Dialer).DialContext(ctx, "tcp4", target)
		if err != nil {
			last = fmt.Errorf("dialing: %w", err)
			continue
		}
		defer connection.Close()
		host, port, _ := net.SplitHostPort(target)
		if port != "443" {
			return nil
		}
		if err := tls.Client(connection, &tls.Config{ServerName: host}).HandshakeContext(ctx); err != nil {
			last = fmt.Errorf("running TLS handshake: %w", err)
			continue
		}
		return nil
	}
	return last
}

// watch checks now and then, until ctx ends or a check fails for good.
func (h *health) watch(ctx context.Context) error {
	if err := h.check(ctx); err != nil {
		h.set(err)
		return fmt.Errorf("startup check: %w", err)
	}
	h.set(nil)
	go publishIP(ctx, h.settings)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(checkPeriod):
		}
		var err error
		for range 10 {
			if err = h.check(ctx); err == nil || ctx.Err() != nil {
				break
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		h.set(err)
		if err != nil {
			return fmt.Errorf("small periodic check: %w", err)
		}
	}
}

// askHealth is the subcommand healthcheck.
func askHealth(address string) error {
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Get("http://" + address)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return fmt.Errorf("HTTP response status is not OK: %s: %s", response.Status, strings.TrimSpace(string(body)))
}

// publishIP asks for the public address, through the tunnel, and writes it down.
func publishIP(ctx context.Context, settings settings) {
	log := logger("ip getter")
	name, base, found := strings.Cut(settings.publicIPAPI, "#")
	if !found || name != "echoip" {
		base = "https://ipinfo.io"
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/json", nil)
	if err != nil {
		log.error("fetching information: %s", err)
		return
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.error("fetching information: %s", err)
		return
	}
	defer response.Body.Close()
	var answer struct {
		IP      string `json:"ip"`
		Country string `json:"country"`
		Region  string `json:"region_name"`
		City    string `json:"city"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		log.error("fetching information: decoding response: %s", err)
		return
	}
	log.info("Public IP address is %s (%s, %s, %s - source: %s)", answer.IP, answer.Country, answer.Region, answer.City, settings.publicIPAPI)
	if err := os.MkdirAll(filepath.Dir(settings.publicIPFile), 0o755); err == nil {
		err = os.WriteFile(settings.publicIPFile, []byte(answer.IP), 0o644)
	}
	if err != nil {
		log.error("writing public ip file: %s", err)
	}
}

// serveControl starts the control server. Its status says `running` whatever the VPN does.
func serveControl(settings settings) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/vpn/status", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, `{"status":"running"}`) })
	mux.HandleFunc("GET /v1/publicip/ip", func(w http.ResponseWriter, _ *http.Request) {
		address, _ := os.ReadFile(settings.publicIPFile)
		fmt.Fprintf(w, `{"public_ip":%q}`+"\n", address)
	})
	address := env("HTTP_CONTROL_SERVER_ADDRESS", "127.0.0.1:8000")
	go func() {
		if err := http.ListenAndServe(address, mux); err != nil {
			logger("http server").error("%s", err)
		}
	}()
	logger("http server").info("http server listening on %s", address)
}
