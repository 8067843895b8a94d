package main

import (
	"context"
	"errors"
	"time"
)

const (
	tunnel      = "tun0"
	firstPause  = 15 * time.Second
	stopTimeout = 2 * time.Second
)

// loop runs the VPN again and again.
type loop struct {
	settings settings
	firewall *firewall
	health   *health
}

func (l *loop) run(ctx context.Context) {
	log, pause := logger("vpn"), firstPause
	for ctx.Err() == nil {
		unhealthy, err := l.once(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case unhealthy != nil:
			log.warn("restarting VPN because it failed to pass the healthcheck: %s", unhealthy)
			log.info("stopping")
			log.info("starting")
			pause = firstPause
			continue
		case err != nil:
			log.error("%s", err)
		}
		log.info("retrying in %s", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause *= 2
	}
}

// once runs the VPN until it ends by itself or is not healthy any more.
func (l *loop) once(ctx context.Context) (unhealthy, err error) {
	if l.settings.provider != custom {
		return nil, errors.New("finding a valid server connection: filtering servers: no server found")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up := make(chan struct{}, 8)
	ended := make(chan error, 1)
	if l.settings.vpnType == openVPN {
		go func() { ended <- runOpenVPN(ctx, l.settings.openVPN, l.firewall, up) }()
	} else {
		go func() { ended <- runWireGuard(ctx, l.settings.wireGuard, l.firewall, up) }()
	}
	sick := make(chan error, 8)
	endWatch := func() {}
	defer func() { endWatch() }()
	for {
		select {
		case <-up:
			// OpenVPN may come up several times while it runs.
			endWatch()
			watchCtx, end := context.WithCancel(ctx)
			endWatch = end
			go func() {
				if err := l.health.watch(watchCtx); err != nil && watchCtx.Err() == nil {
					sick <- err
				}
			}()
		case err := <-sick:
			cancel()
			<-ended
			return err, nil
		case err := <-ended:
			return nil, err
		}
	}
}
