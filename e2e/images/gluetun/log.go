package main

import (
	"fmt"
	"os"
	"sync"
	"time"
)

type level string

// The levels with the colours that they have in a log, whether it is a terminal or not.
const (
	levelInfo  level = "\x1b[32mINFO\x1b[0m"
	levelWarn  level = "\x1b[33mWARN\x1b[0m"
	levelError level = "\x1b[31mERROR\x1b[0m"
)

var logMutex sync.Mutex

// logLine writes a line such as `2026-01-02T15:04:05Z INFO [openvpn] text`.
func logLine(level level, component, text string) {
	if component != "" {
		component = "[" + component + "] "
	}
	logMutex.Lock()
	defer logMutex.Unlock()
	fmt.Fprintf(os.Stdout, "%s %s %s%s\n", time.Now().UTC().Format(time.RFC3339), level, component, text)
}

// logger writes lines of one component.
type logger string

func (l logger) info(format string, args ...any) {
	logLine(levelInfo, string(l), fmt.Sprintf(format, args...))
}
func (l logger) warn(format string, args ...any) {
	logLine(levelWarn, string(l), fmt.Sprintf(format, args...))
}
func (l logger) error(format string, args ...any) {
	logLine(levelError, string(l), fmt.Sprintf(format, args...))
}
